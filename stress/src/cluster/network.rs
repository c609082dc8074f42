//! Hosts without machines: a network namespace with one address each, on a bridge that this process reaches, too.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{self, Command};
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{run, signal};
use crate::stack::put_between;
use crate::{Error, files};

/// A bridge and its hosts. Dropping it kills what still runs in them and removes all of it.
#[derive(Debug)]
pub struct Network {
    /// `rinha-PID-` before a host's name is its namespace; `rPID-` before it is its end of the cable, at most 15 bytes.
    owner: u32,
    /// The first three numbers of each address. The last one is the host's.
    prefix: [u8; 3],
    hosts: &'static [(&'static str, u8)],
    /// Hosts whose PostgreSQL is reached through a proxy.
    distant: Vec<&'static str>,
}

impl Network {
    /// Makes a network of these hosts, each with the last number of its address. What a killed run left is removed first.
    pub fn new(hosts: &'static [(&'static str, u8)]) -> Result<Network, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Refused("network namespaces are for root only: run it with sudo".to_owned()));
        }
        sweep();
        let network = Network { owner: process::id(), prefix: free_prefix()?, hosts, distant: Vec::new() };
        let bridge = network.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", network.at(254)), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for (host, number) in hosts {
            let (namespace, cable) = (network.namespace(host), network.cable(host));
            let address = format!("{}/24", network.at(*number));
            ip(&["netns", "add", &namespace])?;
            ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
            ip(&["link", "set", &cable, "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", &namespace, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
            network.plug(host)?;
        }
        network.name_hosts(&[])?;
        Ok(network)
    }

    pub fn namespace(&self, host: &str) -> String {
        format!("{NAMESPACES}{}-{host}", self.owner)
    }

    pub fn address(&self, host: &str) -> Ipv4Addr {
        self.at(self.number(host))
    }

    /// Where others reach PostgreSQL on this host.
    pub fn database_address(&self, host: &str) -> Ipv4Addr {
        let is_distant = self.distant.contains(&host);
        self.at(self.number(host) + if is_distant { 100 } else { 0 })
    }

    fn number(&self, host: &str) -> u8 {
        self.hosts.iter().find(|(name, _)| *name == host).map_or(0, |(_, number)| *number)
    }

    fn at(&self, number: u8) -> Ipv4Addr {
        let [first, second, third] = self.prefix;
        Ipv4Addr::new(first, second, third, number)
    }

    /// From now on PostgreSQL on this host is so far away from everybody: bytes take `delay` in each direction.
    pub(super) fn put_away(&mut self, host: &'static str, delay: Duration) -> Result<(), Error> {
        self.distant.push(host);
        let (near, far) = (self.database_address(host), self.address(host));
        ip(&["addr", "add", &format!("{near}/24"), "dev", &self.bridge()])?;
        let at = |host| SocketAddr::from((host, 5432)).into();
        put_between(&at(near), &at(far), delay)?;
        self.name_hosts(&[])
    }

    pub fn range(&self) -> String {
        format!("{}/24", self.at(0))
    }

    /// An address at which nobody is.
    pub fn nowhere(&self) -> Ipv4Addr {
        self.at(253)
    }

    /// What each host finds when it looks a name up. `instead` are addresses of some hosts that are not theirs.
    ///
    /// Format: the manual pages hosts(5) and ip-netns(8): the file is mounted over `/etc/hosts` by `ip netns exec`. It is
    /// written in place: another file would not be seen by what runs already.
    pub fn name_hosts(&self, instead: &[(&str, Ipv4Addr)]) -> Result<(), Error> {
        let address = |host: &str| {
            let other = instead.iter().find(|(name, _)| *name == host);
            other.map_or_else(|| self.database_address(host), |(_, address)| *address)
        };
        let lines = self.hosts.iter().map(|(host, _)| format!("{} {host}\n", address(host)));
        let text = format!("127.0.0.1 localhost\n{}", lines.collect::<String>());
        for (host, _) in self.hosts {
            let directory = Path::new(NAMESPACE_FILES).join(self.namespace(host));
            files::make_directory(&directory)?;
            files::write(directory.join("hosts"), &text)?;
        }
        Ok(())
    }

    /// Takes a host's cable out: nothing arrives, and nobody is told.
    pub fn unplug(&self, host: &str) -> Result<(), Error> {
        ip(&["link", "set", &self.cable(host), "nomaster"]).map(drop)
    }

    pub fn plug(&self, host: &str) -> Result<(), Error> {
        ip(&["link", "set", &self.cable(host), "master", &self.bridge()]).map(drop)
    }

    /// Lets nothing pass between two hosts, in either direction, and tells neither: each sends to a device that is not there.
    pub fn cut(&self, one: &str, other: &str) -> Result<(), Error> {
        for (from, to) in [(one, other), (other, one)] {
            let (namespace, to) = (self.namespace(from), self.address(to).to_string());
            let nobody = ["lladdr", "02:00:00:00:00:01", "dev", "eth0", "nud", "permanent"];
            ip(&[&["-n", &namespace, "neigh", "replace", &to], &nobody[..]].concat())?;
        }
        Ok(())
    }

    pub(super) fn set_kernel(&self, host: &str, setting: &str, value: &str) -> Result<(), Error> {
        let (namespace, file) = (self.namespace(host), format!("/proc/sys/net/ipv4/{setting}"));
        let script = "echo \"$1\" > \"$2\"";
        ip(&["netns", "exec", &namespace, "sh", "-c", script, "stress", value, &file]).map(drop)
    }

    /// Undoes [`unplug`](Network::unplug), [`cut`](Network::cut) and [`name_hosts`](Network::name_hosts).
    pub fn heal(&self) -> Result<(), Error> {
        for (host, _) in self.hosts {
            self.plug(host)?;
            ip(&["-n", &self.namespace(host), "neigh", "flush", "dev", "eth0", "nud", "permanent"])?;
        }
        self.name_hosts(&[])
    }

    fn bridge(&self) -> String {
        format!("{CABLES}{}-br", self.owner)
    }

    fn cable(&self, host: &str) -> String {
        format!("{CABLES}{}-{host}", self.owner)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(self.owner);
    }
}

