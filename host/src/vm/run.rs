//! Calling a guest for an event of a stream.

use super::Vm;
use super::exports::{Exports, OnHeaders};
use crate::abi::Callback;
use crate::error::Error;
use crate::event::{Action, Event};
use crate::guest::{ContextId, Output, State, Stream};
use crate::ports::RequestSummary;
use crate::snapshot::HeaderMap;
use crate::store::Count;

/// What the host must do after an event. The header effects are in the stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Continue, wait, respond or close.
    pub action: Action,
    /// What becomes of the body chunk.
    pub body: Output,
    /// With a pause: the guest waits for a call of its own.
    pub awaits_call: bool,
    /// With a pause on the request's headers: a body was announced, or may come.
    pub expects_body: bool,
    /// Of the response's headers: the guest says, by what it did, that the body may come to have another size.
    pub rewrites_body: bool,
    /// The response's body ends with this.
    pub ends: bool,
    /// Some of the response's body is held, whatever is passed on.
    pub still_holds: bool,
}

/// Why the first event of a stream failed.
#[derive(Debug)]
pub enum BeginError {
    /// The stream could not be created: there is none.
    NotCreated(Error),
    /// The stream is there.
    Failed(Error),
}

impl Outcome {
    /// Continuing, with this for a body.
    pub fn of(body: Output) -> Self {
        let body_is_held = body == Output::Hold;
        Self {
            action: Action::Continue,
            body,
            awaits_call: false,
            expects_body: false,
            rewrites_body: false,
            ends: false,
            still_holds: body_is_held,
        }
    }
}

impl Vm {
    /// Tells the guest of an event; a guest without that callback continues.
    #[inline(always)]
    pub fn run(&mut self, stream: ContextId, event: Event<'_>) -> Result<Outcome, Error> {
        let result = self.tell(stream, event, None);
        if !event.body.is_empty()
            && let Some(s) = self.state_mut().contexts.streams.get_mut(&stream)
        {
            s.request_body.return_chunk();
            s.response_body.return_chunk();
        }
        result
    }

    /// The same for the first event of a stream, which is created before, see [`Vm::add_stream`].
    #[inline(always)]
    pub fn run_first(
        &mut self,
        stream: ContextId,
        event: Event<'_>,
    ) -> Result<Outcome, BeginError> {
        if self.exports.context_create.is_none() {
            return self.run(stream, event).map_err(BeginError::Failed);
        }
        self.create_and_run(stream, event)
    }

    #[inline(never)]
    fn create_and_run(
        &mut self,
        stream: ContextId,
        event: Event<'_>,
    ) -> Result<Outcome, BeginError> {
        let Some(root) = self.state().contexts.streams.get(&stream).map(|s| s.root) else {
            return Err(BeginError::NotCreated(gone()));
        };
        if self.sequences.begin(event.callback).is_none() {
            self.create_added(stream, root).map_err(BeginError::NotCreated)?;
            self.delete_finished().map_err(BeginError::NotCreated)?;
            return self.run(stream, event).map_err(BeginError::Failed);
        }
        let result = self.tell(stream, event, Some(root));
        let stopped = self.state().call.callback == Callback::ContextCreate;
        match result {
            Ok(_) if stopped => {
                self.show_response(stream);
                self.delete_finished().map_err(BeginError::NotCreated)?;
                self.run(stream, event).map_err(BeginError::Failed)
            }
            Err(error) if stopped => {
                self.remove_stream(stream);
                Err(BeginError::NotCreated(error))
            }
            other => other.map_err(BeginError::Failed),
        }
    }

