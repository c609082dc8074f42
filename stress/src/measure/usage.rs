//! What each service used, from the account of its group.

use std::time::Duration;

use super::report::Part;
use crate::Bank;
use crate::cgroup::Account;
use crate::table::float;

/// One service at one moment; `None` where the kernel keeps no account.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    name: String,
    cpu: Option<Duration>,
    memory_peak_bytes: Option<u64>,
}

/// All parts of a bank.
pub(crate) fn usage_of(bank: &Bank) -> Vec<Usage> {
    let usage = |(name, account): &(String, Option<Account>)| Usage {
        name: name.clone(),
        cpu: account.as_ref().and_then(|account| account.cpu_usage().ok()),
        memory_peak_bytes: account.as_ref().and_then(|account| account.memory_peak_bytes().ok()),
    };
    bank.parts.iter().map(usage).collect()
}

/// The difference of two moments, shared out among the requests that were answered between them.
pub(crate) fn parts(before: &[Usage], after: &[Usage], requests: u64) -> Vec<Part> {
    let part = |(before, after): (&Usage, &Usage)| {
        let used = after.cpu.zip(before.cpu).map(|(after, before)| after.saturating_sub(before));
        Part {
            name: after.name.clone(),
            cpu_us_per_request: used
                .filter(|_| requests > 0)
                .map(|used| used.as_secs_f64() * 1e6 / float(requests)),
            memory_peak_bytes: after.memory_peak_bytes,
        }
    };
    before.iter().zip(after).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_shared_out_among_the_requests() {
        let at = |cpu_ms, peak| Usage {
            name: "nginx".to_owned(),
            cpu: Some(Duration::from_millis(cpu_ms)),
            memory_peak_bytes: Some(peak),
        };
        let parts = parts(&[at(100, 5)], &[at(300, 9)], 10_000);
        assert!((parts[0].cpu_us_per_request.unwrap() - 20.0).abs() < 1e-9);
        assert_eq!(parts[0].memory_peak_bytes, Some(9));
    }

    #[test]
    fn without_an_account_or_requests_there_is_no_figure() {
        let unknown = [Usage { name: "nginx".to_owned(), cpu: None, memory_peak_bytes: None }];
        assert_eq!(parts(&unknown, &unknown, 5)[0].cpu_us_per_request, None);
        let known = [Usage { name: "nginx".to_owned(), cpu: Some(Duration::ZERO), memory_peak_bytes: None }];
        assert_eq!(parts(&known, &known, 0)[0].cpu_us_per_request, None);
    }
}
