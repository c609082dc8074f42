//! Authentication: who speaks when, and when the server has proved itself.
//!
//! Format: PostgreSQL documentation, "Frontend/Backend Protocol", sections Start-up and SASL Authentication.

use crate::error::{AuthenticationError, one_line};
use crate::frame::AuthenticationRequest;
use crate::request::Outbox;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use sha2::{Digest as _, Sha256};
use std::{io, mem};
use stringprep::tables;
use unicode_normalization::UnicodeNormalization as _;

/// What this side can prove itself with, and how the server may ask for it.
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) policy: AuthenticationPolicy,
    pub(crate) channel: Channel,
}

/// What the exchange can be tied to.
pub(crate) enum Channel {
    /// No TLS.
    Plain,
    /// TLS, and what stands for the server's certificate, if it can have that.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "without TLS there is none"))]
    Secured { end_point: Option<Vec<u8>> },
}

/// What a server may ask for. By default anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthenticationPolicy {
    /// Whether the exchange is tied to the TLS session below it: libpq's `channel_binding`.
    pub channel_binding: ChannelBindingMode,
    /// The methods that are accepted, `None` for all: libpq's `require_auth`.
    pub methods: Option<Vec<AuthenticationMethod>>,
}

/// Whether SCRAM is tied to the TLS session, so that a man in the middle cannot relay it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelBindingMode {
    /// Never.
    Disable,
    /// If there is TLS and the server can.
    #[default]
    Prefer,
    /// Always: a server that cannot is refused.
    Require,
}

/// How a server may ask us to prove ourselves. Those of libpq that this client does not speak are named, so that they can be
/// left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthenticationMethod {
    /// The password in cleartext.
    Password,
    /// The hash of the password.
    Md5,
    /// GSSAPI.
    Gss,
    /// SSPI.
    Sspi,
    /// SCRAM-SHA-256, tied to TLS or not.
    ScramSha256,
    /// OAuth.
    OAuth,
    /// Not at all.
    None,
}

impl AuthenticationMethod {
    pub(crate) const ALL: [AuthenticationMethod; 7] = [
        AuthenticationMethod::Password,
        AuthenticationMethod::Md5,
        AuthenticationMethod::Gss,
        AuthenticationMethod::Sspi,
        AuthenticationMethod::ScramSha256,
        AuthenticationMethod::OAuth,
        AuthenticationMethod::None,
    ];

    /// As `require_auth` has it.
    pub fn name(self) -> &'static str {
        match self {
            AuthenticationMethod::Password => "password",
            AuthenticationMethod::Md5 => "md5",
            AuthenticationMethod::Gss => "gss",
            AuthenticationMethod::Sspi => "sspi",
            AuthenticationMethod::ScramSha256 => "scram-sha-256",
            AuthenticationMethod::OAuth => "oauth",
            AuthenticationMethod::None => "none",
        }
    }
}

/// How far the exchange has come.
pub(crate) enum Exchange {
    /// The server has not said yet what it wants.
    Unasked,
    /// A password went out, in cleartext or as MD5. Only the verdict can follow.
    PasswordSent,
    /// SCRAM: our first message went out.
    ScramBegun(Box<ScramSha256>),
    /// SCRAM: our proof went out; the server owes us its own.
    ScramProved(Box<ScramSha256>),
    /// SCRAM: the server's signature is right, so it knows the password too.
    ServerProved,
    /// `AuthenticationOk` came.
    Complete,
}

impl Exchange {
    /// Takes one request, queues the answer to it and moves on.
    ///
    /// # Errors
    /// The exchange is over, and so is the connection.
    pub(crate) fn answer(
        &mut self,
        request: &AuthenticationRequest<'_>,
        credentials: &Credentials,
        outbox: &mut Outbox,
    ) -> Result<(), AuthenticationError> {
        // After an error the value does not matter: the connection closes.
        *self = mem::replace(self, Exchange::Complete).next(request, credentials, outbox)?;
        Ok(())
    }

