//! What a running cluster is told to do by other runs of the command: one line over a socket, and its answer.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use super::Cluster;
use crate::Error;

/// What can be done to a running cluster.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Order {
    /// Who is where, and what Patroni says
    Status,
    /// Hands the lead over to a standby
    Switchover,
    /// Kills a part of a host with SIGKILL; without a host, of the primary's
    Kill {
        #[arg(value_enum)]
        part: Part,
        /// db1, db2 or db3
        host: Option<String>,
    },
    /// Takes a host's cable out; without a host, the primary's
    Isolate {
        /// db1 to db3, api1, api2 or lb
        host: Option<String>,
    },
    /// Plugs everything in and starts what was killed
    Heal,
    /// Starts one more instance
    Add,
    /// Takes the last instance out of nginx and ends it with SIGTERM
    Drain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Part {
    Postmaster,
    Patroni,
    Etcd,
    /// All of its processes at once, with its cable out
    Node,
}

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    order: Order,
}

impl Order {
    fn carry_out(self, cluster: &mut Cluster) -> Result<String, Error> {
        let or_leader =
            |cluster: &Cluster, host: Option<String>| host.map_or_else(|| cluster.leader_name(), Ok);
        match self {
            Order::Status => Ok(format!("{}{}", cluster.topology(), cluster.list()?)),
            Order::Switchover => Ok(format!("{} is the primary\n", cluster.switchover()?)),
            Order::Kill { part, host } => {
                let host = or_leader(cluster, host)?;
                cluster.kill(part, &host)?;
                Ok(format!("killed: {part} of {host}\n"))
            }
            Order::Isolate { host } => {
                let host = or_leader(cluster, host)?;
                cluster.isolate(&host)?;
                Ok(format!("isolated: {host}\n"))
            }
            Order::Heal => cluster.heal().map(|()| "whole\n".to_owned()),
            Order::Add => Ok(format!("added: {}\n", cluster.add()?)),
            Order::Drain => Ok(format!("drained: {}\n", cluster.drain()?)),
        }
    }

    fn read(line: &str) -> Result<Order, Error> {
        let words = ["order"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| Error::Refused(error.to_string()))?;
        Ok(line.order)
    }

    fn line(&self) -> String {
        let (word, more) = match self {
            Order::Status => ("status", String::new()),
            Order::Switchover => ("switchover", String::new()),
            Order::Kill { part, host } => ("kill", format!("{part} {}", host.as_deref().unwrap_or_default())),
            Order::Isolate { host } => ("isolate", host.clone().unwrap_or_default()),
            Order::Heal => ("heal", String::new()),
            Order::Add => ("add", String::new()),
            Order::Drain => ("drain", String::new()),
        };
        format!("{word} {more}\n")
    }
}

/// Where a running cluster takes orders: a name that only one process has at a time.
#[derive(Debug)]
pub struct Reception {
    socket: UnixListener,
}

impl Reception {
    pub fn open() -> Result<Reception, Error> {
        let socket = name().and_then(|name| UnixListener::bind_addr(&name)).and_then(|socket| {
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        socket.map(|socket| Reception { socket }).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                Error::Refused("a cluster is up already: end it with Ctrl-C, or kill its process".to_owned())
            }
            _ => Error::io("open the socket for orders")(error),
        })
    }

    /// Carries out the next order, if there is one.
    pub fn attend(&self, cluster: &mut Cluster) {
        let Ok((stream, _)) = self.socket.accept() else { return };
        let answer = receive(&stream)
            .map_err(Error::io("read an order"))
            .and_then(|line| Order::read(&line)?.carry_out(cluster));
        let answer = match answer {
            Ok(done) => format!("{DONE}{done}"),
            Err(error) => error.to_string(),
        };
        // Who asked may have left.
        let _ = (&stream).write_all(answer.as_bytes());
    }
}

fn receive(stream: &UnixStream) -> io::Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ORDER_PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// Tells the running cluster, and gives its answer.
pub fn send(order: &Order) -> Result<String, Error> {
    let mut stream =
        name().and_then(|name| UnixStream::connect_addr(&name)).map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => {
                Error::Refused("no cluster is up here: start one with `cargo stress cluster up`".to_owned())
            }
            _ => Error::io("reach the cluster")(error),
        })?;
    let mut answer = String::new();
    let told = stream.write_all(order.line().as_bytes()).and_then(|()| stream.read_to_string(&mut answer));
    told.map_err(Error::io("tell the cluster"))?;
    match answer.strip_prefix(DONE) {
        Some(done) => Ok(done.to_owned()),
        None => Err(Error::Refused(answer)),
    }
}

fn name() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name("rinha-stress-cluster")
}

/// Before the answer to an order that was carried out.
const DONE: &str = "done\n";
const ORDER_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_given() {
        let host = || Some("db2".to_owned());
        for order in [
            Order::Status,
            Order::Switchover,
            Order::Kill { part: Part::Postmaster, host: None },
            Order::Kill { part: Part::Node, host: host() },
            Order::Isolate { host: None },
            Order::Isolate { host: host() },
            Order::Heal,
            Order::Add,
            Order::Drain,
        ] {
            assert_eq!(Order::read(&order.line()).unwrap(), order);
        }
        assert!(Order::read("reboot\n").is_err());
    }
}
