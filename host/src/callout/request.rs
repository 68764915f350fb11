//! A call's request, made of what a guest handed over.

use std::collections::HashSet;
use std::convert::Infallible;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

use super::Upstream;
use crate::codec::header::is_path;
use crate::limits;

/// A request's body.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What is wrong with what a guest handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Names and values.
pub type Pairs<'a> = [(&'a [u8], &'a [u8])];

/// Headers of one connection, which a guest has no say in. Their meaning ends with the connection, or hyper writes
/// them itself.
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
const HOP_BY_HOP_OTHERS: [&str; 2] = ["keep-alive", "proxy-connection"];

/// True when the pseudo header `:scheme` asks for TLS.
pub fn wants_tls(headers: &Pairs<'_>) -> bool {
    pseudo(headers, b":scheme").is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
}

/// The name that the upstream's certificate must have: the authority without its port.
pub fn server_name(headers: &Pairs<'_>, upstream: &Upstream) -> String {
    let authority = authority(headers, upstream);
    authority.parse::<Authority>().map_or(authority, |parsed| parsed.host().into())
}

/// The request's authority: `:authority`, else `host`, else the upstream.
fn authority(headers: &Pairs<'_>, upstream: &Upstream) -> String {
    let given = pseudo(headers, b":authority").or_else(|| pseudo(headers, b"host"));
    match given {
        Some(value) if !value.is_empty() => String::from_utf8_lossy(value).into_owned(),
        _ => upstream.authority(),
    }
}

/// A request that can be sent, and sent again.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    path: PathAndQuery,
    fields: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

impl Request {
    /// Makes a request. Defaults: GET, `/`. `left_out` is told of each header that cannot be sent: filters hand on what a
    /// client sent, which must not keep them from asking.
    pub fn build(
        upstream: &Upstream,
        headers: &Pairs<'_>,
        body: &[u8],
        trailers: &Pairs<'_>,
        left_out: impl FnMut(&[u8]),
    ) -> Result<Self, Malformed> {
        let path = match pseudo(headers, b":path") {
            None | Some(b"") => PathAndQuery::from_static("/"),
            // The crate takes a lone fragment or query, too.
            Some(path) if !is_path(path) && path != b"*" => return Err(Malformed("bad :path")),
            Some(path) => PathAndQuery::try_from(path).map_err(|_| Malformed("bad :path"))?,
        };
        let trailers = trailer_fields(trailers)?;
        Ok(Self {
            method: method(pseudo(headers, b":method").unwrap_or(b"GET"))?,
            path,
            fields: header_fields(upstream, headers, &trailers, left_out)?,
            body: Bytes::copy_from_slice(body),
            trailers,
        })
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Path and query.
    pub fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// Its header fields, `Host` among them.
    pub fn headers(&self) -> &HeaderMap {
        &self.fields
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The request for hyper.
    pub(super) fn message(&self) -> http::Request<Body> {
        let body = Full::new(self.body.clone());
        let body = if self.trailers.is_empty() {
            body.boxed_unsync()
        } else {
            let trailers = self.trailers.clone();
            body.with_trailers(async move { Some(Ok(trailers)) }).boxed_unsync()
        };
        let mut message = http::Request::new(body);
        *message.method_mut() = self.method.clone();
        *message.uri_mut() = Uri::from(self.path.clone());
        *message.headers_mut() = self.fields.clone();
        message
    }
}

fn header_fields(
    upstream: &Upstream,
    headers: &Pairs<'_>,
    trailers: &HeaderMap,
    mut left_out: impl FnMut(&[u8]),
) -> Result<HeaderMap, Malformed> {
    let mut fields = HeaderMap::new();
    let host = authority(headers, upstream);
    if host.len() > limits::UPSTREAM_NAME {
        return Err(Malformed("bad :authority"));
    }
    let host = HeaderValue::from_str(&host);
    fields.insert(HOST, host.map_err(|_| Malformed("bad :authority"))?);
    let dropped = connection_options(headers);
    for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with(b":")) {
        let Ok((name, value)) = field(name, value) else {
            left_out(name);
            continue;
        };
        let hop_by_hop = HOP_BY_HOP.contains(&name) || HOP_BY_HOP_OTHERS.contains(&name.as_str());
        if !hop_by_hop && name != HOST && !dropped.contains(name.as_str().as_bytes()) {
            fields.append(name, value);
        }
    }
    if !trailers.is_empty() {
        let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        let names = HeaderValue::from_str(&names.join(", "));
        fields.insert(TRAILER, names.map_err(|_| Malformed("bad trailers"))?);
        fields.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(fields)
}

fn pseudo<'a>(headers: &Pairs<'a>, name: &[u8]) -> Option<&'a [u8]> {
    headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// A tunnel is no call.
fn method(name: &[u8]) -> Result<Method, Malformed> {
    match Method::from_bytes(name) {
        Ok(method) if method != Method::CONNECT => Ok(method),
        _ => Err(Malformed("bad :method")),
    }
}

fn field(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Malformed> {
    match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (Err(_), _) => Err(Malformed("bad header name")),
        (_, Err(_)) => Err(Malformed("bad header value")),
    }
}

fn trailer_fields(pairs: &Pairs<'_>) -> Result<HeaderMap, Malformed> {
    let mut fields = HeaderMap::new();
    for (name, value) in pairs {
        let (name, value) = field(name, value)?;
        if HOP_BY_HOP.contains(&name) || name == HOST {
            return Err(Malformed("a trailer that cannot be one"));
        }
        fields.append(name, value);
    }
    Ok(fields)
}

/// What the guest's own Connection header names goes no further either. Of its options only those are kept that are the name
/// of a header, in lower case: a client may have sent thousands of others.
fn connection_options(headers: &Pairs<'_>) -> HashSet<Vec<u8>> {
    let mut named = HashSet::new();
    let mut options = headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(CONNECTION.as_str().as_bytes()))
        .flat_map(|(_, value)| value.split(|b| *b == b','))
        .peekable();
    if options.peek().is_none() {
        return named;
    }
    let names: HashSet<Vec<u8>> =
        headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let mut lower = Vec::new();
    for option in options {
        lower.clear();
        lower.extend(option.trim_ascii().iter().map(u8::to_ascii_lowercase));
        if names.contains(&lower) && !named.contains(&lower) {
            named.insert(lower.clone());
        }
    }
    named
}
