//! A tour over a blocking socket: log in, over TLS if the URL asks for it, a batch with seven types, an error recognised by its constraint, NOTIFY, COPY,
//! cancel.
//!
//! `cargo run -p proto-pg --example tour -- postgresql://user:password@localhost/database`

use proto_pg::{
    Channel, ChannelConfig, CloseReason, Connection, Date, Decimal, Event, Host, Limits, SqlState, Statement,
    Url, Value, oid,
};
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

/// Prepared at the start, and checked: a result of another type would end the session with a reason that says where.
static TELL: [Statement<'static>; 1] =
    [Statement::new("tell", "SELECT pg_notify('pets', $1), 1", &[oid::TEXT])
        .returning(&[oid::VOID, oid::INT4])];
const TABLE: &str = "CREATE TEMP TABLE pet (id int, name text CONSTRAINT one_of_a_name UNIQUE, is_cat bool, \
                     weight numeric, born date, chip uuid, notes jsonb); LISTEN pets";
/// Prepared later, when there is the table.
const ADD: &str = "INSERT INTO pet VALUES ($1, $2, $3, $4, $5, $6, $7)";
const TYPES: [u32; 7] = [oid::INT4, oid::TEXT, oid::BOOL, oid::NUMERIC, oid::DATE, oid::UUID, oid::JSONB];

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

fn connect(url: &Url) -> io::Result<Box<dyn Stream>> {
    Ok(match &url.hosts[0] {
        Host::Tcp { name, address, port } => {
            Box::new(TcpStream::connect((address.as_ref().unwrap_or(name).as_str(), *port))?)
        }
        Host::Unix { socket_path } => Box::new(UnixStream::connect(socket_path)?),
    })
}

/// Moves bytes and says what happens, until an event is the last.
fn exchange(
    connection: &mut Connection<&'static str>,
    channel: &mut Channel,
    stream: &mut dyn Stream,
    say: &mut dyn FnMut(String),
    is_last: impl Fn(&Event<'_, &'static str>) -> bool,
) -> Result<(), Box<dyn Error>> {
    let mut is_over = false;
    loop {
        // After each input: every event there is.
        while let Some(event) = connection.poll_event() {
            is_over |= is_last(&event);
            match event {
                Event::Row { row, .. } if row.columns_len() < 7 => {}
                Event::Row { ticket, row } => say(format!(
                    "{ticket}: {} {} {} weighs {}, born {:?}, chip {:02x?}, {:?}",
                    row.i32(0)?,
                    row.text(1)?,
                    row.bool(2)?,
                    row.numeric(3)?,
                    row.date(4)?.unix_days(),
                    &row.uuid(5)?[..2],
                    row.get::<Option<proto_pg::Jsonb<'_>>>(6)?,
                )),
                Event::Done { ticket, tag } if !tag.as_str().is_empty() => say(format!("{ticket}: {tag}")),
                Event::Failed { ticket, error } if error.code == SqlState::UNIQUE_VIOLATION => {
                    say(format!("{ticket}: {} is taken", error.constraint().unwrap_or("something")));
                }
                Event::Failed { ticket, error } => say(format!("{ticket}: {error}")),
                Event::RolledBack { ticket } => say(format!("{ticket}: not done")),
                Event::InDoubt { ticket } => say(format!("{ticket}: perhaps done")),
                Event::Notification { channel, payload, .. } => say(format!("{channel}: {payload}")),
                Event::CopyData { ticket, bytes, .. } => say(format!("{ticket}: {}", bytes.escape_ascii())),
                Event::Closed { reason } => return Err(reason.into()),
                _ => {}
            }
        }
        // What was received in one piece may come out of TLS in several.
        if channel.exchange(connection) {
            continue;
        }
        while !channel.send_pending(connection).is_empty() {
            let n = stream.write(channel.send_pending(connection))?;
            channel.send_advance(n, connection);
        }
        if is_over {
            return Ok(());
        }
        match stream.read(channel.recv_space(connection))? {
            0 => connection.close(CloseReason::PeerClosed),
            n => channel.recv_commit(n, connection),
        }
    }
}

/// Takes the tour, on the first host of the URL.
///
/// # Errors
/// Everything that ends it early.
pub(crate) fn run(url: &str, say: &mut dyn FnMut(String)) -> Result<(), Box<dyn Error>> {
    let url = Url::parse(url)?;
    let (mut stream, connection) =
        (connect(&url)?, &mut Connection::new(&url.session("postgres"), &TELL, Limits::DEFAULT));
    let channel = &mut ChannelConfig::new(&url, |path| std::fs::read(path))?.open(&url.hosts[0])?;
    exchange(connection, channel, &mut *stream, say, |event| matches!(event, Event::Ready))?;

    // Four batches, one after the other without waiting. The third fails in the middle, and as a whole.
    connection.simple_query("table", TABLE)?;
    connection.prepare("prepare", &Statement::new("add", ADD, &TYPES))?;
    connection.prepare("prepare", &Statement::new("all", "SELECT * FROM pet ORDER BY id", &[]))?;
    let (weight, born) = (Decimal::new("4.20")?, Date::from_unix_days(19_782).ok_or("out of range")?);
    let pet = |id, name, notes| {
        [
            Value::Int4(id),
            Value::Text(name),
            Value::Bool(true),
            Value::Numeric(weight),
            Value::Date(born),
            Value::Uuid([171; 16]),
            notes,
        ]
    };
    connection.call_named("Mia", "add", &pet(1, "Mia", Value::Jsonb(r#"{"colour": "black"}"#)))?;
    connection.call_named("Tom", "add", &pet(2, "Tom", Value::Null))?;
    connection.sync();
    for (ticket, name) in [("Leo", "Leo"), ("another Mia", "Mia"), ("Max", "Max")] {
        connection.call_named(ticket, "add", &pet(3, name, Value::Null))?;
    }
    connection.sync();
    connection.call_named("all", "all", &[])?;
    connection.call("tell", 0, &[Value::Text("two of them")])?;
    connection.sync();
    connection.simple_query("copy", "COPY pet (id, name) TO STDOUT")?;
    exchange(connection, channel, &mut *stream, say, |event| {
        matches!(event, Event::Done { ticket: "copy", .. })
    })?;

    // What takes too long is cancelled over a connection of its own; what has not begun yet would not be.
    connection
        .simple_query("sleep", "DO $$ BEGIN RAISE NOTICE 'good night'; PERFORM pg_sleep(600); END $$")?;
    exchange(connection, channel, &mut *stream, say, |event| matches!(event, Event::Notice(_)))?;
    let cancel = connection.backend_key().ok_or("the server gave no key")?.cancel_request();
    let mut canceller = connect(&url)?;
    canceller.write_all(&cancel)?;
    // The server closes it once it has passed the request on.
    io::copy(&mut canceller, &mut io::sink())?;
    exchange(connection, channel, &mut *stream, say, |event| matches!(event, Event::Aborted { .. }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: tour postgresql://user:password@host/database")?;
    run(&url, &mut |line| println!("{line}"))
}
