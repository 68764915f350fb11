//! The two ends of a callback, and what a failed one is said to have died of.

use wasmtime::{AsContextMut, Trap};

use super::{deadline, stopwatch};
use crate::abi::{Callback, MapType};
use crate::error::{frames, one_line};
use crate::guest::{ContextId, State};
use crate::hostcall::show_headers;

/// A callback begins.
#[inline]
pub(super) fn begin_callback(
    mut store: impl AsContextMut<Data = State>,
    callback: Callback,
    context: ContextId,
) {
    let mut store = store.as_context_mut();
    let state = store.data_mut();
    let call = &mut state.call;
    call.callback = callback;
    call.context = context;
    call.effective = context;
    call.logged.set(0);
    call.asked.set(false);
    stopwatch::start(state);
    if state.shown.is_there() {
        show_expected_headers(state);
    }
    let limit = state.plugin.time_limits.of(callback);
    deadline::set(store, limit);
}

/// Shows the headers that the callback which begins is likely to look up, and no others.
#[inline(never)]
fn show_expected_headers(state: &mut State) {
    state.shown.hide();
    let map = match state.call.callback {
        Callback::RequestHeaders => MapType::RequestHeaders,
        Callback::ResponseHeaders => MapType::ResponseHeaders,
        _ => return,
    };
    if state.shown.expects(map) {
        show_headers(state, map);
    }
}

/// The callback that runs has ended.
#[inline]
pub(super) fn end_callback(state: &mut State) {
    stopwatch::stop(state);
    state.own.callback(state.call.callback);
    if state.contexts.loads_request_headers
        && let Some(stream) = state.contexts.streams.get_mut(&state.call.context)
    {
        stream.request_headers_loaded = false;
    }
}

/// A guest error as one line, with a word for what a guest did on purpose and for a passed limit.
pub(super) fn cause(error: &wasmtime::Error, limit_ms: u32) -> String {
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return format!("the filter ended itself with exit code {} (proc_exit)", exit.0);
    }
    if let Some(Trap::Interrupt) = error.downcast_ref() {
        return format!("time limit of {limit_ms} ms passed{}", frames(error));
    }
    one_line(error)
}
