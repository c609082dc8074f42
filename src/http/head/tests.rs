//! Heads of requests, whole and at every prefix.

use super::*;

const LIMITS: Limits =
    Limits { head_len_max_bytes: 8_192, target_len_max_bytes: 4_096, body_len_max_bytes: 16_384 };

fn parse(text: &str) -> Result<Option<Head<'_>>, Violation> {
    parse_head(text.as_bytes(), &LIMITS)
}

/// The head of a request with these fields behind a valid `Host`.
fn with_fields(fields: &str) -> Result<(Framing, Persistence, bool), Violation> {
    let text = format!("POST / HTTP/1.1\r\nHost: bank\r\n{fields}\r\n");
    parse(&text).map(|head| head.expect("the head is whole")).map(|head| {
        assert_eq!(head.len_bytes, text.len());
        (head.framing, head.persistence, head.expects_continue)
    })
}

fn framing(fields: &str) -> Result<Framing, Violation> {
    with_fields(fields).map(|(framing, _, _)| framing)
}

fn malformed<T: std::fmt::Debug>(result: Result<T, Violation>) -> &'static str {
    match result {
        Err(Violation::Malformed(reason)) => reason,
        other => panic!("expected a malformed head, found {other:?}"),
    }
}

#[test]
fn every_prefix_of_a_head_asks_for_more() {
    let text = "POST /clientes/1/transacoes?x=1 HTTP/1.1\r\nHost: bank:9999\r\nContent-Length: 5\r\n\r\n";
    for len_bytes in 0..text.len() {
        assert_eq!(parse(&text[..len_bytes]), Ok(None), "{len_bytes} bytes");
    }
    let expected = Head {
        method: "POST",
        path: "/clientes/1/transacoes",
        framing: Framing::Length { len_bytes: 5 },
        persistence: Persistence::KeepAlive,
        expects_continue: false,
        len_bytes: text.len(),
    };
    assert_eq!(parse(text), Ok(Some(expected)));
    assert_eq!(
        parse(&format!("{text}hello")).map(|head| head.map(|head| head.len_bytes)),
        Ok(Some(text.len()))
    );
}

/// The verdict over a whole head, before which no part of it may give another one.
fn verdict(text: &str) -> Result<String, Violation> {
    let whole = parse(text).map(|head| head.expect("the head is whole").path.to_owned());
    for len_bytes in 0..text.len() {
        let part = parse_head(&text.as_bytes()[..len_bytes], &LIMITS);
        assert!(
            matches!(part, Ok(None)) || part.err() == whole.as_ref().err().copied(),
            "{len_bytes} of {text:?}"
        );
    }
    whole
}

#[test]
fn the_target_follows_the_grammar_of_its_form() {
    let target = |target: &str| verdict(&format!("GET {target} HTTP/1.1\r\nHost: bank\r\n\r\n"));
    for (good, path) in [
        ("/healthz?a=b", "/healthz"),
        ("http://bank/healthz?x", "/healthz"),
        ("HTTPS://bank", "/"),
        ("//healthz", "//healthz"),
    ] {
        assert_eq!(target(good), Ok(path.to_owned()), "{good}");
    }
    // One of each kind: the tests of `http/uri.rs` have them all.
    for bad in ["*", "healthz", "bank:80", "http:///healthz", "/%zz", "/#", "/a?%zz", "/\u{e4}"] {
        assert_eq!(target(bad), Err(Violation::Malformed("the request target is malformed")), "{bad}");
    }
    // Not even text.
    malformed(parse_head(b"GET /\xff HTTP/1.1\r\nHost: bank\r\n\r\n", &LIMITS));
}

#[test]
fn methods_about_no_resource_are_not_supported() {
    for line in ["CONNECT bank:80", "CONNECT /healthz", "CONNECT /nowhere", "CONNECT *", "OPTIONS *"] {
        let text = format!("{line} HTTP/1.1\r\nHost: bank\r\n\r\n");
        assert_eq!(verdict(&text), Err(Violation::UnsupportedMethod), "{line}");
    }
    assert!(verdict("OPTIONS /healthz HTTP/1.1\r\nHost: bank\r\n\r\n").is_ok());
    for line in ["options *", "OPTIONS **", "connect bank:80", "POST *"] {
        malformed(verdict(&format!("{line} HTTP/1.1\r\nHost: bank\r\n\r\n")));
    }
}

#[test]
fn the_request_line_is_strict() {
    for line in [
        "GET  / HTTP/1.1",
        "GET /",
        "GET / HTTP/1.1 ",
        "G(T / HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP/11",
        "GET / HTTPS/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET /\t HTTP/1.1",
        " GET / HTTP/1.1",
    ] {
        malformed(parse(&format!("{line}\r\nHost: bank\r\n\r\n")));
    }
}

#[test]
fn only_whole_empty_lines_count_as_such() {
    for (text, len_bytes) in [
        ("", 0),
        ("\r", 0),
        ("\r\n", 2),
        ("\r\n\r", 2),
        ("\r\n\r\nGET", 4),
        ("\n", 0),
        ("\r\n\n\r\n", 2),
        ("GET\r\n", 0),
    ] {
        assert_eq!(empty_lines_len_bytes(text.as_bytes()), len_bytes, "{text:?}");
    }
}

