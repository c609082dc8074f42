//! Connection strings, as libpq reads them.

use super::*;

fn tcp(name: &str, port: u16) -> Host {
    Host::Tcp { name: name.into(), address: None, port }
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
         connect_timeout=10&sslmode=prefer&gssencmode=disable&channel_binding=prefer&target_session_attrs=prefer-standby&load_balance_hosts=random",
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
        target_session_attrs: TargetSessionAttrs::PreferStandby,
        load_balance_hosts: LoadBalanceHosts::Random,
        keepalive: Some(Keepalive::default()),
        tcp_user_timeout_ms: None,
        authentication: AuthenticationPolicy::default(),
        #[cfg(feature = "tls")]
        tls: TlsOptions::default(),
    };
    assert_eq!(url, expected);
    let session = url.session("nobody");
    assert_eq!((&session.user[..], &session.database[..]), ("alice", "bank"));
    let parameters = [("application_name", "my app"), ("options", "-c geqo=off")];
    assert_eq!(session.parameters, parameters.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn what_is_not_said_is_none() {
    for url in
        ["postgresql://db", "postgresql://db/", "postgresql://db/?", "postgresql://:@db/?connect_timeout=0"]
    {
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
    assert_eq!(hosts("postgresql://%2Frun%2fpg:77/db"), [unix("/run/pg/.s.PGSQL.77")]);
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
fn keywords_and_values_may_be_encoded() {
    let url = Url::parse("postgresql://db?u%73er=x&%70assword=y&sslmode=prefe%72&ssl%6Dode=allo%77").unwrap();
    assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("x"), Some("y")));
}

#[test]
fn an_ampersand_may_end_a_uri() {
    assert_eq!(Url::parse("postgresql://db?user=x&").unwrap().user.as_deref(), Some("x"));
}

#[test]
fn a_newline_at_the_end_is_not_part_of_the_last_value() {
    for end in ["\n", "\r\n", "\n\n"] {
        let database = |text: &str| Url::parse(&format!("{text}{end}")).unwrap().database;
        assert_eq!(database("postgresql://db/bank").as_deref(), Some("bank"));
        assert_eq!(database("host=db dbname=bank").as_deref(), Some("bank"));
        let url = Url::parse(&format!("postgresql://db?password=x{end}")).unwrap();
        assert_eq!(url.password.as_deref(), Some("x"));
    }
}

#[test]
fn the_user_ends_at_the_first_at_sign_before_a_slash() {
    let url = Url::parse("postgresql://al?ice:hun?ter2=1&x@db/x?user=a@b").unwrap();
    assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("a@b"), Some("hun?ter2=1&x")));
    assert_eq!(url.hosts, [tcp("db", 5432)]);
}

#[test]
fn keyword_value_form() {
    let url = Url::parse(
        " host = db,/run port=1,2\tuser='al ice' password = it\\'s\\ 1\\\\2'3 dbname='b\\'\\\\k'options=''\n\
         application_name=a=b connect_timeout=' +7 '",
    )
    .unwrap();
    assert_eq!(url.hosts, [tcp("db", 1), unix("/run/.s.PGSQL.2")]);
    assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("al ice"), Some("it's 1\\2'3")));
    assert_eq!((url.database.as_deref(), url.options), (Some("b'\\k"), None));
    assert_eq!((url.application_name.as_deref(), url.connect_timeout_seconds), (Some("a=b"), Some(7)));
    assert_eq!(Url::parse("host=h password=").unwrap().password, None);
    assert_eq!(Url::parse("host=h password=x\\").unwrap().password.as_deref(), Some("x"));
}

#[test]
fn an_address_stands_beside_its_name_or_for_it() {
    let at = |name: &str, port| Host::Tcp { name: name.into(), address: Some("10.0.0.1".into()), port };
    assert_eq!(hosts("postgresql://db:1?hostaddr=10.0.0.1"), [at("db", 1)]);
    assert_eq!(hosts("hostaddr=::1,fe80::1%eth0"), [tcp("::1", 5432), tcp("fe80::1%eth0", 5432)]);
    assert_eq!(hosts("host=a,b hostaddr=,10.0.0.1 port=1,2"), [tcp("a", 1), at("b", 2)]);
    assert_eq!(hosts("host=/run hostaddr=10.0.0.1"), [tcp("10.0.0.1", 5432)]);
}

