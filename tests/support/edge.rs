//! Where a client stands: straight before the server, or before nginx with either of the project's configurations.
//!
//! What the server promises it promises there (SPEC: every user stands at nginx). A test takes its [`Edge`], and
//! [`every_edge!`] runs it at each; what a configuration answers otherwise stands in the test, with its reason.

use super::Bank;

/// Where a client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The server itself.
    Direct,
    /// `nginx/nginx.conf`, which passes bytes on, before two instances.
    Layer4,
    /// `nginx/nginx-http.conf`, which parses HTTP, before two instances.
    Layer7,
}

impl Edge {
    /// A bank with the default settings.
    pub(crate) fn open(self) -> Bank {
        self.with(&[])
    }

    /// A bank with these settings of each instance.
    pub(crate) fn with(self, settings: &[(&str, &str)]) -> Bank {
        match self {
            Edge::Direct => Bank::with(settings),
            Edge::Layer4 => Bank::behind_nginx(self, "nginx.conf", settings),
            Edge::Layer7 => Bank::behind_nginx(self, "nginx-http.conf", settings),
        }
    }

    /// What a client is told here to a request that the server refuses with `status`; `None` if nginx closes the
    /// connection without an answer.
    pub(crate) fn status(self, request: &str, status: u16) -> Option<u16> {
        let differs = |(parts, _, _): &&Difference| parts.iter().any(|part| request.contains(part));
        match (self, DIFFERENCES.iter().find(differs)) {
            (Edge::Layer7, Some(&(_, told, why))) => {
                assert_ne!(told, Some(status), "no difference any more: {request:?}, {why}");
                told
            }
            _ => Some(status),
        }
    }
}

/// Parts of requests, what the client is told, and why.
pub(crate) type Difference = (&'static [&'static str], Option<u16>, &'static str);

/// What `nginx-http.conf` answers otherwise than the server, because nginx parses HTTP itself and no directive changes
/// it. docs/reference/http.md has each reason.
pub(crate) const DIFFERENCES: &[Difference] = &[
    (
        &["HTTP/1.1\nHost: t\n\n", "Host: t\r\n\n"],
        Some(200),
        "nginx takes a bare line feed for the end of a line",
    ),
    (&["GET  /healthz HTTP/1.1"], Some(200), "nginx takes several spaces between method and target"),
    (
        &["Transfer-Encoding: chunked, ", "Transfer-Encoding: \r\n"],
        Some(501),
        "nginx knows one coding, `chunked`",
    ),
    (
        &["Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"],
        Some(400),
        "nginx refuses a repeated Transfer-Encoding as malformed",
    ),
    (&["HTTP/0.9\r\n"], Some(400), "nginx refuses `HTTP/0.9` in a request line as malformed"),
    (&["post /", "get /", "Get /"], Some(400), "nginx refuses a method in small letters as malformed"),
    (
        &["99999999999999999999999", "fffffffffffffffffffff", "0000000000000000000000"],
        Some(400),
        "nginx refuses a length with too many digits as malformed",
    ),
];

/// Stands above a function in place of `#[test]` and makes three tests of it: `name::direct`, `name::layer_4` and
/// `name::layer_7`.
macro_rules! every_edge {
    ($name:ident) => {
        mod $name {
            use crate::support::Edge;
            #[test]
            fn direct() {
                super::$name(Edge::Direct);
            }
            #[test]
            fn layer_4() {
                super::$name(Edge::Layer4);
            }
            #[test]
            fn layer_7() {
                super::$name(Edge::Layer7);
            }
        }
    };
}
pub(crate) use every_edge;
