//! The server and PostgreSQL over TLS, both real: who is believed, and who is told what is wrong.

mod support;

#[allow(dead_code, reason = "its `main` is for cargo")]
#[path = "../proto-pg/examples/tour.rs"]
mod tour;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use stress::throwaway::Throwaway;
use stress::{Instance, Postgres, PostgresOptions, Readiness};
use support::bank::options;
use support::{Wire, get, transaction, wait_for, workspace};

/// A PostgreSQL on a TCP port of the loopback that only takes TLS, and logs in by SCRAM or by a certificate.
struct Secured {
    postgres: Postgres,
    port: u16,
    authority: CertifiedIssuer<'static, KeyPair>,
    directory: Throwaway,
}

impl Secured {
    fn start() -> Secured {
        let directory = Throwaway::new("test").expect("make a directory");
        let hba = directory.path().join("hba.conf");
        let rules = "local all rinha trust\n\
                     hostssl all certified 127.0.0.1/32 cert\n\
                     hostssl all scram 127.0.0.1/32 scram-sha-256\n\
                     hostssl all open 127.0.0.1/32 trust\n";
        fs::write(&hba, rules).expect("write the rules");
        // Free a moment ago, and asked for by nobody else here: they take the ports that the kernel gives.
        let port =
            TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its number").port();
        let settings = [
            ("hba_file", hba.to_str().expect("a path in UTF-8").to_owned()),
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", port.to_string()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let postgres = Postgres::start(&PostgresOptions { settings, ..PostgresOptions::default() })
            .expect("start a PostgreSQL");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "the authority");
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("sign itself");
        fs::write(directory.path().join("root.pem"), authority.pem()).expect("write the root");
        let secured = Secured { postgres, port, authority, directory };
        secured.present("localhost", 4000);
        secured
    }

    /// A certificate for a name, signed by the authority, and its key; both in PEM.
    fn sign(&self, name: &str, until_year: i32) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until_year, 1, 2);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.authority).expect("sign");
        (certificate.pem(), key.serialize_pem())
    }

    /// PostgreSQL shows another certificate from now on.
    fn present(&self, name: &str, until_year: i32) {
        let mut admin = self.postgres.connect("postgres").expect("connect");
        let row = admin.query_one("SHOW data_directory", &[]).expect("ask");
        let data = PathBuf::from(row.get::<_, String>(0));
        let owner = fs::metadata(&data).expect("look at the directory");
        let (certificate, key) = self.sign(name, until_year);
        for (file, content) in
            [("server.crt", certificate), ("server.key", key), ("root.crt", self.authority.pem())]
        {
            let path = data.join(file);
            fs::write(&path, content).expect("write a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("keep it secret");
            chown(&path, Some(owner.uid()), Some(owner.gid())).expect("give it to PostgreSQL");
        }
        self.set("ssl_ca_file = 'root.crt'");
        self.set("ssl = on");
    }

    /// Changes a setting, and waits until the postmaster has read it.
    fn set(&self, setting: &str) {
        let loaded_at = || {
            let mut admin = self.postgres.connect("postgres").expect("connect");
            let row = admin.query_one("SELECT pg_conf_load_time()", &[]).expect("ask");
            row.get::<_, SystemTime>(0)
        };
        let before = loaded_at();
        let mut admin = self.postgres.connect("postgres").expect("connect");
        admin.batch_execute(&format!("ALTER SYSTEM SET {setting}")).expect("set");
        admin.batch_execute("SELECT pg_reload_conf()").expect("reload");
        // A session has the time from the postmaster that made it.
        wait_for("the postmaster", || (loaded_at() > before).then_some(()));
    }

    fn make_bank(&self) {
        self.postgres.create_database("rinha").expect("make the database");
        self.postgres.apply_sql("rinha", &workspace().join("sql")).expect("apply sql/*.sql");
        let mut admin = self.postgres.connect("rinha").expect("connect");
        for role in ["certified", "scram", "open"] {
            let sql = format!(
                "CREATE ROLE {role} LOGIN PASSWORD 'word'; \
                 GRANT SELECT, INSERT, UPDATE ON clientes, transacoes TO {role}"
            );
            admin.batch_execute(&sql).expect("make a role");
        }
    }

    fn root(&self) -> String {
        format!("sslrootcert={}", self.directory.path().join("root.pem").display())
    }

    fn url(&self, role: &str, host: &str, parameters: &str) -> String {
        format!("postgresql://{role}:word@{host}:{}/rinha?hostaddr=127.0.0.1&{parameters}", self.port)
    }
}

fn start(url: &str, readiness: Readiness) -> Instance {
    let mut options = options(url, &[("QUEUE_TIMEOUT_MS", "300")]);
    options.readiness = readiness;
    Instance::start(&options).expect("start the server")
}

fn assert_serves(url: &str) {
    let instance = start(url, Readiness::Healthy);
    let mut wire = Wire::connect(&instance.addresses().swap_remove(0));
    assert_eq!(wire.ask(transaction(1, 1, "c", "tls")).status, 200, "{url}");
    assert_eq!(wire.ask(get("/clientes/1/extrato")).status, 200, "{url}");
}

fn assert_refuses(url: &str, why: &str) {
    let instance = start(url, Readiness::Listening);
    wait_for(&format!("{why} in {}", instance.log()), || instance.log().contains(why).then_some(()));
    let mut wire = Wire::connect(&instance.addresses().swap_remove(0));
    assert_eq!(wire.ask(transaction(1, 1, "c", "tls")).status, 503, "{url}");
}

