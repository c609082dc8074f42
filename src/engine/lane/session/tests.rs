//! What the log says to do about each refusal of PostgreSQL.

use proto_pg::{Connection, Event, Limits, Session};

use super::*;

/// The reason for which a session ends with this error while it logs in.
fn refused(code: &str, message: &str) -> CloseReason {
    let session = Session {
        user: "a".into(),
        password: None,
        database: "a".into(),
        parameters: Vec::new(),
        ..Session::default()
    };
    let limits = Limits {
        message_len_max_bytes: 512,
        text_len_max_bytes: 512,
        send_len_max_bytes: 512,
        in_flight_calls_max: 1,
    };
    let mut connection = Connection::<()>::new(&session, &[], limits);
    let mut bytes = Vec::new();
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
    crate::sim::postgres::message(&mut bytes, b'E', fields.as_bytes());
    connection.recv_space()[..bytes.len()].copy_from_slice(&bytes);
    connection.recv_commit(bytes.len());
    match connection.poll_event() {
        Some(Event::Closed { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_refusal_has_its_own_remedy() {
    let entry = "no pg_hba.conf entry for host \"10.0.0.9\", user \"a\", database \"a\", no encryption";
    for (code, message, remedy_has) in [
        ("28P01", "password authentication failed for user \"a\"", "the password in DATABASE_URL is wrong"),
        ("28000", entry, "without TLS: with sslmode=require"),
        ("28000", &entry.replace("10.0.0.9", "[local]"), "from this address: add one"),
        ("28000", &entry.replace("no encryption", "SSL encryption"), "from this address: add one"),
        ("28000", "role \"a\" does not exist", "look at user and role"),
        ("53300", "sorry, too many clients already", "raise max_connections"),
        ("08P01", "unsupported startup parameter: options", "take it out of DATABASE_URL"),
    ] {
        let remedy = remedy(&refused(code, message));
        assert!(remedy.contains(remedy_has), "{code} {message}: {remedy}");
    }
    assert_eq!(remedy(&refused("57P03", "the database system is starting up")), "");
}