#[test]
fn other_versions_are_named_as_such() {
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
        let text = format!("GET / {version}\r\nHost: bank\r\n\r\n");
        assert_eq!(parse(&text), Err(Violation::UnsupportedVersion), "{version}");
    }
}

#[test]
fn another_version_is_named_only_when_its_line_is_whole() {
    let text = "POST / HTTP/2.1 \r\n";
    for len_bytes in 0..text.len() {
        assert_eq!(parse(&text[..len_bytes]), Ok(None), "{len_bytes} bytes");
    }
    assert_eq!(parse(text), Err(Violation::UnsupportedVersion));
    for hopeless in ["POST / HTTP/2.x", "POST / HTTP/22", "POST / HTTP/2.1x", "POST / x"] {
        assert!(matches!(parse(hopeless), Err(Violation::Malformed(_))), "{hopeless}");
    }
}

#[test]
fn a_line_that_ends_in_a_bare_line_feed_is_refused() {
    for text in [
        "GET / HTTP/1.1\nHost: bank\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: bank\n\r\n",
        "GET / HTTP/1.1\r\nHost: bank\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: bank\r\n\r\n",
        "\rGET / HTTP/1.1\r\nHost: bank\r\n\r\n",
        "\n",
    ] {
        assert_eq!(malformed(parse(text)), "a line does not end in CRLF", "{text:?}");
    }
    malformed(parse("GET / HTTP/1.1\r\nHost: ba\rnk\r\n\r\n"));
}

#[test]
fn fields_are_strict() {
    for fields in [
        "A : b\r\n",
        " A: b\r\n",
        "A: b\r\n c\r\n",
        "A\r\n",
        ": b\r\n",
        "A: \0\r\n",
        "A: \u{7f}\r\n",
        "Ä: b\r\n",
    ] {
        malformed(with_fields(fields));
    }
    assert!(with_fields("A: tab\tand \u{e4}\r\nEmpty:\r\n").is_ok());
}

#[test]
fn a_1_1_request_has_exactly_one_valid_host() {
    assert_eq!(malformed(parse("GET / HTTP/1.1\r\n\r\n")), "the Host field is missing");
    assert_eq!(malformed(with_fields("host: bank\r\n")), "the Host field is repeated");
    for host in [
        "a b",
        "a/b",
        "user@bank",
        "a\"",
        "a?b",
        ":80",
        "a:b",
        "a:1:2",
        "::1",
        "[::1",
        "]",
        "[]",
        "[zz]",
        "[::1]x",
        "a%",
        "a%zz",
        "a\u{e4}",
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(malformed(verdict(&text)), "the Host field is malformed", "{host}");
    }
    for host in ["", "bank", "bank:9999", "bank:", "[::1]:80", "[v1.a]", "a_b", "a%41"] {
        assert!(verdict(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).is_ok(), "{host}");
    }
    assert!(parse("GET / HTTP/1.0\r\n\r\n").is_ok());
    malformed(parse("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"));
}

#[test]
fn content_length_is_one_plain_decimal() {
    assert_eq!(framing(""), Ok(Framing::Length { len_bytes: 0 }));
    assert_eq!(framing("content-length:  16384 \r\n"), Ok(Framing::Length { len_bytes: 16_384 }));
    assert_eq!(framing("Content-Length: 000\r\n"), Ok(Framing::Length { len_bytes: 0 }));
    for too_long in ["16385", "18446744073709551616", "99999999999999999999999"] {
        assert_eq!(
            framing(&format!("Content-Length: {too_long}\r\n")),
            Err(Violation::BodyTooLong),
            "{too_long}"
        );
    }
    for value in ["", "+5", "-1", "0x5", "5,5", "5, 5", "5 5", "five", "5.0"] {
        malformed(framing(&format!("Content-Length: {value}\r\n")));
    }
    malformed(framing("Content-Length: 5\r\nContent-Length: 5\r\n"));
    malformed(framing("Content-Length: 5\r\nContent-Length: 6\r\n"));
}

