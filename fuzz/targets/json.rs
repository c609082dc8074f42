//! The reading of a transaction's body agrees with a plain reading of the rules by `serde_json`.
#![no_main]

use std::fmt;

use libfuzzer_sys::fuzz_target;
use rinha::bank::{Kind, Reject, parse_transaction};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// The members of an object as they stand there, repeated ones as well.
struct Members(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Members, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// The one member of this name.
fn only<'a>(members: &'a Members, name: &str) -> Option<&'a Value> {
    let mut found = members.0.iter().filter(|(other, _)| other == name);
    let first = found.next();
    first.filter(|_| found.next().is_none()).map(|(_, value)| value)
}

/// Value, kind and description, if they keep the rules.
fn plain_reading(members: &Members) -> Option<(i32, String, String)> {
    let value = only(members, "valor")?.as_i64().filter(|value| (1..=i64::from(i32::MAX)).contains(value))?;
    let kind = only(members, "tipo")?.as_str().filter(|kind| ["c", "d"].contains(kind))?;
    let description = only(members, "descricao")?
        .as_str()
        .filter(|text| (1..=10).contains(&text.chars().count()) && !text.contains('\0'))?;
    Some((i32::try_from(value).ok()?, kind.to_owned(), description.to_owned()))
}

fuzz_target!(|body: &[u8]| {
    let read = parse_transaction(body);
    let is_json = str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    assert_eq!(read == Err(Reject::NotJson), !is_json);
    // What has no value in memory (a lone surrogate, 1e999, deep nesting) is ignored in members of others' names only.
    let Ok(members) = serde_json::from_slice::<Members>(body) else { return };
    let expected = plain_reading(&members);
    let read = read.ok().map(|transaction| {
        assert!(matches!(transaction.kind, Kind::Credit | Kind::Debit));
        let description = transaction.description.as_str().to_owned();
        (transaction.value_cents, transaction.kind.as_str().to_owned(), description)
    });
    assert_eq!(read, expected);
});
