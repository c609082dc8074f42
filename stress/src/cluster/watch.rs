//! Sees when a node becomes the primary, and when a commit there is first confirmed by a standby.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use super::Node;

#[derive(Debug, Clone)]
pub struct Promotion {
    pub promoted_at: Instant,
    /// When a commit was first confirmed; `None` if none was as long as it was watched.
    pub committed_at: Option<Instant>,
}

/// Looks at all nodes until it is dropped, over their Unix sockets, which no broken network gets in the way of.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    promotions: Mutex<Vec<Promotion>>,
}

impl Watch {
    pub fn start(nodes: &[Node]) -> Watch {
        let shared: Arc<Shared> = Arc::default();
        for node in nodes {
            let (shared, url) = (Arc::clone(&shared), node.url("postgres"));
            thread::spawn(move || shared.look_on(&url));
        }
        Watch { shared }
    }

    pub fn promotions(&self) -> Vec<Promotion> {
        self.shared.promotions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Not joined: one may wait for a commit that no standby confirms. Its session ends with the node.
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn look_on(&self, url: &str) {
        let mut session: Option<Client> = None;
        // A node that is the primary from the first look on was not promoted.
        let mut was_standby = false;
        while !self.is_over.load(Ordering::Relaxed) {
            let Some(client) = session.as_mut() else {
                session = Client::connect(url, NoTls).ok();
                thread::sleep(BETWEEN_CONNECTS);
                continue;
            };
            match client.query_one("SELECT pg_is_in_recovery()", &[]).map(|row| row.get(0)) {
                Ok(false) if was_standby => {
                    was_standby = false;
                    let promoted_at = Instant::now();
                    // Waits for a standby as the bank's commits do.
                    let committed_at = client.batch_execute(COMMIT).ok().map(|()| Instant::now());
                    let promotion = Promotion { promoted_at, committed_at };
                    self.promotions.lock().unwrap_or_else(PoisonError::into_inner).push(promotion);
                }
                Ok(is_standby) => was_standby |= is_standby,
                Err(_) => session = None,
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }
}

/// Writes nothing but a record in the log, which is in its commit.
const COMMIT: &str = "SELECT pg_logical_emit_message(true, 'stress', '')";
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
const BETWEEN_CONNECTS: Duration = Duration::from_millis(20);
