//! A request and its response, as nginx would show them to a filter.

use std::collections::BTreeMap;

use super::headers::Headers;
use super::local::{Local, is_bodiless};
use crate::core::effect::{EffectKind, Effects};
use crate::core::ports::Phase;

/// See the module.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method now.
    pub method: Vec<u8>,
    /// The client asked with HEAD.
    pub is_head: bool,
    /// Path and query as the client sent them.
    pub target: Vec<u8>,
    /// What a filter made of them.
    pub path: Option<Vec<u8>>,
    /// The scheme of the connection.
    pub scheme: Vec<u8>,
    /// The one that a filter wrote.
    pub written_scheme: Option<Vec<u8>>,
    /// `Host`, which is no line of `headers`.
    pub authority: Option<Vec<u8>>,
    /// The header lines now.
    pub headers: Headers,
    /// The request body has this many bytes.
    pub body_bytes: usize,
    /// It was read from the client.
    pub body_is_read: bool,
    /// Variables by name: what the input says, and what filters set. These come before those that follow from the request.
    pub variables: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where it stands.
    pub phase: Phase,
    pub headers_sent: bool,
    /// The status of the response, 0 while there is none.
    pub status: u16,
    pub response_headers: Headers,
    pub response_bytes: usize,
    /// The response came from an upstream.
    pub upstream: Option<Vec<u8>>,
    /// Nanoseconds: when it began, by the wall clock and the monotonic one.
    pub began: (u64, u64),
}

impl Default for Request {
    /// `GET /` of a client that sends nothing but a Host header.
    fn default() -> Self {
        Self {
            method: b"GET".to_vec(),
            is_head: false,
            target: b"/".to_vec(),
            path: None,
            scheme: b"http".to_vec(),
            written_scheme: None,
            authority: Some(b"localhost".to_vec()),
            headers: Headers::default(),
            body_bytes: 0,
            body_is_read: false,
            variables: BTreeMap::new(),
            phase: Phase::Request,
            headers_sent: false,
            status: 0,
            response_headers: Headers::default(),
            response_bytes: 0,
            upstream: None,
            began: (0, 0),
        }
    }
}

impl Request {
    /// The header `connection` of the response, as nginx will write it.
    pub fn connection(&self) -> &'static [u8] {
        let said = self.headers.get(b"connection").unwrap_or_default();
        let asks = |token: &[u8]| {
            said.split(|b| *b == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
        };
        let is_old = self.variables.get(&b"server_protocol"[..]).is_some_and(|p| p == b"HTTP/1.0");
        let keeps = if is_old { asks(b"keep-alive") } else { !asks(b"close") };
        if keeps { b"keep-alive" } else { b"close" }
    }

    /// How long the response's body is, as its headers say; `None` when they do not, or when there is none.
    pub fn announced_length(&self) -> Option<usize> {
        if self.is_head || is_bodiless(self.status) {
            return None;
        }
        std::str::from_utf8(self.response_headers.get(b"content-length")?).ok()?.parse().ok()
    }

    /// Says how long its body is, where no header does.
    pub fn set_length(&mut self, body: &[u8]) {
        if !body.is_empty() && self.headers.get(b"content-length").is_none() {
            self.headers.add(b"Content-Length", body.len().to_string().as_bytes());
        }
    }

    /// Path and query now.
    pub fn path_now(&self) -> &[u8] {
        self.path.as_deref().unwrap_or(&self.target)
    }

    /// A variable of nginx. `now` is the time by the monotonic clock.
    pub fn variable(&self, name: &[u8], now: u64) -> Option<Vec<u8>> {
        if let Some(value) = self.variables.get(name) {
            return Some(value.clone());
        }
        let (path, query) = split_query(self.path_now());
        let number = |number: usize| number.to_string().into_bytes();
        Some(match name {
            b"request_method" => self.method.clone(),
            b"scheme" => self.scheme.clone(),
            b"request_uri" => self.target.clone(),
            b"uri" | b"document_uri" => decoded(path),
            b"args" | b"query_string" => query?.to_vec(),
            b"is_args" => {
                if query.is_some() {
                    b"?".to_vec()
                } else {
                    Vec::new()
                }
            }
            b"http_host" => self.authority.clone()?,
            b"host" => without_port(self.authority.as_deref().unwrap_or(b"localhost")),
            b"server_name" => b"localhost".to_vec(),
            b"content_length" if self.body_bytes > 0 => number(self.body_bytes),
            b"content_length" => self.headers.get(b"content-length")?.to_vec(),
            b"content_type" => self.headers.get(b"content-type")?.to_vec(),
            b"remote_addr" | b"server_addr" => b"127.0.0.1".to_vec(),
            b"remote_port" => b"50000".to_vec(),
            b"server_port" => b"80".to_vec(),
            b"server_protocol" => b"HTTP/1.1".to_vec(),
            b"connection" | b"connection_requests" => b"1".to_vec(),
            b"pid" => number(std::process::id() as usize),
            b"hostname" => b"localhost".to_vec(),
            b"status" if self.status == 0 => b"000".to_vec(),
            b"status" => number(self.status.into()),
            b"request_length" => number(self.request_length()),
            b"body_bytes_sent" => number(self.response_bytes),
            b"bytes_sent" => number(self.response_length()),
            b"request_id" => b"00000000000000000000000000000001".to_vec(),
            b"msec" => seconds(self.began.0 + (now - self.began.1.min(now))),
            b"request_time" => seconds(now - self.began.1.min(now)),
            b"sent_http_connection" if self.status != 0 => self.connection().to_vec(),
            b"upstream_addr" => self.upstream.clone()?,
            b"upstream_status" if self.upstream.is_some() => number(self.status.into()),
            _ => return self.of_header(name),
        })
    }

