//! What happens to the calls of a batch when something happens to the batch, on real PostgreSQL.

mod support;

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use stress::Instance;
use support::bank::{PATIENT, options};
use support::{Answer, Bank, Database, Wire, get, transaction, unsent_lock, wait_for};

/// Values of `GROUP_CALLS_MIN`: one by one, and as a set. What becomes of a call must not depend on it.
const GROUPINGS: [&str; 2] = ["257", "2"];

/// Credits of one cent to one account, in one batch.
fn in_one_batch(bank: &Bank, descriptions: &[&str]) -> Vec<Answer> {
    bank.in_one_batch(descriptions.iter().map(|description| transaction(1, 1, "c", description)))
}

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

fn patient_with(grouping: &'static str) -> Vec<(&'static str, &'static str)> {
    PATIENT.into_iter().chain([("GROUP_CALLS_MIN", grouping)]).collect()
}

#[test]
fn of_a_failed_batch_only_the_culprit_fails() {
    for grouping in GROUPINGS {
        let bank = Bank::with(&patient_with(grouping));
        bank.database.plant_failure("P0001", "true");
        let answers = in_one_batch(&bank, &["a", "boom", "b", "c"]);
        assert_eq!(statuses(&answers), [200, 503, 200, 200], "GROUP_CALLS_MIN={grouping}");
        for (description, rows) in [("a", 1), ("boom", 0), ("b", 1), ("c", 1)] {
            assert_eq!(
                bank.database.ledger_rows(description),
                rows,
                "{description}, GROUP_CALLS_MIN={grouping}"
            );
        }
        assert_eq!(bank.metric("rinha_unavailable_total{reason=\"failed\"}"), 1);
        assert_eq!(bank.metric("rinha_calls_run_again_total"), 4);
        bank.database.assert_ledger_adds_up();
    }
}

/// An error and warnings of a megabyte each are no reason to lose the lane, nor to doubt the batch.
#[test]
fn texts_longer_than_the_inbox_change_no_outcome() {
    for grouping in GROUPINGS {
        let bank = Bank::with(&patient_with(grouping));
        bank.database.execute(
            "CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 RAISE WARNING '%', repeat('w', 1000000);
                 IF NEW.descricao = 'boom' THEN
                     RAISE EXCEPTION '%', repeat('x', 1000000) USING DETAIL = repeat('y', 1000000);
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER boom BEFORE INSERT ON transacoes FOR EACH ROW EXECUTE FUNCTION boom();",
        );
        let answers = in_one_batch(&bank, &["a", "boom", "b", "c"]);
        assert_eq!(statuses(&answers), [200, 503, 200, 200], "GROUP_CALLS_MIN={grouping}");
        assert_eq!(bank.metric("rinha_unavailable_total{reason=\"failed\"}"), 1);
        assert_eq!(bank.metric("rinha_unavailable_total{reason=\"in_doubt\"}"), 0);
        bank.database.assert_ledger_adds_up();
    }
}

/// SQLSTATEs that say nothing about a call and everything about its session.
const OF_SESSION: [&str; 5] = ["25006", "26000", "42P05", "08P01", "0A000"];

#[test]
fn a_call_that_meets_a_spoilt_session_runs_in_the_next_one() {
    for code in OF_SESSION {
        for grouping in GROUPINGS {
            let bank = Bank::with(&patient_with(grouping));
            bank.database.execute(
                "CREATE TABLE spoilt AS SELECT pid FROM pg_stat_activity
                 WHERE application_name = 'rinha' AND datname = current_database()",
            );
            bank.database.plant_failure(code, "pg_backend_pid() IN (SELECT pid FROM spoilt)");
            let answers = in_one_batch(&bank, &["a", "boom", "boom", "b"]);
            assert_eq!(statuses(&answers), [200; 4], "{code}, GROUP_CALLS_MIN={grouping}");
            assert_eq!(bank.database.ledger_rows("boom"), 2, "{code}, GROUP_CALLS_MIN={grouping}");
            assert_eq!(bank.metric("rinha_lane_connects_total"), 2, "{code}");
            for reason in ["failed", "in_doubt"] {
                let series = format!("rinha_unavailable_total{{reason=\"{reason}\"}}");
                assert_eq!(bank.metric(&series), 0, "{code}, GROUP_CALLS_MIN={grouping}");
            }
            bank.database.assert_ledger_adds_up();
        }
    }
}

