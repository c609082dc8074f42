//! Tells for each system call of one request which stage of the turn makes it, on which socket, with what, and why.

use std::collections::HashMap;

use super::messages::{self, Side};
use super::strace::Call;

/// The stages of a turn of the server's loop, in their order, called as in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Stage {
    Wait,
    Receive,
    Advance,
    Send,
    Reap,
}

impl Stage {
    /// `None` for a call that may belong to any of them.
    fn of(call: &Call<'_>) -> Option<Stage> {
        match call.name {
            "epoll_wait" | "epoll_pwait" => Some(Stage::Wait),
            "accept4" => Some(Stage::Receive),
            "close" | "shutdown" => Some(Stage::Reap),
            _ if call.is_read() => Some(Stage::Receive),
            _ if call.is_write() => Some(Stage::Send),
            _ => None,
        }
    }
}

/// What a descriptor of the traced server is. It has one listener for TCP, clients over TCP, and its database behind a
/// Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Socket {
    Listener,
    Client,
    #[strum(serialize = "PostgreSQL")]
    Database,
    #[strum(serialize = "something else")]
    Other,
}

impl Socket {
    /// Format: the manual page strace(1), option `-yy`: `9<TCP:[127.0.0.1:8081->127.0.0.1:50000]>`.
    fn of(descriptor: &str) -> Socket {
        let is_tcp = descriptor.contains("<TCP:[") || descriptor.contains("<TCPv6:[");
        match (is_tcp, descriptor.contains("->")) {
            (true, true) => Socket::Client,
            (true, false) => Socket::Listener,
            (false, _) if descriptor.contains("<UNIX-STREAM:") => Socket::Database,
            (false, _) => Socket::Other,
        }
    }
}

/// One system call, or the one stage without any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When it began, in microseconds since 1970-01-01 00:00 UTC; not known of what makes no system call.
    pub at_us: Option<u64>,
    pub stage: Stage,
    pub call: String,
    pub bytes: Vec<String>,
    pub why: &'static str,
}

/// The steps of one request, whose bytes the server reads with the call at `asked`: from the wait before it up to the
/// next bytes for a client. `None` if the calls do not go that far.
pub(super) fn request(calls: &[Call<'_>], asked: usize) -> Option<Vec<Step>> {
    let is_wait = |call: &Call<'_>| Stage::of(call) == Some(Stage::Wait);
    let is_answer = |call: &Call<'_>| call.is_write() && Socket::of(call.descriptor()) == Socket::Client;
    let first = calls[..asked].iter().rposition(is_wait)?;
    let last = asked + calls[asked..].iter().position(is_answer)?;
    let watched = watched(&calls[..first]);

    let mut steps = Vec::new();
    let mut stage = Stage::Wait;
    let mut received_from = None;
    for call in &calls[first..=last] {
        stage = Stage::of(call).unwrap_or(stage);
        if stage != Stage::Receive
            && let Some(received) = received_from.take()
        {
            steps.push(advance(received));
        }
        if call.is_read() {
            received_from = Some(call);
        }
        steps.push(step(call, stage, &watched));
    }
    Some(steps)
}

/// What each number that `epoll` gives back stands for, from the calls that told it.
fn watched<'a>(calls: &[Call<'a>]) -> HashMap<&'a str, Socket> {
    let told = calls.iter().filter(|call| call.name == "epoll_ctl");
    told.filter_map(|call| {
        let descriptor = call.arguments.split(", ").nth(2)?;
        Some((event_data(call.arguments).next()?, Socket::of(descriptor)))
    })
    .collect()
}

/// The number of each event, as it is written: `{events=EPOLLIN, data={u32=0, u64=4294967296}}`.
fn event_data(arguments: &str) -> impl Iterator<Item = &str> {
    arguments.split("data=").skip(1).filter_map(|rest| rest.split('}').next())
}

fn step(call: &Call<'_>, stage: Stage, watched: &HashMap<&str, Socket>) -> Step {
    let socket = Socket::of(call.descriptor());
    if stage == Stage::Wait {
        let ready = event_data(call.arguments)
            .map(|data| watched.get(data).copied().unwrap_or(Socket::Other).to_string());
        let ready = ready.collect::<Vec<_>>().join(", ");
        let (ready, why) = if ready.is_empty() { ("a deadline", DEADLINE) } else { (ready.as_str(), READY) };
        let call_shown = format!("{} = {}: {ready}", call.name, call.result);
        return Step { at_us: Some(call.at_us), stage, call: call_shown, bytes: Vec::new(), why };
    }
    let bytes = call.bytes().unwrap_or_default();
    let (bytes, why) = match (stage, socket) {
        (Stage::Receive, Socket::Client) if call.is_read() => (vec![messages::http(&bytes)], READ),
        (Stage::Receive, Socket::Database) => (messages::postgresql(&bytes, Side::Backend), READ_DATABASE),
        (Stage::Receive, Socket::Listener) => (Vec::new(), "Lets a new client in."),
        (Stage::Send, Socket::Database) => (messages::postgresql(&bytes, Side::Frontend), WRITE_DATABASE),
        (Stage::Send, Socket::Client) => (vec![messages::http(&bytes)], WRITE),
        (Stage::Wait | Stage::Receive | Stage::Advance | Stage::Send | Stage::Reap, _) => (Vec::new(), ASIDE),
    };
    let call_shown = format!("{}({}) = {}", call.name, socket, call.result);
    Step { at_us: Some(call.at_us), stage, call: call_shown, bytes, why }
}

