//! Where a call goes.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use http::uri::Authority;

use super::Trust;

/// An upstream as a guest names it: `host`, `host:port`, an IP address, `unix:/path`, each with `http://` or
/// `https://` in front or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// What to connect to.
    pub target: Target,
    /// Speak TLS; the name to verify is the request's authority.
    pub tls: bool,
    /// Whom to trust, and the certificate to show, when that was said of this upstream.
    pub trust: Option<Trust>,
    /// What may be spoken.
    pub speaks: Speaks,
}

/// What is spoken with an upstream, as its scheme says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// It has no scheme.
    Any,
    /// HTTP, or gRPC.
    Http,
    /// Redis.
    Redis,
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name or an IPv4 address, or an IPv6 address in brackets; and a port.
    Tcp(String, u16),
    /// The path of a socket.
    Unix(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl Upstream {
    /// Reads a name. `tls_by_default` is for names without a scheme. `None` for what is no name of a host.
    pub fn parse(name: &[u8], tls_by_default: bool) -> Option<Self> {
        Self::parse_any(name, tls_by_default, 80).filter(Self::may_be_http)
    }

    /// Reads the name that a guest gives a Redis server: `redis://` or `rediss://` in front or not.
    pub fn parse_redis(name: &[u8]) -> Option<Self> {
        Self::parse_any(name, false, REDIS_PORT).filter(Self::may_be_redis)
    }

    /// Reads what `setup` registers: a name of either kind.
    pub fn parse_registered(name: &[u8]) -> Option<Self> {
        Self::parse_any(name, false, 80)
    }

    /// Whether HTTP may be spoken with it.
    pub fn may_be_http(&self) -> bool {
        self.speaks != Speaks::Redis
    }

    /// Whether it may be a Redis server.
    pub fn may_be_redis(&self) -> bool {
        self.speaks != Speaks::Http
    }

    fn parse_any(name: &[u8], tls_by_default: bool, port_by_default: u16) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        let (speaks, tls, rest) = match name.split_once("://") {
            Some(("http", rest)) => (Speaks::Http, false, rest),
            Some(("https", rest)) => (Speaks::Http, true, rest),
            Some(("redis", rest)) => (Speaks::Redis, false, rest),
            Some(("rediss", rest)) => (Speaks::Redis, true, rest),
            Some(_) => return None,
            None => (Speaks::Any, tls_by_default, name),
        };
        let port_by_default = match speaks {
            Speaks::Redis => REDIS_PORT,
            _ if tls => 443,
            _ => port_by_default,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some(path) = rest.strip_prefix("unix:") {
            let sound = path.starts_with('/')
                && path.len() <= MAX_SOCKET_PATH
                && !path.bytes().any(|b| b.is_ascii_control());
            return sound.then(|| Self {
                target: Target::Unix(path.into()),
                tls,
                trust: None,
                speaks,
            });
        }
        let (host, port) = split_port(rest)?;
        let port = port.unwrap_or(port_by_default);
        is_host(&host).then_some(Self { target: Target::Tcp(host, port), tls, trust: None, speaks })
    }

    /// The value of Host when the guest gives no `:authority`.
    pub fn authority(&self) -> String {
        match &self.target {
            Target::Tcp(host, port) if *port == if self.tls { 443 } else { 80 } => host.clone(),
            Target::Tcp(host, port) => format!("{host}:{port}"),
            Target::Unix(_) => "localhost".into(),
        }
    }

    /// A name for connections that may serve each other's calls.
    pub fn pool(&self, server_name: &str) -> String {
        let address = &self.target;
        if self.tls {
            let trust = self.trust.as_ref().map_or(0, Trust::number);
            format!("wasm:tls:{address}:{server_name}:{trust}")
        } else {
            format!("wasm:{address}")
        }
    }
}

const REDIS_PORT: u16 = 6379;

/// What fits into a `sockaddr_un` with its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The host, an IPv6 address in brackets, and the port.
fn split_port(text: &str) -> Option<(String, Option<u16>)> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some((format!("[{text}]"), None));
    }
    let authority: Authority = text.parse().ok().filter(|_| !text.contains('@'))?;
    let host = authority.host();
    let port = match authority.port() {
        // What is left is no port, or one that is too large.
        None if host.len() != text.len() => return None,
        None => None,
        // The crate takes a sign, too.
        Some(port) if !port.as_str().bytes().all(|b| b.is_ascii_digit()) => return None,
        Some(port) => Some(NonZeroU16::new(port.as_u16())?.get()),
    };
    Some((host.into(), port))
}

