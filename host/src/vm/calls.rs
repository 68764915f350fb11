//! What reaches a guest outside requests: what came of its calls, and ticks.

use super::Vm;
use crate::abi::{Callback, LogLevel};
use crate::callout::{Failure, Response};
use crate::error::Error;
use crate::guest::{CallOf, CallResult, ContextId, State, Token};
use crate::limits;
use crate::ports::RequestId;
use crate::store::Count;

impl Vm {
    /// Tells the guest what came of a call. One that nothing waits for any more is forgotten.
    pub fn http_call_response(
        &mut self,
        token: Token,
        result: Result<Response, Failure>,
    ) -> Result<(), Error> {
        let Some(of) = self.state_mut().end_call(token) else { return Ok(()) };
        if result.is_err() {
            self.state().own.count(Count::FailedCalls);
        }
        if self.exports.http_call_response.is_none() {
            self.answered(&of);
            return self.end_when_answered(of.root);
        }
        let (response, failure) = match result {
            Ok(response) => (Some(response), None),
            Err(failure) => (failure.response(), Some(failure)),
        };
        // A response that broke off is three zeros.
        let (headers, body, trailers) = response.as_ref().map_or((0, 0, 0), |response| {
            (
                response.headers.len() as u32,
                response.body.len() as u32,
                response.trailers.len() as u32,
            )
        });
        self.answers(&of, CallResult::Http(response, failure));
        let told = self.call(Callback::HttpCallResponse, of.root, |store, exports| {
            let function = exports.http_call_response.as_ref();
            function.map_or(Ok(()), |f| f.call(store, (of.root, token, headers, body, trailers)))
        });
        self.answered(&of);
        told?;
        self.end_when_answered(of.root)
    }

    pub(super) fn answers(&mut self, of: &CallOf, result: CallResult) {
        let calls = &mut self.state_mut().calls;
        calls.answer = Some(result);
        calls.answers = of.holds;
    }

    /// The callback of an answer has returned: the request that waited for the call may continue.
    pub(super) fn answered(&mut self, of: &CallOf) {
        let state = self.state_mut();
        state.calls.answer = None;
        state.calls.answers = None;
        if let Some(held) = of.holds {
            state.release(held);
        }
    }

    /// Hands over the result of a function of the embedder, as [`Vm::http_call_response`] does.
    pub fn foreign_result(&mut self, token: Token, result: Vec<u8>, ok: bool) -> Result<(), Error> {
        let Some(of) = self.state_mut().end_call(token) else { return Ok(()) };
        if self.exports.foreign_function.is_none() {
            self.answered(&of);
            return self.end_when_answered(of.root);
        }
        let size = u32::try_from(result.len()).unwrap_or(u32::MAX);
        self.answers(&of, CallResult::Foreign(result, ok));
        let told = self.call(Callback::ForeignFunction, of.root, |store, exports| {
            let function = exports.foreign_function.as_ref();
            function.map_or(Ok(()), |f| f.call(store, (of.root, token, size)))
        });
        self.answered(&of);
        told?;
        self.end_when_answered(of.root)
    }

    /// Runs the ticks that are due, one at least, and others as long as it is not later than `until`. One that comes late is
    /// not made up for. Returns when the next is due.
    pub fn run_ticks(&mut self, until: u64) -> Result<Option<u64>, Error> {
        let now = self.state().host.monotonic_clock();
        for id in self.due(now) {
            self.call(Callback::Tick, id, |store, exports| {
                exports.tick.as_ref().map_or(Ok(()), |f| f.call(store, id))
            })?;
            let now = self.state().host.monotonic_clock();
            if let Some(root) = self.state_mut().contexts.roots.get_mut(&id)
                && root.tick_due <= now
            {
                root.tick_due = now + u64::from(root.tick_period) * NANOS_PER_MS;
            }
            if now > until {
                break;
            }
        }
        let roots = self.state().contexts.roots.values();
        Ok(roots.filter(|root| root.tick_period != 0).map(|root| root.tick_due).min())
    }

    fn due(&self, now: u64) -> Vec<ContextId> {
        let roots = self.state().contexts.roots.values();
        let due = roots.filter(|root| root.tick_period != 0 && root.tick_due <= now);
        let mut due: Vec<_> = due.map(|root| (root.tick_due, root.id)).collect();
        // Who has waited for longest comes first: the time may not do for all.
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// The plugin contexts that are called outside of requests.
    pub(super) fn active(&self) -> Vec<ContextId> {
        let roots = self.state().contexts.roots.values();
        roots.filter(|root| root.is_active()).map(|root| root.id).collect()
    }

    /// Drops the calls of a context that ends.
    #[inline]
    pub(super) fn drop_calls(&mut self, of: ContextId) {
        if self.state().calls.any() {
            self.drop_some_calls(of);
        }
    }

    #[inline(never)]
    fn drop_some_calls(&mut self, of: ContextId) {
        let state = self.state_mut();
        let dropped = state.calls.drop_of(of);
        for id in dropped.held {
            if let Some(stream) = state.contexts.streams.get_mut(&id) {
                stream.awaited_calls -= 1;
            }
            state.release(id);
        }
        if dropped.any {
            state.host.work_waits();
        }
        if let Some(request) = state.contexts.streams.get(&of).map(|stream| stream.request) {
            log_dropped(state, request, dropped.names);
        }
    }
}

/// A stream ended before its calls were answered.
fn log_dropped(state: &State, request: RequestId, calls: Vec<String>) {
    if calls.is_empty() || state.host.log_level(Some(request)) > LogLevel::Info {
        return;
    }
    let name = &state.plugin.name;
    let log = |what: String| {
        let line = format!("wasm plugin \"{name}\": {what} dropped: its stream ended");
        state.host.log(Some(request), LogLevel::Info, line.as_bytes());
    };
    let more = calls.len().saturating_sub(limits::DROPPED_CALLS);
    calls.into_iter().take(limits::DROPPED_CALLS).for_each(&log);
    if more > 0 {
        log(format!("{more} more calls"));
    }
}

const NANOS_PER_MS: u64 = 1_000_000;
