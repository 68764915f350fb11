//! HTTP calls that guests make: an HTTP client that is told bytes and answers bytes.
//!
//! [`Upstream`] says where a call goes, [`Request`] is made out of what a guest handed over, [`Exchange`]
//! speaks the protocol. Who moves the bytes, waits for them and gives up in time is the shell's business.

mod exchange;
mod pipe;
mod request;
mod rules;
mod secure;
#[cfg(feature = "grpc")]
mod tls;
#[cfg(not(feature = "grpc"))]
#[path = "without_tls.rs"]
mod tls;
mod upstream;

use std::fmt;

pub use exchange::{Exchange, Step};
pub use pipe::Pipe;
pub use request::{Malformed, Pairs, Request, server_name, wants_tls};
pub use rules::{Rules, Verdict};
pub use secure::Secure;
pub use tls::{ClientCertificate, Protocol, Tls, Trust, Trusted};
pub use upstream::{Speaks, Target, Upstream};

use crate::snapshot::HeaderMap;

macro_rules! before_headers {
    () => {
        "upstream connect error or disconnect/reset before headers. reset reason: "
    };
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// `:status` and the headers.
    pub headers: HeaderMap,
    /// The body, decoded from its framing.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: HeaderMap,
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
    /// How much of a response had come.
    pub reached: Reached,
    /// More about it, for the log; may be empty.
    pub details: String,
}

/// How much of a response had come when its call failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reached {
    /// Nothing.
    #[default]
    Nothing,
    /// A part of its head.
    Bytes,
    /// Its head, and maybe a part of its body.
    Head,
}

impl Failure {
    /// A failure before anything of a response has come.
    pub fn new(kind: FailureKind, details: impl Into<String>) -> Self {
        Self { kind, reached: Reached::Nothing, details: details.into() }
    }

    /// The response that a guest is told of in place of the one that never came; `None` when its head had come. Both, and
    /// the texts, as Envoy 1.40.
    pub fn response(&self) -> Option<Response> {
        let (status, text) = match (self.kind, self.reached) {
            (_, Reached::Head) => return None,
            (FailureKind::Resolver, _) => ("503", "no healthy upstream"),
            (FailureKind::Connect | FailureKind::Refused | FailureKind::Tls, _) => {
                ("503", concat!(before_headers!(), "remote connection failure"))
            }
            (FailureKind::Timeout, _) => ("504", "upstream request timeout"),
            (FailureKind::Closed, Reached::Nothing) => {
                ("503", concat!(before_headers!(), "connection termination"))
            }
            (FailureKind::Closed | FailureKind::Protocol | FailureKind::TooLarge, _) => {
                ("502", concat!(before_headers!(), "protocol error"))
            }
        };
        let mut response = Response { body: text.into(), ..Response::default() };
        response.headers.push(b":status", status.as_bytes());
        response.headers.push(b"content-length", text.len().to_string().as_bytes());
        response.headers.push(b"content-type", b"text/plain");
        Some(response)
    }
}

macro_rules! kinds {
    ($($(#[$meta:meta])* $variant:ident = $word:literal;)*) => {
        /// What a call failed at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FailureKind { $($(#[$meta])* $variant),* }

        impl FailureKind {
            /// The word that a guest reads by `proxy_get_status`.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// The kind of a word.
            pub fn of_word(word: &[u8]) -> Option<Self> {
                [$(Self::$variant),*].into_iter().find(|kind| kind.word().as_bytes() == word)
            }
        }
    };
}

kinds! {
    /// The name was not resolved.
    Resolver = "resolver";
    /// No connection.
    Connect = "connect";
    /// The name was resolved to an address that the filter may not call.
    Refused = "refused";
    /// The handshake failed, or the certificate is not to be trusted.
    Tls = "tls";
    /// The deadline of the call passed.
    Timeout = "timeout";
    /// The upstream closed the connection before its response was whole.
    Closed = "closed";
    /// What came is not HTTP.
    Protocol = "protocol";
    /// The response passes a limit.
    TooLarge = "too large";
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.word())?;
        if self.details.is_empty() { Ok(()) } else { write!(f, " ({})", self.details) }
    }
}
