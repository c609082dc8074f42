//! The password of `DATABASE_URL` stays where it is: in no log line at any level, in no error, in no answer.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use stress::throwaway::Throwaway;
use stress::{Instance, Postgres, PostgresOptions, Readiness};
use support::bank::options;
use support::{Answer, SERVER, Wire, get, transaction, wait_for, workspace};

/// The part of each password that is the same in every spelling of it.
const SECRET: &str = "abretesesamo";
/// A password with everything that has a meaning in a URI or in SQL, but for the quote.
const PASSWORD: &str = "abretesesamo: /ç@1?&%";
const PASSWORD_IN_URI: &str = "abretesesamo%3A%20%2F%C3%A7%401%3F%26%25";
/// Without a rule of their own, `error` and `warn` show a part of what `info` shows.
const LEVELS: [&str; 3] = ["info", "debug", "trace"];
const ROLES: [(&str, &str); 3] = [("scram", "scram-sha-256"), ("md5", "md5"), ("cleartext", "scram-sha-256")];

/// Fails if the text has the password, as text or as the bytes of a `{:?}`.
fn assert_kept(text: &str, place: &str) {
    let bytes = format!("{:?}", SECRET.as_bytes());
    let bytes = bytes.trim_matches(['[', ']']);
    assert!(!text.contains(SECRET) && !text.contains(bytes), "{place} shows the password: {text}");
}

/// An instance whose whole log can be read when it has stopped.
struct Watched {
    instance: Instance,
    log: PathBuf,
    place: String,
    answers: Vec<String>,
}

impl Watched {
    fn start(directory: &Path, url: &str, level: &str, readiness: Readiness, case: &str) -> Watched {
        let place = format!("{case} at {level}");
        let mut options =
            options(url, &[("RUST_LOG", level), ("QUEUE_TIMEOUT_MS", "100"), ("DRAIN_IDLE_MS", "0")]);
        let log = directory.join(place.replace(' ', "-"));
        options.log = Some(log.clone());
        options.readiness = readiness;
        let instance = Instance::start(&options).expect("start the server");
        Watched { instance, log, place, answers: Vec::new() }
    }

    fn ask(&mut self, address: &str, request: &[u8]) -> Answer {
        let answer = Wire::connect(address).ask(request);
        self.answers.push(format!("{answer:?} {}", answer.text()));
        answer
    }

    fn wait_log(&self, text: &str) {
        wait_for(&format!("{} logs {text:?}", self.place), || {
            self.instance.log().contains(text).then_some(())
        });
    }

    /// Asks for everything that can be asked, stops the server, and searches what it said.
    fn finish(mut self, health: u16) {
        let address = self.instance.addresses().swap_remove(0);
        let metrics = self.instance.metrics_address().expect("METRICS_LISTEN is set");
        assert_eq!(self.ask(&address, &get("/healthz")).status, health, "{}", self.place);
        let status = self.ask(&address, &transaction(1, 1, "c", "secret")).status;
        assert_eq!(status, health, "{}", self.place);
        self.ask(&metrics, &get("/metrics"));
        drop(self.instance);
        let log = fs::read_to_string(&self.log).expect("read the log");
        assert!(log.contains("stopped"), "the log has an end: {log}");
        assert_kept(&log, &self.place);
        assert_kept(&self.answers.concat(), &self.place);
    }
}

