//! Connection URIs, as libpq reads them.
//!
//! Format: PostgreSQL documentation, "libpq - C Library", sections Connection URIs and Parameter Key Words.

use crate::request::Session;
use std::error::Error;
use std::fmt::{self, Debug, Display, Formatter};
use std::str::FromStr;

/// Where a server may be, and who we are there.
///
/// ```
/// use proto_pg::{Host, Url};
///
/// let url: Url = "postgresql://alice:s%40fe@db1,db2:6543/bank?application_name=till".parse()?;
/// assert_eq!(url.hosts[1], Host::Tcp { name: "db2".into(), port: 6543 });
/// let session = url.session("nobody");
/// assert_eq!((&session.user[..], &session.database[..]), ("alice", "bank"));
/// assert_eq!(session.password.as_deref(), Some("s@fe"));
/// # Ok::<(), proto_pg::UrlError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Url {
    /// The hosts to try, in order; never empty.
    pub hosts: Vec<Host>,
    /// The role, if the URI names one.
    pub user: Option<String>,
    /// The role's password.
    pub password: Option<String>,
    /// The database, if the URI names one; libpq takes the name of the role otherwise, see [`Url::session`].
    pub database: Option<String>,
    /// `application_name`: what `pg_stat_activity` shows.
    pub application_name: Option<String>,
    /// `options`: command-line options for the server process of the session, such as `-c geqo=off`.
    pub options: Option<String>,
    /// `connect_timeout` in seconds, for each host; `None` for no limit, which is also what 0 says.
    pub connect_timeout_seconds: Option<u32>,
}

/// One place where a server may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an address, still to be resolved. An IPv6 address stands without its brackets.
    Tcp {
        /// The name or address.
        name: String,
        /// The port; 5432 if the URI names none.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Its path: the directory in the URI and `.s.PGSQL.port`.
        socket_path: String,
    },
}

/// Why a URI cannot be used. One line each; none quotes a value, since a stray `/`, `?` or `@` in a password can
/// make a part of it look like any other value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// Neither `postgresql://` nor `postgres://`.
    Scheme,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8, or an encoded NUL.
    Encoding {
        /// The part of the URI: `user`, `host`, the name of a parameter, ...
        part: &'static str,
    },
    /// An `@` that would have to be written as `%40`: it is not clear where the password ends.
    StrayAt,
    /// No host: neither in the URI proper nor as the parameter `host`.
    HostMissing,
    /// A bracket without its partner, or text behind the closing one.
    Brackets,
    /// A port that is not a number from 1 to 65535.
    Port,
    /// Several ports, but not as many as hosts.
    PortCount {
        /// How many hosts there are.
        hosts: usize,
        /// How many ports there are.
        ports: usize,
    },
    /// A parameter without `=`.
    ParameterWithoutValue,
    /// A parameter that this client does not know.
    ParameterUnknown {
        /// Its name.
        name: String,
    },
    /// The same behind `password`, without its name: that may be the rest of a password with a `&` in it.
    ParameterUnknownBehindPassword,
    /// A parameter whose value this client does not support.
    ParameterValue {
        /// The name of the parameter.
        name: &'static str,
        /// The values it may have.
        supported: &'static str,
    },
    /// `sslmode` asks for TLS.
    TlsUnsupported,
}

