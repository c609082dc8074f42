//! CORE, simulation only: makes requests, and knows of each which answers it may get.

use crate::config::Config;
use crate::sim::answer::Answer;
use crate::sim::audit::{Audit, Tag};
use crate::sim::check::{Check, Violation};
use crate::sim::fault::Fault;
use crate::sim::postgres::Ledger;
use crate::sim::scene::Scene;

/// One request, and what its answer may be.
#[derive(Debug)]
pub(crate) struct Request {
    /// All of it, or what comes before the content that waits for `100 Continue`.
    pub(crate) bytes: Vec<u8>,
    /// The content that waits for `100 Continue`.
    pub(crate) withheld: Vec<u8>,
    pub(crate) expect: Expect,
    pub(crate) is_head_only: bool,
    /// It is the last one on its connection: it says so, or it breaks the framing.
    pub(crate) is_last: bool,
    /// It speaks HTTP/1.0 and asks to keep the connection.
    pub(crate) asks_to_keep: bool,
    pub(crate) expects_continue: bool,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Expect {
    Transaction { account: i32, value_cents: i64, tag: Tag },
    Statement { account: i32 },
    Health,
    UnknownAccount,
    Refusal { status: u16, allow: Option<&'static str> },
    Violation { status: u16 },
}

/// What decides which answers the server may give to a request.
pub(crate) struct Standing<'a> {
    /// Transactions of the account that were committed before the request was sent.
    pub(crate) floor: usize,
    /// How many of them a statement has to show.
    pub(crate) read_floor: usize,
    /// Runs that may have come to nothing before the database saw them.
    pub(crate) unseen_attempts: usize,
    /// The server has been told to stop.
    pub(crate) is_draining: bool,
    /// The request was slow enough for 408.
    pub(crate) is_late: bool,
    /// The peer has closed its half in the middle of the request.
    pub(crate) is_cut: bool,
    pub(crate) config: &'a Config,
    pub(crate) ledger: &'a Ledger,
}

/// Refused, though the framing is right: method, path, content, status, `Allow`.
const REFUSED: [(&str, &str, &str, u16, Option<&str>); 11] = [
    ("GET", "/", "", 404, None),
    ("POST", "/clientes/01/transacoes", r#"{"valor": 1}"#, 404, None),
    ("GET", "/clientes/+1/extrato", "", 404, None),
    ("GET", "/metrics", "", 404, None),
    ("GET", "/clientes/1/transacoes", "", 405, Some("POST")),
    ("POST", "/clientes/1/extrato?x=y", "{}", 405, Some("GET, HEAD")),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1,"#, 400, None),
    ("POST", "/clientes/1/transacoes", r#"{"valor": 1, "tipo": "c"}"#, 422, None),
    ("POST", "/clientes/2/transacoes", r#"{"valor": 1.5, "tipo": "c", "descricao": "x"}"#, 422, None),
    ("POST", "/clientes/3/transacoes", r#"{"valor": 1, "tipo": "x", "descricao": "x"}"#, 422, None),
    ("POST", "/clientes/4/transacoes", r#"{"valor": 1, "tipo": "d", "descricao": "01234567890"}"#, 422, None),
];

/// No request that can be served: text, status.
const VIOLATIONS: [(&str, u16); 10] = [
    ("GET /healthz HTTP/1.1\r\n\r\n", 400),
    ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET /healthz HTTP/1.1\nHost: a\n\n", 400),
    ("\u{1}\u{2}garbage\r\n\r\n", 400),
    (
        "POST /clientes/1/transacoes HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        400,
    ),
    ("POST /clientes/1/transacoes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    ("POST /clientes/1/transacoes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ("GET /healthz HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("POST /clientes/1/transacoes HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n{\"valor\": 1, ", 413),
    (
        "POST /clientes/1/transacoes HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n{\"valor\"",
        413,
    ),
];

impl Request {
    /// A request as chance and the faults make it.
    pub(crate) fn make(scene: &Scene, audit: &mut Audit) -> Request {
        if scene.strikes(Fault::MalformedRequest) {
            let (text, status) = scene.one_of(&VIOLATIONS);
            let request = Request::plain(text.as_bytes().to_vec(), Expect::Violation { status });
            return Request { is_last: true, ..request };
        }
        if scene.strikes(Fault::RefusedRequest) {
            if scene.happens(100) {
                let body = r#"{"valor": 1, "tipo": "c", "descricao": "nobody"}"#;
                return Request::build(scene, "POST", "/clientes/6/transacoes", body, Expect::UnknownAccount);
            }
            let (method, path, body, status, allow) = scene.one_of(&REFUSED);
            return Request::build(scene, method, path, body, Expect::Refusal { status, allow });
        }
        match scene.below(10) {
            0 => {
                let method = scene.one_of(&["GET", "GET", "HEAD"]);
                Request::build(scene, method, "/healthz", "", Expect::Health)
            }
            1..=3 => {
                let account = 1 + i32::try_from(scene.below(5)).unwrap_or(0);
                let method = scene.one_of(&["GET", "GET", "GET", "HEAD"]);
                let path = format!("/clientes/{account}/extrato");
                Request::build(scene, method, &path, "", Expect::Statement { account })
            }
            _ => Request::transaction(scene, audit),
        }
    }

    /// A valid transaction.
    pub(crate) fn transaction(scene: &Scene, audit: &mut Audit) -> Request {
        let tag = audit.next_tag();
        let account = scene.one_of(&[1, 1, 1, 2, 3, 4, 5]);
        let is_debit = scene.happens(600);
        let value =
            if scene.happens(20) { i64::from(i32::MAX) } else { i64::from(scene.one_of(&[1, 10, 250, 999])) };
        let body = format!(
            r#"{{"valor": {value}, "tipo": "{}"{}, "descricao": "{}{tag}"}}"#,
            if is_debit { "d" } else { "c" },
            scene.one_of(&["", "", r#", "x": [{"y": null}, 1.5]"#]),
            scene.one_of(&["t", "t", "é"]),
        );
        let value_cents = if is_debit { -value } else { value };
        let expect = Expect::Transaction { account, value_cents, tag };
        Request::build(scene, "POST", &format!("/clientes/{account}/transacoes"), &body, expect)
    }

    /// A transaction as a well-behaved client sends it.
    pub(crate) fn plain_transaction(account: i32, value_cents: i64, audit: &mut Audit) -> Request {
        let tag = audit.next_tag();
        let kind = if value_cents < 0 { "d" } else { "c" };
        let body = format!(r#"{{"valor": {}, "tipo": "{kind}", "descricao": "t{tag}"}}"#, value_cents.abs());
        let head = format!("POST /clientes/{account}/transacoes HTTP/1.1\r\nHost: bank\r\n");
        let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        Request::plain(text.into_bytes(), Expect::Transaction { account, value_cents, tag })
    }

    /// A request for a statement as a well-behaved client sends it.
    pub(crate) fn plain_statement(account: i32) -> Request {
        let text = format!("GET /clientes/{account}/extrato HTTP/1.1\r\nHost: bank\r\n\r\n");
        Request::plain(text.into_bytes(), Expect::Statement { account })
    }

    /// A request without `Host`, which HTTP/1.1 demands.
    pub(crate) fn malformed() -> Request {
        let (text, status) = VIOLATIONS[0];
        let request = Request::plain(text.as_bytes().to_vec(), Expect::Violation { status });
        Request { is_last: true, ..request }
    }

    fn plain(bytes: Vec<u8>, expect: Expect) -> Request {
        Request {
            bytes,
            withheld: Vec::new(),
            expect,
            is_head_only: false,
            is_last: false,
            asks_to_keep: false,
            expects_continue: false,
        }
    }

    fn build(scene: &Scene, method: &str, path: &str, body: &str, expect: Expect) -> Request {
        let is_last = scene.happens(30);
        let is_1_0 = scene.happens(50);
        let is_chunked = !is_1_0 && !body.is_empty() && scene.strikes(Fault::ChunkedBody);
        let expects_continue = !is_1_0 && !body.is_empty() && scene.strikes(Fault::ExpectContinue);
        let version = if is_1_0 { "1.0" } else { "1.1" };
        let mut head = format!("{method} {path} HTTP/{version}\r\nHost: bank\r\n");
        if is_last && !is_1_0 {
            head += "Connection: close\r\n";
        } else if !is_last && is_1_0 {
            head += "Connection: keep-alive\r\n";
        }
        if expects_continue {
            head += "Expect: 100-continue\r\n";
        }
        let content = if is_chunked {
            head += "Transfer-Encoding: chunked\r\n\r\n";
            chunked(scene, body)
        } else {
            head.extend(["Content-Length: ", &body.len().to_string(), "\r\n\r\n"]);
            body.as_bytes().to_vec()
        };
        let mut request = Request::plain(head.into_bytes(), expect);
        if expects_continue {
            request.withheld = content;
        } else {
            request.bytes.extend(content);
        }
        let is_head_only = method == "HEAD";
        Request { is_head_only, is_last, asks_to_keep: is_1_0 && !is_last, expects_continue, ..request }
    }

    /// Whether this answer is one that the request may get.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(
        &self,
        answer: &Answer<'_>,
        standing: &Standing<'_>,
        audit: &mut Audit,
    ) -> Result<(), Violation> {
        let is_violation =
            standing.is_late && answer.status == 408 || standing.is_cut && answer.status == 400;
        self.check_connection(answer, is_violation, standing)?;
        if answer.retries_after != (answer.status == 503) {
            return Err(Violation::new(Check::Fields, "Retry-After does not fit the status"));
        }
        let content_type =
            if answer.body == "Healthy" || (answer.status == 200 && matches!(self.expect, Expect::Health)) {
                "text/plain"
            } else {
                "application/json"
            };
        if answer.content_type != content_type {
            return Err(Violation::new(Check::Fields, format!("its type is {}", answer.content_type)));
        }
        if is_violation {
            return Ok(());
        }
        let says_nothing_done = answer.status == 503 && answer.body.contains("nothing was done");
        match (&self.expect, answer.status) {
            (&Expect::Transaction { tag, .. }, 200) => {
                audit.check_accepted(tag, standing.floor, answer.body, standing.ledger)
            }
            (&Expect::Transaction { account, value_cents, tag }, 422) => {
                audit.check_refused(tag, account, value_cents, standing.read_floor, standing.ledger)
            }
            (&Expect::Transaction { tag, .. }, 503) if answer.body.contains("the database refused") => {
                audit.check_failed(tag, standing.unseen_attempts, standing.config)
            }
            (&Expect::Transaction { tag, .. }, 503) if says_nothing_done => audit.check_denied(tag),
            (Expect::Transaction { .. }, 503) => Ok(()),
            (Expect::Statement { .. } | Expect::Health, 200) if self.is_head_only => Ok(()),
            (&Expect::Statement { account }, 200) => audit.check_statement(
                account,
                standing.read_floor,
                answer.body,
                standing.config,
                standing.ledger,
            ),
            (Expect::Statement { .. }, 503) => Ok(()),
            (Expect::Health, 200) if answer.body == "Healthy" => Ok(()),
            (Expect::Health, 503) => Ok(()),
            // Before the accounts are known, the database has to say it.
            (Expect::UnknownAccount, 404 | 503) => Ok(()),
            (&Expect::Refusal { status, allow }, _) if answer.status == status && answer.allow == allow => {
                Ok(())
            }
            (&Expect::Violation { status }, _) if answer.status == status => Ok(()),
            (_, _) => Err(Violation::new(Check::Status, "no such answer may come")),
        }
    }

    fn check_connection(
        &self,
        answer: &Answer<'_>,
        is_violation: bool,
        standing: &Standing<'_>,
    ) -> Result<(), Violation> {
        let must_close = self.is_last || is_violation;
        let may_close = must_close || standing.is_draining || (self.expects_continue && answer.status >= 400);
        match answer.connection {
            Some("close") if may_close => Ok(()),
            Some("keep-alive") if self.asks_to_keep && !must_close => Ok(()),
            None if !must_close && !self.asks_to_keep => Ok(()),
            other => Err(Violation::new(Check::Persistence, format!("its Connection field is {other:?}"))),
        }
    }
}

/// The body in chunks, with what may stand around them.
fn chunked(scene: &Scene, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body.as_bytes();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(1 + scene.below(rest.len()));
        out.extend(format!("{:x}{}\r\n", chunk.len(), scene.one_of(&["", "", ";x=y"])).bytes());
        out.extend(chunk);
        out.extend(b"\r\n");
        rest = after;
    }
    out.extend(scene.one_of(&["0\r\n\r\n", "0\r\n\r\n", "0\r\nX: y\r\n\r\n"]).bytes());
    out
}
