//! CORE: the bank's API. A request becomes a [`Call`] or a [`Reject`], a result becomes a response body. Pure functions.
//!
//! The API's `clientes` are *accounts* in this code; a *client* is the other end of an HTTP connection.

use std::fmt;
use std::io::Write as _;

use crate::http::head::Violation;
use crate::http::response::{Response, Status};

mod body;
pub use body::parse_transaction;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `POST /clientes/{id}/transacoes`
    Transaction {
        /// The account of the path.
        account: i32,
    },
    /// `GET /clientes/{id}/extrato`
    Statement {
        /// The account of the path.
        account: i32,
    },
    /// `GET /healthz`
    Health,
    /// `GET /metrics`, on its own listener
    Metrics,
}

/// What the server answers on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// `LISTEN`: the bank.
    Bank,
    /// `METRICS_LISTEN`: nothing but the metrics.
    Metrics,
}

/// The accounts that exist, as last read from the database; empty before the first time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// In ascending order.
    ids: Vec<i32>,
}

impl Accounts {
    /// Takes the ids as they come.
    pub fn new(mut ids: Vec<i32>) -> Accounts {
        ids.sort_unstable();
        Accounts { ids }
    }

    /// Whether these, in ascending order, are all of them.
    pub fn are(&self, ids: &[i32]) -> bool {
        self.ids == ids
    }

    /// Whether there are none, or none is known yet.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the account may exist: it does, or none is known yet.
    fn admit(&self, account: i32) -> bool {
        self.ids.is_empty() || self.ids.binary_search(&account).is_ok()
    }
}

/// What the database is asked to do for one request. Of fixed size, so that queues of it allocate nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// One credit or debit.
    Transaction {
        /// The account it moves.
        account: i32,
        /// What the body says.
        transaction: Transaction,
    },
    /// Balance and newest transactions.
    Statement {
        /// The account it shows.
        account: i32,
    },
}

impl Call {
    /// The account whose row it locks or reads.
    pub fn account(&self) -> i32 {
        match self {
            Call::Transaction { account, .. } | Call::Statement { account } => *account,
        }
    }
}

/// The body of a transaction, within its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// 1 to 2147483647 cents.
    pub value_cents: i32,
    /// Which way it goes.
    pub kind: Kind,
    /// 1 to 10 characters.
    pub description: Description,
}

/// The direction of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Adds to the balance.
    Credit,
    /// Takes from the balance, down to the limit.
    Debit,
}

impl Kind {
    /// As the API and the ledger write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Credit => "c",
            Kind::Debit => "d",
        }
    }
}

/// 1 to [`DESCRIPTION_CHARS_MAX`] Unicode scalar values without NUL, held in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Description {
    bytes: [u8; DESCRIPTION_CHARS_MAX * 4],
    len_bytes: u8,
}

/// Characters of a description, counted as Unicode scalar values: at most 4 bytes each in UTF-8.
pub const DESCRIPTION_CHARS_MAX: usize = 10;

impl Description {
    /// `None` if the text is out of the rule.
    pub fn new(text: &str) -> Option<Description> {
        let chars = text.chars().take(DESCRIPTION_CHARS_MAX + 1).count();
        if chars == 0 || chars > DESCRIPTION_CHARS_MAX || text.contains('\0') {
            return None;
        }
        let mut bytes = [0; DESCRIPTION_CHARS_MAX * 4];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Description { bytes, len_bytes: u8::try_from(text.len()).ok()? })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Copied from a whole `str` in `new`, so the fallback is never taken.
        str::from_utf8(&self.bytes[..usize::from(self.len_bytes)]).unwrap_or_default()
    }
}

impl fmt::Debug for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Why a request is refused while its connection lives on. Each has exactly one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// 404: no such path, or the id in it is not that of an account.
    NotFound,
    /// 405: the path exists; `allow` is the value of the `Allow` field.
    MethodNotAllowed {
        /// The methods that work.
        allow: Allow,
    },
    /// 400: the body is not JSON.
    NotJson,
    /// 422: the body is JSON, but a field is missing or out of its rule.
    InvalidField,
    /// 422: the debit would pass the limit.
    PastLimit,
    /// 503: nothing was done, or the outcome is not known.
    Unavailable(Unavailable),
}

