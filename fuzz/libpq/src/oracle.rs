//! libpq itself: the one place that calls C.
//!
//! Each call of C is `unsafe`, so it needs a file of its own. The crate `libpq` wraps them safely, but its bindings are made
//! by `bindgen`, which needs `libclang` on every machine that runs this; and it takes values for UTF-8.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

/// What libpq has read: each keyword that was given a value.
pub type Options = BTreeMap<String, Vec<u8>>;

/// What libpq makes of a connection string, or its error.
pub fn parse(text: &str) -> Result<Options, String> {
    let text = CString::new(text).expect("a string of the generator has no NUL");
    let mut error: *mut c_char = ptr::null_mut();
    // SAFETY: `text` is a C string, and `error` takes one that is ours to free.
    let options = unsafe { pq_sys::PQconninfoParse(text.as_ptr(), &raw mut error) };
    if options.is_null() {
        // SAFETY: without options there is an error, unless memory has run out; `taken` copes with that.
        return Err(String::from_utf8_lossy(&unsafe { taken(error) }).into_owned());
    }
    // SAFETY: they come from libpq, and are freed once.
    unsafe { listed(options, |option| (!option.val.is_null()).then_some(option.val)) }
}

/// The keywords that this libpq knows.
pub fn keywords() -> Vec<String> {
    // SAFETY: they come from libpq, and are freed once.
    let options = unsafe { listed(pq_sys::PQconndefaults(), |option| Some(option.keyword)) };
    options.unwrap_or_default().into_keys().collect()
}

/// How libpq encodes a password for the server to keep: `SCRAM-SHA-256$4096:salt$stored key:server key`.
pub fn encrypt(password: &str) -> String {
    let password = CString::new(password).expect("a password of the generator has no NUL");
    // SAFETY: all are C strings. The connection was refused for its options; only without an algorithm would it be asked.
    let encrypted = unsafe {
        let connection = pq_sys::PQconnectStart(c"sslmode=none".as_ptr());
        let (user, algorithm) = (c"alice".as_ptr(), c"scram-sha-256".as_ptr());
        let encrypted = pq_sys::PQencryptPasswordConn(connection, password.as_ptr(), user, algorithm);
        let encrypted = taken(encrypted);
        pq_sys::PQfinish(connection);
        encrypted
    };
    String::from_utf8(encrypted).expect("what a server keeps is ASCII")
}

/// libpq's version, as 150004 for 15.4.
pub fn version() -> i32 {
    // SAFETY: it takes nothing and returns a number.
    unsafe { pq_sys::PQlibVersion() }
}

/// Copies what `text_of` picks of each option, and frees the options.
///
/// # Safety
/// `options` are libpq's, or null, and nobody else's; what `text_of` picks is a C string of theirs.
unsafe fn listed(
    options: *mut pq_sys::PQconninfoOption,
    text_of: impl Fn(&pq_sys::PQconninfoOption) -> Option<*mut c_char>,
) -> Result<Options, String> {
    if options.is_null() {
        return Err("out of memory".to_owned());
    }
    let mut all = Options::new();
    let mut next = options;
    // SAFETY: the list ends with an option whose keyword is null.
    unsafe {
        while !(*next).keyword.is_null() {
            if let Some(text) = text_of(&*next) {
                let keyword = CStr::from_ptr((*next).keyword).to_string_lossy().into_owned();
                all.insert(keyword, CStr::from_ptr(text).to_bytes().to_vec());
            }
            next = next.add(1);
        }
        pq_sys::PQconninfoFree(options);
    }
    Ok(all)
}

/// Copies a C string of libpq and frees it.
///
/// # Safety
/// `text` is libpq's, or null, and nobody else's.
unsafe fn taken(text: *mut c_char) -> Vec<u8> {
    if text.is_null() {
        return Vec::new();
    }
    // SAFETY: it is a C string that libpq has allocated.
    unsafe {
        let copy = CStr::from_ptr(text).to_bytes().to_vec();
        pq_sys::PQfreemem(text.cast());
        copy
    }
}
