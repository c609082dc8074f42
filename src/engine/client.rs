//! CORE: one HTTP connection: inbox, phase, outbox. It answers by itself what needs no database and hands out the
//! rest as calls, one at a time; later pipelined requests wait in the inbox.

use std::io::ErrorKind;

use crate::bank::{self, Call, ListenerKind, Outcome, Route, Unavailable};
use crate::buf::{Inbox, Outbox, Pipe};
use crate::config::Config;
use crate::http::chunked::ChunkedDecoder;
use crate::http::head::{self, Framing, Violation};
use crate::http::response::{self, Date, Persistence, Response};
use crate::metrics::{Endpoint, Metrics};
use crate::now::Now;

/// One HTTP connection.
///
/// The shell moves bytes through [`Pipe`], reports the end of the peer's half with [`Pipe::peer_closed`], and asks
/// after each send what becomes of the socket ([`Client::after_send`]). The engine calls [`Client::advance`] whenever
/// bytes came in, and [`Client::answer`] once for each call that it got from there.
#[derive(Debug)]
pub struct Client {
    kind: ListenerKind,
    inbox: Inbox,
    outbox: Outbox,
    phase: Phase,
    /// The outbox is full, so the next request stays in the inbox until it has been sent.
    waits_for_outbox: bool,
    /// The peer will send nothing more. It may still read.
    is_peer_closed: bool,
    /// The deadline of the phase, in monotonic microseconds.
    phase_deadline_us: u64,
    /// The deadline for the peer to read the first `send_due_bytes` of the outbox, in monotonic microseconds; `u64::MAX` while
    /// that is empty.
    send_deadline_us: u64,
    /// What was in the outbox when the deadline was set, and has not left. Then the rest gets a deadline of its own.
    send_due_bytes: usize,
}

#[derive(Debug)]
enum Phase {
    /// Between two requests: no byte of the next one has arrived, at most half an empty line before it.
    Idle,
    /// A part of a head has arrived.
    Head,
    /// The head is parsed; its content has not arrived whole.
    Body { request: Request, body: Body },
    /// The database has the call.
    Awaiting { request: Request },
    /// The request was answered from its head alone; its content is skipped.
    Skipping { body: Body },
    /// The last answer is on its way; then the socket is closed, after lingering if content may still arrive.
    Flushing { lingers: bool },
    /// Our half is closed; what still arrives is dropped, so that no reset overtakes the answer (RFC 9112, 9.6). After
    /// `remaining_bytes` nothing more is read: the peer's kernel stops sending, and the peer can still read its answer.
    Lingering { remaining_bytes: usize },
    /// Nothing is left to do; the shell drops the socket.
    Closed,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    route: Route,
    persistence: Persistence,
    is_head_only: bool,
    started_us: u64,
}

#[derive(Debug)]
enum Body {
    Length {
        remaining_bytes: usize,
    },
    /// The first `content_bytes` of the inbox are decoded.
    Chunked {
        decoder: ChunkedDecoder,
        content_bytes: usize,
    },
}

/// What all clients of one server share.
pub struct Context {
    /// Limits and waits.
    pub config: Config,
    /// The accounts that exist.
    pub accounts: bank::Accounts,
    /// Why calls are not served, for `/healthz`; `None` if they are.
    pub problem: Option<Unavailable>,
    /// Whether the server is about to stop, so that every answer is its connection's last.
    pub is_draining: bool,
    /// The current value of the `Date` field.
    pub date: Date,
    /// This turn's moment.
    pub now: Now,
    /// Where answers are counted.
    pub metrics: Metrics,
    /// For bodies on their way into an outbox.
    pub scratch: Vec<u8>,
}

#[cfg(test)]
impl Context {
    /// A bank with the accounts 1 to 5, no database yet, at time 0.
    pub(crate) fn for_test(settings: &[(&str, &str)]) -> Context {
        Context {
            config: Config::for_test(settings),
            accounts: bank::Accounts::new(vec![1, 2, 3, 4, 5]),
            problem: Some(Unavailable::DatabaseDown),
            is_draining: false,
            date: response::date_at(0),
            now: Now::default(),
            metrics: Metrics::default(),
            scratch: Vec::new(),
        }
    }
}

/// What to do with the socket after a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterSend {
    /// It stays as it is.
    Stay,
    /// Our half is done: shut it down and go on reading.
    ShutDownWrite,
    /// Drop it.
    Close,
}

/// Whether [`Client::advance`] goes on.
enum Flow {
    Again,
    Wait,
    Call(Call),
}

