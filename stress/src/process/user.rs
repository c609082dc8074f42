//! The user that PostgreSQL runs as, since it refuses to be root.

use std::fs;

use crate::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// `postgres`, or else `nobody`, when this process is root; otherwise itself (`None`).
    pub(crate) fn for_postgres() -> Result<Option<User>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
        let user = find("postgres", &accounts).or_else(|| find("nobody", &accounts));
        let none = "PostgreSQL may not run as root, and there is no user postgres or nobody: `useradd --system postgres`";
        user.map(Some).ok_or_else(|| Error::Refused(none.to_owned()))
    }
}

/// Format: the manual page passwd(5): `name:password:uid:gid:...`.
fn find(name: &str, accounts: &str) -> Option<User> {
    let mut users = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
    users.find_map(|fields| match fields[..] {
        [it, _, uid, gid, ..] if it == name => Some(User { uid: uid.parse().ok()?, gid: gid.parse().ok()? }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_user_by_its_whole_name() {
        let accounts =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:a,b:/v:/bin/sh\n";
        assert_eq!(find("postgres", accounts), Some(User { uid: 101, gid: 104 }));
        assert_eq!((find("nobody", accounts), find("broken", "broken:x\n")), (None, None));
    }
}
