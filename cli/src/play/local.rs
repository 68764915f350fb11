//! Responses that a filter made, or the host in place of one that failed.

use super::headers::Headers;

/// A response that a filter made, or the host in place of one that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// Its body comes out of the stream when that is told of the response's body.
    pub(super) is_direct: bool,
}

/// nginx frames messages itself.
const FRAMING: [&[u8]; 5] =
    [b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"proxy-connection"];

/// Whether a response of that status ends with its headers.
pub fn is_bodiless(status: u16) -> bool {
    matches!(status, 101 | 204 | 304)
}

impl Local {
    pub(super) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The page of nginx for a status, without the name of the server.
    pub fn page(status: u16) -> Self {
        let reason = http_reason(status);
        let title = format!("{status} {reason}");
        let body = format!(
            "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
        );
        let headers = [("Content-Type", "text/html")].iter().copied().collect();
        Self { status, headers, body: body.into_bytes(), is_direct: false }
    }

    /// Its headers as they go out.
    pub fn sent_headers(&self) -> Headers {
        let mut sent = Headers::default();
        for (name, value) in self.headers.iter() {
            if sent.get(name).is_some() && !name.eq_ignore_ascii_case(b"content-type") {
                sent.add(name, value);
            } else if !FRAMING.iter().any(|framing| name.eq_ignore_ascii_case(framing)) {
                sent.set(name, value);
            }
        }
        if !self.is_direct && !is_bodiless(self.status) {
            sent.set(b"Content-Length", self.body.len().to_string().as_bytes());
        }
        if sent.get(b"content-type").is_none() && !self.body.is_empty() {
            sent.set(b"Content-Type", b"text/plain");
        }
        sent
    }
}

/// The answer to a gRPC request: no body, and the status in a header.
pub(super) fn grpc(code: &str, message: &str) -> Local {
    let headers =
        [("content-type", "application/grpc"), ("grpc-status", code), ("grpc-message", message)];
    Local { status: 200, headers: headers.iter().copied().collect(), ..Local::default() }
}

fn http_reason(status: u16) -> &'static str {
    match status {
        413 => "Request Entity Too Large",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        _ => "Error",
    }
}
