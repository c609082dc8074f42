//! CORE: the JSON of a transaction, read with serde, without allocating.

use std::fmt;

use serde::Deserialize as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

use super::{Description, Kind, Reject, Transaction};

/// Reads the body of a transaction.
///
/// # Errors
/// `NotJson` or `InvalidField`. An escape like `\ud800` is JSON by its grammar, though no text: it is an `InvalidField`
/// in a field of ours and ignored elsewhere.
// Out of line, so that profiles name it.
#[inline(never)]
pub fn parse_transaction(body: &[u8]) -> Result<Transaction, Reject> {
    let mut json = serde_json::Deserializer::from_slice(body);
    if let Ok(transaction) = Transaction::deserialize(&mut json)
        && json.end().is_ok()
        && str::from_utf8(body).is_ok()
        // Names are read as bytes, in which a raw line break, which JSON forbids, looks like an escaped one.
        && (body.iter().all(|byte| *byte >= b' ') || is_json(body))
    {
        return Ok(transaction);
    }
    Err(if is_json(body) { Reject::InvalidField } else { Reject::NotJson })
}

fn is_json(body: &[u8]) -> bool {
    str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

// Written by hand: what `derive` makes would also take an array for the object, and `{"c": null}` for "c".
impl<'de> serde::Deserialize<'de> for Transaction {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Transaction, D::Error> {
        deserializer.deserialize_map(TransactionVisitor)
    }
}

struct TransactionVisitor;

impl<'de> Visitor<'de> for TransactionVisitor {
    type Value = Transaction;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with valor, tipo and descricao")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Transaction, A::Error> {
        let (mut value_cents, mut kind, mut description) = (None, None, None);
        while let Some(name) = members.next_key::<Name>()? {
            let is_repeated = match name {
                Name::Valor => value_cents.replace(members.next_value::<i32>()?).is_some(),
                Name::Tipo => kind.replace(members.next_value::<Kind>()?).is_some(),
                Name::Descricao => description.replace(members.next_value::<Description>()?).is_some(),
                Name::Other => members.next_value::<IgnoredAny>().map(|_| false)?,
            };
            if is_repeated {
                // Two parties could read two different transactions out of it.
                return Err(A::Error::custom("a field is repeated"));
            }
        }
        match (value_cents, kind, description) {
            (Some(value_cents @ 1..), Some(kind), Some(description)) => {
                Ok(Transaction { value_cents, kind, description })
            }
            (_, _, _) => Err(A::Error::custom("a field is missing or out of its rule")),
        }
    }
}

enum Name {
    Valor,
    Tipo,
    Descricao,
    Other,
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_bytes<E: serde::de::Error>(self, name: &[u8]) -> Result<Name, E> {
                Ok(match name {
                    b"valor" => Name::Valor,
                    b"tipo" => Name::Tipo,
                    b"descricao" => Name::Descricao,
                    _ => Name::Other,
                })
            }
        }
        // As bytes, since the name of another member may be an escape like `\ud800`, which is no text.
        deserializer.deserialize_bytes(NameVisitor)
    }
}

/// Implements `Deserialize` for a type that is read from a JSON string, borrowed or unescaped, without allocating.
macro_rules! deserialize_from_str {
    ($type:ty, $expecting:literal, $read:expr) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                struct StrVisitor;
                impl Visitor<'_> for StrVisitor {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        let read: fn(&str) -> Option<$type> = $read;
                        read(text).ok_or_else(|| E::custom(concat!("not ", $expecting)))
                    }
                }
                deserializer.deserialize_str(StrVisitor)
            }
        }
    };
}

deserialize_from_str!(Kind, "\"c\" or \"d\"", |text| match text {
    "c" => Some(Kind::Credit),
    "d" => Some(Kind::Debit),
    _ => None,
});
deserialize_from_str!(Description, "1 to 10 characters without NUL", Description::new);
