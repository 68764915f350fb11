//! Time limits: how long a guest may run before it is stopped.
//!
//! A guest compares the engine's epoch with its own deadline wherever it loops or enters a function, and host functions
//! compare a [`Deadline`] when they are called. Deadlines are counted in ticks from the start of a call; the code that runs
//! guests calls [`tick`] every [`TICK_MS`] meanwhile.

use wasmtime::AsContextMut;

use super::load::engine;
pub use crate::guest::deadline::{TICK_MS, TimeLimits};
use crate::guest::{Deadline, State, deadline};

/// Lets one tick pass for all guests of the process. Any thread may call it.
pub fn tick() {
    deadline::tick();
    for engine in engine::made() {
        engine.increment_epoch();
    }
}

/// From now on the guest may run for that many milliseconds: the guest itself and the host functions that it calls.
pub(super) fn set(mut store: impl AsContextMut<Data = State>, milliseconds: u32) {
    let ticks = ticks(milliseconds);
    let mut store = store.as_context_mut();
    store.set_epoch_deadline(ticks);
    store.data_mut().deadline = Deadline::after(ticks);
}

/// The ticks after which that many milliseconds have passed for certain: the first one may come at once.
fn ticks(milliseconds: u32) -> u64 {
    u64::from(milliseconds.div_ceil(TICK_MS)) + 1
}
