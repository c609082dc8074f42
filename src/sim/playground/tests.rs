//! The driven world: that it is the simulation's, that it replays, and that each command does what it says.

use serde_json::Value;

use super::*;
use crate::random::Random;
use crate::sim::run;

fn picture(playground: &mut Playground) -> Value {
    serde_json::from_str(&playground.picture()).unwrap()
}

/// Steps until the picture shows it.
fn step_until(playground: &mut Playground, shows: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..20_000 {
        let now = picture(playground);
        assert_eq!(now["violation"], Value::Null);
        if shows(&now) {
            return now;
        }
        playground.step();
    }
    panic!("it never shows: {}", playground.picture());
}

/// A bank with these settings whose lanes are all ready.
fn ready(settings: &str) -> Playground {
    let mut playground = Playground::new(settings).unwrap();
    step_until(&mut playground, |now| {
        now["instances"][0]["lanes"].as_array().unwrap().iter().all(|lane| lane["state"] == "Ready")
            && now["hand"]["stage"] == ""
    });
    playground
}

fn is_answered(client: usize) -> impl Fn(&Value) -> bool {
    move |now| now["peers"][client]["asked"] == Value::Array(Vec::new())
}

/// The status of the last answer of a client, and what it says.
fn last(now: &Value, client: usize) -> (u64, &str) {
    let last = &now["peers"][client]["last"];
    (last["status"].as_u64().unwrap(), last["problem"].as_str().unwrap())
}

#[test]
fn the_world_of_a_seed_is_the_one_that_the_simulation_runs() {
    for seed in 0..20 {
        let mut playground = Playground::of_seed(seed);
        while !playground.is_over() {
            playground.step();
        }
        let outcome = run(seed, false);
        assert_eq!(playground.hash(), outcome.hash, "seed {seed}");
        assert_eq!(picture(&mut playground)["ledger_rows"], outcome.rows, "seed {seed}");
    }
}

#[test]
fn a_server_that_stops_leaves_postgresql_by_terminate() {
    let mut playground = ready("lanes=2");
    let began_us = playground.now_us();
    playground.act("stop").unwrap();
    step_until(&mut playground, |now| now["hand"]["is_stopped"] == true);
    let drain_us = playground.world.config.drain_timeout_ms * 1_000;
    assert!(playground.now_us() - began_us < drain_us, "nothing is in flight, so it does not wait");
    // What is on the links still arrives.
    for _ in 0..10 {
        playground.step();
    }
    assert_eq!(playground.world.postgres.farewells, 2);
}

#[test]
fn the_time_that_sharing_saves_is_told() {
    let mut playground = ready("clients=9 commit=3000");
    playground.act("ask 0 credit 1 1").unwrap();
    let now = step_until(&mut playground, is_answered(0));
    // A call of a thirtieth of its commit.
    assert_eq!((&now["tally"]["worked_us"], &now["tally"]["alone_us"]), (&3_100.into(), &3_100.into()));
    playground.act("ask 0 credit 1 1").unwrap();
    step_until(&mut playground, |now| now["sessions"][0]["received_bytes"].as_u64() > Some(0));
    for client in 1..9 {
        playground.act(&format!("ask {client} credit 1 1")).unwrap();
    }
    let now = step_until(&mut playground, |now| (0..9).all(|client| is_answered(client)(now)));
    // One more alone, and eight in a set: 100 us for it and 25 for each call, and one commit.
    let alone_us = 10 * 3_100;
    let worked_us = 2 * 3_100 + 100 + 8 * 25 + 3_000;
    assert_eq!(
        (&now["tally"]["worked_us"], &now["tally"]["alone_us"]),
        (&worked_us.into(), &alone_us.into())
    );
}

#[test]
fn one_request_goes_through_the_stages_in_their_order() {
    let mut playground = ready("");
    playground.act("ask 0 credit 1 10").unwrap();
    let mut stages: Vec<String> = Vec::new();
    let now = step_until(&mut playground, is_answered(0));
    assert_eq!(last(&now, 0), (200, ""));
    playground.act("ask 0 debit 1 5").unwrap();
    for _ in 0..200 {
        playground.step();
        let now = picture(&mut playground);
        let stage = now["hand"]["stage"].as_str().unwrap().to_owned();
        if stages.last() != Some(&stage) {
            stages.push(stage);
        }
        if is_answered(0)(&now) {
            break;
        }
    }
    let first = stages.iter().position(|stage| stage == "wait").unwrap();
    assert_eq!(stages[first..first + 6], ["wait", "receive", "advance", "send", "expire", "reap"]);
    let now = picture(&mut playground);
    assert_eq!((&now["ledger"][0]["balance"], &now["ledger_rows"]), (&Value::from(5), &Value::from(2)));
}