    /// `http_NAME` and `sent_http_NAME`.
    fn of_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        let (headers, name) = match name.strip_prefix(b"sent_http_") {
            Some(name) => (&self.response_headers, name),
            None => (&self.headers, name.strip_prefix(b"http_")?),
        };
        let is = |line: &[u8]| {
            line.len() == name.len()
                && line
                    .iter()
                    .zip(name)
                    .all(|(a, b)| a.to_ascii_lowercase() == *b || (*a == b'-' && *b == b'_'))
        };
        let values: Vec<&[u8]> =
            headers.iter().filter(|(line, _)| is(line)).map(|(_, value)| value).collect();
        (!values.is_empty()).then(|| values.join(&b", "[..]))
    }

    fn request_length(&self) -> usize {
        let line = self.method.len() + self.target.len() + " HTTP/1.1\r\n ".len();
        let host = self.authority.as_ref().map_or(0, |host| host.len() + "Host: \r\n".len());
        let body = if self.body_is_read { self.body_bytes } else { 0 };
        line + host + lines(&self.headers) + "\r\n".len() + body
    }

    fn response_length(&self) -> usize {
        lines(&self.response_headers) + self.response_bytes
    }

    /// Does to the request and its response what a filter asked for. Returns the response that it made.
    pub fn apply(&mut self, effects: &Effects) -> Option<Local> {
        let mut local: Option<Local> = None;
        for effect in effects.iter() {
            use EffectKind as K;
            let (name, value) = (effect.name, effect.value);
            let is_host = name.eq_ignore_ascii_case(b"host");
            match effect.kind {
                K::SetRequestHeader | K::AddRequestHeader if is_host => {
                    self.authority = Some(value.to_vec());
                }
                K::RemoveRequestHeader if is_host => self.authority = None,
                K::SetRequestHeader => self.headers.set(name, value),
                K::AddRequestHeader => self.headers.add(name, value),
                K::RemoveRequestHeader => self.headers.remove(name),
                K::SetResponseHeader => self.response_headers.set(name, value),
                K::AddResponseHeader => self.response_headers.add(name, value),
                K::RemoveResponseHeader => self.response_headers.remove(name),
                K::SetMethod => self.method = value.to_vec(),
                K::SetPath => {
                    let end = value.iter().position(|b| *b == b'#').unwrap_or(value.len());
                    self.path = Some(value[..end].to_vec());
                }
                K::SetStatus => {
                    let status = u16::try_from(effect.number).unwrap_or_default();
                    if is_bodiless(self.status) && !is_bodiless(status) {
                        self.response_headers.remove(b"content-length");
                    }
                    self.status = status;
                }
                K::LocalResponse => {
                    local = Some(Local {
                        status: u16::try_from(effect.number).unwrap_or_default(),
                        headers: Headers::default(),
                        body: value.to_vec(),
                        is_direct: !name.is_empty(),
                    });
                }
                K::LocalResponseHeader => {
                    if let Some(local) = &mut local {
                        local.headers.add(name, value);
                    }
                }
            }
        }
        local
    }
}

fn lines(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len() + ": \r\n".len()).sum()
}

/// Path and query.
pub fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

fn decoded(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, behind)) = rest.split_first() {
        let digit = |at: usize| behind.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &behind[2..];
            }
            _ => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

fn without_port(authority: &[u8]) -> Vec<u8> {
    let end = match authority.iter().rposition(|byte| *byte == b':') {
        Some(at) if authority[at + 1..].iter().all(u8::is_ascii_digit) => at,
        _ => authority.len(),
    };
    authority[..end].to_ascii_lowercase()
}

/// As nginx writes times: `1700000000.123`.
fn seconds(nanoseconds: u64) -> Vec<u8> {
    let milliseconds = nanoseconds / 1_000_000;
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_follow_from_the_request() {
        let mut request = Request {
            target: b"/a%20b/c?x=1".to_vec(),
            authority: Some(b"Example.com:8080".to_vec()),
            headers: [("X-One", "1"), ("x-one", "2")].iter().copied().collect(),
            ..Request::default()
        };
        let text = |request: &Request, name: &str| {
            let value = request.variable(name.as_bytes(), 0);
            value.map(|value| String::from_utf8(value).expect("UTF-8"))
        };
        for (name, value) in [
            ("uri", Some("/a b/c")),
            ("args", Some("x=1")),
            ("host", Some("example.com")),
            ("http_host", Some("Example.com:8080")),
            ("http_x_one", Some("1, 2")),
            ("http_x_two", None),
            ("status", Some("000")),
            ("upstream_addr", None),
        ] {
            assert_eq!(text(&request, name).as_deref(), value, "{name}");
        }
        request.path = Some(b"/other".to_vec());
        assert_eq!(text(&request, "uri").as_deref(), Some("/other"));
        assert_eq!(text(&request, "request_uri").as_deref(), Some("/a%20b/c?x=1"));
    }
}
