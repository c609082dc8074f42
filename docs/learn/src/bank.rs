//! A PostgreSQL with the bank in it, and a proxy before it that sees, holds and cuts what a program says to it.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use stress::postgres::Client;
use stress::throwaway::Throwaway;
use stress::{Postgres, PostgresOptions};

use crate::arena::{Running, Verdict};

/// A private PostgreSQL, gone when it is dropped. Its database is `bank`, its user `rinha`.
pub struct Bank {
    postgres: Postgres,
}

impl Bank {
    /// # Errors
    /// There is no PostgreSQL, or it does not start; the message says what to do.
    pub fn start(root: &Path) -> Result<Bank, String> {
        let started = Postgres::start(&PostgresOptions::default()).and_then(|postgres| {
            postgres.create_bank("bank", &root.join("sql"))?;
            Ok(Bank { postgres })
        });
        started.map_err(|error| format!("this step needs PostgreSQL: {error}"))
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        let url = self.postgres.url("bank");
        let directory = url.split_once("?host=").map(|(_, directory)| directory).unwrap_or_default();
        Path::new(directory).join(".s.PGSQL.5432")
    }

    pub(crate) fn client(&self) -> Verdict<Client> {
        self.postgres.connect("bank").map_err(|error| error.to_string())
    }

    /// As it was at the start.
    pub(crate) fn reset(&self) -> Verdict {
        self.run(
            "DROP TRIGGER IF EXISTS refuse ON transacoes; TRUNCATE transacoes; UPDATE clientes SET saldo = 0",
        )
    }

    /// From now on a transaction of 666 raises an error.
    pub(crate) fn refuse_666(&self) -> Verdict {
        self.run(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN IF NEW.valor = 666 THEN RAISE 'refused'; END IF; RETURN NEW; END$$; \
             CREATE TRIGGER refuse BEFORE INSERT ON transacoes FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
    }

    fn run(&self, sql: &str) -> Verdict {
        self.client()?.batch_execute(sql).map_err(|error| error.to_string())
    }

    /// A session that has locked all accounts: every call of others waits until it is dropped or [`Lock::release`]d.
    pub(crate) fn lock(&self) -> Verdict<Lock> {
        let mut client = self.client()?;
        let locked = client.batch_execute("BEGIN; LOCK TABLE clientes IN ACCESS EXCLUSIVE MODE");
        locked.map_err(|error| error.to_string())?;
        Ok(Lock { client })
    }

    /// The sum of the ledger of an account, and how many transactions it has.
    pub(crate) fn ledger(&self, account: i32) -> Verdict<(i64, i64)> {
        let sql = "SELECT coalesce(sum(CASE tipo WHEN 'd' THEN -valor ELSE valor END), 0)::bigint, count(*) \
                   FROM transacoes WHERE cliente_id = $1";
        let row = self.client()?.query_one(sql, &[&account]).map_err(|error| error.to_string())?;
        Ok((row.get(0), row.get(1)))
    }
}

pub(crate) struct Lock {
    client: Client,
}

impl Lock {
    pub(crate) fn release(mut self) -> Verdict {
        self.client.batch_execute("COMMIT").map_err(|error| error.to_string())
    }
}

/// A message: its tag and its body.
pub(crate) type Frame = (u8, Vec<u8>);

#[derive(Default)]
struct Seen {
    /// What the program sent since the last [`Proxy::forget`].
    sent: Vec<Frame>,
    is_holding: bool,
    connections: Vec<UnixStream>,
    is_over: bool,
}

/// Between a program and its PostgreSQL.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Last: the socket's directory.
    _directory: Throwaway,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    released: Condvar,
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxy {
    pub(crate) fn start(upstream: PathBuf) -> Verdict<Proxy> {
        let directory = Throwaway::new("learn").map_err(|error| error.to_string())?;
        let path = directory.path().join("postgresql");
        let listener = UnixListener::bind(&path).map_err(|error| format!("cannot listen: {error}"))?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.seen().is_over {
                    return;
                }
                // If one of the two is gone, so is the connection.
                let _ = join(stream, &upstream, &accepting);
            }
        });
        Ok(Proxy { shared, path, _directory: directory })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn forget(&self) {
        self.shared.seen().sent.clear();
    }

    pub(crate) fn sent(&self) -> Vec<Frame> {
        self.shared.seen().sent.clone()
    }

    pub(crate) fn syncs(&self) -> usize {
        self.count(b'S')
    }

    /// Waits until what the program sent meets a condition.
    pub(crate) fn wait_for(&self, program: &Running, what: &str, is_met: impl Fn(&Proxy) -> bool) -> Verdict {
        program.eventually(|| is_met(self).then_some(())).ok_or_else(|| {
            let patience = program.patience();
            format!("{what} (after {patience:?} of waiting).")
        })
    }

    fn count(&self, tag: u8) -> usize {
        self.shared.seen().sent.iter().filter(|frame| frame.0 == tag).count()
    }

    /// From now on `ReadyForQuery` does not reach the program, until [`Proxy::release`].
    pub(crate) fn hold(&self) {
        self.shared.seen().is_holding = true;
    }

    pub(crate) fn release(&self) {
        self.shared.seen().is_holding = false;
        self.shared.released.notify_all();
    }

    /// Cuts every connection, in both directions.
    pub(crate) fn cut(&self) {
        for stream in self.shared.seen().connections.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.seen().is_over = true;
        self.cut();
        self.release();
        // Wakes the thread that accepts.
        let _ = UnixStream::connect(&self.path);
    }
}

/// Passes messages on in both directions, in two threads.
fn join(program: UnixStream, upstream: &Path, shared: &Arc<Shared>) -> io::Result<()> {
    let server = UnixStream::connect(upstream)?;
    shared.seen().connections.extend([program.try_clone()?, server.try_clone()?]);
    let (from_program, to_server) = (program.try_clone()?, server.try_clone()?);
    let asking = Arc::clone(shared);
    thread::spawn(move || {
        let _ = pass(from_program, to_server, true, |frame| asking.seen().sent.push(frame));
    });
    let answering = Arc::clone(shared);
    thread::spawn(move || {
        let _ = pass(server, program, false, |frame| {
            if frame.0 == b'Z' {
                let seen = answering.seen();
                let waited = answering.released.wait_while(seen, |seen| seen.is_holding && !seen.is_over);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
            }
        });
    });
    Ok(())
}

/// Reads message by message; each is passed on after `look` has returned.
fn pass(
    mut from: UnixStream,
    mut to: UnixStream,
    has_start: bool,
    mut look: impl FnMut(Frame),
) -> io::Result<()> {
    // The first message of a session has no tag.
    let mut tag_bytes = usize::from(!has_start);
    let result = loop {
        let mut head = vec![0; tag_bytes + 4];
        if let Err(error) = from.read_exact(&mut head) {
            break Err(error);
        }
        let mut len = [0; 4];
        len.copy_from_slice(&head[tag_bytes..]);
        let mut body = vec![0; (u32::from_be_bytes(len) as usize).saturating_sub(4).min(FRAME_MAX_BYTES)];
        if let Err(error) = from.read_exact(&mut body) {
            break Err(error);
        }
        look((if tag_bytes == 0 { 0 } else { head[0] }, body.clone()));
        head.extend_from_slice(&body);
        if let Err(error) = to.write_all(&head) {
            break Err(error);
        }
        tag_bytes = 1;
    };
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
    result
}

const FRAME_MAX_BYTES: usize = 1 << 20;
