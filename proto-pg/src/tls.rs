//! TLS around a connection, without input or output: a pipe around a pipe. The transport's bytes go through a [`Tls`], which
//! asks the server for TLS, encrypts what the [`Connection`] has to send and decrypts what it is to receive.
//!
//! Format: PostgreSQL documentation, "Frontend/Backend Protocol", section SSL Session Encryption; for the settings "libpq - C
//! Library", section SSL Support. The records are rustls's work.

use core::time::Duration;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt::{self, Debug, Display, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::client::UnbufferedClientConnection;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{DateTime, Decode as _};

use crate::Connection;
use crate::error::CloseReason;

/// When TLS is used, and what the server has to prove: libpq's `sslmode`. It never is on a Unix socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsMode {
    /// Never. libpq's `allow`, which is TLS for servers that insist, is the same here.
    Disable,
    /// If the server has it. Nothing is proved.
    #[default]
    Prefer,
    /// Always. Nothing is proved, unless a root certificate is given: then it is [`TlsMode::VerifyCa`].
    Require,
    /// Always, and the server's certificate is signed by a root that we trust.
    VerifyCa,
    /// Always, and the certificate is that of the host that was asked for.
    VerifyFull,
}

/// How a session begins: libpq's `sslnegotiation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsNegotiation {
    /// The server is asked whether it has TLS, which costs a round trip.
    #[default]
    Postgres,
    /// With TLS at once; from PostgreSQL 17 on.
    Direct,
}

/// What a connection string says about TLS. Files are named here, and read by [`TlsConfig::new`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsOptions {
    /// `sslmode`.
    pub mode: TlsMode,
    /// `sslnegotiation`.
    pub negotiation: TlsNegotiation,
    /// `sslrootcert`: the root certificates that are trusted.
    pub root: TlsRoot,
    /// `sslcert` and `sslkey`: who we are, both in PEM.
    pub client: Option<TlsClientFiles>,
    /// `sslsni`: whether the server is told which host was asked for. On by default.
    pub tells_host: bool,
}

/// The root certificates that are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsRoot {
    /// No root: enough for [`TlsMode::Require`] and below.
    #[default]
    None,
    /// The certificates of this file, in PEM.
    File(PathBuf),
    /// Those that the operating system trusts.
    System,
}

/// Where the certificate of this side is, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsClientFiles {
    /// The certificate, with those between it and a root behind it.
    pub certificate: PathBuf,
    /// Its private key, without a password.
    pub key: PathBuf,
}

impl Default for TlsOptions {
    fn default() -> TlsOptions {
        TlsOptions {
            mode: TlsMode::default(),
            negotiation: TlsNegotiation::default(),
            root: TlsRoot::default(),
            client: None,
            tells_host: true,
        }
    }
}

