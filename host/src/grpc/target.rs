//! Where a call goes, by the name that a guest gives.

use crate::callout::Upstream;
use crate::limits;

/// An upstream, and what its name says besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to.
    pub upstream: Upstream,
    /// The authority to ask for, when the name has one.
    pub authority: Option<String>,
    /// Milliseconds that a call may take.
    pub timeout_ms: Option<u32>,
    /// Metadata that goes before the guest's.
    pub metadata: Vec<(String, Vec<u8>)>,
    /// The name for the log.
    pub name: String,
    /// The name by which it was registered.
    pub registered: Option<Vec<u8>>,
}

impl Target {
    /// The authority of its requests.
    pub fn authority(&self) -> String {
        self.authority.clone().unwrap_or_else(|| self.upstream.authority())
    }

    /// The name that the certificate must have: the authority without its port.
    pub fn server_name(&self) -> String {
        let authority = self.authority();
        match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host.into(),
            _ => authority,
        }
    }
}

/// The upstream of a name that was not registered, with `grpc://`, `grpcs://`, `http://` or `https://` in front or not.
pub fn upstream(name: &[u8]) -> Option<Upstream> {
    if name.len() > limits::UPSTREAM_NAME {
        return None;
    }
    let http = match name.split_at_checked(7) {
        Some((b"grpc://", rest)) => [b"http://", rest].concat(),
        Some((b"grpcs:/", rest)) => [b"https:/", rest].concat(),
        _ => name.to_vec(),
    };
    Upstream::parse(&http, false)
}
