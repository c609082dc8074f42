//! Clients that ask at a rate, whatever happens to the bank, and remember what they were told.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::wire::Wire;
use crate::Error;
use crate::load::traffic::{Asked, Outcome, Random, Record};

/// Several clients, each with one request under way at most, on a connection that it keeps for a while.
#[derive(Debug)]
pub struct ClosedLoad {
    /// The bank.
    pub address: SocketAddr,
    /// How many.
    pub clients: usize,
    /// Between two requests of one client; `None`: each as soon as the one before is answered.
    pub interval: Option<Duration>,
}

/// What all clients were told.
#[derive(Debug, Default)]
pub struct Told {
    /// Every request.
    pub records: Vec<Record>,
    /// How many they are.
    pub clients: usize,
    /// Requests that came due while their client still waited, longer ago than [`LAG_MAX`]: never sent.
    pub left_out: u64,
}

/// The numbers of transactions, from which their descriptions are made.
pub type Numbers = AtomicU64;

impl ClosedLoad {
    /// So many requests per second together.
    pub fn paced(address: SocketAddr, clients: usize, requests_per_second: f64) -> ClosedLoad {
        let clients_u32 = u32::try_from(clients).unwrap_or(u32::MAX);
        let interval = Duration::from_secs_f64(f64::from(clients_u32) / requests_per_second);
        ClosedLoad { address, clients, interval: Some(interval) }
    }

    /// Asks until `is_over`.
    ///
    /// # Errors
    /// [`Error::Refused`] for an answer that the bank never gives, or none within the patience of a client.
    pub fn run(&self, numbers: &Numbers, is_over: &AtomicBool) -> Result<Told, Error> {
        thread::scope(|scope| {
            let spawn = |client| scope.spawn(move || self.ask_on(client, numbers, is_over));
            let clients: Vec<_> = (0..self.clients).map(spawn).collect();
            let mut all = Told { clients: self.clients, ..Told::default() };
            let mut failure = None;
            for client in clients {
                match client.join() {
                    Ok(Ok(told)) => {
                        all.records.extend(told.records);
                        all.left_out += told.left_out;
                    }
                    Ok(Err(error)) => failure = failure.or(Some(error)),
                    Err(_) => failure = Some(Error::Refused("a client of the load panicked".to_owned())),
                }
            }
            failure.map_or(Ok(all), Err)
        })
    }

    /// One client's life.
    fn ask_on(&self, client: usize, numbers: &Numbers, is_over: &AtomicBool) -> Result<Told, Error> {
        let mut told = Told::default();
        let mut random = Random::new(numbers.fetch_add(1, Ordering::Relaxed));
        let mut due = Instant::now() + self.first_pause(client);
        let mut wire: Option<(Wire, Instant)> = None;
        while !is_over.load(Ordering::Relaxed) {
            if let Some(interval) = self.interval {
                told.left_out += catch_up(&mut due, interval);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                due += interval;
            }
            let account = i32::try_from(random.below(5)).unwrap_or(0) + 1;
            let asked = Asked::random(&mut random, description(numbers.fetch_add(1, Ordering::Relaxed)));
            let request = asked.request(account);
            let sent_at = Instant::now();
            let open = match wire.take() {
                Some((wire, open_until)) if sent_at < open_until => Ok((wire, open_until)),
                Some(_) | None => {
                    Wire::connect(self.address).map(|wire| (wire, sent_at + connection_life(&mut random)))
                }
            };
            let answer = open.and_then(|(mut open, open_until)| {
                let answer = open.ask(&request)?;
                wire = (!answer.is_last).then_some((open, open_until));
                Ok(answer)
            });
            let ended_at = Instant::now();
            let outcome = match answer {
                Ok(answer) => Outcome::of(&asked, answer.status, &answer.body).ok_or_else(|| {
                    let body = String::from_utf8_lossy(&answer.body).into_owned();
                    Error::Refused(format!("{asked:?} was answered {} {body}", answer.status))
                })?,
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::InvalidData) => {
                    return Err(Error::Refused(format!("{asked:?} had no answer: {error}")));
                }
                Err(_) => Outcome::Broken,
            };
            told.records.push(Record { client, account, asked, sent_at, ended_at, outcome });
        }
        Ok(told)
    }

    /// Spreads the clients evenly over the interval.
    fn first_pause(&self, client: usize) -> Duration {
        let of = |part: usize| u32::try_from(part).unwrap_or(u32::MAX);
        self.interval.map_or(Duration::ZERO, |interval| interval * of(client) / of(self.clients.max(1)))
    }
}

/// Moves a time that lies further back than [`LAG_MAX`] up to it, in whole intervals. Returns how many.
fn catch_up(due: &mut Instant, interval: Duration) -> u64 {
    let mut left_out = 0;
    while due.elapsed() > LAG_MAX {
        *due += interval;
        left_out += 1;
    }
    left_out
}

/// Ten digits of base 36, the longest description that there may be.
fn description(mut number: u64) -> String {
    let mut digits = [b'0'; 10];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::try_from(number % 36).unwrap_or(0)];
        number /= 36;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// Connections that stayed for good would all end up at the instance that was not restarted last.
fn connection_life(random: &mut Random) -> Duration {
    Duration::from_millis(2_000 + random.below(2_000))
}

/// What a client still makes up for after it had to wait.
const LAG_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_ten_characters_and_differ() {
        assert_eq!(description(0), "0000000000");
        assert_eq!(description(35), "000000000z");
        assert_eq!(description(36 * 36 + 1), "0000000101");
        assert_eq!(description(36_u64.pow(10) - 1), "zzzzzzzzzz");
    }

    #[test]
    fn what_came_due_too_long_ago_is_left_out() {
        let interval = Duration::from_millis(100);
        let mut due = Instant::now();
        assert_eq!(catch_up(&mut due, interval), 0);
        let mut due = Instant::now().checked_sub(LAG_MAX + 10 * interval).unwrap();
        assert!(catch_up(&mut due, interval) >= 10);
        assert!(due.elapsed() <= LAG_MAX + interval);
    }

    #[test]
    fn clients_share_the_rate_and_begin_one_after_the_other() {
        let load = ClosedLoad::paced(SocketAddr::from(([127, 0, 0, 1], 1)), 10, 100.0);
        assert_eq!(load.interval, Some(Duration::from_millis(100)));
        assert_eq!((load.first_pause(0), load.first_pause(5)), (Duration::ZERO, Duration::from_millis(50)));
    }
}
