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
    /// Reads a name: one that was registered; `host`, `host:port`, an IP address or `unix:/path`, with `grpc://`,
    /// `grpcs://`, `http://` or `https://` in front or not; or a serialized `envoy.config.core.v3.GrpcService`. `None` when
    /// it is none.
    pub fn parse(name: &[u8], registered: impl Fn(&[u8]) -> Option<Upstream>) -> Option<Self> {
        let known = registered(name);
        let is_registered = known.is_some();
        let Some(upstream) = known.or_else(|| upstream(name)) else {
            #[cfg(feature = "grpc")]
            if name.len() <= limits::UPSTREAM_NAME {
                return super::service::parse(name, registered);
            }
            return None;
        };
        Some(Self {
            upstream,
            authority: None,
            timeout_ms: None,
            metadata: Vec::new(),
            name: name.escape_ascii().to_string(),
            registered: is_registered.then(|| name.to_vec()),
        })
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callout;

    fn parsed(name: &str) -> Option<(callout::Target, bool)> {
        let target = Target::parse(name.as_bytes(), |_| None)?;
        Some((target.upstream.target, target.upstream.tls))
    }

    #[test]
    fn plain_names() {
        let tcp = |host: &str, port, tls| Some((callout::Target::Tcp(host.into(), port), tls));
        assert_eq!(parsed("a:50051"), tcp("a", 50051, false));
        assert_eq!(parsed("grpc://a"), tcp("a", 80, false));
        assert_eq!(parsed("grpcs://a"), tcp("a", 443, true));
        assert_eq!(parsed("grpcs://[::1]:1/"), tcp("[::1]", 1, true));
        assert_eq!(parsed("https://a:1"), tcp("a", 1, true));
        assert_eq!(
            parsed("grpc://unix:/run/a.sock"),
            Some((callout::Target::Unix("/run/a.sock".into()), false))
        );
        for none in ["", "grpc://", "grpc:/a", "ftp://a", "a b", "grpc://http://a", "unix:a"] {
            assert_eq!(parsed(none), None, "{none}");
        }
        assert_eq!(parsed(&"a".repeat(limits::UPSTREAM_NAME + 1)), None);
    }

    #[test]
    fn registered_names_come_first() {
        let upstream = Upstream::parse(b"b:2", false).unwrap();
        let target = Target::parse(b"a:1", |_| Some(upstream.clone())).unwrap();
        assert_eq!(target.authority(), "b:2");
        assert_eq!(target.server_name(), "b");
        assert_eq!(target.registered.as_deref(), Some(&b"a:1"[..]));
        // The cluster of a GrpcService.
        #[cfg(feature = "grpc")]
        {
            let registered = |name: &[u8]| (name == b"auth").then(|| upstream.clone());
            let target = Target::parse(b"\n\x06\n\x04auth", registered).unwrap();
            assert_eq!(target.authority(), "b:2");
            assert_eq!(target.registered.as_deref(), Some(&b"auth"[..]));
        }
    }
}
