//! What a request costs besides its own work: no allocation, one read, one write, and little memory while a connection
//! is idle.

mod support;

#[path = "thrift/resident.rs"]
mod resident;
#[path = "thrift/trace.rs"]
mod trace;

use bare_core::{BareCore, Request};
use resident::Resident;
use support::{Bank, Database, Wire, get, transaction};
use trace::Trace;

const STATEMENT: &str = "/clientes/1/extrato";

// ---------------------------------------------------------------------------------------------------------------------
// Allocations.

/// More than a second of rounds for the core: looks at deadlines and new dates are among them.
const ROUNDS: u32 = 2_000;

/// Allocations in the steady state, where every client makes its request again and again.
fn steady_allocations(requests: &[Request]) -> u64 {
    let mut core = BareCore::new(requests);
    core.warm_up();
    allocation_counter::measure(|| (0..ROUNDS).for_each(|_| core.round())).count_total
}

#[test]
fn a_transaction_allocates_nothing() {
    assert_eq!(steady_allocations(&[Request::Transaction]), 0);
}

#[test]
fn a_chunked_transaction_allocates_nothing() {
    assert_eq!(steady_allocations(&[Request::ChunkedTransaction]), 0);
}

#[test]
fn a_statement_allocates_nothing() {
    assert_eq!(steady_allocations(&[Request::Statement]), 0);
}

#[test]
fn a_set_of_transactions_allocates_nothing() {
    assert_eq!(steady_allocations(&[Request::Transaction; 16]), 0);
}

#[test]
fn the_largest_set_of_transactions_allocates_nothing() {
    assert_eq!(steady_allocations(&[Request::Transaction; 64]), 0);
}

#[test]
fn a_batch_of_a_set_and_statements_allocates_nothing() {
    let requests = [[Request::Transaction; 8], [Request::Statement; 8]].concat();
    assert_eq!(steady_allocations(&requests), 0);
}

#[test]
fn the_counter_sees_what_the_core_allocates() {
    let mut core = BareCore::new(&[Request::Statement]);
    let first = allocation_counter::measure(|| core.round());
    assert!(first.count_total > 0, "the first answer needs an outbox");
}

// ---------------------------------------------------------------------------------------------------------------------
// System calls.

/// Requests whose system calls are counted.
const REQUESTS: usize = 500;

/// How often the server has to wake up for one request: for it, and for PostgreSQL's answer.
const WAITS_PER_REQUEST: usize = 2;

/// And how often in vain: an edge that comes while an earlier one is being told is told twice.
const SPURIOUS_WAITS_MAX: usize = REQUESTS / 20;

/// How a client comes to the server.
#[derive(PartialEq, Eq)]
enum Way {
    /// By itself.
    Tcp,
    /// As nginx does.
    Unix,
}

/// Makes the same request again and again on one connection, each after the answer to the one before. Each is one read
/// and one write on that connection, the same to the database, a few waits, and nothing else.
fn assert_no_needless_call(way: &Way, request: &[u8]) {
    let Some(trace) = Trace::where_possible() else { return };
    // On a slow machine the requests take longer than the interval, and a probe asks the database as well.
    let bank = Bank::start(Database::new(), &[("PROBE_INTERVAL_MS", "600000")], |options| {
        options.executable = trace.executable();
        if *way == Way::Unix {
            options.listen = vec![trace.listen()];
        }
    });
    let mut wire = bank.connect();
    for _ in 0..=REQUESTS {
        assert_eq!(wire.ask(request).status, 200);
    }
    drop(bank);

    let calls = trace.calls();
    println!("{REQUESTS} requests: {calls}");
    assert_eq!(calls.client_reads, REQUESTS, "{calls}");
    assert_eq!(calls.client_writes, REQUESTS, "{calls}");
    assert_eq!(calls.database_reads, REQUESTS, "{calls}");
    assert_eq!(calls.database_writes, REQUESTS, "{calls}");
    assert!(calls.waits <= WAITS_PER_REQUEST * REQUESTS + SPURIOUS_WAITS_MAX, "{calls}");
    assert_eq!(calls.others, [""; 0]);
}

#[test]
fn a_transaction_over_tcp_is_one_read_and_one_write() {
    assert_no_needless_call(&Way::Tcp, &transaction(1, 1, "c", "thrift"));
}

#[test]
fn a_transaction_over_a_unix_socket_is_one_read_and_one_write() {
    assert_no_needless_call(&Way::Unix, &transaction(1, 1, "c", "thrift"));
}

#[test]
fn a_statement_is_one_read_and_one_write() {
    assert_no_needless_call(&Way::Tcp, &get(STATEMENT));
}

// ---------------------------------------------------------------------------------------------------------------------
// Memory.

const CONNECTIONS: u64 = 1_000;
const RESIDENT_MAX_KIB: u64 = 8 * 1_024;

/// Each connection has made the request with the largest answer, a full statement, and is idle after it.
///
/// Judged is the anonymous memory, that is heap and stacks: what a connection can cost. The mapped file of the binary
/// depends on how it was built and is shared by the instances; the debug binary of a test is several times the size of
/// the one that is shipped.
#[test]
fn a_thousand_idle_connections_fit_in_8_mb() {
    let bank = Bank::open();
    for _ in 0..10 {
        assert_eq!(bank.transact(1, 1, "c", "0123456789").status, 200);
    }
    let before = Resident::of(bank.instance.pid());
    let mut wires: Vec<Wire> = (0..CONNECTIONS).map(|_| bank.connect()).collect();
    for wire in &mut wires {
        assert_eq!(wire.ask(get(STATEMENT)).status, 200);
    }
    bank.wait_metric("rinha_connections", CONNECTIONS);
    let after = Resident::of(bank.instance.pid());

    println!("before: {before}; with {CONNECTIONS} idle connections: {after}");
    assert!(after.anonymous_kib < RESIDENT_MAX_KIB, "{after}");
}
