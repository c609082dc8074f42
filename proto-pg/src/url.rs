//! Connection strings, as libpq reads them: URIs and `keyword=value`.
//!
//! Format: PostgreSQL documentation, "libpq - C Library", sections Connection Strings and Parameter Key Words; where
//! these say nothing, libpq's `fe-connect.c`. `docs/reference/settings.md` of the repository lists what differs, and why.

use crate::auth::{AuthenticationMethod, AuthenticationPolicy, ChannelBindingMode};
use crate::connector::{LoadBalanceHosts, TargetSessionAttrs};
use crate::request::{ProtocolVersion, Session};
#[cfg(feature = "tls")]
use crate::tls::{TlsClientFiles, TlsMode, TlsNegotiation, TlsOptions, TlsRoot};
use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::{self, Debug, Display, Formatter};
use std::str::FromStr;

/// Where a server may be, and who we are there.
///
/// ```
/// use proto_pg::{Host, Url};
///
/// let url: Url = "postgresql://alice:s%40fe@db1,db2:6543/bank?application_name=till".parse()?;
/// assert_eq!(url.hosts[1], Host::Tcp { name: "db2".into(), address: None, port: 6543 });
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
    /// The role, if one is named.
    pub user: Option<String>,
    /// The role's password.
    pub password: Option<String>,
    /// The database, if one is named; libpq takes the name of the role otherwise, see [`Url::session`].
    pub database: Option<String>,
    /// `application_name`, or else `fallback_application_name`: what `pg_stat_activity` shows. Empty if it was asked for
    /// none.
    pub application_name: Option<String>,
    /// `options`: command-line options for the server process of the session, such as `-c geqo=off`.
    pub options: Option<String>,
    /// `connect_timeout` in seconds, for each address; `None` for no limit, which is also what 0 and below say.
    pub connect_timeout_seconds: Option<u32>,
    /// `target_session_attrs`: which sessions will do.
    pub target_session_attrs: TargetSessionAttrs,
    /// `load_balance_hosts`: the order in which hosts and addresses are tried.
    pub load_balance_hosts: LoadBalanceHosts,
    /// The keep-alive of a TCP socket; `None` if `keepalives` is 0. As in libpq, on by default.
    pub keepalive: Option<Keepalive>,
    /// `tcp_user_timeout` in milliseconds; `None` for the system's default, which is also what 0 and below say.
    pub tcp_user_timeout_ms: Option<u32>,
    /// `channel_binding` and `require_auth`.
    pub authentication: AuthenticationPolicy,
    /// `sslmode` and what belongs to it.
    #[cfg(feature = "tls")]
    pub tls: TlsOptions,
}

/// When TCP gives up on a peer that is silent. `None` is the system's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keepalive {
    /// `keepalives_idle`: seconds of silence before the first probe; 1 to 32767.
    pub idle_seconds: Option<u32>,
    /// `keepalives_interval`: seconds between two probes; 1 to 32767.
    pub interval_seconds: Option<u32>,
    /// `keepalives_count`: how many probes may stay unanswered; 1 to 127.
    pub count: Option<u32>,
}

/// One place where a server may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name, still to be resolved, or an address. An IPv6 address stands without brackets, and may have a scope
    /// (`fe80::1%eth0`).
    Tcp {
        /// The name or address: what a certificate has to be for.
        name: String,
        /// `hostaddr`: connect to this address in place of the name.
        address: Option<String>,
        /// The port; 5432 if none is given.
        port: u16,
    },
    /// A Unix socket.
    Unix {
        /// Its path: the directory that is given and `.s.PGSQL.port`.
        socket_path: String,
    },
}

