//! One server over a database of its own.

use std::env;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use stress::postgres::Client;
use stress::throwaway::Throwaway;
use stress::wait::{self, Interrupt};
use stress::{Balancer, BalancerOptions, Instance, InstanceOptions, Readiness};

use crate::support::{Answer, Database, Edge, Wire, get, transaction, workspace};

/// The binary under test.
pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_rinha");

/// What a [`Bank`] of a test runs: [`SERVER`], or the binary that `SERVER_UNDER_TEST` names, as the one of a peer.
fn under_test() -> PathBuf {
    env::var_os("SERVER_UNDER_TEST").unwrap_or_else(|| SERVER.into()).into()
}

/// Settings under which a test can hold a row lock as long as it likes.
pub(crate) const PATIENT: [(&str, &str); 5] = [
    ("LOCK_TIMEOUT_MS", "60000"),
    ("STATEMENT_TIMEOUT_MS", "60000"),
    ("ANSWER_TIMEOUT_MS", "61000"),
    ("QUEUE_TIMEOUT_MS", "60000"),
    ("DRAIN_TIMEOUT_MS", "60000"),
];

/// Waits until `probe` gives a value. For what is going to happen: a test never waits for a mere time.
pub(crate) fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    wait::until(Duration::from_secs(30), &Interrupt::default(), || Ok(probe()))
        .expect("nothing interrupts")
        .unwrap_or_else(|| panic!("still waiting: {what}"))
}

/// Locks a client's row until the connection is dropped or its transaction ends.
pub(crate) fn unsent_lock(database: &Database, account: i32) -> Client {
    let mut stranger = database.connect();
    let lock = format!("BEGIN; SELECT 1 FROM clientes WHERE id = {account} FOR UPDATE");
    stranger.batch_execute(&lock).expect("lock a row");
    stranger
}

/// A running server, and its database. Dropped in this order.
pub(crate) struct Bank {
    pub(crate) edge: Edge,
    nginx: Option<Balancer>,
    pub(crate) instance: Instance,
    /// The second instance behind nginx.
    twin: Option<Instance>,
    pub(crate) database: Database,
    _sockets: Option<Throwaway>,
}

impl Bank {
    /// With the default settings.
    pub(crate) fn open() -> Bank {
        Bank::with(&[])
    }

