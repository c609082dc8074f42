//! A transaction as a client sends it.

use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub client: i32,
    /// In cents, from 1 on.
    pub value: i32,
    pub kind: Kind,
    /// 1 to 10 characters, without NUL.
    pub description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Credit,
    Debit,
}

impl Kind {
    /// As the API and the procedures write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Credit => "c",
            Kind::Debit => "d",
        }
    }
}

pub(crate) enum Fault {
    Json,
    Rule,
}

#[derive(Deserialize)]
struct Fields {
    valor: i32,
    tipo: String,
    descricao: String,
}

impl Transaction {
    pub(crate) fn parse(client: i32, body: &[u8]) -> Result<Transaction, Fault> {
        // First its syntax: a member that is out of its rule would hide what is wrong behind it.
        let _: IgnoredAny = serde_json::from_slice(body).map_err(|_| Fault::Json)?;
        let Fields { valor: value, tipo, descricao: description } =
            serde_json::from_slice(body).map_err(|_| Fault::Rule)?;
        let kind = match tipo.as_str() {
            "c" => Kind::Credit,
            "d" => Kind::Debit,
            _ => return Err(Fault::Rule),
        };
        let is_short = (1..=10).contains(&description.chars().count()) && !description.contains('\0');
        (value > 0 && is_short).then_some(Transaction { client, value, kind, description }).ok_or(Fault::Rule)
    }
}
