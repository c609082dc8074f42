//! The exchanges that PostgreSQL's test of libpq's pipeline mode has traces of (`src/test/modules/libpq_pipeline`), and the one
//! of its tests that collides on a key, as sessions of this crate. A call asks for no description of its rows, so Describe and
//! `RowDescription` are missing where libpq has them; the other messages are the same.

use super::{Scene, call};
use proto_pg::{Connection, ProtocolVersion, Statement, Value, oid};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A session and its messages.
pub(crate) struct Pipeline {
    /// The session.
    pub(crate) scene: Scene,
    /// For each turn of the owner: what goes out and what comes back, by the names of the messages.
    pub(crate) messages: &'static [(&'static str, &'static str)],
}

const SEAT: &str = "CREATE TABLE seat (id int PRIMARY KEY)";

static STATEMENTS: [Statement<'static>; 5] = [
    Statement::new("begin", "BEGIN", &[]),
    Statement::new("divide", "SELECT 0 / 0", &[]),
    Statement::new("rollback", "ROLLBACK", &[]),
    Statement::new("take", "INSERT INTO seat VALUES ($1)", &[oid::INT4]),
    Statement::new("one", "SELECT 1", &[]),
];
const BEGIN: usize = 0;
const DIVIDE: usize = 1;
const ROLLBACK: usize = 2;
const TAKE: usize = 3;
const ONE: usize = 4;

/// Parse, Bind and Execute, with two tickets; libpq's `PQsendQueryParams`.
fn query(connection: &mut Connection<u32>, ticket: u32, sql: &str, parameters: &[i32]) {
    let types = vec![oid::INT4; parameters.len()];
    let parameters: Vec<_> = parameters.iter().map(|&value| Value::Int4(value)).collect();
    connection.prepare(ticket, &Statement::new("", sql, &types)).expect("there is room");
    connection.call_named(ticket + 1, "", &parameters).expect("there is room");
}

fn take(connection: &mut Connection<u32>, ticket: u32, id: i32) {
    call(connection, ticket, TAKE, &[Value::Int4(id)]);
}

fn simple_query(connection: &mut Connection<u32>, ticket: u32, sql: &str) {
    connection.simple_query(ticket, sql).expect("there is room");
}

fn flush(connection: &mut Connection<u32>) {
    connection.flush().expect("there is room");
}

/// The command is one that the connection refuses now, and nothing of it is sent.
fn refused(connection: &mut Connection<u32>, command: fn(&mut Connection<u32>)) {
    let pending = connection.send_pending().to_vec();
    assert!(catch_unwind(AssertUnwindSafe(|| command(connection))).is_err(), "the command is accepted");
    assert_eq!(connection.send_pending(), pending);
}

