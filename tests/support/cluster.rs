//! One PostgreSQL per test binary, started by the first test that needs it, with a database of its own for each test.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use stress::postgres::Client;
use stress::{Postgres, PostgresOptions};

/// The root of the project.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the project, by its path below the root.
pub(crate) fn text_of(path: impl AsRef<Path>) -> String {
    let path = workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

/// A database that no other test uses.
pub(crate) struct Database {
    postgres: &'static Postgres,
    name: String,
}

impl Database {
    /// One with everything that `sql/*.sql` creates.
    pub(crate) fn new() -> Database {
        Database::made("TEMPLATE template_rinha")
    }

    /// One without any table.
    pub(crate) fn empty() -> Database {
        Database::made("TEMPLATE template1")
    }

    fn made(clause: &str) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        /// PostgreSQL refuses a template that another CREATE DATABASE looks into at that moment.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

        let postgres = shared();
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut client = postgres.connect("postgres").expect("connect to the private PostgreSQL");
        client.batch_execute(&format!("CREATE DATABASE {name} {clause}")).expect("make a database");
        Database { postgres, name }
    }

    /// What `DATABASE_URL` says.
    pub(crate) fn url(&self) -> String {
        self.postgres.url(&self.name)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Client {
        self.postgres.connect(&self.name).expect("connect to the test's database")
    }

    /// Runs statements.
    pub(crate) fn execute(&self, sql: &str) {
        self.connect().batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Ends all sessions of the bank.
    pub(crate) fn end_sessions(&self) {
        self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'rinha'",
        );
    }

    /// Lets the ledger refuse transactions with the description `boom` with this SQLSTATE, while `condition` holds.
    pub(crate) fn plant_failure(&self, code: &str, condition: &str) {
        self.execute(&format!(
            "CREATE SEQUENCE failures;
             CREATE FUNCTION boom() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.descricao = 'boom' AND {condition} THEN
                     RAISE EXCEPTION 'planted' USING ERRCODE = '{code}';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER boom BEFORE INSERT ON transacoes FOR EACH ROW EXECUTE FUNCTION boom();"
        ));
    }

    /// The one number that a query gives.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        let row = self.connect().query_one(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        row.get(0)
    }

    /// How many rows of the ledger have this description.
    pub(crate) fn ledger_rows(&self, description: &str) -> i64 {
        let row = self
            .connect()
            .query_one("SELECT count(*) FROM transacoes WHERE descricao = $1", &[&description])
            .expect("count the ledger");
        row.get(0)
    }

    /// Creates everything that `sql/*.sql` creates.
    pub(crate) fn apply_sql(&self) {
        self.postgres.apply_sql(&self.name, &workspace().join("sql")).expect("apply sql/*.sql");
    }

    /// Every balance is the sum of its ledger, and none is past its limit.
    pub(crate) fn assert_ledger_adds_up(&self) {
        assert_ledger_adds_up(&mut self.connect());
    }
}

/// Every balance is the sum of its ledger, and none is past its limit.
pub(crate) fn assert_ledger_adds_up(client: &mut Client) {
    let rows = client
        .query(
            "SELECT c.id, c.saldo, c.limite, coalesce(sum(CASE t.tipo WHEN 'c' THEN t.valor::bigint \
             ELSE -t.valor::bigint END), 0)::bigint AS soma \
             FROM clientes AS c LEFT JOIN transacoes AS t ON t.cliente_id = c.id GROUP BY c.id ORDER BY c.id",
            &[],
        )
        .expect("add up the ledger");
    assert!(!rows.is_empty(), "the bank has no clients");
    for row in rows {
        let (id, balance, limit, sum): (i32, i64, i64, i64) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        assert_eq!(balance, sum, "the balance of client {id} is not the sum of its ledger");
        assert!(balance >= -limit, "client {id} is past its limit: {balance}");
    }
}

/// The PostgreSQL of this test binary. A static is never dropped: the kernel stops the server when this process ends
/// (`stress` sees to it), and the janitor removes its directory.
fn shared() -> &'static Postgres {
    static SHARED: OnceLock<(Postgres, Child)> = OnceLock::new();
    let (postgres, _janitor) = SHARED.get_or_init(|| {
        let options = PostgresOptions {
            settings: [("max_connections", "500"), ("shared_buffers", "64MB")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..PostgresOptions::default()
        };
        let postgres = Postgres::start(&options).expect("start a private PostgreSQL");
        postgres.create_bank("template_rinha", &workspace().join("sql")).expect("make the template");
        let janitor = janitor(&postgres);
        (postgres, janitor)
    });
    postgres
}

/// Waits on its standard input, which ends with this process, then for the end of PostgreSQL, and removes what that
/// leaves. In a process group of its own, so that a Ctrl-C does not reach it.
fn janitor(postgres: &Postgres) -> Child {
    let url = postgres.url("postgres");
    let home = Path::new(url.split_once("?host=").expect("a URL with a host").1);
    let directory = home.parent().expect("the throwaway directory");
    Command::new("/bin/sh")
        .args(["-c", r#"read _; while kill -0 "$1" 2>&-; do sleep 0.05; done; rm -rf "$2""#, "janitor"])
        .arg(postgres.pid().to_string())
        .arg(directory)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the janitor")
}
