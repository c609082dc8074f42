//! What the dashboards get their data from: Prometheus, its exporter for PostgreSQL, or InfluxDB.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use stress::process::{Launch, ports_of};
use stress::throwaway::Throwaway;
use stress::wait::Interrupt;
use stress::{Error, Service, http, install};

/// One of them, running on a free port of 127.0.0.1, with its data in a throwaway directory. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Observer {
    _service: Service,
    address: SocketAddr,
    /// Last, so that it is removed when the service has stopped.
    _directory: Throwaway,
}

impl Observer {
    /// Prometheus with this configuration.
    pub(crate) fn prometheus(configuration: &str) -> Result<Observer, Error> {
        let program = install::PROMETHEUS.require()?.program;
        let directory = Throwaway::new("prometheus")?;
        let file = directory.path().join("prometheus.yml");
        fs::write(&file, configuration).map_err(Error::io(format!("write {}", file.display())))?;
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", directory.path().join("data").display()),
            format!("--web.listen-address={ANY_PORT}"),
        ];
        Observer::start("prometheus", &program, &arguments, &[], directory, ("/-/ready", 200))
    }

    /// postgres-exporter for the database at `database_url`, a libpq URI with a query part, with the queries of a file
    /// besides its own.
    pub(crate) fn postgres_exporter(database_url: &str, queries: &Path) -> Result<Observer, Error> {
        let program = install::POSTGRES_EXPORTER.require()?.program;
        let directory = Throwaway::new("postgres-exporter")?;
        let arguments = [
            format!("--web.listen-address={ANY_PORT}"),
            format!("--extend.query-path={}", queries.display()),
        ];
        let environment = [("DATA_SOURCE_NAME", format!("{database_url}&sslmode=disable"))];
        Observer::start("postgres-exporter", &program, &arguments, &environment, directory, ("/metrics", 200))
    }

    /// InfluxDB without any database; whoever writes makes one.
    pub(crate) fn influxdb() -> Result<Observer, Error> {
        let program = install::INFLUXDB.require()?.program;
        let directory = Throwaway::new("influxdb")?;
        let data = |name: &str| directory.path().join(name).display().to_string();
        // Format: InfluxDB 1.8 documentation, "Configure InfluxDB": each setting is a variable, too.
        let environment = [
            ("INFLUXDB_HTTP_BIND_ADDRESS", ANY_PORT.to_owned()),
            ("INFLUXDB_BIND_ADDRESS", ANY_PORT.to_owned()),
            ("INFLUXDB_META_DIR", data("meta")),
            ("INFLUXDB_DATA_DIR", data("data")),
            ("INFLUXDB_DATA_WAL_DIR", data("wal")),
            ("INFLUXDB_REPORTING_DISABLED", "true".to_owned()),
        ];
        // Not the file of the system's own.
        let arguments = ["run", "-config", "/dev/null"].map(str::to_owned);
        Observer::start("influxdb", &program, &arguments, &environment, directory, ("/ping", 204))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it and waits until one of its ports answers the GET of this path with this status.
    fn start(
        name: &str,
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
        directory: Throwaway,
        (path, status): (&str, u16),
    ) -> Result<Observer, Error> {
        let service = Service::start(Launch {
            arguments: arguments.iter().map(OsString::from).collect(),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
                .collect(),
            stop_patience: STOP_PATIENCE,
            orphan_signal: "KILL",
            ..Launch::new(name, program, directory.path(), directory.path().join("log"))
        })?;
        let address = service.wait_ready(READY_PATIENCE, &Interrupt::default(), "is not ready", || {
            // It may have ended just now.
            let ports = ports_of(service.pid()).unwrap_or_default();
            let addresses = ports.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            let is_it = |address: &SocketAddr| {
                http::get_status(&address.to_string(), path).is_ok_and(|answered| answered == status)
            };
            Ok(addresses.into_iter().find(is_it))
        })?;
        Ok(Observer { _service: service, address, _directory: directory })
    }
}

const ANY_PORT: &str = "127.0.0.1:0";
const READY_PATIENCE: Duration = Duration::from_mins(1);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
