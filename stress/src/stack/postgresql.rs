//! A private PostgreSQL: new, on a Unix socket only, in a directory that goes away with it.

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use postgres::error::ErrorPosition;
use postgres::{Client, NoTls};
use rustix::process::Signal;

use super::DB;
use crate::cgroup::Group;
use crate::install::Found;
use crate::process::user::User;
use crate::process::{Launch, Service, signal};
use crate::throwaway::Throwaway;
use crate::wait::Interrupt;
use crate::{Error, files, install};

#[derive(Debug, Clone)]
pub struct PostgresOptions {
    pub name: &'static str,
    /// Without it nothing is promised: `fsync`, `full_page_writes` and `synchronous_commit` are off, as in the challenge.
    pub is_durable: bool,
    /// More settings by name; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Of the bank, in place of the challenge's five.
    pub accounts: Option<u32>,
    pub group: Option<Arc<Group>>,
    /// Where it writes its log; by default into its throwaway directory.
    pub log: Option<PathBuf>,
    pub interrupt: Interrupt,
}

impl Default for PostgresOptions {
    fn default() -> PostgresOptions {
        PostgresOptions {
            name: DB,
            is_durable: false,
            settings: Vec::new(),
            accounts: None,
            group: None,
            log: None,
            interrupt: Interrupt::default(),
        }
    }
}

/// A PostgreSQL server with the superuser `rinha`. Dropping it stops it and removes its data.
#[derive(Debug)]
pub struct Postgres {
    service: Service,
    /// Last, so that its directory is removed when the server has stopped.
    site: Site,
}

#[derive(Debug)]
struct Site {
    tools: Found,
    user: Option<User>,
    log: PathBuf,
    options: PostgresOptions,
    directory: Throwaway,
}

impl Postgres {
    /// Makes a new server and waits until it answers a query.
    pub fn start(options: &PostgresOptions) -> Result<Postgres, Error> {
        let initdb =
            format!("-D data -U {SUPERUSER} -A trust -E UTF8 --locale=C --no-sync --no-instructions");
        Postgres::start_on(options, "initdb", &initdb.split(' ').collect::<Vec<_>>())
    }

    /// Makes a hot standby that follows this server, which has to have `wal_level=replica` and WAL senders, and waits until it
    /// answers a query.
    pub fn start_standby(&self) -> Result<Postgres, Error> {
        let source = format!("host={} port={PORT} user={SUPERUSER}", self.site.home().display());
        let arguments = ["-D", "data", "-R", "-X", "stream", "-c", "fast", "-d", &source, "--no-sync"];
        Postgres::start_on(&self.site.options, "pg_basebackup", &arguments)
    }

    /// Starts on the data that this program makes.
    fn start_on(options: &PostgresOptions, maker: &str, arguments: &[&str]) -> Result<Postgres, Error> {
        let site = Site::new(options)?;
        site.run_to_end(maker, arguments)?;
        let postgres = Postgres { service: site.launch()?, site };
        postgres.wait_ready()?;
        Ok(postgres)
    }

    /// The libpq URI of a database, over the Unix socket.
    pub fn url(&self, database: &str) -> String {
        self.url_at(database, &self.site.home())
    }

    /// The same, where its socket is to be found in another directory.
    pub(crate) fn url_at(&self, database: &str, directory: &Path) -> String {
        let port = self.own_port().map_or_else(String::new, |port| format!("&port={port}"));
        format!("postgresql://{SUPERUSER}@/{database}?host={}{port}", directory.display())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.site.home().join(format!(".s.PGSQL.{}", self.own_port().unwrap_or(PORT)))
    }

    /// The last one of a name counts, here as there.
    fn own_port(&self) -> Option<&str> {
        self.site.options.settings.iter().rfind(|(name, _)| name == "port").map(|(_, port)| port.as_str())
    }

    pub fn create_database(&self, name: &str) -> Result<(), Error> {
        let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
        let created = self.connect("postgres")?.batch_execute(&statement);
        created.map_err(Error::sql(statement))
    }

    /// Runs every `*.sql` of `directory` in name order, each as one transaction, until one fails.
    pub fn apply_sql(&self, database: &str, directory: &Path) -> Result<(), Error> {
        apply_sql(&mut self.connect(database)?, directory)
    }

    /// Makes a database with the bank in it, from the project's directory `sql`; in durable mode its tables are logged.
    pub fn create_bank(&self, name: &str, sql: &Path) -> Result<(), Error> {
        self.create_database(name)?;
        self.apply_sql(name, sql)?;
        if let Some(accounts) = self.site.options.accounts {
            let insert = format!(
                "INSERT INTO clientes (id, limite) SELECT id, 100000 FROM generate_series(6, {accounts}) AS id; \
                 ANALYZE clientes"
            );
            self.connect(name)?.batch_execute(&insert).map_err(Error::sql(insert))?;
        }
        if self.site.options.is_durable { self.apply_sql(name, &sql.join("durable")) } else { Ok(()) }
    }

