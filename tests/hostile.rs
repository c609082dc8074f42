//! Clients in bad faith or in great number: each is cut off or has to wait, the others are served, and nothing is left
//! behind.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use stress::throwaway::Throwaway;
use support::{Bank, Database, SERVER, Wire, get, post, transaction, wait_for};

const HEALTH: &str = "/healthz";

/// Open descriptors of the server. Right after its start that may be one too many: of who asked whether it is healthy.
fn descriptors(bank: &Bank) -> usize {
    let path = format!("/proc/{}/fd", bank.instance.pid());
    fs::read_dir(path).expect("the server runs").count()
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
    let before = descriptors(&bank);

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

    wait_for("the descriptors of the slow", || (descriptors(&bank) <= before).then_some(()));
    assert_eq!(bank.database.number("SELECT count(*) FROM transacoes WHERE cliente_id = 1"), 0);
    bank.database.assert_ledger_adds_up();
}

#[test]
fn a_crowd_beyond_the_limit_waits_and_is_served_in_turn() {
    const CROWD: usize = 900;
    let bank = Bank::with(&[("CLIENTS_MAX", "50")]);
    let before = descriptors(&bank);
    let mut crowd: Vec<Wire> = (0..CROWD).map(|_| bank.connect()).collect();
    for wire in &mut crowd {
        wire.send(transaction(1, 1, "c", "crowd"));
    }
    // Whoever has been served goes, and somebody who waits gets the place.
    for (balance, mut wire) in (1..).zip(crowd) {
        assert_eq!(wire.answer().balance(), balance);
    }
    wait_for("the descriptors of the crowd", || (descriptors(&bank) <= before).then_some(()));
}

#[test]
fn out_of_descriptors_it_neither_spins_nor_ends_and_serves_whoever_it_has() {
    const DESCRIPTORS: usize = 40;
    let directory = Throwaway::new("hostile").expect("make a directory");
    let limited = directory.path().join("limited");
    let script = format!("#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec '{SERVER}'\n");
    fs::write(&limited, script).expect("write a script");
    fs::set_permissions(&limited, fs::Permissions::from_mode(0o755)).expect("make it executable");
    let bank = Bank::start(Database::new(), &[], |options| options.executable = limited);

    let mut crowd: Vec<Wire> = (0..3 * DESCRIPTORS).map(|_| bank.connect()).collect();
    wait_for("the log tells of it", || {
        bank.instance.log().contains("raise the limit of open files (ulimit -n)").then_some(())
    });

    // While others wait in vain, those inside are served, and the loop sleeps in between: 200 requests and a second.
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
