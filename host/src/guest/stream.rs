//! A stream context: one request seen by one plugin context.

use std::cell::Cell;
use std::num::NonZeroUsize;

use smallvec::SmallVec;

use super::{Body, ContextId, Output, Properties};
use crate::abi::Callback;
use crate::effect::Effects;
use crate::event::{Action, Event};
use crate::ports::RequestId;
use crate::snapshot::HeaderMap;

/// See the module.
#[derive(Debug)]
pub struct Stream {
    /// Its id in the VM.
    pub id: ContextId,
    /// Its plugin context.
    pub root: ContextId,
    /// Its request in the world.
    pub request: RequestId,
    /// What its callbacks asked for and the host has not done yet.
    pub effects: Effects,
    /// The request's headers; filled on first use in each callback.
    pub request_headers: HeaderMap,
    /// Whether `request_headers` is filled.
    pub request_headers_loaded: bool,
    /// The response's headers: the last snapshot that the shell took, with the guest's changes.
    pub response_headers: HeaderMap,
    /// Whether there is such a snapshot.
    pub response_headers_loaded: bool,
    /// The body of the response has come to its end.
    pub response_ended: bool,
    /// The trailers of the response, once they were looked for.
    pub response_trailers: HeaderMap,
    /// Whether they were.
    pub response_trailers_loaded: bool,
    /// The request body of the event.
    pub request_body: Body,
    /// What was passed on of the request body before its last chunk.
    pub request_passed: Vec<u8>,
    /// That is not kept any more: the body was larger than may be kept, and nothing of it was changed.
    pub request_unkept: bool,
    /// Whether the guest changed any of it.
    pub request_changed: bool,
    /// The guest did something in a callback of the request's body.
    pub saw_request_body: bool,
    /// The pause holds the end of the request's body; whether its pieces continue one by one.
    pub held_end: Option<bool>,
    /// The response body of the event.
    pub response_body: Body,
    /// What the VM's account says that is held of this stream's bodies.
    pub held: usize,
    /// What the guest keeps under paths of its own.
    pub properties: Properties,
    /// What its reading and setting of attributes and properties has cost so far.
    pub variable_bytes: Cell<usize>,
    /// Which direction's callback is held.
    pub paused: bool,
    /// Its request waits for the calls that its callbacks dispatch.
    pub calls_hold: bool,
    /// How many calls that it waits for are under way.
    pub awaited_calls: u32,
    /// The guest asked to continue; done when its callback has returned.
    pub resume: bool,
    /// The guest asked to end the request.
    pub close: bool,
    /// A local response was made: no further request callbacks.
    pub responded: bool,
    /// That response waits to be put out.
    pub respond_now: bool,
    /// The guest's words for why it made it.
    pub response_details: Vec<u8>,
    /// The body of a local response that was made in header_filter, for body_filter to put out.
    pub direct_body: Option<Vec<u8>>,
    /// `direct_body` was put out.
    pub direct_body_sent: bool,
    /// The response must be cut off: the status of a local response that came when the headers were sent.
    pub cut: Option<u16>,
    /// Whether the stream was told of the response's headers.
    pub saw_response_headers: bool,
    /// Whether the response's body was given to the stream, as far as there is one.
    pub saw_response_body: bool,
    /// The guest is told of the last piece of the response's body, or was.
    pub last_piece: bool,
    /// Nothing of the response was sent, see [`Event::waits`].
    pub response_waits: bool,
    /// The end of the response's body is held.
    pub response_end_held: bool,
    /// Whether a body follows the response's headers, as far as that was asked.
    pub response_has_body: Option<bool>,
    /// The response's body is encoded: the filter sees it as the upstream sent it.
    pub response_encoded: bool,
    /// Response body bytes that came in and went out, to notice a broken Content-Length.
    pub response_bytes: (u64, u64),
    /// Pieces of the response's body that the guest made, to continue with its next chunk, before what becomes of that.
    pub injected: Vec<u8>,
    /// The response's body ends with them.
    pub inject_ends: bool,
    /// It has.
    pub ended_early: bool,
    /// What the guest itself says that may be held of its request's body, and of its response's.
    pub own_limits: [Option<usize>; 2],
    /// Whom to wake when a pause ends: several light threads of a request may wait.
    pub wakers: SmallVec<[NonZeroUsize; 1]>,
}

