//! One host of the database: a member of etcd, and PostgreSQL under Patroni.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres::{Client, NoTls};
use serde_json::{Value, json};

use super::Network;
use super::authority::{Authority, Identity, own};
use super::network::kill_all;
use crate::process::user::User;
use crate::process::{Launch, Service};
use crate::stack::remove_segment;
use crate::{Error, Workplace, files, install};

#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub network: &'a Network,
    pub names: &'a [&'a str],
    /// Where `patroni` and `patronictl` are.
    pub patroni: &'a Path,
    /// Of each role.
    pub password: &'a str,
    pub place: &'a Workplace,
}

#[derive(Debug)]
pub struct Node {
    pub name: String,
    namespace: String,
    home: PathBuf,
    user: Option<User>,
    patroni_program: PathBuf,
    etcd_arguments: Vec<OsString>,
    pub(super) etcd: Option<Service>,
    pub(super) patroni: Option<Service>,
    logs: PathBuf,
}

impl Node {
    /// Writes the configuration; nothing is started.
    pub(super) fn new(
        name: &str,
        plan: &Plan<'_>,
        authority: &Authority,
        directory: &Path,
    ) -> Result<Node, Error> {
        let user = User::for_postgres()?;
        let home = directory.join(name);
        files::make_directory(&home)?;
        own(&home, 0o700, user.as_ref())?;
        let addresses = [plan.network.address(name), plan.network.database_address(name)];
        let identity = authority.sign(name, addresses, &home, user.as_ref())?;
        let bin = fs::canonicalize(install::POSTGRES.require()?.program);
        let bin = bin.map_err(Error::io("find the programs of PostgreSQL"))?;
        let bin = bin.parent().unwrap_or(Path::new("/")).to_owned();
        let configuration = patroni_configuration(name, plan, &identity, &home, &bin);
        let path = files::write(home.join("patroni.yml"), configuration.to_string())?;
        own(&path, 0o600, user.as_ref())?;
        Ok(Node {
            name: name.to_owned(),
            namespace: plan.network.namespace(name),
            user,
            patroni_program: plan.patroni.join("patroni"),
            etcd_arguments: etcd_arguments(name, plan, &identity, &home),
            etcd: None,
            patroni: None,
            logs: plan.place.logs.clone(),
            home,
        })
    }

    pub fn configuration(&self) -> PathBuf {
        self.home.join("patroni.yml")
    }

    pub(super) fn start_etcd(&mut self) -> Result<(), Error> {
        if self.etcd.as_ref().is_none_or(Service::has_exited) {
            let (program, arguments) = (install::ETCD.require()?.program, self.etcd_arguments.clone());
            self.etcd = Some(self.start("etcd", &program, arguments, ETCD_STOP_PATIENCE)?);
        }
        Ok(())
    }

    pub(super) fn start_patroni(&mut self) -> Result<(), Error> {
        if self.patroni.as_ref().is_none_or(Service::has_exited) {
            let arguments = vec![self.configuration().into_os_string()];
            let program = self.patroni_program.clone();
            self.patroni = Some(self.start("patroni", &program, arguments, PATRONI_STOP_PATIENCE)?);
        }
        Ok(())
    }

    fn start(
        &self,
        what: &str,
        program: &Path,
        arguments: Vec<OsString>,
        stop_patience: Duration,
    ) -> Result<Service, Error> {
        let name = format!("{what}-{}", self.name);
        Service::start(Launch {
            arguments,
            // libpq looks for certificates there, and may not look into root's.
            environment: vec![("HOME".to_owned(), self.home.clone().into_os_string())],
            user: self.user.as_ref(),
            namespace: Some(&self.namespace),
            stop_patience,
            ..Launch::new(&name, program, &self.home, self.logs.join(format!("{name}.log")))
        })
    }

    /// A session of the superuser over the Unix socket, which no broken network gets in the way of.
    pub fn connect(&self, database: &str) -> Result<Client, Error> {
        let url = self.url(database);
        Client::connect(&url, NoTls).map_err(Error::sql(url))
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@/{database}?host={}", self.home.display())
    }

    /// The timeline of a primary; `None` of a standby, and where none answers.
    pub fn primary_timeline(&self) -> Option<i32> {
        let mut client = self.connect("postgres").ok()?;
        client.query_one(TIMELINE_OF_PRIMARY, &[]).ok()?.get(0)
    }

    pub fn postmaster_pid(&self) -> Option<u32> {
        fs::read_to_string(self.home.join("data/postmaster.pid")).ok()?.lines().next()?.parse().ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.patroni.take());
        // A PostgreSQL whose Patroni was killed has nobody who stops it.
        kill_all(&self.namespace);
        remove_segment(&self.home.join("data"));
    }
}

