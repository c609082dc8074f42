//! A server that knows a password as libpq has encoded it, and lets a connection of `proto-pg` log in.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use proto_pg::{Connection, Event, Limits, Session};
use sha2::{Digest as _, Sha256};

use crate::oracle;

/// Logs in with a password.
///
/// # Errors
/// The connection's proof does not fit what libpq has encoded.
pub fn log_in(password: &str) -> Result<(), String> {
    // SCRAM-SHA-256$iterations:salt$stored key:server key
    let secret = oracle::encrypt(password);
    let fields: Vec<&str> = secret.split(['$', ':']).collect();
    let [_, iterations, salt, stored_key, _] = fields[..] else {
        return Err(format!("libpq says {secret:?}"));
    };
    let stored_key = BASE64_STANDARD.decode(stored_key).map_err(|error| error.to_string())?;

    let session = Session {
        user: "alice".into(),
        password: Some(password.into()),
        database: "bank".into(),
        parameters: vec![],
        ..Session::default()
    };
    let limits = Limits {
        message_len_max_bytes: 8_192,
        text_len_max_bytes: 8_192,
        send_len_max_bytes: 8_192,
        in_flight_calls_max: 1,
    };
    let mut connection = Connection::<u8>::new(&session, &[], limits);
    connection.send_advance(connection.send_pending().len());
    let first = reply(&mut connection, 10, b"SCRAM-SHA-256\0\0")?;
    let (_, client_first_bare) = first.split_once("n,,").ok_or("no first message")?;
    let (_, nonce) = client_first_bare.split_once("r=").ok_or("no nonce")?;
    let server_first = format!("r={nonce}SERVER,s={salt},i={iterations}");
    let last = reply(&mut connection, 11, server_first.as_bytes())?;
    let (without_proof, proof) = last.split_once(",p=").ok_or("no proof")?;
    let proof = BASE64_STANDARD.decode(proof).map_err(|error| error.to_string())?;

    let mut signature = Hmac::<Sha256>::new_from_slice(&stored_key).map_err(|error| error.to_string())?;
    signature.update(format!("{client_first_bare},{server_first},{without_proof}").as_bytes());
    let signature = signature.finalize().into_bytes();
    let client_key: Vec<u8> = proof.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    if Sha256::digest(client_key)[..] == stored_key[..] { Ok(()) } else { Err("does not log in".to_owned()) }
}

/// What the connection says to an authentication request.
fn reply(connection: &mut Connection<u8>, code: u32, data: &[u8]) -> Result<String, String> {
    let len = u32::try_from(data.len() + 8).map_err(|error| error.to_string())?;
    let request = [&b"R"[..], &len.to_be_bytes(), &code.to_be_bytes(), data].concat();
    connection.recv_space()[..request.len()].copy_from_slice(&request);
    connection.recv_commit(request.len());
    if let Some(Event::Closed { reason }) = connection.poll_event() {
        return Err(reason.to_string());
    }
    // A tag and a length, and in the first message a mechanism and another length.
    let said = String::from_utf8_lossy(&connection.send_pending()[5..]).into_owned();
    connection.send_advance(connection.send_pending().len());
    Ok(said)
}
