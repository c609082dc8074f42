//! Clients, engine and lanes together, against a server in memory: what every call ends in, whatever happens to it.

use super::*;
use crate::bank::Unavailable;
use crate::buf::Pipe as _;
use crate::random::Random;
use crate::sim::postgres::{self, Postgres};
use proto_pg::{CloseReason, Endpoint};
use sessions::Exchange;

#[path = "../../proto-pg/tests/sessions/mod.rs"]
#[allow(dead_code, reason = "only reads recordings")]
mod sessions;

/// One engine and one database, with a lane between them whose bytes the test moves.
struct World {
    engine: Engine,
    now: Now,
    database: Postgres,
    /// The lane whose bytes are moved, the first one unless a test says otherwise, and its session there.
    lane: usize,
    session: usize,
}

/// From one position that a test tries to the next. Miri takes some hundred times as long, so there it is one of many.
const STEP: usize = if cfg!(miri) { 97 } else { 1 };

/// A valid transaction.
const CREDIT: &str = "POST /clientes/1/transacoes HTTP/1.1\r\nHost: bank\r\nContent-Length: 43\r\n\r\n\
                      {\"valor\": 1, \"tipo\": \"c\", \"descricao\": \"a\"}";

/// Values of `GROUP_CALLS_MIN`: what becomes of a call must not depend on how its batch was sent.
const ONE_BY_ONE_AND_AS_A_SET: [&str; 2] = ["257", "2"];

impl World {
    /// A world whose lane is ready.
    fn new(settings: &[(&str, &str)]) -> World {
        let mut world = World::down(settings);
        world.connect();
        world.settle();
        assert!(world.engine.lanes[0].is_ready());
        world.database.batches.clear();
        world
    }

    /// A world whose lane is down.
    fn down(settings: &[(&str, &str)]) -> World {
        let now = Now::default();
        let engine = Engine::new(Config::for_test(settings), 1, now);
        World { engine, now, database: Postgres::new(), lane: 0, session: 0 }
    }

    fn connect(&mut self) {
        self.dial();
        self.engine.lane_connected(self.lane, self.now);
        self.session = self.database.connect();
    }

    /// The lane has begun to connect, after its wait if it has one.
    fn dial(&mut self) {
        if self.engine.poll_connect(self.now).is_none() {
            self.sleep();
            assert!(matches!(self.engine.poll_connect(self.now), Some((lane, _)) if lane == self.lane));
        }
    }

    /// A client that has sent this request.
    fn request(&mut self, text: &str) -> Slot {
        let slot = self.engine.accept(ListenerKind::Bank, self.now).unwrap();
        self.send_on(slot, text);
        slot
    }

    fn send_on(&mut self, slot: Slot, text: &str) {
        let client = self.engine.client(slot).unwrap();
        client.recv_space()[..text.len()].copy_from_slice(text.as_bytes());
        client.recv_commit(text.len());
        self.engine.mark_due(slot);
    }

    fn transaction(&mut self, account: i32, kind: char, value: i32, description: &str) -> Slot {
        let body = format!(r#"{{"valor": {value}, "tipo": "{kind}", "descricao": "{description}"}}"#);
        self.request(&format!(
            "POST /clientes/{account}/transacoes HTTP/1.1\r\nHost: bank\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn credit(&mut self, account: i32, description: &str) -> Slot {
        self.transaction(account, 'c', 1, description)
    }

    /// A turn, as far as the engine takes part in it.
    fn advance(&mut self) {
        self.now.looked_us = self.now.monotonic_us;
        self.engine.advance(self.now);
        self.engine.take_due(&mut Vec::new());
        self.engine.expire(self.now, |_| false);
    }

    /// Moves the lane's bytes to the database. Returns the answer, which is on its way.
    fn carry_to_database(&mut self) -> Vec<u8> {
        let Some(connection) = self.engine.lanes[self.lane].connection() else { return Vec::new() };
        let bytes = connection.send_pending().to_vec();
        connection.send_advance(bytes.len());
        self.database.receive(self.session, bytes);
        while self.database.work(self.session, self.now.monotonic_us) {}
        std::mem::take(self.database.sent(self.session))
    }

    /// Moves bytes of the database into the lane, as many at a time as it takes.
    fn carry_to_lane(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(connection) = self.engine.lanes[self.lane].connection() else { return };
            let space = connection.recv_space();
            let taken = space.len().min(bytes.len());
            space[..taken].copy_from_slice(&bytes[..taken]);
            connection.recv_commit(taken);
            bytes = &bytes[taken..];
            self.advance();
        }
    }

    /// Runs turns until the lane is silent and nothing waits for company.
    fn settle(&mut self) {
        loop {
            self.advance();
            let answer = self.carry_to_database();
            if answer.is_empty()
                && let Some(until_us) = self.engine.gathers_until_us()
            {
                self.now.monotonic_us = until_us;
            } else if answer.is_empty() {
                return;
            }
            self.carry_to_lane(&answer);
        }
    }

    fn cut(&mut self) {
        if let Some(connection) = self.engine.lanes[0].connection() {
            connection.close(CloseReason::PeerClosed);
        }
        self.advance();
    }

    /// Moves time to the engine's next deadline.
    fn sleep(&mut self) {
        self.now.monotonic_us = self.engine.deadline_us().max(self.now.monotonic_us);
        self.advance();
    }

    /// What the client was answered so far, taken out.
    fn answer(&mut self, slot: Slot) -> String {
        let client = self.engine.client(slot).unwrap();
        let text = String::from_utf8(client.send_pending().to_vec()).unwrap();
        client.send_advance(text.len());
        text
    }

    fn status(&mut self, slot: Slot) -> String {
        self.answer(slot).get(9..12).unwrap_or("none").to_owned()
    }

    /// What a credit that is served now is answered.
    fn credit_status(&mut self, account: i32, description: &str) -> String {
        let slot = self.credit(account, description);
        self.settle();
        self.status(slot)
    }

    /// What `/healthz` answers now.
    fn health(&mut self) -> String {
        let slot = self.request("GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n");
        self.advance();
        self.answer(slot)
    }

    /// The descriptions in the ledger, in order.
    fn rows(&self) -> Vec<&str> {
        self.database.ledger.rows.iter().map(|entry| entry.description.as_str()).collect()
    }

    /// How many calls each batch had, empty ones included.
    fn batches(&self) -> Vec<usize> {
        self.database.batches.iter().map(|batch| batch.calls).collect()
    }

    fn unavailable(&mut self, reason: Unavailable) -> bool {
        let mut text = Vec::new();
        self.engine.metrics().render(&mut text);
        let zero = format!("rinha_unavailable_total{{reason=\"{}\"}} 0\n", reason.label());
        !String::from_utf8(text).unwrap().contains(&zero)
    }
}

#[test]
fn a_lone_request_is_sent_at_once_and_answered_after_its_commit() {
    let mut world = World::new(&[]);
    let slot = world.credit(1, "a");
    world.advance();
    let answer = world.carry_to_database();
    let ready_for_query = 6;
    world.carry_to_lane(&answer[..answer.len() - ready_for_query]);
    assert_eq!(world.answer(slot), "", "CommandComplete is no commit");
    world.carry_to_lane(&answer[answer.len() - ready_for_query..]);
    assert!(world.answer(slot).ends_with("\r\n\r\n{\"limite\":1000,\"saldo\":1}"));
    assert_eq!(world.rows(), ["a"]);
}

#[test]
fn the_answer_is_the_same_at_every_split_of_the_databases_bytes() {
    let len_bytes = {
        let mut world = World::new(&[]);
        world.credit(1, "a");
        world.advance();
        world.carry_to_database().len()
    };
    for at in (0..=len_bytes).step_by(STEP) {
        let mut world = World::new(&[]);
        let slot = world.credit(1, "a");
        world.advance();
        let answer = world.carry_to_database();
        world.carry_to_lane(&answer[..at]);
        world.carry_to_lane(&answer[at..]);
        assert_eq!(world.status(slot), "200", "split at {at}");
    }
}

#[test]
fn calls_gather_while_a_batch_is_out_and_are_sorted_by_account_then_arrival() {
    let mut world = World::new(&[]);
    world.credit(3, "first");
    world.advance();
    let slots =
        [(5, "e"), (1, "a"), (3, "c"), (1, "b"), (3, "d")].map(|(account, name)| world.credit(account, name));
    world.settle();
    assert_eq!(world.rows(), ["first", "a", "b", "c", "d", "e"]);
    assert_eq!(world.batches(), [1, 5]);
    for slot in slots {
        assert_eq!(world.status(slot), "200");
    }
}

#[test]
fn a_batch_is_no_larger_than_its_limit() {
    let mut world = World::new(&[("BATCH_CALLS_MAX", "2")]);
    for name in ["a", "b", "c", "d", "e"] {
        world.credit(1, name);
    }
    world.settle();
    assert_eq!(world.batches(), [2, 2, 1]);
    assert_eq!(world.rows(), ["a", "b", "c", "d", "e"]);
}

#[test]
fn after_a_large_batch_the_next_one_waits_a_moment_for_as_many() {
    let mut world = World::new(&[("GATHER_MS", "2"), ("GROUP_CALLS_MIN", "3")]);
    let credits = |world: &mut World, count: usize| {
        for _ in 0..count {
            world.credit(1, "a");
        }
        world.advance();
    };
    credits(&mut world, 4);
    world.settle();

    credits(&mut world, 3);
    assert_eq!(world.carry_to_database(), b"", "three wait for a fourth");
    assert_eq!(world.engine.deadline_us(), world.now.monotonic_us + 2_000);
    world.now.monotonic_us += 1_999;
    credits(&mut world, 1);
    world.settle();
    assert_eq!(world.batches(), [4, 4], "it came");

    credits(&mut world, 1);
    world.now.monotonic_us += 1_000;
    credits(&mut world, 1);
    assert_eq!(world.carry_to_database(), b"");
    world.now.monotonic_us += 1_000;
    world.advance();
    world.settle();
    assert_eq!(world.batches(), [4, 4, 2], "nobody else came; the oldest has waited long enough");

    credits(&mut world, 1);
    assert_ne!(world.carry_to_database(), b"", "after a small batch nothing waits");
}

#[test]
fn without_a_time_to_gather_a_call_is_sent_at_once() {
    let mut world = World::new(&[("GATHER_MS", "0")]);
    for _ in 0..9 {
        world.credit(1, "a");
    }
    world.settle();
    world.credit(1, "b");
    world.advance();
    assert_ne!(world.carry_to_database(), b"");
}

#[test]
fn several_batches_may_be_in_flight() {
    let mut world = World::new(&[("BATCH_CALLS_MAX", "1"), ("BATCHES_IN_FLIGHT_MAX", "2")]);
    let slots = ["a", "b", "c"].map(|name| world.credit(1, name));
    world.advance();
    let answer = world.carry_to_database();
    assert_eq!(world.batches(), [1, 1], "the third waits");
    world.carry_to_lane(&answer);
    assert_eq!([slots[0], slots[1], slots[2]].map(|slot| world.status(slot)), ["200", "200", "none"]);
    world.settle();
    assert_eq!(world.status(slots[2]), "200");
}

#[test]
fn refused_debits_and_statements_share_a_batch_with_the_rest() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        let mut world = World::new(&[("GROUP_CALLS_MIN", minimum)]);
        let refused = world.transaction(1, 'd', 1_001, "no");
        let exact = world.transaction(2, 'd', 1_000, "yes");
        let statement = world.request("GET /clientes/2/extrato HTTP/1.1\r\nHost: bank\r\n\r\n");
        world.settle();
        assert_eq!(world.status(refused), "422");
        assert!(world.answer(exact).ends_with("{\"limite\":1000,\"saldo\":-1000}"));
        assert!(world.answer(statement).contains("{\"total\": -1000, "));
        assert_eq!(world.rows(), ["yes"]);
    }
}

