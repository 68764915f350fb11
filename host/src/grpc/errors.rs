//! What errors of h2 mean.

use h2::Reason;

use super::{Code, Status};
use crate::callout::{Failure, FailureKind};

/// The status of a stream that failed.
pub(super) fn status_of(error: &h2::Error) -> Status {
    match error.reason() {
        Some(reason) if error.is_reset() => {
            let text = format!("the stream was reset ({})", reason.description());
            Status::new(Code::of_reset(reason.into()), text)
        }
        _ => Status::of_failure(&failure(error)),
    }
}

/// Whether the server says that it has not looked at a stream: by its reset, or because it goes away.
pub(super) fn is_refusal(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away()
            || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
}

/// What failed.
pub(super) fn failure(error: &h2::Error) -> Failure {
    if error.is_io() || error.is_go_away() && error.is_remote() {
        closed(&error.to_string())
    } else {
        protocol(&error.to_string())
    }
}

/// The connection is lost.
pub(super) fn closed(details: &str) -> Failure {
    Failure::new(FailureKind::Closed, details)
}

/// What came is not HTTP/2, or not what was asked for.
pub(super) fn protocol(details: &str) -> Failure {
    Failure::new(FailureKind::Protocol, details)
}