impl Reject {
    /// One word each for metrics: those that are the client's own error.
    pub const LABELS: [&str; 5] =
        ["not_found", "method_not_allowed", "not_json", "invalid_field", "past_limit"];

    /// The index of its label; `None` for `Unavailable`, which has [`Unavailable::label`].
    pub fn label_index(self) -> Option<usize> {
        match self {
            Reject::NotFound => Some(0),
            Reject::MethodNotAllowed { .. } => Some(1),
            Reject::NotJson => Some(2),
            Reject::InvalidField => Some(3),
            Reject::PastLimit => Some(4),
            Reject::Unavailable(_) => None,
        }
    }
}

/// The methods of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Reading paths.
    GetAndHead,
    /// Writing paths.
    Post,
}

/// Why the database gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// No connection to the database; the call did not run.
    DatabaseDown,
    /// The tables or procedures are missing, empty as after a crash in benchmark mode, or others; the call did not run.
    BankMissing,
    /// The database takes no transactions: a standby, or fenced off; the call did not run.
    ReadOnly,
    /// Too many calls wait already; the call did not run.
    QueueFull,
    /// It waited too long for its turn; the call did not run.
    QueueTimeout,
    /// The database refused it; the call was rolled back.
    Failed,
    /// The connection was lost or silent after the call was sent: it may have run or not.
    InDoubt,
}

impl Unavailable {
    /// Every reason, in order of declaration.
    pub const ALL: [Unavailable; 7] = [
        Unavailable::DatabaseDown,
        Unavailable::BankMissing,
        Unavailable::ReadOnly,
        Unavailable::QueueFull,
        Unavailable::QueueTimeout,
        Unavailable::Failed,
        Unavailable::InDoubt,
    ];

    /// One word for metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Unavailable::DatabaseDown => "database_down",
            Unavailable::BankMissing => "bank_missing",
            Unavailable::ReadOnly => "read_only",
            Unavailable::QueueFull => "queue_full",
            Unavailable::QueueTimeout => "queue_timeout",
            Unavailable::Failed => "failed",
            Unavailable::InDoubt => "in_doubt",
        }
    }
}

/// Finds what a request asks for, by method and path alone.
///
/// # Errors
/// `NotFound` before `MethodNotAllowed`: a method is judged only on a path that exists.
// Out of line, so that profiles name it.
#[inline(never)]
pub fn route(method: &str, path: &str, kind: ListenerKind, accounts: &Accounts) -> Result<Route, Reject> {
    let (route, allow) = match kind {
        ListenerKind::Bank => bank_route(path, accounts).ok_or(Reject::NotFound)?,
        ListenerKind::Metrics if path == "/metrics" => (Route::Metrics, Allow::GetAndHead),
        ListenerKind::Metrics => return Err(Reject::NotFound),
    };
    let is_allowed = match allow {
        Allow::GetAndHead => matches!(method, "GET" | "HEAD"),
        Allow::Post => method == "POST",
    };
    if is_allowed { Ok(route) } else { Err(Reject::MethodNotAllowed { allow }) }
}

fn bank_route(path: &str, accounts: &Accounts) -> Option<(Route, Allow)> {
    if path == "/healthz" {
        return Some((Route::Health, Allow::GetAndHead));
    }
    let (id, resource) = path.strip_prefix("/clientes/")?.split_once('/')?;
    let (route, allow): (fn(i32) -> Route, Allow) = match resource {
        "transacoes" => (|account| Route::Transaction { account }, Allow::Post),
        "extrato" => (|account| Route::Statement { account }, Allow::GetAndHead),
        _ => return None,
    };
    let account = parse_id(id).filter(|&account| accounts.admit(account))?;
    Some((route(account), allow))
}

/// A plain decimal: no sign, no leading zero, no more than an `i32` holds.
fn parse_id(id: &str) -> Option<i32> {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_digit()) && (id.len() == 1 || !id.starts_with('0'));
    if is_plain { id.parse().ok() } else { None }
}

/// What became of a [`Call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The transaction is in the ledger.
    Accepted {
        /// The account's limit, in cents.
        limit_cents: i64,
        /// Its balance after the transaction, in cents.
        balance_cents: i64,
    },
    /// The statement, as JSON.
    Statement(&'a [u8]),
    /// The debit would have passed the limit, the account is not there any more, or the database gave no result.
    Rejected(Reject),
}