#[test]
fn each_request_gets_its_answer() {
    let mut playground = ready("clients=4");
    let requests = [("credit 1 10", 200), ("debit 1 2000", 422), ("statement 1", 200), ("malformed", 400)];
    for (client, (request, _)) in requests.iter().enumerate() {
        playground.act(&format!("ask {client} {request}")).unwrap();
    }
    let now = step_until(&mut playground, |now| (0..4).all(|client| is_answered(client)(now)));
    for (client, (request, status)) in requests.iter().enumerate() {
        assert_eq!(last(&now, client).0, *status, "{request}");
    }
}

#[test]
fn a_request_byte_by_byte_takes_a_turn_for_each_byte() {
    let mut playground = ready("");
    let before = playground.turns();
    playground.act("ask 0 statement 1 1").unwrap();
    let now = step_until(&mut playground, is_answered(0));
    assert_eq!(last(&now, 0).0, 200);
    let len_bytes = "GET /clientes/1/extrato HTTP/1.1\r\nHost: bank\r\n\r\n".len() as u64;
    assert!(playground.turns() - before >= len_bytes);
}

#[test]
fn a_crowd_shares_one_commit() {
    let mut playground = ready("clients=8");
    for client in 0..8 {
        playground.act(&format!("ask {client} credit {} 1", 1 + client % 5)).unwrap();
    }
    let now = step_until(&mut playground, |now| (0..8).all(|client| is_answered(client)(now)));
    assert_eq!(now["tally"]["batch_calls"], serde_json::json!([8]));
}

#[test]
fn an_answer_is_held_until_its_commit_arrives() {
    let mut playground = ready("");
    playground.act("hold 0").unwrap();
    playground.act("ask 0 credit 1 10").unwrap();
    step_until(&mut playground, |now| now["instances"][0]["lanes"][0]["forth_bytes"].as_u64() > Some(0));
    playground.act("release 0").unwrap();
    step_until(&mut playground, |now| now["sessions"][0]["received_bytes"].as_u64() > Some(0));
    playground.act("hold 0").unwrap();
    let now =
        step_until(&mut playground, |now| now["instances"][0]["lanes"][0]["back_bytes"].as_u64() > Some(0));
    assert_eq!(now["ledger_rows"], 1);
    // All but ReadyForQuery, which is 6 bytes long.
    let back_bytes = now["instances"][0]["lanes"][0]["back_bytes"].as_u64().unwrap();
    playground.act(&format!("pass 0 {}", back_bytes - 6)).unwrap();
    let now = step_until(&mut playground, |now| now["instances"][0]["lanes"][0]["held_answers"] == 1);
    assert_eq!(now["peers"][0]["phase"], "Awaiting");
    playground.act("release 0").unwrap();
    let now = step_until(&mut playground, is_answered(0));
    assert_eq!(last(&now, 0).0, 200);
}

#[test]
fn a_link_that_is_cut_behind_the_commit_leaves_its_call_in_doubt() {
    let mut playground = ready("");
    playground.act("ask 0 credit 1 10").unwrap();
    step_until(&mut playground, |now| now["sessions"][0]["received_bytes"].as_u64() > Some(0));
    playground.act("hold 0").unwrap();
    step_until(&mut playground, |now| now["instances"][0]["lanes"][0]["back_bytes"].as_u64() > Some(0));
    playground.act("cut 0 0 7").unwrap();
    let now = step_until(&mut playground, is_answered(0));
    assert_eq!(last(&now, 0), (503, "the database gave no answer; whether it was done is not known"));
    assert_eq!(now["ledger_rows"], 1);
}

#[test]
fn a_batch_waits_for_a_row_that_somebody_else_has_locked() {
    let mut playground = ready("");
    playground.act("lock 3").unwrap();
    playground.act("ask 0 credit 3 10").unwrap();
    step_until(&mut playground, |now| now["sessions"][0]["waits_for"] == 3);
    playground.act("unlock").unwrap();
    let now = step_until(&mut playground, is_answered(0));
    assert_eq!(last(&now, 0).0, 200);
}

#[test]
fn a_database_that_stalls_or_restarts_is_outlived() {
    let mut playground = ready("clients=2");
    playground.act("stall").unwrap();
    playground.act("ask 0 credit 1 1").unwrap();
    let now = step_until(&mut playground, is_answered(0));
    assert_eq!(last(&now, 0).0, 503);
    playground.act("go_on").unwrap();
    step_until(&mut playground, |now| now["instances"][0]["lanes"][0]["state"] == "Ready");
    playground.act("restart").unwrap();
    step_until(&mut playground, |now| now["instances"][0]["lanes"][0]["state"] == "Down");
    playground.act("ask 1 credit 1 1").unwrap();
    let now = step_until(&mut playground, is_answered(1));
    assert_eq!(last(&now, 1).0, 200);
}