    fn tell(
        &mut self,
        stream: ContextId,
        event: Event<'_>,
        created_by: Option<ContextId>,
    ) -> Result<Outcome, Error> {
        let unchanged = |action| Outcome { action, ..Outcome::of(Output::Unchanged) };
        match event.callback {
            // It may have answered while it was created.
            Callback::RequestHeaders | Callback::RequestBody if self.begins(stream, event) => {
                Ok(unchanged(self.settle(stream, Action::Continue)))
            }
            Callback::RequestHeaders => {
                let Some(action) = self.request_headers(stream, created_by)? else {
                    return Ok(unchanged(Action::Continue));
                };
                let action = self.hold(stream, action, false)?;
                if action != Action::Pause {
                    return Ok(unchanged(action));
                }
                let awaits_call = self.awaits_call(stream) || self.stops_all;
                let expects_body = self.expects_body(stream);
                Ok(Outcome { awaits_call, expects_body, ..unchanged(action) })
            }
            Callback::RequestBody => self.request_body(stream, event),
            Callback::ResponseHeaders => self.response_headers(stream, event, created_by),
            Callback::ResponseBody => {
                if let Some(s) = self.state_mut().contexts.streams.get_mut(&stream) {
                    s.response_waits = event.waits;
                }
                self.response_body(stream, event)
            }
            other => Err(Error::Export(format!("{other} is no event of a request"))),
        }
    }

    /// Takes the outcome of a pause. One that has not ended by itself ends here, since its caller gives up, unless
    /// others wait for it.
    pub(super) fn resumed(&mut self, stream: ContextId) -> Result<Action, Error> {
        if let Some(error) = &self.dead {
            return Err(error.lost());
        }
        let action = self.settle(stream, Action::Continue);
        // Its effects are about to be done, so the next callback must look again.
        if let Some(s) = self.state_mut().contexts.streams.get_mut(&stream) {
            s.request_headers_loaded = false;
        }
        let found = self.state_mut().contexts.streams.get_mut(&stream);
        let paused = found.is_some_and(|s| {
            let others = s.paused && !s.wakers.is_empty();
            std::mem::replace(&mut s.paused, others)
        });
        if paused && action == Action::Continue {
            self.state().own.count(Count::PauseLimits);
            return Ok(Action::Pause);
        }
        Ok(action)
    }

    /// Whether the guest's headers callback needs to be told how many headers there are, or may read them.
    pub fn wants_response_headers(&self, stream: ContextId, callback: Callback) -> bool {
        let profile = &self.module.code.profile;
        let known =
            self.state().contexts.streams.get(&stream).is_none_or(|s| s.response_headers_loaded);
        match callback {
            Callback::ResponseHeaders => self.module.looks_at_response(),
            Callback::ResponseBody => {
                self.exports.response_body.is_some() && profile.reads_response && !known
            }
            _ => false,
        }
    }

    fn request_headers(
        &mut self,
        stream: ContextId,
        created_by: Option<ContextId>,
    ) -> Result<Option<Action>, Error> {
        let mut summary = RequestSummary::default();
        if self.exports.request_headers.is_some() && self.module.code.profile.request_arguments {
            let state = self.state();
            if let Some(s) = state.contexts.streams.get(&stream) {
                summary = state.host.request_summary(s.request);
            }
        }
        // :method, :scheme and :path are always there.
        let count = summary.headers + 3 + u32::from(summary.authority);
        let end_of_stream = !summary.body;
        let told = (stream, count, end_of_stream);
        self.headers(Callback::RequestHeaders, told, created_by, |e| &e.request_headers)
    }

    fn expects_body(&self, stream: ContextId) -> bool {
        let state = self.state();
        let request = state.contexts.streams.get(&stream).map(|s| s.request);
        request.is_some_and(|request| state.host.request_summary(request).body)
    }