    /// True once `AuthenticationOk` has arrived at the right step.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self, Exchange::Complete)
    }

    fn next(
        self,
        request: &AuthenticationRequest<'_>,
        credentials: &Credentials,
        outbox: &mut Outbox,
    ) -> Result<Exchange, AuthenticationError> {
        let out_of_order = AuthenticationError::OutOfOrder { request: request.name() };
        if let Exchange::Unasked = self {
            credentials.check(request)?;
        }
        match (self, request) {
            (
                Exchange::Unasked | Exchange::PasswordSent | Exchange::ServerProved,
                AuthenticationRequest::Ok,
            ) => Ok(Exchange::Complete),
            // ANCHOR: unproven
            // An impostor that does not know the password cannot compute the server's proof, and would leave it out.
            (Exchange::ScramBegun(_) | Exchange::ScramProved(_), AuthenticationRequest::Ok) => {
                Err(AuthenticationError::ServerUnproven)
            }
            // ANCHOR_END: unproven
            (Exchange::Unasked, AuthenticationRequest::CleartextPassword) => {
                send_password(credentials.password()?, outbox)
            }
            (Exchange::Unasked, AuthenticationRequest::Md5Password { salt }) => {
                let hash = md5_hash(credentials.user.as_bytes(), credentials.password()?, *salt);
                send_password(hash.as_bytes(), outbox)
            }
            (Exchange::Unasked, AuthenticationRequest::Sasl { mechanisms }) => {
                begin_scram(mechanisms, credentials, outbox)
            }
            (Exchange::ScramBegun(mut scram), AuthenticationRequest::SaslContinue(server_first)) => {
                scram.update(server_first).map_err(|e| scram_error(&e))?;
                outbox.sasl_response(scram.message()).map_err(|e| scram_error(&e))?;
                Ok(Exchange::ScramProved(scram))
            }
            (Exchange::ScramProved(mut scram), AuthenticationRequest::SaslFinal(server_final)) => {
                scram.finish(server_final).map_err(|e| scram_error(&e))?;
                Ok(Exchange::ServerProved)
            }
            (Exchange::Unasked, AuthenticationRequest::Other { code }) => {
                Err(AuthenticationError::MethodUnsupported { code: *code })
            }
            (
                Exchange::Unasked
                | Exchange::PasswordSent
                | Exchange::ScramBegun(_)
                | Exchange::ScramProved(_)
                | Exchange::ServerProved
                | Exchange::Complete,
                AuthenticationRequest::Ok
                | AuthenticationRequest::CleartextPassword
                | AuthenticationRequest::Md5Password { .. }
                | AuthenticationRequest::Sasl { .. }
                | AuthenticationRequest::SaslContinue(_)
                | AuthenticationRequest::SaslFinal(_)
                | AuthenticationRequest::Other { .. },
            ) => Err(out_of_order),
        }
    }
}

fn send_password(password: &[u8], outbox: &mut Outbox) -> Result<Exchange, AuthenticationError> {
    outbox.password(password).map_err(|_| AuthenticationError::PasswordHasNul)?;
    Ok(Exchange::PasswordSent)
}

fn begin_scram(
    mechanisms: &[u8],
    credentials: &Credentials,
    outbox: &mut Outbox,
) -> Result<Exchange, AuthenticationError> {
    // A list of C strings.
    let offers =
        |mechanism: &str| mechanisms.split(|&byte| byte == 0).any(|name| name == mechanism.as_bytes());
    let end_point = match (&credentials.channel, credentials.policy.channel_binding) {
        (Channel::Secured { end_point }, ChannelBindingMode::Prefer | ChannelBindingMode::Require) => {
            end_point.as_ref()
        }
        (Channel::Secured { .. } | Channel::Plain, _) => None,
    };
    let (mechanism, binding) = match end_point {
        Some(end_point) if offers(SCRAM_SHA_256_PLUS) => {
            (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(end_point.clone()))
        }
        _ if credentials.policy.channel_binding == ChannelBindingMode::Require => {
            return Err(AuthenticationError::ChannelBindingMissing);
        }
        // Says that this side supports channel binding. A server that offered it then knows that the offer was removed on the
        // way.
        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
    };
    if !offers(mechanism) {
        return Err(AuthenticationError::MechanismUnsupported);
    }
    let scram = Box::new(ScramSha256::new(&scram_key(credentials.password()?), binding));
    outbox.sasl_initial(mechanism, scram.message()).map_err(|e| scram_error(&e))?;
    Ok(Exchange::ScramBegun(scram))
}

