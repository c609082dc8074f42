//! Sessions with a real server: what their owner does turn by turn, and the recordings of what both sides said.
//!
//! A recording has two lines for each turn: the bytes of the client (`>`) and those of the server (`<`), escaped. The
//! first turn is the start, without the start-up message, which names whoever recorded it.

use proto_pg::{CloseReason, Connection, Event, Limits, Session, Statement, Value, oid};
use std::path::Path;

/// One session.
pub(crate) struct Scene {
    /// The name of its recording.
    pub(crate) name: &'static str,
    /// What has to be there before it starts.
    pub(crate) setup: &'static str,
    /// What it prepares.
    pub(crate) statements: &'static [Statement],
    /// What its owner does in each turn after the first.
    pub(crate) turns: &'static [fn(&mut Connection<u32>)],
    /// What comes of it, without the parameters that the server reports at the start.
    pub(crate) events: &'static [&'static str],
}

/// What both sides said in one turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// The client's bytes.
    pub(crate) client: Vec<u8>,
    /// The server's bytes.
    pub(crate) server: Vec<u8>,
}

static STATEMENTS: [Statement; 9] = [
    Statement { name: "divide", sql: "SELECT $1 / $2", parameter_types: &[oid::INT4, oid::INT4] },
    Statement { name: "wide", sql: "SELECT repeat('é', $1), NULL, ''", parameter_types: &[oid::INT4] },
    Statement { name: "count", sql: "SELECT generate_series(1, $1)", parameter_types: &[oid::INT4] },
    Statement { name: "insert", sql: "INSERT INTO pair VALUES ($1)", parameter_types: &[oid::INT4] },
    Statement { name: "notice", sql: "DROP TABLE IF EXISTS nowhere", parameter_types: &[] },
    Statement {
        name: "set",
        sql: "SELECT set_config('application_name', $1, false)",
        parameter_types: &[oid::TEXT],
    },
    Statement { name: "listen", sql: "LISTEN till", parameter_types: &[] },
    Statement { name: "notify", sql: "SELECT pg_notify('till', $1)", parameter_types: &[oid::TEXT] },
    Statement { name: "end", sql: "SELECT pg_terminate_backend(pg_backend_pid())", parameter_types: &[] },
];
const PAIR: &str = "CREATE TABLE pair (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
const DIVIDE: usize = 0;
const WIDE: usize = 1;
const COUNT: usize = 2;
const INSERT: usize = 3;
const NOTICE: usize = 4;
const SET: usize = 5;
const LISTEN: usize = 6;
const NOTIFY: usize = 7;
const END: usize = 8;

static REFUSED: [Statement; 2] = [
    Statement { name: "good", sql: "SELECT 1", parameter_types: &[] },
    Statement { name: "bad", sql: "SELECT * FROM nowhere", parameter_types: &[] },
];