/// Why TLS cannot be set up, or failed. One line each.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// A file that a setting names cannot be used.
    File {
        /// The setting.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system's own certificates cannot be read, or there are none.
    SystemRoots(String),
    /// The mode needs a root certificate and there is none.
    RootMissing,
    /// `sslnegotiation=direct` with a mode that could do without TLS.
    DirectNeedsRequire,
    /// The certificate and the key of this side do not belong together, or are of a kind that is not known here.
    Client(String),
    /// A host with this name cannot have a certificate.
    HostName(String),
    /// The server has no TLS, and the mode insists on it.
    Refused,
    /// The server answered the question for TLS with something that is no answer.
    NoAnswer(u8),
    /// The server's certificate does not prove what the mode asks for.
    Certificate {
        /// The host that was asked for.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
    /// With `sslnegotiation=direct`, the server does not say that it speaks PostgreSQL.
    ApplicationProtocol,
    /// TLS itself failed.
    Protocol(String),
}

/// TLS as a program uses it: settings that have been checked, with every file read. Cheap to clone.
#[derive(Clone)]
pub struct TlsConfig {
    client: Arc<ClientConfig>,
    mode: TlsMode,
    negotiation: TlsNegotiation,
}

impl TlsConfig {
    /// Checks the options, and reads the files that they name with `read`: `|path| std::fs::read(path)`. `None` for
    /// [`TlsMode::Disable`].
    ///
    /// # Errors
    /// [`TlsError`] names the setting.
    pub fn new(
        options: &TlsOptions,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Option<TlsConfig>, TlsError> {
        // As libpq has it: who names a root wants it to count.
        let mode = match options.mode {
            TlsMode::Disable => return Ok(None),
            TlsMode::Require if matches!(options.root, TlsRoot::File(_)) => TlsMode::VerifyCa,
            mode => mode,
        };
        let may_do_without = mode == TlsMode::Prefer;
        if options.negotiation == TlsNegotiation::Direct && may_do_without {
            return Err(TlsError::DirectNeedsRequire);
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier {
            roots: if mode == TlsMode::VerifyCa || mode == TlsMode::VerifyFull {
                Some(roots(&options.root, &read)?)
            } else {
                None
            },
            checks_name: mode == TlsMode::VerifyFull,
            provider: Arc::clone(&provider),
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Protocol(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut client = match &options.client {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let (certificates, key) = identity(files, &read)?;
                builder
                    .with_client_auth_cert(certificates, key)
                    .map_err(|error| TlsError::Client(error.to_string()))?
            }
        };
        client.alpn_protocols = vec![APPLICATION_PROTOCOL.to_vec()];
        client.enable_sni = options.tells_host;
        Ok(Some(TlsConfig { client: Arc::new(client), mode, negotiation: options.negotiation }))
    }
}

/// Those who may sign a server's certificate.
fn roots(
    root: &TlsRoot,
    read: &impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    match root {
        TlsRoot::None => return Err(TlsError::RootMissing),
        TlsRoot::File(path) => {
            for certificate in certificates("sslrootcert", path, read)? {
                store.add(certificate).map_err(|error| unusable("sslrootcert", path, &error))?;
            }
        }
        TlsRoot::System => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _ignored) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                let problem = found.errors.first().map_or("there are none".to_owned(), ToString::to_string);
                return Err(TlsError::SystemRoots(problem));
            }
        }
    }
    Ok(Arc::new(store))
}

fn certificates(
    setting: &'static str,
    path: &Path,
    read: &impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path).map_err(|error| unusable(setting, path, &error))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| unusable(setting, path, &error))?;
    if certificates.is_empty() {
        return Err(unusable(setting, path, &"it holds no certificate in PEM"));
    }
    Ok(certificates)
}

fn identity(
    files: &TlsClientFiles,
    read: &impl Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let text = read(&files.key).map_err(|error| unusable("sslkey", &files.key, &error))?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| unusable("sslkey", &files.key, &error))?;
    Ok((certificates("sslcert", &files.certificate, read)?, key))
}

fn unusable(setting: &'static str, path: &Path, problem: &dyn Display) -> TlsError {
    TlsError::File { setting, path: path.to_owned(), problem: problem.to_string() }
}

/// What a server has to prove. That it owns the key of its certificate it always has to.
#[derive(Debug)]
struct Verifier {
    roots: Option<Arc<RootCertStore>>,
    checks_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        if self.checks_name {
            let provider = Arc::clone(&self.provider);
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider).build();
            let verifier = verifier.map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))?;
            return verifier.verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        }
        let certificate = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS around one connection.
///
/// The owner gives the transport this pipe in place of the connection's own, and calls [`Tls::exchange`] whenever it has
/// received bytes, given a command, or drained [`Connection::poll_event`]:
///
/// ```no_run
/// use proto_pg::tls::{Tls, TlsError};
/// use proto_pg::{CloseReason, Connection};
/// use std::io::{Read, Write};
///
/// fn turn<T: Clone>(
///     tls: &mut Tls,
///     connection: &mut Connection<T>,
///     socket: &mut (impl Read + Write),
/// ) -> std::io::Result<()> {
///     tls.exchange(connection); // What was queued is encrypted.
///     while !tls.send_pending().is_empty() {
///         let n = socket.write(tls.send_pending())?;
///         tls.send_advance(n, connection);
///     }
///     match socket.read(tls.recv_space())? {
///         0 => connection.close(CloseReason::PeerClosed),
///         n => tls.recv_commit(n),
///     }
///     while tls.exchange(connection) {
///         // Now drain `poll_event` to `None`; there may be more behind it.
///     }
///     Ok(())
/// }
/// ```
///
/// It allocates for each record that is received, which is rustls's way, and holds at most one record that is received and
/// what the connection has pending, encrypted.
pub struct Tls {
    phase: Phase,
    mode: TlsMode,
    negotiation: TlsNegotiation,
    host: String,
    /// Ciphertext from the server: what is there, and room for a whole record.
    received: Box<[u8]>,
    received_len_bytes: usize,
    /// What is decrypted and did not fit into the connection: a part of one record at most.
    plain: Vec<u8>,
    outgoing: Outgoing,
}

