//! A bank that runs, ours or not.

use postgres::{Client, NoTls};

use super::{DATABASE, Stack};
use crate::cgroup::Account;
use crate::{Error, Service};

/// A bank that runs: where requests go, and where its counts, its books and its accounts are read.
#[derive(Debug, Clone)]
pub struct Bank {
    /// Where requests go, URLs without a path: connections take them in turn.
    pub urls: Vec<String>,
    /// Where each instance tells what it has counted: `host:port`.
    pub metrics: Vec<String>,
    /// Where the ledger is, as libpq takes it: a URI or `key=value` pairs; both, where accounts are split.
    pub database_urls: Vec<String>,
    /// Its processes by name, in the order in which a request meets them, each with what it used where that is known.
    pub parts: Vec<(String, Option<Account>)>,
}

impl Bank {
    /// A stack of ours, through its balancer.
    pub fn of(stack: &Stack) -> Bank {
        Bank::at(&[stack.address().to_string()], stack)
    }

    /// The first so many instances of a stack of ours, without its balancer.
    pub fn direct(stack: &Stack, instances: usize) -> Bank {
        // Its TCP address: the last of LISTEN.
        let addresses = stack.instances.iter().filter_map(|instance| instance.addresses().pop());
        Bank::at(&addresses.take(instances).collect::<Vec<_>>(), stack)
    }

    fn at(addresses: &[String], stack: &Stack) -> Bank {
        let metrics = stack.instances.iter().map(|instance| instance.metrics_address().unwrap_or_default());
        let part = |service: &Service| {
            (service.name.clone(), service.group.as_ref().map(|group| group.account.clone()))
        };
        Bank {
            urls: addresses.iter().map(|address| format!("http://{address}")).collect(),
            metrics: metrics.collect(),
            database_urls: stack.databases().map(|postgres| postgres.url(DATABASE)).collect(),
            parts: stack.services().into_iter().map(part).collect(),
        }
    }

    pub(crate) fn connect(&self) -> Result<Vec<Client>, Error> {
        let connect = |url: &String| Client::connect(url, NoTls).map_err(Error::sql("the bank's database"));
        self.database_urls.iter().map(connect).collect()
    }
}
