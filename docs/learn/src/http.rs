//! The exercises of HTTP: step 7, and what the steps after it must not lose.

use crate::arena::{Arena, Verdict};
use crate::echo;
use crate::peer::Peer;

/// What a client was told.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Peer {
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &str) -> Verdict {
        let len = body.len();
        self.send(
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len}\r\n\r\n{body}")
                .as_bytes(),
        )
    }

    /// Reads one response, and nothing of the next one.
    pub(crate) fn answer(&mut self) -> Verdict<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() > 8 * 1024 {
                return Err("the head of the response has no end".into());
            }
            let what = if head.is_empty() { "no response" } else { "half a response" };
            head.extend(self.receive(1).map_err(|error| format!("{what}: {error}"))?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let not_http = || format!("this is no HTTP response: {head:?}");
        let status =
            head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|text| text.parse().ok());
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let (Some(status), Some(length)) = (status, length) else { return Err(not_http()) };
        let body = String::from_utf8_lossy(&self.receive(length)?).into_owned();
        Ok(Answer { status, body })
    }

    pub(crate) fn expect(&mut self, status: u16, what: &str) -> Verdict<Answer> {
        let answer = self.answer().map_err(|error| format!("{what}: {error}."))?;
        if answer.status == status {
            return Ok(answer);
        }
        Err(format!("{what}: expected {status}, got {} {}", answer.status, answer.body))
    }
}

fn expect_echo(peer: &mut Peer, body: &str, what: &str) -> Verdict {
    let answer = peer.expect(200, what)?;
    if answer.body == body {
        return Ok(());
    }
    let begin =
        |text: &str| format!("{:?} ({} bytes)", text.chars().take(20).collect::<String>(), text.len());
    Err(format!("{what}: expected the body {}, got {}", begin(body), begin(&answer.body)))
}

pub(crate) fn one_request(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    peer.ask("POST", "/echo", "one")?;
    expect_echo(&mut peer, "one", "POST /echo")?;
    peer.ask("GET", "/", "")?;
    expect_echo(&mut peer, "hello", "GET / on the same connection")?;
    peer.ask("GET", "/nowhere", "")?;
    peer.expect(404, "GET /nowhere").map(drop)
}

pub(crate) fn byte_by_byte(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    for byte in b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc" {
        peer.send(&[*byte])?;
    }
    expect_echo(&mut peer, "abc", "A request that arrives byte by byte")?;
    peer.send(b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nab")?;
    program.wait_quiet()?;
    if !peer.is_empty_now() {
        return Err(
            "A request whose body has not arrived whole was answered. Content-Length says where it ends."
                .into(),
        );
    }
    peer.send(b"cde")?;
    expect_echo(&mut peer, "abcde", "A body in two pieces")
}

pub(crate) fn two_in_one(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    let one = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n";
    peer.send(format!("{one}1{one}2{one}3").as_bytes())?;
    for body in ["1", "2", "3"] {
        let what = "Three requests arrived together. What is behind a request is the next one, and no event tells of it";
        expect_echo(&mut peer, body, what)?;
    }
    Ok(())
}

pub(crate) fn slow_reader(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let peer = program.connect()?;
    let mut reader = peer.twin()?;
    let count = 5_000;
    let body = "x".repeat(8_000);
    let mut writer = peer;
    let sent = body.clone();
    let sender = std::thread::spawn(move || {
        for _ in 0..count {
            writer.ask_patiently("POST", "/echo", &sent)?;
        }
        Ok(())
    });
    program.wait_quiet()?;
    for number in 0..count {
        expect_echo(&mut reader, &body, &format!("Request {number} of {count} of a client that reads late"))?;
    }
    sender.join().unwrap_or_else(|_| Err("the sender panicked".into()))
}

pub(crate) fn half_closed(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    peer.ask("POST", "/echo", "last")?;
    peer.end_sending()?;
    expect_echo(&mut peer, "last", "A client sent a request and ended its sending half")?;
    if peer.is_closed() {
        Ok(())
    } else {
        Err("It has its answer and has ended; it is still connected.".into())
    }
}

/// Sends what is no request, and expects a status and then the end of the connection.
fn refused(arena: &Arena, bytes: &[u8], status: u16, what: &str) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    peer.send(bytes)?;
    peer.expect(status, what)?;
    // It may still send; that must not destroy the answer.
    let _ = peer.send(b"more");
    peer.ends().map_err(|end| {
        format!(
            "{what}: {end} after the answer. Where the next request begins is not known, so it has to end; and not by a reset, which \
             may overtake the answer."
        )
    })
}

pub(crate) fn malformed(arena: &Arena) -> Verdict {
    refused(arena, b"HELLO\r\n\r\n", 400, "\"HELLO\" is no request")?;
    let twice = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd";
    refused(arena, twice, 400, "A request with two lengths")?;
    let signed = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: +3\r\n\r\nabc";
    refused(arena, signed, 400, "A length of +3")?;
    let chunked = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    refused(arena, chunked, 501, "A transfer coding that is not known")
}

pub(crate) fn too_long(arena: &Arena) -> Verdict {
    let head = [b"GET / HTTP/1.1\r\nHost: test\r\nX: ".to_vec(), vec![b'x'; 12 * 1024]].concat();
    refused(arena, &head, 431, "A head of 12 KiB that goes on (the limit is 8 KiB)")?;
    let body = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n";
    refused(arena, body, 413, "A body that is announced with 1,000,000 bytes (the limit is 16 KiB)")
}

pub(crate) fn idle_clients_leave(arena: &Arena) -> Verdict {
    echo::idle_clients_leave_while(arena, |busy| {
        busy.ask("GET", "/", "")?;
        busy.answer().map(drop)
    })
}

pub(crate) fn sleeps(arena: &Arena) -> Verdict {
    let program = arena.start()?;
    let mut peer = program.connect()?;
    peer.ask("GET", "/", "")?;
    peer.answer()?;
    let _half = program.connect()?.send(b"GET / HT");
    program.wait_quiet()
}
