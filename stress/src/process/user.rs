//! The user that PostgreSQL runs as, since it refuses to be root.

use std::fs;

use crate::Error;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// Whom PostgreSQL must run as: `postgres`, or else `nobody`, when this process is root; otherwise itself (`None`).
    pub(crate) fn for_postgres() -> Result<Option<User>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
        let user = find("postgres", &accounts).or_else(|| find("nobody", &accounts)).ok_or_else(|| {
            Error::Refused(
                "PostgreSQL may not run as root, and there is no user postgres or nobody: `useradd --system postgres`"
                    .to_owned(),
            )
        })?;
        Ok(Some(user))
    }
}

/// Format: the manual page passwd(5): `name:password:uid:gid:...`.
fn find(name: &str, accounts: &str) -> Option<User> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { name: name.to_owned(), uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_user_by_its_whole_name() {
        let accounts =
            "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:a,b:/v:/bin/sh\n";
        let user = find("postgres", accounts);
        assert_eq!(user, Some(User { name: "postgres".to_owned(), uid: 101, gid: 104 }));
        assert_eq!(find("nobody", accounts), None);
        assert_eq!(find("broken", "broken:x\n"), None);
    }
}
