//! SHELL: looks names up on a thread of its own, since the system's resolver blocks.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use mio::Waker;

/// A name that was looked up for a lane.
#[derive(Debug)]
pub struct Answer {
    /// The lane that asked.
    pub lane: usize,
    /// Which of its questions this answers; an old one is to be dropped.
    pub attempt: u64,
    /// Its addresses, never empty.
    pub addresses: io::Result<Vec<SocketAddr>>,
}

struct Question {
    lane: usize,
    attempt: u64,
    name: String,
    port: u16,
}

/// The thread's two ends. It ends when this is dropped and its current look-up is over.
#[derive(Debug)]
pub struct Resolver {
    questions: SyncSender<Question>,
    answers: Receiver<Answer>,
}

impl Resolver {
    /// Starts the thread. Each answer wakes the poll behind `waker`. At most `questions_max` wait at once.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(waker: Waker, questions_max: usize) -> io::Result<Resolver> {
        Resolver::over(waker, questions_max, |name, port| (name, port).to_socket_addrs().map(Vec::from_iter))
    }

    /// As [`Resolver::start`], with another way to look a name up.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn over(
        waker: Waker,
        questions_max: usize,
        look_up: impl Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Resolver> {
        let (questions, asked) = sync_channel::<Question>(questions_max);
        // An answer for each question that waits, and for the one in hand: sending never blocks the thread for long.
        let (answer, answers) = sync_channel(questions_max + 1);
        thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            for Question { lane, attempt, name, port } in asked {
                let addresses = look_up(&name, port).and_then(|addresses| match addresses.len() {
                    0 => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
                    _ => Ok(addresses),
                });
                if answer.send(Answer { lane, attempt, addresses }).is_err() || waker.wake().is_err() {
                    return;
                }
            }
        })?;
        Ok(Resolver { questions, answers })
    }

    /// Asks for the addresses of a name. False if too many questions wait: the look-ups before have not come back.
    pub fn ask(&self, lane: usize, attempt: u64, name: &str, port: u16) -> bool {
        self.questions.try_send(Question { lane, attempt, name: name.to_owned(), port }).is_ok()
    }

    /// The next answer that has arrived.
    pub fn poll_answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }
}