#[test]
fn what_tcp_is_to_do() {
    let url = |query: &str| Url::parse(&format!("postgresql://db?{query}")).unwrap();
    assert_eq!(url("").keepalive, Some(Keepalive::default()));
    assert_eq!(url("keepalives=0&keepalives_idle=3").keepalive, None);
    let keepalive = url("keepalives_idle=3&keepalives_interval=0&keepalives_count=127").keepalive;
    let expected = Keepalive { idle_seconds: Some(3), interval_seconds: None, count: Some(127) };
    assert_eq!(keepalive, Some(expected));
    assert_eq!(url("tcp_user_timeout=1500").tcp_user_timeout_ms, Some(1500));
    assert_eq!(url("tcp_user_timeout=-1").tcp_user_timeout_ms, None);
    assert_eq!(url("connect_timeout=-1").connect_timeout_seconds, None);
}

#[test]
fn which_session_will_do_is_said_in_both_forms() {
    for attrs in TargetSessionAttrs::ALL {
        let name = attrs.name();
        for text in [
            format!("postgresql://a,b?target_session_attrs={name}"),
            format!("host=a,b target_session_attrs={name}"),
        ] {
            assert_eq!(Url::parse(&text).unwrap().target_session_attrs, attrs, "{text}");
        }
    }
    let url = Url::parse("postgresql://a,b").unwrap();
    let defaults = (TargetSessionAttrs::Any, LoadBalanceHosts::Disable);
    assert_eq!((url.target_session_attrs, url.load_balance_hosts), defaults);
    for text in ["postgresql://a,b?load_balance_hosts=random", "host=a,b load_balance_hosts=random"] {
        assert_eq!(Url::parse(text).unwrap().load_balance_hosts, LoadBalanceHosts::Random);
    }
}

#[test]
fn the_name_of_the_application_has_a_fallback() {
    let name = |query: &str| Url::parse(&format!("postgresql://db?{query}")).unwrap();
    let fallback = name("fallback_application_name=b");
    assert_eq!(fallback.application_name.as_deref(), Some("b"));
    assert_eq!(name("fallback_application_name=b&application_name=a").application_name.as_deref(), Some("a"));
    // As in libpq: asked for none.
    let none = name("fallback_application_name=b&application_name=");
    assert_eq!((none.application_name.as_deref(), none.session("x").parameters), (Some(""), vec![]));
    assert_eq!(name("fallback_application_name=").application_name, None);
}

#[test]
fn what_asks_for_nothing_that_is_missing_is_accepted() {
    for query in [
        "client_encoding=UTF8",
        "client_encoding=utf-8",
        "client_encoding=",
        "sslrootcert=",
        "sslsni=1",
        "requiressl=0",
        "sslmode=require&sslmode=disable",
        "sslnegotiation=postgres",
        "load_balance_hosts=disable",
        "replication=false",
        "max_protocol_version=latest",
    ] {
        assert!(Url::parse(&format!("postgresql://db?{query}")).is_ok(), "{query}");
    }
}

#[test]
fn every_keyword_is_listed_once() {
    for (index, keyword) in KEYWORDS.iter().enumerate() {
        assert!(KEYWORDS[..index].iter().all(|other| other.name != keyword.name), "{}", keyword.name);
    }
}