/// Bytes on their way to the server, and which of the connection's they are.
#[derive(Default)]
struct Outgoing {
    /// What is still to be sent. Room that was sent from is used again.
    pending: BytesMut,
    /// How many bytes have left since the beginning.
    sent_bytes: u64,
    /// The records in `pending` that hold bytes of the connection, in order.
    sealed: VecDeque<Sealed>,
    /// How much of the connection's pending bytes those are.
    sealed_bytes: usize,
}

/// One record of the connection's bytes.
struct Sealed {
    /// Where it ends in the stream of all that is sent.
    end: u64,
    plain_len_bytes: usize,
}

impl Outgoing {
    /// Appends what `write` writes into the room that it asks for. It gives how many bytes it wrote, or the room that it needs,
    /// or `None` if it can write no more.
    fn append(
        &mut self,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
    ) -> Result<(), TlsError> {
        let start = self.pending.len();
        let written = match write(&mut []) {
            Err(Some(needed)) => {
                self.pending.resize(start + needed, 0);
                write(&mut self.pending[start..])
            }
            other => other,
        };
        let exhausted = || TlsError::Protocol("the session has encrypted all that it may".to_owned());
        self.pending.truncate(start + written.map_err(|_| exhausted())?);
        Ok(())
    }

    /// Notes that what was appended last is a record of so many bytes of the connection.
    fn seal(&mut self, plain_len_bytes: usize) {
        let end = self.sent_bytes + self.pending.len() as u64;
        self.sealed.push_back(Sealed { end, plain_len_bytes });
        self.sealed_bytes += plain_len_bytes;
    }

    /// Takes what has been sent off the front. Gives how many bytes of the connection have left in whole records.
    fn advance(&mut self, n: usize) -> usize {
        self.pending.advance(n);
        self.sent_bytes += n as u64;
        let mut left_bytes = 0;
        while let Some(record) = self.sealed.pop_front_if(|record| record.end <= self.sent_bytes) {
            left_bytes += record.plain_len_bytes;
        }
        self.sealed_bytes -= left_bytes;
        left_bytes
    }
}

enum Phase {
    /// The question whether the server has TLS is pending or asked.
    Asking(Box<UnbufferedClientConnection>),
    /// The handshake, and all that follows it.
    Secured { session: Box<UnbufferedClientConnection>, is_established: bool },
    /// The server has no TLS, and the mode can do without.
    Plain,
    /// The server has said `close_notify`. What comes after it counts for nothing (RFC 8446, section 6.1).
    Ended,
    /// Over.
    Failed,
}

