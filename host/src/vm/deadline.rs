//! Time limits: how long a guest may run before it is stopped.
//!
//! A guest compares the engine's epoch with its own deadline wherever it loops or enters a function, and host functions
//! compare a [`Deadline`] when they are called. Deadlines are counted in ticks from the start of a call; whoever runs
//! guests calls [`tick`] every [`TICK_MS`] meanwhile.

use wasmtime::Store;

use super::engine::engine;
use crate::abi::Callback;
use crate::guest::{Deadline, State, deadline};
use crate::limits;

/// Milliseconds between two ticks.
pub const TICK_MS: u32 = 10;

/// Lets one tick pass for all guests of the process. Any thread may call it.
pub fn tick() {
    deadline::tick();
    if let Ok(engine) = engine() {
        engine.increment_epoch();
    }
}

/// How long a guest may run, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// One callback.
    pub callback: u32,
    /// All of the start code, and each of `proxy_on_vm_start` and `proxy_on_configure`.
    pub start: u32,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { callback: limits::DEFAULT_TIME_MS, start: limits::DEFAULT_START_TIME_MS }
    }
}

impl TimeLimits {
    /// The limit of a callback, in milliseconds.
    pub fn of(self, callback: Callback) -> u32 {
        match callback {
            Callback::Start | Callback::VmStart | Callback::Configure => self.start,
            _ => self.callback,
        }
    }
}

/// From now on the guest may run for that many milliseconds: the guest itself and the host functions that it calls.
pub(super) fn set(store: &mut Store<State>, milliseconds: u32) {
    let ticks = ticks(milliseconds);
    store.set_epoch_deadline(ticks);
    store.data_mut().deadline = Deadline::after(ticks);
}

/// The ticks after which that many milliseconds have passed for certain: the first one may come at once.
fn ticks(milliseconds: u32) -> u64 {
    u64::from(milliseconds.div_ceil(TICK_MS)) + 1
}
