//! CORE, tests only: a PostgreSQL server that speaks real wire bytes over a ledger in memory, with implicit transactions
//! and the faults that a test plants.

use std::collections::{BTreeMap, VecDeque};

/// The state that commits and rolls back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Limit and balance by account, in cents.
    pub(crate) accounts: BTreeMap<i32, (i64, i64)>,
    /// Account and description of each accepted transaction, in the order in which they ran.
    pub(crate) rows: Vec<(i32, String)>,
}

/// One server with one session.
#[derive(Default)]
pub(crate) struct FakePostgres {
    /// What is committed.
    pub(crate) ledger: Ledger,
    /// Transactions with such a description fail with the SQLSTATE; each entry once.
    pub(crate) failures: Vec<(&'static str, &'static str)>,
    /// The SQLSTATE that the next commit fails with.
    pub(crate) commit_failure: Option<&'static str>,
    /// The descriptions of every call that ran, in order, also of those that were rolled back.
    pub(crate) ran: Vec<String>,
    /// How many calls each batch had, empty ones included.
    pub(crate) batches: Vec<usize>,
    session: Session,
}

#[derive(Default)]
struct Session {
    received: VecDeque<u8>,
    is_started: bool,
    /// The uncommitted state, once a call has run.
    transaction: Option<Ledger>,
    has_failed: bool,
    calls: usize,
    /// Statement name and parameters of the last Bind.
    bound: Option<(String, Vec<Vec<u8>>)>,
}

impl FakePostgres {
    /// A server with the accounts 1 to 5, whose limit is 1000 cents.
    pub(crate) fn new() -> FakePostgres {
        let accounts = (1..=5).map(|id| (id, (1_000, 0))).collect();
        FakePostgres { ledger: Ledger { accounts, rows: Vec::new() }, ..FakePostgres::default() }
    }

    /// A new connection: whatever the last one had not committed is gone.
    pub(crate) fn reconnect(&mut self) {
        self.session = Session::default();
    }

    /// Takes bytes of the client in; returns what the server answers.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.session.received.extend(bytes);
        let mut out = Vec::new();
        while let Some((tag, body)) = self.next_message() {
            self.answer(tag, &body, &mut out);
        }
        out
    }

    fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let tag_bytes = usize::from(self.session.is_started);
        let received = self.session.received.make_contiguous();
        let len_field = received.get(tag_bytes..tag_bytes + 4)?;
        let len_bytes = tag_bytes + u32::from_be_bytes(len_field.try_into().unwrap()) as usize;
        if received.len() < len_bytes {
            return None;
        }
        let message: Vec<u8> = self.session.received.drain(..len_bytes).collect();
        let tag = if self.session.is_started { message[0] } else { b'0' };
        Some((tag, message[tag_bytes + 4..].to_vec()))
    }

    fn answer(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        match tag {
            b'0' => {
                self.session.is_started = true;
                message(out, b'R', &0i32.to_be_bytes());
                message(out, b'Z', b"I");
            }
            b'S' => self.sync(out),
            b'X' => {}
            _ if self.session.has_failed => {}
            b'P' => message(out, b'1', b""),
            b'B' => {
                self.session.bound = Some(read_bind(body));
                message(out, b'2', b"");
            }
            b'E' => self.execute(out),
            other => panic!("no fake for the message {:?}", char::from(other)),
        }
    }

    fn sync(&mut self, out: &mut Vec<u8>) {
        let session = &mut self.session;
        self.batches.push(std::mem::take(&mut session.calls));
        let has_failed = std::mem::take(&mut session.has_failed);
        if let Some(transaction) = session.transaction.take().filter(|_| !has_failed) {
            match self.commit_failure.take() {
                Some(code) => error(out, code),
                None => self.ledger = transaction,
            }
        }
        message(out, b'Z', b"I");
    }

    fn execute(&mut self, out: &mut Vec<u8>) {
        let (statement, parameters) = self.session.bound.take().unwrap();
        let account = |position: usize| i32::from_be_bytes(parameters[position][..4].try_into().unwrap());
        let ledger = self.session.transaction.get_or_insert_with(|| self.ledger.clone());
        match statement.as_str() {
            "c" => {
                for id in ledger.accounts.keys() {
                    row(out, &[Some(&id.to_be_bytes())]);
                }
            }
            "e" => {
                self.session.calls += 1;
                let statement = ledger
                    .accounts
                    .get(&account(0))
                    .map(|(_, balance)| format!("\u{1}{{\"total\": {balance}}}"));
                row(out, &[statement.as_deref().map(str::as_bytes)]);
            }
            "t" => {
                self.session.calls += 1;
                let description = String::from_utf8(parameters[3].clone()).unwrap();
                self.ran.push(description.clone());
                if let Some(planted) = self.failures.iter().position(|(text, _)| *text == description) {
                    self.session.has_failed = true;
                    error(out, self.failures.remove(planted).1);
                    return;
                }
                let value = i64::from(account(1)) * if parameters[2] == b"d" { -1 } else { 1 };
                let (limit, balance) = insert(ledger, account(0), value, description);
                let columns = [balance, limit].map(|amount| amount.map(i64::to_be_bytes));
                row(out, &columns.each_ref().map(|column| column.as_ref().map(<[u8; 8]>::as_slice)));
            }
            "s" => {
                let accounts =
                    read_array(&parameters[0], |bytes| i32::from_be_bytes(bytes.try_into().unwrap()));
                let values =
                    read_array(&parameters[1], |bytes| i32::from_be_bytes(bytes.try_into().unwrap()));
                let kinds = read_array(&parameters[2], <[u8]>::to_vec);
                let descriptions =
                    read_array(&parameters[3], |bytes| String::from_utf8(bytes.to_vec()).unwrap());
                self.session.calls += accounts.len();
                let (mut balances, mut limits) = (Vec::new(), Vec::new());
                for (position, description) in descriptions.into_iter().enumerate() {
                    self.ran.push(description.clone());
                    if let Some(planted) = self.failures.iter().position(|(text, _)| *text == description) {
                        self.session.has_failed = true;
                        error(out, self.failures.remove(planted).1);
                        return;
                    }
                    let value = i64::from(values[position]) * if kinds[position] == b"d" { -1 } else { 1 };
                    let (limit, balance) = insert(ledger, accounts[position], value, description);
                    balances.push(balance);
                    limits.push(limit);
                }
                row(out, &[Some(&write_array(&balances)), Some(&write_array(&limits))]);
            }
            other => panic!("no fake for the statement {other}"),
        }
        message(out, b'C', b"SELECT 1\0");
    }
}