#[test]
fn a_batch_of_many_transactions_goes_as_one_set() {
    for (transactions, calls_sent) in [(3, 3), (4, 1), (9, 1)] {
        let mut world = World::new(&[("GROUP_CALLS_MIN", "4")]);
        let slots: Vec<Slot> = (0..transactions).map(|number| world.credit(number % 5 + 1, "a")).collect();
        let statement = world.request("GET /clientes/1/extrato HTTP/1.1\r\nHost: bank\r\n\r\n");
        world.advance();
        let Some(connection) = world.engine.lanes[0].connection() else { panic!("the lane is ready") };
        assert_eq!(connection.in_flight_calls(), calls_sent + 1, "{transactions} transactions");
        assert_eq!(world.engine.lanes[0].in_flight_calls(), slots.len() + 1);
        world.settle();
        for slot in slots {
            assert_eq!(world.status(slot), "200");
        }
        assert_eq!(world.status(statement), "200");
        assert_eq!(world.engine.lanes[0].in_flight_calls(), 0);
    }
}

#[test]
fn sets_of_several_batches_in_flight_keep_their_answers_apart() {
    let settings = [("GROUP_CALLS_MIN", "2"), ("BATCH_CALLS_MAX", "2"), ("BATCHES_IN_FLIGHT_MAX", "2")];
    let mut world = World::new(&settings);
    let slots = [1, 1, 2, 2].map(|account| world.credit(account, "a"));
    world.settle();
    let bodies = slots.map(|slot| world.answer(slot).rsplit("\r\n\r\n").next().unwrap().to_owned());
    let expected = [1, 2, 1, 2].map(|balance| format!("{{\"limite\":1000,\"saldo\":{balance}}}"));
    assert_eq!(bodies, expected);
}

#[test]
fn an_account_that_has_gone_is_answered_404() {
    let mut world = World::new(&[]);
    world.database.ledger.accounts.remove(&5);
    let transaction = world.credit(5, "a");
    let statement = world.request("GET /clientes/5/extrato HTTP/1.1\r\nHost: bank\r\n\r\n");
    world.settle();
    assert_eq!([transaction, statement].map(|slot| world.status(slot)), ["404", "404"]);
}

#[test]
fn of_a_failed_batch_only_the_culprit_fails() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        let mut world = World::new(&[("GROUP_CALLS_MIN", minimum)]);
        // It fails in company and again by itself.
        world.database.failures = vec![("culprit".to_owned(), "23514"); 2];
        let slots = ["a", "culprit", "b"].map(|name| world.credit(1, name));
        world.settle();
        assert_eq!(slots.map(|slot| world.status(slot)), ["200", "503", "200"]);
        assert_eq!(world.rows(), ["a", "b"]);
        assert_eq!(world.batches()[1..], [1, 1, 1], "then each alone");
        assert!(world.unavailable(Unavailable::Failed));
    }
}

#[test]
fn the_fewest_attempts_are_enough_for_those_that_are_not_to_blame() {
    let mut world = World::new(&[("ATTEMPTS_MAX", "2")]);
    world.database.failures = vec![("culprit".to_owned(), "23514"); 2];
    let slots = [(1, "a"), (2, "culprit"), (3, "b")].map(|(account, name)| world.credit(account, name));
    world.settle();
    assert_eq!(slots.map(|slot| world.status(slot)), ["200", "503", "200"]);
}

#[test]
fn calls_that_run_alone_go_in_the_order_in_which_they_came() {
    let mut world = World::new(&[]);
    // Their batch is sorted by account, the other way round.
    world.database.failures = vec![("c".to_owned(), "40001")];
    for (account, name) in [(3, "a"), (2, "b"), (1, "c")] {
        world.credit(account, name);
    }
    world.settle();
    assert_eq!(world.rows(), ["a", "b", "c"]);
}

#[test]
fn a_procedure_that_returns_two_rows_ends_the_session() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        let mut world = World::new(&[("GROUP_CALLS_MIN", minimum)]);
        let slots = ["a", "b"].map(|name| world.credit(1, name));
        world.advance();
        let answer = world.carry_to_database();
        let boundaries = boundaries(&answer);
        let rows = boundaries.windows(2).map(|ends| &answer[ends[0]..ends[1]]);
        let row = rows.clone().find(|message| message.starts_with(b"D")).unwrap();
        let twice: Vec<&[u8]> =
            rows.flat_map(|message| vec![message; 1 + usize::from(message == row)]).collect();
        world.carry_to_lane(&twice.concat());
        assert!(!world.engine.lanes[0].wants_socket(), "{minimum}");
        assert_eq!(slots.map(|slot| world.status(slot)), ["503"; 2]);
        assert!(world.unavailable(Unavailable::InDoubt));
    }
}

#[test]
fn a_call_that_failed_only_in_company_succeeds_by_itself() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        let mut world = World::new(&[("GROUP_CALLS_MIN", minimum)]);
        world.database.failures = vec![("b".to_owned(), "57014")];
        let slots = ["a", "b"].map(|name| world.credit(1, name));
        world.settle();
        assert_eq!(slots.map(|slot| world.status(slot)), ["200", "200"]);
        let mut rows = world.rows();
        rows.sort_unstable();
        assert_eq!(rows, ["a", "b"]);
    }
}

#[test]
fn conflicts_are_tried_again_but_not_for_ever() {
    for (code, failures, status, runs) in
        [("40001", 2, "200", 3), ("40P01", 2, "200", 3), ("40001", 3, "503", 3), ("23514", 1, "503", 1)]
    {
        let mut world = World::new(&[("ATTEMPTS_MAX", "3")]);
        world.database.failures = vec![("a".to_owned(), code); failures];
        let slot = world.credit(1, "a");
        world.settle();
        assert_eq!(world.status(slot), status, "{code} {failures} times");
        assert_eq!(world.database.ran.len(), runs, "{code} {failures} times");
        assert_eq!(world.rows().len(), usize::from(status == "200"));
    }
}

#[test]
fn a_failed_commit_undoes_the_batch_and_each_call_runs_alone() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        let mut world = World::new(&[("GROUP_CALLS_MIN", minimum)]);
        world.database.commit_failure = Some("40001");
        let slots = ["a", "b"].map(|name| world.credit(1, name));
        world.settle();
        assert_eq!(slots.map(|slot| world.status(slot)), ["200", "200"]);
        assert_eq!(world.rows(), ["a", "b"]);
        assert_eq!(world.database.ran, ["a", "b", "a", "b"]);
    }
}

#[test]
fn a_batch_that_was_sent_when_the_lane_died_is_in_doubt_and_never_run_again() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        let mut world = World::new(&[("GROUP_CALLS_MIN", minimum)]);
        let slots = ["a", "b"].map(|name| world.credit(1, name));
        world.advance();
        world.carry_to_database();
        world.cut();
        assert_eq!(world.engine.metrics().lane_closes, 1);
        for slot in slots {
            assert_eq!(world.status(slot), "503");
        }
        assert!(world.unavailable(Unavailable::InDoubt));
        world.sleep();
        world.connect();
        world.settle();
        assert_eq!(world.database.ran, ["a", "b"], "once each, before the cut");
        assert_eq!(world.credit_status(1, "c"), "200");
    }
}

#[test]
fn a_batch_that_ends_inside_a_transaction_block_is_in_doubt() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        let mut world = World::new(&[("GROUP_CALLS_MIN", minimum)]);
        let slots = ["a", "b"].map(|name| world.credit(1, name));
        world.advance();
        let mut answer = world.carry_to_database();
        assert_eq!(answer.last(), Some(&b'I'));
        *answer.last_mut().unwrap() = b'T';
        world.carry_to_lane(&answer);
        world.advance();
        for slot in slots {
            assert_eq!(world.status(slot), "503");
        }
        assert!(world.unavailable(Unavailable::InDoubt));
    }
}