/// Why a connection string cannot be used. One line each; none quotes a value, since a stray `/`, `?` or `@` in a password
/// can make a part of it look like any other value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// Neither a URI (`postgresql://` or `postgres://`) nor `keyword=value`.
    Scheme,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are not UTF-8, or a NUL.
    Encoding {
        /// The part of the string: `user`, `host`, the name of a parameter, ...
        part: &'static str,
    },
    /// White space within a part of a URI, where it has to be encoded.
    WhiteSpace {
        /// The part of the URI.
        part: &'static str,
    },
    /// An `@` that would have to be written as `%40`: it is not clear where the password ends.
    StrayAt,
    /// No host: neither in the URI proper nor as a parameter.
    HostMissing,
    /// A bracket without its partner, nothing within, or text behind the closing one.
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
    /// `host` and `hostaddr`, but not as many of the one as of the other.
    AddressCount {
        /// How many hosts there are.
        hosts: usize,
        /// How many addresses there are.
        addresses: usize,
    },
    /// A parameter without `=`.
    ParameterWithoutValue,
    /// A parameter of a URI with a second `=`.
    SecondEqualsSign,
    /// A value in quotes without the closing one.
    Unterminated,
    /// A parameter that neither this client nor libpq knows.
    ParameterUnknown {
        /// Its name.
        name: String,
    },
    /// The same behind `password`, without its name: that may be the rest of a password with a `&` or a space in it.
    ParameterUnknownBehindPassword,
    /// A parameter whose value is not what its keyword takes.
    ParameterValue {
        /// The name of the parameter.
        name: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A parameter of libpq, or a value of one, that this client does not support.
    Unsupported {
        /// The name of the parameter.
        name: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl Url {
    /// Reads a URI of the form `postgresql://user:password@host:port,host:port/database?parameter=value&...`
    /// (or `postgres://`), or parameters of the form `host=db user=alice password='with a space'`. Every part is optional
    /// except a host; every part of a URI, names of parameters too, may be percent-encoded. Newlines at the end of a URI
    /// are not a part of it.
    ///
    /// A host that starts with `/` is a directory that holds a Unix socket. It must be encoded to stand in the URI
    /// proper (`%2Fvar%2Frun`), or be given as a parameter (`?host=/var/run`). The parameters `host`, `hostaddr` and
    /// `port` are comma-separated lists and override the URI proper, as do `user`, `password` and `dbname`; if a parameter
    /// is repeated the last one counts.
    ///
    /// Every other parameter of libpq is known: those with a field of [`Url`], `client_encoding` (UTF-8 alone), and those
    /// that are refused unless they ask for nothing which is missing here, such as `gssencmode`, or `sslmode` without the
    /// feature `tls`. libpq's defaults from the environment, from files and from its build are not
    /// looked up; a string without a host is an error.
    ///
    /// # Errors
    /// [`UrlError`]; nothing of the string is quoted in it but the name of an unknown parameter, if that cannot be a part
    /// of a password.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
            // A file of a secret ends in one.
            Some(rest) => read_uri(rest.trim_end_matches(['\r', '\n']))?.finish(),
            None => read_keywords(text)?.finish(),
        }
    }

    /// The session that this describes. Without a role it is `default_user` (libpq takes the name of the operating
    /// system's user); without a database it is the one named like the role.
    pub fn session(&self, default_user: &str) -> Session {
        let user = self.user.clone().unwrap_or_else(|| default_user.to_owned());
        let parameter = |name: &str, value: &Option<String>| {
            value.clone().filter(|value| !value.is_empty()).map(|value| (name.to_owned(), value))
        };
        let parameters =
            [parameter("application_name", &self.application_name), parameter("options", &self.options)];
        Session {
            protocol: ProtocolVersion::default(),
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

    fn from_str(text: &str) -> Result<Url, UrlError> {
        Url::parse(text)
    }
}

/// Splits a URI behind its scheme, as libpq's `conninfo_uri_parse_options` does.
fn read_uri(mut rest: &str) -> Result<Values, UrlError> {
    let mut values = Values::default();
    if let Some(at) = rest.find(['@', '/']).filter(|&at| rest[at..].starts_with('@')) {
        let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
        values.set_encoded("user", user)?;
        values.set_encoded("password", password)?;
        rest = &rest[at + 1..];
    }

    let (mut hosts, mut ports) = (String::new(), String::new());
    loop {
        let host;
        (host, rest) = split_host(rest)?;
        hosts.push_str(host);
        if let Some(behind_colon) = rest.strip_prefix(':') {
            let port;
            (port, rest) = split_before(behind_colon, &['/', '?', ',']);
            ports.push_str(port);
        }
        let Some(next) = rest.strip_prefix(',') else { break };
        rest = next;
        hosts.push(',');
        ports.push(',');
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if [&hosts[..], &ports, path].iter().any(|part| part.contains('@')) {
        return Err(UrlError::StrayAt);
    }
    values.set_encoded("host", &hosts)?;
    values.set_encoded("port", &ports)?;
    values.set_encoded("dbname", path.strip_prefix('/').unwrap_or_default())?;

    rest = query;
    while !rest.is_empty() {
        let parameter;
        (parameter, rest) = rest.split_once('&').unwrap_or((rest, ""));
        let (name, value) = parameter.split_once('=').ok_or(UrlError::ParameterWithoutValue)?;
        if value.contains('=') {
            return Err(UrlError::SecondEqualsSign);
        }
        let name = decode(name, "the name of a parameter")?;
        match values.keyword(&name) {
            Ok(keyword) => values.set(keyword, decode(value, keyword)?),
            // As JDBC has it.
            Err(_) if name == "ssl" && decode(value, "ssl")? == "true" => {
                values.set("sslmode", "require".to_owned());
            }
            Err(_) if query.contains('@') => return Err(UrlError::StrayAt),
            Err(error) => return Err(error),
        }
    }
    Ok(values)
}

/// Splits a host off the front: a name, or an IPv6 address in brackets.
fn split_host(rest: &str) -> Result<(&str, &str), UrlError> {
    let Some(bracketed) = rest.strip_prefix('[') else {
        return Ok(split_before(rest, &[':', '/', '?', ',']));
    };
    let (host, rest) = bracketed.split_once(']').ok_or(UrlError::Brackets)?;
    let is_followed_by_a_part = rest.is_empty() || rest.starts_with([':', '/', '?', ',']);
    if host.is_empty() || !is_followed_by_a_part { Err(UrlError::Brackets) } else { Ok((host, rest)) }
}

fn split_before<'a>(text: &'a str, ends: &[char]) -> (&'a str, &'a str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// Splits `keyword = value keyword = 'value'`, as libpq's `conninfo_parse` does.
fn read_keywords(text: &str) -> Result<Values, UrlError> {
    let mut values = Values::default();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let name;
        (name, rest) = rest.split_at(rest.find(|char| char == '=' || is_space(char)).unwrap_or(rest.len()));
        // A URI of another scheme, or of none, whose beginning may be a password.
        if !name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
            return Err(UrlError::Scheme);
        }
        rest = rest.trim_start_matches(is_space);
        let without_value =
            if values.0.is_empty() { UrlError::Scheme } else { UrlError::ParameterWithoutValue };
        rest = rest.strip_prefix('=').ok_or(without_value)?.trim_start_matches(is_space);
        let keyword = values.keyword(name)?;
        let value;
        (value, rest) = split_value(rest)?;
        if value.contains('\0') {
            return Err(UrlError::Encoding { part: keyword });
        }
        values.set(keyword, value);
        rest = rest.trim_start_matches(is_space);
    }
    Ok(values)
}

/// Takes a value off the front, in quotes or up to a space. A backslash takes the next character as it stands.
fn split_value(text: &str) -> Result<(String, &str), UrlError> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, char)) = chars.next() {
        match char {
            '\'' if is_quoted => return Ok((value, &text[at + 1..])),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            char if !is_quoted && is_space(char) => return Ok((value, &text[at..])),
            char => value.push(char),
        }
    }
    if is_quoted { Err(UrlError::Unterminated) } else { Ok((value, "")) }
}

