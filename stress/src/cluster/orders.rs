//! What a running cluster is told to do by other runs of the command: JSON over a socket, and its answer.

use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::Cluster;
use crate::Error;

/// What can be done to a running cluster.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand, Serialize, Deserialize)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Part {
    Postmaster,
    Patroni,
    Etcd,
    /// All of its processes at once, with its cable out
    Node,
}

impl Order {
    fn carry_out(self, cluster: &mut Cluster) -> Result<String, Error> {
        match self {
            Order::Status => Ok(format!("{}{}", cluster.topology(), cluster.list()?)),
            Order::Switchover => Ok(format!("{} is the primary\n", cluster.switchover()?)),
            Order::Kill { part, host } => {
                let host = host.map_or_else(|| cluster.leader_name(), Ok)?;
                cluster.kill(part, &host)?;
                Ok(format!("killed: {part} of {host}\n"))
            }
            Order::Isolate { host } => {
                let host = host.map_or_else(|| cluster.leader_name(), Ok)?;
                cluster.isolate(&host)?;
                Ok(format!("isolated: {host}\n"))
            }
            Order::Heal => cluster.heal().map(|()| "whole\n".to_owned()),
            Order::Add => Ok(format!("added: {}\n", cluster.add()?)),
            Order::Drain => Ok(format!("drained: {}\n", cluster.drain()?)),
        }
    }
}

/// Where a running cluster takes orders: a name that only one process has at a time.
#[derive(Debug)]
pub struct Reception {
    socket: UnixListener,
}

impl Reception {
    pub fn open() -> Result<Reception, Error> {
        let open = || -> io::Result<Reception> {
            let socket = UnixListener::bind_addr(&name()?)?;
            socket.set_nonblocking(true)?;
            Ok(Reception { socket })
        };
        open().map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                Error::Refused("a cluster is up already: end it with Ctrl-C, or kill its process".to_owned())
            }
            _ => Error::io("open the socket for orders")(error),
        })
    }

    pub fn attend(&self, cluster: &mut Cluster) {
        let Ok((stream, _)) = self.socket.accept() else { return };
        let order = receive(&stream).map_err(Error::io("read an order"));
        let answer = order.and_then(|order| order.carry_out(cluster)).map_err(|error| error.to_string());
        // Who asked may have left.
        let _ = serde_json::to_writer(&stream, &answer);
    }
}

fn receive(stream: &UnixStream) -> io::Result<Order> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(ORDER_PATIENCE))?;
    Ok(serde_json::from_reader(stream)?)
}

pub fn send(order: &Order) -> Result<String, Error> {
    let stream =
        name().and_then(|name| UnixStream::connect_addr(&name)).map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => {
                Error::Refused("no cluster is up here: start one with `cargo stress cluster up`".to_owned())
            }
            _ => Error::io("reach the cluster")(error),
        })?;
    let tell = || -> io::Result<Result<String, String>> {
        serde_json::to_writer(&stream, order)?;
        // Each side reads up to the end of the other.
        stream.shutdown(Shutdown::Write)?;
        Ok(serde_json::from_reader(&stream)?)
    };
    tell().map_err(Error::io("tell the cluster"))?.map_err(Error::Refused)
}

fn name() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name("rinha-stress-cluster")
}

const ORDER_PATIENCE: Duration = Duration::from_secs(1);
