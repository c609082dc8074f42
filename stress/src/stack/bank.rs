//! A bank that runs, ours or not.

use postgres::{Client, NoTls};

use super::{DATABASE, Stack};
use crate::Error;
use crate::cgroup::Account;

/// A bank that runs: where requests go, and where its counts, its books and its accounts are read.
#[derive(Debug, Clone)]
pub struct Bank {
    /// Where requests go: a URL without a path.
    pub url: String,
    /// Where each instance tells what it has counted: `host:port`.
    pub metrics: Vec<String>,
    /// Where the ledger is, as libpq takes it: a URI or `key=value` pairs.
    pub database_url: String,
    /// Its processes by name, in the order in which a request meets them, each with what it used where that is known.
    pub parts: Vec<(String, Option<Account>)>,
}

impl Bank {
    /// A stack of ours, through nginx.
    pub fn of(stack: &Stack) -> Bank {
        Bank::at(&stack.address().to_string(), stack)
    }

    /// The first instance of a stack of ours, without nginx.
    pub fn direct(stack: &Stack) -> Bank {
        // Its TCP address: the last of LISTEN.
        Bank::at(&stack.instances[0].addresses().pop().unwrap_or_default(), stack)
    }

    fn at(address: &str, stack: &Stack) -> Bank {
        let metrics = stack.instances.iter().map(|instance| instance.metrics_address().unwrap_or_default());
        let parts = stack
            .services()
            .into_iter()
            .map(|service| (service.name().to_owned(), service.group().map(|group| group.account().clone())));
        Bank {
            url: format!("http://{address}"),
            metrics: metrics.collect(),
            database_url: stack.postgres.url(DATABASE),
            parts: parts.collect(),
        }
    }

    pub(crate) fn connect(&self) -> Result<Client, Error> {
        Client::connect(&self.database_url, NoTls).map_err(Error::sql("the bank's database"))
    }
}
