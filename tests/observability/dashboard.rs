//! A dashboard of Grafana as a test sees it: its panels, and every query with the variables filled in.
//!
//! Format: Grafana documentation, "Dashboard JSON model".

use std::fmt::{self, Debug, Formatter};
use std::fs;

use serde_json::Value;

use crate::support::workspace;

/// Every dashboard that Grafana is given, by file name.
pub(crate) fn all() -> Vec<(String, Value)> {
    let directory = workspace().join("observability/grafana/dashboards");
    let entries = fs::read_dir(&directory).expect("list the dashboards");
    let paths = entries.map(|entry| entry.expect("read an entry").path());
    let dashboards = paths.map(|path| {
        let text = fs::read_to_string(&path).expect("read a dashboard");
        let name = path.file_name().expect("a file name").to_string_lossy().into_owned();
        let dashboard = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, dashboard)
    });
    dashboards.collect()
}

/// The panels, without the rows that group them.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").iter().filter(|panel| text(panel, "type") != "row")
}

/// The variables.
pub(crate) fn variables(dashboard: &Value) -> &[Value] {
    list(&dashboard["templating"], "list")
}

/// The queries of all panels, and those that fill the variables.
pub(crate) fn queries(dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        for target in list(panel, "targets") {
            let written = target["expr"].as_str().or(target["query"].as_str()).expect("a query");
            queries.push(Query::new(text(panel, "title"), target, written, dashboard));
        }
    }
    for variable in variables(dashboard) {
        // `label_values(METRIC, LABEL)` is Grafana's own: it has values where the metric has data.
        let written = text(variable, "definition");
        let written =
            written.strip_prefix("label_values(").and_then(|rest| rest.split(',').next()).unwrap_or(written);
        queries.push(Query::new(text(variable, "name"), variable, written, dashboard));
    }
    queries
}

/// Every member with its owner, `dashboard` or the type of a panel, its path and its value, which holds no other.
pub(crate) fn members(dashboard: &Value) -> Vec<(String, String, Value)> {
    let mut dashboard = dashboard.clone();
    let panels = dashboard["panels"].take();
    dashboard.as_object_mut().expect("an object").remove("panels");
    let owners = panels.as_array().expect("a list").iter().map(|panel| (text(panel, "type"), panel));
    let mut members = Vec::new();
    for (owner, value) in owners.chain([("dashboard", &dashboard)]) {
        let mut open = vec![(String::new(), value)];
        while let Some((path, value)) = open.pop() {
            match value {
                Value::Object(inner) if !inner.is_empty() => {
                    open.extend(inner.iter().map(|(name, value)| (format!("{path}.{name}"), value)));
                }
                Value::Array(inner) if !inner.is_empty() => {
                    open.extend(inner.iter().map(|value| (format!("{path}[]"), value)));
                }
                _ => members.push((owner.to_owned(), path[1..].to_owned(), value.clone())),
            }
        }
    }
    members
}

/// The elements of a member that is a list.
pub(crate) fn list<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().unwrap_or_else(|| panic!("{member} is no list in {value}"))
}

/// A member that is a text.
pub(crate) fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("{member} is no text in {value}"))
}

/// One query, ready to be asked.
pub(crate) struct Query {
    /// The panel or variable that it belongs to.
    pub(crate) title: String,
    /// Which of the provisioned sources is asked.
    pub(crate) source: String,
    pub(crate) text: String,
}

impl Query {
    fn new(title: &str, asked: &Value, written: &str, dashboard: &Value) -> Query {
        let mut text = written.to_owned();
        for (name, value) in BUILT_IN {
            text = text.replace(name, value);
        }
        for variable in variables(dashboard) {
            // What Grafana fills in for "All".
            let all = self::text(variable, "allValue");
            text = text.replace(&format!("${}", self::text(variable, "name")), all);
        }
        let rest = text.replace("$/", "/");
        assert!(!rest.contains('$'), "{title}: unknown variable in {text}");
        Query { title: title.to_owned(), source: self::text(&asked["datasource"], "uid").to_owned(), text }
    }
}

impl Debug for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.text)
    }
}

/// Grafana's own variables, for a dashboard that shows the last ten minutes. The longer names come first.
const BUILT_IN: [(&str, &str); 5] = [
    ("$__rate_interval", "1m"),
    ("$__range", "10m"),
    ("$__interval_ms", "10000"),
    ("$__interval", "10s"),
    ("$timeFilter", "time > now() - 10m"),
];
