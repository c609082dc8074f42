//! The exercises with PostgreSQL: steps 8 to 12.

use std::collections::BTreeMap;
use std::fs;

use crate::arena::{Arena, Running, Verdict};
use crate::http::Answer;
use crate::peer::Peer;

/// How a step's program is asked for a transaction.
fn transact(arena: &Arena, peer: &mut Peer, account: i32, kind: char, value: i32) -> Verdict {
    if arena.is_challenge {
        let path = format!("/clientes/{account}/transacoes");
        peer.ask("POST", &path, &format!(r#"{{"valor": {value}, "tipo": "{kind}", "descricao": "path"}}"#))
    } else {
        peer.ask("POST", &format!("/clientes/{account}/{kind}/{value}"), "")
    }
}

/// Expects a balance and a limit.
fn expect_balance(peer: &mut Peer, balance: i64, limit: i64, what: &str) -> Verdict {
    let answer = peer.expect(200, what)?;
    if number(&answer, "saldo") == Some(balance) && number(&answer, "limite") == Some(limit) {
        return Ok(());
    }
    Err(format!("{what}: expected {{\"limite\":{limit},\"saldo\":{balance}}}, got {}", answer.body))
}

fn number(answer: &Answer, field: &str) -> Option<i64> {
    serde_json::from_str::<serde_json::Value>(&answer.body).ok()?.get(field)?.as_i64()
}

fn expect_ledger(arena: &Arena, account: i32, sum: i64, count: i64) -> Verdict {
    let (found_sum, found_count) = arena.bank()?.ledger(account)?;
    if (found_sum, found_count) == (sum, count) {
        return Ok(());
    }
    Err(format!(
        "In the database, account {account} should have {count} transactions with a sum of {sum}. It has {found_count}, with \
         {found_sum}."
    ))
}

pub(crate) fn a_transaction(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    transact(arena, &mut peer, 1, 'c', 1000)?;
    expect_balance(&mut peer, 1000, 100_000, "A credit of 1000 for account 1")?;
    transact(arena, &mut peer, 1, 'd', 300)?;
    expect_balance(&mut peer, 700, 100_000, "Then a debit of 300")?;
    expect_ledger(arena, 1, 700, 2)
}

pub(crate) fn the_limit(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    transact(arena, &mut peer, 2, 'd', 80_000)?;
    expect_balance(&mut peer, -80_000, 80_000, "A debit of exactly the limit, from account 2")?;
    transact(arena, &mut peer, 2, 'd', 1)?;
    peer.expect(422, "A debit past the limit")?;
    transact(arena, &mut peer, 6, 'c', 1)?;
    peer.expect(404, "A credit for account 6, which does not exist")?;
    expect_ledger(arena, 2, -80_000, 1)
}

pub(crate) fn the_loop_goes_on(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let lock = arena.bank()?.lock()?;
    let mut waits = program.connect()?;
    transact(arena, &mut waits, 1, 'c', 5)?;
    program.proxy()?.wait_for(&program, "no call reached PostgreSQL", |proxy| proxy.syncs() >= 1)?;
    let mut other = program.connect()?;
    other.ask("GET", "/", "")?;
    other.answer().map_err(|what| {
        format!(
            "PostgreSQL is busy with one call. Meanwhile a client that needs no database gets {what}. Do not wait for an answer: go \
             back to the loop, which tells when it is here."
        )
    })?;
    lock.release()?;
    expect_balance(&mut waits, 5, 100_000, "When PostgreSQL went on, the credit")
}

pub(crate) fn calls_overtake_no_answer(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let lock = arena.bank()?.lock()?;
    let mut peers = program.connect_many(3)?;
    for (peer, account) in peers.iter_mut().zip([1, 2, 3]) {
        transact(arena, peer, account, 'c', account)?;
    }
    program.proxy()?.wait_for(
        &program,
        "Three clients asked, PostgreSQL is busy with the first call, and the other two were not sent. They need not wait for its \
         answer",
        |proxy| proxy.syncs() >= 3,
    )?;
    lock.release()?;
    for (peer, (account, limit)) in peers.iter_mut().zip([(1, 100_000), (2, 80_000), (3, 1_000_000)]) {
        expect_balance(
            peer,
            account,
            limit,
            &format!("Each gets its own answer: the client of account {account}"),
        )?;
    }
    Ok(())
}

pub(crate) fn who_left_gets_nothing(arena: &Arena) -> Verdict {
    let mut program = arena.start()?;
    let lock = arena.bank()?.lock()?;
    let mut leaves = program.connect()?;
    transact(arena, &mut leaves, 1, 'c', 7)?;
    program.proxy()?.wait_for(&program, "no call reached PostgreSQL", |proxy| proxy.syncs() >= 1)?;
    drop(leaves);
    program.wait_quiet()?;
    let mut other = program.connect()?;
    transact(arena, &mut other, 3, 'c', 9)?;
    program.wait_quiet()?;
    lock.release()?;
    expect_balance(&mut other, 9, 1_000_000, "A client left before its answer came. The next one")?;
    program.is_alive()
}

/// Makes a batch wait, and others gather behind it: account 5 first, then these.
fn gathered(arena: &Arena, program: &Running, calls: &[(i32, i32)]) -> Verdict<(Peer, Vec<Peer>)> {
    let lock = arena.bank()?.lock()?;
    let proxy = program.proxy()?;
    let mut first = program.connect()?;
    transact(arena, &mut first, 5, 'c', 1)?;
    proxy.wait_for(program, "no call reached PostgreSQL", |proxy| proxy.syncs() >= 1)?;
    let mut peers = program.connect_many(calls.len())?;
    for (peer, (account, value)) in peers.iter_mut().zip(calls) {
        transact(arena, peer, *account, 'c', *value)?;
    }
    program.wait_quiet()?;
    lock.release()?;
    Ok((first, peers))
}

pub(crate) fn one_sync_for_all(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let calls: Vec<(i32, i32)> = (1..=10).map(|value| (3, value)).collect();
    let (mut first, mut peers) = gathered(arena, &program, &calls)?;
    expect_balance(&mut first, 1, 500_000, "The first call")?;
    for peer in &mut peers {
        peer.expect(200, "One of ten calls that gathered")?;
    }
    expect_ledger(arena, 3, 55, 10)?;
    match program.proxy()?.syncs() {
        2 => Ok(()),
        syncs => Err(format!(
            "One call was at PostgreSQL, and ten more arrived. That is one batch and then another: 2 Syncs. There were {syncs}. Send \
             what gathered with one Sync behind all of it."
        )),
    }
}

pub(crate) fn answers_wait_for_the_commit(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let proxy = program.proxy()?;
    proxy.hold();
    let mut peer = program.connect()?;
    transact(arena, &mut peer, 1, 'c', 3)?;
    proxy.wait_for(&program, "no call reached PostgreSQL", |proxy| proxy.syncs() >= 1)?;
    // The row is committed, and nobody but PostgreSQL knows.
    program.eventually(|| (arena.bank().ok()?.ledger(1).ok()?.1 == 1).then_some(()));
    program.wait_quiet()?;
    if !peer.is_empty_now() {
        return Err(
            "An answer went out before `ReadyForQuery` was here. A row says what the transaction saw; only `ReadyForQuery` says \
             that it was committed."
                .into(),
        );
    }
    proxy.release();
    expect_balance(&mut peer, 3, 100_000, "After `ReadyForQuery`")
}

pub(crate) fn batches_are_sorted(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let (_first, mut peers) = gathered(arena, &program, &[(4, 1), (2, 2), (3, 3), (1, 4), (2, 5)])?;
    for peer in &mut peers {
        peer.expect(200, "One of five calls that gathered")?;
    }
    let accounts: Vec<i32> = program.proxy()?.sent().iter().filter_map(bound_account).collect();
    match accounts.get(1..) {
        Some([1, 2, 2, 3, 4]) => Ok(()),
        _ => Err(format!(
            "Calls for the accounts 4, 2, 3, 1, 2 gathered. Sorted, they lock rows in the order 1, 2, 2, 3, 4. They were sent as {:?}: \
             two instances may wait for each other for ever.",
            accounts.get(1..).unwrap_or_default()
        )),
    }
}

/// The first parameter of a Bind, as a number. Format: PostgreSQL documentation, "Message Formats".
fn bound_account((tag, body): &(u8, Vec<u8>)) -> Option<i32> {
    if *tag != b'B' {
        return None;
    }
    let mut names = body.splitn(3, |byte| *byte == 0);
    let (_portal, _statement, rest) = (names.next()?, names.next()?, names.next()?);
    let formats = usize::from(u16::from_be_bytes(*rest.first_chunk()?));
    // Behind the formats: how many parameters, the length of the first one, and itself.
    let first = rest.get(2 + 2 * formats + 2..)?;
    let (len, value) = first.split_first_chunk::<4>()?;
    let value = value.get(..usize::try_from(i32::from_be_bytes(*len)).ok()?)?;
    let as_text = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    as_text.or_else(|| Some(i32::from_be_bytes(*value.first_chunk()?)))
}

pub(crate) fn one_failure_fails_no_other(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    arena.bank()?.refuse_666()?;
    let (_first, mut peers) = gathered(arena, &program, &[(1, 10), (2, 666), (3, 30)])?;
    let what = "Three calls shared a batch, PostgreSQL raised an error for the second one";
    let [one, two, three] = &mut peers[..] else { return Err("not three clients".into()) };
    expect_balance(one, 10, 100_000, &format!("{what}. The first one is innocent, and"))?;
    expect_balance(three, 30, 1_000_000, &format!("{what}. The third one is innocent, and"))?;
    two.expect(503, &format!("{what}, and for this one there is no answer but 503"))?;
    expect_ledger(arena, 1, 10, 1)?;
    expect_ledger(arena, 3, 30, 1)
}

/// The rules of the API, one by one: method, path, body, status.
const RULES: [(&str, &str, &str, u16); 26] = [
    ("GET", "/clientes/1/extrato", "", 200),
    ("GET", "/clientes/6/extrato", "", 404),
    ("GET", "/clientes/01/extrato", "", 404),
    ("GET", "/clientes/+1/extrato", "", 404),
    ("GET", "/clientes/1/saldo", "", 404),
    ("GET", "/", "", 404),
    ("DELETE", "/clientes/1/extrato", "", 405),
    ("GET", "/clientes/1/transacoes", "", 405),
    ("POST", "/clientes/6/transacoes", "not JSON", 404),
    ("POST", "/clientes/1/transacoes", "not JSON", 400),
    ("POST", "/clientes/1/transacoes", "", 400),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1}"#, 422),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 0, "tipo": "c", "descricao": "a"}"#, 422),
    ("POST", "/clientes/1/transacoes", r#"{"valor": -1, "tipo": "c", "descricao": "a"}"#, 422),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1.2, "tipo": "d", "descricao": "devolve"}"#, 422),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 2147483648, "tipo": "c", "descricao": "a"}"#, 422),
    ("POST", "/clientes/1/transacoes", r#"{"valor": "1", "tipo": "c", "descricao": "a"}"#, 422),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1, "tipo": "x", "descricao": "devolve"}"#, 422),
    (
        "POST",
        "/clientes/1/transacoes",
        r#"{"valor": 1, "tipo": "c", "descricao": "123456789 e mais um pouco"}"#,
        422,
    ),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1, "tipo": "c", "descricao": ""}"#, 422),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1, "tipo": "c", "descricao": null}"#, 422),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1, "tipo": "c", "descricao": "a\u0000b"}"#, 422),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1, "tipo": "d", "descricao": "exactly 10"}"#, 200),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1, "tipo": "c", "descricao": "açãoaçãoaç"}"#, 200),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1, "tipo": "c", "descricao": "a", "x": [1]}"#, 200),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 100002, "tipo": "d", "descricao": "too much"}"#, 422),
];

pub(crate) fn the_rules(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    // All of them over one connection: a refused request ends none.
    let mut peer = program.connect()?;
    for (method, path, body, status) in RULES {
        peer.ask(method, path, body)?;
        peer.expect(status, &format!("{method} {path} {body}"))?;
    }
    expect_ledger(arena, 1, 1, 3)
}

pub(crate) fn the_statement(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    for value in 1..=12 {
        transact(arena, &mut peer, 4, 'c', value)?;
        peer.expect(200, "A credit")?;
    }
    peer.ask("GET", "/clientes/4/extrato", "")?;
    let answer = peer.expect(200, "A statement after 12 credits")?;
    let json: serde_json::Value =
        serde_json::from_str(&answer.body).map_err(|error| format!("a statement is no JSON: {error}"))?;
    if json["saldo"]["total"] != 78
        || json["saldo"]["limite"] != 10_000_000
        || !json["saldo"]["data_extrato"].is_string()
    {
        return Err(format!("A statement after 12 credits: \"saldo\" is {}", json["saldo"]));
    }
    let values: Vec<i64> = json["ultimas_transacoes"]
        .as_array()
        .map(|all| all.iter().filter_map(|one| one["valor"].as_i64()).collect())
        .unwrap_or_default();
    if values == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3] {
        return Ok(());
    }
    Err(format!(
        "Of 12 credits, 1 to 12, the statement has to have the last ten, newest first. It has {values:?}."
    ))
}

/// As the challenge validates it: 25 debits at once, then 25 credits.
pub(crate) fn at_once(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    for (kind, end) in [('d', -25), ('c', 0)] {
        let mut peers = program.connect_many(25)?;
        for peer in &mut peers {
            transact(arena, peer, 1, kind, 1)?;
        }
        for peer in &mut peers {
            peer.expect(200, "25 transactions at once")?;
        }
        let mut peer = program.connect()?;
        peer.ask("GET", "/clientes/1/extrato", "")?;
        let answer = peer.expect(200, "The statement after them")?;
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if json["saldo"]["total"] != end {
            return Err(format!(
                "After 25 transactions of 1 at once the balance is {}, not {end}.",
                json["saldo"]["total"]
            ));
        }
    }
    expect_ledger(arena, 1, 0, 50)
}

/// Waits until transactions are answered 200 again.
fn expect_recovery(program: &Running) -> Verdict {
    let statement = || {
        let mut peer = program.connect().ok()?;
        peer.ask("GET", "/clientes/1/extrato", "").ok()?;
        (peer.answer().ok()?.status == 200).then_some(())
    };
    program.eventually(statement).ok_or_else(|| {
        "After its connection to PostgreSQL was lost, it did not answer 200 any more. Connect again, and log in again.".to_owned()
    })
}

pub(crate) fn in_doubt(arena: &Arena) -> Verdict {
    let mut program = arena.start()?;
    let proxy = program.proxy()?;
    proxy.hold();
    let mut peer = program.connect()?;
    transact(arena, &mut peer, 1, 'c', 11)?;
    proxy.wait_for(&program, "no call reached PostgreSQL", |proxy| proxy.syncs() >= 1)?;
    if program.eventually(|| (arena.bank().ok()?.ledger(1).ok()?.1 == 1).then_some(())).is_none() {
        return Err("A credit was sent, and PostgreSQL did not commit it.".into());
    }
    proxy.cut();
    proxy.release();
    let what = "The connection was lost after PostgreSQL had committed and before it could say so. Whether it was committed cannot be \
                known: 503";
    peer.expect(503, what)?;
    program.is_alive()?;
    expect_recovery(&program)?;
    expect_ledger(arena, 1, 11, 1).map_err(|what| {
        format!("{what} A call in doubt must not run again: it may have been committed, and here it was.")
    })
}

pub(crate) fn the_queue_is_bounded(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let lock = arena.bank()?.lock()?;
    let mut peers = program.connect_many(300)?;
    for peer in &mut peers {
        transact(arena, peer, 1, 'c', 1)?;
    }
    // Nothing has an answer from PostgreSQL yet. What is refused at once, or after its time in the queue, is 503.
    let mut statuses = BTreeMap::new();
    let answered = program.eventually(|| peers.iter_mut().any(|peer| !peer.is_empty_now()).then_some(()));
    if answered.is_none() {
        return Err("PostgreSQL is stuck, and 300 clients wait. Nobody is told: limit the queue and the wait in it, and answer 503.".into());
    }
    lock.release()?;
    for peer in &mut peers {
        *statuses.entry(peer.answer()?.status).or_insert(0) += 1;
    }
    let accepted = statuses.remove(&200).unwrap_or(0);
    if !statuses.keys().all(|status| *status == 503) {
        return Err(format!(
            "Of 300 calls while PostgreSQL was stuck: {accepted} times 200, and {statuses:?} (status: count)"
        ));
    }
    expect_ledger(arena, 1, accepted, accepted)
        .map_err(|what| format!("{what} Those that got 200, and no others, have to be in it."))
}

/// Of a miniature.
const LINES_MAX: usize = 300;

pub(crate) fn small(arena: &Arena) -> Verdict {
    let text =
        fs::read_to_string(arena.source).map_err(|error| format!("cannot read the program: {error}"))?;
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    match text.lines().filter(is_code).count() {
        ..=LINES_MAX => Ok(()),
        count => Err(format!(
            "It has {count} lines of code. A miniature has {LINES_MAX}; the HTTP of step 7 may stay in its file."
        )),
    }
}