#[test]
fn every_mode_that_can_be_served_is_and_the_sessions_are_encrypted() {
    let secured = Secured::start();
    secured.make_bank();
    let root = secured.root();
    for parameters in [
        "sslmode=prefer",
        "sslmode=require",
        "sslmode=require&channel_binding=require",
        &format!("sslmode=verify-ca&{root}"),
        &format!("sslmode=verify-full&{root}&channel_binding=require&require_auth=scram-sha-256"),
    ] {
        assert_serves(&secured.url("scram", "localhost", parameters));
    }
    let instance = start(&secured.url("scram", "localhost", "sslmode=require"), Readiness::Healthy);
    let mut admin = secured.postgres.connect("rinha").expect("connect");
    let sessions = "SELECT bool_and(ssl), min(version) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                    WHERE usename = 'scram'";
    let row = admin.query_one(sessions, &[]).expect("ask");
    assert_eq!((row.get::<_, bool>(0), row.get::<_, String>(1).as_str()), (true, "TLSv1.3"));
    drop(instance);

    let (certificate, key) = secured.sign("certified", 4000);
    let write = |name: &str, content: String| -> String {
        let path: &Path = &secured.directory.path().join(name);
        fs::write(path, content).expect("write a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    };
    let (certificate, key) = (write("client.crt", certificate), write("client.key", key));
    let parameters = format!("sslmode=verify-full&{root}&sslcert={certificate}&sslkey={key}");
    assert_serves(&secured.url("certified", "localhost", &parameters));
    assert_refuses(&secured.url("certified", "localhost", "sslmode=require"), "certificate");
}

#[test]
fn the_tour_of_the_crate_goes_over_tls() {
    let secured = Secured::start();
    secured.make_bank();
    let parameters = format!("sslmode=verify-full&{}&channel_binding=require", secured.root());
    let mut said = Vec::new();
    let toured = tour::run(&secured.url("scram", "localhost", &parameters), &mut |line| said.push(line));
    toured.expect("the tour");
    assert!(said.iter().any(|line| line.ends_with("one_of_a_name is taken")), "{said:?}");
}

/// From PostgreSQL 17 on TLS may begin without being asked for. An older server takes the first bytes for a start-up message.
#[test]
fn each_way_to_begin_tls_is_served_by_the_servers_that_have_it() {
    let secured = Secured::start();
    secured.make_bank();
    let mut admin = secured.postgres.connect("rinha").expect("connect");
    let version = "SELECT current_setting('server_version_num')::int / 10000";
    let major: i32 = admin.query_one(version, &[]).expect("ask").get(0);
    let full = format!("sslmode=verify-full&{}&channel_binding=require", secured.root());
    assert_serves(&secured.url("scram", "localhost", &format!("{full}&sslnegotiation=postgres")));
    let direct = secured.url("scram", "localhost", &format!("{full}&sslnegotiation=direct"));
    if major < 17 {
        assert_refuses(&direct, "the server closed the connection");
        return;
    }
    assert_serves(&direct);
    let mut said = Vec::new();
    tour::run(&direct, &mut |line| said.push(line)).expect("the tour");
    assert!(said.iter().any(|line| line.ends_with("one_of_a_name is taken")), "{said:?}");
    // Nothing passes in the clear before, or instead.
    secured.set("ssl = off");
    assert_refuses(&direct, "the server closed the connection");
}

#[test]
fn a_server_that_cannot_be_believed_is_refused_by_name() {
    let secured = Secured::start();
    secured.make_bank();
    let root = secured.root();
    let full = format!("sslmode=verify-full&{root}");
    assert_refuses(
        &secured.url("scram", "bank.example", &full),
        "the certificate of bank.example: it is for another host",
    );
    assert_serves(&secured.url("scram", "bank.example", &format!("sslmode=verify-ca&{root}")));
    assert_refuses(&secured.url("scram", "localhost", "sslmode=disable"), "no encryption");
    assert_refuses(
        &secured.url("open", "localhost", "sslmode=require&channel_binding=require"),
        "channel_binding=require",
    );
    assert_refuses(
        &secured.url("open", "localhost", "sslmode=require&require_auth=scram-sha-256"),
        "the server asks for none, which require_auth leaves out",
    );
    secured.present("localhost", 2021);
    assert_refuses(
        &secured.url("scram", "localhost", &full),
        "the certificate of localhost: it expired on 2021-01-02T00:00:00Z",
    );
    secured.set("ssl = off");
    assert_refuses(&secured.url("scram", "localhost", "sslmode=require"), "the server has no TLS");
}

#[test]
fn a_setting_that_cannot_be_used_ends_the_server_at_once() {
    for (parameters, why) in [
        ("sslmode=verify-full", "sslrootcert"),
        ("sslmode=verify-full&sslrootcert=/nowhere/root.pem", "sslrootcert: /nowhere/root.pem: No such file"),
        ("sslnegotiation=direct", "sslnegotiation=direct needs sslmode require"),
        ("sslcert=/nowhere/client.crt", "sslkey: expected the file"),
        ("sslrootcert=system&sslmode=require", "sslmode: expected verify-full"),
        ("require_auth=scram-sha-256,!md5", "require_auth: expected"),
    ] {
        let url = format!("postgresql://alice@localhost/bank?{parameters}");
        let output = std::process::Command::new(support::SERVER)
            .env("DATABASE_URL", &url)
            .env("LISTEN", "127.0.0.1:0")
            .output()
            .expect("run the server");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{parameters}: {errors}");
        assert!(errors.contains(why) && errors.trim_end().lines().count() == 1, "{parameters}: {errors}");
    }
}