#[test]
fn an_answer_that_is_here_counts_although_its_time_is_over() {
    let mut world = World::new(&[]);
    let slot = world.credit(1, "a");
    world.advance();
    let answer = world.carry_to_database();
    // The server itself stood still for as long as PostgreSQL may take.
    world.now.monotonic_us += 4_000_000;
    world.carry_to_lane(&answer);
    assert_eq!(world.status(slot), "200");
}

/// Which way the bytes go whose flow is cut.
#[derive(Clone, Copy, Debug)]
enum Way {
    ToDatabase,
    ToLane,
}

/// Four credits, a debit that is refused and a statement, as one batch that waits in the lane to be sent.
struct Mixed {
    world: World,
    credits: [Slot; 4],
    refused: Slot,
    statement: Slot,
}

impl Mixed {
    const CREDITS: [(i32, &str); 4] = [(1, "a"), (1, "b"), (2, "c"), (3, "d")];

    fn new(minimum: &str) -> Mixed {
        let mut world = World::new(&[("GROUP_CALLS_MIN", minimum)]);
        let credits = Mixed::CREDITS.map(|(account, name)| world.credit(account, name));
        let refused = world.transaction(4, 'd', 1_001, "refused");
        let statement = world.request("GET /clientes/5/extrato HTTP/1.1\r\nHost: bank\r\n\r\n");
        world.advance();
        Mixed { world, credits, refused, statement }
    }

    /// The link ends, both sides learn of it, and the lane finds a new one.
    fn relink(&mut self) {
        let world = &mut self.world;
        world.database.hang_up(world.session);
        while world.database.work(world.session, world.now.monotonic_us) {}
        world.cut();
        world.sleep();
        world.connect();
        world.settle();
    }

    /// Whoever is told something finds the ledger so, once, and nobody is told nothing. Gives how many were told that
    /// there is no answer.
    fn judge(mut self, context: &str) -> usize {
        let mut unavailable = 0;
        for (slot, (_, name)) in self.credits.into_iter().zip(Mixed::CREDITS) {
            let status = self.world.status(slot);
            let rows = self.world.rows().into_iter().filter(|row| *row == name).count();
            match status.as_str() {
                "200" => assert_eq!(rows, 1, "{context}"),
                "503" => assert!(rows <= 1, "{context}"),
                other => panic!("{other}: {context}"),
            }
            unavailable += usize::from(status == "503");
        }
        assert!(!self.world.rows().contains(&"refused"), "{context}");
        for (slot, expected) in [(self.refused, "422"), (self.statement, "200")] {
            let status = self.world.status(slot);
            assert!([expected, "503"].contains(&status.as_str()), "{status}: {context}");
            unavailable += usize::from(status == "503");
        }
        unavailable
    }
}

/// A batch whose link ends after this many bytes. Gives how many bytes there were to cut.
fn cut_after(way: Way, kept_bytes: usize, minimum: &str) -> usize {
    let mut batch = Mixed::new(minimum);
    let world = &mut batch.world;
    let cuttable_bytes = match way {
        Way::ToDatabase => {
            let connection = world.engine.lanes[0].connection().unwrap();
            let mut bytes = connection.send_pending().to_vec();
            let all_bytes = bytes.len();
            bytes.truncate(kept_bytes);
            connection.send_advance(bytes.len());
            world.database.receive(world.session, bytes);
            while world.database.work(world.session, world.now.monotonic_us) {}
            all_bytes
        }
        Way::ToLane => {
            let answer = world.carry_to_database();
            world.carry_to_lane(&answer[..kept_bytes.min(answer.len())]);
            answer.len()
        }
    };
    batch.relink();
    batch.judge(&format!("{way:?}, {kept_bytes} bytes, GROUP_CALLS_MIN={minimum}"));
    cuttable_bytes
}

#[test]
fn the_link_may_be_cut_after_any_byte_in_either_direction() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        for way in [Way::ToDatabase, Way::ToLane] {
            let cuttable_bytes = cut_after(way, usize::MAX, minimum);
            assert!(cuttable_bytes > 100);
            for kept_bytes in (0..cuttable_bytes).step_by(STEP * STEP.min(3)) {
                cut_after(way, kept_bytes, minimum);
            }
        }
    }
}

/// A backend message.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    postgres::message(&mut bytes, tag, body);
    bytes
}

fn error(severity: &str, code: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    postgres::error(&mut bytes, severity, code);
    bytes
}

/// Where each message begins, and where the last one ends.
fn boundaries(bytes: &[u8]) -> Vec<usize> {
    let mut boundaries = vec![0];
    while let Some(&[a, b, c, d]) = boundaries.last().and_then(|at| bytes.get(at + 1..)?.first_chunk()) {
        let len_bytes = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap();
        boundaries.push(boundaries[boundaries.len() - 1] + 1 + len_bytes);
    }
    boundaries
}

/// The batch `Mixed` with each of its answer's boundaries: the bytes before and behind it, and whether it is the end.
fn at_every_boundary(minimum: &str, mut act: impl FnMut(Mixed, &[u8], &[u8])) {
    let answer = Mixed::new(minimum).world.carry_to_database();
    let boundaries = boundaries(&answer);
    assert!(boundaries.len() >= 8, "{boundaries:?}");
    for at in boundaries {
        let (before, behind) = answer.split_at(at);
        act(Mixed::new(minimum), before, behind);
    }
}

#[test]
fn a_remark_at_any_place_of_a_batch_changes_nothing() {
    let remarks = [
        message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0"),
        message(b'S', b"TimeZone\0UTC\0"),
        message(b'A', b"\0\0\0\x07channel\0payload\0"),
    ];
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        for remark in &remarks {
            at_every_boundary(minimum, |mut batch, before, behind| {
                batch.world.carry_to_database();
                batch.world.carry_to_lane(&[before, remark, behind].concat());
                let context = format!("{} behind {}", remark.escape_ascii(), before.escape_ascii());
                assert!(batch.world.engine.lanes[0].is_ready(), "{context}");
                assert_eq!(batch.judge(&context), 0, "{context}");
            });
        }
    }
}

#[test]
fn an_error_at_any_place_of_a_batch_undoes_it_and_each_call_runs_alone() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        for code in ["23514", "40001"] {
            at_every_boundary(minimum, |mut batch, before, behind| {
                let world = &mut batch.world;
                if behind.is_empty() {
                    // The batch is over, so nobody can be blamed: the lane falls.
                    world.carry_to_database();
                    world.carry_to_lane(&[before, &error("ERROR", code)].concat());
                    batch.relink();
                } else {
                    // The database does not keep what it has rolled back, so it need not even see it.
                    let connection = world.engine.lanes[0].connection().unwrap();
                    connection.send_advance(connection.send_pending().len());
                    world.carry_to_lane(&[before, &error("ERROR", code), &message(b'Z', b"I")].concat());
                    world.settle();
                    assert!(world.database.batches.iter().all(|batch| batch.calls == 1));
                }
                let context = format!("{code} behind {}", before.escape_ascii());
                assert_eq!(batch.judge(&context), 0, "{context}");
            });
        }
    }
}

#[test]
fn a_session_that_ends_at_any_place_of_a_batch_leaves_it_in_doubt_and_nothing_runs_twice() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        for has_committed in [false, true] {
            at_every_boundary(minimum, |mut batch, before, behind| {
                let world = &mut batch.world;
                let is_answered = behind.is_empty();
                if has_committed || is_answered {
                    world.carry_to_database();
                } else {
                    let connection = world.engine.lanes[0].connection().unwrap();
                    connection.send_advance(connection.send_pending().len());
                }
                world.carry_to_lane(&[before, &error("FATAL", "57P01")].concat());
                batch.relink();
                let rows = if has_committed || is_answered { Mixed::CREDITS.len() } else { 0 };
                assert_eq!(batch.world.rows().len(), rows, "nothing runs again");
                let context = format!("FATAL behind {}, {has_committed}", before.escape_ascii());
                assert_eq!(batch.judge(&context), if is_answered { 0 } else { 6 }, "{context}");
            });
        }
    }
}

/// The session of a lane with a real server, in these pieces for each turn. Gives what the clients were answered.
fn replay<'a>(recording: &'a [Exchange], cut: impl Fn(usize, &'a [u8]) -> Vec<&'a [u8]>) -> Vec<String> {
    let mut world = World::down(&[("GROUP_CALLS_MIN", "2"), ("GATHER_MS", "0")]);
    assert!(matches!(world.engine.poll_connect(world.now), Some((0, _))));
    world.engine.lane_connected(0, world.now);
    let mut slots = Vec::new();
    let mut sent = Vec::new();
    for (turn, exchange) in recording.iter().enumerate() {
        match turn {
            3 => slots.push(world.transaction(1, 'c', 10, "a")),
            4 => slots.extend([
                world.transaction(1, 'd', 100_011, "refused"),
                world.transaction(2, 'c', 5, "é"),
                world.request("GET /clientes/1/extrato HTTP/1.1\r\nHost: bank\r\n\r\n"),
            ]),
            _ => {}
        }
        world.advance();
        let mut take_pending = |world: &mut World| {
            let connection = world.engine.lanes[0].connection().unwrap();
            sent.extend_from_slice(connection.send_pending());
            connection.send_advance(connection.send_pending().len());
        };
        take_pending(&mut world);
        for piece in cut(turn, &exchange.server) {
            world.carry_to_lane(piece);
            take_pending(&mut world);
        }
    }
    let said: Vec<u8> = recording.iter().flat_map(|exchange| exchange.client.clone()).collect();
    assert!(sent.ends_with(&said), "a lane says something else now: record it anew");
    slots.into_iter().map(|slot| world.answer(slot)).collect()
}

