//! PgBouncer as its package installs it, before the PostgreSQL of a test.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use stress::install;
use stress::throwaway::Throwaway;

use crate::support::{Database, wait_for};

/// A pool before one database. It ends when this is dropped, or with this process.
pub(crate) struct PgBouncer {
    shell: Child,
    directory: Throwaway,
    database: String,
}

impl PgBouncer {
    /// A pool in session mode, with nothing set but what it needs to find PostgreSQL.
    pub(crate) fn before(database: &Database) -> PgBouncer {
        let url = database.url();
        let home = Path::new(url.split_once("?host=").expect("a URL with a host").1);
        let directory = Throwaway::new("pgbouncer").expect("make a directory");
        let sockets = directory.path().join("sockets");
        fs::create_dir(&sockets).expect("make a directory");
        let configuration = format!(
            "[databases]\n{} = host={} user=rinha\n\
             [pgbouncer]\npool_mode = session\nlisten_port = 5432\nunix_socket_dir = {}\nauth_type = any\n",
            database.name(),
            home.display(),
            sockets.display()
        );
        let ini = directory.path().join("pgbouncer.ini");
        fs::write(&ini, configuration).expect("write its configuration");

        let mut shell = Command::new("/bin/sh");
        let program = install::PGBOUNCER.require().expect("install PgBouncer").program;
        // It ends when the standard input does, so with this process at the latest.
        shell
            .args(["-c", r#""$0" "$1" & read _; kill "$!"; wait"#])
            .arg(program)
            .arg(&ini)
            .stdin(Stdio::piped());
        let log = fs::File::create(directory.path().join("log")).expect("make its log");
        shell.stdout(log.try_clone().expect("share the log")).stderr(log);
        // It refuses to be root, and only PostgreSQL's own user gets at that socket.
        let owner = fs::metadata(home).expect("look at the directory of PostgreSQL");
        if fs::metadata("/proc/self").expect("look at this process").uid() != owner.uid() {
            chown(&sockets, Some(owner.uid()), Some(owner.gid())).expect("give the directory away");
            shell.uid(owner.uid()).gid(owner.gid());
        }
        let shell = shell.spawn().expect("start a shell");
        let pool = PgBouncer { shell, directory, database: database.name().to_owned() };
        let socket = sockets.join(".s.PGSQL.5432");
        wait_for("PgBouncer", || {
            let log = pool.log();
            assert!(!log.contains("not found") && !log.contains("FATAL"), "{log}");
            UnixStream::connect(&socket).ok()
        });
        pool
    }

    /// What `DATABASE_URL` says.
    pub(crate) fn url(&self) -> String {
        let sockets = self.directory.path().join("sockets");
        format!("postgresql://rinha@/{}?host={}", self.database, sockets.display())
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("read its log")
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
