//! What libpq's own test of URIs asks (PostgreSQL 18, `src/interfaces/libpq/t/001_uri.pl`), asked here: the same kinds of URIs in
//! words of our own, each with what libpq makes of it. Where this crate differs on purpose, the case names the row of the table
//! in `docs/reference/settings.md` that says so.

use proto_pg::{Host, Url, UrlError};
use std::path::Path;

/// What libpq makes of a URI.
enum Libpq {
    /// Takes it: the parts that are not defaults.
    Reads(&'static str),
    /// Refuses it; the error is ours, for the same reason.
    Refuses(UrlError),
    /// Takes it, and this crate does not, on purpose.
    ReadsAlone {
        /// The row of the table.
        row: &'static str,
        /// The error here.
        error: UrlError,
    },
}
use Libpq::{Reads, ReadsAlone, Refuses};

/// Libpq would take the host of its environment or of its build.
const DEFAULT_HOST: Libpq = ReadsAlone { row: "no default host", error: UrlError::HostMissing };

fn encoding(part: &'static str) -> Libpq {
    Refuses(UrlError::Encoding { part })
}

fn unknown(name: &str) -> Libpq {
    Refuses(UrlError::ParameterUnknown { name: name.to_owned() })
}

/// The parts that are not defaults.
fn parts(url: &Url) -> String {
    let named = |name: &str, value: Option<&String>| value.map(|value| format!("{name} {value}"));
    let place = url.hosts.iter().flat_map(|host| {
        let (place, port) = match host {
            Host::Tcp { name, address: None, port } => (format!("host {name}"), *port),
            Host::Tcp { name, address: Some(address), port } => (format!("host {name} at {address}"), *port),
            Host::Unix { socket_path } => {
                let (directory, port) = socket_path.split_once("/.s.PGSQL.").expect("the name of a socket");
                (format!("directory {directory}"), port.parse().expect("a port"))
            }
        };
        [Some(place), (port != 5432).then(|| format!("port {port}"))]
    });
    let who = [
        named("user", url.user.as_ref()),
        named("password", url.password.as_ref()),
        named("database", url.database.as_ref()),
    ];
    place.chain(who).flatten().collect::<Vec<_>>().join(", ")
}

fn check(uri: &str, libpq: Libpq) {
    let read = Url::parse(uri);
    match libpq {
        Reads(expected) => assert_eq!(read.as_ref().map(parts), Ok(expected.to_owned()), "{uri}"),
        Refuses(error) => assert_eq!(read, Err(error), "{uri}"),
        ReadsAlone { row, error } => {
            assert_eq!(read, Err(error), "{uri}");
            let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/settings.md");
            let page = std::fs::read_to_string(page).expect("read the page of settings");
            assert!(page.contains(&format!("\n| `{row}` |")), "{uri}: the table has no row `{row}`");
        }
    }
}

#[test]
fn every_part_may_be_there_or_not() {
    for (uri, libpq) in [
        (
            "postgresql://alice:sesame@db:6543/bank",
            Reads("host db, port 6543, user alice, password sesame, database bank"),
        ),
        ("postgresql://alice@db:6543/bank", Reads("host db, port 6543, user alice, database bank")),
        ("postgresql://alice@db/bank", Reads("host db, user alice, database bank")),
        ("postgresql://db:6543/bank", Reads("host db, port 6543, database bank")),
        ("postgresql://db/bank", Reads("host db, database bank")),
        ("postgresql://alice@db:6543/", Reads("host db, port 6543, user alice")),
        ("postgresql://alice@db/", Reads("host db, user alice")),
        ("postgresql://db:6543/", Reads("host db, port 6543")),
        ("postgresql://db:6543", Reads("host db, port 6543")),
        ("postgresql://db/", Reads("host db")),
        ("postgresql://db", Reads("host db")),
        // What is empty is not there, also behind its separator.
        ("postgres://@db", Reads("host db")),
        ("postgres://db:/", Reads("host db")),
        ("postgresql://db?", Reads("host db")),
    ] {
        check(uri, libpq);
    }
}

#[test]
fn without_a_host_there_is_no_default() {
    for uri in [
        "postgresql://",
        "postgres://",
        "postgres:///",
        "postgres:///bank",
        "postgresql://alice@",
        "postgres://alice@/bank",
        "postgres://:6543/",
    ] {
        check(uri, DEFAULT_HOST);
    }
}

#[test]
fn parameters_say_the_same_as_the_parts() {
    for (uri, libpq) in [
        ("postgresql://db/bank?user=alice", Reads("host db, user alice, database bank")),
        ("postgresql://db/bank?user=alice&port=6543", Reads("host db, port 6543, user alice, database bank")),
        // The name of a parameter may be encoded as well as its value.
        ("postgresql://db/bank?%75se%72=bob&port=6543", Reads("host db, port 6543, user bob, database bank")),
        ("postgresql://db:6543?user=alice", Reads("host db, port 6543, user alice")),
        ("postgresql://db?user=alice", Reads("host db, user alice")),
        ("postgresql://?hostaddr=10.1.2.3", Reads("host 10.1.2.3")),
        ("postgresql://db.example?hostaddr=10.1.2.3", Reads("host db.example at 10.1.2.3")),
        ("postgresql://db/bank?us%65s=bob&port=6543", unknown("uses")),
        ("postgresql://db?uses=", unknown("uses")),
        ("postgresql://db?name", Refuses(UrlError::ParameterWithoutValue)),
        ("postgresql://db?one&other", Refuses(UrlError::ParameterWithoutValue)),
        ("postgresql://db?name=name=value", Refuses(UrlError::SecondEqualsSign)),
    ] {
        check(uri, libpq);
    }
}

/// Since PostgreSQL 18.
#[test]
fn spaces_are_dropped_around_a_part_and_refused_within() {
    let white_space = |part| Refuses(UrlError::WhiteSpace { part });
    for (uri, libpq) in [
        ("postgresql://db? user  =  alice  &  port = 6543 ", Reads("host db, port 6543, user alice")),
        ("postgresql://db?  us er = alice & port = 6543", white_space("the name of a parameter")),
        ("postgresql://db? user = alice & port = 65 43 ", white_space("port")),
    ] {
        check(uri, libpq);
    }
}

#[test]
fn an_address_of_ipv6_stands_in_brackets() {
    for (uri, libpq) in [
        ("postgresql://[::1]:6543/bank", Reads("host ::1, port 6543, database bank")),
        ("postgresql://[::1]/bank", Reads("host ::1, database bank")),
        ("postgresql://[2001:db8::9]/", Reads("host 2001:db8::9")),
        // It is not looked at before it is resolved.
        ("postgresql://[2001:dbg::9]/", Reads("host 2001:dbg::9")),
        ("postgresql://[::1]", Reads("host ::1")),
        ("postgres://[::1", Refuses(UrlError::Brackets)),
        ("postgres://[]", Refuses(UrlError::Brackets)),
        ("postgres://[::1]x", Refuses(UrlError::Brackets)),
    ] {
        check(uri, libpq);
    }
}

#[test]
fn another_scheme_is_no_uri() {
    check("postgre://", Refuses(UrlError::Scheme));
}

#[test]
fn what_is_encoded_is_decoded_or_refused() {
    for (uri, libpq) in [
        ("postgresql://%64b/", Reads("host db")),
        ("postgres://db?dbname=%GGbank", encoding("dbname")),
        ("postgresql://d%00b", encoding("host")),
        ("postgresql://%gg", encoding("host")),
        ("postgresql://%6", encoding("host")),
        ("postgresql://%", encoding("host")),
    ] {
        check(uri, libpq);
    }
}

#[test]
fn the_directory_of_a_socket_is_a_host() {
    for (uri, libpq) in [
        ("postgres://?host=/run/socket", Reads("directory /run/socket")),
        ("postgres://bob@?host=/run/nowhere", Reads("directory /run/nowhere, user bob")),
        ("postgres://bob@/?host=/run/nowhere", Reads("directory /run/nowhere, user bob")),
        ("postgres://bob@:6543?host=/run/nowhere", Reads("directory /run/nowhere, port 6543, user bob")),
        (
            "postgres://bob@:6543/bank?host=/run/socket",
            Reads("directory /run/socket, port 6543, user bob, database bank"),
        ),
        ("postgres://:6543/bank?host=/run/socket", Reads("directory /run/socket, port 6543, database bank")),
        ("postgres://:6543?host=/run/socket", Reads("directory /run/socket, port 6543")),
        ("postgres://%2Frun%2Fpostgresql/bank", Reads("directory /run/postgresql, database bank")),
    ] {
        check(uri, libpq);
    }
}

/// Libpq's test has the roots in its environment, which is not read here; and libpq looks at the two together only when it
/// connects.
#[cfg(feature = "tls")]
#[test]
fn with_the_roots_of_the_system_the_name_has_to_be_verified() {
    use proto_pg::tls::TlsMode;

    let expected = "verify-full, since sslrootcert is system";
    for mode in ["disable", "prefer"] {
        let error = UrlError::ParameterValue { name: "sslmode", expected };
        let libpq = ReadsAlone { row: "checked at once", error };
        check(&format!("postgresql://db?sslmode={mode}&sslrootcert=system"), libpq);
        check(&format!("postgresql://db?sslmode={mode}"), Reads("host db"));
    }
    for uri in
        ["postgresql://db?sslmode=verify-full&sslrootcert=system", "postgresql://db?sslrootcert=system"]
    {
        check(uri, Reads("host db"));
        assert_eq!(Url::parse(uri).map(|url| url.tls.mode), Ok(TlsMode::VerifyFull), "{uri}");
    }
}
