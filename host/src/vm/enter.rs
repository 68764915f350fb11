//! Entering a guest: what comes before and after each callback, and the end of the VM when it fails.

use wasmtime::{Store, Trap};

use super::Vm;
use super::callback::{begin_callback, cause, end_callback};
use super::exports::Exports;
use super::sequences::Sequences;
use crate::abi::{Callback, LogLevel};
use crate::error::Error;
use crate::guest::{ContextId, State};
use crate::store::Count;

impl Vm {
    /// Calls into the guest. After a trap, an exit or a host fault the VM is dead.
    pub(super) fn call<R>(
        &mut self,
        callback: Callback,
        context: ContextId,
        f: impl FnOnce(&mut Store<State>, &Exports) -> wasmtime::Result<R>,
    ) -> Result<R, Error> {
        self.call_sequence(callback, context, |store, exports, _| f(store, exports))
    }

    /// The same for a function that may call several callbacks, of which the first is given. `state().call.callback` is
    /// the last one.
    pub(super) fn call_sequence<R>(
        &mut self,
        first: Callback,
        context: ContextId,
        f: impl FnOnce(&mut Store<State>, &Exports, &Sequences) -> wasmtime::Result<R>,
    ) -> Result<R, Error> {
        if let Some(error) = &self.dead {
            return Err(error.lost());
        }
        begin_callback(&mut self.store, first, context);
        let result = f(&mut self.store, &self.exports, &self.sequences);
        let state = self.store.data_mut();
        end_callback(state);
        match result {
            Ok(value) => {
                if !state.call.resumed.is_empty() {
                    self.wake_resumed(context);
                }
                Ok(value)
            }
            Err(error) => Err(self.die(&error)),
        }
    }

    /// Ends the VM: its waiting streams wake up to learn of it.
    #[cold]
    fn die(&mut self, error: &wasmtime::Error) -> Error {
        let callback = self.state().call.callback;
        let own = &self.state().own;
        own.count(Count::Traps);
        if let Some(Trap::Interrupt) = error.downcast_ref() {
            own.count(Count::TimeLimits);
        }
        let limit = self.state().plugin.time_limits.of(callback);
        let error = Error::Trap { callback, cause: cause(error, limit) };
        self.kill(error.clone());
        error
    }

    /// Marks the VM dead for a cause from outside, such as a panic of the host.
    pub fn kill(&mut self, error: Error) {
        let state = self.store.data_mut();
        // The last words are heard, however much was said before.
        state.call.logged.set(0);
        for (level, line) in [
            (LogLevel::Info, std::mem::take(&mut state.stdio.stdout)),
            (LogLevel::Error, std::mem::take(&mut state.stdio.stderr)),
        ] {
            // A panic message without a newline is the most useful line of all.
            if !line.is_empty() {
                state.log(level, &line);
            }
        }
        for stream in state.contexts.streams.values_mut() {
            stream.request_body.release();
            stream.response_body.release();
            for waker in stream.wakers.drain(..) {
                state.host.wake(waker);
            }
        }
        self.dead = Some(error);
    }

    /// Wakes the streams whose pause the guest ended in this call, except the one that was called on: its
    /// caller learns of it by the outcome.
    fn wake_resumed(&mut self, called: ContextId) {
        let state = self.store.data_mut();
        let mut resumed = std::mem::take(&mut state.call.resumed);
        for id in resumed.drain(..).filter(|id| *id != called) {
            let Some(stream) = state.contexts.streams.get_mut(&id) else { continue };
            if !stream.is_held_by_calls() && std::mem::take(&mut stream.paused) {
                for waker in stream.wakers.drain(..) {
                    state.host.wake(waker);
                }
            }
            stream.resume = false;
        }
        state.call.resumed = resumed;
    }
}