#[test]
fn what_a_real_server_said_gives_the_same_answers_at_every_split() {
    let recording = sessions::read("tests/recorded/bank.txt".as_ref());
    let whole = replay(&recording, |_, bytes| vec![bytes]);
    let bodies: Vec<&str> = whole.iter().filter_map(|answer| answer.split("\r\n\r\n").nth(1)).collect();
    assert_eq!(bodies[0], r#"{"limite":100000,"saldo":10}"#);
    assert!(whole[1].starts_with("HTTP/1.1 422 "), "{}", whole[1]);
    assert_eq!(bodies[2], r#"{"limite":80000,"saldo":5}"#);
    assert!(
        bodies[3].contains(r#""total": 10"#) && bodies[3].contains(r#""descricao": "a""#),
        "{}",
        bodies[3]
    );
    assert_eq!(replay(&recording, |_, bytes| bytes.chunks(1).collect()), whole, "byte by byte");
    for (cut_turn, exchange) in recording.iter().enumerate() {
        for at in 0..exchange.server.len() {
            let answers = replay(&recording, |turn, bytes| {
                let (head, tail) = bytes.split_at(if turn == cut_turn { at } else { 0 });
                vec![head, tail]
            });
            assert_eq!(answers, whole, "turn {cut_turn}, cut at {at}");
        }
    }
}

#[test]
fn calls_that_were_not_sent_when_the_lane_died_wait_for_the_next_one() {
    let mut world = World::new(&[]);
    world.credit(1, "sent");
    world.advance();
    world.carry_to_database();
    let waiting = world.credit(2, "queued");
    world.advance();
    world.cut();
    assert_eq!(world.answer(waiting), "");
    world.sleep();
    world.connect();
    world.settle();
    assert_eq!(world.status(waiting), "200");
}

#[test]
fn a_batch_whose_sync_never_left_runs_on_the_next_lane() {
    let mut world = World::new(&[]);
    let slot = world.credit(1, "a");
    world.advance();
    world.cut();
    assert_eq!(world.answer(slot), "");
    world.sleep();
    world.connect();
    world.settle();
    assert_eq!(world.status(slot), "200");
    assert_eq!(world.database.ran, ["a"]);
}

#[test]
fn waiting_for_the_database_has_an_end_and_then_refusals_are_immediate() {
    let mut world = World::down(&[]);
    let slot = world.credit(1, "a");
    world.advance();
    assert_eq!(world.answer(slot), "");
    while world.now.monotonic_us < 1_000_000 {
        if world.engine.poll_connect(world.now).is_some() {
            world.engine.lane_connect_failed(0, "refused");
        }
        world.sleep();
    }
    assert_eq!(world.status(slot), "503");
    let late = world.credit(1, "b");
    world.advance();
    assert!(world.answer(late).contains("Retry-After: 1\r\n"));
    assert!(world.unavailable(Unavailable::DatabaseDown));
}

#[test]
fn a_full_queue_refuses_without_harm_to_those_in_it() {
    let mut world = World::new(&[("QUEUE_CALLS_MAX", "2"), ("BATCH_CALLS_MAX", "1")]);
    let sent = world.credit(1, "sent");
    world.advance();
    let slots = ["a", "b", "c"].map(|name| world.credit(1, name));
    world.advance();
    assert_eq!(slots.map(|slot| world.status(slot)), ["none", "none", "503"]);
    assert!(world.unavailable(Unavailable::QueueFull));
    world.settle();
    assert_eq!([sent, slots[0], slots[1]].map(|slot| world.status(slot)), ["200", "200", "200"]);
    assert_eq!(world.rows(), ["sent", "a", "b"]);
}

/// A database that takes 20 ms for a batch of two, so that 50 ms are five calls; once its rate is known, ten more come in
/// each 20 ms.
#[test]
fn a_queue_that_would_take_too_long_refuses_at_once() {
    let settings = [
        ("BATCH_CALLS_MAX", "2"),
        ("QUEUE_WAIT_MAX_MS", "50"),
        ("QUEUE_TIMEOUT_MS", "20000"),
        ("GATHER_MS", "0"),
    ];
    let mut world = World::new(&settings);
    let mut slots = Vec::new();
    for round in 0..120 {
        let calls = if round < 55 { 3 } else { 10 };
        slots.extend((0..calls).map(|number| world.credit(1, &format!("{round}-{number}"))));
        world.advance();
        // By then it has worked off what it let in before it knew the rate.
        let queued = world.engine.queues[0].len();
        assert!(round < 100 || (2..=6).contains(&queued), "{queued} calls wait in round {round}");
        let answer = world.carry_to_database();
        world.now.monotonic_us += 20_000;
        world.carry_to_lane(&answer);
    }
    assert!(world.unavailable(Unavailable::QueueFull) && !world.unavailable(Unavailable::QueueTimeout));
    world.settle();
    let refused = slots.iter().filter(|slot| world.status(**slot) == "503").count();
    assert_eq!(world.rows().len() + refused, slots.len());
}

/// A crowd of clients that wait for their answers, a database that serves them within `QUEUE_TIMEOUT_MS` at its rate, and
/// stalls beside it. Whoever is refused has waited for that long.
#[test]
fn a_closed_load_is_refused_only_after_its_time_whatever_stalls() {
    let worlds = if cfg!(miri) { 1 } else { 30 };
    for seed in 0..worlds {
        let mut random = Random::new(seed);
        let settings = [("BATCH_CALLS_MAX", "4"), ("CLIENTS_MAX", "60"), ("GATHER_MS", "0")];
        let mut world = World::new(&settings);
        // 60 calls are 15 batches: 0.9 s at the slowest.
        let batch_us = random.between(1_000, 60_000);
        let slots: Vec<Slot> = (0..60).map(|number| world.credit(1 + number % 5, "a")).collect();
        let mut asked_us = vec![0; slots.len()];
        let mut stall_at_us = random.between(0, 4_000_000);
        for _ in 0..400 {
            world.advance();
            let answer = world.carry_to_database();
            world.now.monotonic_us += batch_us;
            if world.now.monotonic_us > stall_at_us {
                world.now.monotonic_us += random.between(100_000, 2_000_000);
                stall_at_us = world.now.monotonic_us + random.between(1_000_000, 4_000_000);
            }
            world.carry_to_lane(&answer);
            world.advance();
            for (&slot, asked_us) in slots.iter().zip(&mut asked_us) {
                let answer = world.answer(slot);
                let status = answer.get(9..12).unwrap_or("none");
                let waited_us = world.now.monotonic_us - *asked_us;
                assert!(
                    status != "503" || waited_us >= 1_000_000,
                    "seed {seed}: after {waited_us} us {answer}"
                );
                if status != "none" {
                    *asked_us = world.now.monotonic_us;
                    world.send_on(slot, CREDIT);
                }
            }
        }
        assert!(!world.unavailable(Unavailable::QueueFull), "seed {seed}");
    }
}

/// They hold no place that a client which waits for its answer could have.
#[test]
fn calls_of_clients_that_have_left_do_not_fill_the_queue() {
    let mut world = World::new(&[("QUEUE_CALLS_MAX", "2"), ("BATCH_CALLS_MAX", "1")]);
    world.credit(1, "sent");
    world.advance();
    for slot in ["gone", "gone too"].map(|name| world.credit(1, name)) {
        world.advance();
        world.engine.remove(slot);
    }
    let slots = ["a", "b"].map(|name| world.credit(1, name));
    world.settle();
    assert_eq!(slots.map(|slot| world.status(slot)), ["200", "200"]);
    assert_eq!(world.rows(), ["sent", "a", "b"]);
}

#[test]
fn only_the_calls_of_those_who_left_are_dropped_from_a_full_queue() {
    let mut world = World::new(&[("QUEUE_CALLS_MAX", "2"), ("BATCH_CALLS_MAX", "1")]);
    world.credit(1, "sent");
    world.advance();
    let gone = world.credit(1, "gone");
    let stays = world.credit(1, "stays");
    world.advance();
    world.engine.remove(gone);
    let late = world.credit(1, "late");
    world.advance();
    assert_eq!(world.engine.metrics().calls_abandoned, 1);
    world.settle();
    assert_eq!([stays, late].map(|slot| world.status(slot)), ["200", "200"]);
}

#[test]
fn a_client_that_is_due_keeps_the_loop_awake() {
    let mut world = World::new(&[]);
    let slot = world.credit(1, "a");
    let mut due = Vec::new();
    world.engine.take_due(&mut due);
    assert!(!world.engine.has_due());
    world.engine.mark_due(slot);
    assert!(world.engine.has_due());
    world.engine.take_due(&mut due);
    assert_eq!((due, world.engine.has_due()), (vec![slot], false));
}

#[test]
fn a_late_request_that_is_here_is_served_although_its_client_should_have_been_cut_off() {
    let mut world = World::new(&[]);
    let slot = world.engine.accept(ListenerKind::Bank, world.now).unwrap();
    world.advance();
    // The process stood still: the wait for a request is over, and the request has come.
    world.now.monotonic_us += 3_600_000_000;
    world.now.looked_us = world.now.monotonic_us;
    world.send_on(slot, "GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n");
    world.engine.expire(world.now, |_| false);
    world.advance();
    assert_eq!(world.status(slot), "200");
}

#[test]
fn after_the_database_was_away_its_rate_is_learned_anew() {
    let settings = [("BATCH_CALLS_MAX", "2"), ("QUEUE_WAIT_MAX_MS", "50"), ("GATHER_MS", "0")];
    let mut world = World::new(&settings);
    for batch in 0..6 {
        world.engine.queues[0].drain_rate.record_batch(2, true, true, batch * 300_000);
    }
    assert!(world.engine.queues[0].drain_rate.wait_us(2).is_some_and(|wait_us| wait_us > 50_000));
    world.engine.lanes[0].connection().unwrap().close(CloseReason::TimedOut);
    let slots = ["a", "b", "c", "d", "e", "f"].map(|name| world.credit(1, name));
    world.advance();
    assert_eq!(slots.map(|slot| world.status(slot)), ["none"; 6]);
}

#[test]
fn a_call_that_waits_too_long_behind_others_does_not_run() {
    let mut world = World::new(&[]);
    world.credit(1, "sent");
    world.advance();
    let answer = world.carry_to_database();
    let slot = world.credit(1, "late");
    world.advance();
    world.now.monotonic_us += 1_000_000;
    world.advance();
    assert_eq!(world.status(slot), "503");
    assert!(world.unavailable(Unavailable::QueueTimeout));
    world.carry_to_lane(&answer);
    world.settle();
    assert_eq!(world.rows(), ["sent"]);
}

#[test]
fn a_silent_lane_is_given_up_and_its_batch_is_in_doubt() {
    let mut world = World::new(&[]);
    let slot = world.credit(1, "a");
    world.advance();
    world.carry_to_database();
    world.now.monotonic_us += 4_000_000;
    world.advance();
    assert_eq!(world.status(slot), "503");
    assert!(world.unavailable(Unavailable::InDoubt));
    assert!(!world.engine.lanes[0].wants_socket());
}

#[test]
fn a_lane_whose_server_sends_other_things_without_an_end_is_given_up() {
    let mut world = World::new(&[("PROBE_INTERVAL_MS", "600000")]);
    let slot = world.credit(1, "a");
    world.advance();
    let answer = world.carry_to_database();
    world.now.monotonic_us += 4_000_000;
    world.now.looked_us = world.now.monotonic_us;
    // What is readable may be the answer, even if it takes a few turns to read all of it.
    for _ in 0..10 {
        world.engine.expire(world.now, |_| true);
    }
    world.carry_to_lane(&answer);
    assert_eq!(world.status(slot), "200");

    let slot = world.credit(1, "b");
    world.advance();
    let _never_arrives = world.carry_to_database();
    world.now.monotonic_us += 4_000_000;
    world.now.looked_us = world.now.monotonic_us;
    let turns = (0..1_000).find(|_| {
        world.engine.expire(world.now, |_| true);
        !world.engine.lanes[0].wants_socket()
    });
    assert!(turns.is_some(), "it is readable all the time");
    assert!(world.answer(slot).contains("whether it was done is not known"));
}

#[test]
fn an_idle_lane_is_probed_and_given_up_when_it_does_not_answer() {
    let mut world = World::new(&[]);
    world.now.monotonic_us += 1_000_000;
    world.settle();
    assert_eq!(world.batches(), [0], "nothing is done by a probe");
    assert!(world.engine.lanes[0].is_ready());
    world.now.monotonic_us += 1_000_000;
    world.advance();
    world.carry_to_database();
    world.now.monotonic_us += 4_000_000;
    world.advance();
    assert!(!world.engine.lanes[0].is_ready());
}

#[test]
fn a_lane_that_is_closed_when_its_probe_is_due_just_closes() {
    let mut world = World::new(&[]);
    world.engine.lanes[0].connection().unwrap().close(CloseReason::PeerClosed);
    world.now.monotonic_us += 1_000_000;
    world.advance();
    assert!(!world.engine.lanes[0].wants_socket());
}

#[test]
fn an_answer_for_a_client_that_left_reaches_nobody() {
    let mut world = World::new(&[("CLIENTS_MAX", "1")]);
    let gone = world.credit(1, "a");
    world.advance();
    let answer = world.carry_to_database();
    world.engine.client(gone).unwrap().lost(std::io::ErrorKind::ConnectionReset);
    world.engine.remove(gone);
    let next = world.credit(2, "b");
    assert_eq!(next.index, gone.index, "the slot is used again");
    world.carry_to_lane(&answer);
    assert_eq!(world.answer(next), "");
    assert_eq!(world.engine.metrics().answers_late, 1);
    world.settle();
    assert!(world.answer(next).ends_with("{\"limite\":1000,\"saldo\":1}"));
    assert_eq!(world.rows(), ["a", "b"]);
}

#[test]
fn a_call_whose_client_left_before_its_turn_is_not_run() {
    let mut world = World::new(&[]);
    world.credit(1, "sent");
    world.advance();
    let gone = world.credit(1, "gone");
    world.advance();
    world.engine.remove(gone);
    world.settle();
    assert_eq!(world.rows(), ["sent"]);
    assert_eq!(world.engine.metrics().calls_abandoned, 1);
}

#[test]
fn an_empty_bank_is_not_served_until_its_clients_are_there() {
    let mut world = World::down(&[]);
    let accounts = std::mem::take(&mut world.database.ledger.accounts);
    world.connect();
    world.settle();
    assert!(!world.engine.lanes[0].wants_socket(), "it tries again later");
    assert_eq!(&world.health()[9..12], "503");
    world.database.ledger.accounts = accounts;
    world.sleep();
    world.connect();
    world.settle();
    assert_eq!(world.credit_status(1, "a"), "200");
}

#[test]
fn clients_are_told_why_a_database_that_can_be_reached_does_not_serve() {
    let mut world = World::down(&[]);
    world.database.ledger.accounts.clear();
    world.connect();
    world.settle();
    let slot = world.credit(1, "a");
    world.now.monotonic_us += 1_000_000;
    world.advance();
    assert!(world.answer(slot).contains("the bank is not in the database"));
    assert!(world.health().contains("the bank is not in the database"));
    // What was found last counts.
    world.dial();
    world.engine.lane_connect_failed(0, "refused");
    let slot = world.credit(1, "a");
    world.advance();
    assert!(world.answer(slot).contains("the database cannot be reached"));
}

#[test]
fn a_procedure_that_returns_something_else_is_never_called() {
    let mut world = World::new(&[]);
    world.database.returns_text = true;
    // As PostgreSQL answers a session that has prepared the procedure before: its plan must not change the type of its result.
    let slot = world.credit(1, "a");
    world.database.spoil(world.session, "0A000");
    world.settle();
    world.sleep();
    world.connect();
    world.settle();
    assert!(!world.engine.lanes[0].wants_socket(), "the next session is left before it takes calls");
    assert_eq!(world.engine.health.why_down(), Some(Unavailable::BankMissing));
    world.now.monotonic_us += 60_000_000;
    world.advance();
    assert!(world.answer(slot).contains("its tables or procedures are missing"));
    assert!(world.unavailable(Unavailable::BankMissing) && !world.unavailable(Unavailable::InDoubt));
    assert_eq!(world.rows(), [""; 0]);
}

#[test]
fn a_new_account_is_known_with_the_next_probe_also_under_load() {
    let mut world = World::new(&[]);
    world.database.ledger.accounts.insert(42, (0, 0));
    assert_eq!(world.credit_status(42, "a"), "404");
    for _ in 0..10 {
        // Never idle for as long as a second.
        world.now.monotonic_us += 100_000;
        world.credit(1, "a");
        world.settle();
    }
    assert_eq!(world.credit_status(42, "a"), "200");
    world.database.ledger.accounts.remove(&42);
    world.now.monotonic_us += 1_000_000;
    world.settle();
    assert_eq!(world.credit_status(42, "a"), "404");
}

#[test]
fn a_lane_that_is_never_idle_is_probed() {
    let mut world = World::new(&[("BATCH_CALLS_MAX", "2")]);
    world.database.ledger.accounts.insert(42, (0, 0));
    for _ in 0..4 {
        world.credit(1, "a");
    }
    world.advance();
    for _ in 0..15 {
        world.now.monotonic_us += 100_000;
        world.credit(1, "a");
        world.credit(1, "a");
        let answer = world.carry_to_database();
        world.carry_to_lane(&answer);
        assert_ne!(world.engine.lanes[0].in_flight_calls(), 0, "the next batch is out already");
    }
    assert_eq!(world.engine.context.accounts.len(), 6, "with the new one");
    let probes = world.batches().iter().filter(|calls| **calls == 0).count();
    assert_eq!(probes, 1, "one each PROBE_INTERVAL_MS");
}

#[test]
fn a_database_whose_commits_never_end_is_not_healthy() {
    let mut world = World::new(&[]);
    let fall_silent = |world: &mut World| {
        let slot = world.credit(1, "a");
        world.advance();
        let _never_arrives = world.carry_to_database();
        world.now.monotonic_us += 4_000_000;
        world.advance();
        assert!(world.answer(slot).contains("whether it was done is not known"));
        world.sleep();
        world.connect();
        world.settle();
        assert!(world.engine.lanes[0].is_ready());
    };
    fall_silent(&mut world);
    assert!(world.health().contains(" 200 "), "it may be this connection's own trouble");
    for _ in 0..2 {
        fall_silent(&mut world);
        world.now.monotonic_us += 4_000_000;
        world.settle();
        assert!(world.health().contains(" 503 "), "it answers probes, which commit nothing");
    }
    world.now.monotonic_us += 1_000_000;
    world.settle();
    assert!(world.health().contains(" 200 "), "no silence for ANSWER_TIMEOUT_MS and PROBE_INTERVAL_MS");

    // After a promotion it is another database.
    fall_silent(&mut world);
    world.database.timeline += 1;
    fall_silent(&mut world);
    assert!(world.health().contains(" 200 "));
}

#[test]
fn calls_that_fail_in_one_session_after_the_other_are_not_healthy() {
    let mut world = World::new(&[]);
    for account in [1, 2] {
        // It is blamed on the session, and then, as it fails in the next one as well, on the call.
        world.database.failures = vec![("a".to_owned(), "0A000"); 2];
        let slot = world.credit(account, "a");
        world.settle();
        world.sleep();
        world.connect();
        world.settle();
        assert_eq!(world.status(slot), "503");
    }
    assert!(world.health().contains(" 503 "));
}

#[test]
fn health_is_that_of_calls() {
    let mut world = World::new(&[]);
    let health = |world: &mut World| world.health()[9..12].to_owned();
    let refuse = |world: &mut World, account: i32| {
        world.database.call_failure = Some("23514");
        assert_eq!(world.credit_status(account, "a"), "503");
    };
    refuse(&mut world, 1);
    refuse(&mut world, 1);
    assert_eq!(health(&mut world), "200", "it may be this account's own trouble");
    refuse(&mut world, 2);
    assert_eq!(health(&mut world), "503");
    world.credit(1, "a");
    world.settle();
    assert_eq!(health(&mut world), "200", "a call was served");
    for account in [1, 2, 1] {
        world.now.monotonic_us += 400_000;
        refuse(&mut world, account);
        world.settle();
    }
    assert_eq!(health(&mut world), "503", "a probe was served, and calls fail all the same");
    world.now.monotonic_us += 1_000_000;
    world.settle();
    assert_eq!(
        health(&mut world),
        "200",
        "a probe was served, and no call failed for as long as PROBE_INTERVAL_MS"
    );
}

/// SQLSTATEs for which a session is left.
const OF_SESSION: [&str; 5] = ["25006", "26000", "42P05", "08P01", "0A000"];

#[test]
fn a_spoilt_session_is_left_and_its_calls_run_in_the_next_one() {
    for code in OF_SESSION {
        for minimum in ONE_BY_ONE_AND_AS_A_SET {
            let mut world = World::new(&[("GROUP_CALLS_MIN", minimum), ("ATTEMPTS_MAX", "2")]);
            world.database.spoil(world.session, code);
            let slots = [1, 1, 2].map(|account| world.credit(account, "a"));
            world.settle();
            assert!(!world.engine.lanes[0].wants_socket(), "{code}");
            assert_eq!(slots.map(|slot| world.status(slot)), ["none"; 3], "they wait");
            world.sleep();
            world.connect();
            world.settle();
            assert_eq!(slots.map(|slot| world.status(slot)), ["200"; 3], "{code}");
            assert_eq!(world.rows(), ["a"; 3]);
        }
    }
}

#[test]
fn a_spoilt_session_is_no_attempt_of_its_calls() {
    let mut world = World::new(&[("ATTEMPTS_MAX", "2")]);
    world.database.spoil(world.session, "26000");
    let slot = world.credit(1, "a");
    world.settle();
    world.sleep();
    world.connect();
    world.database.failures = vec![("a".to_owned(), "40001")];
    world.settle();
    assert_eq!(world.status(slot), "200", "the second of two");
}

#[test]
fn a_probe_finds_a_spoilt_session_although_nobody_asks() {
    let mut world = World::new(&[]);
    world.database.spoil(world.session, "25006");
    world.now.monotonic_us += 1_000_000;
    world.settle();
    assert!(!world.engine.lanes[0].wants_socket());
    assert!(world.health().contains("takes no writes"));
}

#[test]
fn what_else_is_in_flight_in_a_spoilt_session_is_answered_before_it_is_left() {
    let mut world = World::new(&[("BATCH_CALLS_MAX", "1"), ("BATCHES_IN_FLIGHT_MAX", "2")]);
    let slots = ["a", "b"].map(|name| world.credit(1, name));
    world.advance();
    // Each is a batch of its own; both are on their way when the session is spoilt.
    world.database.spoil(world.session, "26000");
    let answers = world.carry_to_database();
    let third = world.credit(1, "c");
    let end_of_first = 1 + answers.windows(6).position(|it| it == b"Z\0\0\0\x05I").expect("an end") + 5;
    world.carry_to_lane(&answers[..end_of_first]);
    assert!(world.engine.lanes[0].wants_socket(), "the second is still awaited");
    assert_eq!(world.carry_to_database(), b"", "and nothing more is sent");
    world.carry_to_lane(&answers[end_of_first..]);
    assert!(!world.engine.lanes[0].wants_socket());
    world.sleep();
    world.connect();
    world.settle();
    assert_eq!([slots[0], slots[1], third].map(|slot| world.status(slot)), ["200"; 3]);
    assert_eq!(world.rows(), ["a", "b", "c"]);
    assert!(!world.unavailable(Unavailable::InDoubt));
}

#[test]
fn a_call_that_finds_every_session_spoilt_is_to_blame_itself() {
    let mut world = World::new(&[]);
    world.database.failures = vec![("a".to_owned(), "0A000"), ("a".to_owned(), "0A000")];
    let slot = world.credit(1, "a");
    world.settle();
    assert!(!world.engine.lanes[0].wants_socket());
    world.sleep();
    world.connect();
    world.settle();
    assert_eq!(world.status(slot), "503");
    assert!(world.unavailable(Unavailable::Failed));
    assert!(world.engine.lanes[0].is_ready(), "the second session stays");
    assert_eq!(world.rows(), [""; 0]);
}

#[test]
fn the_accounts_are_those_of_the_database() {
    let mut world = World::down(&[]);
    world.database.ledger.accounts.insert(42, (0, 0));
    world.database.ledger.accounts.remove(&1);
    world.connect();
    world.settle();
    let slots = [42, 1].map(|account| world.credit(account, "a"));
    world.settle();
    assert_eq!(slots.map(|slot| world.status(slot)), ["200", "404"]);
}

#[test]
fn waits_between_attempts_to_connect_grow_to_their_limit() {
    let mut world = World::down(&[("RECONNECT_MIN_MS", "20"), ("RECONNECT_MAX_MS", "200")]);
    let waits_ms: Vec<u64> = (0..10)
        .map(|_| {
            assert!(matches!(world.engine.poll_connect(world.now), Some((0, _))));
            world.engine.lane_connect_failed(0, "refused");
            assert_eq!(world.engine.poll_connect(world.now), None, "not before the wait is over");
            let wait_us =
                world.engine.lanes[0].deadline_us(&world.engine.context.config) - world.now.monotonic_us;
            world.now.monotonic_us += wait_us;
            world.now.looked_us = world.now.monotonic_us;
            wait_us / 1_000
        })
        .collect();
    for (attempt, wait_ms) in waits_ms.into_iter().enumerate() {
        let most_ms = (20 << attempt).min(200);
        assert!((most_ms / 2..=most_ms).contains(&wait_ms), "attempt {attempt} waits {wait_ms} ms");
    }
}

/// Three hosts; the address of the next attempt to connect, and how long it took to come to it.
fn world_of_hosts(parameters: &str) -> World {
    let url = format!("postgresql://ana@10.0.0.1,10.0.0.2,10.0.0.3/rinha?{parameters}");
    World::down(&[("DATABASE_URL", &url)])
}

impl World {
    /// The last number of the address that the lane wants to connect to, at once.
    fn dialled(&mut self) -> Option<u8> {
        self.now.looked_us = self.now.monotonic_us;
        match self.engine.poll_connect(self.now)? {
            (0, ConnectStep::Connect(attempt)) => match attempt.endpoint {
                Endpoint::Tcp(SocketAddr::V4(address)) => Some(address.ip().octets()[3]),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// The socket is connected, and there is a session that serves.
    fn log_in(&mut self) {
        self.engine.lane_connected(0, self.now);
        self.session = self.database.connect();
        self.settle();
    }
}

#[test]
fn hosts_are_tried_without_a_wait_and_from_the_first_again_after_each_session() {
    let mut world = world_of_hosts("");
    for _ in 0..2 {
        for host in 1..=3 {
            assert_eq!(world.dialled(), Some(host));
            world.engine.lane_connect_failed(0, "refused");
        }
        assert_eq!(world.dialled(), None, "the round is over");
        world.sleep();
    }
    assert_eq!(world.dialled(), Some(1));
    world.engine.lane_connect_failed(0, "refused");
    // One that accepts and then does not let it in is no better than one that refuses.
    assert_eq!(world.dialled(), Some(2));
    world.engine.lane_connected(0, world.now);
    world.cut();
    assert_eq!(world.dialled(), Some(3));
    world.log_in();
    assert!(world.engine.lanes[0].is_ready());
    world.cut();
    assert_eq!(world.dialled(), None, "no rush");
    world.sleep();
    assert_eq!(world.dialled(), Some(1));
}

#[test]
fn a_session_that_turns_out_spoilt_is_followed_by_the_next_host() {
    let mut world = world_of_hosts("");
    assert_eq!(world.dialled(), Some(1));
    world.log_in();
    world.database.spoil(world.session, "25006");
    let slot = world.credit(1, "a");
    world.settle();
    assert_eq!(world.dialled(), Some(2), "elsewhere first, and at once");
    world.log_in();
    assert_eq!(world.status(slot), "200");
}

#[test]
fn a_session_that_falls_silent_is_followed_by_the_next_host() {
    let mut world = world_of_hosts("");
    assert_eq!(world.dialled(), Some(1));
    world.log_in();
    let slot = world.credit(1, "a");
    world.advance();
    world.carry_to_database();
    world.now.monotonic_us += 4_000_000;
    world.advance();
    assert_eq!(world.status(slot), "503");
    // The first one would take a session again, and leave it as silent.
    assert_eq!(world.dialled(), Some(2), "elsewhere first, and at once");
    world.log_in();
    assert!(world.engine.lanes[0].is_ready());
}

#[test]
fn a_session_on_a_standby_is_left_at_once_for_the_next_host() {
    for attrs in ["any", "read-write", "primary"] {
        for reports in [true, false] {
            let mut world = world_of_hosts(&format!("target_session_attrs={attrs}"));
            world.database.primary = 1;
            world.database.reports_standby = reports;
            assert_eq!(world.dialled(), Some(1));
            world.log_in();
            assert!(!world.engine.lanes[0].is_ready(), "{attrs} {reports}");
            // `any` is what was asked for, but a session that cannot write is of no use either.
            assert_eq!(world.engine.health.why_down(), Some(Unavailable::ReadOnly));
            world.database.primary = 0;
            assert_eq!(world.dialled(), Some(2), "the next host, without a wait");
            world.log_in();
            assert!(world.engine.lanes[0].is_ready(), "{attrs} {reports}");
        }
    }
}

#[test]
fn a_batch_that_meets_a_demoted_server_goes_on_as_one() {
    for minimum in ONE_BY_ONE_AND_AS_A_SET {
        let settings = [
            ("DATABASE_URL", "postgresql://ana@10.0.0.1,10.0.0.2/rinha"),
            ("GROUP_CALLS_MIN", minimum),
            ("BATCH_CALLS_MAX", "3"),
            ("ATTEMPTS_MAX", "2"),
        ];
        let mut world = World::new(&settings);
        let slots = [(1, "a"), (2, "b"), (1, "c")].map(|(account, text)| world.credit(account, text));
        world.advance();
        world.database.switch_over(false);
        // One that came later, and waits for the lane.
        let later = world.credit(1, "d");
        world.settle();
        assert!(!world.engine.lanes[0].wants_socket(), "the session is left");
        assert_eq!(world.engine.health.why_down(), Some(Unavailable::ReadOnly));
        assert_eq!(world.dialled(), Some(2), "the other host, at once");
        world.database.batches.clear();
        world.engine.lane_connected(0, world.now);
        world.session = world.database.connect_to(1);
        world.settle();
        assert_eq!([slots[0], slots[1], slots[2], later].map(|slot| world.status(slot)), ["200"; 4]);
        assert_eq!(world.rows(), ["a", "c", "b", "d"], "what came later goes later");
        let calls: Vec<usize> = world.database.batches.iter().map(|batch| batch.calls).collect();
        assert_eq!(calls.iter().filter(|calls| **calls > 0).collect::<Vec<_>>(), [&3, &1], "{calls:?}");
        assert!(!world.unavailable(Unavailable::Failed) && !world.unavailable(Unavailable::InDoubt));
    }
}

#[test]
fn a_batch_does_not_go_from_one_demoted_server_to_the_next_for_ever() {
    let mut world = World::new(&[("ATTEMPTS_MAX", "2")]);
    let slots = [1, 2].map(|account| world.credit(account, "a"));
    world.database.spoil(world.session, "25006");
    world.settle();
    world.sleep();
    world.connect();
    while !world.engine.lanes[0].is_ready() {
        let answer = world.carry_to_database();
        world.carry_to_lane(&answer);
    }
    assert_eq!(slots.map(|slot| world.status(slot)), ["none"; 2], "they go on together");
    world.database.spoil(world.session, "25006");
    world.settle();
    assert_eq!(slots.map(|slot| world.status(slot)), ["503"; 2]);
    assert!(world.unavailable(Unavailable::Failed));
}

#[test]
fn a_session_that_is_told_of_its_demotion_gets_nothing_more_to_do() {
    let mut world = World::new(&[("DATABASE_URL", "postgresql://ana@10.0.0.1,10.0.0.2/rinha")]);
    let in_flight = world.credit(1, "a");
    world.advance();
    let answers = world.carry_to_database();
    world.database.switch_over(true);
    let told = world.carry_to_database();
    assert!(told.starts_with(b"S"), "a setting");
    // Out of turn: it arrives before the answers.
    world.carry_to_lane(&told);
    let waits = world.credit(1, "b");
    world.advance();
    assert_eq!(world.carry_to_database(), b"");
    assert!(world.engine.lanes[0].wants_socket(), "what is in flight is awaited");
    world.carry_to_lane(&answers);
    assert_eq!(world.status(in_flight), "200");
    assert!(!world.engine.lanes[0].wants_socket());
    assert_eq!(world.dialled(), Some(2));
    world.engine.lane_connected(0, world.now);
    world.session = world.database.connect_to(1);
    world.settle();
    assert_eq!(world.status(waits), "200");
    assert_eq!(world.rows(), ["a", "b"]);

    // A session that has nothing to do is left at once.
    world.database.switch_over(true);
    let told = world.carry_to_database();
    world.carry_to_lane(&told);
    assert!(!world.engine.lanes[0].wants_socket());
}

#[test]
fn a_standby_is_left_before_any_statement_is_prepared() {
    let mut world = world_of_hosts("");
    world.database.reports_standby = true;
    world.database.primary = 1;
    assert_eq!(world.dialled(), Some(1));
    world.engine.lane_connected(0, world.now);
    world.session = world.database.connect();
    let answer = world.carry_to_database();
    world.carry_to_lane(&answer);
    assert!(!world.engine.lanes[0].wants_socket());
    assert_eq!(world.carry_to_database(), b"", "no Parse");
    assert_eq!(world.dialled(), Some(2));
}

/// A world with two lanes, whose servers are on these timelines; the bytes of the second are moved.
fn world_of_two_lanes(settings: &[(&str, &str)], timelines: [u32; 2]) -> World {
    let mut world = World::down(&[&[("LANES", "2")], settings].concat());
    for lane in 0..2 {
        assert!(matches!(world.engine.poll_connect(world.now), Some((dialled, _)) if dialled == lane));
    }
    for (lane, timeline) in timelines.into_iter().enumerate() {
        world.lane = lane;
        world.database.timeline = timeline;
        world.engine.lane_connected(lane, world.now);
        world.session = world.database.connect();
        world.settle();
    }
    world
}

fn in_flight(world: &World) -> [usize; 2] {
    [0, 1].map(|lane| world.engine.lanes[lane].in_flight_calls())
}

#[test]
fn the_calls_of_an_account_wait_for_one_lane() {
    let mut world = world_of_two_lanes(&[("GROUP_CALLS_MIN", "257")], [1, 1]);
    // Statements take the way of the transactions.
    let statement = "GET /clientes/3/extrato HTTP/1.1\r\nHost: bank\r\n\r\n";
    for account in [1, 1, 2] {
        world.credit(account, "first");
    }
    world.request(statement);
    world.advance();
    assert_eq!(in_flight(&world), [1, 3], "of account 2, and of 1 and 3");
    // The first lane is free again, and has nothing to do: what waits is for the account of the other one.
    world.credit(1, "behind it");
    world.advance();
    assert_eq!((in_flight(&world), world.engine.waiting().count()), ([1, 3], 1));
    let answer = world.carry_to_database();
    world.carry_to_lane(&answer);
    world.advance();
    assert_eq!((in_flight(&world), world.engine.waiting().count()), ([1, 1], 0));
}

#[test]
fn the_calls_of_a_lane_without_a_session_take_another_one() {
    let mut world = world_of_two_lanes(&[("GROUP_CALLS_MIN", "257")], [1, 1]);
    world.engine.lanes[0].connection().unwrap().close(CloseReason::TimedOut);
    let slots = [1, 2].map(|account| world.credit(account, "a"));
    world.advance();
    // Its own calls first, and then, as a batch of their own, those of the lane that is gone.
    assert_eq!((in_flight(&world), world.engine.waiting().count()), ([0, 1], 1));
    world.settle();
    assert_eq!(slots.map(|slot| world.status(slot)), ["200"; 2]);
}

#[test]
fn what_one_lane_finds_out_about_a_host_saves_the_others_the_attempt() {
    let hosts = "postgresql://ana@10.0.0.1,10.0.0.2,10.0.0.3/rinha";
    let mut world = world_of_two_lanes(&[("DATABASE_URL", hosts)], [1, 1]);
    assert!(world.engine.lanes.iter().all(Lane::is_ready));
    // The second lane alone is told that its server was demoted: the first one leaves it, too.
    world.database.switch_over(true);
    let told = world.carry_to_database();
    world.carry_to_lane(&told);
    world.database.primary = 0;
    assert!(world.engine.lanes.iter().all(|lane| !lane.wants_socket()), "both have left");

    // Both go on with the second host, which is down; the third one takes the first lane.
    let dial = |world: &mut World| {
        world.now.looked_us = world.now.monotonic_us;
        match world.engine.poll_connect(world.now) {
            Some((lane, ConnectStep::Connect(attempt))) => (lane, attempt.target),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(dial(&mut world), (0, "10.0.0.2:5432".to_owned()));
    world.engine.lane_connect_failed(0, "refused");
    assert_eq!(dial(&mut world), (0, "10.0.0.3:5432".to_owned()));
    assert_eq!(dial(&mut world), (1, "10.0.0.2:5432".to_owned()));
    world.lane = 0;
    world.engine.lane_connected(0, world.now);
    world.session = world.database.connect();
    world.settle();
    assert!(world.engine.lanes[0].is_ready());
    world.engine.lane_connect_failed(1, "refused");
    assert_eq!(dial(&mut world), (1, "10.0.0.3:5432".to_owned()));
    world.engine.lane_connect_failed(1, "refused");
    assert_eq!(world.engine.poll_connect(world.now), None, "the round is over");
    world.now.monotonic_us += 1_000_000;
    assert_eq!(dial(&mut world), (1, "10.0.0.3:5432".to_owned()), "where the other lane is served");
}

#[test]
fn a_server_that_was_replaced_is_refused() {
    let mut world = world_of_hosts("");
    world.database.timeline = 2;
    assert_eq!(world.dialled(), Some(1));
    world.log_in();
    world.cut();
    world.dial();
    // The old primary, which does not know better, and takes writes.
    world.database.timeline = 1;
    world.log_in();
    assert!(!world.engine.lanes[0].wants_socket());
    assert_eq!(world.engine.health.why_down(), Some(Unavailable::ReadOnly));
    world.database.timeline = 3;
    assert_eq!(world.dialled(), Some(2), "the next host");
    world.log_in();
    assert!(world.engine.lanes[0].is_ready());
}

#[test]
fn a_session_with_a_server_that_turns_out_to_be_replaced_is_left() {
    let hosts = "postgresql://ana@10.0.0.1,10.0.0.2/rinha";
    let world = world_of_two_lanes(&[("DATABASE_URL", hosts)], [1, 2]);
    assert!(!world.engine.lanes[0].wants_socket() && world.engine.lanes[1].is_ready());
}

#[test]
fn a_server_without_a_history_is_served() {
    let mut world = World::down(&[]);
    world.database.history_failure = Some("42883");
    world.connect();
    world.settle();
    assert!(world.engine.lanes[0].is_ready());
    assert_eq!(world.engine.history, None);
}

#[test]
fn a_server_whose_history_is_unknown_for_a_passing_reason_is_asked_again() {
    let mut world = World::down(&[]);
    world.database.history_failure = Some("57014");
    world.connect();
    world.settle();
    assert!(!world.engine.lanes[0].wants_socket(), "it may have been replaced");
    world.database.history_failure = None;
    world.connect();
    world.settle();
    assert!(world.engine.lanes[0].is_ready() && world.engine.history.is_some());
}

#[test]
fn timelines_of_different_databases_are_not_compared() {
    let history =
        |system: &str, timeline| History { system: system.to_owned(), timeline, is_lost_in_failover: false };
    assert!(history("7", 1).is_older_than(&history("7", 2)));
    assert!(!history("7", 2).is_older_than(&history("7", 2)));
    assert!(!history("8", 1).is_older_than(&history("7", 2)));
}

/// A world with a lane to a primary and the reader at its standby, the second host; and the session of each. The bytes of the
/// reader are moved.
fn world_with_reader() -> (World, [usize; 2]) {
    let reader = ("DATABASE_URL_READ", "postgresql://ana@10.0.0.2/rinha");
    let mut world = World::down(&[reader, ("READ_STALENESS_MAX_MS", "1000")]);
    let sessions = [0, 1].map(|host| {
        assert!(matches!(world.engine.poll_connect(world.now), Some((lane, _)) if lane == host));
        world.engine.lane_connected(host, world.now);
        (world.lane, world.session) = (host, world.database.connect_to(host));
        world.settle();
        world.session
    });
    (world, sessions)
}

#[test]
fn an_answer_of_the_reader_counts_only_if_it_is_young_enough_when_it_comes() {
    // Until then the primary is known to have had nothing that the standby lacks, and a moment later it had the credit.
    for (comes_at_ms, total, read) in [(1_250, 0, 1), (1_251, 1, 0)] {
        let (mut world, [primary, standby]) = world_with_reader();
        (world.lane, world.session) = (0, primary);
        world.now.monotonic_us = 250_000;
        assert_eq!(world.credit_status(1, "a"), "200");
        world.now.monotonic_us = 500_000;
        world.settle();

        (world.lane, world.session) = (1, standby);
        world.settle();
        let slot = world.request("GET /clientes/1/extrato HTTP/1.1\r\nHost: bank\r\n\r\n");
        world.advance();
        assert_eq!(in_flight(&world), [0, 1], "when it is asked, the standby is young enough");
        let answer = world.carry_to_database();
        world.now.monotonic_us = comes_at_ms * 1_000;
        world.carry_to_lane(&answer);
        (world.lane, world.session) = (0, primary);
        world.settle();
        let answer = world.answer(slot);
        assert!(answer.contains(&format!("{{\"total\": {total}, ")), "after {comes_at_ms} ms: {answer}");
        let metrics = world.engine.metrics();
        assert_eq!((metrics.statements_read, metrics.statements_sent_on), (read, 1 - read));
    }
}

#[test]
fn what_was_known_of_a_primary_that_was_replaced_makes_no_reader_young_enough() {
    let reader = ("DATABASE_URL_READ", "postgresql://ana@10.0.0.1/rinha");
    let mut world = world_of_two_lanes(&[reader, ("READ_STALENESS_MAX_MS", "1000")], [0, 0]);
    let sessions = [0, world.session];
    let log_in = |world: &mut World, lane: usize, host: usize| {
        loop {
            match world.engine.poll_connect(world.now) {
                Some((dialled, _)) if dialled == lane => break,
                Some((other, _)) => world.engine.lane_connect_failed(other, "refused"),
                None => world.sleep(),
            }
        }
        world.engine.lane_connected(lane, world.now);
        (world.lane, world.session) = (lane, world.database.connect_to(host));
        world.settle();
        assert!(world.engine.lanes[lane].is_ready());
    };
    log_in(&mut world, 2, 0);
    let reading = world.session;
    // Each lane has asked the old primary how far it is when the second one finds the new primary.
    world.now.monotonic_us = 250_000;
    world.advance();
    world.database.split();
    world.engine.lanes[1].connection().unwrap().close(CloseReason::PeerClosed);
    world.advance();
    log_in(&mut world, 1, 1);
    for (lane, session) in [(0, sessions[0]), (2, reading)] {
        (world.lane, world.session) = (lane, session);
        world.settle();
        assert!(!world.engine.lanes[lane].wants_socket(), "it was left after its answer");
    }
    // The reader finds the old one again, which has all that was known of it, and says so before the new one says anything.
    log_in(&mut world, 2, 0);
    assert!(world.now.monotonic_us < 500_000);
    world.now.monotonic_us = 500_000;
    world.settle();
    assert!(!world.engine.can_read(2));
}

#[test]
fn an_attempt_to_connect_that_hangs_is_given_up() {
    let mut world = World::down(&[("CONNECT_TIMEOUT_MS", "2000")]);
    assert!(matches!(world.engine.poll_connect(world.now), Some((0, _))));
    world.now.monotonic_us = 2_000_000;
    world.advance();
    assert!(!world.engine.lanes[0].wants_socket());
}

#[test]
fn a_log_in_that_hangs_is_given_up() {
    let mut world = World::down(&[]);
    world.connect();
    world.now.monotonic_us = 4_000_000;
    world.advance();
    assert!(!world.engine.lanes[0].wants_socket());
}

#[test]
fn a_full_house_takes_nobody_in_until_somebody_leaves() {
    let mut world = World::new(&[("CLIENTS_MAX", "1")]);
    let slot = world.engine.accept(ListenerKind::Bank, world.now).unwrap();
    assert!(!world.engine.can_accept());
    assert_eq!(world.engine.accept(ListenerKind::Bank, world.now), None);
    world.engine.remove(slot);
    assert!(world.engine.can_accept());
}

#[test]
fn deadlines_of_clients_are_swept() {
    let mut world = World::new(&[("HEAD_TIMEOUT_MS", "50")]);
    let slot = world.request("GET /hea");
    world.advance();
    world.now.monotonic_us += 50_000 + SWEEP_INTERVAL_MS * 1_000;
    world.advance();
    assert_eq!(world.status(slot), "408");
}

#[test]
fn a_request_that_comes_in_the_turn_in_which_its_wait_ends_is_served() {
    let mut world = World::new(&[("IDLE_TIMEOUT_MS", "50")]);
    let slot = world.engine.accept(ListenerKind::Bank, world.now).unwrap();
    world.now.monotonic_us += 50_000 + SWEEP_INTERVAL_MS * 1_000;
    world.send_on(slot, "GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n");
    world.advance();
    assert_eq!(world.status(slot), "200");
    assert_eq!(world.engine.after_send(slot, || world.now), AfterSend::Stay);
}

#[test]
fn draining_ends_when_the_last_answer_is_out() {
    let mut world = World::new(&[]);
    let idle = world.engine.accept(ListenerKind::Bank, world.now).unwrap();
    let busy = world.credit(1, "a");
    world.advance();
    world.engine.drain(world.now);
    world.settle();
    assert!(world.answer(busy).contains("Connection: close\r\n"));
    // Its next request may be on its way: without lingering, that would cause a reset, which overtakes the answer.
    assert_eq!(world.engine.after_send(busy, || world.now), AfterSend::ShutDownWrite);
    world.engine.client(busy).unwrap().peer_closed();
    assert_eq!(world.engine.after_send(busy, || world.now), AfterSend::Close);
    world.engine.remove(busy);
    assert!(!world.engine.is_drained());
    world.now.monotonic_us += 500_000 + SWEEP_INTERVAL_MS * 1_000;
    world.advance();
    assert_eq!(world.engine.after_send(idle, || world.now), AfterSend::Close);
    world.engine.remove(idle);
    assert!(world.engine.is_drained());
}

#[test]
fn an_answer_has_the_date_of_its_turn() {
    let mut world = World::new(&[]);
    // The second ends in the middle of a turn.
    world.now.unix_s += 1;
    world.engine.expire(world.now, |_| false);
    let date = String::from_utf8(response::date_at(world.now.unix_s).to_vec()).unwrap();
    let answer = world.health();
    assert!(answer.contains(&date), "{date:?}: {answer}");
}

#[test]
fn a_request_that_comes_with_the_end_of_its_wait_is_served() {
    let mut world = World::new(&[]);
    let idle = world.engine.accept(ListenerKind::Bank, world.now).unwrap();
    world.advance();
    world.engine.drain(world.now);
    world.now.monotonic_us += 500_000 + SWEEP_INTERVAL_MS * 1_000;
    world.send_on(idle, "GET /healthz HTTP/1.1\r\nHost: bank\r\n\r\n");
    world.settle();
    assert!(world.answer(idle).contains("Connection: close\r\n"));
    assert_eq!(world.engine.after_send(idle, || world.now), AfterSend::ShutDownWrite);
}
