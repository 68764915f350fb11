//! What stands in for TLS in a build without it.

use bytes::BytesMut;

use super::{Failure, FailureKind};

const NONE: &str = "this build has no TLS of its own (feature \"grpc\")";

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    Redis,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub enum Trusted<'a> {
    Pem(&'a [u8]),
    Same(&'a Trust),
    Anyone,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ClientCertificate<'a> {
    pub certificate: &'a [u8],
    pub key: &'a [u8],
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust;

impl Trust {
    /// There is none.
    pub fn new(_: Trusted<'_>, _: Option<ClientCertificate<'_>>) -> Result<Self, String> {
        Err(NONE.into())
    }

    pub fn number(&self) -> u64 {
        0
    }
}

/// See the module.
pub struct Tls;

impl Tls {
    /// There is none.
    pub fn new(_: &Trust, _: &str, _: Protocol) -> Result<Self, Failure> {
        Err(Failure::new(FailureKind::Tls, NONE))
    }

    pub fn receive(&mut self, _: &[u8], _: &mut BytesMut) -> Result<(), Failure> {
        Ok(())
    }

    pub fn send(&mut self, _: &mut Vec<u8>, _: &mut Vec<u8>) {}

    pub fn is_closed(&self) -> bool {
        true
    }

    pub fn is_agreed(&self) -> bool {
        false
    }
}
