//! Clients in bad faith or in great number: each is cut off or has to wait, the others are served, and nothing is left
//! behind.

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use stress::files;
use stress::load::Endings;
use stress::throwaway::Throwaway;
use stress::trials::descriptors;
use stress::trials::hostile::{self, attacks};
use stress::wait::Interrupt;
use support::{Bank, Database, SERVER, Wire, get, post, transaction, wait_for};

const HEALTH: &str = "/healthz";

/// Open descriptors of the server. Right after its start that may be one too many: of who asked whether it is healthy.
fn open_descriptors(bank: &Bank) -> usize {
    descriptors(bank.instance.pid()).expect("the server runs")
}

/// Runs an attack, and an honest client beside it that is served all along.
fn beside_an_honest_client(bank: &Bank, attack: impl FnOnce() -> Endings + Send) -> Endings {
    let mut honest = bank.connect();
    std::thread::scope(|scope| {
        let attack = scope.spawn(attack);
        let mut is_over = false;
        // Once more after it.
        while !is_over {
            is_over = attack.is_finished();
            assert_eq!(honest.ask(transaction(2, 1, "c", "honest")).status, 200);
            assert_eq!(honest.ask(get("/clientes/2/extrato")).status, 200);
        }
        attack.join().expect("the attack itself goes well")
    })
}

/// CPU time that the server has used, from proc(5): fields 14 and 15, in hundredths of a second on every Linux.
fn cpu_time(bank: &Bank) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", bank.instance.pid())).expect("the server runs");
    let behind_name = stat.rsplit(") ").next().expect("the name is in parentheses");
    let ticks = behind_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a count"));
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

#[test]
fn slow_clients_are_cut_off_while_others_are_served() {
    const SLOW: usize = 500;
    let bank = Bank::with(&[("HEAD_TIMEOUT_MS", "2000"), ("BODY_TIMEOUT_MS", "2000")]);
    let mut honest = bank.connect();
    assert_eq!(honest.ask(get(HEALTH)).status, 200);
    let before = open_descriptors(&bank);

    let request = post("/clientes/1/transacoes", r#"{"valor": 1, "tipo": "c", "descricao": "slow"}"#);
    let head_len = request.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    let begun = Instant::now();
    let mut slow: Vec<(Wire, usize)> = (0..SLOW)
        .map(|number| {
            let mut wire = bank.connect();
            // Half of them dawdle over the head, half over the body.
            let sent = if number % 2 == 0 { 1 } else { head_len };
            wire.send(&request[..sent]);
            (wire, sent)
        })
        .collect();
    // A byte from each while their time runs: it moves no deadline.
    while begun.elapsed() < Duration::from_millis(1_500) {
        for (wire, sent) in &mut slow {
            // Not to the last byte: then it would be a request.
            if *sent + 1 < request.len() {
                wire.send(&request[*sent..=*sent]);
                *sent += 1;
            }
        }
        assert_eq!(honest.ask(transaction(2, 1, "c", "honest")).status, 200);
    }
    for (mut wire, _sent) in slow {
        assert_eq!(wire.last_answer().status, 408);
    }
    println!("{SLOW} slow clients were cut off {:?} after the first had connected", begun.elapsed());

    wait_for("the descriptors of the slow", || (open_descriptors(&bank) <= before).then_some(()));
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes WHERE cliente_id = 1"), 0);
    bank.database.assert_ledger_adds_up();
}

/// Every attack of `cargo stress endure hostile`, with fewer attackers and less patience.
#[test]
fn each_attack_is_cut_off_while_others_are_served() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let names =
        ["HEAD_TIMEOUT_MS", "BODY_TIMEOUT_MS", "SEND_TIMEOUT_MS", "IDLE_TIMEOUT_MS", "LINGER_TIMEOUT_MS"];
    let bank = Bank::with(&names.map(|name| (name, "1000")));
    wait_for("who asked for its health to be gone", || (bank.metric("rinha_connections") <= 1).then_some(()));
    for attack in attacks(200, DEADLINE) {
        let name = attack.name;
        let before = open_descriptors(&bank);
        let endings = beside_an_honest_client(&bank, || {
            attack.run(bank.socket_address(), &Interrupt::default()).expect("attack")
        });
        println!("{name}: {} ended after {:?} us", endings.times_us.len(), endings.times_us.iter().max());
        assert_eq!((endings.left, endings.times_us.len()), (0, attack.connections), "{name}");
        // Not before: what is slow is not yet hostile.
        let earliest_us = endings.times_us.iter().min().expect("some have ended");
        assert!(*earliest_us >= 900_000, "{name}: after {earliest_us} us");
        wait_for("the descriptors of the attackers", || (open_descriptors(&bank) <= before).then_some(()));
    }
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes WHERE cliente_id = 1"), 0);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn a_hundred_thousand_pipelined_requests_are_answered_beside_others() {
    let bank = Bank::open();
    let endings = beside_an_honest_client(&bank, || {
        hostile::pipeline(bank.socket_address(), &Interrupt::default()).expect("attack")
    });
    assert_eq!(endings.left, 0, "requests without an answer");
}