/// C's `isspace`, in its own locale.
fn is_space(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// What each keyword has been set to, decoded.
#[derive(Default)]
struct Values(BTreeMap<&'static str, String>);

impl Values {
    /// The keyword of this name.
    fn keyword(&self, name: &str) -> Result<&'static str, UrlError> {
        // What libpq still reads of its past.
        if name == REQUIRESSL {
            return Ok(REQUIRESSL);
        }
        if let Some(keyword) = KEYWORDS.iter().find(|keyword| keyword.name == name) {
            return Ok(keyword.name);
        }
        Err(if self.0.contains_key("password") {
            UrlError::ParameterUnknownBehindPassword
        } else {
            UrlError::ParameterUnknown { name: name.to_owned() }
        })
    }

    fn set(&mut self, keyword: &'static str, value: String) {
        if keyword == REQUIRESSL {
            let sslmode = if value.starts_with('1') { "require" } else { "prefer" };
            self.0.insert("sslmode", sslmode.to_owned());
        } else {
            self.0.insert(keyword, value);
        }
    }

    /// Sets what stands encoded in a URI; an empty part is none.
    fn set_encoded(&mut self, keyword: &'static str, value: &str) -> Result<(), UrlError> {
        if !value.is_empty() {
            self.set(keyword, decode(value, keyword)?);
        }
        Ok(())
    }

    /// The value of a keyword for which an empty value is as good as none.
    fn take(&mut self, keyword: &str) -> Option<String> {
        self.0.remove(keyword).filter(|value| !value.is_empty())
    }

    fn finish(mut self) -> Result<Url, UrlError> {
        for Keyword { name, support } in KEYWORDS {
            let Some(value) = self.0.get(name) else { continue };
            let (is_supported, remedy) = match support {
                Support::Read => continue,
                Support::Only(values, remedy) => (values.contains(&&value[..]), remedy),
                Support::Refused(remedy) => (value.is_empty(), remedy),
            };
            if !is_supported {
                return Err(UrlError::Unsupported { name, remedy });
            }
        }
        if self.take("client_encoding").is_some_and(|encoding| !is_utf8(&encoding)) {
            let remedy = "text is read and written as UTF-8; use client_encoding=UTF8 or remove it";
            return Err(UrlError::Unsupported { name: "client_encoding", remedy });
        }
        let authentication = self.authentication()?;
        let target_session_attrs = self.choice(
            "target_session_attrs",
            &TargetSessionAttrs::ALL.map(|attrs| (attrs.name(), attrs)),
            "any, read-write, read-only, primary, standby or prefer-standby",
        )?;
        let balances = [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];
        let load_balance_hosts = self.choice("load_balance_hosts", &balances, "disable or random")?;
        #[cfg(feature = "tls")]
        let tls = self.tls()?;
        // A name that is empty is one: it asks for none.
        let fallback = self.take("fallback_application_name");
        let application_name = self.0.remove("application_name").or(fallback);
        Ok(Url {
            hosts: self.hosts()?,
            user: self.take("user"),
            password: self.take("password"),
            database: self.take("dbname"),
            application_name,
            options: self.take("options"),
            connect_timeout_seconds: self.positive(
                "connect_timeout",
                i32::MAX,
                "a number of seconds, 0 for no limit",
            )?,
            target_session_attrs,
            load_balance_hosts,
            keepalive: self.keepalive()?,
            tcp_user_timeout_ms: self.positive("tcp_user_timeout", i32::MAX, "a number of milliseconds")?,
            authentication,
            #[cfg(feature = "tls")]
            tls,
        })
    }

    /// The one of these that a keyword names; without the keyword the default. As in libpq, empty is none of them.
    fn choice<T: Copy + Default>(
        &mut self,
        name: &'static str,
        choices: &[(&str, T)],
        expected_values: &'static str,
    ) -> Result<T, UrlError> {
        let Some(value) = self.0.remove(name) else { return Ok(T::default()) };
        let choice = choices.iter().find(|(choice, _)| *choice == value);
        choice.map(|(_, choice)| *choice).ok_or(expected(name, expected_values))
    }

    fn authentication(&mut self) -> Result<AuthenticationPolicy, UrlError> {
        let channel_binding = match self.take("channel_binding").as_deref() {
            None | Some("prefer") => ChannelBindingMode::Prefer,
            Some("disable") => ChannelBindingMode::Disable,
            Some("require") => ChannelBindingMode::Require,
            Some(_) => return Err(expected("channel_binding", "disable, prefer or require")),
        };
        let Some(list) = self.take("require_auth") else {
            return Ok(AuthenticationPolicy { channel_binding, methods: None });
        };
        let wrong = || {
            let methods = "password, md5, gss, sspi, scram-sha-256, oauth or none, each once, and all of them with ! or none";
            expected("require_auth", methods)
        };
        let is_negated = list.starts_with('!');
        let mut named = Vec::new();
        for name in list.split(',') {
            let name = if is_negated { name.strip_prefix('!').ok_or_else(wrong)? } else { name };
            let method = AuthenticationMethod::ALL.into_iter().find(|method| method.name() == name);
            let method = method.filter(|method| !named.contains(method)).ok_or_else(wrong)?;
            named.push(method);
        }
        if is_negated {
            named = AuthenticationMethod::ALL.into_iter().filter(|method| !named.contains(method)).collect();
        }
        Ok(AuthenticationPolicy { channel_binding, methods: Some(named) })
    }

    #[cfg(feature = "tls")]
    fn tls(&mut self) -> Result<TlsOptions, UrlError> {
        let root = match self.take("sslrootcert") {
            None => TlsRoot::None,
            Some(name) if name == "system" => TlsRoot::System,
            Some(path) => TlsRoot::File(path.into()),
        };
        let mode = match (self.take("sslmode").as_deref(), &root) {
            // Anybody may have a certificate that is signed by one of those: only the name tells them apart.
            (None | Some("verify-full"), TlsRoot::System) => TlsMode::VerifyFull,
            (Some(_), TlsRoot::System) => {
                return Err(expected("sslmode", "verify-full, since sslrootcert is system"));
            }
            (Some("disable" | "allow"), _) => TlsMode::Disable,
            (None | Some("prefer"), _) => TlsMode::Prefer,
            (Some("require"), _) => TlsMode::Require,
            (Some("verify-ca"), _) => TlsMode::VerifyCa,
            (Some("verify-full"), _) => TlsMode::VerifyFull,
            (Some(_), _) => {
                return Err(expected("sslmode", "disable, allow, prefer, require, verify-ca or verify-full"));
            }
        };
        let negotiation = match self.take("sslnegotiation").as_deref() {
            None | Some("postgres") => TlsNegotiation::Postgres,
            Some("direct") => TlsNegotiation::Direct,
            Some(_) => return Err(expected("sslnegotiation", "postgres or direct")),
        };
        let sends_certificate = match self.take("sslcertmode").as_deref() {
            None | Some("allow") => true,
            Some("disable") => false,
            Some(_) => return Err(expected("sslcertmode", "disable or allow")),
        };
        let client = match (self.take("sslcert"), self.take("sslkey")) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                Some(TlsClientFiles { certificate: certificate.into(), key: key.into() })
            }
            (Some(_), None) => return Err(expected("sslkey", "the file of the key that belongs to sslcert")),
            (None, Some(_)) => {
                return Err(expected("sslcert", "the file of the certificate that belongs to sslkey"));
            }
        };
        let tells_host = match self.take("sslsni").as_deref() {
            None | Some("1") => true,
            Some("0") => false,
            Some(_) => return Err(expected("sslsni", "0 or 1")),
        };
        Ok(TlsOptions { mode, negotiation, root, client: client.filter(|_| sends_certificate), tells_host })
    }

    /// Lines up the lists of hosts, addresses and ports.
    fn hosts(&mut self) -> Result<Vec<Host>, UrlError> {
        let mut list = |keyword| {
            let list = self.take(keyword).unwrap_or_default();
            list.split(',').map(str::to_owned).collect::<Vec<_>>()
        };
        // A list that is not there has one empty element.
        let (mut names, mut addresses, mut ports) = (list("host"), list("hostaddr"), list("port"));
        if addresses == [""] {
            addresses.resize(names.len(), String::new());
        } else if names == [""] {
            names.resize(addresses.len(), String::new());
        } else if names.len() != addresses.len() {
            return Err(UrlError::AddressCount { hosts: names.len(), addresses: addresses.len() });
        }
        if ports.len() == 1 {
            // One port is for all hosts.
            let port = ports.swap_remove(0);
            ports.resize(names.len(), port);
        } else if ports.len() != names.len() {
            return Err(UrlError::PortCount { hosts: names.len(), ports: ports.len() });
        }
        let each = names.into_iter().zip(addresses).zip(ports);
        each.map(|((name, address), port)| host(name, address, &port)).collect()
    }

    fn keepalive(&mut self) -> Result<Option<Keepalive>, UrlError> {
        let is_on = match self.0.remove("keepalives") {
            Some(value) => {
                let error = UrlError::ParameterValue { name: "keepalives", expected: "0 or 1" };
                integer(&value).ok_or(error)? != 0
            }
            None => true,
        };
        let keepalive = Keepalive {
            idle_seconds: self.positive("keepalives_idle", 32_767, "seconds, up to 32767")?,
            interval_seconds: self.positive("keepalives_interval", 32_767, "seconds, up to 32767")?,
            count: self.positive("keepalives_count", 127, "a number of probes, up to 127")?,
        };
        Ok(is_on.then_some(keepalive))
    }

    /// A number; `None` if there is none, or it is not positive.
    fn positive(
        &mut self,
        name: &'static str,
        max: i32,
        expected: &'static str,
    ) -> Result<Option<u32>, UrlError> {
        let Some(value) = self.0.remove(name) else { return Ok(None) };
        let error = UrlError::ParameterValue { name, expected };
        let number = integer(&value).filter(|&number| number <= max).ok_or(error)?;
        Ok(u32::try_from(number).ok().filter(|&number| number > 0))
    }
}