impl Url {
    /// Reads a URI of the form `postgresql://user:password@host:port,host:port/database?parameter=value&...`
    /// (or `postgres://`). Every part is optional except a host; every part may be percent-encoded.
    ///
    /// A host that starts with `/` is a directory that holds a Unix socket. It must be encoded to stand in the URI
    /// proper (`%2Fvar%2Frun`), or be given as a parameter (`?host=/var/run`). The parameters `host` and `port` are
    /// comma-separated lists and override the URI proper, as do `user`, `password` and `dbname`; if a parameter is
    /// repeated the last one counts.
    ///
    /// Further parameters: `application_name`, `options`, `connect_timeout` (seconds), and those that ask for
    /// nothing which is missing here: `sslmode` (`disable`, `allow`, `prefer`: all run without TLS), `gssencmode` and
    /// `channel_binding` (`disable`, `prefer`), `target_session_attrs` (`any`). libpq's defaults from the
    /// environment, from files and from its build are not looked up; a URI without a host is an error.
    ///
    /// # Errors
    /// [`UrlError`]; nothing of the URI is quoted in it but the name of an unknown parameter, if that is not behind a
    /// password.
    pub fn parse(url: &str) -> Result<Url, UrlError> {
        let rest = url.strip_prefix("postgresql://").or_else(|| url.strip_prefix("postgres://"));
        let rest = rest.ok_or(UrlError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (who, hosts) = authority.split_once('@').unwrap_or(("", authority));
        if [hosts, database, query].iter().any(|part| part.contains('@')) {
            return Err(UrlError::StrayAt);
        }
        let (user, password) = who.split_once(':').unwrap_or((who, ""));

        let mut parts = Parts {
            user: decode(user, "user")?,
            password: decode(password, "password")?,
            database: decode(database, "database")?,
            ..Parts::default()
        };
        for host in hosts.split(',') {
            let (name, port) = split_host(host)?;
            parts.hosts.push(decode(name, "host")?);
            parts.ports.push(decode(port, "port")?);
        }
        for parameter in query.split('&').filter(|_| !query.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(UrlError::ParameterWithoutValue)?;
            parts.set(name, value)?;
        }
        parts.finish()
    }

    /// The session that this URI describes. Without a role in the URI it is `default_user` (libpq takes the name of
    /// the operating system's user); without a database it is the one named like the role.
    pub fn session(&self, default_user: &str) -> Session {
        let user = self.user.clone().unwrap_or_else(|| default_user.to_owned());
        let parameter =
            |name: &str, value: &Option<String>| value.clone().map(|value| (name.to_owned(), value));
        let parameters =
            [parameter("application_name", &self.application_name), parameter("options", &self.options)];
        Session {
            password: self.password.clone(),
            database: self.database.clone().unwrap_or_else(|| user.clone()),
            parameters: parameters.into_iter().flatten().collect(),
            user,
        }
    }
}

/// [`Url::parse`].
impl FromStr for Url {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Url, UrlError> {
        Url::parse(url)
    }
}

/// The parts of a URI, decoded; an empty string is as good as none.
#[derive(Default)]
struct Parts {
    user: String,
    password: String,
    database: String,
    hosts: Vec<String>,
    ports: Vec<String>,
    application_name: String,
    options: String,
    connect_timeout_seconds: u32,
    /// A parameter has set the password.
    has_password_parameter: bool,
}

impl Parts {
    fn set(&mut self, name: &str, value: &str) -> Result<(), UrlError> {
        let list = |value: String| value.split(',').map(str::to_owned).collect();
        match name {
            "user" => self.user = decode(value, "user")?,
            "password" => {
                self.has_password_parameter = true;
                self.password = decode(value, "password")?;
            }
            "dbname" => self.database = decode(value, "dbname")?,
            "host" => self.hosts = list(decode(value, "host")?),
            "port" => self.ports = list(decode(value, "port")?),
            "application_name" => self.application_name = decode(value, "application_name")?,
            "options" => self.options = decode(value, "options")?,
            "connect_timeout" => {
                let (name, supported) = ("connect_timeout", "a number of seconds, 0 for no limit");
                let seconds = decode(value, name)?.parse();
                self.connect_timeout_seconds =
                    seconds.map_err(|_| UrlError::ParameterValue { name, supported })?;
            }
            "sslmode" => match value {
                "disable" | "allow" | "prefer" => {}
                "require" | "verify-ca" | "verify-full" => return Err(UrlError::TlsUnsupported),
                _ => {
                    let (name, supported) = ("sslmode", "disable, allow, prefer");
                    return Err(UrlError::ParameterValue { name, supported });
                }
            },
            "gssencmode" => only(value, "gssencmode", "disable, prefer")?,
            "channel_binding" => only(value, "channel_binding", "disable, prefer")?,
            "target_session_attrs" => only(value, "target_session_attrs", "any")?,
            _ if self.has_password_parameter => return Err(UrlError::ParameterUnknownBehindPassword),
            _ => return Err(UrlError::ParameterUnknown { name: name.to_owned() }),
        }
        Ok(())
    }

