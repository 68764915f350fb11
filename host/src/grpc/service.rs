//! `envoy.config.core.v3.GrpcService`, by which SDKs made for Envoy name an upstream: the fields that mean something here
//! (Envoy's api/envoy/config/core/v3/grpc_service.proto and base.proto).

use prost::Message as _;

use super::target::{Target, upstream};
use crate::callout::Upstream;

#[derive(Clone, PartialEq, prost::Message)]
struct GrpcService {
    #[prost(oneof = "Specifier", tags = "1, 2")]
    specifier: Option<Specifier>,
    #[prost(message, optional, tag = "3")]
    timeout: Option<Duration>,
    #[prost(message, repeated, tag = "5")]
    initial_metadata: Vec<Header>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Specifier {
    #[prost(message, tag = "1")]
    Envoy(EnvoyGrpc),
    #[prost(message, tag = "2")]
    Google(GoogleGrpc),
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnvoyGrpc {
    #[prost(string, tag = "1")]
    cluster_name: String,
    #[prost(string, tag = "2")]
    authority: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GoogleGrpc {
    #[prost(string, tag = "1")]
    target_uri: String,
    #[prost(message, optional, tag = "2")]
    channel_credentials: Option<ChannelCredentials>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ChannelCredentials {
    /// Its presence asks for TLS.
    #[prost(message, optional, tag = "1")]
    ssl_credentials: Option<Anything>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Anything {}

#[derive(Clone, PartialEq, prost::Message)]
struct Duration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Duration {
    /// Milliseconds, when it is more than none.
    fn milliseconds(&self) -> Option<u32> {
        let seconds = u64::try_from(self.seconds).ok()?.saturating_mul(1000);
        let all = seconds.saturating_add(u64::try_from(self.nanos).ok()?.div_ceil(1_000_000));
        (all > 0).then(|| u32::try_from(all).unwrap_or(u32::MAX))
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
    #[prost(bytes = "vec", tag = "3")]
    raw_value: Vec<u8>,
}

/// Reads a message; `None` when it is none, or names no upstream.
pub(super) fn parse(
    bytes: &[u8],
    registered: impl Fn(&[u8]) -> Option<Upstream>,
) -> Option<Target> {
    let service = GrpcService::decode(bytes).ok()?;
    let mut known = None;
    let (name, authority, upstream) = match service.specifier? {
        Specifier::Envoy(EnvoyGrpc { cluster_name, authority }) => {
            let name = cluster_name.as_bytes();
            let found = registered(name);
            known = found.is_some().then(|| name.to_vec());
            let upstream = found.or_else(|| upstream(name))?;
            (cluster_name, Some(authority).filter(|text| !text.is_empty()), upstream)
        }
        Specifier::Google(GoogleGrpc { target_uri, channel_credentials }) => {
            let tls = channel_credentials.is_some_and(|given| given.ssl_credentials.is_some());
            let upstream = of_uri(&target_uri, tls)?;
            (target_uri, None, upstream)
        }
    };
    let metadata = service.initial_metadata.into_iter().map(|header| {
        let value =
            if header.raw_value.is_empty() { header.value.into_bytes() } else { header.raw_value };
        (header.key, value)
    });
    Some(Target {
        upstream,
        authority,
        timeout_ms: service.timeout.and_then(|timeout| timeout.milliseconds()),
        metadata: metadata.collect(),
        name: name.escape_debug().to_string(),
        registered: known,
    })
}

/// A target of gRPC's doc/naming.md.
fn of_uri(uri: &str, tls: bool) -> Option<Upstream> {
    let rest = match uri.split_once(':') {
        Some(("dns", rest)) => match rest.strip_prefix("//") {
            // With the name server to ask.
            Some(rest) => rest.split_once('/')?.1,
            None => rest,
        },
        Some(("ipv4" | "ipv6", rest)) => rest,
        Some(("unix", rest)) => return unix(rest.strip_prefix("//").unwrap_or(rest), tls),
        _ => uri,
    };
    if rest.contains("://") { None } else { Upstream::parse(rest.as_bytes(), tls) }
}

fn unix(path: &str, tls: bool) -> Option<Upstream> {
    Upstream::parse(format!("unix:{path}").as_bytes(), tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(specifier: Specifier) -> GrpcService {
        GrpcService { specifier: Some(specifier), timeout: None, initial_metadata: Vec::new() }
    }

    fn parsed(service: &GrpcService) -> Option<Target> {
        Target::parse(&service.encode_to_vec(), |name| {
            (name == b"auth").then(|| Upstream::parse(b"10.0.0.1:50051", false).unwrap())
        })
    }

    #[test]
    fn clusters() {
        let of = |cluster: &str, authority: &str| {
            service(Specifier::Envoy(EnvoyGrpc {
                cluster_name: cluster.into(),
                authority: authority.into(),
            }))
        };
        let target = parsed(&of("auth", "")).unwrap();
        assert_eq!(target.authority(), "10.0.0.1:50051");
        assert_eq!(target.name, "auth");
        assert_eq!(parsed(&of("auth", "auth.example:1")).unwrap().authority(), "auth.example:1");
        assert_eq!(parsed(&of("host:1", "")).unwrap().authority(), "host:1");
        assert_eq!(parsed(&of("outbound|80||a", "")), None);
    }

    #[test]
    fn uris() {
        for (uri, expected) in [
            ("a:1", Some("a:1")),
            ("dns:a:1", Some("a:1")),
            ("dns:///a:1", Some("a:1")),
            ("dns://8.8.8.8/a:1", Some("a:1")),
            ("ipv4:127.0.0.1:1", Some("127.0.0.1:1")),
            ("ipv6:[::1]:1", Some("[::1]:1")),
            ("unix:/a", Some("localhost")),
            ("unix:///a", Some("localhost")),
            ("unix:a", None),
            ("http://a:1", None),
            ("xds:///a", None),
            ("", None),
        ] {
            let given = GoogleGrpc { target_uri: uri.into(), channel_credentials: None };
            let target = parsed(&service(Specifier::Google(given)));
            assert_eq!(target.map(|target| target.authority()).as_deref(), expected, "{uri}");
        }
        let credentials = ChannelCredentials { ssl_credentials: Some(Anything {}) };
        let given = GoogleGrpc { target_uri: "a:1".into(), channel_credentials: Some(credentials) };
        assert!(parsed(&service(Specifier::Google(given))).unwrap().upstream.tls);
    }

    #[test]
    fn what_else_it_says() {
        let cluster = EnvoyGrpc { cluster_name: "auth".into(), authority: String::new() };
        let mut all = service(Specifier::Envoy(cluster));
        let header = |value: &str, raw: &[u8]| Header {
            key: "k".into(),
            value: value.into(),
            raw_value: raw.into(),
        };
        all.initial_metadata = vec![header("v", b""), header("", b"\xff")];
        for (seconds, nanos, expected) in [
            (1, 500_000_001, Some(1501)),
            (0, 0, None),
            (-1, 0, None),
            (0, -1, None),
            (i64::MAX, i32::MAX, Some(u32::MAX)),
        ] {
            all.timeout = Some(Duration { seconds, nanos });
            assert_eq!(parsed(&all).unwrap().timeout_ms, expected);
        }
        let target = parsed(&all).unwrap();
        assert_eq!(target.metadata, [("k".into(), b"v".to_vec()), ("k".into(), b"\xff".to_vec())]);
    }

    #[test]
    fn hostile_bytes() {
        let registered = |_: &[u8]| None;
        for bytes in [
            &b"\x0a"[..],
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0a\x03\x0a\x01\xff",
            b"\x00",
            b"\x1a\x00",
            b"\x0b\x0b\x0b\x0b",
        ] {
            assert_eq!(Target::parse(bytes, registered), None, "{}", bytes.escape_ascii());
        }
        // Groups in groups, which a decoder that recurses would follow.
        assert_eq!(Target::parse(&[0x1b; 4096], registered), None);
    }
}
