//! What a response's headers tell of its body: that there is none, and that it is encoded.

use super::Vm;
use super::bodies::LENGTH_CHANGED;
use crate::abi::{Attribute, Callback};
use crate::event::Event;
use crate::guest::{ContextId, Output, Stream};

impl Vm {
    /// Whether HTTP has no body in this response, whatever its headers say.
    pub(super) fn is_bodiless(&self, stream: ContextId) -> bool {
        let state = self.state();
        let Some(s) = state.contexts.streams.get(&stream) else { return false };
        let status = state.host.response_status(s.request);
        let mut method = Vec::new();
        is_bodiless_status(status)
            || (state.host.attribute(s.request, Attribute::RequestMethod, &mut method)
                && (method == b"HEAD" || (method == b"CONNECT" && (200..300).contains(&status))))
    }

    /// Whether the response says that its body is empty.
    pub(super) fn has_length_0(&self, stream: ContextId) -> bool {
        self.response_header(stream, b"content-length", Attribute::ResponseContentLength)
            .is_some_and(|length| length == b"0")
    }

    /// What is passed on of a body that a guest wrote where there was an empty one: nothing when a length of 0 was sent.
    pub(super) fn within_length_0(&mut self, stream: ContextId, output: Output) -> Output {
        let state = self.state_mut();
        let mut length = Vec::new();
        let sent = state.contexts.streams.get(&stream).is_some_and(|s| {
            state.host.attribute(s.request, Attribute::ResponseContentLength, &mut length)
        });
        if !sent || length != b"0" {
            return output;
        }
        state.warn_once(
            "a filter writes a body where the response has a content-length of 0: it is dropped",
        );
        Output::Unchanged
    }

    /// What is passed on without the bytes past the length that was sent: a client would take them for its next response.
    pub(super) fn within_length(
        &mut self,
        stream: ContextId,
        event: Event<'_>,
        output: Output,
    ) -> Output {
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get(&stream) else { return output };
        let bytes: &[u8] = match &output {
            Output::Unchanged => event.body,
            Output::Replace(bytes) | Output::Pass(bytes) => bytes,
            Output::Hold => return output,
        };
        let (taken, given) = s.response_bytes;
        if given + bytes.len() as u64 <= taken + event.body.len() as u64 {
            return output;
        }
        let mut length = Vec::new();
        if !state.host.attribute(s.request, Attribute::ResponseContentLength, &mut length) {
            return output;
        }
        let length = std::str::from_utf8(&length).ok().and_then(|text| text.parse::<u64>().ok());
        let room = length.and_then(|length| usize::try_from(length.saturating_sub(given)).ok());
        match room.and_then(|room| bytes.get(..room)) {
            Some(left) if left.len() < bytes.len() => {
                let left = left.to_vec();
                state.warn_once(LENGTH_CHANGED);
                Output::Replace(left)
            }
            _ => output,
        }
    }

    /// What is passed on of a response's body whose event failed: what the guest was shown and holds. Where a length was sent,
    /// that is no more than what came: the rest of the body is passed on as it comes.
    pub(super) fn rescue_response_body(&mut self, stream: ContextId, event: Event<'_>) -> Output {
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else { return Output::Unchanged };
        let mut bytes = match s.response_body.rescue() {
            Output::Replace(bytes) => bytes,
            other => return other,
        };
        let (taken, given) = s.response_bytes;
        let came = (taken + event.body.len() as u64).saturating_sub(given);
        let mut length = Vec::new();
        if bytes.len() as u64 > came
            && state.host.attribute(s.request, Attribute::ResponseContentLength, &mut length)
            && !length.is_empty()
        {
            bytes.truncate(usize::try_from(came).unwrap_or(usize::MAX));
            state.warn_once(LENGTH_CHANGED);
        }
        Output::Replace(bytes)
    }

    /// Whether the response says that its body is encoded, with what the guest did to that header.
    pub(super) fn is_encoded(&self, stream: ContextId) -> bool {
        let changed =
            |s: &Stream| s.effects.iter().any(|e| e.name.eq_ignore_ascii_case(b"content-encoding"));
        let changed = self.state().contexts.streams.get(&stream).is_some_and(|s| changed(s));
        !changed
            && self
                .response_header(stream, b"content-encoding", Attribute::ResponseContentEncoding)
                .is_some_and(|value| !value.eq_ignore_ascii_case(b"identity"))
    }

    /// From the snapshot, else as it is sent.
    fn response_header(
        &self,
        stream: ContextId,
        name: &[u8],
        sent: Attribute<'_>,
    ) -> Option<Vec<u8>> {
        let state = self.state();
        let s = state.contexts.streams.get(&stream)?;
        if s.response_headers_loaded {
            return s.response_headers.get(name).map(<[u8]>::to_vec);
        }
        let mut value = Vec::new();
        (state.host.attribute(s.request, sent, &mut value) && !value.is_empty()).then_some(value)
    }

    /// Whether an event of the response's body has nothing for the guest: it was told of the end with the headers, or would
    /// have been, and what it wrote would stand behind a response without a body, where the client looks for the next one.
    pub(super) fn comes_without_body(&mut self, stream: ContextId, event: Event<'_>) -> bool {
        let state = self.state();
        let Some(s) = state.contexts.streams.get(&stream) else { return false };
        let found = match s.response_has_body {
            Some(false) => return true,
            told => {
                is_bodiless_status(state.host.response_status(s.request))
                    || (told.is_none()
                        && !s.saw_response_body
                        && event.body.is_empty()
                        && (self.is_bodiless(stream)
                            || (event.end_of_stream && self.has_length_0(stream))))
            }
        };
        if found && let Some(s) = self.state_mut().contexts.streams.get_mut(&stream) {
            s.response_has_body = Some(false);
        }
        found
    }

    /// Tells once of a guest that changes a body which is encoded.
    pub(super) fn warn_of_encoding(&mut self, stream: ContextId, callback: Callback) {
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get(&stream) else { return };
        if callback == Callback::ResponseBody {
            if s.response_encoded && s.response_body.edited() {
                state.warn_once(
                    "a filter changes the body of a response with a content-encoding: \
                     it sees and writes encoded bytes",
                );
            }
            return;
        }
        let mut coding = Vec::new();
        if s.request_body.edited()
            && state.host.attribute(s.request, Attribute::RequestContentEncoding, &mut coding)
            && !coding.is_empty()
            && !coding.eq_ignore_ascii_case(b"identity")
        {
            state.warn_once(
                "a filter changes the body of a request with a content-encoding: \
                 it sees and writes encoded bytes",
            );
        }
    }
}

/// Statuses whose responses end with their headers (RFC 9112, section 6.3). Servers frame those below 100, which no client
/// should get, like interim ones; a single digit is no status.
fn is_bodiless_status(status: u16) -> bool {
    matches!(status, 10..=199 | 204 | 304)
}
