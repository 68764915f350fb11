//! The names that a guest may give to an upstream.

use super::target::{Target, upstream};
use crate::callout::Upstream;
#[cfg(feature = "grpc")]
use crate::limits;

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callout;
    use crate::limits;

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