/// The procedure: limit and balance as `InsertTransacao` returns them.
fn insert(ledger: &mut Ledger, account: i32, value: i64, description: String) -> (Option<i64>, Option<i64>) {
    let Some((limit, balance)) = ledger.accounts.get_mut(&account) else { return (None, None) };
    if value < 0 && *balance + value < -*limit {
        return (Some(*limit), None);
    }
    *balance += value;
    ledger.rows.push((account, description));
    (Some(*limit), Some(*balance))
}

/// Statement name and parameters of a Bind whose values are all binary and present.
fn read_bind(body: &[u8]) -> (String, Vec<Vec<u8>>) {
    let mut rest = body;
    let _portal = take_string(&mut rest);
    let name = take_string(&mut rest);
    let formats = take_number(&mut rest, 2);
    take(&mut rest, formats * 2);
    let count = take_number(&mut rest, 2);
    let parameters = (0..count).map(|_| {
        let len_bytes = take_number(&mut rest, 4);
        take(&mut rest, len_bytes).to_vec()
    });
    (name, parameters.collect())
}

/// The elements of an array without NULL.
fn read_array<T>(bytes: &[u8], read: impl Fn(&[u8]) -> T) -> Vec<T> {
    let mut rest = bytes;
    let [_dimensions, _has_null, _element_type, len, _lower_bound] =
        [(); 5].map(|()| take_number(&mut rest, 4));
    let elements = (0..len).map(|_| {
        let len_bytes = take_number(&mut rest, 4);
        read(take(&mut rest, len_bytes))
    });
    elements.collect()
}

/// A `bigint[]` as PostgreSQL sends it.
fn write_array(elements: &[Option<i64>]) -> Vec<u8> {
    let len = i32::try_from(elements.len()).unwrap();
    let mut bytes: Vec<u8> =
        [1, 1, 20, len, 1].iter().flat_map(|number: &i32| number.to_be_bytes()).collect();
    for element in elements {
        match element {
            Some(number) => {
                bytes.extend(8i32.to_be_bytes());
                bytes.extend(number.to_be_bytes());
            }
            None => bytes.extend((-1i32).to_be_bytes()),
        }
    }
    bytes
}

fn take<'a>(rest: &mut &'a [u8], len_bytes: usize) -> &'a [u8] {
    let (taken, after) = rest.split_at(len_bytes);
    *rest = after;
    taken
}

fn take_number(rest: &mut &[u8], len_bytes: usize) -> usize {
    take(rest, len_bytes).iter().fold(0, |sum, &byte| sum * 256 + usize::from(byte))
}

fn take_string(rest: &mut &[u8]) -> String {
    let len_bytes = rest.iter().position(|&byte| byte == 0).unwrap();
    let text = String::from_utf8(take(rest, len_bytes).to_vec()).unwrap();
    take(rest, 1);
    text
}

/// Appends a backend message.
fn message(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    out.extend_from_slice(body);
}

fn row(out: &mut Vec<u8>, columns: &[Option<&[u8]>]) {
    let mut body = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
    for column in columns {
        match column {
            Some(bytes) => {
                body.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
                body.extend_from_slice(bytes);
            }
            None => body.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }
    message(out, b'D', &body);
}

fn error(out: &mut Vec<u8>, code: &str) {
    message(out, b'E', format!("SERROR\0VERROR\0C{code}\0Mplanted\0\0").as_bytes());
}
