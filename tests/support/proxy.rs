//! The link to PostgreSQL as something that can break: forwards TCP connections to its Unix socket until it is told not
//! to. On demand it keeps what went over it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// A port of 127.0.0.1 behind which PostgreSQL is. Its threads end with this process, or with their connection.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// What happens to all connections at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    /// They are reset.
    Reset,
    /// Nothing passes this way, not even the end of a connection, while everything stays open.
    Blackhole(&'static [Way]),
}

/// Both ways.
pub(crate) const BOTH: &[Way] = &[Way::ToServer, Way::ToClient];

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    planned: Option<Plan>,
    blocked: &'static [Way],
    pairs: Vec<Weak<Pair>>,
    connections: usize,
    /// Since [`Proxy::record`]: whose turn it was, and all bytes of that turn.
    recorded: Option<Vec<(Way, Vec<u8>)>>,
}

struct Plan {
    what: Break,
    way: Way,
    after_bytes: usize,
}

struct Pair {
    tcp: TcpStream,
    unix: UnixStream,
}

impl Proxy {
    /// Before the PostgreSQL that this URL leads to, over its Unix socket.
    pub(crate) fn to(url: &str) -> Proxy {
        let directory = url.split_once("?host=").expect("a URL with a host").1;
        let socket = format!("{directory}/.s.PGSQL.5432");
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let proxy = Proxy { port, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let Ok(unix) = UnixStream::connect(&socket) else { continue };
                shared.join(Pair { tcp, unix });
            }
        });
        proxy
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many connections have come.
    pub(crate) fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// Breaks the link in the middle of what goes this way, when so many more bytes have gone there. Returns when it
    /// has come to that.
    pub(crate) fn break_after(&self, what: Break, way: Way, after_bytes: usize) {
        let mut state = self.shared.lock();
        state.planned = Some(Plan { what, way, after_bytes });
        let waited = self.shared.changed.wait_timeout_while(state, PATIENCE, |state| state.planned.is_some());
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(state.planned.is_none(), "nothing goes {way:?}");
    }

    /// Keeps from now on what goes over the link.
    pub(crate) fn record(&self) {
        self.shared.lock().recorded = Some(Vec::new());
    }

    /// What went over the link since the last time, turn by turn: one side's bytes up to the first of the other side.
    pub(crate) fn take_recorded(&self) -> Vec<(Way, Vec<u8>)> {
        self.shared.lock().recorded.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Lets everything pass again, also what was held up.
    pub(crate) fn heal(&self) {
        self.shared.lock().blocked = &[];
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.heal();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(self: &Arc<Shared>, pair: Pair) {
        let _ = pair.tcp.set_nodelay(true);
        let pair = Arc::new(pair);
        let mut state = self.lock();
        state.pairs.push(Arc::downgrade(&pair));
        state.connections += 1;
        drop(state);
        for way in BOTH {
            let (shared, pair) = (Arc::clone(self), Arc::clone(&pair));
            thread::spawn(move || {
                // However it ends, the other way ends with it, and the sockets are closed when both have.
                let _ = match way {
                    Way::ToServer => shared.forward(*way, &pair.tcp, &pair.unix),
                    Way::ToClient => shared.forward(*way, &pair.unix, &pair.tcp),
                };
                pair.end();
            });
        }
    }

    fn forward(&self, way: Way, mut from: impl Read, mut to: impl Write) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        loop {
            let n = from.read(&mut bytes)?;
            if n == 0 {
                drop(self.wait_unblocked(way));
                return Ok(());
            }
            self.note(way, &bytes[..n]);
            let mut rest = &bytes[..n];
            while !rest.is_empty() {
                let (len, broken) = self.let_pass(way, rest.len());
                to.write_all(&rest[..len])?;
                rest = &rest[len..];
                if let Some(what) = broken {
                    self.strike(what);
                }
            }
        }
    }

    /// Keeps these bytes, before they are passed on, so that an answer to them comes later.
    fn note(&self, way: Way, bytes: &[u8]) {
        let Some(turns) = &mut self.lock().recorded else { return };
        match turns.last_mut() {
            Some((whose, turn)) if *whose == way => turn.extend_from_slice(bytes),
            Some(_) | None => turns.push((way, bytes.to_vec())),
        }
    }

    /// How many of these bytes pass, and what breaks behind them.
    fn let_pass(&self, way: Way, len: usize) -> (usize, Option<Break>) {
        let mut state = self.wait_unblocked(way);
        match &mut state.planned {
            Some(plan) if plan.way == way && plan.after_bytes < len => {
                let (what, passed) = (plan.what, plan.after_bytes);
                // Struck once; `planned` tells the test only when it is done.
                plan.after_bytes = usize::MAX;
                (passed, Some(what))
            }
            Some(plan) if plan.way == way => {
                plan.after_bytes = plan.after_bytes.saturating_sub(len);
                (len, None)
            }
            Some(_) | None => (len, None),
        }
    }

    fn wait_unblocked(&self, way: Way) -> MutexGuard<'_, State> {
        let unblocked = self.changed.wait_while(self.lock(), |state| state.blocked.contains(&way));
        unblocked.unwrap_or_else(PoisonError::into_inner)
    }

    fn strike(&self, what: Break) {
        let mut state = self.lock();
        match what {
            Break::Reset => {
                for pair in state.pairs.drain(..).filter_map(|pair| pair.upgrade()) {
                    // Closing with no time to linger sends a reset.
                    let _ = socket2::SockRef::from(&pair.tcp).set_linger(Some(Duration::ZERO));
                    pair.end();
                }
            }
            Break::Blackhole(ways) => state.blocked = ways,
        }
        state.planned = None;
        self.changed.notify_all();
    }
}

impl Pair {
    /// Ends the reads of both threads. Nothing is said to the client yet: that is for the closing of its socket.
    fn end(&self) {
        let _ = self.tcp.shutdown(Shutdown::Read);
        let _ = self.unix.shutdown(Shutdown::Both);
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
