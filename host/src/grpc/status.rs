//! Codes of gRPC, and what becomes one: HTTP statuses and errors of HTTP/2 (gRPC's doc/statuscodes.md,
//! doc/http-grpc-status-mapping.md and doc/PROTOCOL-HTTP2.md).

use std::fmt;

use percent_encoding::percent_decode;

use crate::callout::{Failure, FailureKind};
use crate::limits;
use crate::snapshot::HeaderMap;

/// A code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are gRPC's")]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "CANCELLED"),
    (Code::Unknown, "UNKNOWN"),
    (Code::InvalidArgument, "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (Code::NotFound, "NOT_FOUND"),
    (Code::AlreadyExists, "ALREADY_EXISTS"),
    (Code::PermissionDenied, "PERMISSION_DENIED"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION"),
    (Code::Aborted, "ABORTED"),
    (Code::OutOfRange, "OUT_OF_RANGE"),
    (Code::Unimplemented, "UNIMPLEMENTED"),
    (Code::Internal, "INTERNAL"),
    (Code::Unavailable, "UNAVAILABLE"),
    (Code::DataLoss, "DATA_LOSS"),
    (Code::Unauthenticated, "UNAUTHENTICATED"),
];

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The server's words, or ours. It is UTF-8: SDKs take it for text, and one that is no text would end the VM of a filter.
    pub message: String,
    /// The server gave it.
    pub of_server: bool,
}

impl Code {
    /// The code of a number; numbers that gRPC does not have are UNKNOWN.
    pub fn of(number: u32) -> Self {
        CODES.get(number as usize).map_or(Self::Unknown, |(code, _)| *code)
    }

    /// What a response without `grpc-status` means.
    pub fn of_http(status: u16) -> Self {
        match status {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }

    /// What a reset of the stream means, by the code of HTTP/2's error.
    pub fn of_reset(reason: u32) -> Self {
        match reason {
            // STREAM_CLOSED: the other side thinks that it had ended.
            5 => Self::Unknown,
            // REFUSED_STREAM
            7 => Self::Unavailable,
            // CANCEL
            8 => Self::Cancelled,
            // ENHANCE_YOUR_CALM
            11 => Self::ResourceExhausted,
            // INADEQUATE_SECURITY
            12 => Self::PermissionDenied,
            0..=13 => Self::Internal,
            _ => Self::Unknown,
        }
    }
}

impl Status {
    /// A status of ours.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), of_server: false }
    }

    /// The status in trailers; `None` when there is none.
    pub fn of_trailers(trailers: &HeaderMap) -> Option<Self> {
        let number = trailers.get(b"grpc-status")?;
        let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
        let code = number.map_or(Code::Unknown, Code::of);
        let message = trailers.get(b"grpc-message").unwrap_or_default();
        let mut message = percent_decode(message).decode_utf8_lossy().into_owned();
        message.truncate(message.floor_char_boundary(limits::GRPC_MESSAGE));
        Some(Self { code, message, of_server: true })
    }

    /// The status of a call that had no connection, or lost it.
    pub fn of_failure(failure: &Failure) -> Self {
        let code = match failure.kind {
            FailureKind::Timeout => Code::DeadlineExceeded,
            FailureKind::Protocol => Code::Internal,
            FailureKind::TooLarge => Code::ResourceExhausted,
            _ => Code::Unavailable,
        };
        Self::new(code, failure.to_string())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CODES[*self as usize].1)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if self.message.is_empty() {
            return Ok(());
        }
        let shown = &self.message[..self.message.floor_char_boundary(limits::SHOWN_BYTES)];
        write!(f, " ({})", shown.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.push(name.as_bytes(), value.as_bytes());
        }
        map
    }

    #[test]
    fn every_number_has_its_code() {
        for (number, (code, _)) in CODES.iter().enumerate() {
            assert_eq!(*code as usize, number);
            assert_eq!(Code::of(number as u32), *code);
        }
        assert_eq!(Code::of(17), Code::Unknown);
        assert_eq!(Code::of(u32::MAX), Code::Unknown);
    }

    #[test]
    fn statuses_in_trailers() {
        let of = |pairs: &[(&str, &str)]| Status::of_trailers(&trailers(pairs));
        assert_eq!(of(&[]), None);
        let server = |code, text: &str| Status { of_server: true, ..Status::new(code, text) };
        assert_eq!(of(&[("grpc-status", "0")]), Some(server(Code::Ok, "")));
        assert_eq!(
            of(&[("grpc-status", "5"), ("grpc-message", "caf%C3%A9 100%")]),
            Some(server(Code::NotFound, "caf\u{e9} 100%"))
        );
        // A message is text, also where it is cut.
        let of_message = |text: &str| {
            of(&[("grpc-status", "5"), ("grpc-message", text)]).expect("a status").message
        };
        assert_eq!(of_message("caf%E9"), "caf\u{fffd}");
        let long = format!("a{}", "%C3%A9".repeat(limits::GRPC_MESSAGE));
        assert_eq!(of_message(&long).len(), limits::GRPC_MESSAGE - 1);
        for odd in ["", "x", "-1", "99999999999", "17"] {
            assert_eq!(of(&[("grpc-status", odd)]).unwrap().code, Code::Unknown, "{odd}");
        }
    }

    #[test]
    fn http_statuses_and_resets() {
        let http: Vec<Code> =
            [400, 401, 403, 404, 429, 500, 502, 503, 504, 302].map(Code::of_http).into();
        use Code::*;
        assert_eq!(
            http,
            [
                Internal,
                Unauthenticated,
                PermissionDenied,
                Unimplemented,
                Unavailable,
                Unknown,
                Unavailable,
                Unavailable,
                Unavailable,
                Unknown
            ]
        );
        assert_eq!(Code::of_reset(8), Cancelled);
        assert_eq!(Code::of_reset(7), Unavailable);
        assert_eq!(Code::of_reset(2), Internal);
        assert_eq!(Code::of_reset(99), Unknown);
    }
}
