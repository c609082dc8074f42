//! What can happen to a cluster, one thing at a time.

use std::time::Duration;

use clap::ValueEnum;
use strum::VariantArray;

use super::{APIS, Cluster, DATABASES, Part, standby_after};
use crate::{Error, wait};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, VariantArray, strum::Display)]
#[strum(serialize_all = "kebab-case")]
pub enum Fault {
    /// The lead is handed over with `patronictl switchover`
    Switchover,
    /// SIGKILL for the primary's postmaster
    Postmaster,
    /// SIGKILL for the primary's Patroni: its PostgreSQL goes on
    Patroni,
    /// The primary's host loses power
    Node,
    /// The primary's host loses its network
    Isolated,
    /// The primary reaches its clients, but none of the other two databases
    Cut,
    /// A standby's host loses power
    Standby,
    /// SIGKILL for two of three etcd, back after 15 s
    EtcdQuorum,
    /// A host of instances loses its network for 10 s
    ApiLost,
    /// An instance is added, then drained
    ApiDrained,
    /// A switchover to a host whose name leads to an old address for 5 s
    StaleNames,
}

impl Fault {
    pub const ALL: &[Fault] = Fault::VARIANTS;

    pub fn promotes(self) -> bool {
        match self {
            Fault::Switchover | Fault::Postmaster | Fault::Patroni | Fault::Node => true,
            Fault::Isolated | Fault::Cut | Fault::StaleNames => true,
            Fault::Standby | Fault::EtcdQuorum | Fault::ApiLost | Fault::ApiDrained => false,
        }
    }

    /// How long it lasts at least, after the promotion if there is one.
    pub(super) fn hold(self) -> Duration {
        Duration::from_secs(match self {
            Fault::Switchover | Fault::Postmaster | Fault::Patroni | Fault::Node => 2,
            Fault::Isolated | Fault::Cut | Fault::ApiDrained => 2,
            Fault::Standby | Fault::ApiLost => 10,
            Fault::StaleNames => 5,
            Fault::EtcdQuorum => 15,
        })
    }

    /// Makes it happen. [`Cluster::heal`] undoes it.
    pub(super) fn inject(self, cluster: &mut Cluster) -> Result<(), Error> {
        let leader = cluster.leader_name()?;
        let others: Vec<&str> = DATABASES.into_iter().filter(|name| *name != leader).collect();
        match self {
            Fault::Switchover => cluster.switchover().map(drop),
            Fault::Postmaster => cluster.kill(Part::Postmaster, &leader),
            Fault::Patroni => cluster.kill(Part::Patroni, &leader),
            Fault::Node => cluster.kill(Part::Node, &leader),
            Fault::Isolated => cluster.isolate(&leader),
            Fault::Cut => others.iter().try_for_each(|other| cluster.network.cut(&leader, other)),
            Fault::Standby => cluster.kill(Part::Node, others[0]),
            Fault::EtcdQuorum => others.iter().try_for_each(|other| cluster.kill(Part::Etcd, other)),
            Fault::ApiLost => cluster.isolate(APIS[1]),
            Fault::ApiDrained => {
                cluster.add()?;
                wait::pause(self.hold(), &cluster.place.interrupt)?;
                cluster.drain().map(drop)
            }
            Fault::StaleNames => {
                let candidate = standby_after(&leader);
                cluster.network.name_hosts(&[(candidate, cluster.network.nowhere())])?;
                cluster.switchover().map(drop)
            }
        }
    }
}
