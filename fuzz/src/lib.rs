//! What the fuzz targets share: bytes that arrive in pieces, and a connection that is ready for calls.

use std::sync::LazyLock;

use proto_pg::{Connection, Event, Limits, Session, Statement, oid};
use rinha::random::Random;

/// Bytes on their way to whoever reads them, a piece at a time.
pub struct Pieces<'a> {
    rest: &'a [u8],
    lens: Random,
    len_max: u64,
}

impl<'a> Pieces<'a> {
    /// All at once, as far as there is room for it.
    pub fn whole(bytes: &'a [u8]) -> Pieces<'a> {
        Pieces { rest: bytes, lens: Random::new(0), len_max: u64::MAX }
    }

    /// Cut as `how` says: it seeds the lengths, and its low three bits limit them to 1, 2, 4, ... 128 bytes.
    pub fn cut(bytes: &'a [u8], how: u8) -> Pieces<'a> {
        Pieces { rest: bytes, lens: Random::new(how.into()), len_max: 1 << (how & 7) }
    }

    /// Whether everything has arrived.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Puts the next piece into `space`, or what of it there is room for. Returns its length.
    pub fn arrive(&mut self, space: &mut [u8]) -> usize {
        let most = space.len().min(self.rest.len());
        let piece_len = usize::try_from(self.lens.between(1, self.len_max)).unwrap_or(usize::MAX);
        let (piece, rest) = self.rest.split_at(piece_len.min(most));
        space[..piece.len()].copy_from_slice(piece);
        self.rest = rest;
        piece.len()
    }
}

/// What a server says to a connection of [`started_connection`] until it takes calls: authenticated, idle, parsed, idle.
pub const STARTED: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I1\0\0\0\x04Z\0\0\0\x05I";

/// Calls that a connection takes before it is full.
pub const CALLS_MAX: u8 = 8;

/// A connection that has said nothing yet, with one statement of one `integer`. Small, so that short inputs reach its limits.
pub fn new_connection<T: Clone>() -> Connection<T> {
    static SESSION: LazyLock<Session> = LazyLock::new(|| Session {
        user: "user".into(),
        password: Some("password".into()),
        database: "database".into(),
        parameters: vec![],
        ..Session::default()
    });
    static STATEMENTS: [Statement<'static>; 1] = [Statement::new("s", "SELECT $1", &[oid::INT4])];
    let limits = Limits {
        message_len_max_bytes: 256,
        text_len_max_bytes: 320,
        send_len_max_bytes: 512,
        in_flight_calls_max: CALLS_MAX.into(),
    };
    Connection::new(&SESSION, &STATEMENTS, limits)
}

/// The same connection once it takes calls and has nothing to send.
pub fn ready_connection<T: Clone>() -> Connection<T> {
    let mut connection = new_connection();
    connection.recv_space()[..STARTED.len()].copy_from_slice(STARTED);
    connection.recv_commit(STARTED.len());
    assert!(matches!(connection.poll_event(), Some(Event::Ready)) && connection.poll_event().is_none());
    connection.send_advance(connection.send_pending().len());
    connection
}
