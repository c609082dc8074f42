//! Authentication: who speaks when, and when the server has proved itself.
//!
//! Format: PostgreSQL documentation, "Frontend/Backend Protocol", sections Start-up and SASL Authentication.

use crate::error::{AuthenticationError, one_line};
use crate::frame::AuthenticationRequest;
use crate::request::Outbox;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use std::{io, mem};

/// What this side can prove itself with.
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: Option<String>,
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
    /// The exchange is over, and so is the lane.
    pub(crate) fn answer(
        &mut self,
        request: &AuthenticationRequest<'_>,
        credentials: &Credentials,
        outbox: &mut Outbox,
    ) -> Result<(), AuthenticationError> {
        // The value left behind by an error is of no account: the lane closes.
        *self = mem::replace(self, Exchange::Complete).next(request, credentials, outbox)?;
        Ok(())
    }

    /// True once `AuthenticationOk` has come in its place.
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
        match (self, request) {
            (
                Exchange::Unasked | Exchange::PasswordSent | Exchange::ServerProved,
                AuthenticationRequest::Ok,
            ) => Ok(Exchange::Complete),
            // The one that matters: an impostor who cannot sign would just skip that step.
            (Exchange::ScramBegun(_) | Exchange::ScramProved(_), AuthenticationRequest::Ok) => {
                Err(AuthenticationError::ServerUnproven)
            }
            (Exchange::Unasked, AuthenticationRequest::CleartextPassword) => {
                send_password(credentials.password()?, outbox)
            }
            (Exchange::Unasked, AuthenticationRequest::Md5Password { salt }) => {
                let hash = md5_hash(credentials.user.as_bytes(), credentials.password()?, *salt);
                send_password(hash.as_bytes(), outbox)
            }
            (Exchange::Unasked, AuthenticationRequest::Sasl { mechanisms }) => {
                begin_scram(mechanisms, credentials.password()?, outbox)
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
    password: &[u8],
    outbox: &mut Outbox,
) -> Result<Exchange, AuthenticationError> {
    // A list of C strings.
    if !mechanisms.split(|&byte| byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
        return Err(AuthenticationError::MechanismUnsupported);
    }
    // Channel binding ties the exchange to a TLS session; there is none here, so it cannot be offered.
    let scram = Box::new(ScramSha256::new(password, ChannelBinding::unsupported()));
    outbox.sasl_initial(SCRAM_SHA_256, scram.message()).map_err(|e| scram_error(&e))?;
    Ok(Exchange::ScramBegun(scram))
}

fn scram_error(error: &io::Error) -> AuthenticationError {
    AuthenticationError::Scram(one_line(error.to_string().as_bytes()))
}

impl Credentials {
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
