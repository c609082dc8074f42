//! Asks Prometheus and InfluxDB over their HTTP interfaces.

use std::net::SocketAddr;

use serde_json::Value;
use stress::http;

use crate::support::wire::PATIENCE;

/// The samples of an instant query; those that are no number are left out.
///
/// Format: Prometheus documentation, "HTTP API", section Instant queries.
pub(crate) fn prometheus(address: SocketAddr, query: &str) -> Vec<f64> {
    let answer = get(address, &format!("/api/v1/query?query={}", encoded(query)));
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    let series = answer["data"]["result"].as_array().expect("a vector");
    let values = series.iter().map(|series| series["value"][1].as_str().expect("a sample"));
    values.map(|value| value.parse().expect("a number")).filter(|value: &f64| !value.is_nan()).collect()
}

/// How many rows of a query have a value.
///
/// Format: InfluxDB 1.8 documentation, "InfluxDB API", section `/query`. The first column is the time, or the key.
pub(crate) fn influxdb(address: SocketAddr, query: &str) -> usize {
    let answer = get(address, &format!("/query?db=k6&q={}", encoded(query)));
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
    assert!(results.iter().all(|result| result["error"].is_null()), "{query}: {answer}");
    let series = results.iter().filter_map(|result| result["series"].as_array()).flatten();
    let rows = series.filter_map(|series| series["values"].as_array()).flatten();
    rows.filter(|row| row.as_array().is_some_and(|row| row.len() > 1 && !row[1].is_null())).count()
}

fn get(address: SocketAddr, target: &str) -> Value {
    let answer = http::get(&address.to_string(), target, PATIENCE);
    let (_status, json) = answer.unwrap_or_else(|error| panic!("{target}: {error}"));
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{target}: {error}: {json}"))
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}