#[test]
fn what_cannot_be_used_is_an_error() {
    let (hosts, ports) = (2, 3);
    let value = |name, expected| UrlError::ParameterValue { name, expected };
    let seconds = "a number of seconds, 0 for no limit";
    let unsupported = |name, remedy| UrlError::Unsupported { name, remedy };
    let utf8 = "text is read and written as UTF-8; use client_encoding=UTF8 or remove it";
    let methods =
        "password, md5, gss, sspi, scram-sha-256, oauth or none, each once, and all of them with ! or none";
    let socket = "an abstract socket cannot be used; give the directory of a socket, starting with /";
    let addresses = "IPv4 or IPv6 addresses; a name belongs into host";
    let attrs = "any, read-write, read-only, primary, standby or prefer-standby";
    let cases = [
        ("mysql://db", UrlError::Scheme),
        ("postgresql://", UrlError::HostMissing),
        ("postgresql:///db", UrlError::HostMissing),
        ("postgresql://h1,,h2", UrlError::HostMissing),
        ("postgresql://h?host=", UrlError::HostMissing),
        ("postgresql://a%4@db", UrlError::Encoding { part: "user" }),
        ("postgresql://a:%zz@db", UrlError::Encoding { part: "password" }),
        ("postgresql://a:%+1@db", UrlError::Encoding { part: "password" }),
        ("postgresql://db%", UrlError::Encoding { part: "host" }),
        ("postgresql://db/%ff", UrlError::Encoding { part: "dbname" }),
        ("postgresql://db/a%00b", UrlError::Encoding { part: "dbname" }),
        ("postgresql://[::1", UrlError::Brackets),
        ("postgresql://[::1]x", UrlError::Brackets),
        ("postgresql://db:0", UrlError::Port),
        ("postgresql://db:65536", UrlError::Port),
        ("postgresql://db:1:2", UrlError::Port),
        ("postgresql://h1,h2?port=1,2,3", UrlError::PortCount { hosts, ports }),
        ("postgresql://db?sslmode", UrlError::ParameterWithoutValue),
        ("postgresql://db?connect_timeout=1s", value("connect_timeout", seconds)),
        ("", UrlError::HostMissing),
        ("host", UrlError::Scheme),
        ("postgresql:/db", UrlError::Scheme),
        ("alice:secret@db/bank?user=x", UrlError::Scheme),
        ("Postgresql://db?x=y", UrlError::Scheme),
        ("user=x", UrlError::HostMissing),
        ("host='db", UrlError::Unterminated),
        ("host='db\\", UrlError::Unterminated),
        ("host=db user", UrlError::ParameterWithoutValue),
        ("host=db what=x", UrlError::ParameterUnknown { name: "what".into() }),
        ("host=db password=a what=x", UrlError::ParameterUnknownBehindPassword),
        ("host=db password='a\0'", UrlError::Encoding { part: "password" }),
        ("postgresql://a:%+1@db", UrlError::Encoding { part: "password" }),
        ("postgresql://db?%00=x", UrlError::Encoding { part: "the name of a parameter" }),
        ("postgresql://a b@db", UrlError::WhiteSpace { part: "user" }),
        ("postgresql://db?options=-c x", UrlError::WhiteSpace { part: "options" }),
        ("postgresql://db\n/x", UrlError::WhiteSpace { part: "host" }),
        ("postgresql://a:b@c@db", UrlError::StrayAt),
        ("postgresql://db/a@b", UrlError::StrayAt),
        ("postgresql:///x?what=a@b", UrlError::StrayAt),
        ("postgresql://[]", UrlError::Brackets),
        ("postgresql://db:%2D1", UrlError::Port),
        ("postgresql://db:99999999999", UrlError::Port),
        ("postgresql://db?&user=x", UrlError::ParameterWithoutValue),
        ("postgresql://db?application_name=a=b", UrlError::SecondEqualsSign),
        ("postgresql://db?Sslmode=disable", UrlError::ParameterUnknown { name: "Sslmode".into() }),
        ("postgresql://db?hostaddr=a", value("hostaddr", addresses)),
        ("postgresql://db?hostaddr=10.1", value("hostaddr", addresses)),
        ("host=a,b hostaddr=10.0.0.1", UrlError::AddressCount { hosts: 2, addresses: 1 }),
        ("host=a hostaddr=10.0.0.1,10.0.0.2", UrlError::AddressCount { hosts: 1, addresses: 2 }),
        ("postgresql://db?keepalives=on", value("keepalives", "0 or 1")),
        ("postgresql://db?keepalives_idle=32768", value("keepalives_idle", "seconds, up to 32767")),
        ("postgresql://db?tcp_user_timeout=1s", value("tcp_user_timeout", "a number of milliseconds")),
        ("postgresql://db?connect_timeout=", value("connect_timeout", seconds)),
        ("postgresql://db?client_encoding=latin1", unsupported("client_encoding", utf8)),
        ("postgresql://db?ssl=false", UrlError::ParameterUnknown { name: "ssl".into() }),
        ("postgresql://db?sslcrl=x", unsupported("sslcrl", NO_REVOCATION)),
        ("postgresql://db?require_auth=scram", value("require_auth", methods)),
        ("postgresql://db?require_auth=md5,md5", value("require_auth", methods)),
        ("postgresql://db?require_auth=md5,!none", value("require_auth", methods)),
        ("postgresql://db?passfile=/x", unsupported("passfile", NO_FILE)),
        ("postgresql://db?target_session_attrs=master", value("target_session_attrs", attrs)),
        ("host=db target_session_attrs=''", value("target_session_attrs", attrs)),
        ("host=db load_balance_hosts=doesnotexist", value("load_balance_hosts", "disable or random")),
        ("postgresql:///?host=%40abstract", unsupported("host", socket)),
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
        "alice:hunter2@db/x?a=b",
        "host=db password=hun ter2=x",
        "host=db password='hunter2",
        "host=db password hunter2",
        "postgresql://alice:hun ter2@db/x",
        "postgresql://alice:1/hun?ter2=1@db/x",
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
    let error = Url::parse("postgresql://db?a%0Ab=c").unwrap_err();
    assert_eq!(error.to_string(), r#"unknown parameter "a\nb""#);
}

#[test]
fn methods_of_authentication_are_listed_or_left_out() {
    let methods = |list: &str| {
        let url = Url::parse(&format!("postgresql://db?require_auth={list}")).unwrap();
        url.authentication.methods
    };
    assert_eq!(methods(""), None);
    let both = vec![AuthenticationMethod::ScramSha256, AuthenticationMethod::None];
    assert_eq!(methods("scram-sha-256,none"), Some(both));
    let left = methods("!password,!md5").unwrap();
    assert!(!left.contains(&AuthenticationMethod::Md5) && left.contains(&AuthenticationMethod::ScramSha256));
    assert_eq!(left.len(), 5);
}

#[cfg(not(feature = "tls"))]
#[test]
fn without_tls_what_asks_for_it_is_refused() {
    for url in [
        "postgresql://db?sslrootcert=x",
        "postgresql://db?sslmode=verify-full",
        "postgresql://db?sslmode=on",
        "postgresql://db?ssl=tr%75e",
        "postgresql://db?requiressl=1",
        "postgresql://db?channel_binding=require",
        "postgresql://db?sslnegotiation=direct",
    ] {
        let error = Url::parse(url).unwrap_err();
        assert!(matches!(error, UrlError::Unsupported { .. }), "{url}: {error:?}");
        assert!(error.to_string().contains("there is no TLS in this build"), "{url}: {error}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn what_is_said_about_tls_is_kept() {
    let tls = |parameters: &str| Url::parse(&format!("postgresql://db?{parameters}")).map(|url| url.tls);
    assert_eq!(tls(""), Ok(TlsOptions::default()));
    for (value, mode) in [
        ("sslmode=disable", TlsMode::Disable),
        ("sslmode=allow", TlsMode::Disable),
        ("sslmode=prefer", TlsMode::Prefer),
        ("sslmode=require", TlsMode::Require),
        ("ssl=tr%75e", TlsMode::Require),
        ("requiressl=1", TlsMode::Require),
        ("sslmode=verify-ca", TlsMode::VerifyCa),
        ("sslmode=verify-full", TlsMode::VerifyFull),
        ("sslrootcert=system", TlsMode::VerifyFull),
    ] {
        assert_eq!(tls(value).unwrap().mode, mode, "{value}");
    }
    let all = tls("sslnegotiation=direct&sslrootcert=/r&sslcert=/c&sslkey=/k&sslsni=0").unwrap();
    assert_eq!(all.negotiation, TlsNegotiation::Direct);
    assert_eq!(all.root, TlsRoot::File("/r".into()));
    assert_eq!(all.client, Some(TlsClientFiles { certificate: "/c".into(), key: "/k".into() }));
    assert!(!all.tells_host);
    assert_eq!(tls("sslcert=/c&sslkey=/k&sslcertmode=disable").unwrap().client, None);
    for wrong in [
        "sslmode=on",
        "sslmode=require&sslrootcert=system",
        "sslcert=/c",
        "sslkey=/k",
        "sslsni=2",
        "sslcertmode=require",
    ] {
        let error = tls(wrong);
        assert!(matches!(error, Err(UrlError::ParameterValue { .. })), "{wrong}: {error:?}");
    }
}