pub(super) fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let all_digits = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    name.len() <= 253
        && name.split('.').all(label)
        && (!all_digits || name.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> Option<String> {
        let upstream = Upstream::parse(name.as_bytes(), false)?;
        let target = match &upstream.target {
            Target::Tcp(host, port) => format!("{host} {port}"),
            Target::Unix(path) => path.clone(),
        };
        Some(if upstream.tls { format!("tls {target}") } else { target })
    }

    #[test]
    fn names() {
        for (name, expected) in [
            ("localhost", "localhost 80"),
            ("auth.example.com:8080", "auth.example.com 8080"),
            ("with_underscore", "with_underscore 80"),
            ("127.0.0.1", "127.0.0.1 80"),
            ("127.0.0.1:81", "127.0.0.1 81"),
            ("::1", "[::1] 80"),
            ("[::1]", "[::1] 80"),
            ("[::1]:8080", "[::1] 8080"),
            ("unix:/run/auth.sock", "/run/auth.sock"),
            ("http://auth", "auth 80"),
            ("http://auth:8080/", "auth 8080"),
            ("https://auth", "tls auth 443"),
            ("https://[::1]:8443", "tls [::1] 8443"),
            ("https://unix:/run/auth.sock", "tls /run/auth.sock"),
            ("example.com.", "example.com. 80"),
        ] {
            assert_eq!(parsed(name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn names_of_redis_servers() {
        let parsed = |upstream: Option<Upstream>| upstream.map(|u| (u.target.to_string(), u.tls));
        for (name, target, tls) in [
            ("redis", "redis:6379", false),
            ("redis:7000", "redis:7000", false),
            ("redis://redis", "redis:6379", false),
            ("rediss://redis:6380", "redis:6380", true),
            ("rediss://redis", "redis:6379", true),
            ("unix:/run/redis.sock", "unix:/run/redis.sock", false),
        ] {
            let upstream = Upstream::parse_redis(name.as_bytes());
            assert_eq!(parsed(upstream), Some((target.to_string(), tls)), "{name}");
        }
        assert_eq!(Upstream::parse_redis(b"http://redis"), None);
        assert_eq!(Upstream::parse(b"redis://redis", false), None);
        let registered = |name: &[u8]| Upstream::parse_registered(name).unwrap();
        assert!(!registered(b"redis://redis").may_be_http());
        assert!(!registered(b"http://redis").may_be_redis());
        assert!(registered(b"redis:1").may_be_http() && registered(b"redis:1").may_be_redis());
    }

    #[test]
    fn what_is_no_name() {
        for name in [
            "",
            ":80",
            "a b",
            "a:",
            "a:0",
            "a:65536",
            "a:b",
            "a:+1",
            "ftp://a",
            "http://",
            "a/b",
            "http://a/b",
            "a..b",
            ".a",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "[::1",
            "[zz]",
            "::1]:80",
            "unix:",
            "unix:a",
            "unix:/a\n",
            "a\r\nb",
            "a\0",
            "user@host",
            "user@host:80",
            "outbound|80||a",
            "é",
        ] {
            assert_eq!(parsed(name), None, "{name}");
        }
        assert_eq!(Upstream::parse(b"\xff", false), None);
        assert_eq!(Upstream::parse(&[b'a'; 254], false), None);
    }

    #[test]
    fn authority_names_a_port_that_is_not_the_schemes() {
        let authority =
            |name: &str, tls| Upstream::parse(name.as_bytes(), tls).unwrap().authority();
        assert_eq!(authority("a", false), "a");
        assert_eq!(authority("a", true), "a");
        assert_eq!(authority("a:443", false), "a:443");
        assert_eq!(authority("[::1]:81", false), "[::1]:81");
        assert_eq!(authority("unix:/a", false), "localhost");
    }
}
