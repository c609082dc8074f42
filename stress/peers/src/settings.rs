//! Where a peer finds its database and listens: the same variables as the server's.

use std::env;

#[derive(Debug, Clone)]
pub struct Settings {
    /// `DATABASE_URL`: as libpq takes it.
    pub database_url: String,
    /// `LISTEN`: `host:port`, `unix:/path/to.sock`.
    pub(crate) listen: Vec<String>,
    /// `METRICS_LISTEN`: `host:port`.
    pub(crate) metrics_listen: Option<String>,
}

impl Settings {
    pub fn from_env() -> Result<Settings, String> {
        let required = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
        Ok(Settings {
            database_url: required("DATABASE_URL")?,
            listen: required("LISTEN")?.split(',').map(str::to_owned).collect(),
            metrics_listen: env::var("METRICS_LISTEN").ok(),
        })
    }
}