fn expected(name: &'static str, expected: &'static str) -> UrlError {
    UrlError::ParameterValue { name, expected }
}

/// A number as libpq's `parse_int_param` reads it: with a sign, and space around it.
fn integer(text: &str) -> Option<i32> {
    text.trim_matches(is_space).parse().ok()
}

fn host(name: String, address: String, port: &str) -> Result<Host, UrlError> {
    let port = match port {
        "" => PORT_DEFAULT,
        port => integer(port)
            .and_then(|port| port.try_into().ok())
            .filter(|&port| port > 0)
            .ok_or(UrlError::Port)?,
    };
    if !address.is_empty() {
        let (plain, _scope) = address.split_once('%').unwrap_or((&address, ""));
        let is_address = address.parse::<IpAddr>().is_ok() || plain.parse::<Ipv6Addr>().is_ok();
        let expected = "IPv4 or IPv6 addresses; a name belongs into host";
        return if is_address {
            // A directory is no name that a certificate could be for.
            Ok(if name.is_empty() || name.starts_with('/') {
                Host::Tcp { name: address, address: None, port }
            } else {
                Host::Tcp { name, address: Some(address), port }
            })
        } else {
            Err(UrlError::ParameterValue { name: "hostaddr", expected })
        };
    }
    match name.bytes().next() {
        None => Err(UrlError::HostMissing),
        Some(b'/') => Ok(Host::Unix { socket_path: format!("{name}/.s.PGSQL.{port}") }),
        Some(b'@') => Err(UrlError::Unsupported {
            name: "host",
            remedy: "an abstract socket cannot be used; give the directory of a socket, starting with /",
        }),
        Some(_) => Ok(Host::Tcp { name, address: None, port }),
    }
}

