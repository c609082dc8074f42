//! Sessions with a real server: what their owner does turn by turn, and the recordings of what both sides said.
//!
//! Each version of PostgreSQL has recordings of its own, in a directory with the number of its major version. A recording has two lines for each turn: the bytes of the client (`>`) and those of the server (`<`), escaped. The
//! first turn is the start, without the start-up message, which names whoever recorded it.

pub(crate) mod pipelines;

use pipelines::PIPELINES;
use proto_pg::{
    Array, CloseReason, Connection, Date, Decimal, Event, Interval, Jsonb, Limits, Numeric, Oid,
    ProtocolVersion, Row, RowError, Session, Statement, Time, Timestamp, Value, oid,
};
use std::path::Path;

/// One session.
pub(crate) struct Scene {
    /// The name of its recording.
    pub(crate) name: &'static str,
    /// What has to be there before it starts.
    pub(crate) setup: &'static str,
    /// The version of the protocol that it asks for.
    pub(crate) protocol: ProtocolVersion,
    /// What it prepares.
    pub(crate) statements: &'static [Statement<'static>],
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

static STATEMENTS: [Statement<'static>; 9] = [
    Statement::new("divide", "SELECT $1 / $2", &[oid::INT4, oid::INT4]),
    Statement::new("wide", "SELECT repeat('é', $1), NULL, ''", &[oid::INT4]),
    Statement::new("count", "SELECT generate_series(1, $1)", &[oid::INT4]),
    Statement::new("insert", "INSERT INTO pair VALUES ($1)", &[oid::INT4]),
    Statement::new("notice", "DROP TABLE IF EXISTS nowhere", &[]),
    Statement::new("set", "SELECT set_config('application_name', $1, false)", &[oid::TEXT]),
    Statement::new("listen", "LISTEN till", &[]),
    Statement::new("notify", "SELECT pg_notify('till', $1)", &[oid::TEXT]),
    Statement::new("end", "SELECT pg_terminate_backend(pg_backend_pid())", &[]),
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

static REFUSED: [Statement<'static>; 2] =
    [Statement::new("good", "SELECT 1", &[]), Statement::new("bad", "SELECT * FROM nowhere", &[])];

const SCALARS: [Oid; 18] = [
    oid::BOOL,
    oid::INT2,
    oid::INT4,
    oid::INT8,
    oid::FLOAT4,
    oid::FLOAT8,
    oid::NUMERIC,
    oid::TEXT,
    oid::BYTEA,
    oid::UUID,
    oid::DATE,
    oid::TIME,
    oid::TIMESTAMP,
    oid::TIMESTAMPTZ,
    oid::INTERVAL,
    oid::JSON,
    oid::JSONB,
    oid::TEXT,
];
const ARRAYS: [Oid; 17] = [
    oid::BOOL_ARRAY,
    oid::INT2_ARRAY,
    oid::INT4_ARRAY,
    oid::INT8_ARRAY,
    oid::FLOAT4_ARRAY,
    oid::FLOAT8_ARRAY,
    oid::NUMERIC_ARRAY,
    oid::TEXT_ARRAY,
    oid::BYTEA_ARRAY,
    oid::UUID_ARRAY,
    oid::DATE_ARRAY,
    oid::TIME_ARRAY,
    oid::TIMESTAMP_ARRAY,
    oid::TIMESTAMPTZ_ARRAY,
    oid::INTERVAL_ARRAY,
    oid::JSON_ARRAY,
    oid::JSONB_ARRAY,
];
static TYPES: [Statement<'static>; 4] = [
    Statement::new(
        "types",
        "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18",
        &SCALARS,
    )
    .returning(&SCALARS),
    Statement::new(
        "texts",
        "SELECT concat_ws(' ', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14 AT TIME ZONE 'UTC', $15, $16, $17, $18)",
        &SCALARS,
    )
    .returning(&[oid::TEXT]),
    Statement::new(
        "arrays",
        "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17",
        &ARRAYS,
    )
    .returning(&ARRAYS),
    Statement::new(
        "array texts",
        "SELECT concat_ws(' ', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::timestamptz[]::timestamp[], $15, $16, $17)",
        &ARRAYS,
    )
    .returning(&[oid::TEXT]),
];
/// Tickets whose rows are read with their types.
const TYPED: u32 = 100;
const ARRAYS_TYPED: u32 = 101;
/// The tickets whose rows are one text.
const TEXT: u32 = 102;

/// A value of each type, in the order of `SCALARS`.
fn values() -> [Value<'static>; 18] {
    let microseconds = 3_723_000_004;
    [
        Value::Bool(true),
        Value::Int2(-2),
        Value::Int4(i32::MIN),
        Value::Int8(i64::MAX),
        Value::Float4(1.5),
        Value::Float8(-0.1),
        Value::Numeric(Decimal::new("-1234567.0890").expect("a number")),
        Value::Text("olá"),
        Value::Bytes(&[0, 0xff]),
        Value::Uuid(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff_u128.to_be_bytes()),
        Value::Date(Date::from_unix_days(19_782).expect("in range")),
        Value::Time(Time { microseconds }),
        Value::Timestamp(Timestamp { microseconds }),
        Value::Timestamp(Timestamp::from_unix_microseconds(microseconds).expect("in range")),
        Value::Interval(Interval { months: 14, days: -3, microseconds }),
        Value::Text("[1]"),
        Value::Jsonb("{\"a\": null}"),
        Value::Null,
    ]
}

/// What `values` comes back as.
const VALUES_READ: &str = "true -2 -2147483648 9223372036854775807 1.5 -0.1 -1234567.0890 olá [0, 255] \
    [0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255] Date { days: 8825 } \
    Time { microseconds: 3723000004 } Timestamp { microseconds: 3723000004 } \
    Timestamp { microseconds: -946681076999996 } Interval { months: 14, days: -3, microseconds: 3723000004 } \
    [1] {\"a\": null} None";

/// What PostgreSQL prints of `values`.
const VALUES_PRINTED: &str = "Row: t -2 -2147483648 9223372036854775807 1.5 -0.1 -1234567.0890 olá \\x00ff \
    00112233-4455-6677-8899-aabbccddeeff 2024-02-29 01:02:03.000004 2000-01-01 01:02:03.000004 \
    1970-01-01 01:02:03.000004 1 year 2 mons -3 days +01:02:03.000004 [1] {\"a\": null}";

/// What the arrays of these and a NULL each come back as.
const ARRAYS_READ: &str = "[Some(true), None] [Some(-2), None] [Some(-2147483648), None] \
    [Some(9223372036854775807), None] [Some(1.5), None] [Some(-0.1), None] [Some(Numeric(-1234567.0890)), None] \
    [Some(\"olá\"), None] [Some([0, 255]), None] \
    [Some([0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255]), None] \
    [Some(Date { days: 8825 }), None] [Some(Time { microseconds: 3723000004 }), None] \
    [Some(Timestamp { microseconds: 3723000004 }), None] [Some(Timestamp { microseconds: -946681076999996 }), None] \
    [Some(Interval { months: 14, days: -3, microseconds: 3723000004 }), None] [Some(\"[1]\"), None] \
    [Some(Jsonb(\"{\\\"a\\\": null}\")), None]";

/// What PostgreSQL prints of these.
const ARRAYS_PRINTED: &str = r#"Row: {t,NULL} {-2,NULL} {-2147483648,NULL} {9223372036854775807,NULL} {1.5,NULL} {-0.1,NULL} {-1234567.0890,NULL} {olá,NULL} {"\\x00ff",NULL} {00112233-4455-6677-8899-aabbccddeeff,NULL} {2024-02-29,NULL} {01:02:03.000004,NULL} {"2000-01-01 01:02:03.000004",NULL} {"1970-01-01 01:02:03.000004",NULL} {"1 year 2 mons -3 days +01:02:03.000004",NULL} {[1],NULL} {"{\"a\": null}",NULL}"#;

/// The columns of a row of `SCALARS`.
fn read_values(row: &Row<'_>) -> Result<String, RowError> {
    Ok(format!(
        "{} {} {} {} {} {} {} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {} {} {:?}",
        row.bool(0)?,
        row.i16(1)?,
        row.i32(2)?,
        row.i64(3)?,
        row.f32(4)?,
        row.f64(5)?,
        row.numeric(6)?,
        row.text(7)?,
        row.bytes(8)?,
        row.uuid(9)?,
        row.date(10)?,
        row.time(11)?,
        row.timestamp(12)?,
        row.timestamp(13)?,
        row.interval(14)?,
        row.text(15)?,
        row.get::<Jsonb<'_>>(16)?.0,
        row.get::<Option<&str>>(17)?,
    ))
}

/// The columns of a row of `ARRAYS`.
fn read_arrays(row: &Row<'_>) -> Result<String, RowError> {
    Ok(format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        row.get::<Array<'_, bool>>(0)?,
        row.get::<Array<'_, i16>>(1)?,
        row.get::<Array<'_, i32>>(2)?,
        row.get::<Array<'_, i64>>(3)?,
        row.get::<Array<'_, f32>>(4)?,
        row.get::<Array<'_, f64>>(5)?,
        row.get::<Array<'_, Numeric<'_>>>(6)?,
        row.get::<Array<'_, &str>>(7)?,
        row.get::<Array<'_, &[u8]>>(8)?,
        row.get::<Array<'_, [u8; 16]>>(9)?,
        row.get::<Array<'_, Date>>(10)?,
        row.get::<Array<'_, Time>>(11)?,
        row.get::<Array<'_, Timestamp>>(12)?,
        row.get::<Array<'_, Timestamp>>(13)?,
        row.get::<Array<'_, Interval>>(14)?,
        row.get::<Array<'_, &str>>(15)?,
        row.get::<Array<'_, Jsonb<'_>>>(16)?,
    ))
}

static MISREAD: [Statement<'static>; 2] = [
    Statement::new("listen", "LISTEN till", &[]).returning(&[]),
    Statement::new("total", "SELECT 1, 1.5, $1::int", &[0]).returning(&[0, oid::TEXT, oid::INT4]),
];

static COPIES: [Statement<'static>; 2] = [
    Statement::new("copy out", "COPY note TO STDOUT", &[]),
    Statement::new("copy in", "COPY note FROM STDIN", &[]),
];
const COPY_OUT: usize = 0;
const COPY_IN: usize = 1;

static TRANSACTION: [Statement<'static>; 3] = [
    Statement::new("begin", "BEGIN", &[]),
    // 0 fails.
    Statement::new("add", "INSERT INTO pair SELECT $1 WHERE 1 / $1 <> 2", &[oid::INT4]),
    Statement::new("commit", "COMMIT", &[]),
];
const BEGIN: usize = 0;
const ADD: usize = 1;
const COMMIT: usize = 2;

/// Every session that was recorded.
pub(crate) fn scenes() -> impl Iterator<Item = &'static Scene> + Clone {
    SCENES.iter().chain(PIPELINES.iter().map(|pipeline| &pipeline.scene))
}

