//! CORE, simulation only: an HTTP client that asks, misbehaves where a fault says so, and judges every answer.

use std::collections::VecDeque;

use crate::config::Config;
use crate::sim::answer;
use crate::sim::audit::Audit;
use crate::sim::check::Check;
use crate::sim::fault::Fault;
use crate::sim::network::Backlog;
use crate::sim::postgres::Ledger;
use crate::sim::request::{Expect, Request, Standing};
use crate::sim::scene::Scene;
use crate::sim::socket::{Shared, Socket};

/// One HTTP client and its connection, if it has one.
pub(crate) struct Peer {
    name: usize,
    scene: Scene,
    connection: Option<Connection>,
    /// Reads nothing before this time, in monotonic microseconds.
    reads_again_at_us: u64,
    /// Its requests can be served, so none of them may get 503.
    is_sure: bool,
    /// What it sends at most at a time.
    piece_max_bytes: usize,
    /// The number of the socket that it had last.
    last_socket: u64,
    /// Its answers since they were taken, while the scene keeps a tape.
    answered: Vec<Answered>,
}

/// An answer, for the page of the playground.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// Since the first byte of the request was sent.
    pub(crate) latency_us: u64,
}

/// The state of a peer, for the page of the playground.
pub(crate) struct View<'a> {
    /// What it has asked and awaits, oldest first.
    pub(crate) asked: Vec<&'a Expect>,
    pub(crate) unsent_bytes: usize,
    /// When the first byte of the oldest was sent, in monotonic microseconds.
    pub(crate) since_us: Option<u64>,
    pub(crate) is_shut: bool,
    pub(crate) socket: &'a Shared,
}

struct Connection {
    socket: Shared,
    /// The instance at the other end.
    instance: usize,
    /// Asked and unanswered, oldest first.
    asked: VecDeque<Asked>,
    unsent: VecDeque<u8>,
    /// The place behind the last byte of the request that was answered last, and when its first byte was sent.
    answered: (u64, u64),
    sent_bytes: u64,
    /// Received, and no whole answer yet.
    received: Vec<u8>,
    /// Our half is closed.
    is_shut: bool,
    /// Nothing more will be asked on it.
    is_last: bool,
    /// The server has announced that its answer was the last one.
    is_closing: bool,
    /// The rest of what is unsent is never sent.
    is_stalled: bool,
}

struct Asked {
    request: Request,
    /// Its first byte's place among all that are sent on the connection, and that behind its last one.
    start: u64,
    end: u64,
    floor: usize,
    /// As `floor`, in the ledger of a primary that was replaced and goes on.
    old_floor: usize,
    /// The instance that it was asked of, if that knew the newest timeline.
    knows_primary: Option<u64>,
    lane_closes: u64,
    /// When its first byte was sent, in monotonic microseconds.
    begun_at_us: Option<u64>,
}

/// What a peer needs to know of the rest of the world.
pub(crate) struct Around<'a> {
    pub(crate) audit: &'a mut Audit,
    pub(crate) ledger: &'a Ledger,
    pub(crate) config: &'a Config,
    pub(crate) instances: &'a [Reached],
    /// How many rows of the ledger a primary has that was replaced and goes on.
    pub(crate) old_rows: Option<usize>,
    /// Transactions that are to fail, each with its SQLSTATE.
    pub(crate) failures: &'a mut Vec<(String, &'static str)>,
}

/// What a peer needs to know of an instance.
pub(crate) struct Reached {
    pub(crate) backlog: Backlog,
    /// How often its lanes closed.
    pub(crate) lane_closes: u64,
    pub(crate) number: u64,
    /// One of its lanes has read the newest timeline.
    pub(crate) knows_primary: bool,
}

const PIPELINED_MAX: usize = 16;
/// The method with the space behind it.
const HEAD_LEN_BYTES: u64 = "HEAD ".len() as u64;
const CONFLICTS: [&str; 2] = ["40001", "40P01"];
const STATEMENT_ERRORS: [&str; 4] = ["57014", "53200", "23514", "55P03"];

impl Peer {
    pub(crate) fn new(name: usize, scene: Scene) -> Peer {
        Peer {
            name,
            scene,
            connection: None,
            reads_again_at_us: 0,
            is_sure: false,
            piece_max_bytes: usize::MAX,
            last_socket: 0,
            answered: Vec::new(),
        }
    }

