//! Where a process listens, as the kernel knows: not every program tells which port it got when it asked for any.

use std::fs;
use std::io;

/// The TCP ports that the process `pid` listens on. It must be of this user, and in this network.
pub(crate) fn ports_of(pid: u32) -> io::Result<Vec<u16>> {
    let mut inodes = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor that is closed in the meantime has no target any more.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode = target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']'));
        inodes.extend(inode.map(str::to_owned));
    }
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        // Without IPv6 there is no second table.
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        ports
            .extend(listeners(&text).filter(|(inode, _)| inodes.iter().any(|own| own == inode)).map(|l| l.1));
    }
    Ok(ports)
}

/// Inode and port of each listening socket.
///
/// Format: the manual page proc(5), `/proc/net/tcp`: a number, the local address, the remote one, the state, ... and in
/// the tenth column the inode. Addresses are hexadecimal, and so is the state: 0A is listening.
fn listeners(table: &str) -> impl Iterator<Item = (&str, u16)> {
    table.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_address, port) = columns.get(1)?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (*columns.get(3)? == "0A").then_some((*columns.get(9)?, port))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn reads_listening_sockets() {
        let table = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:1F91 0100007F:0050 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 0 10 -1
";
        assert_eq!(listeners(table).collect::<Vec<_>>(), [("4711", 8080)]);
    }

    #[test]
    fn finds_the_ports_of_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(ports_of(std::process::id()).unwrap().contains(&port));
    }
}