impl Client {
    /// A connection that has just been accepted.
    pub fn new(kind: ListenerKind, config: &Config, now: Now) -> Client {
        Client {
            kind,
            // The head is consumed before its content is collected. The second term is room for the coding of chunks.
            inbox: Inbox::new(config.inbox_len_bytes, config.body_len_max_bytes + config.head_len_max_bytes),
            outbox: Outbox::default(),
            phase: Phase::Idle,
            waits_for_outbox: false,
            is_peer_closed: false,
            phase_deadline_us: now.after_ms(config.idle_timeout_ms),
            send_deadline_us: u64::MAX,
            send_due_bytes: 0,
        }
    }

    /// Whether its call is in the queue or at PostgreSQL.
    pub fn is_awaiting(&self) -> bool {
        matches!(self.phase, Phase::Awaiting { .. })
    }

    /// The name of its phase.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Idle => "Idle",
            Phase::Head => "Head",
            Phase::Body { .. } => "Body",
            Phase::Awaiting { .. } => "Awaiting",
            Phase::Skipping { .. } => "Skipping",
            Phase::Flushing { .. } => "Flushing",
            Phase::Lingering { .. } => "Lingering",
            Phase::Closed => "Closed",
        }
    }

    /// Whether it is lingering: its input is dropped, so that no reset overtakes the answer.
    pub fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering { .. })
    }

    /// Whether [`Client::advance`] could go on although nothing came in: the outbox, which was full, has been sent.
    pub fn can_go_on(&self) -> bool {
        self.waits_for_outbox && self.outbox.is_empty()
    }

    /// Its nearest deadline, in monotonic microseconds.
    pub fn deadline_us(&self) -> u64 {
        self.phase_deadline_us.min(self.send_deadline_us)
    }

    /// Serves what is in the inbox, up to the first request that needs the database.
    ///
    /// After a call was returned the client awaits [`Client::answer`]. `None` means that it needs more bytes, or room
    /// in its outbox, or has nothing more to do.
    pub fn advance(&mut self, context: &mut Context) -> Option<Call> {
        loop {
            let flow = match &mut self.phase {
                Phase::Idle | Phase::Head => self.read_head(context),
                Phase::Body { .. } => self.read_body(context),
                Phase::Skipping { .. } => self.skip_body(context),
                // Discard here, so a fast sender gets one inbox per turn like everyone else.
                Phase::Lingering { remaining_bytes } => {
                    let dropped_bytes = self.inbox.unread().len();
                    *remaining_bytes = remaining_bytes.saturating_sub(dropped_bytes);
                    self.inbox.consume(dropped_bytes);
                    Flow::Wait
                }
                Phase::Awaiting { .. } | Phase::Flushing { .. } | Phase::Closed => Flow::Wait,
            };
            match flow {
                Flow::Again => {}
                Flow::Wait => return None,
                Flow::Call(call) => return Some(call),
            }
        }
    }

    /// Answers the call that is out. The answer is in the outbox afterwards; the next request may be in the inbox.
    ///
    /// # Panics
    /// If no call is out: our own bug.
    pub fn answer(&mut self, outcome: Outcome<'_>, context: &mut Context) {
        let Phase::Awaiting { request } = self.phase else {
            panic!("an answer for a client that awaits none")
        };
        if let Outcome::Rejected(reject) = outcome {
            context.metrics.count_reject(reject);
        }
        let mut body = std::mem::take(&mut context.scratch);
        self.respond(request, &bank::answer(outcome, &mut body), context);
        context.scratch = body;
    }

    /// Acts on a deadline that has passed.
    pub fn expire(&mut self, context: &mut Context) {
        if context.now.is_past(self.send_deadline_us) {
            context.metrics.closed_send_timeout += 1;
            self.phase = Phase::Closed;
        } else if context.now.is_past(self.phase_deadline_us) {
            match self.phase {
                // The client still reads an answer, for which `send_deadline_us` applies.
                Phase::Idle | Phase::Skipping { .. } | Phase::Flushing { .. } if !self.outbox.is_empty() => {}
                Phase::Idle
                | Phase::Flushing { .. }
                | Phase::Lingering { .. }
                | Phase::Skipping { .. }
                | Phase::Closed => {
                    self.phase = Phase::Closed;
                }
                Phase::Head | Phase::Body { .. } => self.refuse(Violation::TooSlow, context),
                // The engine ends every call.
                Phase::Awaiting { .. } => self.phase_deadline_us = u64::MAX,
            }
        }
    }

    /// Ends the wait for a next request early, since the server is about to stop: the request that may be on its way
    /// is still served until `deadline_us`.
    pub fn drain(&mut self, deadline_us: u64) {
        match self.phase {
            Phase::Idle => self.phase_deadline_us = self.phase_deadline_us.min(deadline_us),
            Phase::Head
            | Phase::Body { .. }
            | Phase::Awaiting { .. }
            | Phase::Skipping { .. }
            | Phase::Flushing { .. }
            | Phase::Lingering { .. }
            | Phase::Closed => {}
        }
    }

    /// What to do with the socket after a send. `now` is called only if a wait begins.
    pub fn after_send(&mut self, config: &Config, now: impl Fn() -> Now) -> AfterSend {
        if self.outbox.is_empty() {
            self.send_deadline_us = u64::MAX;
        } else if self.send_deadline_us == u64::MAX || self.send_due_bytes == 0 {
            self.send_deadline_us = now().after_ms(config.send_timeout_ms);
            self.send_due_bytes = self.outbox.len();
        }
        match self.phase {
            Phase::Closed => AfterSend::Close,
            Phase::Flushing { lingers } if self.outbox.is_empty() => {
                if lingers && !self.is_peer_closed {
                    self.inbox.consume(self.inbox.unread().len());
                    self.phase = Phase::Lingering { remaining_bytes: config.linger_len_max_bytes };
                    self.phase_deadline_us = now().after_ms(config.linger_timeout_ms);
                    AfterSend::ShutDownWrite
                } else {
                    self.phase = Phase::Closed;
                    AfterSend::Close
                }
            }
            Phase::Idle
            | Phase::Head
            | Phase::Body { .. }
            | Phase::Awaiting { .. }
            | Phase::Skipping { .. }
            | Phase::Flushing { .. }
            | Phase::Lingering { .. } => AfterSend::Stay,
        }
    }

    fn read_head(&mut self, context: &mut Context) -> Flow {
        self.waits_for_outbox = self.outbox.len() >= context.config.outbox_len_max_bytes;
        if self.waits_for_outbox {
            return Flow::Wait;
        }
        if matches!(self.phase, Phase::Idle) && !self.drop_empty_lines() {
            if self.is_peer_closed {
                self.phase = Phase::Flushing { lingers: false };
            }
            return Flow::Wait;
        }
        let head = match head::parse_head(self.inbox.unread(), &context.config.http_limits()) {
            Ok(Some(head)) => head,
            Ok(None) => return self.await_more_head(context),
            Err(violation) => {
                self.refuse(violation, context);
                return Flow::Again;
            }
        };
        let framing = head.framing;
        let expects_continue = head.expects_continue;
        let is_head_only = head.method == "HEAD";
        let persistence = if context.is_draining { Persistence::Close } else { head.persistence };
        let route = bank::route(head.method, head.path, self.kind, &context.accounts);
        let len_bytes = head.len_bytes;
        self.inbox.consume(len_bytes);

        let body = Body::new(framing);
        match route {
            Ok(route) => {
                let request =
                    Request { route, persistence, is_head_only, started_us: context.now.monotonic_us };
                if expects_continue && !body.is_empty() && self.inbox.unread().is_empty() {
                    response::write_continue(self.outbox.writer());
                }
                self.phase = Phase::Body { request, body };
                self.phase_deadline_us = context.now.after_ms(context.config.body_timeout_ms);
            }
            Err(reject) => {
                // A client that gets no `100 Continue` may leave the content out. Then the next bytes could be content or
                // a new request, so the connection ends.
                let persistence = if expects_continue { Persistence::Close } else { persistence };
                self.phase_deadline_us = context.now.after_ms(context.config.body_timeout_ms);
                context.metrics.count_reject(reject);
                self.write(Endpoint::Other, &bank::rejection(reject), persistence, is_head_only, context);
                self.phase = match persistence {
                    Persistence::Close => {
                        Phase::Flushing { lingers: !body.is_empty() || context.is_draining }
                    }
                    Persistence::KeepAlive | Persistence::KeepAliveSaid => Phase::Skipping { body },
                };
            }
        }
        Flow::Again
    }

    /// Drops the empty lines before a request line. Returns whether a request has begun. Empty lines, whole or half, are no
    /// request: they start no deadline and get no answer.
    fn drop_empty_lines(&mut self) -> bool {
        let empty_bytes = head::empty_lines_len_bytes(self.inbox.unread());
        if empty_bytes > 0 {
            self.inbox.consume(empty_bytes);
            self.inbox.shrink();
        }
        !matches!(self.inbox.unread(), [] | [b'\r'])
    }

    fn await_more_head(&mut self, context: &mut Context) -> Flow {
        if self.is_peer_closed {
            self.refuse(Violation::Malformed("the request is incomplete"), context);
            return Flow::Again;
        }
        if matches!(self.phase, Phase::Idle) {
            self.phase = Phase::Head;
            self.phase_deadline_us = context.now.after_ms(context.config.head_timeout_ms);
        }
        if self.inbox.is_full() {
            self.inbox.grow(self.inbox.unread().len() + 1);
        }
        Flow::Wait
    }

    fn read_body(&mut self, context: &mut Context) -> Flow {
        let Phase::Body { request, body } = &mut self.phase else { return Flow::Wait };
        let request = *request;
        // Where the content ends in the inbox, and where the next request starts.
        let (content_bytes, consumed_bytes) = match body {
            Body::Length { remaining_bytes } if *remaining_bytes <= self.inbox.unread().len() => {
                (*remaining_bytes, *remaining_bytes)
            }
            Body::Length { remaining_bytes } => {
                self.inbox.grow(*remaining_bytes);
                return self.await_more_body(context);
            }
            Body::Chunked { decoder, content_bytes } => {
                let undecoded = &mut self.inbox.unread_mut()[*content_bytes..];
                let decoded = match decoder.decode(undecoded, &context.config.http_limits()) {
                    Ok(decoded) => decoded,
                    Err(violation) => {
                        self.refuse(violation, context);
                        return Flow::Again;
                    }
                };
                let coding_start = *content_bytes;
                *content_bytes += decoded.content_bytes;
                if !decoded.is_done {
                    self.inbox.truncate(*content_bytes);
                    self.inbox.grow(*content_bytes + 1);
                    return self.await_more_body(context);
                }
                (*content_bytes, coding_start + decoded.read_bytes)
            }
        };
        let verdict = self.judge(request, content_bytes, context);
        self.inbox.consume(consumed_bytes);
        match verdict {
            Verdict::Call(call) => {
                self.phase = Phase::Awaiting { request };
                self.phase_deadline_us = u64::MAX;
                Flow::Call(call)
            }
            Verdict::Answered => Flow::Again,
        }
    }

    fn await_more_body(&mut self, context: &mut Context) -> Flow {
        if self.is_peer_closed {
            self.refuse(Violation::Malformed("the request is incomplete"), context);
            return Flow::Again;
        }
        Flow::Wait
    }

    /// Answers a complete request, or returns its call. Its content is the start of the inbox.
    fn judge(&mut self, request: Request, content_bytes: usize, context: &mut Context) -> Verdict {
        match request.route {
            Route::Transaction { account } => {
                match bank::parse_transaction(&self.inbox.unread()[..content_bytes]) {
                    Ok(transaction) => return Verdict::Call(Call::Transaction { account, transaction }),
                    Err(reject) => {
                        context.metrics.count_reject(reject);
                        self.respond(request, &bank::rejection(reject), context);
                    }
                }
            }
            Route::Statement { account } => return Verdict::Call(Call::Statement { account }),
            Route::Health => self.respond(request, &bank::health(context.problem), context),
            Route::Metrics => {
                let mut body = std::mem::take(&mut context.scratch);
                context.metrics.render(&mut body);
                self.respond(request, &bank::metrics(&body), context);
                context.scratch = body;
            }
        }
        Verdict::Answered
    }

    fn skip_body(&mut self, context: &mut Context) -> Flow {
        let Phase::Skipping { body } = &mut self.phase else { return Flow::Wait };
        let arrived_bytes = self.inbox.unread().len();
        let (skipped_bytes, is_done) = match body {
            Body::Length { remaining_bytes } => {
                let skipped_bytes = arrived_bytes.min(*remaining_bytes);
                *remaining_bytes -= skipped_bytes;
                (skipped_bytes, *remaining_bytes == 0)
            }
            Body::Chunked { decoder, content_bytes: _ } => {
                let Ok(decoded) = decoder.decode(self.inbox.unread_mut(), &context.config.http_limits())
                else {
                    // The request has its answer already. A second one would be taken for the next request's.
                    self.phase = Phase::Flushing { lingers: true };
                    return Flow::Again;
                };
                (decoded.read_bytes, decoded.is_done)
            }
        };
        self.inbox.consume(skipped_bytes);
        if is_done {
            self.become_idle(context);
            return Flow::Again;
        }
        if self.is_peer_closed {
            self.phase = Phase::Flushing { lingers: false };
        }
        Flow::Wait
    }

    /// Writes the answer to a request that was read whole.
    fn respond(&mut self, request: Request, response: &Response<'_>, context: &mut Context) {
        let persistence = if context.is_draining { Persistence::Close } else { request.persistence };
        let endpoint = Endpoint::from(request.route);
        self.write(endpoint, response, persistence, request.is_head_only, context);
        context.metrics.record_duration(endpoint, context.now.monotonic_us - request.started_us);
        match persistence {
            // Pipelined requests get no answer: linger, so that they cause no reset. While the server drains, a client may
            // have sent one more.
            Persistence::Close => {
                let lingers = !self.inbox.unread().is_empty() || context.is_draining;
                self.phase = Phase::Flushing { lingers };
                self.phase_deadline_us = context.now.after_ms(context.config.send_timeout_ms);
            }
            Persistence::KeepAlive | Persistence::KeepAliveSaid => self.become_idle(context),
        }
    }

    /// Answers what is no valid request, and ends the connection.
    fn refuse(&mut self, violation: Violation, context: &mut Context) {
        context.metrics.count_violation(violation);
        let is_head_only = self.is_head_only();
        let mut body = std::mem::take(&mut context.scratch);
        let response = bank::violation(violation, &mut body);
        self.write(Endpoint::Other, &response, Persistence::Close, is_head_only, context);
        context.scratch = body;
        self.phase = Phase::Flushing { lingers: true };
        self.phase_deadline_us = context.now.after_ms(context.config.send_timeout_ms);
    }

    /// Whether the request that is being read is a HEAD, as far as its method is here: no answer to it has content, whatever
    /// its status (RFC 9110, section 9.3.2).
    fn is_head_only(&self) -> bool {
        match &self.phase {
            Phase::Idle | Phase::Head => self.inbox.unread().starts_with(b"HEAD "),
            Phase::Body { request, body: _ } | Phase::Awaiting { request } => request.is_head_only,
            // Its answer is written already.
            Phase::Skipping { .. } | Phase::Flushing { .. } | Phase::Lingering { .. } | Phase::Closed => {
                false
            }
        }
    }

    fn write(
        &mut self,
        endpoint: Endpoint,
        response: &Response<'_>,
        persistence: Persistence,
        is_head_only: bool,
        context: &mut Context,
    ) {
        response::write_response(self.outbox.writer(), response, persistence, is_head_only, &context.date);
        context.metrics.count_response(endpoint, response.status);
    }

    fn become_idle(&mut self, context: &Context) {
        let config = &context.config;
        self.phase = Phase::Idle;
        self.phase_deadline_us = context.now.after_ms(config.idle_timeout_ms);
        if context.is_draining {
            self.drain(context.now.after_ms(config.drain_idle_ms));
        }
        self.inbox.shrink();
    }
}

