//! CORE: what a lane sends to PostgreSQL: the statements that it prepares, and calls of them.

use proto_pg::{Connection, Statement, Value, oid};

use crate::bank::Call;
use crate::config::{BATCH_CALLS_LIMIT, Config};
use crate::engine::ticket::Ticket;
use crate::now::Now;

/// What the lane asked for: the ticket that each result of the connection carries.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    /// A client's call.
    Call(Ticket),
    /// The transactions of a batch as one call; the lane keeps their tickets in the same order.
    Set {
        /// How many.
        len: usize,
    },
    /// What the lane wants to know itself.
    Own(Question),
}

/// What a lane asks for itself.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// Whether the session is what `target_session_attrs` asks for, while starting.
    Fitness,
    /// The server's timeline, while starting.
    History,
    /// The settings of the session, while starting.
    Settings,
    /// The list of accounts, while starting or in a probe.
    Accounts,
    /// A call of a probe: it only has to succeed.
    Probe,
    /// The server's position, asked at this time in monotonic microseconds.
    Position {
        /// When.
        asked_us: u64,
    },
}

/// Queues one call of a client.
pub(super) fn send_call(connection: &mut Connection<Asked>, ticket: Ticket) {
    match ticket.call {
        Call::Transaction { account, transaction } => {
            let parameters = [
                Value::Int4(account),
                Value::Int4(transaction.value_cents),
                Value::Text(transaction.kind.as_str()),
                Value::Text(transaction.description.as_str()),
            ];
            call(connection, Asked::Call(ticket), INSERT_TRANSACAO, &parameters);
        }
        Call::Statement { account } => {
            call(connection, Asked::Call(ticket), GET_SALDO_CLIENTE_BY_ID, &[Value::Int4(account)]);
        }
    }
}

/// Queues the transactions among the tickets as one call of the set-based procedure.
pub(super) fn send_set(connection: &mut Connection<Asked>, tickets: &[Ticket], len: usize) {
    let mut accounts = [0; BATCH_CALLS_LIMIT];
    let mut values_cents = [0; BATCH_CALLS_LIMIT];
    let mut kinds = [""; BATCH_CALLS_LIMIT];
    let mut descriptions = [""; BATCH_CALLS_LIMIT];
    let transactions = tickets.iter().filter_map(|ticket| match &ticket.call {
        Call::Transaction { account, transaction } => Some((account, transaction)),
        Call::Statement { .. } => None,
    });
    for (position, (account, transaction)) in transactions.enumerate() {
        accounts[position] = *account;
        values_cents[position] = transaction.value_cents;
        kinds[position] = transaction.kind.as_str();
        descriptions[position] = transaction.description.as_str();
    }
    let parameters = [
        Value::Int4Array(&accounts[..len]),
        Value::Int4Array(&values_cents[..len]),
        Value::TextArray(&kinds[..len]),
        Value::TextArray(&descriptions[..len]),
    ];
    call(connection, Asked::Set { len }, INSERT_TRANSACOES, &parameters);
}

/// Queues the calls of a probe: every procedure, but with the account NULL, which no row has, so that nothing is done.
///
/// A Sync alone would show that PostgreSQL answers, but not that calls succeed.
pub(super) fn send_probe(
    connection: &mut Connection<Asked>,
    reads_only: bool,
    reads_accounts: bool,
    config: &Config,
) {
    if !reads_only {
        let nothing =
            [Value::Int4Array(&[]), Value::Int4Array(&[]), Value::TextArray(&[]), Value::TextArray(&[])];
        call(connection, Asked::Own(Question::Probe), INSERT_TRANSACOES, &nothing);
        call(
            connection,
            Asked::Own(Question::Probe),
            INSERT_TRANSACAO,
            &[Value::Null, Value::Null, Value::Null, Value::Null],
        );
    }
    call(connection, Asked::Own(Question::Probe), GET_SALDO_CLIENTE_BY_ID, &[Value::Null]);
    if reads_accounts {
        ask_for_accounts(connection, config);
    }
}

/// Asks for the server's log position. Statements after it in the batch see at least what the log had up to there.
pub(super) fn ask_for_position(connection: &mut Connection<Asked>, now: Now) {
    call(connection, Asked::Own(Question::Position { asked_us: now.monotonic_us }), POSITION, &[]);
}