static SCENES: [Scene; 14] = [
    Scene {
        name: "committed",
        setup: PAIR,
        protocol: ProtocolVersion::V3_0,
        statements: &STATEMENTS,
        turns: &[
            |connection| {
                call(connection, 1, DIVIDE, &[Value::Int4(14), Value::Int4(2)]);
                call(connection, 2, WIDE, &[Value::Int4(150)]);
                call(connection, 3, COUNT, &[Value::Int4(3)]);
                call(connection, 4, COUNT, &[Value::Int4(0)]);
                call(connection, 5, INSERT, &[Value::Int4(1)]);
                connection.sync();
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
        protocol: ProtocolVersion::V3_0,
        statements: &STATEMENTS,
        turns: &[|connection| {
            for (ticket, divisor) in (1..).zip([1, 0, 1]) {
                call(connection, ticket, DIVIDE, &[Value::Int4(1), Value::Int4(divisor)]);
            }
            connection.sync();
            call(connection, 4, DIVIDE, &[Value::Int4(1), Value::Int4(1)]);
            connection.sync();
            // A value that does not fit its type: the Bind fails.
            call(connection, 5, DIVIDE, &[Value::Int8(1), Value::Int4(1)]);
            call(connection, 6, DIVIDE, &[Value::Int4(1), Value::Int4(1)]);
            connection.sync();
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
        protocol: ProtocolVersion::V3_0,
        statements: &STATEMENTS,
        turns: &[
            |connection| {
                call(connection, 1, INSERT, &[Value::Int4(7)]);
                call(connection, 2, INSERT, &[Value::Int4(7)]);
                connection.sync();
            },
            |connection| {
                call(connection, 3, INSERT, &[Value::Int4(7)]);
                connection.sync();
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
        protocol: ProtocolVersion::V3_0,
        statements: &STATEMENTS,
        turns: &[|connection| {
            call(connection, 1, LISTEN, &[]);
            call(connection, 2, NOTICE, &[]);
            call(connection, 3, SET, &[Value::Text("till 2")]);
            call(connection, 4, NOTIFY, &[Value::Text("olá")]);
            connection.sync();
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
        protocol: ProtocolVersion::V3_0,
        statements: &STATEMENTS,
        turns: &[|connection| {
            call(connection, 1, DIVIDE, &[Value::Int4(1), Value::Int4(1)]);
            call(connection, 2, END, &[]);
            call(connection, 3, DIVIDE, &[Value::Int4(1), Value::Int4(1)]);
            connection.sync();
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
        name: "types",
        setup: "",
        protocol: ProtocolVersion::V3_0,
        statements: &TYPES,
        turns: &[
            |connection| {
                call(connection, TYPED, 0, &values());
                call(connection, TEXT, 1, &values());
                connection.sync();
            },
            |connection| {
                call(connection, TYPED, 0, &[Value::Null; 18]);
                connection.sync();
            },
            |connection| {
                // Each array has its value and a NULL.
                let items = values().map(|value| [value, Value::Null]);
                let mut arrays = [Value::Null; ARRAYS.len()];
                for ((array, items), element) in arrays.iter_mut().zip(&items).zip(SCALARS) {
                    *array = Value::Array { element, items };
                }
                call(connection, ARRAYS_TYPED, 2, &arrays);
                call(connection, TEXT, 3, &arrays);
                connection.sync();
            },
        ],
        events: &[
            "Ready",
            VALUES_READ,
            "Done 100 SELECT 1",
            VALUES_PRINTED,
            "Done 102 SELECT 1",
            "Committed",
            "column 0: is NULL",
            "Done 100 SELECT 1",
            "Committed",
            ARRAYS_READ,
            "Done 101 SELECT 1",
            ARRAYS_PRINTED,
            "Done 102 SELECT 1",
            "Committed",
            "Closed",
        ],
    },
    Scene {
        name: "misread",
        setup: "",
        protocol: ProtocolVersion::V3_0,
        statements: &MISREAD,
        turns: &[],
        events: &["Closed: statement \"total\": column 1 of its result is numeric, expected text"],
    },
    Scene {
        name: "prepared later",
        setup: PAIR,
        protocol: ProtocolVersion::V3_0,
        statements: &[],
        turns: &[
            |connection| {
                let insert = Statement::new("add", "INSERT INTO pair VALUES ($1) RETURNING id", &[0]);
                connection.prepare(1, &insert).expect("there is room");
                connection.describe_statement(2, "add").expect("there is room");
                connection.call_named(3, "add", &[Value::Int4(5)]).expect("there is room");
                connection.prepare(4, &Statement::new("", "LISTEN till", &[])).expect("there is room");
                connection.describe_statement(5, "").expect("there is room");
                connection.call_named(6, "", &[]).expect("there is room");
                connection.close_statement(7, "add").expect("there is room");
                connection.sync();
            },
            |connection| {
                connection.call_named(8, "add", &[Value::Int4(6)]).expect("there is room");
                connection.sync();
            },
        ],
        events: &[
            "Ready",
            "Done 1 ",
            "ParameterTypes 2 [23]",
            "Columns 2 id 23",
            "Row 3",
            "Done 3 INSERT 0 1",
            "Done 4 ",
            "ParameterTypes 5 []",
            "Columns 5",
            "Done 6 LISTEN",
            "Done 7 ",
            "Committed",
            "Failed 8 26000",
            "Aborted",
            "Closed",
        ],
    },
    Scene {
        name: "simple",
        setup: PAIR,
        protocol: ProtocolVersion::V3_0,
        statements: &STATEMENTS,
        turns: &[
            |connection| {
                let sql =
                    "INSERT INTO pair VALUES (1), (2); SELECT id, NULL AS nothing FROM pair ORDER BY id;";
                connection.simple_query(1, sql).expect("there is room");
                call(connection, 2, DIVIDE, &[Value::Int4(6), Value::Int4(2)]);
                connection.sync();
                connection.simple_query(3, "DELETE FROM pair; SELECT 1 / 0").expect("there is room");
                connection.simple_query(4, "").expect("there is room");
            },
            |connection| connection.simple_query(5, "SELECT count(*) FROM pair").expect("there is room"),
        ],
        events: &[
            "Ready",
            "Done 1 INSERT 0 2",
            "Columns 1 id 23 nothing 25",
            "TextRow 1 1 NULL",
            "TextRow 1 2 NULL",
            "Done 1 SELECT 2",
            "Committed",
            "Row 2",
            "Done 2 SELECT 1",
            "Committed",
            "Done 3 DELETE 2",
            "Failed 3 22012",
            "Aborted",
            "Done 4 ",
            "Committed",
            "Columns 5 count 20",
            "TextRow 5 2",
            "Done 5 SELECT 1",
            "Committed",
            "Closed",
        ],
    },
    Scene {
        name: "portal",
        setup: PAIR,
        protocol: ProtocolVersion::V3_0,
        statements: &STATEMENTS,
        turns: &[
            |connection| {
                connection.bind(1, "p", "count", &[Value::Int4(3)]).expect("there is room");
                connection.describe_portal(2, "p").expect("there is room");
                connection.execute(3, "p", 2).expect("there is room");
                connection.flush().expect("there is room");
            },
            |connection| {
                connection.execute(4, "p", 2).expect("there is room");
                connection.close_portal(5, "p").expect("there is room");
                connection.execute(6, "p", 2).expect("there is room");
                connection.sync();
            },
        ],
        events: &[
            "Ready",
            "Done 1 ",
            "Columns 2 generate_series 23",
            "Row 3",
            "Row 3",
            "Suspended 3",
            "Row 4",
            "Done 4 SELECT 1",
            "Done 5 ",
            "Failed 6 34000",
            "RolledBack 1",
            "RolledBack 2",
            "RolledBack 3",
            "RolledBack 4",
            "RolledBack 5",
            "Aborted",
            "Closed",
        ],
    },
    Scene {
        name: "copied",
        setup: "CREATE TABLE note (id int, text text)",
        protocol: ProtocolVersion::V3_0,
        statements: &COPIES,
        turns: &[
            |connection| connection.simple_query(1, "COPY note FROM STDIN").expect("there is room"),
            |connection| {
                // Cut where it pleases the owner.
                for data in ["1\tone\n2", "\ttwo\n3\t", &"long ".repeat(400), "\n"] {
                    assert_eq!(connection.copy_data(data.as_bytes()), Ok(data.len()));
                }
                connection.copy_done().expect("it takes data");
            },
            |connection| {
                call(connection, 2, COPY_OUT, &[]);
                connection.sync();
            },
            |connection| {
                call(connection, 3, COPY_IN, &[]);
                connection.flush().expect("there is room");
            },
            |connection| {
                assert_eq!(connection.copy_data(b"4\tfour\n"), Ok(7));
                connection.copy_done().expect("it takes data");
                connection.sync();
            },
            |connection| {
                call(connection, 4, COPY_IN, &[]);
                connection.flush().expect("there is room");
            },
            |connection| {
                connection.copy_fail("changed my mind").expect("it takes data");
                connection.sync();
            },
            |connection| connection.simple_query(5, "COPY note FROM STDIN").expect("there is room"),
            |connection| {
                assert_eq!(connection.copy_data(b"no number\n"), Ok(10));
                connection.copy_done().expect("it takes data");
            },
        ],
        events: &[
            "Ready",
            "CopyIn 1 false 2",
            "Done 1 COPY 3",
            "Committed",
            "CopyOut 2 false 2",
            "CopyData 2 1\\tone\\n",
            "CopyData 2 2\\ttwo\\n",
            "CopyData 2 3\\tlong l, 2016 characters",
            "Done 2 COPY 3",
            "Committed",
            "CopyIn 3 false 2",
            "Done 3 COPY 1",
            "Committed",
            "CopyIn 4 false 2",
            "Failed 4 57014",
            "Aborted",
            "CopyIn 5 false 2",
            "Failed 5 22P02",
            "Aborted",
            "Closed",
        ],
    },
    Scene {
        name: "transaction",
        setup: PAIR,
        protocol: ProtocolVersion::V3_0,
        statements: &TRANSACTION,
        turns: &[
            |connection| {
                call(connection, 1, BEGIN, &[]);
                call(connection, 2, ADD, &[Value::Int4(1)]);
                connection.sync();
            },
            |connection| {
                call(connection, 3, COMMIT, &[]);
                connection.sync();
            },
            // A block that fails, and its COMMIT.
            |connection| {
                call(connection, 4, BEGIN, &[]);
                call(connection, 5, ADD, &[Value::Int4(2)]);
                call(connection, 6, ADD, &[Value::Int4(0)]);
                call(connection, 7, ADD, &[Value::Int4(3)]);
                connection.sync();
                call(connection, 8, COMMIT, &[]);
                connection.sync();
            },
            // What is committed within a batch stays.
            |connection| {
                call(connection, 9, BEGIN, &[]);
                call(connection, 10, ADD, &[Value::Int4(4)]);
                call(connection, 11, COMMIT, &[]);
                call(connection, 12, ADD, &[Value::Int4(5)]);
                call(connection, 13, ADD, &[Value::Int4(0)]);
                connection.sync();
            },
            |connection| {
                connection
                    .simple_query(14, "SELECT string_agg(id::text, ' ') FROM pair")
                    .expect("there is room");
            },
            // A Sync behind each call.
            |connection| {
                for (ticket, value) in [(15, Value::Int4(6)), (16, Value::Int4(0)), (17, Value::Int4(7))] {
                    call(connection, ticket, ADD, &[value]);
                    connection.sync();
                }
            },
            |connection| {
                connection
                    .simple_query(18, "SELECT string_agg(id::text, ' ') FROM pair")
                    .expect("there is room");
            },
        ],
        events: &[
            "Ready",
            "Done 1 BEGIN",
            "Done 2 INSERT 0 1",
            "InTransaction",
            "Done 3 COMMIT",
            "Committed",
            "Done 4 BEGIN",
            "Done 5 INSERT 0 1",
            "Failed 6 22012",
            "RolledBack 7",
            "Aborted",
            "Done 8 ROLLBACK",
            "Committed",
            "Done 9 BEGIN",
            "Done 10 INSERT 0 1",
            "Done 11 COMMIT",
            "Done 12 INSERT 0 1",
            "Failed 13 22012",
            "RolledBack 12",
            "Aborted",
            "Columns 14 string_agg 25",
            "TextRow 14 1 4",
            "Done 14 SELECT 1",
            "Committed",
            "Done 15 INSERT 0 1",
            "Committed",
            "Failed 16 22012",
            "Aborted",
            "Done 17 INSERT 0 1",
            "Committed",
            "Columns 18 string_agg 25",
            "TextRow 18 1 4 6 7",
            "Done 18 SELECT 1",
            "Committed",
            "Closed",
        ],
    },
    Scene {
        name: "protocol 3.2",
        setup: "",
        protocol: ProtocolVersion::V3_2,
        statements: &[],
        turns: &[Connection::sync],
        events: &["Ready", "Committed", "Closed"],
    },
    Scene {
        name: "refused",
        setup: "",
        protocol: ProtocolVersion::V3_0,
        statements: &REFUSED,
        turns: &[],
        events: &["Closed: statement \"bad\": ERROR 42P01: relation \"nowhere\" does not exist"],
    },
];

fn call(connection: &mut Connection<u32>, ticket: u32, statement: usize, parameters: &[Value<'_>]) {
    connection.call(ticket, statement, parameters).expect("there is room");
}

impl Scene {
    /// A connection whose start-up message is pending.
    pub(crate) fn connection(&self, session: &Session) -> Connection<u32> {
        let limits = Limits {
            message_len_max_bytes: 1400,
            text_len_max_bytes: 65_536,
            send_len_max_bytes: 8192,
            in_flight_calls_max: 8,
        };
        let mut session = session.clone();
        // Of the moments that the server prints.
        session.parameters.push(("timezone".into(), "UTC".into()));
        session.protocol = self.protocol;
        Connection::new(&session, self.statements, limits)
    }

    /// Ends the session and says whether everything came of it that should.
    pub(crate) fn check(&self, mut connection: Connection<u32>, mut log: Vec<String>) {
        connection.close(CloseReason::PeerClosed);
        drain(&mut connection, &mut log);
        let said: Vec<&str> = log.iter().map(|line| line.split(" = ").next().unwrap_or(line)).collect();
        let start = said.iter().take_while(|line| line.starts_with("Parameter")).count();
        assert_eq!(said[start..], *self.events, "{}", self.name);
    }
}

/// More of a row that is being copied follows.
const MORE: &str = " ...";

/// Adds every event there is. What stands behind ` = ` may differ from session to session.
pub(crate) fn drain(connection: &mut Connection<u32>, log: &mut Vec<String>) {
    while let Some(event) = connection.poll_event() {
        let said = match event {
            Event::Ready => "Ready".into(),
            Event::Row { ticket: TYPED, row } => read_values(&row).unwrap_or_else(|error| error.to_string()),
            Event::Row { ticket: ARRAYS_TYPED, row } => {
                read_arrays(&row).unwrap_or_else(|error| error.to_string())
            }
            Event::Row { ticket: TEXT, row } => format!("Row: {}", row.text(0).expect("a text")),
            Event::Row { ticket, row } => {
                let columns: Vec<_> = (0..row.columns_len()).map(|column| row.raw(column)).collect();
                format!("Row {ticket} = {columns:?}")
            }
            Event::TextRow { ticket, row } => {
                let columns =
                    (0..row.columns_len()).map(|column| row.text(column).expect("a text").unwrap_or("NULL"));
                format!("TextRow {ticket} {}", columns.collect::<Vec<_>>().join(" "))
            }
            Event::Suspended { ticket } => format!("Suspended {ticket}"),
            Event::ParameterTypes { ticket, types } => {
                format!("ParameterTypes {ticket} {:?}", types.collect::<Vec<_>>())
            }
            Event::Columns { ticket, columns } => {
                let columns = columns.into_iter().flatten();
                let columns = columns.map(|column| format!(" {} {}", column.name, column.type_oid));
                format!("Columns {ticket}{}", columns.collect::<String>())
            }
            Event::CopyOut { ticket, format } => {
                format!("CopyOut {ticket} {} {}", format.is_binary, format.columns_len)
            }
            Event::CopyIn { ticket, format } => {
                format!("CopyIn {ticket} {} {}", format.is_binary, format.columns_len)
            }
            // Pieces that belong together become one line, wherever they were cut.
            Event::CopyData { ticket, bytes, is_end } => {
                let is_more = log.last().is_some_and(|line| line.ends_with(MORE));
                let before = if is_more { log.pop() } else { None };
                let before = before.as_deref().and_then(|line| line.strip_suffix(MORE));
                let data =
                    format!("{}{}", before.unwrap_or(&format!("CopyData {ticket} ")), bytes.escape_ascii());
                match (is_end, data.len()) {
                    (false, _) => data + MORE,
                    (true, ..100) => data,
                    (true, len) => format!("{}, {len} characters", &data[..20]),
                }
            }
            Event::InTransaction => "InTransaction".into(),
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
        };
        log.push(said);
    }
}

/// What is pending, which the transport takes.
pub(crate) fn take_pending(connection: &mut Connection<u32>) -> Vec<u8> {
    let bytes = connection.send_pending().to_vec();
    connection.send_advance(bytes.len());
    bytes
}

impl Exchange {
    /// Whether the server has nothing more to say: it waits for data, or every step that was flushed has its answer.
    pub(crate) fn awaits_owner(&self) -> bool {
        let server = messages(&self.server);
        if server.last() == Some(&b'G') {
            return true;
        }
        let client = messages(&self.client);
        let count = |tags: &[u8], kinds: &[u8]| tags.iter().filter(|tag| kinds.contains(tag)).count();
        client.last() == Some(&b'H') && count(&client, b"PBDEC") == count(&server, b"12TnCs3")
    }
}

/// The tags of whole messages, in order.
pub(crate) fn messages(mut bytes: &[u8]) -> Vec<u8> {
    let mut tags = vec![];
    while let [tag, a, b, c, d, ..] = bytes {
        let len_bytes = u32::from_be_bytes([*a, *b, *c, *d]) as usize + 1;
        let Some(rest) = bytes.get(len_bytes..) else { break };
        tags.push(*tag);
        bytes = rest;
    }
    tags
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