/// A password such that [`ScramSha256`] hashes what libpq would.
///
/// `ScramSha256` prepares passwords by itself, and not in all cases as libpq does. It leaves alone what RFC 4013 forbids, such
/// as a NUL; and HMAC fills a key of less than 64 bytes up with NULs anyway, and hashes one of more.
fn scram_key(password: &[u8]) -> Vec<u8> {
    let prepared = str::from_utf8(password).ok().and_then(prepare);
    let key = prepared.map_or_else(|| password.to_owned(), String::into_bytes);
    match key.len() {
        ..HMAC_BLOCK_LEN_BYTES => [&key[..], b"\0"].concat(),
        HMAC_BLOCK_LEN_BYTES => key,
        _ => [&Sha256::digest(&key)[..], b"\0"].concat(),
    }
}

/// A key of SHA-256 is taken as it stands up to this length. Source: RFC 2104, section 2.
const HMAC_BLOCK_LEN_BYTES: usize = 64;

/// Prepares a password as libpq's `pg_saslprep` does: RFC 4013, except that it looks for forbidden characters before it
/// normalizes the text, and that the result must not be empty. `None` if the password has to be used unchanged.
fn prepare(password: &str) -> Option<String> {
    let mapped: String = password
        .chars()
        .map(|char| if tables::non_ascii_space_character(char) { ' ' } else { char })
        .filter(|&char| !tables::commonly_mapped_to_nothing(char))
        .collect();
    let is_forbidden = |char| {
        tables::ascii_control_character(char)
            || tables::non_ascii_control_character(char)
            || tables::private_use(char)
            || tables::non_character_code_point(char)
            || tables::inappropriate_for_plain_text(char)
            || tables::inappropriate_for_canonical_representation(char)
            || tables::change_display_properties_or_deprecated(char)
            || tables::tagging_character(char)
            || tables::unassigned_code_point(char)
    };
    let (first, last) = (mapped.chars().next()?, mapped.chars().next_back()?);
    // Text from right to left may have no letters from left to right, and has to begin and end as such.
    let is_mixed = mapped.contains(tables::bidi_r_or_al)
        && (mapped.contains(tables::bidi_l) || ![first, last].into_iter().all(tables::bidi_r_or_al));
    (!mapped.contains(is_forbidden) && !is_mixed).then(|| mapped.nfkc().collect())
}

fn scram_error(error: &io::Error) -> AuthenticationError {
    AuthenticationError::Scram(one_line(error.to_string().as_bytes()))
}

impl Credentials {
    /// Whether the policy lets the server ask for this first.
    fn check(&self, request: &AuthenticationRequest<'_>) -> Result<(), AuthenticationError> {
        let method = match request {
            AuthenticationRequest::Ok => AuthenticationMethod::None,
            AuthenticationRequest::CleartextPassword => AuthenticationMethod::Password,
            AuthenticationRequest::Md5Password { .. } => AuthenticationMethod::Md5,
            AuthenticationRequest::Sasl { .. } => AuthenticationMethod::ScramSha256,
            // Refused in any case, by a clearer error.
            AuthenticationRequest::SaslContinue(_)
            | AuthenticationRequest::SaslFinal(_)
            | AuthenticationRequest::Other { .. } => return Ok(()),
        };
        if self.policy.methods.as_ref().is_some_and(|methods| !methods.contains(&method)) {
            return Err(AuthenticationError::MethodRefused { method });
        }
        let binds_channel = method == AuthenticationMethod::ScramSha256;
        if self.policy.channel_binding == ChannelBindingMode::Require && !binds_channel {
            return Err(AuthenticationError::ChannelBindingMissing);
        }
        Ok(())
    }

    fn password(&self) -> Result<&[u8], AuthenticationError> {
        self.password.as_ref().map(String::as_bytes).ok_or(AuthenticationError::PasswordMissing)
    }
}