/// Every session that was recorded.
pub(crate) static SCENES: [Scene; 6] = [
    Scene {
        name: "committed",
        setup: PAIR,
        statements: &STATEMENTS,
        turns: &[
            |lane| {
                call(lane, 1, DIVIDE, &[Value::Int4(14), Value::Int4(2)]);
                call(lane, 2, WIDE, &[Value::Int4(150)]);
                call(lane, 3, COUNT, &[Value::Int4(3)]);
                call(lane, 4, COUNT, &[Value::Int4(0)]);
                call(lane, 5, INSERT, &[Value::Int4(1)]);
                lane.sync();
            },
            Connection::sync,
        ],
        events: &[
            "Ready",
            "Row 1",
            "Done 1 SELECT 1",
            "Row 2",
            "Done 2 SELECT 1",
            "Row 3",
            "Row 3",
            "Row 3",
            "Done 3 SELECT 3",
            "Done 4 SELECT 0",
            "Done 5 INSERT 0 1",
            "Committed",
            "Committed",
            "Closed",
        ],
    },
    Scene {
        name: "failed",
        setup: PAIR,
        statements: &STATEMENTS,
        turns: &[|lane| {
            for (ticket, divisor) in (1..).zip([1, 0, 1]) {
                call(lane, ticket, DIVIDE, &[Value::Int4(1), Value::Int4(divisor)]);
            }
            lane.sync();
            call(lane, 4, DIVIDE, &[Value::Int4(1), Value::Int4(1)]);
            lane.sync();
            // A value that does not fit its type: the Bind fails.
            call(lane, 5, DIVIDE, &[Value::Int8(1), Value::Int4(1)]);
            call(lane, 6, DIVIDE, &[Value::Int4(1), Value::Int4(1)]);
            lane.sync();
        }],
        events: &[
            "Ready",
            "Row 1",
            "Done 1 SELECT 1",
            "Failed 2 22012",
            "RolledBack 1",
            "RolledBack 3",
            "Aborted",
            "Row 4",
            "Done 4 SELECT 1",
            "Committed",
            "Failed 5 22P03",
            "RolledBack 6",
            "Aborted",
            "Closed",
        ],
    },
    Scene {
        name: "commit_failed",
        setup: PAIR,
        statements: &STATEMENTS,
        turns: &[
            |lane| {
                call(lane, 1, INSERT, &[Value::Int4(7)]);
                call(lane, 2, INSERT, &[Value::Int4(7)]);
                lane.sync();
            },
            |lane| {
                call(lane, 3, INSERT, &[Value::Int4(7)]);
                lane.sync();
            },
        ],
        events: &[
            "Ready",
            "Done 1 INSERT 0 1",
            "Done 2 INSERT 0 1",
            "RolledBack 1",
            "RolledBack 2",
            "Aborted 23505 \"pair_id_key\"",
            "Done 3 INSERT 0 1",
            "Committed",
            "Closed",
        ],
    },
    Scene {
        name: "told",
        setup: PAIR,
        statements: &STATEMENTS,
        turns: &[|lane| {
            call(lane, 1, LISTEN, &[]);
            call(lane, 2, NOTICE, &[]);
            call(lane, 3, SET, &[Value::Text("till 2")]);
            call(lane, 4, NOTIFY, &[Value::Text("olá")]);
            lane.sync();
        }],
        events: &[
            "Ready",
            "Done 1 LISTEN",
            "Notice 00000",
            "Done 2 DROP TABLE",
            "Row 3",
            "Done 3 SELECT 1",
            "Row 4",
            "Done 4 SELECT 1",
            "Notification till olá",
            "Parameter application_name till 2",
            "Committed",
            "Closed",
        ],
    },
    Scene {
        name: "ended",
        setup: PAIR,
        statements: &STATEMENTS,
        turns: &[|lane| {
            call(lane, 1, DIVIDE, &[Value::Int4(1), Value::Int4(1)]);
            call(lane, 2, END, &[]);
            call(lane, 3, DIVIDE, &[Value::Int4(1), Value::Int4(1)]);
            lane.sync();
        }],
        events: &[
            "Ready",
            "Row 1",
            "Done 1 SELECT 1",
            "Row 2",
            "InDoubt 1",
            "InDoubt 2",
            "InDoubt 3",
            "Closed 57P01",
        ],
    },
    Scene {
        name: "refused",
        setup: "",
        statements: &REFUSED,
        turns: &[],
        events: &["Closed: statement \"bad\": ERROR 42P01: relation \"nowhere\" does not exist"],
    },
];