#[test]
fn chunked_is_the_only_transfer_coding() {
    for value in ["chunked", "CHUNKED", " chunked , ", ",chunked"] {
        assert_eq!(framing(&format!("Transfer-Encoding: {value}\r\n")), Ok(Framing::Chunked), "{value}");
    }
    for value in ["gzip", "identity", "gzip, chunked", "gzip, br, chunked", "chunkedd"] {
        let framing = framing(&format!("Transfer-Encoding: {value}\r\n"));
        assert_eq!(framing, Err(Violation::UnsupportedCoding), "{value}");
    }
    for value in
        ["", ",", "chunked, chunked", "chunked, gzip", "chunked, gzip, chunked", "gzip, chunked, chunked"]
    {
        malformed(framing(&format!("Transfer-Encoding: {value}\r\n")));
    }
    malformed(framing("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"));
    malformed(framing("Content-Length: 5\r\nTransfer-Encoding: gzip\r\n"));
    malformed(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"));
}

#[test]
fn a_list_of_transfer_codings_is_the_same_in_one_field_and_in_several() {
    for list in [
        "",
        ",",
        "chunked",
        ",chunked,",
        "gzip",
        "gzip,chunked",
        "gzip,br",
        "gzip,br,chunked",
        "chunked,chunked",
        "chunked,gzip",
        "chunked,gzip,chunked",
        "gzip,chunked,chunked",
    ] {
        let whole = framing(&format!("Transfer-Encoding: {list}\r\n"));
        for (at, _) in list.match_indices(',') {
            let (left, right) = (&list[..at], &list[at + 1..]);
            let fields = format!("Transfer-Encoding: {left}\r\nA: b\r\ntransfer-encoding: {right}\r\n");
            assert_eq!(framing(&fields), whole, "{list} cut at {at}");
        }
        let each = list.split(',').map(|coding| format!("Transfer-Encoding: {coding}\r\n"));
        assert_eq!(framing(&each.collect::<String>()), whole, "{list}");
    }
}

#[test]
fn persistence_follows_version_and_connection_field() {
    let persistence = |version: &str, field: &str| {
        let text = format!("GET / HTTP/{version}\r\nHost: bank\r\n{field}\r\n");
        parse(&text).unwrap().unwrap().persistence
    };
    assert_eq!(persistence("1.1", ""), Persistence::KeepAlive);
    assert_eq!(persistence("1.1", "Connection: Close\r\n"), Persistence::Close);
    assert_eq!(persistence("1.1", "Connection: te, close\r\n"), Persistence::Close);
    assert_eq!(persistence("1.1", "Connection: keep-alive\r\nConnection: close\r\n"), Persistence::Close);
    assert_eq!(persistence("1.1", "Connection: closed\r\n"), Persistence::KeepAlive);
    assert_eq!(persistence("1.0", ""), Persistence::Close);
    assert_eq!(persistence("1.0", "Connection: Keep-Alive\r\n"), Persistence::KeepAliveSaid);
    assert_eq!(persistence("1.0", "Connection: keep-alive, close\r\n"), Persistence::Close);
}

#[test]
fn only_a_1_1_client_expects_continue() {
    assert!(with_fields("Expect: 100-Continue\r\n").unwrap().2);
    assert!(!with_fields("Expect: something-else\r\n").unwrap().2);
    let text = "POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n";
    assert!(!parse(text).unwrap().unwrap().expects_continue);
}

#[test]
fn a_head_at_its_limit_passes_and_one_byte_more_does_not() {
    let head_of = |len_bytes: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: bank\r\nA: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: bank\r\nA: {}\r\n\r\n", "x".repeat(len_bytes - rest))
    };
    assert!(parse(&head_of(8_192)).unwrap().is_some());
    assert_eq!(parse(&head_of(8_193)), Err(Violation::HeadTooLong));
    let unfinished = head_of(9_000);
    assert_eq!(parse(&unfinished[..8_191]), Ok(None));
    assert_eq!(parse(&unfinished[..8_192]), Err(Violation::HeadTooLong));
}

#[test]
fn the_number_of_fields_is_limited() {
    let head_of =
        |fields: usize| format!("GET / HTTP/1.1\r\nHost: bank\r\n{}\r\n", "A: b\r\n".repeat(fields - 1));
    assert!(parse(&head_of(FIELDS_MAX)).unwrap().is_some());
    assert_eq!(parse(&head_of(FIELDS_MAX + 1)), Err(Violation::HeadTooLong));
}

#[test]
fn a_target_at_its_limit_passes_and_one_byte_more_does_not() {
    let head_of =
        |len_bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: bank\r\n\r\n", "x".repeat(len_bytes - 1));
    assert!(parse(&head_of(4_096)).unwrap().is_some());
    assert_eq!(parse(&head_of(4_097)), Err(Violation::TargetTooLong));
    assert_eq!(parse(&head_of(9_000)), Err(Violation::TargetTooLong));
    let unfinished = head_of(5_000);
    assert_eq!(parse(&unfinished[..4 + 4_096]), Ok(None));
    assert_eq!(parse(&unfinished[..4 + 4_097]), Err(Violation::TargetTooLong));
}

/// Found by fuzzing: a line that was read at once was too long, and malformed when it came byte by byte.
#[test]
fn a_target_both_malformed_and_too_long_is_refused_for_what_shows_first() {
    let first_refusal = |text: &str| (0..=text.len()).find_map(|len_bytes| parse(&text[..len_bytes]).err());
    let long = "x".repeat(5_000);
    for (text, is_too_long) in [
        (format!("GET /\u{1}{long}"), false),
        (format!("G\u{1}T /{long}"), false),
        (format!("GET /\r\n{long}"), false),
        (format!("GET  /{long}"), false),
        (format!("GET /{long}\u{1}"), true),
        (format!("GET /{long} HTTP/x"), true),
    ] {
        let at_once = parse(&text).unwrap_err();
        assert_eq!(at_once == Violation::TargetTooLong, is_too_long, "{text:.20}");
        assert_eq!(first_refusal(&text), Some(at_once), "{text:.20}");
    }
}