/// The response for an outcome. `scratch` is overwritten if the body has to be made.
pub fn answer<'a>(outcome: Outcome<'a>, scratch: &'a mut Vec<u8>) -> Response<'a> {
    match outcome {
        Outcome::Accepted { limit_cents, balance_cents } => {
            json(write_body(scratch, format_args!(r#"{{"limite":{limit_cents},"saldo":{balance_cents}}}"#)))
        }
        Outcome::Statement(body) => json(body),
        Outcome::Rejected(reject) => rejection(reject),
    }
}

fn json(body: &[u8]) -> Response<'_> {
    Response { status: Status::Ok, content_type: JSON, extra_field: "", body }
}

fn write_body<'a>(scratch: &'a mut Vec<u8>, text: fmt::Arguments<'_>) -> &'a [u8] {
    scratch.clear();
    let written = scratch.write_fmt(text);
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    scratch
}

/// The answer to `GET /metrics`, in the text format of Prometheus.
pub fn metrics(body: &[u8]) -> Response<'_> {
    Response { status: Status::Ok, content_type: "text/plain; version=0.0.4", extra_field: "", body }
}

/// The answer to `GET /healthz`: why calls are not served, if they are not.
pub fn health(problem: Option<Unavailable>) -> Response<'static> {
    match problem {
        None => {
            Response { status: Status::Ok, content_type: "text/plain", extra_field: "", body: b"Healthy" }
        }
        Some(reason) => rejection(Reject::Unavailable(reason)),
    }
}

/// The answer to a refused request.
pub fn rejection(reject: Reject) -> Response<'static> {
    let (status, extra_field, body): (_, _, &[u8]) = match reject {
        Reject::NotFound => (Status::NotFound, "", br#"{"erro": "not found"}"#),
        Reject::MethodNotAllowed { allow } => (
            Status::MethodNotAllowed,
            match allow {
                Allow::GetAndHead => "Allow: GET, HEAD\r\n",
                Allow::Post => "Allow: POST\r\n",
            },
            br#"{"erro": "method not allowed"}"#,
        ),
        Reject::NotJson => (Status::BadRequest, "", br#"{"erro": "the body is not JSON"}"#),
        Reject::InvalidField => (
            Status::UnprocessableContent,
            "",
            br#"{"erro": "valor must be an integer from 1 to 2147483647, tipo \"c\" or \"d\", descricao 1 to 10 characters"}"#,
        ),
        Reject::PastLimit => (Status::UnprocessableContent, "", br#"{"erro": "the debit would pass the limit"}"#),
        Reject::Unavailable(reason) => (
            Status::ServiceUnavailable,
            "Retry-After: 1\r\n",
            match reason {
                Unavailable::DatabaseDown => br#"{"erro": "the database cannot be reached; nothing was done"}"#,
                Unavailable::BankMissing => {
                    br#"{"erro": "the bank is not in the database: its tables or procedures are missing, empty as after a crash, or others; nothing was done"}"#
                }
                Unavailable::ReadOnly => br#"{"erro": "the database takes no writes; nothing was done"}"#,
                Unavailable::QueueFull => br#"{"erro": "too many requests wait; nothing was done"}"#,
                Unavailable::QueueTimeout => br#"{"erro": "the database was too slow; nothing was done"}"#,
                Unavailable::Failed => br#"{"erro": "the database refused the request; nothing was done"}"#,
                Unavailable::InDoubt => br#"{"erro": "the database gave no answer; whether it was done is not known"}"#,
            },
        ),
    };
    Response { status, content_type: JSON, extra_field, body }
}

/// The answer to broken HTTP. `scratch` is overwritten; the reasons of [`Violation`] need no escape in JSON.
pub fn violation(violation: Violation, scratch: &mut Vec<u8>) -> Response<'_> {
    let body = write_body(scratch, format_args!(r#"{{"erro": "{}"}}"#, violation.reason()));
    Response { status: violation.status(), content_type: JSON, extra_field: "", body }
}

const JSON: &str = "application/json";

#[cfg(test)]
mod tests;
