//! A stream between its events: what it asked for, and its pause.

use std::num::NonZeroUsize;

use super::{Outcome, Vm};
use crate::effect::Effects;
use crate::error::Error;
use crate::event::Event;
use crate::guest::{ContextId, Output};

impl Vm {
    /// Moves the effects of a stream to `taken`, whose own are dropped.
    pub fn take_effects(&mut self, stream: ContextId, taken: &mut Effects) {
        match self.state_mut().contexts.streams.get_mut(&stream) {
            Some(s) => s.effects.take_into(taken),
            None => taken.clear(),
        }
    }

    /// Sets the token by which [`Requests::wake`](crate::ports::Requests::wake) tells of the end of the stream's pause. It is
    /// made only for a stream that is paused; false for others, which need not wait. Several may wait for one stream.
    pub fn wait(
        &mut self,
        stream: ContextId,
        waker: impl FnOnce() -> Option<NonZeroUsize>,
    ) -> bool {
        let found = self.state_mut().contexts.streams.get_mut(&stream);
        found.filter(|s| s.paused).is_some_and(|s| {
            s.wakers.extend(waker());
            true
        })
    }

    /// Keeps the tokens of [`Vm::wait`] of which `keeps` is true; the others are of those who wait no longer.
    pub fn keep_wakers(&mut self, stream: ContextId, keeps: impl Fn(NonZeroUsize) -> bool) {
        if let Some(s) = self.state_mut().contexts.streams.get_mut(&stream) {
            s.wakers.retain(|waker| keeps(*waker));
        }
    }

    /// Takes the outcome of a pause: when it has ended, or when the caller waits no longer, which ends it unless others wait
    /// (see [`Vm::keep_wakers`]). Then the action is [`Action::Pause`](crate::event::Action::Pause).
    pub fn resume(&mut self, stream: ContextId) -> Result<Outcome, Error> {
        let action = self.resumed(stream)?;
        let awaits_call = self.awaits_call(stream);
        let body = match self.let_response_body_go(stream, action) {
            Some(body) => body,
            None => self.let_request_body_go(stream, action),
        };
        Ok(Outcome { action, awaits_call, ..Outcome::of(body) })
    }

    /// What is passed on of a response's body whose event failed.
    pub fn rescue_body(&mut self, stream: ContextId, event: Event<'_>) -> Output {
        self.rescue_response_body(stream, event)
    }
}
