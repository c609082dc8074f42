//! CORE, simulation only: settings at random within small limits, so that every limit is met.

use crate::config::Config;
use crate::sim::scene::Scene;

/// More than a peer sends after a refusal.
pub(crate) const LINGER_LEN_AMPLE_BYTES: usize = 65_536;

/// A configuration as chance makes it: the core has to be right with any.
pub(crate) fn make(scene: &Scene) -> Config {
    let answer_timeout_ms = scene.between(100, 400);
    let reconnect_min_ms = scene.between(1, 10);
    let mut settings: Vec<(&str, u64)> = vec![
        ("LANES", scene.between(1, 3)),
        ("BATCH_CALLS_MAX", scene.one_of(&[1, 2, 3, 8, 64])),
        ("GROUP_CALLS_MIN", scene.one_of(&[2, 3, 4, 257])),
        ("GATHER_MS", scene.one_of(&[0, 1, 3])),
        ("BATCHES_IN_FLIGHT_MAX", scene.between(1, 3)),
        ("QUEUE_CALLS_MAX", scene.one_of(&[1, 2, 4, 64])),
        ("QUEUE_WAIT_MAX_MS", scene.between(1, 100)),
        ("QUEUE_TIMEOUT_MS", scene.between(5, 200)),
        ("ANSWER_TIMEOUT_MS", answer_timeout_ms),
        ("STATEMENT_TIMEOUT_MS", answer_timeout_ms / 2),
        ("LOCK_TIMEOUT_MS", scene.between(5, 100)),
        ("ATTEMPTS_MAX", scene.between(2, 4)),
        ("CONNECT_TIMEOUT_MS", scene.between(10, 100)),
        ("RECONNECT_MIN_MS", reconnect_min_ms),
        ("RECONNECT_MAX_MS", reconnect_min_ms + scene.between(0, 40)),
        ("PROBE_INTERVAL_MS", scene.between(10, 300)),
        ("READ_STALENESS_MAX_MS", scene.one_of(&[10, 50, 200, 1_000])),
        ("LANE_INBOX_LEN_BYTES", 8_192),
        ("CLIENTS_MAX", scene.one_of(&[1, 2, 4, 16])),
        ("INBOX_LEN_BYTES", scene.between(256, 512)),
        ("OUTBOX_LEN_MAX_BYTES", 1_024),
        ("HEAD_LEN_MAX_BYTES", 512),
        ("TARGET_LEN_MAX_BYTES", 128),
        ("BODY_LEN_MAX_BYTES", 512),
        ("HEAD_TIMEOUT_MS", scene.between(50, 400)),
        ("BODY_TIMEOUT_MS", scene.between(50, 400)),
        ("IDLE_TIMEOUT_MS", scene.between(50, 600)),
        ("SEND_TIMEOUT_MS", scene.between(50, 400)),
        ("LINGER_TIMEOUT_MS", scene.between(20, 200)),
        ("LINGER_LEN_MAX_BYTES", scene.one_of(&[0, 64, LINGER_LEN_AMPLE_BYTES as u64])),
        ("TURN_READ_BYTES", 1_024),
        ("TURN_ACCEPTS_MAX", scene.between(1, 4)),
        ("DRAIN_TIMEOUT_MS", scene.between(100, 1_000)),
        ("DRAIN_IDLE_MS", scene.between(0, 100)),
    ];
    settings.sort_unstable();
    scene.tell(|| format!("{settings:?}"));
    // With `any`, the lane has to find out that a session cannot write.
    let attrs = scene.one_of(&["any", "read-write", "primary"]);
    let url = format!("postgresql://bank@/rinha?host=/run/a,/run/b&target_session_attrs={attrs}");
    let reader = scene.one_of(&[None, None, Some("any"), Some("standby"), Some("prefer-standby")]);
    let reader = reader
        .map(|attrs| format!("postgresql://bank@/rinha?host=/run/b,/run/a&target_session_attrs={attrs}"));
    scene.tell(|| format!("the reader goes to {reader:?}"));
    with_urls(&url, reader.as_deref(), &settings)
}

/// A configuration with these settings, and the default of all others.
///
/// # Panics
/// When one of them is out of its range, or they contradict each other.
pub(crate) fn of(settings: &[(&str, u64)]) -> Config {
    with_urls("postgresql://bank@/rinha?host=/run/a", None, settings)
}

fn with_urls(url: &str, reader: Option<&str>, settings: &[(&str, u64)]) -> Config {
    let variable = |name: &str| match name {
        "DATABASE_URL" => Some(url.to_owned()),
        "DATABASE_URL_READ" => reader.map(str::to_owned),
        "LISTEN" => Some("127.0.0.1:0".to_owned()),
        _ => settings.iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_string()),
    };
    match Config::from_environment(variable) {
        Ok(config) => config,
        Err(error) => panic!("the settings of the simulation are wrong: {error}"),
    }
}
