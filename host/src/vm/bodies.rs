//! Events of bodies: what a guest is shown of them, what is passed on, and what comes after their ends.

use super::run::{action, gone};
use super::{Outcome, Vm};
use crate::abi::{Attribute, Callback};
use crate::error::Error;
use crate::event::{Action, Event};
use crate::guest::{ContextId, Course, Output, State};
use crate::hostcall::trailers;
use crate::limits;

pub(super) const LENGTH_CHANGED: &str = "the size of a response body changed after its Content-Length was sent; \
     remove the header content-length in proxy_on_response_headers";

const PAUSED_AT_END: &str =
    "pauses the end of a response body and waits for nothing: the body is sent";

impl Vm {
    pub(super) fn request_body(
        &mut self,
        stream: ContextId,
        event: Event<'_>,
    ) -> Result<Outcome, Error> {
        if self.exports.request_body.is_none() {
            return Ok(Outcome::of(Output::Unchanged));
        }
        let state = self.state_mut();
        let contexts = &mut state.contexts;
        let room = contexts.streams.get(&stream).map_or(0, |s| contexts.hold_room(s));
        let Some(s) = contexts.streams.get_mut(&stream) else {
            return Err(gone());
        };
        let limit = s.own_limits[0].unwrap_or(state.plugin.body_limit);
        match s.request_body.course() {
            Course::Shown => {}
            Course::PassedOn => return Ok(Outcome::of(Output::Unchanged)),
            Course::Dropped => return Err(too_large(Callback::RequestBody, limit, room)),
        }
        s.request_body.leave_room(limit.min(room), s.request_passed.len());
        // SAFETY: `Vm::run` returns the chunk before it returns, and `Vm::kill` when it panics.
        unsafe { s.request_body.begin(event.body) };
        let action = self.body(Callback::RequestBody, stream, event)?;
        let asked = self.state().call.asked.get();
        self.warn_of_encoding(stream, Callback::RequestBody);
        let awaits_call = self.awaits_call(stream);
        let Some(s) = self.state_mut().contexts.streams.get_mut(&stream) else {
            return Err(gone());
        };
        s.saw_request_body |= asked;
        let more = !event.end_of_stream;
        // Its headers are held, and this callback does not let them go: every SDK has one that does nothing and says
        // Continue, which must not end a wait for something else.
        let keeps = s.paused && (more || !s.saw_request_body || awaits_call);
        let settled = match action {
            // "Give me more": the caller continues reading.
            _ if more => Action::Continue,
            Action::Continue if keeps => Action::Pause,
            other => other,
        };
        let settled = self.hold(stream, settled, keeps)?;
        let holds = match settled {
            Action::Continue | Action::Pause if more => action == Action::Pause,
            other => other == Action::Pause,
        };
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else {
            return Err(gone());
        };
        let keeps_passed = more && !holds && !event.piecewise;
        let failure = if holds && s.request_body.over_limit() {
            Some(too_large(Callback::RequestBody, limit, room))
        } else if keeps_passed && !s.make_room_for_passed(room.min(limits::BODY)) {
            Some(Error::ChangedTooLarge { limit: limits::BODY })
        } else {
            None
        };
        if let Some(error) = failure {
            s.paused = false;
            s.give_up_request_body(state.plugin.fail_open);
            state.contexts.count_held(stream);
            return Err(error);
        }
        let output = s.end_request_body(holds, event);
        state.contexts.count_held(stream);
        Ok(Outcome { action: settled, awaits_call, ..Outcome::of(output) })
    }

    /// What is passed on of the end of a request's body that a pause held. To be asked when [`Vm::resumed`] has answered.
    pub(super) fn let_request_body_go(&mut self, stream: ContextId, action: Action) -> Output {
        self.warn_of_encoding(stream, Callback::RequestBody);
        let contexts = &mut self.state_mut().contexts;
        let Some(s) = contexts.streams.get_mut(&stream) else { return Output::Unchanged };
        let output = s.let_request_body_go(action == Action::Continue);
        contexts.count_held(stream);
        output
    }

    /// Whether a call of the stream's own is under way, so that the stream may wait for that.
    pub fn awaits_call(&self, stream: ContextId) -> bool {
        self.state().calls.awaited_by(stream)
    }

