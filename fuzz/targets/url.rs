//! A connection URI is read or refused, never with a panic, and a refusal does not give its password away.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto_pg::Url;

const PASSWORD: &str = "Geheim-4711";

fuzz_target!(|text: &str| {
    if let Ok(url) = Url::parse(text) {
        assert!(!url.hosts.is_empty());
        let session = url.session("default");
        assert!(!session.user.is_empty() && !session.database.is_empty());
    }
    let secret = format!("postgresql://user:{PASSWORD}@{text}");
    if let Err(error) = Url::parse(&secret) {
        let unknown_parameter = text.contains(PASSWORD);
        assert!(unknown_parameter || !error.to_string().contains(PASSWORD), "{error}");
    }
});
