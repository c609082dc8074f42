//! Where a client stands: straight before the server, or before nginx with either of the project's configurations.
//!
//! What the server promises it promises there (SPEC: every user stands at nginx). A test takes its [`Edge`], and
//! [`every_edge!`] runs it at each; what a configuration answers otherwise stands in the test, with its reason.

use super::{Bank, Database};

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
        match self.configuration() {
            None => Bank::with(settings),
            Some(configuration) => Bank::behind_nginx(configuration, Database::new(), settings),
        }
    }

    fn configuration(self) -> Option<&'static str> {
        match self {
            Edge::Direct => None,
            Edge::Layer4 => Some("nginx.conf"),
            Edge::Layer7 => Some("nginx-http.conf"),
        }
    }
}

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
/// As [`every_edge!`] but for `layer_7`, which does not keep these promises yet.
macro_rules! not_yet_layer_7 {
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
        }
    };
}
pub(crate) use {every_edge, not_yet_layer_7};
