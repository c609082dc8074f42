//! The system calls of single requests, told one by one: what `cargo stress trace` does, without its command line.

use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use crate::http::Connection;
use crate::wait;
use crate::{Error, Solo, SoloOptions, Workplace, files, install};

pub mod strace;

mod annotate;
pub use annotate::{Socket, Stage, Step};

mod messages;

/// One request, from the wait that it ended to the answer that left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    pub title: &'static str,
    pub steps: Vec<Step>,
}

/// Starts PostgreSQL and one instance, asks it on one connection until nothing is new any more, then asks once for a
/// transaction and once for a statement, and tells the system calls of these two.
pub fn take(server: &Path, place: &Workplace) -> Result<Vec<Story>, Error> {
    let strace = install::STRACE.require()?.program;
    if let Some(obstacle) = strace::obstacle(&strace)? {
        return Err(Error::Refused(format!(
            "nobody may trace here ({obstacle}); in a container that takes --cap-add SYS_PTRACE"
        )));
    }
    let calls = place.logs.join("calls");
    let script = place.logs.join("traced");
    let server = files::absolute(server)?;
    let traced = strace::stand_in(&script, &strace, &server, &calls, BYTES_MAX)?;
    let solo = Solo::start(SoloOptions::new(&traced, place))?;
    let server_thread = solo.instance.pid();
    place.steps.run("requests", "answered", || {
        let address = solo.address()?.to_string();
        let mut connection = Connection::connect(&address, ANSWER_PATIENCE)
            .map_err(Error::io(format!("connect to {address}")))?;
        for _ in 0..WARM_UP_REQUESTS {
            ask(&mut connection, &transaction(WARM_UP_DESCRIPTION))?;
            ask(&mut connection, STATEMENT)?;
        }
        ask(&mut connection, &transaction(DESCRIPTION))?;
        ask(&mut connection, STATEMENT)?;
        // A client may have its answer before the call that sent it returns. By the next answer it has.
        ask(&mut connection, STATEMENT)
    })?;
    // The trace is whole when strace has seen the server's end.
    drop(solo);
    let text = wait::until(TRACE_PATIENCE, &place.interrupt, || {
        let text = files::read(&calls)?;
        Ok(text.ends_with(strace::END).then_some(text))
    })?;
    let text = text.ok_or_else(|| Error::Refused(format!("strace did not finish {}", calls.display())))?;
    tell(&text, server_thread)
        .ok_or_else(|| Error::Refused("the trace lacks the requests: it is another strace's".to_owned()))
}

fn tell(trace: &str, thread: u32) -> Option<Vec<Story>> {
    let calls: Vec<strace::Call<'_>> =
        trace.lines().filter_map(strace::Call::parse).filter(|call| call.thread == thread).collect();
    let read_from = |first: usize, text: &str| {
        let mut calls = calls.iter().enumerate().skip(first);
        calls.find(|(_, call)| call.is_read() && call.arguments.contains(text)).map(|(position, _)| position)
    };
    let asked = read_from(0, DESCRIPTION)?;
    let asked_again = read_from(asked, "GET /clientes/1/extrato ")?;
    let story = |title, asked| Some(Story { title, steps: annotate::request(&calls, asked)? });
    Some(vec![story("A transaction: a credit of 10 cents", asked)?, story("A statement", asked_again)?])
}

fn ask(connection: &mut Connection, request: &str) -> Result<(), Error> {
    let answer = connection.ask(request.as_bytes()).map_err(Error::io("ask the traced server"))?;
    if answer.status == 200 {
        return Ok(());
    }
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    Err(Error::Refused(format!("the traced server answered {} {body}", answer.status)))
}

fn transaction(description: &str) -> String {
    let body = format!(r#"{{"valor": 10, "tipo": "c", "descricao": "{description}"}}"#);
    format!(
        "POST /clientes/1/transacoes HTTP/1.1\r\nHost: bank\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

impl Display for Story {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title)?;
        writeln!(f, "     µs  stage    system call")?;
        let begin_us = self.steps.first().and_then(|step| step.at_us).unwrap_or(0);
        for step in &self.steps {
            let at = step.at_us.map_or_else(String::new, |at_us| (at_us - begin_us).to_string());
            writeln!(f, "\n{at:>7}  {:<7}  {}", step.stage, step.call)?;
            for line in &step.bytes {
                writeln!(f, "                  | {line}")?;
            }
            for line in step.why.lines() {
                writeln!(f, "                  {line}")?;
            }
        }
        Ok(())
    }
}

const STATEMENT: &str = "GET /clientes/1/extrato HTTP/1.1\r\nHost: bank\r\n\r\n";
const DESCRIPTION: &str = "told";
const WARM_UP_DESCRIPTION: &str = "before";
/// Enough for buffers to have their size, and for a full statement.
const WARM_UP_REQUESTS: usize = 20;
/// Longer than any message of these two requests.
const BYTES_MAX: usize = 65_536;
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
const TRACE_PATIENCE: Duration = Duration::from_secs(30);