enum Verdict {
    Call(Call),
    Answered,
}

impl Body {
    fn new(framing: Framing) -> Body {
        match framing {
            Framing::Length { len_bytes } => Body::Length { remaining_bytes: len_bytes },
            Framing::Chunked => Body::Chunked { decoder: ChunkedDecoder::default(), content_bytes: 0 },
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Body::Length { remaining_bytes } => *remaining_bytes == 0,
            Body::Chunked { .. } => false,
        }
    }
}

impl Pipe for Client {
    fn recv_space(&mut self) -> &mut [u8] {
        match self.phase {
            Phase::Idle
            | Phase::Head
            | Phase::Body { .. }
            | Phase::Awaiting { .. }
            | Phase::Skipping { .. } => self.inbox.space(),
            Phase::Lingering { remaining_bytes } => {
                let droppable_bytes = remaining_bytes.saturating_sub(self.inbox.unread().len());
                let space = self.inbox.space();
                let space_bytes = space.len().min(droppable_bytes);
                &mut space[..space_bytes]
            }
            Phase::Flushing { .. } | Phase::Closed => &mut [],
        }
    }

    fn recv_commit(&mut self, n: usize) {
        self.inbox.commit(n);
    }

    fn send_pending(&self) -> &[u8] {
        self.outbox.pending()
    }

    fn send_advance(&mut self, n: usize) {
        self.outbox.advance(n);
        self.send_due_bytes = self.send_due_bytes.saturating_sub(n);
    }

    /// Requests that are complete are still answered.
    fn peer_closed(&mut self) {
        self.is_peer_closed = true;
        if self.is_lingering() {
            self.phase = Phase::Closed;
        }
    }

    fn lost(&mut self, _error: ErrorKind) {
        self.phase = Phase::Closed;
    }
}

#[cfg(test)]
mod tests;
