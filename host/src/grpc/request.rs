//! What a call asks for, made of what a guest handed over.

use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::metadata;
use crate::callout::{Malformed, Pairs};
use crate::limits;

const AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// A call's headers.
#[derive(Clone, Debug)]
pub struct Request {
    scheme: &'static str,
    authority: String,
    path: String,
    fields: HeaderMap,
}

impl Request {
    /// Makes a request of `SERVICE/METHOD`, with metadata from the upstream's name and from the guest.
    pub fn build(
        tls: bool,
        authority: &str,
        service: &[u8],
        method: &[u8],
        metadata: &Pairs<'_>,
    ) -> Result<Self, Malformed> {
        let name = |name: &[u8], wrong| match std::str::from_utf8(name) {
            Ok(text) if is_name(name) => Ok(text.to_owned()),
            _ => Err(Malformed(wrong)),
        };
        let service = name(service, "bad name of a service")?;
        let method = name(method, "bad name of a method")?;
        let mut fields = metadata::from_guest(metadata)?;
        fields.insert(TE, HeaderValue::from_static("trailers"));
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
        if !fields.contains_key(USER_AGENT) {
            fields.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        }
        let request = Self {
            scheme: if tls { "https" } else { "http" },
            authority: authority.into(),
            path: format!("/{service}/{method}"),
            fields,
        };
        request.uri().ok_or(Malformed("bad authority"))?;
        Ok(request)
    }

    fn uri(&self) -> Option<Uri> {
        Uri::builder()
            .scheme(self.scheme)
            .authority(&*self.authority)
            .path_and_query(&*self.path)
            .build()
            .ok()
    }

    /// The head of the request, with the time that is left for it.
    pub fn head(&self, timeout_ms: Option<u64>) -> Option<http::Request<()>> {
        let mut head = http::Request::new(());
        *head.method_mut() = Method::POST;
        *head.uri_mut() = self.uri()?;
        *head.version_mut() = Version::HTTP_2;
        *head.headers_mut() = self.fields.clone();
        if let Some(timeout) = timeout_ms {
            head.headers_mut()
                .insert("grpc-timeout", HeaderValue::try_from(timeout_text(timeout)).ok()?);
        }
        Some(head)
    }
}

/// gRPC takes eight digits.
fn timeout_text(ms: u64) -> String {
    if ms < 100_000_000 { format!("{ms}m") } else { format!("{}S", ms.div_ceil(1000)) }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= limits::UPSTREAM_NAME
        && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/'))
        && name[0] != b'/'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let request = Request::build(false, "a:1", b"p.S", b"M", &[(b"k", b"v")]).unwrap();
        let head = request.head(Some(1500)).unwrap();
        assert_eq!(head.uri(), "http://a:1/p.S/M");
        assert_eq!(head.headers()["grpc-timeout"], "1500m");
        assert_eq!(head.headers()["k"], "v");
        assert_eq!(timeout_text(2_147_483_647), "2147484S");
    }

    #[test]
    fn names_that_are_none() {
        for (service, method) in [
            (&b""[..], &b"M"[..]),
            (b"S", b""),
            (b"S?", b"M"),
            (b"S", b"M\r\n"),
            (b"/S", b"M"),
            (b"S", b"\xff"),
        ] {
            assert!(Request::build(false, "a", service, method, &[]).is_err());
        }
    }
}