    /// Removes the accounts that another of so many databases has.
    pub(crate) fn keep_accounts(&self, database: &str, databases: u32, remainder: u32) -> Result<(), Error> {
        let delete = format!("DELETE FROM clientes WHERE id % {databases} <> {remainder}");
        self.connect(database)?.batch_execute(&delete).map_err(Error::sql(delete))
    }

    pub fn connect(&self, database: &str) -> Result<Client, Error> {
        let url = self.url(database);
        Client::connect(&url, NoTls).map_err(Error::sql(url))
    }

    pub fn version(&self) -> &str {
        &self.site.tools.version
    }

    /// Shuts down, cutting connections off ("fast"), and keeps the data for [`start_again`](Postgres::start_again). Gives
    /// how it ended: unless that is a success, unlogged tables are empty afterwards.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.service.stop()
    }

    /// Kills all its processes, as a crash would, and keeps the data for [`start_again`](Postgres::start_again).
    pub fn kill(&mut self) {
        let children = self.child_pids();
        self.service.kill();
        // Each is in a session of its own. They would notice the postmaster's end, but not at once.
        for backend in children {
            let _ = signal(backend, Signal::KILL);
        }
    }

    /// Shuts down and starts again as a hot standby of nobody, as after a switchover.
    pub fn demote(&mut self) -> Result<(), Error> {
        self.stop();
        files::write(self.site.home().join("data/standby.signal"), "")?;
        self.start_again()
    }

    pub fn promote(&self) -> Result<(), Error> {
        let sql = "SELECT pg_promote()";
        self.connect("postgres")?.batch_execute(sql).map_err(Error::sql(sql))
    }

    /// Starts again on the same data and address, after [`stop`](Postgres::stop) or [`kill`](Postgres::kill).
    pub fn start_again(&mut self) -> Result<(), Error> {
        self.service = self.site.launch()?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<(), Error> {
        let interrupt = &self.site.options.interrupt;
        let ready = self.service.wait_ready(READY_PATIENCE, interrupt, "does not answer queries", || {
            Ok(self.connect("postgres").ok().and_then(|mut client| client.simple_query("SELECT 1").ok()))
        });
        ready.map(drop)
    }
}

/// The postmaster. Its children are one for each session, and those that keep the house.
impl Deref for Postgres {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.service
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.service.stop();
        remove_segment(&self.site.home().join("data"));
    }
}

/// Removes the System V segment that marks the data of a crashed server as in use. A clean end removes it, and the file that
/// names it.
///
/// Format: PostgreSQL source, "pidfile.h": line 7 is the segment's key and id.
pub(crate) fn remove_segment(data: &Path) {
    let Ok(pid_file) = fs::read_to_string(data.join("postmaster.pid")) else { return };
    if let Some(id) = pid_file.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
        let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
    }
}

pub(crate) fn apply_sql(client: &mut Client, directory: &Path) -> Result<(), Error> {
    let files = files::with_extension(directory, "sql")?;
    if files.is_empty() {
        return Err(Error::Refused(format!("{} has no *.sql to apply", directory.display())));
    }
    for file in files {
        let sql = files::read(&file)?;
        client.batch_execute(&sql).map_err(|error| {
            let line = line_of(&sql, &error).map(|line| format!(":{line}")).unwrap_or_default();
            Error::sql(format!("{}{line}", file.display()))(error)
        })?;
    }
    Ok(())
}

/// Every setting that differs from PostgreSQL's defaults. All of them are on the command line, where `ps` shows them.
fn settings(options: &PostgresOptions, home: &Path) -> Vec<(String, String)> {
    let home = home.display().to_string();
    let benchmark = [("synchronous_commit", "off"), ("fsync", "off"), ("full_page_writes", "off")];
    let always = [
        // Reached over the Unix socket alone, and by its own user alone (and root): that is why trust is safe.
        ("listen_addresses", ""),
        ("port", PORT),
        ("unix_socket_directories", &home),
        ("unix_socket_permissions", "0700"),
        // Of the 330 MB: the data is a fraction of this, and the rest is for sessions and the page cache.
        ("shared_buffers", "128MB"),
        // Statements of microseconds never repay compilation.
        ("jit", "off"),
        // Nobody replicates from a throwaway server.
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
        // Shared memory as files in the data directory: a killed server leaves nothing in /dev/shm.
        ("dynamic_shared_memory_type", "mmap"),
    ];
    let benchmark = benchmark.into_iter().filter(|_| !options.is_durable);
    let ours = always.into_iter().chain(benchmark);
    let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
    ours.chain(options.settings.iter().cloned()).collect()
}

