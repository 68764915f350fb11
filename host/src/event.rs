//! What happens to a stream, as the host tells it to a guest.

use crate::abi::Callback;

/// One event of a request, with what the host knows of it. Bytes are lent for the call only.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The callback that tells the guest of it.
    pub callback: Callback,
    /// True with the last part of a body; headers events find it out by themselves.
    pub end_of_stream: bool,
    /// A request body of which every piece's outcome is taken, and not the last one's for the whole.
    pub piecewise: bool,
    /// Of a request: it waits for the calls that its callbacks dispatch, whatever they answer.
    pub calls_hold: bool,
    /// Of a response: nothing of it was sent, and the caller waits with it as long as the guest does.
    pub waits: bool,
    /// The body chunk of a body event, else empty. It is lent for the time of the call.
    pub body: &'a [u8],
}

impl<'a> Event<'a> {
    /// The headers of a request or a response have come.
    pub fn headers(callback: Callback) -> Self {
        Self {
            callback,
            end_of_stream: false,
            piecewise: false,
            calls_hold: false,
            waits: false,
            body: &[],
        }
    }

    /// A chunk of a body has come, the last one with `end_of_stream`.
    pub fn body(callback: Callback, chunk: &'a [u8], end_of_stream: bool) -> Self {
        Self { body: chunk, end_of_stream, ..Self::headers(callback) }
    }
}

/// What the guest answered, as far as the host must act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Continue.
    Continue,
    /// Hold the request (or, for a response body, what was received so far).
    Pause,
    /// A local response stands in place of what would follow; see the effects.
    Respond,
    /// The guest asked for the request to be ended without a response.
    Close,
}