    /// What a stream that pauses may wait for: a call of its own, or what its plugin context is called for outside of
    /// requests.
    pub(super) fn awaited(&self, stream: ContextId) -> Option<&'static str> {
        let state = self.state();
        let root = state.contexts.root_of(stream)?;
        if state.calls.may_answer(stream, root.id) {
            Some("a call")
        } else {
            root.is_active().then_some("a tick or a message")
        }
    }

    pub(super) fn response_body(
        &mut self,
        stream: ContextId,
        event: Event<'_>,
    ) -> Result<Outcome, Error> {
        let outcome = self.response_chunk(stream, event)?;
        if !event.end_of_stream || outcome.action != Action::Continue {
            return Ok(outcome);
        }
        self.response_trailers(stream)?;
        if self.state().contexts.streams.get(&stream).is_some_and(|s| s.cut.is_some()) {
            return Err(self.cut(stream));
        }
        let action = self.settle(stream, Action::Continue);
        Ok(Outcome { action, ..outcome })
    }

    /// The end of a response: tells of its trailers, when there are any. What the guest answers holds nothing.
    fn response_trailers(&mut self, stream: ContextId) -> Result<(), Error> {
        let told = self.exports.response_trailers.is_some();
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else { return Err(gone()) };
        s.response_ended = true;
        if !told || s.direct_body_sent {
            return Ok(());
        }
        state.call.callback = Callback::ResponseTrailers;
        state.call.effective = stream;
        let count = trailers::response_trailers(state).map_or(0, |trailers| trailers.len() as u32);
        if count == 0 {
            return Ok(());
        }
        self.call(Callback::ResponseTrailers, stream, |store, exports| {
            let function = exports.response_trailers.as_ref();
            function.map_or(Ok(0), |f| f.call(store, (stream, count)))
        })
        .map(|_| ())
    }

    fn response_chunk(&mut self, stream: ContextId, event: Event<'_>) -> Result<Outcome, Error> {
        let exported = self.exports.response_body.is_some();
        let state = self.state_mut();
        let contexts = &mut state.contexts;
        let room = contexts.streams.get(&stream).map_or(0, |s| contexts.hold_room(s));
        let Some(s) = contexts.streams.get_mut(&stream) else {
            return Err(gone());
        };
        let limit = s.own_limits[1].unwrap_or(state.plugin.body_limit);
        if let Some(body) = s.direct_body.take() {
            s.direct_body_sent = true;
            let sends = !self.is_bodiless(stream);
            return Ok(Outcome::of(if sends { Output::Replace(body) } else { Output::Hold }));
        }
        if s.direct_body_sent || s.ended_early {
            return Ok(Outcome::of(Output::Hold));
        }
        if s.cut.is_some() {
            return Err(self.cut(stream));
        }
        if !exported {
            s.saw_response_body = true;
            return Ok(Outcome::of(Output::Unchanged));
        }
        if self.comes_without_body(stream, event) {
            // What is there may be of another filter that answered in place of an empty response.
            let drops = !event.body.is_empty() && self.is_bodiless(stream);
            return Ok(Outcome::of(if drops { Output::Hold } else { Output::Unchanged }));
        }
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else {
            return Err(gone());
        };
        s.saw_response_body = true;
        s.last_piece = event.end_of_stream;
        match s.response_body.course() {
            Course::Shown => {}
            Course::PassedOn => return Ok(Outcome::of(Output::Unchanged)),
            Course::Dropped => {
                return Err(cut_off(state, too_large(Callback::ResponseBody, limit, room)));
            }
        }
        let (taken, given) = s.response_bytes;
        let grown = usize::try_from(given.saturating_sub(taken)).unwrap_or(usize::MAX);
        s.response_body.leave_room(limit.min(room), grown);
        // SAFETY: `Vm::run` returns the chunk before it returns, and `Vm::kill` when it panics.
        unsafe { s.response_body.begin(event.body) };
        let action = self.body(Callback::ResponseBody, stream, event)?;
        let pauses = action == Action::Pause;
        let at_end = pauses && event.end_of_stream;
        let awaited = if at_end { self.awaited(stream) } else { None };
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else { return Err(gone()) };
        if s.cut.is_some() {
            return Err(self.cut(stream));
        }
        self.warn_of_encoding(stream, Callback::ResponseBody);
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else { return Err(gone()) };
        let waits_at_end = at_end && event.waits && awaited.is_some();
        let holds = pauses && !event.end_of_stream || waits_at_end;
        let failure = if holds && s.response_body.over_limit() {
            Some(too_large(Callback::ResponseBody, limit, room))
        } else {
            awaited.filter(|_| !waits_at_end).map(Error::WaitsAtEnd)
        };
        if let Some(failure) = failure {
            s.response_body.give_up(state.plugin.fail_open);
            state.contexts.count_held(stream);
            let is_cut = event.end_of_stream && !event.waits && !state.plugin.fail_open;
            return Err(if is_cut { cut_off(state, failure) } else { failure });
        }
        if waits_at_end {
            return self.hold_response_end(stream, event);
        }
        if at_end {
            state.note_once(PAUSED_AT_END);
        }
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else { return Err(gone()) };
        let output = s.response_body.end(action, event.end_of_stream);
        let still_holds = output == Output::Hold;
        let output = s.with_injected(output, event.body);
        let ends = s.inject_ends && !event.end_of_stream;
        if ends {
            s.ended_early = true;
            s.response_body.give_up(false);
        }
        let begins = s.response_bytes.0 == 0 && event.body.is_empty();
        let output = if begins && matches!(&output, Output::Replace(bytes) if !bytes.is_empty()) {
            self.within_length_0(stream, output)
        } else {
            output
        };
        let output = self.within_length(stream, event, output);
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else { return Err(gone()) };
        s.response_bytes.0 += event.body.len() as u64;
        s.response_bytes.1 += match &output {
            Output::Unchanged => event.body.len() as u64,
            Output::Replace(bytes) | Output::Pass(bytes) => bytes.len() as u64,
            Output::Hold => 0,
        };
        let (taken, given) = s.response_bytes;
        let request = s.request;
        state.contexts.count_held(stream);
        if event.end_of_stream && taken != given {
            let mut length = Vec::new();
            if state.host.attribute(request, Attribute::ResponseContentLength, &mut length)
                && !length.is_empty()
            {
                state.warn_once(LENGTH_CHANGED);
            }
        }
        let action = self.settle(stream, Action::Continue);
        Ok(Outcome { action, ends, still_holds, ..Outcome::of(output) })
    }

    /// Holds the end of a response of which nothing was sent, until the guest lets it continue, ends it or answers.
    fn hold_response_end(&mut self, stream: ContextId, event: Event<'_>) -> Result<Outcome, Error> {
        let action = self.hold(stream, Action::Pause, false)?;
        let contexts = &mut self.state_mut().contexts;
        let Some(s) = contexts.streams.get_mut(&stream) else { return Err(gone()) };
        s.response_end_held = action == Action::Pause;
        let output = if s.response_end_held {
            s.response_body.hold()
        } else {
            let output = s.response_body.end(Action::Continue, true);
            s.with_injected(output, event.body)
        };
        contexts.count_held(stream);
        let awaits_call = self.awaits_call(stream);
        Ok(Outcome { action, awaits_call, ..Outcome::of(output) })
    }

    /// What is passed on of the end of a response's body that a pause held; `None` when it holds none. To be asked when
    /// [`Vm::resumed`] has answered.
    pub(super) fn let_response_body_go(
        &mut self,
        stream: ContextId,
        action: Action,
    ) -> Option<Output> {
        let contexts = &mut self.state_mut().contexts;
        let s = contexts.streams.get_mut(&stream).filter(|s| s.response_end_held)?;
        let output = s.let_response_body_go();
        contexts.count_held(stream);
        Some(if action == Action::Continue { output } else { Output::Hold })
    }

    /// Drops what is left of a response that a local response came for when it was too late to send that.
    fn cut(&mut self, stream: ContextId) -> Error {
        let state = self.state_mut();
        let mut status = 0;
        if let Some(s) = state.contexts.streams.get_mut(&stream) {
            s.response_body.give_up(false);
            s.respond_now = false;
            status = s.cut.unwrap_or_default();
        }
        state.contexts.count_held(stream);
        cut_off(
            state,
            format_args!(
                "the filter answered with {status} when the headers of the response were sent"
            ),
        )
    }

    fn body(
        &mut self,
        callback: Callback,
        stream: ContextId,
        event: Event<'_>,
    ) -> Result<Action, Error> {
        let state = self.state();
        let size = state.contexts.streams.get(&stream).map_or(0, |s| match callback {
            Callback::RequestBody => s.request_body.content().len(),
            _ => s.response_body.content().len(),
        });
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let answer = self.call(callback, stream, |store, exports| {
            let function = match callback {
                Callback::RequestBody => &exports.request_body,
                _ => &exports.response_body,
            };
            match function {
                None => Ok(0),
                Some(f) => f.call(store, (stream, size, event.end_of_stream.into())),
            }
        })?;
        let vendor = self.state().plugin.vendor;
        let found = self.state_mut().contexts.streams.get_mut(&stream);
        if vendor
            && answer == STOP_ITERATION_NO_BUFFER
            && let Some(s) = found
        {
            let body = match callback {
                Callback::RequestBody => &mut s.request_body,
                _ => &mut s.response_body,
            };
            if !body.drop_content() {
                self.state_mut()
                    .warn_once("a chunk is not dropped: too much of the body has passed");
            }
        }
        // A guest that lets the stream continue in the same callback holds nothing of what it was shown.
        let resumed = self.state().contexts.streams.get(&stream).is_some_and(|s| s.resume);
        Ok(if resumed { Action::Continue } else { action(answer) })
    }
}

/// What filters of ABI 0.2.100 answer for a chunk that goes nowhere: they send their own pieces in its place.
const STOP_ITERATION_NO_BUFFER: u32 = 3;

/// Why a body is not held. `room` is what the VM could hold for this stream.
fn too_large(callback: Callback, limit: usize, room: usize) -> Error {
    let direction = if callback == Callback::RequestBody { "request" } else { "response" };
    if room < limit {
        Error::BodiesTooLarge { direction, limit: limits::HELD_BODIES }
    } else {
        Error::BodyTooLarge { direction, limit }
    }
}

/// Nothing more of the response goes out, for that reason.
fn cut_off(state: &State, reason: impl std::fmt::Display) -> Error {
    Error::Cut(format!("wasm plugin \"{}\": {reason}", state.plugin.name))
}