    fn response_headers(
        &mut self,
        stream: ContextId,
        event: Event<'_>,
        created_by: Option<ContextId>,
    ) -> Result<Outcome, Error> {
        let unchanged = Outcome::of(Output::Unchanged);
        if let Some(s) = self.state_mut().contexts.streams.get_mut(&stream) {
            s.response_waits = event.waits;
            if s.respond_now {
                return Ok(Outcome { action: settle(s, Action::Continue), ..unchanged });
            }
            s.response_headers.mark_given();
            s.saw_response_headers = true;
        }
        let profile = &self.module.code.profile;
        let looks = self.exports.response_headers.is_some() && profile.response_arguments;
        let takes_body = self.exports.response_body.is_some();
        let writes = takes_body && (profile.writes_response_body || self.module.rewrites_bodies());
        let (count, end_of_stream) =
            if looks || writes { self.response_summary(stream) } else { (0, false) };
        let is_empty = end_of_stream && self.has_length_0(stream);
        let told = (stream, count, end_of_stream);
        let action =
            self.headers(Callback::ResponseHeaders, told, created_by, |e| &e.response_headers)?;
        let Some(action) = action else { return Ok(unchanged) };
        if action == Action::Pause && !event.waits {
            self.state_mut().warn_once(
                "Pause on response headers is not possible: the response continues (hold the body instead)",
            );
        }
        let encoded = writes && self.is_encoded(stream);
        // Nothing of it was sent, and the body is not told of before the guest lets the headers go.
        let stops = event.waits && self.stops_all && action == Action::Pause;
        let stops = stops && self.awaited(stream).is_some();
        let Some(s) = self.store.data_mut().contexts.streams.get_mut(&stream) else {
            return Ok(unchanged);
        };
        let replaces = !s.responded && (s.direct_body.is_some() || !s.injected.is_empty());
        // Who describes another response than the one that came, and can write to its body, is about to make one. A guest
        // without a callback for headers cannot say what it is about to do.
        let may_rewrite = || {
            self.module.code.profile.writes_response_body
                && (self.exports.response_headers.is_none() || !s.effects.is_empty())
        };
        let rewrites_body = replaces
            || takes_body
                && !is_empty
                && (action == Action::Pause || self.module.rewrites_bodies() || may_rewrite());
        if looks || writes {
            s.response_has_body = Some(!end_of_stream);
            s.response_encoded = encoded;
        }
        if !stops {
            let action = settle(s, Action::Continue);
            return Ok(Outcome { action, rewrites_body, ..unchanged });
        }
        let action = self.hold(stream, Action::Pause, false)?;
        let awaits_call = action == Action::Pause && self.awaits_call(stream);
        Ok(Outcome { action, rewrites_body, awaits_call, ..unchanged })
    }

    /// How many headers the response has, and whether it is known to have no body.
    fn response_summary(&self, stream: ContextId) -> (u32, bool) {
        let headers = self.state().contexts.streams.get(&stream).map(|s| s.response_headers.len());
        // A filter that was loaded to rewrite bodies may write one where there was an empty one.
        let empty = !self.module.rewrites_bodies() && self.has_length_0(stream);
        let ends = self.is_bodiless(stream) || empty;
        (headers.unwrap_or_default() as u32, ends)
    }

    /// Makes room for a snapshot of the response's headers, `:status` in front.
    pub fn response_headers_mut(&mut self, stream: ContextId) -> Option<&mut HeaderMap> {
        let State { host, contexts, .. } = self.state_mut();
        let s = contexts.streams.get_mut(&stream)?;
        s.response_headers_loaded = true;
        s.response_headers.clear();
        push_status(&mut s.response_headers, host.response_status(s.request));
        Some(&mut s.response_headers)
    }

    /// Calls a headers callback with a stream, its number of headers, and whether it ends with them. When the stream is to be
    /// created first, and that was all that was done, the answer is `None`.
    fn headers(
        &mut self,
        callback: Callback,
        (stream, count, end_of_stream): (ContextId, u32, bool),
        created_by: Option<ContextId>,
        of: fn(&Exports) -> &Option<OnHeaders>,
    ) -> Result<Option<Action>, Error> {
        let end_of_stream = u32::from(end_of_stream);
        let Some(root) = created_by else {
            let answer = self.call(callback, stream, |store, exports| match of(exports) {
                None => Ok(0),
                Some(OnHeaders::Two(f)) => f.call(store, (stream, count)),
                Some(OnHeaders::Three(f)) => f.call(store, (stream, count, end_of_stream)),
            })?;
            return Ok(Some(self.headers_action(answer)));
        };
        self.hide_response(stream);
        let answer =
            self.call_sequence(Callback::ContextCreate, stream, |store, _, sequences| {
                match sequences.begin(callback) {
                    Some(f) => f.call(store, (stream, root, count, end_of_stream)),
                    None => Ok(0),
                }
            })?;
        let is_told = self.state().call.callback == callback;
        Ok(is_told.then(|| self.headers_action(answer)))
    }