/// Format: etcd documentation, "Configuration flags" and "Transport security model".
fn etcd_arguments(name: &str, plan: &Plan<'_>, identity: &Identity, home: &Path) -> Vec<OsString> {
    let address = plan.network.address(name);
    let members = plan.names.iter().map(|name| format!("{name}=https://{}:2380", plan.network.address(name)));
    let (client, peer) = (format!("https://{address}:2379"), format!("https://{address}:2380"));
    let data = home.join("etcd").display().to_string();
    let mut arguments = vec![
        ("--name", name.to_owned()),
        ("--data-dir", data),
        ("--listen-client-urls", client.clone()),
        ("--advertise-client-urls", client),
        ("--listen-peer-urls", peer.clone()),
        ("--initial-advertise-peer-urls", peer),
        ("--initial-cluster", members.collect::<Vec<_>>().join(",")),
        ("--logger", "zap".to_owned()),
    ];
    for flags in [
        ["--trusted-ca-file", "--cert-file", "--key-file"],
        ["--peer-trusted-ca-file", "--peer-cert-file", "--peer-key-file"],
    ] {
        let values = [&identity.root, &identity.certificate, &identity.key];
        arguments.extend(flags.into_iter().zip(values.map(String::clone)));
    }
    let arguments = arguments.into_iter().map(|(flag, value)| OsString::from(format!("{flag}={value}")));
    arguments.chain(["--client-cert-auth".into(), "--peer-client-cert-auth".into()]).collect()
}

/// Format: Patroni documentation, "YAML Configuration Settings"; JSON is YAML.
fn patroni_configuration(name: &str, plan: &Plan<'_>, identity: &Identity, home: &Path, bin: &Path) -> Value {
    let address = plan.network.address(name);
    let range = plan.network.range();
    let Identity { root, certificate, key } = identity;
    let etcd: Vec<String> =
        plan.names.iter().map(|name| format!("{}:2379", plan.network.address(name))).collect();
    let password = plan.password;
    let role = |name: &str| json!({ "username": name, "password": password, "sslmode": "verify-full", "sslrootcert": root });
    json!({
        "scope": SCOPE,
        "name": name,
        "restapi": {
            "listen": format!("{address}:8008"), "connect_address": format!("{address}:8008"),
            "certfile": certificate, "keyfile": key, "cafile": root, "verify_client": "required",
        },
        "ctl": { "cacert": root, "certfile": certificate, "keyfile": key },
        "etcd3": { "hosts": etcd, "protocol": "https", "cacert": root, "cert": certificate, "key": key },
        "bootstrap": {
            "dcs": {
                "ttl": 20,
                // How long a crashed postmaster can go unnoticed. 2 and twice 5 fit into 20, as Patroni asks for.
                "loop_wait": 2,
                "retry_timeout": 5,
                // A primary that crashed is replaced, not waited for.
                "primary_start_timeout": 0,
                // A commit waits for one of two standbys, and Patroni promotes none that may lack an acknowledged row.
                "synchronous_mode": "quorum",
                "postgresql": { "use_pg_rewind": true },
            },
            "initdb": [{ "encoding": "UTF8" }, { "locale": "C" }, "data-checksums"],
        },
        "postgresql": {
            "listen": format!("{address}:5432"),
            "connect_address": format!("{}:5432", plan.network.database_address(name)),
            "data_dir": home.join("data"),
            "bin_dir": bin,
            "pgpass": home.join("pgpass"),
            "use_unix_socket": true,
            "use_unix_socket_repl": true,
            "authentication": { "superuser": { "username": "postgres", "password": password },
                "replication": role("replicator"), "rewind": role("rewinder") },
            "parameters": {
                "unix_socket_directories": home,
                "ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key, "ssl_ca_file": root,
                "shared_buffers": "64MB", "jit": "off", "dynamic_shared_memory_type": "mmap",
                // A standby that hears nothing for so long asks again; the default is a minute.
                "wal_receiver_timeout": "5s", "wal_sender_timeout": "5s",
            },
            "pg_hba": [
                // Of a directory that is this user's alone.
                "local all all trust",
                "local replication all trust",
                format!("hostssl replication replicator {range} scram-sha-256"),
                format!("hostssl all all {range} scram-sha-256"),
            ],
        },
    })
}

pub(super) const SCOPE: &str = "bank";
const TIMELINE_OF_PRIMARY: &str = "SELECT CASE WHEN NOT pg_is_in_recovery() \
    THEN ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END";
const ETCD_STOP_PATIENCE: Duration = Duration::from_secs(5);
/// It stops PostgreSQL first.
const PATRONI_STOP_PATIENCE: Duration = Duration::from_secs(20);