/// Queues the settings of the session; their row says whether the bank can be served in it.
pub(super) fn send_settings(connection: &mut Connection<Asked>, config: &Config) {
    let (names, values): (Vec<&str>, Vec<&str>) =
        config.session_settings.iter().map(|(name, value)| (*name, value.as_str())).unzip();
    call(
        connection,
        Asked::Own(Question::Settings),
        SETTINGS,
        &[Value::TextArray(&names), Value::TextArray(&values)],
    );
}

/// Asks for the accounts: for one more than `accounts_max`, so that too many are noticed.
pub(super) fn ask_for_accounts(connection: &mut Connection<Asked>, config: &Config) {
    let one_too_many = i64::try_from(config.accounts_max).map_or(i64::MAX, |max| max + 1);
    call(connection, Asked::Own(Question::Accounts), ACCOUNTS, &[Value::Int8(one_too_many)]);
}

/// Queues one call. There is always room: the connection's limits allow for the largest batches and a probe.
fn call(connection: &mut Connection<Asked>, asked: Asked, statement: usize, parameters: &[Value<'_>]) {
    let queued = connection.call(asked, statement, parameters);
    assert!(queued.is_ok(), "a lane has room for every batch that it takes");
}

/// What every lane prepares. The last statement only if there is a reader, since other engines do not have its functions.
pub(super) fn statements(config: &Config) -> &'static [Statement<'static>] {
    if config.database_read.is_some() { &STATEMENTS } else { &STATEMENTS[..POSITION] }
}

/// The types of the results are checked while starting: a procedure that returns others would do its work, and only then would the
/// answer turn out to be unreadable. The constants below are positions in it.
pub static STATEMENTS: [Statement<'static>; 6] = [
    Statement::new(
        "t",
        "SELECT saldo, limite FROM InsertTransacao($1, $2, $3, $4)",
        &[oid::INT4, oid::INT4, oid::TEXT, oid::TEXT],
    )
    .returning(&[oid::INT8, oid::INT8]),
    Statement::new(
        "s",
        "SELECT saldos, limites FROM InsertTransacoes($1, $2, $3, $4)",
        &[oid::INT4_ARRAY, oid::INT4_ARRAY, oid::TEXT_ARRAY, oid::TEXT_ARRAY],
    )
    .returning(&[oid::INT8_ARRAY, oid::INT8_ARRAY]),
    Statement::new("e", "SELECT GetSaldoClienteById($1)", &[oid::INT4]).returning(&[oid::JSONB]),
    Statement::new("c", "SELECT id FROM clientes ORDER BY id LIMIT $1", &[oid::INT8]).returning(&[oid::INT4]),
    Statement::new(
        "v", // A setting that this version does not have is left out.
        "SELECT current_setting('server_encoding') IN ('UTF8', 'SQL_ASCII'), \
              current_setting('transaction_read_only')::boolean, count(set_config(name, value, false)) \
              FROM unnest($1, $2) AS s (name, value) WHERE current_setting(name, true) IS NOT NULL",
        &[oid::TEXT_ARRAY, oid::TEXT_ARRAY],
    )
    .returning(&[oid::BOOL, oid::BOOL, oid::INT8]),
    // A standby does not say which timeline it is on. Each of these three names one that it has reached, with a delay; the last
    // is NULL except for members of pg_monitor. Whether it is a standby is asked once: a promotion may come in between.
    Statement::new(
        "p",
        "SELECT system_identifier, CASE WHEN is_standby THEN greatest( \
              (SELECT timeline_id FROM pg_control_checkpoint()), \
              (SELECT min_recovery_end_timeline FROM pg_control_recovery()), \
              (SELECT received_tli FROM pg_stat_wal_receiver)) \
              ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer END, \
              (CASE WHEN is_standby THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END \
              - '0/0')::bigint \
              FROM (SELECT pg_is_in_recovery() AS is_standby OFFSET 0) AS role, pg_control_system()",
        &[],
    )
    .returning(&[oid::INT8, oid::INT4, oid::INT8]),
];
const INSERT_TRANSACAO: usize = 0;
const INSERT_TRANSACOES: usize = 1;
const GET_SALDO_CLIENTE_BY_ID: usize = 2;
const ACCOUNTS: usize = 3;
const SETTINGS: usize = 4;
const POSITION: usize = 5;