    /// Whether it has no connection, and so waits for nothing.
    pub(crate) fn is_gone(&self) -> bool {
        self.connection.is_none()
    }

    /// How many requests it awaits answers to.
    pub(crate) fn awaited(&self) -> usize {
        self.connection.as_ref().map_or(0, |connection| connection.asked.len())
    }

    /// How it stands, unless it has no connection.
    pub(crate) fn view(&self) -> Option<View<'_>> {
        let connection = self.connection.as_ref()?;
        Some(View {
            asked: connection.asked.iter().map(|asked| &asked.request.expect).collect(),
            unsent_bytes: connection.unsent.len(),
            since_us: connection.asked.front().and_then(|asked| asked.begun_at_us),
            is_shut: connection.is_shut,
            socket: &connection.socket,
        })
    }

    /// The number of the socket that it has or had last; 0 before its first one.
    pub(crate) fn last_socket(&self) -> u64 {
        self.last_socket
    }

    /// Takes its answers since the last time.
    pub(crate) fn take_answered(&mut self) -> Vec<Answered> {
        std::mem::take(&mut self.answered)
    }

    /// Asks this, at most `piece_max_bytes` at a time, on its connection or on a new one to the first instance.
    pub(crate) fn ask_this(&mut self, request: Request, piece_max_bytes: usize, around: &mut Around<'_>) {
        if self.connection.as_ref().is_none_or(|connection| connection.is_last || connection.is_shut) {
            self.connect(0, around);
        }
        self.piece_max_bytes = piece_max_bytes;
        self.ask(request, around);
    }

    /// Whether it could send now: all that it sent before, if it sends in pieces, has been read.
    pub(crate) fn can_send(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            let socket = connection.socket.borrow();
            let may_send = self.piece_max_bytes == usize::MAX || socket.unread_bytes() == 0;
            !connection.unsent.is_empty() && !connection.is_shut && may_send && socket.room_bytes() > 0
        })
    }

    /// Whether there is something for it to read, or the end.
    pub(crate) fn can_receive(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| {
            let socket = connection.socket.borrow();
            socket.pending_bytes() > 0 || socket.is_at_end()
        })
    }

    /// Closes its half.
    pub(crate) fn shut(&mut self) {
        if let Some(connection) = &mut self.connection
            && !connection.is_shut
        {
            self.scene.tell(|| format!("peer {} closes its half", self.name));
            connection.is_shut = true;
            connection.socket.borrow_mut().peer_shut();
        }
    }

    /// Breaks its connection.
    pub(crate) fn reset(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.scene.tell(|| format!("peer {} resets", self.name));
            connection.socket.borrow_mut().peer_reset();
        }
    }

    /// Does something while faults may strike.
    pub(crate) fn act(&mut self, around: &mut Around<'_>) {
        if self.connection.is_none() {
            let instance = self.scene.below(around.instances.len());
            self.connect(instance, around);
        }
        self.receive(around);
        self.leave_early(around);
        self.ask_more(around);
        self.send();
    }

    /// Finishes without any fault: sends the rest of its request, reads its answers, and leaves.
    pub(crate) fn finish(&mut self, around: &mut Around<'_>) -> bool {
        let mut does_something = self.receive(around);
        does_something |= self.send();
        if let Some(connection) = &mut self.connection
            && connection.asked.is_empty()
            && !connection.is_shut
        {
            connection.is_shut = true;
            connection.socket.borrow_mut().peer_shut();
            does_something = true;
        }
        does_something
    }

    /// Connects to an instance, with one valid transaction to ask, and `is_sure` that it can be done.
    pub(crate) fn ask_one(&mut self, instance: usize, is_sure: bool, around: &mut Around<'_>) {
        self.is_sure = is_sure;
        self.connect(instance, around);
        let request = Request::transaction(&self.scene, around.audit);
        self.ask(request, around);
        self.send();
    }

    /// Connects to an instance without a word.
    pub(crate) fn connect(&mut self, instance: usize, around: &Around<'_>) {
        let buffer_bytes =
            if self.scene.strikes(Fault::SmallSendBuffer) { self.scene.between(1, 200) } else { 8_192 };
        let socket = Socket::new(usize::try_from(buffer_bytes).unwrap_or(1), &self.scene);
        self.last_socket = socket.borrow().number;
        around.instances[instance].backlog.borrow_mut().push(socket.clone());
        self.scene.tell(|| format!("peer {} connects to instance {instance}", self.name));
        self.reads_again_at_us = 0;
        self.connection = Some(Connection {
            socket,
            instance,
            asked: VecDeque::new(),
            unsent: VecDeque::new(),
            answered: (0, 0),
            sent_bytes: 0,
            received: Vec::new(),
            is_shut: false,
            is_last: false,
            is_closing: false,
            is_stalled: false,
        });
    }

    fn ask_more(&mut self, around: &mut Around<'_>) {
        let Some(connection) = &self.connection else { return };
        let awaited = connection.asked.len();
        let may_ask = awaited == 0 || (awaited < PIPELINED_MAX && self.scene.strikes(Fault::Pipelining));
        let is_waiting = connection.asked.back().is_some_and(|asked| !asked.request.withheld.is_empty());
        if !may_ask || is_waiting || connection.is_last || connection.is_shut || connection.is_stalled {
            return;
        }
        let request = Request::make(&self.scene, around.audit);
        self.ask(request, around);
    }

    fn ask(&mut self, mut request: Request, around: &mut Around<'_>) {
        let Some(connection) = &mut self.connection else { return };
        let floor = match request.expect {
            Expect::Transaction { account, .. } => around.audit.len(account),
            Expect::Statement { account } => {
                around.audit.statement_floor(account, around.config, self.scene.now())
            }
            Expect::Health | Expect::UnknownAccount | Expect::Refusal { .. } | Expect::Violation { .. } => 0,
        };
        let old_floor = match (&request.expect, around.old_rows) {
            (Expect::Transaction { account, .. } | Expect::Statement { account }, Some(rows)) => {
                floor.min(around.audit.len_within(*account, rows))
            }
            (_, _) => floor,
        };
        if let Expect::Transaction { tag, .. } = request.expect {
            let codes = match (self.scene.strikes(Fault::Conflict), self.scene.strikes(Fault::StatementError))
            {
                (true, _) => &CONFLICTS[..],
                (false, true) => &STATEMENT_ERRORS[..],
                (false, false) => &[],
            };
            for _ in 0..self.scene.below(codes.len() + 1) {
                around.failures.push((format!("t{tag}"), self.scene.one_of(codes)));
            }
        }
        let (name, text) = (self.name, &request.bytes);
        self.scene.tell(|| format!("peer {name} asks {:?}", String::from_utf8_lossy(text)));
        let start = connection.sent_bytes + connection.unsent.len() as u64;
        connection.unsent.extend(std::mem::take(&mut request.bytes));
        connection.is_last = request.is_last;
        let end = connection.sent_bytes + connection.unsent.len() as u64 + request.withheld.len() as u64;
        let Reached { lane_closes, number, knows_primary, .. } = around.instances[connection.instance];
        connection.asked.push_back(Asked {
            request,
            start,
            end,
            floor,
            old_floor,
            knows_primary: knows_primary.then_some(number),
            lane_closes,
            begun_at_us: None,
        });
    }

    pub(crate) fn send(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let room_bytes = connection.socket.borrow().room_bytes();
        if connection.is_stalled || connection.is_shut || room_bytes == 0 {
            return false;
        }
        let has_withheld = connection.asked.back().is_some_and(|asked| !asked.request.withheld.is_empty());
        if connection.unsent.is_empty() && has_withheld && (self.scene.is_calm() || self.scene.happens(50)) {
            connection.send_withheld();
        }
        if connection.unsent.is_empty() {
            return false;
        }
        let whole = connection.unsent.len();
        let piece = if self.scene.strikes(Fault::SplitRequest) { 1 + self.scene.below(whole) } else { whole };
        let piece = piece.min(room_bytes).min(self.piece_max_bytes);
        connection.socket.borrow_mut().peer_send(connection.unsent.drain(..piece));
        connection.sent_bytes += piece as u64;
        let (sent_bytes, now_us) = (connection.sent_bytes, self.scene.now().monotonic_us);
        for asked in &mut connection.asked {
            if asked.start < sent_bytes {
                asked.begun_at_us.get_or_insert(now_us);
            }
        }
        let is_amid =
            connection.asked.back().is_some_and(|asked| asked.start < sent_bytes && sent_bytes < asked.end);
        if is_amid && self.scene.strikes(Fault::Stall) {
            connection.is_stalled = true;
            self.scene.tell(|| format!("peer {} stalls", self.name));
        }
        true
    }

    /// Closes its half, or breaks the connection.
    fn leave_early(&mut self, around: &mut Around<'_>) {
        let Some(connection) = &mut self.connection else { return };
        let is_amid = !connection.unsent.is_empty();
        let awaits = !is_amid && !connection.asked.is_empty();
        let is_reset = (awaits || self.scene.happens(200)) && self.scene.strikes(Fault::Reset);
        if is_reset {
            let instance = connection.instance;
            self.reset();
            if self.scene.strikes(Fault::SlotReuse) {
                self.connect(instance, around);
            }
            return;
        }
        let fault = if is_amid { Fault::EarlyHalfClose } else { Fault::HalfClose };
        if !connection.is_shut && self.scene.strikes(fault) {
            self.shut();
        }
    }

    /// Takes what has arrived and judges the answers in it. Whether there was any.
    pub(crate) fn receive(&mut self, around: &mut Around<'_>) -> bool {
        let now_us = self.scene.now().monotonic_us;
        let Some(connection) = &mut self.connection else { return false };
        if !self.scene.is_calm() {
            if now_us < self.reads_again_at_us {
                return false;
            }
            if self.scene.strikes(Fault::SlowReader) {
                self.reads_again_at_us = now_us + self.scene.between(1_000, 300_000);
                return false;
            }
        }
        let pending_bytes = connection.socket.borrow().pending_bytes();
        let max = if pending_bytes > 0 && self.scene.strikes(Fault::SplitRequest) {
            1 + self.scene.below(pending_bytes)
        } else {
            pending_bytes
        };
        let taken = connection.socket.borrow_mut().peer_take(max, &mut connection.received);
        while self.judge_next(around) {}
        let Some(connection) = &mut self.connection else { return true };
        if connection.socket.borrow().is_at_end() {
            self.judge_end(around);
            return true;
        }
        taken > 0
    }

    /// Judges the next whole answer, if there is one.
    fn judge_next(&mut self, around: &mut Around<'_>) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let Some(asked) = connection.asked.front() else {
            if !connection.received.is_empty() {
                self.scene
                    .violate(Check::Unasked, format!("peer {}: bytes that nobody asked for", self.name));
            }
            return false;
        };
        // The last answer may be to a request whose method the server could not read. It reads nothing before that is sent.
        let is_method_read =
            connection.socket.borrow().read_before_write_bytes() >= asked.start + HEAD_LEN_BYTES;
        let is_head_only = asked.request.is_head_only && is_method_read;
        let answer = match answer::parse(&connection.received, is_head_only) {
            Ok(Some(answer)) => answer,
            Ok(None) => return false,
            Err(problem) => {
                self.scene.violate(Check::Fields, format!("peer {}: {problem}", self.name));
                return false;
            }
        };
        let len_bytes = answer.len_bytes;
        self.scene.tell(|| format!("peer {} is answered {} {}", self.name, answer.status, answer.body));
        if answer.status == 100 {
            if !asked.request.expects_continue {
                self.scene.violate(
                    Check::Continue,
                    format!("peer {}: 100 Continue that nobody waits for", self.name),
                );
            }
            connection.received.drain(..len_bytes);
            connection.send_withheld();
            return true;
        }
        let now_us = self.scene.now().monotonic_us;
        let timeout_ms = around.config.head_timeout_ms.min(around.config.body_timeout_ms);
        let lane_closes = around.instances[connection.instance].lane_closes.saturating_sub(asked.lane_closes);
        // An instance that knew of no newer primary, or was started since, may have read from the old one.
        let is_fenced = asked.knows_primary == Some(around.instances[connection.instance].number);
        let read_floor = if is_fenced { asked.floor } else { asked.old_floor };
        let standing = Standing {
            floor: asked.floor,
            read_floor,
            unseen_attempts: usize::try_from(lane_closes).unwrap_or(usize::MAX),
            is_draining: connection.socket.borrow().is_draining(),
            is_late: asked.begun_at_us.is_some_and(|at_us| now_us - at_us >= timeout_ms * 1_000),
            is_cut: connection.is_shut && connection.sent_bytes < asked.end,
            config: around.config,
            ledger: around.ledger,
        };
        if asked.begun_at_us.is_none() {
            self.scene.violate(Check::Unasked, format!("peer {}: an answer to nothing", self.name));
        }
        if let Err(problem) = asked.request.check(&answer, &standing, around.audit) {
            let (status, body) = (answer.status, answer.body);
            self.scene.violate(
                problem.check,
                format!(
                    "peer {}: {:?} was answered {status} {body:?}: {}",
                    self.name, asked.request.expect, problem.text
                ),
            );
        }
        if self.is_sure && answer.status == 503 && !answer.body.contains("too many") {
            self.scene.violate(
                Check::Available,
                format!("peer {}: unavailable, though nothing is wrong", self.name),
            );
        }
        if self.scene.keeps_tape() {
            let latency_us = asked.begun_at_us.map_or(0, |at_us| now_us - at_us);
            self.answered.push(Answered { status: answer.status, body: answer.body.to_owned(), latency_us });
        }
        connection.is_closing |= answer.connection == Some("close");
        connection.received.drain(..len_bytes);
        if let Some(asked) = connection.asked.pop_front() {
            connection.answered = (asked.end, asked.begun_at_us.unwrap_or(0));
        }
        if connection.is_closing {
            // What else was asked is not served.
            connection.is_last = true;
            connection.asked.clear();
            connection.unsent.clear();
        }
        true
    }

    /// The connection has ended: that is right only if every request on it was answered, or for a good reason.
    fn judge_end(&mut self, around: &Around<'_>) {
        let Some(connection) = self.connection.take() else { return };
        self.scene.tell(|| format!("peer {} reads the end", self.name));
        connection.socket.borrow_mut().peer_shut();
        let socket = connection.socket.borrow();
        let config = around.config;
        let over = |us: u64, ms: u64| us >= ms * 1_000;
        let was_slow = over(socket.blocked_us(&self.scene), config.send_timeout_ms)
            || socket.shut_us(&self.scene).is_some_and(|us| over(us, config.linger_timeout_ms));
        let is_excused = connection.is_closing || socket.is_killed() || was_slow;
        if is_excused {
            return;
        }
        // The server may also have waited in vain for the rest of a request that it answered from its head alone.
        let (answered_to, answered_from_us) = connection.answered;
        let content_until_us = if socket.read_bytes() < answered_to {
            answered_from_us + config.body_timeout_ms * 1_000
        } else {
            u64::MAX
        };
        let idle_until_us = socket.may_be_idle_until_us(config).min(content_until_us);
        let was_idle = self.scene.now().monotonic_us >= idle_until_us;
        let came_in_time = |asked: &Asked| asked.begun_at_us.is_some_and(|at_us| at_us < idle_until_us);
        if socket.has_lost_answers() && !was_idle {
            self.scene
                .violate(Check::ResetOvertakes, format!("peer {}: a reset overtook an answer", self.name));
        } else if !connection.received.is_empty() && !socket.has_lost_answers() {
            self.scene
                .violate(Check::AnswerWhole, format!("peer {}: an answer ends in the middle", self.name));
        }
        if connection.asked.iter().any(came_in_time) && !socket.has_lost_answers() {
            self.scene.violate(
                Check::Answered,
                format!("peer {}: closed on a request that came in time", self.name),
            );
        }
        if socket.has_left_bytes() && !connection.asked.is_empty() {
            self.scene
                .violate(Check::ReadAll, format!("peer {}: closed on bytes that were never read", self.name));
        }
        // One of which the server has read nothing came too late, to an idle connection.
        if let Some(asked) = connection.asked.iter().find(|asked| socket.read_bytes() > asked.start)
            && !socket.has_lost_answers()
        {
            self.scene.violate(
                Check::Answered,
                format!("peer {}: closed without an answer to {:?}", self.name, asked.request.expect),
            );
        }
    }
}

impl Connection {
    fn send_withheld(&mut self) {
        if let Some(asked) = self.asked.back_mut() {
            self.unsent.extend(std::mem::take(&mut asked.request.withheld));
        }
    }
}