#[test]
fn no_log_line_and_no_answer_has_the_password() {
    let directory = Throwaway::new("test").expect("make a directory");
    let hba = directory.path().join("hba.conf");
    let rules = "local all rinha trust\nlocal all scram scram-sha-256\nlocal all md5 md5\nlocal all cleartext password\n";
    fs::write(&hba, rules).expect("write the rules");
    let hba = hba.to_str().expect("a path in UTF-8").to_owned();
    let settings = vec![("hba_file".to_owned(), hba)];
    let postgres = Postgres::start(&PostgresOptions { settings, ..PostgresOptions::default() })
        .expect("start a PostgreSQL");
    postgres.create_database("rinha").expect("make the database");
    postgres.apply_sql("rinha", &workspace().join("sql")).expect("apply sql/*.sql");
    let mut admin = postgres.connect("rinha").expect("connect");
    for (role, encryption) in ROLES {
        let sql = format!(
            "SET password_encryption = '{encryption}'; CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'; \
             GRANT SELECT, INSERT, UPDATE ON clientes, transacoes TO {role}"
        );
        admin.batch_execute(&sql).expect("make a role");
    }
    let url_of = |role: &str, password: &str| {
        postgres.url("rinha").replace("//rinha@", &format!("//{role}:{password}@"))
    };
    let start = |url: &str, level: &str, readiness, case: &str| {
        Watched::start(directory.path(), url, level, readiness, case)
    };

    thread::scope(|scope| {
        for (role, _) in ROLES {
            let (postgres, url_of, start) = (&postgres, &url_of, &start);
            scope.spawn(move || {
                let mut admin = postgres.connect("rinha").expect("connect");
                for level in LEVELS {
                    let right = start(&url_of(role, PASSWORD_IN_URI), level, Readiness::Healthy, role);
                    // It logs in once more, and says why.
                    let lanes = format!("FROM pg_stat_activity WHERE usename = '{role}'");
                    admin
                        .batch_execute(&format!("SELECT pg_terminate_backend(pid) {lanes}"))
                        .expect("cut it");
                    right.wait_log("is down");
                    let is_back = || (right.instance.log().matches("is ready").count() == 2).then_some(());
                    wait_for("a new lane", is_back);
                    right.finish(200);

                    let url = url_of(role, &format!("{SECRET}-wrong"));
                    let wrong = start(&url, level, Readiness::Listening, &format!("wrong {role}"));
                    wrong.wait_log("password authentication failed");
                    wrong.finish(503);
                }
            });
        }
        // Port 1 of the loopback: reserved, and refused at once. A name of `invalid` has no address, by RFC 6761.
        for host in ["127.0.0.1:1", "bank.invalid", "127.0.0.1:1,bank.invalid:2"] {
            let start = &start;
            scope.spawn(move || {
                for level in LEVELS {
                    let url = format!("postgresql://scram:{PASSWORD_IN_URI}@{host}/rinha");
                    let nobody = start(&url, level, Readiness::Listening, &format!("nobody at {host}"));
                    nobody.wait_log("is down");
                    nobody.finish(503);
                }
            });
        }
    });
}

#[test]
fn no_error_about_a_uri_quotes_the_password() {
    let bad = [
        "abretesesamo",
        "mysql://ana:abretesesamo@db/x",
        "postgresql:ana:abretesesamo@db/x",
        "postgresql://ana:abretesesamo",
        "postgresql://ana:abretesesamo@",
        "postgresql://ana:abretesesamo@db:0/x",
        "postgresql://ana:abretesesamo@db:abretesesamo/x",
        "postgresql://ana:abretesesamo@db,db:1/x?port=1,2,3",
        "postgresql://ana:abretesesamo@[::1/x",
        "postgresql://ana:abretesesamo@db/x?gssencmode=require",
        "postgresql://ana:abretesesamo@db/x?sslmode=maybe",
        "postgresql://ana:abretesesamo@db/x?connect_timeout=soon",
        "postgresql://ana:abretesesamo@db/x?target_session_attrs=abretesesamo",
        "postgresql://ana:abretesesamo@db/x?target_session_attrs=standby",
        "host=db user=ana password=abretesesamo load_balance_hosts=abretesesamo",
        "postgresql://ana:abretesesamo@db/x?unknown=1",
        "postgresql://ana:abretesesamo%@db/x",
        "postgresql://ana:%ff@db/abretesesamo%00",
        // Passwords that should have been encoded: what is behind the special character looks like something else.
        "postgresql://ana:a@abretesesamo@db/x",
        "postgresql://ana:a/abretesesamo@db/x",
        "postgresql://ana:a abretesesamo@db/x",
        "postgresql://ana:1/a?abretesesamo=b@db/x",
        "ana:abretesesamo@db/x?user=b",
        "host=db password=a abretesesamo=b",
        "host=db password=abretesesamo gssencmode=require",
        "host=db password='abretesesamo",
        "postgresql://ana:a#abretesesamo@db:port/x",
        "postgresql://ana@db/x?password=a&abretesesamo",
        "postgresql://ana@db/x?password=a&abretesesamo=b",
        "postgresql://ana@db/x?password=a%&b=abretesesamo",
        "postgresql://abretesesamo!/x?user=ana",
        "postgresql://ana@db/x?password=a=abretesesamo&gssencmode=require",
    ];
    for url in bad {
        let mut command = Command::new(SERVER);
        // Read after the URI: it would end a server that takes it.
        let unusable = ("LISTEN", "nowhere");
        command.env_clear().envs([("DATABASE_URL", url), unusable, ("RUST_LOG", "trace")]);
        let output = command.output().expect("run the server's binary");
        assert_eq!(output.status.code(), Some(2), "{url}");
        let said =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(said.starts_with("rinha: DATABASE_URL"), "{url}: {said}");
        assert_kept(&said, url);
    }
}