    /// What the answer of a headers callback means.
    fn headers_action(&mut self, answer: u32) -> Action {
        let vendor = self.state().plugin.vendor;
        self.stops_all = vendor && answer >= STOP_ALL_ITERATION_AND_BUFFER;
        let goes_on = vendor && answer == CONTINUE_AND_END_STREAM;
        if goes_on { Action::Continue } else { action(answer) }
    }

    /// A stream is about to be created, and its guest sees no headers of the response until that is done.
    pub(super) fn hide_response(&mut self, stream: ContextId) {
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else { return };
        state.call.shows_response = std::mem::take(&mut s.response_headers_loaded);
    }

    /// The end of [`Vm::hide_response`].
    pub(super) fn show_response(&mut self, stream: ContextId) {
        let state = self.state_mut();
        if let Some(s) = state.contexts.streams.get_mut(&stream) {
            s.response_headers_loaded = state.call.shows_response;
        }
    }

    /// Settles a request callback's action, and holds the stream when that is the result, or when it was held before
    /// and `keeps` says that only the guest's word can end that.
    pub(super) fn hold(
        &mut self,
        stream: ContextId,
        action: Action,
        keeps: bool,
    ) -> Result<Action, Error> {
        let resumed = self.state().contexts.streams.get(&stream).is_some_and(|s| s.resume);
        let action = self.settle(stream, action);
        let state = self.state_mut();
        let Some(s) = state.contexts.streams.get_mut(&stream) else {
            return Err(gone());
        };
        let waits = action == Action::Continue && s.awaited_calls != 0;
        let action = if waits { Action::Pause } else { action };
        s.paused = match action {
            Action::Pause => true,
            Action::Continue => keeps && !resumed,
            Action::Respond | Action::Close => false,
        };
        if !s.paused {
            // Another light thread of the request may wait.
            for waker in s.wakers.drain(..) {
                state.host.wake(waker);
            }
        }
        Ok(action)
    }

    /// What counts of all that a guest asked in one callback: closing before responding before waiting.
    pub(super) fn settle(&mut self, stream: ContextId, action: Action) -> Action {
        match self.state_mut().contexts.streams.get_mut(&stream) {
            Some(s) => settle(s, action),
            None => action,
        }
    }

    /// Begins an event of a request. True when the stream has its answer, and is told no more.
    fn begins(&mut self, stream: ContextId, event: Event<'_>) -> bool {
        self.state_mut().contexts.streams.get_mut(&stream).is_some_and(|s| {
            s.calls_hold = event.calls_hold;
            s.responded
        })
    }
}

/// What filters of ABI 0.2.100 answer for headers that continue; they add a body of their own, if any.
const CONTINUE_AND_END_STREAM: u32 = 2;
/// The first of their answers for headers that wait without the body.
const STOP_ALL_ITERATION_AND_BUFFER: u32 = 3;

fn push_status(headers: &mut HeaderMap, status: u16) {
    if !(100..1000).contains(&status) {
        return headers.push(b":status", status.to_string().as_bytes());
    }
    // Nearly each one is that, and to format it would take as long as to read a header.
    let digits = [status / 100, status / 10 % 10, status % 10];
    headers.push_lower(b":status", &digits.map(|digit| b'0' + digit as u8));
}

/// See [`Vm::settle`].
fn settle(s: &mut Stream, action: Action) -> Action {
    let resumed = std::mem::take(&mut s.resume);
    if s.close {
        Action::Close
    } else if std::mem::take(&mut s.respond_now) {
        Action::Respond
    } else if resumed {
        Action::Continue
    } else {
        action
    }
}

/// Every non-zero value holds: C++ guests answer 2 to 4 where Envoy buffers or watermarks.
pub(super) fn action(number: u32) -> Action {
    if number == 0 { Action::Continue } else { Action::Pause }
}

pub(super) fn gone() -> Error {
    Error::Lost("the stream has ended".into())
}