impl Site {
    fn new(options: &PostgresOptions) -> Result<Site, Error> {
        let (tools, user) = (install::POSTGRES.require()?, User::for_postgres()?);
        let directory = Throwaway::new("postgresql")?;
        let log = options.log.clone().unwrap_or_else(|| directory.path().join("postgresql.log"));
        let site = Site { tools, user, log, options: options.clone(), directory };
        let home = site.home();
        files::make_directory(&home)?;
        if let Some(User { uid, gid }) = site.user {
            std::os::unix::fs::chown(&home, Some(uid), Some(gid))
                .map_err(Error::io(format!("give {} to user {uid}", home.display())))?;
        }
        check_socket_path(&home)?;
        Ok(site)
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join(HOME)
    }

    fn run_to_end(&self, name: &str, arguments: &[&str]) -> Result<(), Error> {
        // Where a link to the server leads to, not where the link stands: there is not one to each program.
        let server = fs::canonicalize(&self.tools.program);
        let server = server.map_err(Error::io("find the programs of PostgreSQL"))?;
        let mut program = Service::start(Launch {
            arguments: arguments.iter().map(OsString::from).collect(),
            user: self.user.as_ref(),
            stop_patience: STOP_PATIENCE,
            ..Launch::new(name, &server.with_file_name(name), &self.home(), &self.log)
        })?;
        program.run_to_end(MAKE_PATIENCE, &self.options.interrupt)
    }

    fn launch(&self) -> Result<Service, Error> {
        let home = self.home();
        let mut arguments = vec![OsString::from("-D"), OsString::from("data")];
        for (name, value) in settings(&self.options, &home) {
            arguments.extend([OsString::from("-c"), OsString::from(format!("{name}={value}"))]);
        }
        Service::start(Launch {
            arguments,
            user: self.user.as_ref(),
            group: self.options.group.clone(),
            // "Fast" and "immediate" shutdown. Format: PostgreSQL documentation, "Shutting Down the Server".
            stop_signal: Signal::INT,
            stop_patience: STOP_PATIENCE,
            orphan_signal: "QUIT",
            ..Launch::new(self.options.name, &self.tools.program, &home, &self.log)
        })
    }
}

/// The system cuts the path of a Unix socket off, or refuses it, past 107 bytes.
fn check_socket_path(home: &Path) -> Result<(), Error> {
    let socket = home.join(format!(".s.PGSQL.{PORT}"));
    if socket.as_os_str().len() > SOCKET_PATH_MAX_BYTES {
        return Err(Error::Refused(format!(
            "{} is too long for a Unix socket (at most {SOCKET_PATH_MAX_BYTES} bytes): set TMPDIR to a shorter path",
            socket.display()
        )));
    }
    Ok(())
}

/// The line, from 1, that PostgreSQL's message is about. Its position counts characters from 1.
fn line_of(sql: &str, error: &postgres::Error) -> Option<usize> {
    let ErrorPosition::Original(position) = error.as_db_error()?.position()? else { return None };
    Some(line_at(sql, usize::try_from(*position).ok()?))
}

fn line_at(sql: &str, position: usize) -> usize {
    1 + sql.chars().take(position.saturating_sub(1)).filter(|character| *character == '\n').count()
}

const SUPERUSER: &str = "rinha";
/// Names the socket, `.s.PGSQL.5432`. Said explicitly, since `PGPORT` of the user would change it.
const PORT: &str = "5432";
const HOME: &str = "home";
const SOCKET_PATH_MAX_BYTES: usize = 107;
const MAKE_PATIENCE: Duration = Duration::from_mins(1);
const READY_PATIENCE: Duration = Duration::from_secs(30);
/// A stop writes all pages of unlogged tables out, which no checkpoint before it does.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durable_mode_switches_nothing_off() {
        for is_durable in [false, true] {
            let options = PostgresOptions { is_durable, ..PostgresOptions::default() };
            let has_fsync = settings(&options, Path::new("/d")).iter().any(|(name, _)| name == "fsync");
            assert_eq!(has_fsync, !is_durable);
        }
    }

    #[test]
    fn counts_lines_in_characters() {
        let sql = "-- ação\nSELECT 1;\nSELEKT 2;";
        assert_eq!([1, 9, 19].map(|position| line_at(sql, position)), [1, 2, 3]);
    }

    #[test]
    fn refuses_a_socket_path_that_is_too_long() {
        assert!(check_socket_path(Path::new("/var/tmp/rinha-postgresql-123456/home")).is_ok());
        assert!(check_socket_path(&PathBuf::from(format!("/{}", "x".repeat(100)))).is_err());
    }
}
