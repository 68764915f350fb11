//! What stands in for TLS in a build without it.

use crate::callout::{Failure, FailureKind};

const NONE: &str = "this build has no TLS of its own (feature \"grpc\")";

/// See the module.
#[derive(Clone, Debug)]
pub struct Trust;

impl Trust {
    /// There is none.
    pub fn new(_: &[u8]) -> Result<Self, String> {
        Err(NONE.into())
    }
}

/// See the module.
pub struct Tls;

impl Tls {
    /// There is none.
    pub fn new(_: &Trust, _: &str) -> Result<Self, Failure> {
        Err(Failure::new(FailureKind::Tls, NONE))
    }
}