impl Stream {
    /// A stream to which nothing has happened.
    pub fn new(id: ContextId, root: ContextId, request: RequestId) -> Self {
        Self {
            id,
            root,
            request,
            effects: Effects::default(),
            request_headers: HeaderMap::new(),
            request_headers_loaded: false,
            response_headers: HeaderMap::new(),
            response_headers_loaded: false,
            response_ended: false,
            response_trailers: HeaderMap::new(),
            response_trailers_loaded: false,
            request_body: Body::default(),
            request_passed: Vec::new(),
            request_unkept: false,
            request_changed: false,
            saw_request_body: false,
            held_end: None,
            response_body: Body::default(),
            held: 0,
            properties: Properties::default(),
            variable_bytes: Cell::new(0),
            paused: false,
            calls_hold: false,
            awaited_calls: 0,
            resume: false,
            close: false,
            responded: false,
            respond_now: false,
            response_details: Vec::new(),
            direct_body: None,
            direct_body_sent: false,
            cut: None,
            saw_response_headers: false,
            saw_response_body: false,
            last_piece: false,
            response_waits: false,
            response_end_held: false,
            response_has_body: None,
            response_encoded: false,
            response_bytes: (0, 0),
            injected: Vec::new(),
            inject_ends: false,
            ended_early: false,
            own_limits: [None; 2],
            wakers: SmallVec::new(),
        }
    }

    /// Makes a used stream a new one that keeps the memory of its buffers. Written field by field, since all of a stream is
    /// more than most requests touch of it.
    #[inline]
    pub fn renew(&mut self, id: ContextId, root: ContextId, request: RequestId) {
        let Self {
            id: own_id,
            root: own_root,
            request: own_request,
            effects,
            request_headers,
            request_headers_loaded,
            response_headers,
            response_headers_loaded,
            response_ended,
            response_trailers,
            response_trailers_loaded,
            request_body,
            request_passed,
            request_changed,
            saw_request_body,
            held_end,
            response_body,
            held,
            properties,
            variable_bytes,
            paused,
            calls_hold,
            awaited_calls,
            resume,
            close,
            responded,
            respond_now,
            response_details,
            direct_body,
            direct_body_sent,
            cut,
            saw_response_headers,
            saw_response_body,
            last_piece,
            response_waits,
            response_end_held,
            response_has_body,
            response_encoded,
            response_bytes,
            injected,
            inject_ends,
            ended_early,
            own_limits,
            wakers,
            request_unkept,
        } = self;
        (*own_id, *own_root, *own_request) = (id, root, request);
        effects.clear();
        request_headers.clear();
        response_headers.clear();
        if !response_trailers.is_empty() {
            *response_trailers = HeaderMap::new();
        }
        for body in [request_body, response_body] {
            if body.is_used() {
                *body = Body::default();
            }
        }
        if properties.size() != 0 {
            *properties = Properties::default();
        }
        for bytes in [request_passed, response_details, injected] {
            if bytes.capacity() != 0 {
                *bytes = Vec::new();
            }
        }
        if direct_body.is_some() {
            *direct_body = None;
        }
        for flag in [
            request_headers_loaded,
            response_headers_loaded,
            response_ended,
            response_trailers_loaded,
            request_changed,
            saw_request_body,
            paused,
            calls_hold,
            resume,
            close,
            responded,
            respond_now,
            direct_body_sent,
            saw_response_headers,
            saw_response_body,
            response_encoded,
            request_unkept,
            inject_ends,
            ended_early,
            last_piece,
            response_waits,
            response_end_held,
        ] {
            *flag = false;
        }
        (*held, *awaited_calls, *response_bytes) = (0, 0, (0, 0));
        (*held_end, *cut, *response_has_body) = (None, None, None);
        *own_limits = [None; 2];
        wakers.clear();
        variable_bytes.set(0);
    }
}

impl Stream {
    /// Whether it waits for calls, also when the guest asks it to continue. Its answer, and its end, wait for none.
    pub fn is_held_by_calls(&self) -> bool {
        self.awaited_calls != 0 && !self.close && !self.respond_now
    }

    /// Bytes of its bodies that the host keeps between events.
    pub fn held_size(&self) -> usize {
        self.request_body.held_size()
            + self.request_passed.len()
            + self.response_body.held_size()
            + self.injected.len()
    }

