//! TLS over bytes in memory. rustls is the machine.
//!
//! Servers of gRPC refuse HTTP/2 that was not agreed on by ALPN, which sockets of embedders often cannot ask for.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::{Failure, FailureKind};

const HTTP_1: &[u8] = b"http/1.1";
const HTTP_2: &[u8] = b"h2";

/// What is spoken over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The server need not know ALPN.
    Http1,
    /// It must, and agree.
    Http2,
    /// It is not asked.
    Redis,
}

/// What the certificates of servers must be signed by.
#[derive(Clone, Copy, Debug)]
pub enum Trusted<'a> {
    /// By one of these, as text (PEM). Those that cannot be read are left out; none at all is an error.
    Pem(&'a [u8]),
    /// By one of those that another one trusts.
    Same(&'a Trust),
    /// By anyone, and they may have any name.
    Anyone,
}

/// Our own certificate, for servers that ask for it, as text (PEM).
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificate<'a> {
    /// With those that it is signed by.
    pub certificate: &'a [u8],
    /// The key of the first certificate.
    pub key: &'a [u8],
}

/// Whose certificates are believed, and which one is shown.
#[derive(Clone)]
pub struct Trust(Arc<Configs>);

struct Configs {
    number: u64,
    /// `None` for anyone.
    roots: Option<Arc<RootCertStore>>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    redis: Arc<ClientConfig>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({})", self.0.number)
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.0.number == other.0.number
    }
}

impl Eq for Trust {}

impl Trust {
    /// Reads certificates.
    pub fn new(trusted: Trusted<'_>, own: Option<ClientCertificate<'_>>) -> Result<Self, String> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let roots = match trusted {
            Trusted::Pem(pem) => Some(Arc::new(roots(pem)?)),
            Trusted::Same(other) => other.0.roots.clone(),
            Trusted::Anyone => None,
        };
        let builder = match &roots {
            Some(roots) => builder.with_root_certificates(roots.clone()),
            None => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            }
        };
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(ClientCertificate { certificate, key }) => {
                let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
                    .collect::<Result<_, _>>()
                    .map_err(|error| format!("certificate: {error}"))?;
                if chain.is_empty() {
                    return Err("certificate: it holds no certificate".into());
                }
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| format!("certificate_key: {error}"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("certificate and certificate_key: {error}"))?
            }
        };
        let redis = config.clone();
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        let mut http2 = config.clone();
        http2.alpn_protocols = vec![HTTP_2.to_vec()];
        Ok(Self(Arc::new(Configs {
            number: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            roots,
            http1: Arc::new(config),
            http2: Arc::new(http2),
            redis: Arc::new(redis),
        })))
    }

    /// A number that no other has.
    pub fn number(&self) -> u64 {
        self.0.number
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("no PEM: {error}"))?;
        // Some in the bundles of systems are older than the rules.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err("it holds no certificate".into());
    }
    Ok(roots)
}

/// Takes the certificate of any server. It must still have the certificate's key.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One connection's.
pub struct Tls {
    machine: ClientConnection,
    protocol: Protocol,
    /// The handshake is over, and it was agreed what is spoken.
    agreed: bool,
    /// The server has said that nothing more comes.
    closed: bool,
}

impl Tls {
    /// Begins; the certificate must have that name.
    pub fn new(trust: &Trust, name: &str, protocol: Protocol) -> Result<Self, Failure> {
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = ServerName::try_from(name.to_owned()).map_err(|error| failure(&error))?;
        let config = match protocol {
            Protocol::Http1 => &trust.0.http1,
            Protocol::Http2 => &trust.0.http2,
            Protocol::Redis => &trust.0.redis,
        };
        let mut machine =
            ClientConnection::new(config.clone(), name).map_err(|error| failure(&error))?;
        // What waits is bounded by who writes.
        machine.set_buffer_limit(None);
        Ok(Self { machine, protocol, agreed: false, closed: false })
    }

    /// Takes what came and appends what it says.
    pub fn receive(&mut self, mut data: &[u8], to: &mut BytesMut) -> Result<(), Failure> {
        while !data.is_empty() && !self.closed {
            self.machine.read_tls(&mut data).map_err(|error| failure(&error))?;
            let state = self.machine.process_new_packets().map_err(|error| failure(&error))?;
            self.closed = state.peer_has_closed();
            self.read(to)?;
        }
        if !self.agreed && !self.machine.is_handshaking() {
            self.agreed = true;
            if self.protocol == Protocol::Http2 && self.machine.alpn_protocol() != Some(HTTP_2) {
                return Err(failure(&"the server did not agree to HTTP/2"));
            }
        }
        Ok(())
    }

    fn read(&mut self, to: &mut BytesMut) -> Result<(), Failure> {
        let mut part = [0; 16384];
        loop {
            match self.machine.reader().read(&mut part) {
                Ok(0) => return Ok(()),
                Ok(size) => to.extend_from_slice(&part[..size]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(failure(&error)),
            }
        }
    }

    /// Takes what is to be said, once that can be, and appends what must be sent.
    pub fn send(&mut self, said: &mut Vec<u8>, to: &mut Vec<u8>) {
        if self.agreed && !said.is_empty() && self.machine.writer().write_all(said).is_ok() {
            said.clear();
        }
        while self.machine.wants_write() {
            // Writing to memory does not fail.
            if !matches!(self.machine.write_tls(to), Ok(1..)) {
                return;
            }
        }
    }

    /// Whether the server has said that nothing more comes. Without that the end of a connection may be another's doing.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the handshake is over.
    pub fn is_agreed(&self) -> bool {
        self.agreed
    }
}

fn failure(error: &dyn fmt::Display) -> Failure {
    Failure::new(FailureKind::Tls, error.to_string())
}
