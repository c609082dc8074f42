//! How the 1.5 CPU and 550 MB of the challenge are split among the four services.

use clap::ValueEnum;

use crate::cgroup::Limits;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Split {
    /// As in the challenge.
    #[default]
    Default,
    /// The same sums, for more requests per second.
    Tuned,
    /// No limits.
    None,
}

impl Split {
    /// The limits of each service by name; empty when there are none.
    pub fn limits(self) -> &'static [(&'static str, Limits)] {
        match self {
            Split::Default => &LIMITS,
            Split::Tuned => &TUNED_LIMITS,
            Split::None => &[],
        }
    }

    /// One line: `nginx 0.2 CPU 20 MB, webapi1 0.4 CPU 100 MB, ...`.
    pub fn describe(self) -> String {
        let of_one = |(service, limits): &(&str, Limits)| {
            let cpu = f64::from(limits.cpu_thousandths) / 1000.0;
            format!("{service} {cpu} CPU {} MB", limits.memory_bytes >> 20)
        };
        self.limits().iter().map(of_one).collect::<Vec<_>>().join(", ")
    }
}

/// What each service may use, by name: 1.5 CPU and 550 MB together, the limits of the challenge.
pub const LIMITS: [(&str, Limits); 4] = [
    (BALANCER, Limits { cpu_thousandths: 200, memory_bytes: 20 << 20 }),
    (WEBAPIS[0], Limits { cpu_thousandths: 400, memory_bytes: 100 << 20 }),
    (WEBAPIS[1], Limits { cpu_thousandths: 400, memory_bytes: 100 << 20 }),
    (DB, Limits { cpu_thousandths: 500, memory_bytes: 330 << 20 }),
];

/// The same sums in proportion to what a request costs in each service. `compose/tuned.yml` has the same figures.
pub const TUNED_LIMITS: [(&str, Limits); 4] = [
    (BALANCER, Limits { cpu_thousandths: 550, memory_bytes: 20 << 20 }),
    (WEBAPIS[0], Limits { cpu_thousandths: 200, memory_bytes: 100 << 20 }),
    (WEBAPIS[1], Limits { cpu_thousandths: 200, memory_bytes: 100 << 20 }),
    (DB, Limits { cpu_thousandths: 550, memory_bytes: 330 << 20 }),
];

/// Named after the usual one; another has its limits.
pub(crate) const BALANCER: &str = "nginx";
pub(crate) const WEBAPI: &str = "webapi";
pub(crate) const WEBAPIS: [&str; 2] = ["webapi1", "webapi2"];
pub(crate) const DB: &str = "postgresql";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::compile;

    #[test]
    fn both_splits_share_out_what_the_challenge_gives() {
        for split in [Split::Default, Split::Tuned] {
            let limits = || split.limits().iter().map(|(_, limits)| limits);
            let cpu_thousandths: u32 = limits().map(|limits| limits.cpu_thousandths).sum();
            let memory_bytes: u64 = limits().map(|limits| limits.memory_bytes).sum();
            assert_eq!((cpu_thousandths, memory_bytes), (1500, 550 << 20), "{split}");
        }
        assert!(Split::Default.describe().starts_with("nginx 0.2 CPU 20 MB, webapi1 0.4 CPU 100 MB"));
    }

    #[test]
    fn the_container_stack_has_the_same_figures() {
        let file = |name: &str| fs::read_to_string(compile::workspace().join(name)).unwrap();
        let base = file("docker-compose.yml");
        assert_eq!(
            (figures(&base, "nginx"), figures(&base, "x-webapi"), figures(&base, "db")),
            (as_compose(&LIMITS[0].1), as_compose(&LIMITS[1].1), as_compose(&LIMITS[3].1))
        );
        let tuned = file("compose/tuned.yml");
        for (service, limits) in &TUNED_LIMITS {
            let service = if *service == DB { "db" } else { service };
            assert_eq!(figures(&tuned, service), as_compose(limits), "{service}");
        }
        let short = file("compose/short-period.yml");
        for (service, limits) in &LIMITS {
            let service = if *service == DB { "db" } else { service };
            let quota_us = limits.cpu_thousandths * 10;
            let memory = as_compose(limits).1;
            let expected = format!(
                "  {service}:\n    cpu_period: 10000\n    cpu_quota: {quota_us}\n    deploy: !override\n      resources:\n        \
                 limits:\n          memory: {memory}\n"
            );
            assert!(short.contains(&expected), "{service}");
        }
    }

    fn as_compose(limits: &Limits) -> (String, String) {
        let cpus = f64::from(limits.cpu_thousandths) / 1000.0;
        (cpus.to_string(), format!("{}MB", limits.memory_bytes >> 20))
    }

    /// `cpus` and `memory` of one service: the first ones below its name, which ends a line of its own.
    fn figures(compose: &str, service: &str) -> (String, String) {
        let is_name = |line: &str| {
            let name = line.strip_prefix("  ").unwrap_or(line).split(": &").next().unwrap_or_default();
            name.trim_end_matches(':') == service
        };
        let mut lines = compose.lines().skip_while(|line| !is_name(line));
        let mut value_of = |wanted: &str| {
            let value = lines.find_map(|line| line.trim().strip_prefix(wanted)?.strip_prefix(": ")).unwrap();
            value.trim_matches('"').to_owned()
        };
        (value_of("cpus"), value_of("memory"))
    }
}
