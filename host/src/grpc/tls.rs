//! TLS over bytes in memory. rustls is the machine.
//!
//! Servers of gRPC refuse HTTP/2 that was not agreed on by ALPN, which sockets of embedders often cannot ask for.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::callout::{Failure, FailureKind};

const HTTP_2: &[u8] = b"h2";

/// Whose certificates are believed.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

impl Trust {
    /// Trusts the certificates in a file of them (PEM). Those that cannot be read are left out; none at all is an error.
    pub fn new(pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| format!("no PEM: {error}"))?;
            // Some in the bundles of systems are older than the rules.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err("it holds no certificate".into());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP_2.to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

/// One connection's.
pub struct Tls {
    machine: ClientConnection,
    /// The handshake is over, and it was agreed to speak HTTP/2.
    agreed: bool,
}

impl Tls {
    /// Begins; the certificate must have that name.
    pub fn new(trust: &Trust, name: &str) -> Result<Self, Failure> {
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = ServerName::try_from(name.to_owned()).map_err(|error| failure(&error))?;
        let mut machine =
            ClientConnection::new(trust.0.clone(), name).map_err(|error| failure(&error))?;
        // What waits is bounded by who writes.
        machine.set_buffer_limit(None);
        Ok(Self { machine, agreed: false })
    }

    /// Takes what came and appends what it says.
    pub fn receive(&mut self, mut data: &[u8], to: &mut BytesMut) -> Result<(), Failure> {
        while !data.is_empty() {
            self.machine.read_tls(&mut data).map_err(|error| failure(&error))?;
            self.machine.process_new_packets().map_err(|error| failure(&error))?;
            self.read(to)?;
        }
        if !self.agreed && !self.machine.is_handshaking() {
            self.agreed = true;
            if self.machine.alpn_protocol() != Some(HTTP_2) {
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
}

fn failure(error: &dyn fmt::Display) -> Failure {
    Failure::new(FailureKind::Tls, error.to_string())
}