/// Whether PostgreSQL takes this name for UTF-8. It compares letters and digits alone.
fn is_utf8(encoding: &str) -> bool {
    let name: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
    name.eq_ignore_ascii_case("utf8") || name.eq_ignore_ascii_case("unicode")
}

/// Undoes percent-encoding. Source: RFC 3986, section 2.1. As in libpq from version 18 on, spaces at both ends are not part
/// of the text, and white space within it has to be encoded.
fn decode(text: &str, part: &'static str) -> Result<String, UrlError> {
    let text = text.trim_matches(' ');
    if text.contains(is_space) {
        return Err(UrlError::WhiteSpace { part });
    }
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

const REQUIRESSL: &str = "requiressl";

/// A keyword of libpq.
struct Keyword {
    name: &'static str,
    support: Support,
}

/// What this client makes of a keyword.
enum Support {
    /// It has a field, or a rule of its own.
    Read,
    /// These values ask for nothing that is missing. Any other is refused with this remedy.
    Only(&'static [&'static str], &'static str),
    /// Refused with this remedy, unless it is empty.
    Refused(&'static str),
}

const fn read(name: &'static str) -> Keyword {
    Keyword { name, support: Support::Read }
}

const fn only(name: &'static str, values: &'static [&'static str], remedy: &'static str) -> Keyword {
    Keyword { name, support: Support::Only(values, remedy) }
}

const fn refused(name: &'static str, remedy: &'static str) -> Keyword {
    Keyword { name, support: Support::Refused(remedy) }
}

#[cfg(not(feature = "tls"))]
const NO_TLS: &str = "there is no TLS in this build; remove it, or build with the feature tls";
const NO_REVOCATION: &str = "revoked certificates are not looked up; remove it";
const NO_GSS: &str = "there is no GSSAPI; remove it";
const NO_OAUTH: &str = "there is no OAuth; remove it and give a password";
const NO_FILE: &str = "no file is read; give its values here";
const NO_KEYS: &str = "give the password instead";

/// Every keyword of libpq 12 to 18.
const KEYWORDS: &[Keyword] = &[
    read("host"),
    read("hostaddr"),
    read("port"),
    read("user"),
    read("password"),
    read("dbname"),
    read("application_name"),
    read("fallback_application_name"),
    read("options"),
    read("client_encoding"),
    read("connect_timeout"),
    read("keepalives"),
    read("keepalives_idle"),
    read("keepalives_interval"),
    read("keepalives_count"),
    read("tcp_user_timeout"),
    #[cfg(feature = "tls")]
    read("sslmode"),
    #[cfg(not(feature = "tls"))]
    only(
        "sslmode",
        &["disable", "allow", "prefer"],
        "there is no TLS in this build; use disable, allow or prefer, or build with the feature tls",
    ),
    #[cfg(feature = "tls")]
    read("sslnegotiation"),
    #[cfg(not(feature = "tls"))]
    only("sslnegotiation", &["postgres"], NO_TLS),
    only("sslcompression", &["", "0"], "TLS is not compressed; remove it"),
    #[cfg(feature = "tls")]
    read("sslsni"),
    #[cfg(not(feature = "tls"))]
    only("sslsni", &["", "0", "1"], NO_TLS),
    #[cfg(feature = "tls")]
    read("sslcertmode"),
    #[cfg(not(feature = "tls"))]
    only("sslcertmode", &["disable", "allow"], "there is no TLS in this build; use disable or allow"),
    #[cfg(feature = "tls")]
    read("sslcert"),
    #[cfg(not(feature = "tls"))]
    refused("sslcert", NO_TLS),
    #[cfg(feature = "tls")]
    read("sslkey"),
    #[cfg(not(feature = "tls"))]
    refused("sslkey", NO_TLS),
    #[cfg(feature = "tls")]
    read("sslrootcert"),
    #[cfg(not(feature = "tls"))]
    refused("sslrootcert", NO_TLS),
    refused("sslpassword", "a key with a password cannot be read; remove it, and take it off the key"),
    refused("sslcrl", NO_REVOCATION),
    refused("sslcrldir", NO_REVOCATION),
    refused("sslkeylogfile", "keys are written nowhere; remove it"),
    only("ssl_min_protocol_version", &["", "TLSv1.2"], "TLS is 1.2 or 1.3; use TLSv1.2 or remove it"),
    only("ssl_max_protocol_version", &["", "TLSv1.3"], "TLS is 1.2 or 1.3; use TLSv1.3 or remove it"),
    #[cfg(feature = "tls")]
    read("channel_binding"),
    #[cfg(not(feature = "tls"))]
    only("channel_binding", &["disable", "prefer"], "there is no TLS in this build; use disable or prefer"),
    only("gssencmode", &["disable", "prefer"], "there is no GSSAPI; use disable or prefer"),
    refused("krbsrvname", NO_GSS),
    refused("gsslib", NO_GSS),
    only("gssdelegation", &["", "0"], NO_GSS),
    read("target_session_attrs"),
    read("load_balance_hosts"),
    only("replication", &["", "false", "off", "no", "0"], "this is no replication client; remove it"),
    only("min_protocol_version", &["", "3.0"], "the protocol is 3.0; use 3.0"),
    only("max_protocol_version", &["", "3.0", "latest"], "the protocol is 3.0; use 3.0"),
    refused("requirepeer", "the server process of a socket is not looked at; remove it"),
    read("require_auth"),
    refused("passfile", NO_FILE),
    refused("service", NO_FILE),
    refused("servicefile", NO_FILE),
    refused("scram_client_key", NO_KEYS),
    refused("scram_server_key", NO_KEYS),
    refused("oauth_issuer", NO_OAUTH),
    refused("oauth_client_id", NO_OAUTH),
    refused("oauth_client_secret", NO_OAUTH),
    refused("oauth_scope", NO_OAUTH),
];

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
            .field("target_session_attrs", &self.target_session_attrs)
            .field("load_balance_hosts", &self.load_balance_hosts)
            .field("keepalive", &self.keepalive)
            .field("tcp_user_timeout_ms", &self.tcp_user_timeout_ms)
            .field("authentication", &self.authentication)
            .finish_non_exhaustive()
    }
}

impl Display for UrlError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            UrlError::Scheme => f.write_str(
                "expected a URI that starts with postgresql:// or postgres://, or parameters as in host=db user=alice",
            ),
            UrlError::Encoding { part } => {
                write!(f, "{part}: bad percent-encoding, not UTF-8, or a NUL byte")
            }
            UrlError::WhiteSpace { part } => write!(f, "{part}: white space in a URI is written %20, %09 or %0A"),
            UrlError::StrayAt => {
                f.write_str("an @ out of its place: inside a user or password write %40, %2F, %3F for @, /, ?")
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
            UrlError::AddressCount { hosts, addresses } => {
                write!(f, "hostaddr: {addresses} addresses for {hosts} hosts; give one for each")
            }
            UrlError::ParameterWithoutValue => f.write_str("a parameter without ="),
            UrlError::SecondEqualsSign => {
                f.write_str("a parameter with a second =: inside a value write %3D")
            }
            UrlError::Unterminated => f.write_str("a value that begins with ' has no ' at its end"),
            UrlError::ParameterUnknown { name } => write!(f, "unknown parameter {name:?}"),
            UrlError::ParameterUnknownBehindPassword => f.write_str(
                "unknown parameter behind password: inside a password write %26 for & in a URI, or put it in quotes",
            ),
            UrlError::ParameterValue { name, expected } => write!(f, "{name}: expected {expected}"),
            UrlError::Unsupported { name, remedy } => write!(f, "not supported: {name}: {remedy}"),
        }
    }
}

impl Error for UrlError {}

#[cfg(test)]
mod tests;