    /// What is passed on of the response's body with what the guest injected before it. `chunk` is that of the event.
    pub fn with_injected(&mut self, output: Output, chunk: &[u8]) -> Output {
        if self.injected.is_empty() {
            return output;
        }
        let mut all = std::mem::take(&mut self.injected);
        match output {
            Output::Unchanged => all.extend_from_slice(chunk),
            Output::Replace(bytes) | Output::Pass(bytes) => all.extend_from_slice(&bytes),
            Output::Hold => {}
        }
        Output::Replace(all)
    }

    /// Ends the hold on the end of a response's body, and says what is passed on of it. What the guest injected as the end takes the
    /// place of what is held.
    pub fn let_response_body_go(&mut self) -> Output {
        if !std::mem::take(&mut self.response_end_held) {
            return Output::Unchanged;
        }
        let output = self.response_body.end(Action::Continue, true);
        let output = if self.inject_ends { Output::Hold } else { output };
        match self.with_injected(output, &[]) {
            Output::Hold => Output::Replace(Vec::new()),
            output => output,
        }
    }

    /// Ends a request body event. The host takes a body whole, so what is passed on before the last chunk is kept,
    /// and only the last chunk's event tells whether anything changed.
    pub fn end_request_body(&mut self, hold: bool, event: Event<'_>) -> Output {
        let edited = self.request_body.edited();
        self.held_end = (hold && event.end_of_stream).then_some(event.piecewise);
        if hold {
            return self.request_body.hold();
        }
        let output = self.request_body.end(Action::Continue, event.end_of_stream);
        if event.piecewise {
            return match output {
                Output::Replace(bytes) if !edited => Output::Pass(bytes),
                other => other,
            };
        }
        self.request_changed |= edited;
        let passed = match output {
            Output::Unchanged | Output::Hold => None,
            Output::Replace(bytes) | Output::Pass(bytes) => Some(bytes),
        };
        if event.end_of_stream {
            return self.whole_request_body(passed, event.body);
        }
        if !self.request_unkept {
            self.request_passed.extend_from_slice(passed.as_deref().unwrap_or(event.body));
        }
        Output::Unchanged
    }

    /// Makes room before what the guest was shown of a request's body is kept with what has passed of it. Past `room` the body
    /// is passed on as it came, and can be changed no more. False when it was changed before.
    pub fn make_room_for_passed(&mut self, room: usize) -> bool {
        let size = self.request_passed.len() + self.request_body.content().len();
        if self.request_unkept || size <= room {
            return true;
        }
        if self.request_changed || self.request_body.edited() {
            return false;
        }
        self.request_unkept = true;
        self.request_passed = Vec::new();
        self.request_body.fix();
        true
    }

    /// Ends the hold on the end of a request's body. With `goes_on` says what is passed on of it; else that is dropped.
    pub fn let_request_body_go(&mut self, goes_on: bool) -> Output {
        let Some(piecewise) = self.held_end.take() else { return Output::Unchanged };
        if !goes_on {
            self.forget_request_body();
            return Output::Unchanged;
        }
        let event = Event {
            callback: Callback::RequestBody,
            end_of_stream: true,
            piecewise,
            calls_hold: self.calls_hold,
            waits: false,
            body: &[],
        };
        self.end_request_body(false, event)
    }

    /// The guest is told no more of the request's body. What the host has of it is passed on as it is, when it is.
    pub fn give_up_request_body(&mut self, goes_on: bool) {
        self.request_body.give_up(goes_on);
        self.forget_request_body();
    }

    fn forget_request_body(&mut self) {
        self.request_body.forget();
        self.request_passed = Vec::new();
        self.request_changed = false;
        self.held_end = None;
    }

    fn whole_request_body(&mut self, passed: Option<Vec<u8>>, chunk: &[u8]) -> Output {
        let mut whole = std::mem::take(&mut self.request_passed);
        if !std::mem::take(&mut self.request_changed) {
            return Output::Unchanged;
        }
        match passed {
            Some(bytes) if whole.is_empty() => whole = bytes,
            Some(bytes) => whole.extend_from_slice(&bytes),
            None => whole.extend_from_slice(chunk),
        }
        Output::Replace(whole)
    }
}