/// Removes the networks of runs that were killed.
fn sweep() {
    let mut owners: Vec<u32> = namespaces().filter_map(|name| owner_of(&name)).collect();
    owners.dedup();
    for owner in owners.into_iter().filter(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
        remove(owner);
    }
}

fn remove(owner: u32) {
    for namespace in namespaces().filter(|name| owner_of(name) == Some(owner)) {
        kill_all(&namespace);
        let _ = ip(&["netns", "del", &namespace]);
        let _ = fs::remove_dir_all(Path::new(NAMESPACE_FILES).join(&namespace));
    }
    // Refused where somebody else's are in it.
    let _ = fs::remove_dir(NAMESPACE_FILES);
    // The kernel takes a cable away some time after the namespace at its end, but at once when it is asked.
    let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let links = links.filter_map(|link| link.file_name().into_string().ok());
    for link in links.filter(|link| link.starts_with(&format!("{CABLES}{owner}-"))) {
        let _ = ip(&["link", "del", &link]);
    }
}

fn namespaces() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

fn owner_of(namespace: &str) -> Option<u32> {
    namespace.strip_prefix(NAMESPACES)?.split_once('-')?.0.parse().ok()
}

/// Kills all processes of a host at once, as when its power fails.
pub(super) fn kill_all(namespace: &str) {
    // Twice: what was started meanwhile is found the second time.
    for _ in 0..2 {
        let listed = ip(&["netns", "pids", namespace]).unwrap_or_default();
        for pid in listed.lines().filter_map(|pid| pid.parse().ok()) {
            let _ = signal(pid, Signal::KILL);
        }
    }
}

/// The first three numbers of a network that no address of this machine is in, among those for tests of network devices.
///
/// Source: RFC 2544, appendix C.2.2: 198.18.0.0/15.
fn free_prefix() -> Result<[u8; 3], Error> {
    let taken = ip(&["-o", "-4", "address"])?;
    let mut prefixes = (0..512).map(|number| {
        let [.., second, third] = (number + process::id()).to_be_bytes();
        [198, 18 + second % 2, third]
    });
    let free =
        prefixes.find(|[first, second, third]| !taken.contains(&format!(" {first}.{second}.{third}.")));
    free.ok_or_else(|| Error::Refused("every network of 198.18.0.0/15 is in use here".to_owned()))
}

fn ip(arguments: &[&str]) -> Result<String, Error> {
    run(Command::new("ip").args(arguments), &format!("run ip {}", arguments.join(" ")))
}

const NAMESPACES: &str = "rinha-";
const CABLES: &str = "r";
const NAMESPACE_FILES: &str = "/etc/netns";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_namespaces_have_an_owner() {
        assert_eq!(owner_of("rinha-4194304-db1"), Some(4_194_304));
        for others in ["rinha-db1", "blue", "rinha-x-db1", "4194304-db1"] {
            assert_eq!(owner_of(others), None, "{others}");
        }
        // The kernel allows 15 bytes.
        let (owner, prefix) = (4_194_304, [198, 18, 0]);
        let network = Network { owner, prefix, hosts: &[], distant: Vec::new() };
        assert!(network.cable("api1").len() <= 15);
        std::mem::forget(network);
    }
}