#[test]
fn a_server_that_is_told_to_stop_answers_first_and_starts_again() {
    let mut playground = ready("clients=2");
    playground.act("ask 0 credit 1 1").unwrap();
    step_until(&mut playground, |now| now["peers"][0]["phase"] == "Awaiting");
    playground.act("stop").unwrap();
    let now = step_until(&mut playground, |now| now["hand"]["is_stopped"] == true);
    assert_eq!(last(&now, 0).0, 200);
    playground.act("ask 1 credit 1 1").unwrap();
    playground.act("start").unwrap();
    let now = step_until(&mut playground, is_answered(1));
    assert_eq!(last(&now, 1).0, 200);
}

#[test]
fn more_than_the_database_does_is_refused_at_once() {
    let mut playground = ready("clients=64 batch=4 commit=50000 wait=100");
    playground.act("load 2000").unwrap();
    let refused = |now: &Value| {
        let answers = now["tally"]["answers"].as_array().unwrap();
        answers.iter().any(|answer| answer["problem"] == "too many requests wait; nothing was done")
    };
    for _ in 0..100 {
        let until_us = playground.now_us() + 100_000;
        playground.run_until(until_us, 10_000);
    }
    assert!(refused(&picture(&mut playground)));
}

#[test]
fn a_command_that_makes_no_sense_is_refused_and_not_replayed() {
    let mut playground = ready("");
    for command in
        ["", "ask", "ask 99 credit 1 1", "ask 0 credit 6 1", "ask 0 dance", "start", "pass 7 1", "load x"]
    {
        assert!(playground.act(command).is_err(), "{command}");
    }
    assert_eq!(playground.script(), "");
    assert!(Playground::new("lanes=0").is_err());
    assert!(Playground::new("lanes").is_err());
    assert!(Playground::new("moon=1").is_err());
    assert!(Playground::of_seed(1).act("stop").is_err());
}

#[test]
fn both_wires_are_told_message_by_message() {
    let mut playground = ready("");
    playground.act("ask 0 credit 1 10").unwrap();
    step_until(&mut playground, is_answered(0));
    let http: Value = serde_json::from_str(&playground.wire(0, None, 0)).unwrap();
    assert_eq!(http["messages"].as_array().unwrap().len(), 2);
    let lane: Value = serde_json::from_str(&playground.wire(0, Some(0), 0)).unwrap();
    let tags: Vec<&str> = lane["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| &message["hex"].as_str().unwrap()[..2])
        .collect();
    // Bind, Execute, Sync; BindComplete, DataRow, CommandComplete, ReadyForQuery.
    assert!(tags.join(" ").contains("42 45 53 32 44 43 5a"), "{tags:?}");
    assert_eq!(lane["is_postgres"], true);
}

/// Commands at random, under load: no check fails, and the script replays it all.
#[test]
fn whatever_is_done_to_it_no_check_fails_and_it_replays() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        let settings = format!(
            "seed={seed} clients={} lanes={} batch={} load={} gather={} commit={}",
            random.between(1, 64),
            random.between(1, 4),
            random.between(1, 64),
            random.between(0, 3_000),
            random.between(0, 5),
            random.between(30, 20_000),
        );
        let mut playground = Playground::new(&settings).unwrap();
        for _ in 0..150 {
            let until_us = playground.now_us() + random.between(1, 200_000);
            let steps_max = u32::try_from(random.between(1, 300)).unwrap();
            playground.run_until(until_us, steps_max);
            let (client, lane, account) = (random.between(0, 63), random.between(0, 3), random.between(1, 5));
            let command = match random.between(0, 20) {
                0 => format!("ask {client} credit {account} {}", random.between(1, 500)),
                1 => format!(
                    "ask {client} debit {account} {} {}",
                    random.between(1, 500),
                    random.between(1, 9)
                ),
                2 => format!("ask {client} statement {account}"),
                3 => format!("ask {client} malformed"),
                4 => format!("shut {client}"),
                5 => format!("reset {client}"),
                6 => format!("hold {lane}"),
                7 | 8 => format!("release {lane}"),
                9 => format!("pass {lane} {}", random.between(0, 100)),
                10 => format!("cut {lane} {} {}", random.between(0, 100), random.between(0, 100)),
                11 => format!("lock {account}"),
                12 => "unlock".to_owned(),
                13 => "stall".to_owned(),
                14 => "go_on".to_owned(),
                15 => "restart".to_owned(),
                16 => "stop".to_owned(),
                17 => "start".to_owned(),
                18 => format!("clients {}", random.between(1, 64)),
                19 => format!("load {}", random.between(0, 3_000)),
                _ => format!("commit {}", random.between(1, 20_000)),
            };
            // Some make no sense at their moment.
            let _ = playground.act(&command);
        }
        let violation = picture(&mut playground)["violation"].clone();
        assert_eq!(violation, Value::Null, "{settings} {}", playground.script());
        let mut again = Playground::new(&settings).unwrap();
        again.replay(&playground.script()).unwrap();
        while again.steps() < playground.steps() {
            again.run_until(u64::MAX, 1);
        }
        assert_eq!(again.hash(), playground.hash(), "{settings} {}", playground.script());
    }
}