impl Tls {
    /// TLS for a connection to a host, by its name or address as the user gave it: it is what the certificate has to be for.
    /// The question or the first handshake message is pending at once.
    ///
    /// # Errors
    /// The name cannot be one of a host.
    pub fn new(config: &TlsConfig, host: &str) -> Result<Tls, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::HostName(host.to_owned()))?;
        let session = UnbufferedClientConnection::new(Arc::clone(&config.client), name);
        let session = Box::new(session.map_err(|error| TlsError::Protocol(error.to_string()))?);
        let (phase, pending) = match config.negotiation {
            TlsNegotiation::Postgres => (Phase::Asking(session), &SSL_REQUEST[..]),
            TlsNegotiation::Direct => (Phase::Secured { session, is_established: false }, &[][..]),
        };
        Ok(Tls {
            phase,
            mode: config.mode,
            negotiation: config.negotiation,
            host: host.to_owned(),
            received: vec![0; RECORD_LEN_MAX_BYTES].into_boxed_slice(),
            received_len_bytes: 0,
            plain: Vec::new(),
            outgoing: Outgoing { pending: pending.into(), ..Outgoing::default() },
        })
    }

    /// True from the end of the handshake on: what the connection sends and receives is encrypted.
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Secured { is_established: true, .. })
    }

    /// Where to put bytes from the server. Empty only while the connection has no room for what was received.
    pub fn recv_space(&mut self) -> &mut [u8] {
        let start = self.received_len_bytes;
        let end = match self.phase {
            // One byte answers the question. Bytes that an attacker adds behind it must not be taken for part of the session.
            Phase::Asking(_) => 1,
            Phase::Secured { .. } | Phase::Plain | Phase::Ended => self.received.len(),
            Phase::Failed => start,
        };
        &mut self.received[start..end]
    }

    /// Says that the first `n` bytes of [`Tls::recv_space`] have been filled.
    ///
    /// # Panics
    /// If `n` is more than that space.
    pub fn recv_commit(&mut self, n: usize) {
        self.received_len_bytes += n;
        assert!(self.received_len_bytes <= self.received.len(), "more bytes than there is room for");
        if let Phase::Ended = self.phase {
            self.received_len_bytes = 0;
        }
    }

    /// Bytes that wait to be sent to the server.
    pub fn send_pending(&self) -> &[u8] {
        &self.outgoing.pending
    }

    /// Says that the first `n` bytes of [`Tls::send_pending`] have been handed to the transport, and tells the connection
    /// what of its own that was: a record counts when all of it has left.
    ///
    /// # Panics
    /// If `n` is more than what is pending.
    pub fn send_advance<T: Clone>(&mut self, n: usize, connection: &mut Connection<T>) {
        let left_bytes = self.outgoing.advance(n);
        if !connection.is_closing() {
            connection.send_advance(left_bytes);
        }
    }

    /// Moves what it can in both directions; true if the connection has an event, which has to be drained before the next call.
    /// If TLS fails, or the server has ended it and everything before is drained, the connection is closed with the reason.
    pub fn exchange<T: Clone>(&mut self, connection: &mut Connection<T>) -> bool {
        if connection.is_closing() {
            return false;
        }
        if let Phase::Ended = self.phase {
            connection.close(CloseReason::PeerClosed);
            return true;
        }
        self.advance(connection).unwrap_or_else(|error| {
            self.phase = Phase::Failed;
            connection.close(error.into());
            true
        })
    }

    fn advance<T: Clone>(&mut self, connection: &mut Connection<T>) -> Result<bool, TlsError> {
        if matches!(self.phase, Phase::Asking(_)) && self.received_len_bytes > 0 {
            self.take_answer()?;
        }
        match &mut self.phase {
            Phase::Asking(_) | Phase::Ended | Phase::Failed => Ok(false),
            Phase::Plain => Ok(self.pass_on(connection)),
            Phase::Secured { .. } => self.run_session(connection),
        }
    }

    /// The server says whether it has TLS.
    fn take_answer(&mut self) -> Result<(), TlsError> {
        let answer = self.received[0];
        self.received_len_bytes = 0;
        self.phase = match (answer, std::mem::replace(&mut self.phase, Phase::Failed)) {
            (b'S', Phase::Asking(session)) => Phase::Secured { session, is_established: false },
            (b'N', _) if self.mode == TlsMode::Prefer => Phase::Plain,
            (b'N', _) => return Err(TlsError::Refused),
            (other, _) => return Err(TlsError::NoAnswer(other)),
        };
        Ok(())
    }

    /// Without TLS the bytes are moved as they are.
    fn pass_on<T: Clone>(&mut self, connection: &mut Connection<T>) -> bool {
        let plain = &connection.send_pending()[self.outgoing.sealed_bytes..];
        if !plain.is_empty() {
            self.outgoing.pending.extend_from_slice(plain);
            self.outgoing.seal(plain.len());
        }
        let space = connection.recv_space();
        let n = space.len().min(self.received_len_bytes);
        space[..n].copy_from_slice(&self.received[..n]);
        connection.recv_commit(n);
        self.drop_received(n);
        n > 0
    }

    /// Handshakes, encrypts and decrypts until bytes are missing or the connection has no room.
    fn run_session<T: Clone>(&mut self, connection: &mut Connection<T>) -> Result<bool, TlsError> {
        let mut has_received = self.deliver(connection);
        // What does not fit waits here, so no record may follow it.
        while self.plain.is_empty() {
            let Phase::Secured { session, is_established } = &mut self.phase else { break };
            let mut is_blocked = false;
            let UnbufferedStatus { mut discard, state } =
                session.process_tls_records(&mut self.received[..self.received_len_bytes]);
            match state.map_err(|error| session_error(&self.host, &error))? {
                ConnectionState::EncodeTlsData(mut message) => {
                    self.outgoing.append(|room| {
                        message.encode(room).map_err(|error| match error {
                            EncodeError::InsufficientSize(needed) => Some(needed.required_size),
                            EncodeError::AlreadyEncoded => None,
                        })
                    })?;
                }
                // What is encoded is pending, and leaves before anything that is encoded later.
                ConnectionState::TransmitTlsData(message) => message.done(),
                ConnectionState::BlockedHandshake => is_blocked = true,
                // Nothing is said before the channel is bound.
                ConnectionState::WriteTraffic(_) if !*is_established => self.establish(connection)?,
                ConnectionState::WriteTraffic(mut traffic) => {
                    is_blocked = true;
                    let plain = &connection.send_pending()[self.outgoing.sealed_bytes..];
                    for plain in plain.chunks(RECORD_PLAIN_LEN_MAX_BYTES) {
                        self.outgoing.append(|room| {
                            traffic.encrypt(plain, room).map_err(|error| match error {
                                EncryptError::InsufficientSize(needed) => Some(needed.required_size),
                                EncryptError::EncryptExhausted => None,
                            })
                        })?;
                        self.outgoing.seal(plain.len());
                    }
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(|error| session_error(&self.host, &error))?;
                        self.plain.extend_from_slice(record.payload);
                        discard += record.discard;
                    }
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.phase = Phase::Ended;
                    self.received_len_bytes = 0;
                    return Ok(true);
                }
                _ => return Err(TlsError::Protocol("a state that a client cannot be in".to_owned())),
            }
            self.drop_received(discard);
            has_received |= self.deliver(connection);
            if is_blocked {
                break;
            }
        }
        Ok(has_received)
    }

    /// Gives the connection what is decrypted, as far as it has room. True if that was at least one byte.
    fn deliver<T: Clone>(&mut self, connection: &mut Connection<T>) -> bool {
        let space = connection.recv_space();
        let n = space.len().min(self.plain.len());
        space[..n].copy_from_slice(&self.plain[..n]);
        connection.recv_commit(n);
        self.plain.drain(..n);
        n > 0
    }

    /// The handshake is over: the connection may begin.
    fn establish<T: Clone>(&mut self, connection: &mut Connection<T>) -> Result<(), TlsError> {
        let Phase::Secured { session, is_established } = &mut self.phase else { return Ok(()) };
        *is_established = true;
        let speaks_ours = session.alpn_protocol() == Some(APPLICATION_PROTOCOL);
        if self.negotiation == TlsNegotiation::Direct && !speaks_ours {
            return Err(TlsError::ApplicationProtocol);
        }
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        connection.bind_channel(certificate.and_then(|certificate| end_point(certificate)));
        Ok(())
    }

    fn drop_received(&mut self, n: usize) {
        self.received.copy_within(n..self.received_len_bytes, 0);
        self.received_len_bytes -= n;
    }
}

