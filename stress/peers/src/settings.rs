//! Where a peer finds its database and listens: the same variables as the server's.

use std::env;
use std::path::PathBuf;

#[derive(Debug, Clone)]
pub struct Settings {
    /// `DATABASE_URL`: as libpq takes it.
    pub database_url: String,
    /// `LISTEN`.
    pub(crate) listen: Vec<Address>,
    /// `METRICS_LISTEN`: `host:port`.
    pub(crate) metrics_listen: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// `host:port`.
    Tcp(String),
    Unix(PathBuf),
}

impl Settings {
    pub fn from_env() -> Result<Settings, String> {
        let required = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
        let address = |text: &str| {
            text.strip_prefix("unix:")
                .map_or_else(|| Address::Tcp(text.into()), |path| Address::Unix(path.into()))
        };
        Ok(Settings {
            database_url: required("DATABASE_URL")?,
            listen: required("LISTEN")?.split(',').map(address).collect(),
            metrics_listen: env::var("METRICS_LISTEN").ok(),
        })
    }
}