/// The stage without a system call, told by the bytes that it works on: those of the last read before it.
fn advance(received: &Call<'_>) -> Step {
    let why = match Socket::of(received.descriptor()) {
        Socket::Client if received.bytes().is_some_and(|it| it.starts_with(b"POST ")) => ADVANCE_TRANSACTION,
        Socket::Client => ADVANCE_STATEMENT,
        Socket::Database => ADVANCE_ANSWER,
        Socket::Listener | Socket::Other => ASIDE,
    };
    Step { at_us: None, stage: Stage::Advance, call: "none".to_owned(), bytes: Vec::new(), why }
}

const READY: &str =
    "Sleeps until a socket is ready. The event only sets a flag; the work comes in the next stages.";
const DEADLINE: &str =
    "Sleeps until a deadline: a look at the clients' own deadlines, or the probe of an idle lane.";
const READ: &str =
    "The request. It is less than there is room for, so the socket is empty: no read to hear EAGAIN.";
const READ_DATABASE: &str = "Every message of the batch's answer. Again no second read.";
const WRITE_DATABASE: &str =
    "The whole batch in one write. Nothing is committed yet, so the client has no answer yet.";
const WRITE: &str = "The answer in one write, tried at once: no event has to allow it.";
const ADVANCE_TRANSACTION: &str = "Reads the head (head::parse_head), finds the route (bank::route), and reads the JSON of a transaction.\n\
     The engine gives the lane what waits as one batch, which Outbox::encode_call writes down.";
const ADVANCE_STATEMENT: &str = "Reads the head (head::parse_head) and finds the route (bank::route): all is in the path, there is no body.\n\
     The engine gives the lane what waits as one batch, which Outbox::encode_call writes down.";
const ADVANCE_ANSWER: &str = "Decodes the messages and holds the row until ReadyForQuery says that it is committed (Lane::poll_event).\n\
     Only then response::write_response writes the answer.";
const ASIDE: &str = "Not part of a request's way.";

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction on a connection that has been used before, with the calls that tell `epoll` what to watch.
    const CALLS: &str = include_str!("calls.txt");

    fn steps_of(text: &str, asked: &str) -> Vec<Step> {
        let calls: Vec<Call<'_>> = text.lines().filter_map(Call::parse).collect();
        let asked = calls.iter().position(|call| call.is_read() && call.arguments.contains(asked)).unwrap();
        request(&calls, asked).unwrap()
    }

    #[test]
    fn tells_a_transaction() {
        let steps = steps_of(CALLS, "POST /clientes/1/transacoes");
        let shown = |step: &Step| format!("{} {}", step.stage, step.call.split(" = ").next().unwrap());
        let told = steps.iter().map(shown).collect::<Vec<_>>().join(", ");
        let expected = "wait epoll_wait, receive recvfrom(client), advance none, send sendto(PostgreSQL), \
                        wait epoll_wait, receive recvfrom(PostgreSQL), advance none, send sendto(client)";
        assert_eq!(told, expected);
        assert_eq!(steps[0].call, "epoll_wait = 1: client");
        assert_eq!(steps[4].call, "epoll_wait = 1: PostgreSQL");
        assert_eq!(steps[3].bytes[1..], ["Execute", "Sync"]);
        let bind = &steps[3].bytes[0];
        assert!(bind.starts_with("Bind of statement \"t\" to (1, 10, 'c', 'told')"), "{bind}");
        let answer = &steps[7].bytes[0];
        assert!(answer.starts_with("HTTP/1.1 200 OK  +  {\"limite\":100000"), "{answer}");
    }

    #[test]
    fn only_a_transaction_has_json_to_read() {
        let statement = CALLS.replace("POST /clientes/1/transacoes", "GET /clientes/1/extrato");
        for (calls, asked, why) in [
            (CALLS, "POST /clientes/1/transacoes", ADVANCE_TRANSACTION),
            (&statement, "GET /clientes/1/extrato", ADVANCE_STATEMENT),
        ] {
            let steps = steps_of(calls, asked);
            assert_eq!(steps.iter().find(|step| step.stage == Stage::Advance).unwrap().why, why);
        }
    }

    #[test]
    fn a_deadline_in_between_is_told_and_is_no_work() {
        let deadline = "7 1.000500 epoll_wait(5<anon_inode:[eventpoll]>, [], 1024, 98) = 0";
        let mut lines: Vec<&str> = CALLS.lines().collect();
        let answer = lines.iter().rposition(|line| line.contains("epoll_wait")).unwrap();
        lines.insert(answer, deadline);
        let steps = steps_of(&lines.join("\n"), "POST /clientes/1/transacoes");
        assert_eq!(steps.len(), 9);
        assert_eq!((steps[4].call.as_str(), steps[4].why), ("epoll_wait = 0: a deadline", DEADLINE));
    }

    #[test]
    fn a_request_without_its_answer_is_none() {
        let calls: Vec<Call<'_>> = CALLS.lines().filter_map(Call::parse).collect();
        let asked = calls.iter().position(|call| call.arguments.contains("POST /clientes")).unwrap();
        assert_eq!((request(&calls[..=asked], asked), request(&calls[asked..], 0)), (None, None));
    }

    #[test]
    fn knows_sockets_by_their_ends() {
        for (descriptor, socket) in [
            ("9<TCP:[127.0.0.1:8081->127.0.0.1:50000]>", Socket::Client),
            ("8<TCPv6:[[::1]:8081]>", Socket::Listener),
            ("10<UNIX-STREAM:[1->2]>", Socket::Database),
            ("3<anon_inode:[eventpoll]>", Socket::Other),
        ] {
            assert_eq!(Socket::of(descriptor), socket);
        }
    }
}