/// The sessions, in the order of libpq's names.
pub(crate) static PIPELINES: [Pipeline; 10] = [
    // A connection refuses a simple query and Terminate in the middle of a batch, and takes the query behind its Sync.
    Pipeline {
        scene: Scene {
            name: "pipeline disallowed",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &STATEMENTS,
            turns: &[|connection| {
                call(connection, 1, ONE, &[]);
                refused(connection, |connection| simple_query(connection, 2, "SELECT 1"));
                refused(connection, Connection::terminate);
                connection.sync();
                simple_query(connection, 2, "SELECT 1");
            }],
            events: &[
                "Ready",
                "Row 1",
                "Done 1 SELECT 1",
                "Committed",
                "Columns 2 ?column? 23",
                "TextRow 2 1",
                "Done 2 SELECT 1",
                "Committed",
                "Closed",
            ],
        },
        messages: &[(
            "Bind, Execute, Sync, Query",
            "BindComplete, DataRow, CommandComplete, ReadyForQuery, RowDescription, DataRow, CommandComplete, ReadyForQuery",
        )],
    },
    Pipeline {
        scene: Scene {
            name: "pipeline multi",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &STATEMENTS,
            turns: &[|connection| {
                for ticket in [1, 3, 5] {
                    query(connection, ticket, "SELECT $1", &[1]);
                    connection.sync();
                }
            }],
            events: &[
                "Ready",
                "Done 1 ",
                "Row 2",
                "Done 2 SELECT 1",
                "Committed",
                "Done 3 ",
                "Row 4",
                "Done 4 SELECT 1",
                "Committed",
                "Done 5 ",
                "Row 6",
                "Done 6 SELECT 1",
                "Committed",
                "Closed",
            ],
        },
        messages: &[(
            "Parse, Bind, Execute, Sync, Parse, Bind, Execute, Sync, Parse, Bind, Execute, Sync",
            "ParseComplete, BindComplete, DataRow, CommandComplete, ReadyForQuery, ParseComplete, BindComplete, DataRow, CommandComplete, ReadyForQuery, ParseComplete, BindComplete, DataRow, CommandComplete, ReadyForQuery",
        )],
    },
    // Rows come before any Sync; without one nothing is final.
    Pipeline {
        scene: Scene {
            name: "pipeline nosync",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &STATEMENTS,
            turns: &[|connection| {
                for ticket in 1..=8 {
                    call(connection, ticket, ONE, &[]);
                }
                flush(connection);
            }],
            events: &[
                "Ready",
                "Row 1",
                "Done 1 SELECT 1",
                "Row 2",
                "Done 2 SELECT 1",
                "Row 3",
                "Done 3 SELECT 1",
                "Row 4",
                "Done 4 SELECT 1",
                "Row 5",
                "Done 5 SELECT 1",
                "Row 6",
                "Done 6 SELECT 1",
                "Row 7",
                "Done 7 SELECT 1",
                "Row 8",
                "Done 8 SELECT 1",
                "RolledBack 1",
                "RolledBack 2",
                "RolledBack 3",
                "RolledBack 4",
                "RolledBack 5",
                "RolledBack 6",
                "RolledBack 7",
                "RolledBack 8",
                "Closed",
            ],
        },
        messages: &[(
            "Bind, Execute, Bind, Execute, Bind, Execute, Bind, Execute, Bind, Execute, Bind, Execute, Bind, Execute, Bind, Execute, Flush",
            "BindComplete, DataRow, CommandComplete, BindComplete, DataRow, CommandComplete, BindComplete, DataRow, CommandComplete, BindComplete, DataRow, CommandComplete, BindComplete, DataRow, CommandComplete, BindComplete, DataRow, CommandComplete, BindComplete, DataRow, CommandComplete, BindComplete, DataRow, CommandComplete",
        )],
    },
    Pipeline {
        scene: Scene {
            name: "pipeline abort",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &STATEMENTS,
            turns: &[
                |connection| {
                    take(connection, 1, 1);
                    query(connection, 2, "SELECT no_such_function($1)", &[1]);
                    take(connection, 4, 2);
                    connection.sync();
                    take(connection, 5, 3);
                    connection.sync();
                },
                |connection| {
                    query(connection, 6, "SELECT 1; SELECT 2", &[]);
                    connection.sync();
                },
                // An error behind rows.
                |connection| {
                    query(connection, 8, "SELECT 6 / n FROM generate_series(3, -1, -1) AS n", &[]);
                    connection.sync();
                },
                |connection| simple_query(connection, 10, "SELECT id FROM seat"),
            ],
            events: &[
                "Ready",
                "Done 1 INSERT 0 1",
                "Failed 2 42883",
                "RolledBack 1",
                "RolledBack 3",
                "RolledBack 4",
                "Aborted",
                "Done 5 INSERT 0 1",
                "Committed",
                "Failed 6 42601",
                "RolledBack 7",
                "Aborted",
                "Done 8 ",
                "Row 9",
                "Row 9",
                "Row 9",
                "Failed 9 22012",
                "RolledBack 8",
                "Aborted",
                "Columns 10 id 23",
                "TextRow 10 3",
                "Done 10 SELECT 1",
                "Committed",
                "Closed",
            ],
        },
        messages: &[
            (
                "Bind, Execute, Parse, Bind, Execute, Bind, Execute, Sync, Bind, Execute, Sync",
                "BindComplete, CommandComplete, ErrorResponse, ReadyForQuery, BindComplete, CommandComplete, ReadyForQuery",
            ),
            ("Parse, Bind, Execute, Sync", "ErrorResponse, ReadyForQuery"),
            (
                "Parse, Bind, Execute, Sync",
                "ParseComplete, BindComplete, 3 DataRow, ErrorResponse, ReadyForQuery",
            ),
            ("Query", "RowDescription, DataRow, CommandComplete, ReadyForQuery"),
        ],
    },
    // Nothing is left over between two steps whose answers were flushed.
    Pipeline {
        scene: Scene {
            name: "pipeline idle",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &STATEMENTS,
            turns: &[
                |connection| {
                    connection.prepare(1, &Statement::new("", "SELECT 1", &[])).expect("there is room");
                    connection.bind(2, "", "", &[]).expect("there is room");
                    connection.describe_portal(3, "").expect("there is room");
                    connection.execute(4, "", 0).expect("there is room");
                    connection.close_portal(5, "").expect("there is room");
                    flush(connection);
                },
                Connection::sync,
                |connection| {
                    query(connection, 6, "SELECT 1", &[]);
                    flush(connection);
                },
                |connection| {
                    query(connection, 8, "SELECT 2", &[]);
                    flush(connection);
                },
                |connection| {
                    query(connection, 10, "SELECT pg_catalog.pg_advisory_unlock(1, 1)", &[]);
                    flush(connection);
                },
                Connection::sync,
            ],
            events: &[
                "Ready",
                "Done 1 ",
                "Done 2 ",
                "Columns 3 ?column? 23",
                "Row 4",
                "Done 4 SELECT 1",
                "Done 5 ",
                "Committed",
                "Done 6 ",
                "Row 7",
                "Done 7 SELECT 1",
                "Done 8 ",
                "Row 9",
                "Done 9 SELECT 1",
                "Done 10 ",
                "Notice 01000",
                "Row 11",
                "Done 11 SELECT 1",
                "Committed",
                "Closed",
            ],
        },
        messages: &[
            (
                "Parse, Bind, Describe, Execute, Close, Flush",
                "ParseComplete, BindComplete, RowDescription, DataRow, CommandComplete, CloseComplete",
            ),
            ("Sync", "ReadyForQuery"),
            ("Parse, Bind, Execute, Flush", "ParseComplete, BindComplete, DataRow, CommandComplete"),
            ("Parse, Bind, Execute, Flush", "ParseComplete, BindComplete, DataRow, CommandComplete"),
            (
                "Parse, Bind, Execute, Flush",
                "ParseComplete, BindComplete, NoticeResponse, DataRow, CommandComplete",
            ),
            ("Sync", "ReadyForQuery"),
        ],
    },
    Pipeline {
        scene: Scene {
            name: "pipeline prepared",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &[],
            turns: &[
                |connection| {
                    let sql = "SELECT $1, '42', $1::numeric, interval '1 sec'";
                    connection.prepare(1, &Statement::new("four", sql, &[oid::INT4])).expect("there is room");
                    connection.describe_statement(2, "four").expect("there is room");
                    connection.sync();
                },
                |connection| {
                    connection.close_statement(3, "four").expect("there is room");
                    connection.sync();
                },
                |connection| {
                    connection.describe_statement(4, "four").expect("there is room");
                    connection.sync();
                },
                // To close what is not there is no error.
                |connection| {
                    connection.close_statement(5, "four").expect("there is room");
                    connection.sync();
                },
                |connection| simple_query(connection, 6, "BEGIN"),
                |connection| simple_query(connection, 7, "DECLARE cursor CURSOR FOR SELECT 1"),
                |connection| {
                    connection.describe_portal(8, "cursor").expect("there is room");
                    connection.sync();
                },
                |connection| {
                    connection.close_portal(9, "cursor").expect("there is room");
                    connection.sync();
                },
                |connection| {
                    connection.describe_portal(10, "cursor").expect("there is room");
                    connection.sync();
                },
                |connection| {
                    connection.close_portal(11, "cursor").expect("there is room");
                    connection.sync();
                },
            ],
            events: &[
                "Ready",
                "Done 1 ",
                "ParameterTypes 2 [23]",
                "Columns 2 ?column? 23 ?column? 25 numeric 1700 interval 1186",
                "Committed",
                "Done 3 ",
                "Committed",
                "Failed 4 26000",
                "Aborted",
                "Done 5 ",
                "Committed",
                "Done 6 BEGIN",
                "InTransaction",
                "Done 7 DECLARE CURSOR",
                "InTransaction",
                "Columns 8 ?column? 23",
                "InTransaction",
                "Done 9 ",
                "InTransaction",
                "Failed 10 34000",
                "Aborted",
                "Done 11 ",
                "InTransaction",
                "Closed",
            ],
        },
        messages: &[
            ("Parse, Describe, Sync", "ParseComplete, ParameterDescription, RowDescription, ReadyForQuery"),
            ("Close, Sync", "CloseComplete, ReadyForQuery"),
            ("Describe, Sync", "ErrorResponse, ReadyForQuery"),
            ("Close, Sync", "CloseComplete, ReadyForQuery"),
            ("Query", "CommandComplete, ReadyForQuery"),
            ("Query", "CommandComplete, ReadyForQuery"),
            ("Describe, Sync", "RowDescription, ReadyForQuery"),
            ("Close, Sync", "CloseComplete, ReadyForQuery"),
            ("Describe, Sync", "ErrorResponse, ReadyForQuery"),
            ("Close, Sync", "CloseComplete, ReadyForQuery"),
        ],
    },
    Pipeline {
        scene: Scene {
            name: "pipeline simple",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &STATEMENTS,
            turns: &[|connection| {
                query(connection, 1, "SELECT $1", &[1]);
                connection.sync();
            }],
            events: &["Ready", "Done 1 ", "Row 2", "Done 2 SELECT 1", "Committed", "Closed"],
        },
        messages: &[(
            "Parse, Bind, Execute, Sync",
            "ParseComplete, BindComplete, DataRow, CommandComplete, ReadyForQuery",
        )],
    },
    // Each row is an event of its own, whatever mode libpq has for it.
    Pipeline {
        scene: Scene {
            name: "pipeline singlerow",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &STATEMENTS,
            turns: &[
                |connection| {
                    for (ticket, last) in [(1, 44), (3, 45), (5, 46)] {
                        query(connection, ticket, "SELECT generate_series(42, $1)", &[last]);
                    }
                    connection.sync();
                },
                |connection| {
                    query(connection, 7, "SELECT generate_series(0, 0)", &[]);
                    flush(connection);
                },
                |connection| {
                    query(connection, 9, "SELECT 1", &[]);
                    flush(connection);
                },
                Connection::sync,
            ],
            events: &[
                "Ready",
                "Done 1 ",
                "Row 2",
                "Row 2",
                "Row 2",
                "Done 2 SELECT 3",
                "Done 3 ",
                "Row 4",
                "Row 4",
                "Row 4",
                "Row 4",
                "Done 4 SELECT 4",
                "Done 5 ",
                "Row 6",
                "Row 6",
                "Row 6",
                "Row 6",
                "Row 6",
                "Done 6 SELECT 5",
                "Committed",
                "Done 7 ",
                "Row 8",
                "Done 8 SELECT 1",
                "Done 9 ",
                "Row 10",
                "Done 10 SELECT 1",
                "Committed",
                "Closed",
            ],
        },
        messages: &[
            (
                "Parse, Bind, Execute, Parse, Bind, Execute, Parse, Bind, Execute, Sync",
                "ParseComplete, BindComplete, 3 DataRow, CommandComplete, ParseComplete, BindComplete, 4 DataRow, CommandComplete, ParseComplete, BindComplete, 5 DataRow, CommandComplete, ReadyForQuery",
            ),
            ("Parse, Bind, Execute, Flush", "ParseComplete, BindComplete, DataRow, CommandComplete"),
            ("Parse, Bind, Execute, Flush", "ParseComplete, BindComplete, DataRow, CommandComplete"),
            ("Sync", "ReadyForQuery"),
        ],
    },
    // A failed block outlives its batch: the second batch fails in it, and the third begins with the ROLLBACK.
    Pipeline {
        scene: Scene {
            name: "pipeline transaction",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &STATEMENTS,
            turns: &[
                |connection| {
                    call(connection, 1, BEGIN, &[]);
                    call(connection, 2, DIVIDE, &[]);
                    call(connection, 3, ROLLBACK, &[]);
                    take(connection, 4, 1);
                    connection.sync();
                    take(connection, 5, 2);
                    connection.sync();
                    call(connection, 6, ROLLBACK, &[]);
                    take(connection, 7, 3);
                    connection.sync();
                    connection.sync();
                },
                |connection| simple_query(connection, 8, "SELECT id FROM seat"),
            ],
            events: &[
                "Ready",
                "Done 1 BEGIN",
                "Failed 2 22012",
                "RolledBack 3",
                "RolledBack 4",
                "Aborted",
                "Failed 5 25P02",
                "Aborted",
                "Done 6 ROLLBACK",
                "Done 7 INSERT 0 1",
                "Committed",
                "Committed",
                "Columns 8 id 23",
                "TextRow 8 3",
                "Done 8 SELECT 1",
                "Committed",
                "Closed",
            ],
        },
        messages: &[
            (
                "Bind, Execute, Bind, Execute, Bind, Execute, Bind, Execute, Sync, Bind, Execute, Sync, Bind, Execute, Bind, Execute, 2 Sync",
                "BindComplete, CommandComplete, ErrorResponse, ReadyForQuery, ErrorResponse, ReadyForQuery, BindComplete, CommandComplete, BindComplete, CommandComplete, 2 ReadyForQuery",
            ),
            ("Query", "RowDescription, DataRow, CommandComplete, ReadyForQuery"),
        ],
    },
    Pipeline {
        scene: Scene {
            name: "pipeline uniqviol",
            setup: SEAT,
            protocol: ProtocolVersion::V3_0,
            statements: &STATEMENTS,
            turns: &[
                |connection| {
                    for (ticket, id) in [(1, 1), (2, 2), (3, 1), (4, 4)] {
                        take(connection, ticket, id);
                    }
                    connection.sync();
                    for (ticket, id) in [(5, 1), (6, 2)] {
                        take(connection, ticket, id);
                    }
                    connection.sync();
                },
                |connection| {
                    for (ticket, id) in [(7, 2), (8, 8)] {
                        take(connection, ticket, id);
                        connection.sync();
                    }
                },
                |connection| simple_query(connection, 9, "SELECT id FROM seat ORDER BY id"),
            ],
            events: &[
                "Ready",
                "Done 1 INSERT 0 1",
                "Done 2 INSERT 0 1",
                "Failed 3 23505",
                "RolledBack 1",
                "RolledBack 2",
                "RolledBack 4",
                "Aborted",
                "Done 5 INSERT 0 1",
                "Done 6 INSERT 0 1",
                "Committed",
                "Failed 7 23505",
                "Aborted",
                "Done 8 INSERT 0 1",
                "Committed",
                "Columns 9 id 23",
                "TextRow 9 1",
                "TextRow 9 2",
                "TextRow 9 8",
                "Done 9 SELECT 3",
                "Committed",
                "Closed",
            ],
        },
        messages: &[
            (
                "Bind, Execute, Bind, Execute, Bind, Execute, Bind, Execute, Sync, Bind, Execute, Bind, Execute, Sync",
                "BindComplete, CommandComplete, BindComplete, CommandComplete, BindComplete, ErrorResponse, ReadyForQuery, BindComplete, CommandComplete, BindComplete, CommandComplete, ReadyForQuery",
            ),
            (
                "Bind, Execute, Sync, Bind, Execute, Sync",
                "BindComplete, ErrorResponse, ReadyForQuery, BindComplete, CommandComplete, ReadyForQuery",
            ),
            ("Query", "RowDescription, 3 DataRow, CommandComplete, ReadyForQuery"),
        ],
    },
];