    fn finish(self) -> Result<Url, UrlError> {
        let counts = (self.hosts.len(), self.ports.len());
        if counts.1 != 1 && counts.0 != counts.1 {
            return Err(UrlError::PortCount { hosts: counts.0, ports: counts.1 });
        }
        // One port is for all hosts; otherwise each has its own.
        let ports = self.ports.iter().cycle();
        let hosts = self.hosts.into_iter().zip(ports).map(|(name, port)| host(name, port));
        let some = |part: String| (!part.is_empty()).then_some(part);
        Ok(Url {
            hosts: hosts.collect::<Result<_, _>>()?,
            user: some(self.user),
            password: some(self.password),
            database: some(self.database),
            application_name: some(self.application_name),
            options: some(self.options),
            connect_timeout_seconds: Some(self.connect_timeout_seconds).filter(|&seconds| seconds > 0),
        })
    }
}

/// Splits `name:port`, where the name may be an IPv6 address in brackets. A port that is not there is empty.
fn split_host(host: &str) -> Result<(&str, &str), UrlError> {
    let Some(bracketed) = host.strip_prefix('[') else {
        return Ok(host.split_once(':').unwrap_or((host, "")));
    };
    let (name, port) = bracketed.split_once(']').ok_or(UrlError::Brackets)?;
    match port.strip_prefix(':') {
        Some(port) => Ok((name, port)),
        None if port.is_empty() => Ok((name, "")),
        None => Err(UrlError::Brackets),
    }
}

fn host(name: String, port: &str) -> Result<Host, UrlError> {
    // No sign and no space: only `parse` of a plain number is left to fail.
    let is_plain = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = match port {
        "" => PORT_DEFAULT,
        port => port.parse().ok().filter(|&port| is_plain && port > 0).ok_or(UrlError::Port)?,
    };
    match name.bytes().next() {
        None => Err(UrlError::HostMissing),
        Some(b'/') => Ok(Host::Unix { socket_path: format!("{name}/.s.PGSQL.{port}") }),
        Some(b'@') => {
            Err(UrlError::ParameterValue { name: "host", supported: "a name, an address, or a directory" })
        }
        Some(_) => Ok(Host::Tcp { name, port }),
    }
}

/// Accepts one of a comma-separated list of values.
fn only(value: &str, name: &'static str, supported: &'static str) -> Result<(), UrlError> {
    if supported.split(", ").any(|each| each == value) {
        Ok(())
    } else {
        Err(UrlError::ParameterValue { name, supported })
    }
}

/// Undoes percent-encoding. Source: RFC 3986, section 2.1.
fn decode(text: &str, part: &'static str) -> Result<String, UrlError> {
    let error = UrlError::Encoding { part };
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                (Some(_) | None, _) => return Err(error),
            },
            byte => byte,
        });
    }
    if decoded.contains(&0) {
        return Err(error);
    }
    String::from_utf8(decoded).map_err(|_| error)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

const PORT_DEFAULT: u16 = 5432;

impl Debug for Url {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Url")
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "(hidden)"))
            .field("database", &self.database)
            .field("application_name", &self.application_name)
            .field("options", &self.options)
            .field("connect_timeout_seconds", &self.connect_timeout_seconds)
            .finish()
    }
}

impl Display for UrlError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            UrlError::Scheme => f.write_str("a URI starts with postgresql:// or postgres://"),
            UrlError::Encoding { part } => {
                write!(f, "{part}: bad percent-encoding, not UTF-8, or a NUL byte")
            }
            UrlError::StrayAt => {
                f.write_str("more than one @: inside a user or password write %40, %2F, %3F for @, /, ?")
            }
            UrlError::HostMissing => {
                f.write_str("no host: name one, or a socket directory as ?host=/directory")
            }
            UrlError::Brackets => {
                f.write_str("host: an IPv6 address is written as [address] or [address]:port")
            }
            UrlError::Port => f.write_str("port: not a number from 1 to 65535"),
            UrlError::PortCount { hosts, ports } => {
                write!(f, "port: {ports} ports for {hosts} hosts; give one, or one for each")
            }
            UrlError::ParameterWithoutValue => f.write_str("a parameter without ="),
            UrlError::ParameterUnknown { name } => write!(f, "unknown parameter {name:?}"),
            UrlError::ParameterUnknownBehindPassword => {
                f.write_str("unknown parameter behind password: inside a password write %26 for &")
            }
            UrlError::ParameterValue { name, supported } => {
                write!(f, "{name}: unsupported value; supported: {supported}")
            }
            UrlError::TlsUnsupported => {
                f.write_str("sslmode: TLS is not supported; use disable, allow or prefer")
            }
        }
    }
}