#[test]
fn resets_at_every_point_of_a_request_leave_nothing_behind() {
    let bank = Bank::open();
    let before = open_descriptors(&bank);
    beside_an_honest_client(&bank, || {
        hostile::reset_everywhere(bank.socket_address(), 0, &Interrupt::default()).expect("attack")
    });
    // The honest client has left by now, too.
    wait_for("the descriptors of the attackers", || (open_descriptors(&bank) <= before).then_some(()));
    wait_for("calls without a client to end", || {
        (bank.metric("rinha_calls_queued") + bank.metric("rinha_calls_in_flight") == 0).then_some(())
    });
    // One in some 130 was sent to its end.
    let rows = bank.database.number("SELECT count(*) FROM transacoes WHERE descricao LIKE 'reset%'");
    assert!(rows <= 10, "{rows} rows of requests that were whole");
    bank.database.assert_ledger_adds_up();
}

#[test]
fn a_crowd_beyond_the_limit_waits_and_is_served_in_turn() {
    const CROWD: usize = 900;
    let bank = Bank::with(&[("CLIENTS_MAX", "50")]);
    let before = open_descriptors(&bank);
    let mut crowd: Vec<Wire> = (0..CROWD).map(|_| bank.connect()).collect();
    for wire in &mut crowd {
        wire.send(transaction(1, 1, "c", "crowd"));
    }
    // Whoever has been served goes, and somebody who waits gets the place.
    for (balance, mut wire) in (1..).zip(crowd) {
        assert_eq!(wire.answer().balance(), balance);
    }
    wait_for("the descriptors of the crowd", || (open_descriptors(&bank) <= before).then_some(()));
}

const DESCRIPTORS: usize = 40;

/// More clients than the server has descriptors for.
fn crowd(bank: &Bank) -> Vec<Wire> {
    (0..3 * DESCRIPTORS).map(|_| bank.connect()).collect()
}

#[test]
fn a_lost_session_finds_a_descriptor_however_many_clients_wait() {
    let directory = Throwaway::new("hostile").expect("make a directory");
    let script = format!("#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec '{SERVER}'\n");
    let limited = files::write_executable(directory.path().join("limited"), &script).expect("write a script");
    // Longer than the pause after which those who wait are let in.
    let settings = [("RECONNECT_MIN_MS", "300"), ("RECONNECT_MAX_MS", "300")];
    let bank = Bank::start(Database::new(), &settings, |options| options.executable = limited);
    let mut crowd = crowd(&bank);
    for _ in 0..3 {
        bank.database.end_sessions();
        wait_for("the next session", || {
            (crowd[0].ask(transaction(1, 1, "c", "crowd")).status == 200).then_some(())
        });
    }
    assert!(!bank.instance.log().contains("Too many open files"), "{}", bank.instance.log());
}

#[test]
fn out_of_descriptors_it_neither_spins_nor_ends_and_serves_whoever_it_has() {
    let bank = Bank::open();
    // Only now: a lower limit at its start would be a lower CLIENTS_MAX.
    let lowered = Command::new("prlimit")
        .args([format!("--pid={}", bank.instance.pid()), format!("--nofile={DESCRIPTORS}")])
        .status();
    assert!(lowered.expect("run prlimit").success());
    let mut crowd = crowd(&bank);
    wait_for("the log tells of it", || {
        bank.instance.log().contains("raise the limit of open files (ulimit -n)").then_some(())
    });

    // While nothing happens but that others wait in vain, it looks for room ten times a second, and sleeps.
    let begun = (Instant::now(), cpu_time(&bank));
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu_time(&bank).saturating_sub(begun.1);
    assert!(used < begun.0.elapsed() / 20, "it spins: {used:?} in {:?}", begun.0.elapsed());

    // Those inside are served meanwhile, and the loop sleeps in between: 200 requests and a second.
    let begun = (Instant::now(), cpu_time(&bank));
    while begun.0.elapsed() < Duration::from_secs(1) {
        assert_eq!(crowd[0].ask(get(HEALTH)).status, 200);
        std::thread::sleep(Duration::from_millis(5));
    }
    let used = cpu_time(&bank).saturating_sub(begun.1);
    println!("out of descriptors for {:?}, it used {used:?} of CPU time", begun.0.elapsed());
    assert!(used < begun.0.elapsed() / 2, "it spins: {used:?}");

    for mut wire in crowd {
        assert_eq!(wire.ask(get(HEALTH)).status, 200);
    }
}