fn call(lane: &mut Connection<u32>, ticket: u32, statement: usize, parameters: &[Value<'_>]) {
    lane.call(ticket, statement, parameters).expect("there is room");
}

impl Scene {
    /// A lane whose start-up message is pending.
    pub(crate) fn lane(&self, session: &Session) -> Connection<u32> {
        let limits = Limits {
            message_len_max_bytes: 512,
            text_len_max_bytes: 65_536,
            send_len_max_bytes: 4096,
            in_flight_calls_max: 8,
        };
        Connection::new(session, self.statements, limits)
    }

    /// Ends the session and says whether everything came of it that should.
    pub(crate) fn check(&self, mut lane: Connection<u32>, mut log: Vec<String>) {
        lane.close(CloseReason::PeerClosed);
        drain(&mut lane, &mut log);
        let said: Vec<&str> = log.iter().map(|line| line.split(" = ").next().unwrap_or(line)).collect();
        let start = said.iter().take_while(|line| line.starts_with("Parameter")).count();
        assert_eq!(said[start..], *self.events, "{}", self.name);
    }
}

/// Adds every event there is. What stands behind ` = ` may differ from session to session.
pub(crate) fn drain(lane: &mut Connection<u32>, log: &mut Vec<String>) {
    while let Some(event) = lane.poll_event() {
        log.push(match event {
            Event::Ready => "Ready".into(),
            Event::Row { ticket, row } => {
                let columns: Vec<_> = (0..row.columns_len()).map(|column| row.raw(column)).collect();
                format!("Row {ticket} = {columns:?}")
            }
            Event::Done { ticket, tag } => format!("Done {ticket} {tag}"),
            Event::Failed { ticket, error } => format!("Failed {ticket} {} = {error}", error.code),
            Event::RolledBack { ticket } => format!("RolledBack {ticket}"),
            Event::InDoubt { ticket } => format!("InDoubt {ticket}"),
            Event::Committed => "Committed".into(),
            Event::Aborted { error: None } => "Aborted".into(),
            Event::Aborted { error: Some(error) } => {
                format!("Aborted {} {:?} = {error}", error.code, error.constraint().unwrap_or_default())
            }
            Event::Notice(notice) => format!("Notice {} = {notice}", notice.code),
            Event::Parameter { name, value } => format!("Parameter {name} {value}"),
            Event::Notification { process_id, channel, payload } => {
                format!("Notification {channel} {payload} = {process_id}")
            }
            Event::Closed { reason: CloseReason::Statement(error) } => format!("Closed: {error}"),
            Event::Closed { reason } => match reason.code() {
                Some(code) => format!("Closed {code} = {reason}"),
                None => format!("Closed = {reason}"),
            },
            other => format!("{other:?}"),
        });
    }
}

/// What is pending, which the transport takes.
pub(crate) fn take_pending(lane: &mut Connection<u32>) -> Vec<u8> {
    let bytes = lane.send_pending().to_vec();
    lane.send_advance(bytes.len());
    bytes
}

/// Reads a recording.
pub(crate) fn read(path: &Path) -> Vec<Exchange> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut exchanges: Vec<Exchange> = vec![];
    for line in text.lines() {
        match (line.split_at_checked(2), exchanges.last_mut()) {
            (Some(("> ", bytes)), _) => exchanges.push(Exchange { client: unescape(bytes), server: vec![] }),
            (Some(("< ", bytes)), Some(exchange)) => exchange.server = unescape(bytes),
            (Some(_) | None, _) => panic!("{}: {line}", path.display()),
        }
    }
    exchanges
}

/// Writes a recording.
pub(crate) fn write(path: &Path, exchanges: &[Exchange]) {
    let lines = exchanges.iter().flat_map(|exchange| {
        [format!("> {}\n", exchange.client.escape_ascii()), format!("< {}\n", exchange.server.escape_ascii())]
    });
    std::fs::write(path, lines.collect::<String>()).expect("write the recording");
}

/// Undoes `escape_ascii`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = vec![];
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let byte = match (char, if char == '\\' { chars.next() } else { None }) {
            ('\\', Some('t')) => '\t',
            ('\\', Some('n')) => '\n',
            ('\\', Some('r')) => '\r',
            ('\\', Some('x')) => {
                let digits: String = chars.by_ref().take(2).collect();
                char::from(u8::from_str_radix(&digits, 16).expect("two hexadecimal digits"))
            }
            ('\\', Some(quoted)) => quoted,
            (plain, _) => plain,
        };
        bytes.push(u8::try_from(byte).expect("a byte"));
    }
    bytes
}