impl Error for UrlError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(name: &str, port: u16) -> Host {
        Host::Tcp { name: name.into(), port }
    }

    fn unix(socket_path: &str) -> Host {
        Host::Unix { socket_path: socket_path.into() }
    }

    fn hosts(url: &str) -> Vec<Host> {
        Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")).hosts
    }

    #[test]
    fn all_parts() {
        let url = Url::parse(
            "postgres://al%69ce:s%40c%2Fr%3At@db:6543/b%61nk?application_name=my%20app&options=-c%20geqo%3Doff&\
             connect_timeout=10&sslmode=prefer&gssencmode=disable&channel_binding=prefer&target_session_attrs=any",
        )
        .unwrap();
        let expected = Url {
            hosts: vec![tcp("db", 6543)],
            user: Some("alice".into()),
            password: Some("s@c/r:t".into()),
            database: Some("bank".into()),
            application_name: Some("my app".into()),
            options: Some("-c geqo=off".into()),
            connect_timeout_seconds: Some(10),
        };
        assert_eq!(url, expected);
        let session = url.session("nobody");
        assert_eq!((&session.user[..], &session.database[..]), ("alice", "bank"));
        let parameters = [("application_name", "my app"), ("options", "-c geqo=off")];
        assert_eq!(session.parameters, parameters.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_not_said_is_none() {
        for url in [
            "postgresql://db",
            "postgresql://db/",
            "postgresql://db/?",
            "postgresql://:@db/?connect_timeout=0",
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!((&url.user, &url.password, &url.database), (&None, &None, &None));
            assert_eq!(url.connect_timeout_seconds, None);
            let session = url.session("os_user");
            assert_eq!((&session.user[..], &session.database[..]), ("os_user", "os_user"));
        }
        assert_eq!(Url::parse("postgresql://alice@db").unwrap().session("x").database, "alice");
    }

    #[test]
    fn places() {
        assert_eq!(hosts("postgresql://db"), [tcp("db", 5432)]);
        assert_eq!(hosts("postgresql://db:"), [tcp("db", 5432)]);
        assert_eq!(hosts("postgresql://h1:1,h2:65535,h3"), [tcp("h1", 1), tcp("h2", 65535), tcp("h3", 5432)]);
        assert_eq!(hosts("postgresql://[::1]:77,[fe80::2]/db"), [tcp("::1", 77), tcp("fe80::2", 5432)]);
        assert_eq!(hosts("postgresql://u:p@/db?host=/run"), [unix("/run/.s.PGSQL.5432")]);
        assert_eq!(hosts("postgresql://%2Frun%2Fpg:77/db"), [unix("/run/pg/.s.PGSQL.77")]);
        assert_eq!(hosts("postgresql://:77/db?host=/run"), [unix("/run/.s.PGSQL.77")]);
        assert_eq!(hosts("postgresql:///?host=/run,h2&port=1,2"), [unix("/run/.s.PGSQL.1"), tcp("h2", 2)]);
        assert_eq!(hosts("postgresql:///?host=h1,h2&port=7"), [tcp("h1", 7), tcp("h2", 7)]);
        assert_eq!(hosts("postgresql://h1:1?host=h2"), [tcp("h2", 1)]);
        assert_eq!(hosts("postgresql://h1?host=h2&host=%2Frun"), [unix("/run/.s.PGSQL.5432")]);
    }

    #[test]
    fn parameters_override_the_uri_proper() {
        let url = Url::parse("postgresql://a:b@db/c?user=x&password=y%26&dbname=z").unwrap();
        let parts = (url.user.unwrap(), url.password.unwrap(), url.database.unwrap());
        assert_eq!(parts, ("x".into(), "y&".into(), "z".into()));
    }

    #[test]
    fn what_cannot_be_used_is_an_error() {
        let (hosts, ports) = (2, 3);
        let value = |name, supported| UrlError::ParameterValue { name, supported };
        let seconds = "a number of seconds, 0 for no limit";
        let cases = [
            ("", UrlError::Scheme),
            ("mysql://db", UrlError::Scheme),
            ("host=db", UrlError::Scheme),
            ("postgresql://", UrlError::HostMissing),
            ("postgresql:///db", UrlError::HostMissing),
            ("postgresql://h1,,h2", UrlError::HostMissing),
            ("postgresql://h?host=", UrlError::HostMissing),
            ("postgresql://a%4@db", UrlError::Encoding { part: "user" }),
            ("postgresql://a:%zz@db", UrlError::Encoding { part: "password" }),
            ("postgresql://a:%+1@db", UrlError::Encoding { part: "password" }),
            ("postgresql://db%", UrlError::Encoding { part: "host" }),
            ("postgresql://db/%ff", UrlError::Encoding { part: "database" }),
            ("postgresql://db/a%00b", UrlError::Encoding { part: "database" }),
            ("postgresql://[::1", UrlError::Brackets),
            ("postgresql://[::1]x", UrlError::Brackets),
            ("postgresql://db:0", UrlError::Port),
            ("postgresql://db:65536", UrlError::Port),
            ("postgresql://db:+1", UrlError::Port),
            ("postgresql://db:1:2", UrlError::Port),
            ("postgresql://h1,h2?port=1,2,3", UrlError::PortCount { hosts, ports }),
            ("postgresql://db?sslmode", UrlError::ParameterWithoutValue),
            ("postgresql://db?sslmode=prefer&", UrlError::ParameterWithoutValue),
            ("postgresql://db?sslcert=x", UrlError::ParameterUnknown { name: "sslcert".into() }),
            ("postgresql://db?sslmode=verify-full", UrlError::TlsUnsupported),
            ("postgresql://db?sslmode=require", UrlError::TlsUnsupported),
            ("postgresql://db?sslmode=on", value("sslmode", "disable, allow, prefer")),
            ("postgresql://db?gssencmode=require", value("gssencmode", "disable, prefer")),
            ("postgresql://db?channel_binding=require", value("channel_binding", "disable, prefer")),
            ("postgresql://db?target_session_attrs=primary", value("target_session_attrs", "any")),
            ("postgresql://db?connect_timeout=-1", value("connect_timeout", seconds)),
            ("postgresql://db?connect_timeout=1s", value("connect_timeout", seconds)),
            ("postgresql:///?host=%40abstract", value("host", "a name, an address, or a directory")),
        ];
        for (url, expected) in cases {
            assert_eq!(Url::parse(url).unwrap_err(), expected, "{url}");
        }
    }

    #[test]
    fn a_password_never_shows_not_even_one_that_should_have_been_encoded() {
        let url = Url::parse("postgresql://alice:hunter2@db").unwrap();
        assert!(!format!("{url:?}{:?}", url.session("")).contains("hunter2"));
        for url in [
            "postgresql://alice:hun@ter2@db/x",
            "postgresql://alice:hun/ter2@db/x",
            "postgresql://alice:hun?ter2@db/x",
            "postgresql://alice:hun?ter2=1@db/x",
            "postgresql://alice:ter2%@db/x",
            "postgresql://alice:ter2/x",
            "postgresql://alice@db/x?password=ter2%",
            "postgresql://alice@db/x?password",
        ] {
            let error = Url::parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("ter2"), "{url}: {error}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn an_unknown_parameter_cannot_break_the_line() {
        let error = Url::parse("postgresql://db?a\nb=c").unwrap_err();
        assert_eq!(error.to_string(), r#"unknown parameter "a\nb""#);
    }
}
