//! The rules of the API, edge by edge.

use super::*;

fn transaction(body: &str) -> Result<Transaction, Reject> {
    parse_transaction(body.as_bytes())
}

/// The body with one member replaced by other JSON.
fn with(member: &str, json: &str) -> Result<Transaction, Reject> {
    let value = |name: &str, default: &str| if name == member { json.to_owned() } else { default.to_owned() };
    transaction(&format!(
        r#"{{"valor": {}, "tipo": {}, "descricao": {}}}"#,
        value("valor", "1000"),
        value("tipo", r#""c""#),
        value("descricao", r#""deposito""#)
    ))
}

fn description(json: &str) -> Result<String, Reject> {
    with("descricao", json).map(|transaction| transaction.description.as_str().to_owned())
}

#[test]
fn a_plain_body_is_read() {
    let transaction = transaction(r#" {"valor":1000,"tipo":"d","descricao":"deposito"} "#).unwrap();
    assert_eq!(transaction.value_cents, 1_000);
    assert_eq!(transaction.kind, Kind::Debit);
    assert_eq!(transaction.description.as_str(), "deposito");
}

#[test]
fn valor_is_an_integer_within_its_range() {
    for (json, value_cents) in [("1", 1), ("2147483647", i32::MAX)] {
        assert_eq!(with("valor", json).unwrap().value_cents, value_cents);
    }
    for json in [
        "0",
        "-0",
        "-1",
        "2147483648",
        "99999999999999999999",
        "1.0",
        "1.5",
        "1e3",
        "1E0",
        "\"1\"",
        "null",
        "true",
        "[1]",
        "{}",
    ] {
        assert_eq!(with("valor", json), Err(Reject::InvalidField), "{json}");
    }
    for json in ["01", "+1", "1.", ".5", "0x1", "NaN", ""] {
        assert_eq!(with("valor", json), Err(Reject::NotJson), "{json}");
    }
}

#[test]
fn tipo_is_c_or_d_as_a_string() {
    assert_eq!(with("tipo", r#""\u0063""#).unwrap().kind, Kind::Credit);
    for json in [r#""C""#, r#""x""#, r#""""#, r#""cd""#, "null", "1", r#"{"c": null}"#, r#"["c"]"#] {
        assert_eq!(with("tipo", json), Err(Reject::InvalidField), "{json}");
    }
}

#[test]
fn descricao_is_counted_in_characters() {
    for text in ["a", "0123456789", "éééééééééé", "漢字漢字漢字漢字漢字", "😀😀😀😀😀😀😀😀😀😀"]
    {
        assert_eq!(description(&format!("\"{text}\"")).as_deref(), Ok(text));
    }
    for text in ["", "0123456789a", "ééééééééééé", "😀😀😀😀😀😀😀😀😀😀😀"]
    {
        assert_eq!(description(&format!("\"{text}\"")), Err(Reject::InvalidField), "{text}");
    }
    assert_eq!(description(r#""\ud83d\ude00\ud83d\ude00""#).as_deref(), Ok("😀😀"));
    assert_eq!(description(r#""\"\\\/\b\f\n\r\t""#).as_deref(), Ok("\"\\/\u{8}\u{c}\n\r\t"));
}

#[test]
fn descricao_is_text_without_nul() {
    for json in [r#""a\u0000b""#, r#""\ud800""#, r#""\udc00x""#, r#""\ud800\ud800""#, "null", "1", "[]"] {
        assert_eq!(description(json), Err(Reject::InvalidField), "{json}");
    }
    assert_eq!(transaction("{\"valor\":1,\"tipo\":\"c\",\"descricao\":\"a\0\"}"), Err(Reject::NotJson));
}

#[test]
fn every_member_is_required_once() {
    for body in [
        "{}",
        r#"{"valor": 1, "tipo": "c"}"#,
        r#"{"valor": 1, "descricao": "a"}"#,
        r#"{"tipo": "c", "descricao": "a"}"#,
        r#"{"valor": 1, "tipo": "c", "descricao": "a", "valor": 1}"#,
        r#"{"Valor": 1, "tipo": "c", "descricao": "a"}"#,
    ] {
        assert_eq!(transaction(body), Err(Reject::InvalidField), "{body}");
    }
}

#[test]
fn other_members_are_ignored_whatever_they_hold() {
    assert!(transaction(r#"{"\ud800": 1, "valor": 1, "tipo": "c", "descricao": "a"}"#).is_ok());
    for other in ["null", "[[[]]]", r#"{"valor": 2}"#, r#""\ud800""#, "1e400", "-0.0"] {
        let body = format!(r#"{{"x": {other}, "valor": 1, "tipo": "c", "descricao": "a", "y": {other}}}"#);
        assert_eq!(transaction(&body).map(|transaction| transaction.value_cents), Ok(1), "{other}");
    }
}

#[test]
fn json_that_is_no_object_is_out_of_the_rules() {
    for body in ["null", "1", "\"c\"", "[]", r#"[1, "c", "a"]"#, "true"] {
        assert_eq!(transaction(body), Err(Reject::InvalidField), "{body}");
    }
}

#[test]
fn what_is_not_json_is_named_so() {
    let valid = r#"{"valor": 1, "tipo": "c", "descricao": "a"}"#;
    for len_bytes in 0..valid.len() {
        assert_eq!(transaction(&valid[..len_bytes]), Err(Reject::NotJson), "{len_bytes} bytes");
    }
    for body in
        [format!("{valid}x"), format!("{valid}{valid}"), format!("\u{feff}{valid}"), valid.replace('"', "'")]
    {
        assert_eq!(transaction(&body), Err(Reject::NotJson), "{body}");
    }
    assert_eq!(
        parse_transaction(b"{\"x\": \"\xff\", \"valor\": 1, \"tipo\": \"c\", \"descricao\": \"a\"}"),
        Err(Reject::NotJson)
    );
    assert_eq!(
        parse_transaction(b"{\"valor\": 1, \"tipo\": \"c\", \"descricao\": \"\xc3\"}"),
        Err(Reject::NotJson)
    );
}

#[test]
fn a_raw_control_character_in_a_name_is_not_json_and_an_escaped_one_is() {
    let valid = r#", "valor": 1, "tipo": "c", "descricao": "a"}"#;
    for character in ["\0", "\t", "\n", "\u{1f}"] {
        let body = format!("{{\"x{character}y\": 1{valid}");
        assert_eq!(transaction(&body), Err(Reject::NotJson), "{body:?}");
    }
    for body in [format!(r#"{{"x\u0000\ny": 1{valid}"#), format!("\t{{\r\n\"xy\":\n1{valid}\n")] {
        assert!(transaction(&body).is_ok(), "{body:?}");
    }
}

fn routed(method: &str, path: &str) -> Result<Route, Reject> {
    route(method, path, ListenerKind::Bank, &Accounts::new(vec![5, 1, 3]))
}

#[test]
fn paths_lead_to_their_routes() {
    assert_eq!(routed("POST", "/clientes/1/transacoes"), Ok(Route::Transaction { account: 1 }));
    assert_eq!(routed("GET", "/clientes/5/extrato"), Ok(Route::Statement { account: 5 }));
    assert_eq!(routed("HEAD", "/clientes/5/extrato"), Ok(Route::Statement { account: 5 }));
    assert_eq!(routed("GET", "/healthz"), Ok(Route::Health));
    assert_eq!(routed("HEAD", "/healthz"), Ok(Route::Health));
}

#[test]
fn an_id_is_a_plain_decimal_of_a_known_account() {
    for id in ["", "0", "2", "6", "01", "+1", "-1", "1.0", "1a", "%31", " 1", "99999999999999999999", "١"] {
        for resource in ["transacoes", "extrato"] {
            for method in ["GET", "POST"] {
                let path = format!("/clientes/{id}/{resource}");
                assert_eq!(routed(method, &path), Err(Reject::NotFound), "{method} {path}");
            }
        }
    }
}

#[test]
fn before_the_accounts_are_known_only_the_form_of_an_id_is_judged() {
    let unknown = Accounts::default();
    let path = "/clientes/6/extrato";
    assert_eq!(route("GET", path, ListenerKind::Bank, &unknown), Ok(Route::Statement { account: 6 }));
    assert_eq!(route("GET", "/clientes/06/extrato", ListenerKind::Bank, &unknown), Err(Reject::NotFound));
}

#[test]
fn other_paths_are_unknown() {
    for path in [
        "/",
        "",
        "*",
        "/clientes",
        "/clientes/1",
        "/clientes/1/",
        "/clientes/1/extrato/",
        "/clientes/1/Extrato",
        "/clientes//1/extrato",
        "//clientes/1/extrato",
        "/healthz/",
        "/metrics",
    ] {
        assert_eq!(routed("GET", path), Err(Reject::NotFound), "{path}");
    }
}

#[test]
fn other_methods_are_told_what_works() {
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"] {
        let reject = Reject::MethodNotAllowed { allow: Allow::Post };
        assert_eq!(routed(method, "/clientes/1/transacoes"), Err(reject), "{method}");
    }
    for path in ["/clientes/1/extrato", "/healthz"] {
        assert_eq!(routed("POST", path), Err(Reject::MethodNotAllowed { allow: Allow::GetAndHead }));
    }
    assert_eq!(rejection(Reject::MethodNotAllowed { allow: Allow::Post }).extra_field, "Allow: POST\r\n");
}

#[test]
fn accounts_are_those_ids_and_no_others() {
    let accounts = Accounts::new(vec![5, 1, 3]);
    assert_eq!(accounts.len(), 3);
    assert!(accounts.are(&[1, 3, 5]) && !accounts.are(&[1, 3]) && !accounts.are(&[1, 3, 6]));
}

#[test]
fn the_metrics_have_a_face_of_their_own() {
    let accounts = Accounts::new(vec![1]);
    assert_eq!(route("GET", "/metrics", ListenerKind::Metrics, &accounts), Ok(Route::Metrics));
    assert_eq!(route("GET", "/clientes/1/extrato", ListenerKind::Metrics, &accounts), Err(Reject::NotFound));
    assert_eq!(route("GET", "/healthz", ListenerKind::Metrics, &accounts), Err(Reject::NotFound));
}

#[test]
fn every_error_has_a_json_body_that_names_it() {
    let mut scratch = b"left over".to_vec();
    let violations = [
        Violation::Malformed("the Host field is missing"),
        Violation::TooSlow,
        Violation::BodyTooLong,
        Violation::TargetTooLong,
        Violation::HeadTooLong,
        Violation::UnsupportedCoding,
        Violation::UnsupportedMethod,
        Violation::UnsupportedVersion,
    ];
    let mut bodies: Vec<Vec<u8>> =
        violations.into_iter().map(|found| violation(found, &mut scratch).body.to_vec()).collect();
    let rejects = [
        Reject::NotFound,
        Reject::MethodNotAllowed { allow: Allow::Post },
        Reject::NotJson,
        Reject::InvalidField,
        Reject::PastLimit,
    ];
    bodies.extend(rejects.into_iter().map(|reject| rejection(reject).body.to_vec()));
    bodies.extend(
        Unavailable::ALL.into_iter().map(|reason| rejection(Reject::Unavailable(reason)).body.to_vec()),
    );
    for body in bodies {
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(json["erro"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
    }
}

#[test]
fn outcomes_become_answers() {
    let mut scratch = b"left over".to_vec();
    let accepted = Outcome::Accepted { limit_cents: 100_000, balance_cents: -9_098 };
    let answered = answer(accepted, &mut scratch);
    assert_eq!(
        (answered.status, answered.body),
        (Status::Ok, br#"{"limite":100000,"saldo":-9098}"#.as_slice())
    );
    assert_eq!(
        answer(Outcome::Rejected(Reject::PastLimit), &mut scratch).status,
        Status::UnprocessableContent
    );
    assert_eq!(answer(Outcome::Rejected(Reject::NotFound), &mut scratch).status, Status::NotFound);
    assert_eq!(answer(Outcome::Statement(b"{}"), &mut scratch).body, b"{}");
    let unavailable = answer(Outcome::Rejected(Reject::Unavailable(Unavailable::InDoubt)), &mut scratch);
    assert_eq!(
        (unavailable.status, unavailable.extra_field),
        (Status::ServiceUnavailable, "Retry-After: 1\r\n")
    );
}