/// The error with what an operator can act on: host, date, kind.
fn session_error(host: &str, error: &rustls::Error) -> TlsError {
    let problem = match error {
        rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
            format!("it expired on {}", date(*not_after))
        }
        rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
            format!("it is valid from {} on", date(*not_before))
        }
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "it is signed by nobody in sslrootcert".to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "it is for another host".to_owned(),
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => {
            match &*other.to_string() {
                // Two kinds that OpenSSL takes, and libpq with it.
                "CaUsedAsEndEntity" => {
                    "it is that of an authority; the server needs one of its own, signed by it".to_owned()
                }
                "UnsupportedCertVersion" => "it is of X.509 version 1; make one of version 3".to_owned(),
                other => other.to_owned(),
            }
        }
        rustls::Error::InvalidCertificate(other) => other.to_string(),
        other => return TlsError::Protocol(other.to_string()),
    };
    TlsError::Certificate { host: host.to_owned(), problem }
}

/// `2026-11-26T12:00:00Z`
fn date(time: UnixTime) -> String {
    DateTime::from_unix_duration(Duration::from_secs(time.as_secs()))
        .map_or_else(|_| format!("{} seconds after 1970", time.as_secs()), |date| date.to_string())
}

/// The hash of a certificate that stands for the channel: by the hash of its signature, or by SHA-256 in place of MD5 and
/// SHA-1. `None` if its signature has no single hash.
///
/// Source: RFC 5929, section 4.1, `tls-server-end-point`.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = Certificate::from_der(certificate).ok()?.signature_algorithm().oid;
    let is_one_of = |names: &[&str]| names.iter().any(|name| ObjectIdentifier::new(name) == Ok(algorithm));
    // RSA and ECDSA, with each hash. Source: RFC 8017, appendix A.2.4; RFC 5758, section 3.2.
    if is_one_of(&["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.113549.1.1.11"])
        || is_one_of(&["1.2.840.10045.4.1", "1.2.840.10045.4.3.2"])
    {
        Some(Sha256::digest(certificate).to_vec())
    } else if is_one_of(&["1.2.840.113549.1.1.12", "1.2.840.10045.4.3.3"]) {
        Some(Sha384::digest(certificate).to_vec())
    } else if is_one_of(&["1.2.840.113549.1.1.13", "1.2.840.10045.4.3.4"]) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