impl AuthenticationRequest<'_> {
    fn name(&self) -> &'static str {
        match self {
            AuthenticationRequest::Ok => "AuthenticationOk",
            AuthenticationRequest::CleartextPassword => "AuthenticationCleartextPassword",
            AuthenticationRequest::Md5Password { .. } => "AuthenticationMD5Password",
            AuthenticationRequest::Sasl { .. } => "AuthenticationSASL",
            AuthenticationRequest::SaslContinue(_) => "AuthenticationSASLContinue",
            AuthenticationRequest::SaslFinal(_) => "AuthenticationSASLFinal",
            AuthenticationRequest::Other { .. } => "an authentication request",
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::script::{authenticating, authentication, authentication_ok, message, receive, send};
    use crate::{Connection, script};
    use base64::prelude::{BASE64_STANDARD, Engine};
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest, Sha256};

    const NOTHING: [&str; 0] = [];

    /// What the connection answers to one authentication request.
    fn reply(connection: &mut Connection<u32>, code: u32, data: &[u8]) -> Vec<u8> {
        send(connection);
        assert_eq!(receive(connection, &authentication(code, data)), NOTHING);
        connection.send_pending().to_vec()
    }

    #[test]
    fn cleartext() {
        let mut connection = authenticating();
        assert_eq!(reply(&mut connection, 3, b""), message(b'p', b"secret\0"));
        assert_eq!(reply(&mut connection, 0, b""), b"");
    }

    #[test]
    fn md5() {
        // "md5" + md5(md5("secret" + "alice") + "salt"), by the tool `md5sum`.
        let mut connection = authenticating();
        let hash = b"md5986e2194384c07f4fd1df4b1351b3e68\0";
        assert_eq!(reply(&mut connection, 5, b"salt"), message(b'p', hash));
        assert_eq!(reply(&mut connection, 0, b""), b"");
    }

    /// The server's half of SCRAM. Source: RFC 5802, section 3, with SHA-256 of RFC 7677.
    struct ScramServer {
        client_first_bare: String,
        server_first: String,
        salted_password: Vec<u8>,
    }

    fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        hmac.update(text);
        hmac.finalize().into_bytes().to_vec()
    }

    impl ScramServer {
        /// Takes the initial response.
        fn new(initial: &[u8], password: &str) -> ScramServer {
            assert_eq!(initial[0], b'p');
            let data = initial[5..].strip_prefix(b"SCRAM-SHA-256\0").unwrap();
            assert_eq!(usize::from(data[3]), data.len() - 4);
            let client_first = String::from_utf8(data[4..].to_vec()).unwrap();
            let client_first_bare = client_first.strip_prefix("n,,").unwrap().to_owned();
            let nonce = client_first_bare.strip_prefix("n=,r=").unwrap();
            let server_first = format!("r={nonce}SERVER,s={},i=2", BASE64_STANDARD.encode("salt"));
            // Two rounds of PBKDF2.
            let first = hmac(password.as_bytes(), b"salt\0\0\0\x01");
            let second = hmac(password.as_bytes(), &first);
            let salted_password = first.iter().zip(second).map(|(a, b)| a ^ b).collect();
            ScramServer { client_first_bare, server_first, salted_password }
        }

        /// Takes the client's last message, checks the client's proof and gives the server's.
        fn check(&self, response: &[u8]) -> Vec<u8> {
            let client_final = String::from_utf8(response[5..].to_vec()).unwrap();
            let (without_proof, proof) = client_final.rsplit_once(",p=").unwrap();
            let auth_message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
            let client_key = hmac(&self.salted_password, b"Client Key");
            let signature = hmac(&Sha256::digest(&client_key), auth_message.as_bytes());
            let expected: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
            assert_eq!(BASE64_STANDARD.decode(proof).unwrap(), expected, "the client's proof");
            let server_key = hmac(&self.salted_password, b"Server Key");
            let signature = BASE64_STANDARD.encode(hmac(&server_key, auth_message.as_bytes()));
            format!("v={signature}").into_bytes()
        }
    }

    const MECHANISMS: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

    fn scram_begun() -> (Connection<u32>, ScramServer) {
        let mut connection = authenticating();
        let server = ScramServer::new(&reply(&mut connection, 10, MECHANISMS), "secret");
        (connection, server)
    }

    fn scram_proved() -> (Connection<u32>, Vec<u8>) {
        let (mut connection, server) = scram_begun();
        let server_final = server.check(&reply(&mut connection, 11, server.server_first.as_bytes()));
        (connection, server_final)
    }

    fn server_proved() -> Connection<u32> {
        let (mut connection, server_final) = scram_proved();
        assert_eq!(reply(&mut connection, 12, &server_final), b"");
        connection
    }

    #[test]
    fn scram_from_end_to_end() {
        let mut connection = server_proved();
        assert_eq!(receive(&mut connection, &authentication_ok()), NOTHING);
        receive(&mut connection, &script::ready_for_query());
        assert_eq!(connection.send_pending()[0], b'P', "authenticated, so statements are prepared");
    }

    /// The nonce is another one each time, so each cut is an exchange of its own.
    #[test]
    fn scram_cut_at_every_byte() {
        let receive_cut = |connection: &mut Connection<u32>, bytes: &[u8], at: usize| {
            send(connection);
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            assert_eq!(
                [receive(connection, head), receive(connection, tail)].concat(),
                NOTHING,
                "cut at {at}"
            );
            connection.send_pending().to_vec()
        };
        let mut longest = 0;
        for at in 0..200 {
            let mut connection = authenticating();
            let initial = receive_cut(&mut connection, &authentication(10, MECHANISMS), at);
            let server = ScramServer::new(&initial, "secret");
            let first = authentication(11, server.server_first.as_bytes());
            let server_final = server.check(&receive_cut(&mut connection, &first, at));
            let last = [authentication(12, &server_final), authentication_ok()].concat();
            receive_cut(&mut connection, &last, at);
            receive(&mut connection, &script::ready_for_query());
            assert_eq!(connection.send_pending()[0], b'P', "cut at {at}");
            longest = longest.max(first.len()).max(last.len());
        }
        assert!((50..200).contains(&longest), "{longest}");
    }

    #[test]
    fn scram_with_an_impostor() {
        let closed = |connection: &mut Connection<u32>, code, data: &[u8]| {
            receive(connection, &authentication(code, data)).concat()
        };
        let (mut connection, mut server_final) = scram_proved();
        server_final[2] = if server_final[2] == b'A' { b'B' } else { b'A' };
        assert_eq!(
            closed(&mut connection, 12, &server_final),
            "Closed: authentication failed: SCRAM-SHA-256: SCRAM verification error"
        );
        let (mut connection, _) = scram_proved();
        assert!(closed(&mut connection, 12, b"e=other-error").contains("SCRAM error: other-error"));
        let (mut connection, _) = scram_begun();
        assert!(closed(&mut connection, 11, b"r=SERVER,s=c2FsdA==,i=2").contains("invalid nonce"));
        let (mut connection, server) = scram_begun();
        let costly = server.server_first.replace("i=2", "i=1000000000");
        assert!(closed(&mut connection, 11, costly.as_bytes()).contains("iteration count"));
        let unproven = "Closed: authentication failed: the server did not prove that it knows the password";
        assert_eq!(closed(&mut scram_begun().0, 0, b""), unproven);
        assert_eq!(closed(&mut scram_proved().0, 0, b""), unproven);
    }

    /// How to enter a state, and the codes of the requests that it accepts.
    type States<'a> = [(&'a dyn Fn() -> Connection<u32>, &'a [u32]); 5];

    /// Each state refuses each request that is not its own.
    #[test]
    #[cfg_attr(miri, ignore = "it hashes for minutes there; the other tests enter the same states")]
    fn every_request_in_every_state() {
        let password_sent = || {
            let mut connection = authenticating();
            reply(&mut connection, 3, b"");
            connection
        };
        let states: States<'_> = [
            (&authenticating, &[0, 3, 5, 10]),
            (&password_sent, &[0]),
            (&|| scram_begun().0, &[]),
            (&|| scram_proved().0, &[]),
            (&server_proved, &[0]),
        ];
        for (enter, accepted) in states {
            for (code, data) in
                [(0, &b""[..]), (3, b""), (5, b"salt"), (10, MECHANISMS), (11, b""), (12, b""), (7, b"")]
            {
                let log = receive(&mut enter(), &authentication(code, data)).concat();
                let is_accepted = accepted.contains(&code);
                assert_eq!(is_accepted, log.is_empty(), "{code}: {log}");
                assert!(is_accepted || log.starts_with("Closed: authentication failed: "), "{code}: {log}");
            }
        }
        // The text names what came.
        for (code, data, name) in [
            (3, &b""[..], "AuthenticationCleartextPassword"),
            (5, b"salt", "AuthenticationMD5Password"),
            (10, MECHANISMS, "AuthenticationSASL"),
            (11, b"", "AuthenticationSASLContinue"),
            (12, b"", "AuthenticationSASLFinal"),
            (7, b"", "an authentication request"),
        ] {
            let log = receive(&mut password_sent(), &authentication(code, data));
            assert_eq!(log, [format!("Closed: authentication failed: {name} out of order")]);
        }
        let log = receive(&mut authenticating(), &authentication(7, b""));
        assert_eq!(
            log,
            [
                "Closed: authentication failed: the server asks for authentication method 7, which is not supported"
            ]
        );
    }

    /// As libpq, and so as PostgreSQL when the password was set.
    #[test]
    fn a_password_that_cannot_be_prepared_is_taken_as_it_stands() {
        for (password, hashed) in [
            ("secret", "secret"),
            ("\u{ad}", "\u{ad}"),
            ("\u{ad}\u{200d}", "\u{ad}\u{200d}"),
            ("se\u{ad}cret", "secret"),
            ("\u{2168}", "IX"),
            ("a\u{a0}b", "a b"),
            ("a\u{7}\u{ad}", "a\u{7}\u{ad}"),
            ("\u{340}", "\u{340}"),
            // Text from right to left, as a whole, in part, and not up to its end.
            ("\u{5d0}\u{ad}", "\u{5d0}"),
            ("\u{5d0}a\u{5d0}\u{ad}", "\u{5d0}a\u{5d0}\u{ad}"),
            ("\u{5d0}1\u{ad}", "\u{5d0}1\u{ad}"),
            // One of each table of what is forbidden: prepared, it would be without the soft hyphen.
            ("\u{80}\u{ad}", "\u{80}\u{ad}"),
            ("\u{e000}\u{ad}", "\u{e000}\u{ad}"),
            ("\u{fdd0}\u{ad}", "\u{fdd0}\u{ad}"),
            ("\u{fff9}\u{ad}", "\u{fff9}\u{ad}"),
            ("\u{2ff0}\u{ad}", "\u{2ff0}\u{ad}"),
            ("\u{200e}\u{ad}", "\u{200e}\u{ad}"),
            ("\u{e0020}\u{ad}", "\u{e0020}\u{ad}"),
            ("\u{221}\u{ad}", "\u{221}\u{ad}"),
            (&"\u{ad}".repeat(33), &"\u{ad}".repeat(33)),
            (&"x".repeat(64), &"x".repeat(64)),
            (&"\u{2168}".repeat(40), &"IX".repeat(40)),
        ] {
            let session = crate::Session { password: Some(password.into()), ..script::session() };
            let mut connection = Connection::new(&session, &script::STATEMENTS, script::LIMITS);
            let server = ScramServer::new(&reply(&mut connection, 10, MECHANISMS), hashed);
            let server_final = server.check(&reply(&mut connection, 11, server.server_first.as_bytes()));
            reply(&mut connection, 12, &server_final);
            assert_eq!(receive(&mut connection, &authentication_ok()), NOTHING, "{password:?}");
        }
    }

    #[test]
    fn no_password_no_mechanism_or_a_nul_byte() {
        let connection = |password: Option<&str>| {
            let session = crate::Session { password: password.map(str::to_owned), ..script::session() };
            Connection::<u32>::new(&session, &script::STATEMENTS, script::LIMITS)
        };
        for (code, data) in [(3, &b""[..]), (5, b"salt"), (10, MECHANISMS)] {
            let log = receive(&mut connection(None), &authentication(code, data));
            let missing = "Closed: authentication failed: the server asks for a password and none was given";
            assert_eq!(log, [missing]);
        }
        assert_eq!(receive(&mut connection(None), &authentication_ok()), NOTHING);
        let log = receive(&mut connection(Some("a\0b")), &authentication(3, b""));
        assert_eq!(log, ["Closed: authentication failed: the password contains a NUL byte"]);
        let log = receive(&mut authenticating(), &authentication(10, b"SCRAM-SHA-256-PLUS\0\0"));
        assert!(log[0].contains("offers no SASL mechanism"), "{log:?}");
    }
}