#[test]
fn prepared_statements_that_are_gone_are_prepared_anew() {
    let bank = Bank::open();
    bank.database.execute(
        "CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             EXECUTE 'DEALLOCATE ALL';
             RETURN NEW;
         END $$;
         CREATE TRIGGER forget BEFORE INSERT ON transacoes FOR EACH ROW
         WHEN (NEW.descricao = 'forget') EXECUTE FUNCTION forget();",
    );
    for round in 1..=3 {
        assert_eq!(bank.transact(1, 1, "c", "forget").status, 200);
        assert_eq!(bank.transact(1, 1, "c", "after").status, 200);
        assert_eq!(bank.ask(get("/clientes/1/extrato")).status, 200);
        assert_eq!(bank.database.ledger_rows("after"), round);
    }
    assert_eq!(bank.metric("rinha_lane_connects_total"), 4);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn a_call_that_blames_every_session_fails_and_the_others_are_served() {
    let bank = Bank::open();
    bank.database.plant_failure("0A000", "true");
    assert_eq!(bank.transact(1, 1, "c", "boom").status, 503);
    assert_eq!(bank.metric("rinha_lane_connects_total"), 2, "one new session, and that one stays");
    assert_eq!(bank.transact(1, 1, "c", "after").status, 200);
    assert_eq!(bank.metric("rinha_lane_connects_total"), 2);
    assert_eq!(bank.database.ledger_rows("boom"), 0);
}

#[test]
fn a_conflict_is_tried_again_and_succeeds() {
    for code in ["40001", "40P01"] {
        let bank = Bank::open();
        // A sequence is not rolled back: the first two runs fail.
        bank.database.plant_failure(code, "nextval('failures') <= 2");
        assert_eq!(bank.transact(1, 7, "c", "boom").balance(), 7, "{code}");
        assert_eq!(bank.database.ledger_rows("boom"), 1);
        assert_eq!(bank.metric("rinha_calls_run_again_total"), 2);
        bank.database.assert_ledger_adds_up();
    }
}

#[test]
fn a_conflict_that_does_not_end_is_given_up() {
    let bank = Bank::with(&[("ATTEMPTS_MAX", "4")]);
    bank.database.plant_failure("40001", "nextval('failures') > 0");
    assert_eq!(bank.transact(1, 1, "c", "boom").status, 503);
    assert_eq!(bank.database.number("SELECT last_value FROM failures"), 4, "runs");
    assert_eq!(bank.database.ledger_rows("boom"), 0);
}

#[test]
fn a_failure_at_commit_runs_each_call_of_the_batch_again() {
    for grouping in GROUPINGS {
        let bank = Bank::with(&patient_with(grouping));
        bank.database.execute(
            "CREATE SEQUENCE failures;
             CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.descricao = 'boom' AND nextval('failures') = 1 THEN
                     RAISE EXCEPTION 'planted' USING ERRCODE = '40001';
                 END IF;
                 RETURN NULL;
             END $$;
             CREATE CONSTRAINT TRIGGER boom AFTER INSERT ON transacoes
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION boom();",
        );
        let answers = in_one_batch(&bank, &["a", "boom", "b"]);
        assert_eq!(statuses(&answers), [200, 200, 200], "GROUP_CALLS_MIN={grouping}");
        for description in ["a", "boom", "b"] {
            assert_eq!(
                bank.database.ledger_rows(description),
                1,
                "{description}, GROUP_CALLS_MIN={grouping}"
            );
        }
        bank.database.assert_ledger_adds_up();
    }
}

#[test]
fn a_backend_that_is_terminated_leaves_its_batch_in_doubt_and_nothing_runs_twice() {
    let bank = Bank::with(&PATIENT);
    let (stranger, mut wire) = bank.block(1, "doubt");
    bank.database.end_sessions();
    let answer = wire.answer();
    assert_eq!(answer.status, 503);
    assert!(answer.erro().contains("not known"), "{answer:?}");
    assert_eq!(bank.metric("rinha_unavailable_total{reason=\"in_doubt\"}"), 1);
    drop(stranger);
    bank.wait_health(200);
    assert_eq!(bank.transact(1, 1, "c", "after").status, 200);
    assert!(bank.database.ledger_rows("doubt") <= 1);
    assert_eq!(bank.metric("rinha_calls_run_again_total"), 0);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn a_row_that_a_stranger_holds_costs_a_bounded_wait_and_leaves_no_trace() {
    let bank = Bank::with(&[("LOCK_TIMEOUT_MS", "50")]);
    let stranger = unsent_lock(&bank.database, 1);
    assert_eq!(bank.transact(1, 1, "c", "blocked").status, 503);
    assert_eq!(bank.transact(2, 1, "c", "free").status, 200);
    drop(stranger);
    assert_eq!(bank.transact(1, 1, "c", "after").balance(), 1);
    assert_eq!(bank.database.ledger_rows("blocked"), 0);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn of_a_batch_that_meets_a_stranger_only_who_needs_that_row_fails() {
    for grouping in GROUPINGS {
        // Long enough for the batch to gather behind the first lock.
        let settings = [&patient_with(grouping)[1..], &[("LOCK_TIMEOUT_MS", "1000")]].concat();
        let bank = Bank::with(&settings);
        // Client 2's row comes in the middle of the batch.
        let stranger = unsent_lock(&bank.database, 2);
        let (first, _blocked) = bank.block(5, "blocked");
        let mut wires: Vec<Wire> = (1..=4).map(|_| bank.connect()).collect();
        for (account, wire) in (1..).zip(&mut wires) {
            wire.send(transaction(account, 1, "c", "batch"));
        }
        bank.wait_metric("rinha_calls_queued", 4);
        drop(first);
        let answers: Vec<Answer> = wires.iter_mut().map(Wire::answer).collect();
        assert_eq!(statuses(&answers), [200, 503, 200, 200], "GROUP_CALLS_MIN={grouping}");
        assert!(answers[1].erro().contains("nothing was done"), "{:?}", answers[1]);
        drop(stranger);
        assert_eq!(bank.database.ledger_rows("batch"), 3, "GROUP_CALLS_MIN={grouping}");
        bank.database.assert_ledger_adds_up();
    }
}

#[test]
fn a_call_beyond_the_queue_is_refused_at_once_and_not_run() {
    let settings: Vec<_> = PATIENT.into_iter().chain([("QUEUE_CALLS_MAX", "2")]).collect();
    let bank = Bank::with(&settings);
    let (stranger, mut blocked) = bank.block(1, "blocked");
    let mut waiting = [bank.connect(), bank.connect()];
    for wire in &mut waiting {
        wire.send(transaction(1, 1, "c", "waiting"));
    }
    bank.wait_metric("rinha_calls_queued", 2);
    // While the lock is still held.
    for refused in [bank.transact(1, 1, "c", "refused"), bank.ask(get("/clientes/1/extrato"))] {
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.erro().contains("nothing was done"), "{refused:?}");
    }
    assert_eq!(bank.metric("rinha_unavailable_total{reason=\"queue_full\"}"), 2);
    drop(stranger);
    assert_eq!(blocked.answer().balance(), 1);
    assert_eq!(statuses(&waiting.each_mut().map(Wire::answer)), [200, 200]);
    assert_eq!(bank.database.ledger_rows("refused"), 0);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn a_call_that_waits_too_long_for_its_turn_is_refused_and_never_run() {
    let settings = [&PATIENT[..3], &[("QUEUE_TIMEOUT_MS", "300")]].concat();
    let bank = Bank::with(&settings);
    let (stranger, mut blocked) = bank.block(1, "blocked");
    let refused = bank.transact(2, 1, "c", "refused");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.erro().contains("nothing was done"), "{refused:?}");
    assert_eq!(bank.metric("rinha_unavailable_total{reason=\"queue_timeout\"}"), 1);
    drop(stranger);
    assert_eq!(blocked.answer().balance(), 1);
    assert_eq!(bank.transact(2, 1, "c", "after").balance(), 1);
    assert_eq!(bank.database.ledger_rows("refused"), 0);
}

#[test]
fn a_call_whose_client_has_left_before_its_turn_is_not_run() {
    let bank = Bank::with(&PATIENT);
    let (stranger, mut blocked) = bank.block(1, "blocked");
    let mut leaving = bank.connect();
    leaving.send(transaction(2, 1, "c", "gone"));
    bank.wait_metric("rinha_calls_queued", 1);
    // With unread bytes in its way, closing sends a reset: this client reads no answer any more.
    leaving.send(get("/healthz").repeat(400));
    drop(leaving);
    drop(stranger);
    assert_eq!(blocked.answer().status, 200);
    wait_for("the end of that call", || {
        let ends = bank.metric("rinha_calls_abandoned_total") + bank.metric("rinha_answers_late_total");
        (ends + u64::try_from(bank.database.ledger_rows("gone")).expect("a count") > 0).then_some(())
    });
    bank.database.assert_ledger_adds_up();
}

/// Sends a mix of requests over many connections. Returns how many transactions were accepted.
fn hammer(addresses: &[String], connections: usize, requests: usize) -> u64 {
    let accepted = AtomicU64::new(0);
    thread::scope(|scope| {
        for connection in 0..connections {
            let accepted = &accepted;
            let address = &addresses[connection % addresses.len()];
            scope.spawn(move || {
                let mut wire = Wire::connect(address);
                for number in 0..requests {
                    let seed = connection * 31 + number * 7;
                    let account = i32::try_from(seed % 5).expect("small") + 1;
                    let value = i64::try_from(seed % 9_973).expect("small") + 1;
                    let answer = match seed % 10 {
                        0 => wire.ask(get(&format!("/clientes/{account}/extrato"))),
                        1..=3 => wire.ask(transaction(account, value, "c", "hammer")),
                        _ => wire.ask(transaction(account, value, "d", "hammer")),
                    };
                    assert!(matches!(answer.status, 200 | 422), "{answer:?}");
                    accepted.fetch_add(u64::from(seed % 10 > 0 && answer.status == 200), Ordering::Relaxed);
                }
            });
        }
    });
    accepted.into_inner()
}

fn assert_accepted(database: &Database, accepted: u64) {
    assert_eq!(database.number("SELECT count(*) FROM transacoes"), i64::try_from(accepted).expect("a count"));
    database.assert_ledger_adds_up();
}

#[test]
fn under_load_calls_share_batches_and_the_ledger_adds_up() {
    let bank = Bank::open();
    let accepted = hammer(&[bank.address()], 32, 100);
    assert_accepted(&bank.database, accepted);
    let (calls, batches) = (bank.metric("rinha_batch_calls_sum"), bank.metric("rinha_batch_calls_count"));
    assert_eq!(calls, 3_200);
    assert!(batches < calls / 2, "{calls} calls in {batches} batches");
}

#[test]
fn other_shapes_of_batches_give_the_same_bank() {
    for settings in [
        &[("BATCH_CALLS_MAX", "1")][..],
        &[("LANES", "2"), ("BATCHES_IN_FLIGHT_MAX", "2"), ("BATCH_CALLS_MAX", "4")],
        &[("BATCHES_IN_FLIGHT_MAX", "8"), ("GROUP_CALLS_MIN", "2")],
    ] {
        let bank = Bank::with(settings);
        let accepted = hammer(&[bank.address()], 16, 50);
        assert_accepted(&bank.database, accepted);
        assert_eq!(bank.metric("rinha_calls_run_again_total"), 0, "{settings:?}");
    }
}

#[test]
fn two_instances_on_one_database_never_deadlock() {
    for lanes in ["1", "2"] {
        let settings = [("LANES", lanes)];
        let bank = Bank::with(&settings);
        let second = Instance::start(&options(&bank.database.url(), &settings)).expect("start an instance");
        let accepted = hammer(&[bank.address(), second.addresses().swap_remove(0)], 32, 100);
        assert_accepted(&bank.database, accepted);
        assert_eq!(bank.metric("rinha_calls_run_again_total"), 0, "LANES={lanes}");
        // A session reports what it counted at the latest when it ends.
        let Bank { instance, database, .. } = bank;
        drop((instance, second));
        wait_for("the end of the lanes", || {
            let lanes = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                         AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
            (database.number(lanes) == 0).then_some(())
        });
        let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        assert_eq!(database.number(deadlocks), 0, "LANES={lanes}");
    }
}

/// Two sessions, each with one transaction over the accounts 1 and 2. Both take their first lock before either asks for its
/// second.
fn lock_both(database: &Database, orders: [[i32; 2]; 2]) -> Vec<Result<(), String>> {
    let ready = Barrier::new(2);
    thread::scope(|scope| {
        let sessions = orders.map(|order| {
            let ready = &ready;
            scope.spawn(move || {
                let mut client = database.connect();
                let mut batch = client.transaction().expect("begin");
                let call = "SELECT saldo FROM InsertTransacao($1, 1, 'c', 'order')";
                // In the same order the second session gets no further than this before the first one commits.
                let is_opposite = orders[0] != orders[1];
                batch.query_one(call, &[&order[0]]).map_err(|error| code_of(&error))?;
                if is_opposite {
                    ready.wait();
                }
                batch.query_one(call, &[&order[1]]).map_err(|error| code_of(&error))?;
                batch.commit().map_err(|error| code_of(&error))
            })
        });
        sessions.map(|session| session.join().expect("a session")).into()
    })
}

fn code_of(error: &stress::postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

#[test]
fn two_batches_in_opposite_orders_deadlock_and_sorted_ones_do_not() {
    let database = Database::new();
    let mut ends = lock_both(&database, [[1, 2], [2, 1]]);
    ends.sort();
    assert_eq!(ends, [Ok(()), Err("40P01".to_owned())]);
    assert_eq!(lock_both(&database, [[1, 2], [1, 2]]), [Ok(()), Ok(())]);
    database.assert_ledger_adds_up();
}

#[test]
fn a_set_gives_the_same_answers_and_the_same_ledger_as_one_call_after_the_other() {
    let database = Database::new();
    let mut client = database.connect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for round in 0..300 {
        let len = draw(40) + 1;
        // Clients 6 and 7 do not exist; small limits and large values, so that many debits are refused.
        let mut accounts: Vec<i32> = (0..len).map(|_| i32::try_from(draw(7)).expect("small") + 1).collect();
        accounts.sort_unstable();
        let values: Vec<i32> = (0..len).map(|_| i32::try_from(draw(90_000)).expect("small") + 1).collect();
        let kinds: Vec<&str> = (0..len).map(|_| if draw(3) == 0 { "c" } else { "d" }).collect();
        let descriptions: Vec<String> = (0..len).map(|number| format!("{round}-{number}")).collect();

        let mut attempt = client.transaction().expect("begin");
        let as_set = attempt
            .query_one(
                "SELECT saldos, limites FROM InsertTransacoes($1, $2, $3, $4)",
                &[&accounts, &values, &kinds, &descriptions],
            )
            .expect("call the set");
        let (balances, limits): (Vec<Option<i64>>, Vec<Option<i64>>) = (as_set.get(0), as_set.get(1));
        let ledger_of_set = snapshot(&mut attempt);
        attempt.rollback().expect("roll back");

        let mut attempt = client.transaction().expect("begin");
        for number in 0..accounts.len() {
            let row = attempt
                .query_one(
                    "SELECT saldo, limite FROM InsertTransacao($1, $2, $3, $4)",
                    &[&accounts[number], &values[number], &kinds[number], &descriptions[number]],
                )
                .expect("call one");
            let one: (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
            assert_eq!(one, (balances[number], limits[number]), "round {round}, transaction {number}");
        }
        assert_eq!(snapshot(&mut attempt), ledger_of_set, "round {round}");
        attempt.commit().expect("commit");
    }
    database.assert_ledger_adds_up();
}

/// Balances, and the ledger in its order, as text.
fn snapshot(client: &mut stress::postgres::Transaction<'_>) -> Vec<String> {
    let sql = "SELECT format('%s: %s', id, saldo) FROM (SELECT * FROM clientes ORDER BY id) AS c
               UNION ALL
               SELECT format('%s %s %s %s', cliente_id, valor, tipo, descricao)
               FROM (SELECT * FROM transacoes ORDER BY cliente_id, id) AS t";
    let rows = client.query(sql, &[]).expect("read the ledger");
    rows.iter().map(|row| row.get(0)).collect()
}
