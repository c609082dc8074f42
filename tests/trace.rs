//! What `cargo stress trace` tells of the real server, under the real strace.

use stress::syscalls::{self, Stage, Story};
use stress::throwaway::Throwaway;
use stress::{Workplace, install, strace};

/// The binary under test.
const SERVER: &str = env!("CARGO_BIN_EXE_rinha");

/// Whether the steps have these in this order. Others may come in between, since a deadline can pass at any time.
fn assert_in_order(story: &Story, expected: &[(Stage, &str, &str)]) {
    let mut steps = story.steps.iter();
    for (stage, call, bytes) in expected {
        let is_it = |step: &syscalls::Step| {
            step.stage == *stage
                && step.call.starts_with(call)
                && (bytes.is_empty() || step.bytes.iter().any(|line| line.starts_with(bytes)))
        };
        assert!(steps.any(is_it), "no {call} with {bytes:?} in its place in {story}");
    }
}

#[test]
fn the_system_calls_of_a_transaction_and_of_a_statement_are_told() {
    let strace = install::STRACE.require().expect("strace is installed").program;
    if let Some(reason) = strace::obstacle(&strace).expect("run strace") {
        stress::left_out("the trace, since ptrace is not allowed", &reason);
        return;
    }
    let logs = Throwaway::new("trace").expect("make a directory");
    let place = Workplace::silent(env!("CARGO_MANIFEST_DIR"), logs.path());
    let stories = syscalls::take(SERVER.as_ref(), &place);
    let stories = stories.expect("trace the server");
    let [transaction, statement] = stories.as_slice() else { panic!("{stories:?}") };
    println!("{transaction}{statement}");

    assert_in_order(
        transaction,
        &[
            (Stage::Wait, "epoll_wait = 1: client", ""),
            (Stage::Receive, "recvfrom(client) = ", "POST /clientes/1/transacoes HTTP/1.1"),
            (Stage::Advance, "none", ""),
            (Stage::Send, "sendto(PostgreSQL) = ", "Bind of statement \"t\" to (1, 10, 'c', 'told')"),
            (Stage::Wait, "epoll_wait = 1: PostgreSQL", ""),
            (Stage::Receive, "recvfrom(PostgreSQL) = ", "ReadyForQuery, idle: the transaction is committed"),
            (Stage::Advance, "none", ""),
            (Stage::Send, "sendto(client) = ", "HTTP/1.1 200 OK  +  {\"limite\":100000,\"saldo\":"),
        ],
    );
    assert_in_order(
        statement,
        &[
            (Stage::Receive, "recvfrom(client) = ", "GET /clientes/1/extrato HTTP/1.1"),
            (Stage::Send, "sendto(PostgreSQL) = ", "Bind of statement \"e\" to (1)"),
            (Stage::Receive, "recvfrom(PostgreSQL) = ", "DataRow (jsonb {\"saldo\": "),
            (Stage::Send, "sendto(client) = ", "HTTP/1.1 200 OK  +  {\"saldo\": "),
        ],
    );
}