/// Length 8, code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const APPLICATION_PROTOCOL: &[u8] = b"postgresql";
/// Source: RFC 8446, section 5.2, and RFC 5246, section 6.2.3: what a record may hold, and its head and its overhead.
const RECORD_PLAIN_LEN_MAX_BYTES: usize = 1 << 14;
const RECORD_LEN_MAX_BYTES: usize = 5 + RECORD_PLAIN_LEN_MAX_BYTES + 2048;

impl Debug for Tls {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("host", &self.host)
            .field("is_established", &self.is_established())
            .finish_non_exhaustive()
    }
}

impl Debug for TlsConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("mode", &self.mode)
            .field("negotiation", &self.negotiation)
            .finish_non_exhaustive()
    }
}

/// Two are the same if they are of the same origin.
impl PartialEq for TlsConfig {
    fn eq(&self, other: &TlsConfig) -> bool {
        Arc::ptr_eq(&self.client, &other.client)
    }
}

impl Eq for TlsConfig {}

impl Display for TlsError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::File { setting, path, problem } => write!(f, "{setting}: {}: {problem}", path.display()),
            TlsError::SystemRoots(problem) => {
                write!(f, "sslrootcert=system: the certificates of the system cannot be used: {problem}; name a file")
            }
            TlsError::RootMissing => {
                f.write_str("sslmode verify-ca and verify-full need sslrootcert: a file in PEM, or system")
            }
            TlsError::DirectNeedsRequire => {
                f.write_str("sslnegotiation=direct needs sslmode require, verify-ca or verify-full")
            }
            TlsError::Client(problem) => write!(f, "sslcert and sslkey: {problem}"),
            // Not quoted: it may be the rest of a password with a character that should have been encoded.
            TlsError::HostName(_) => {
                f.write_str("host: a name that no certificate could be for; use its address, or sslmode=disable")
            }
            TlsError::Refused => f.write_str("the server has no TLS; set ssl = on there, or sslmode=disable here"),
            TlsError::NoAnswer(byte) => {
                write!(f, "the server answered the question for TLS with byte {byte:#04x}; is it PostgreSQL?")
            }
            TlsError::Certificate { host, problem } => write!(f, "the certificate of {host}: {problem}"),
            TlsError::ApplicationProtocol => f.write_str(
                "the server does not speak PostgreSQL over direct TLS, as from version 17 on; use sslnegotiation=postgres",
            ),
            TlsError::Protocol(problem) => write!(f, "TLS failed: {problem}"),
        }
    }
}

impl Error for TlsError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that reads slowly, so that something is always left to send, and never all of it leaves.
    #[test]
    fn what_has_left_takes_no_room() {
        let mut outgoing = Outgoing::default();
        let (mut sealed_bytes, mut left_bytes) = (0, 0);
        for _ in 0..10_000 {
            outgoing.append(|room| if room.is_empty() { Err(Some(100)) } else { Ok(100) }).unwrap();
            outgoing.seal(80);
            sealed_bytes += 80;
            left_bytes += outgoing.advance(outgoing.pending.len() - 30);
            assert_eq!(outgoing.sealed_bytes, sealed_bytes - left_bytes, "one record is not out whole");
        }
        assert_eq!(sealed_bytes - left_bytes, 80);
        assert!(outgoing.pending.capacity() < 1_000, "{} bytes", outgoing.pending.capacity());
    }
}
