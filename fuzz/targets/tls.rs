//! Whatever a server sends in place of a TLS session, in whatever pieces: no panic, no event but the end, and nothing of the
//! session leaves before the handshake.
//!
//! The input's first byte says how its bytes are cut (`Pieces::cut`) and whether the server is asked for TLS first; the rest is
//! what the server sends.
#![no_main]

use fuzz::{Pieces, new_connection};
use libfuzzer_sys::fuzz_target;
use proto_pg::Event;
use proto_pg::tls::{Tls, TlsConfig, TlsMode, TlsNegotiation, TlsOptions};

/// The bit of the input's first byte that asks for TLS at once.
const IS_DIRECT: u8 = 8;

fuzz_target!(|data: &[u8]| {
    let Some((&first, sent)) = data.split_first() else { return };
    let mut options = TlsOptions::default();
    options.mode = TlsMode::Require;
    if first & IS_DIRECT != 0 {
        options.negotiation = TlsNegotiation::Direct;
    }
    let config = TlsConfig::new(&options, |_| unreachable!("no file is named"));
    let config = config.expect("good options").expect("TLS is asked for");
    let mut connection = new_connection::<u8>();
    let mut tls = Tls::new(&config, "db.example").expect("a good name");
    let mut pieces = Pieces::cut(sent, first);
    while !pieces.is_empty() {
        let n = pieces.arrive(tls.recv_space());
        if n == 0 {
            break;
        }
        tls.recv_commit(n);
        while tls.exchange(&mut connection) {}
        while let Some(event) = connection.poll_event() {
            assert!(matches!(event, Event::Closed { .. }), "{event:?} of no session");
        }
        assert!(!tls.is_established(), "nobody here has a key");
    }
    assert!(connection.send_pending().len() < 200, "the start-up message has left, or more was queued");
});