    /// With these settings.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Bank {
        Bank::over(Database::new(), settings)
    }

    /// Over this database.
    pub(crate) fn over(database: Database, settings: &[(&str, &str)]) -> Bank {
        Bank::start(database, settings, |_| {})
    }

    /// With everything that can be chosen.
    pub(crate) fn start(
        database: Database,
        settings: &[(&str, &str)],
        change: impl FnOnce(&mut InstanceOptions),
    ) -> Bank {
        let mut options = options(&database.url(), settings);
        change(&mut options);
        let instance = Instance::start(&options).expect("start the server");
        Bank { edge: Edge::Direct, nginx: None, instance, twin: None, database, _sockets: None }
    }

    /// Two instances behind nginx with this file of `nginx/`.
    pub(crate) fn behind_nginx(edge: Edge, configuration: &str, settings: &[(&str, &str)]) -> Bank {
        let database = Database::new();
        let directory = Throwaway::new("bank").expect("make a directory");
        let sockets = ["webapi1", "webapi2"].map(|name| directory.path().join(format!("{name}.sock")));
        let [instance, twin] = sockets.each_ref().map(|socket| {
            let listen = vec![format!("unix:{}", socket.display())];
            let options = InstanceOptions { listen, ..options(&database.url(), settings) };
            Instance::start(&options).expect("start an instance")
        });
        let template = workspace().join("nginx").join(configuration);
        let nginx = Balancer::start(&BalancerOptions::nginx(template, sockets)).expect("start nginx");
        Bank { edge, nginx: Some(nginx), instance, twin: Some(twin), database, _sockets: Some(directory) }
    }

    /// nginx's address if there is one, else the first of `LISTEN`.
    pub(crate) fn address(&self) -> String {
        match &self.nginx {
            Some(nginx) => nginx.address().to_string(),
            None => self.instance.addresses().swap_remove(0),
        }
    }

    /// The same, of a bank that listens on TCP.
    pub(crate) fn socket_address(&self) -> SocketAddr {
        self.address().parse().expect("an address")
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Wire {
        Wire::connect(&self.address())
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        self.connect().ask(request)
    }

    /// One transaction on a connection of its own.
    pub(crate) fn transact(&self, account: i32, value: i64, kind: &str, description: &str) -> Answer {
        self.ask(transaction(account, value, kind, description))
    }

    /// The answers to these requests, which share one batch in this order: they come while another one waits for a lock, under
    /// settings as [`PATIENT`].
    pub(crate) fn in_one_batch(&self, requests: impl IntoIterator<Item = Vec<u8>>) -> Vec<Answer> {
        let stranger = unsent_lock(&self.database, 5);
        let mut blocked = self.connect();
        blocked.send(transaction(5, 1, "c", "blocked"));
        self.wait_blocked();
        let mut wires = Vec::new();
        for (request, queued) in requests.into_iter().zip(1..) {
            let mut wire = self.connect();
            wire.send(request);
            self.wait_metric("rinha_calls_queued", queued);
            wires.push(wire);
        }
        drop(stranger);
        assert_eq!(blocked.answer().status, 200);
        wires.iter_mut().map(Wire::answer).collect()
    }

    /// A client's statement.
    pub(crate) fn statement(&self, account: i32) -> Value {
        let answer = self.ask(get(&format!("/clientes/{account}/extrato")));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The descriptions of a client's newest transactions, newest first.
    pub(crate) fn descriptions(&self, account: i32) -> Vec<String> {
        let statement = self.statement(account);
        let transactions = statement["ultimas_transacoes"].as_array().expect("a list");
        transactions.iter().map(|t| t["descricao"].as_str().expect("a text").to_owned()).collect()
    }

    /// The text of its metrics.
    pub(crate) fn metrics(&self) -> String {
        metrics_of(&self.instance)
    }

    /// The value of one series, the sum over the instances; 0 if it is not there.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let instances = [Some(&self.instance), self.twin.as_ref()];
        instances.into_iter().flatten().map(|instance| value_of(series, &metrics_of(instance))).sum()
    }

    /// Waits until a series has this value.
    pub(crate) fn wait_metric(&self, series: &str, value: u64) {
        wait_for(&format!("{series} {value}"), || (self.metric(series) == value).then_some(()));
    }

    /// Locks a client's row and sends a credit of 1 that waits for it: the lock, and the connection that awaits the answer.
    pub(crate) fn block(&self, account: i32, description: &str) -> (Client, Wire) {
        let lock = unsent_lock(&self.database, account);
        let mut wire = self.connect();
        wire.send(transaction(account, 1, "c", description));
        self.wait_blocked();
        (lock, wire)
    }

    /// Waits until a statement of the server waits for a lock that a test holds.
    pub(crate) fn wait_blocked(&self) {
        let mut client = self.database.connect();
        let waiting =
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        wait_for("a statement that waits for a lock", || {
            client.query(waiting, &[]).expect("look at pg_stat_activity").pop().map(drop)
        });
    }

    /// Waits until `/healthz` answers this.
    pub(crate) fn wait_health(&self, status: u16) {
        wait_for(&format!("health {status}"), || (self.ask(get("/healthz")).status == status).then_some(()));
    }
}

/// The text of an instance's metrics.
pub(crate) fn metrics_of(instance: &Instance) -> String {
    let address = instance.metrics_address().expect("METRICS_LISTEN is set");
    let answer = Wire::connect(&address).ask(get("/metrics"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().to_owned()
}

/// The value of one series in it; 0 if it is not there.
pub(crate) fn value_of(series: &str, metrics: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let values: Vec<&str> = values.collect();
    match values.as_slice() {
        [] => 0,
        [value] => value.parse().unwrap_or_else(|_| panic!("{series} {value}")),
        more => panic!("{series} is there more than once: {more:?}"),
    }
}

/// One instance on free ports.
pub(crate) fn options(url: &str, settings: &[(&str, &str)]) -> InstanceOptions {
    let environment =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    InstanceOptions { environment, readiness: Readiness::Healthy, ..InstanceOptions::new(under_test(), url) }
}

/// Both are equal, or the difference is shown with what was asked.
pub(crate) fn assert_same<T: PartialEq + Debug>(left: &T, right: &T, asked: &[u8]) {
    assert_eq!(left, right, "asked {:?}", String::from_utf8_lossy(asked));
}
