//! Plugin contexts: configuring and freeing.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::boundary::guest_boundary;
use super::failure::Failure;
use super::objects::{rpw_context_t, rpw_plugin_t};
use super::ticker::Entry;
use super::types::{
    self, RPW_CONTINUE, RPW_ERROR, RPW_FAILS_OPEN, RPW_NEED_INTERPRETER, RPW_REWRITES_BODIES,
    RPW_TAKES_REQUEST_BODY, RPW_TAKES_RESPONSE_BODY, rpw_error_t,
};
use super::{handle, upstreams, worker};
use crate::abi::Callback;
use crate::vm::Context;

/// Makes a plugin context: proxy_on_context_create, proxy_on_vm_start, proxy_on_configure.
///
/// # Arguments
/// `interpreted`: 1 when LuaJIT cannot have compiled the call.
/// # Returns
/// `RPW_CONTINUE` and the handle in `*context`, to be freed by `rpw_context_free`; `RPW_NEED_INTERPRETER` before anything
/// ran; else `RPW_ERROR`.
/// # Safety
/// `plugin` is a live handle, `configuration` has the given length (it is copied), `context` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_context_new(
    plugin: *const rpw_plugin_t,
    configuration: *const c_char,
    configuration_length: usize,
    interpreted: i32,
    context: *mut *mut rpw_context_t,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Setup, interpreted != 0, error, |worker| {
        // SAFETY: as promised by the caller.
        let (plugin, configuration) =
            unsafe { (handle::share(plugin), types::bytes(configuration, configuration_length)) };
        let plugin = plugin.filter(|_| !context.is_null());
        let plugin = plugin.ok_or_else(|| Failure::new("rpw_context_new: NULL argument"))?;
        let current = plugin.current();
        if interpreted == 0 && upstreams::may_call_lua(current.module()) {
            return Ok(RPW_NEED_INTERPRETER);
        }
        let made = Context::new_in(&worker.endings.spare, &current, configuration)?;
        let made = rpw_context_t::new(&plugin, made);
        // SAFETY: checked above.
        unsafe { *context = handle::give(made) };
        Ok(RPW_CONTINUE)
    })
}

/// What the users of a plugin context must know of its filter.
///
/// # Returns
/// A sum of `RPW_TAKES_REQUEST_BODY`, `RPW_FAILS_OPEN`, `RPW_TAKES_RESPONSE_BODY` and `RPW_REWRITES_BODIES`;
/// `RPW_ERROR` for NULL.
/// # Safety
/// `context` is NULL or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_context_traits(context: *const rpw_context_t) -> i32 {
    // SAFETY: as promised by the caller.
    let Some(context) = (unsafe { handle::lend(context) }) else { return RPW_ERROR };
    let context = context.current();
    let module = context.plugin().module();
    let flag = |set: bool, flag: i32| if set { flag } else { 0 };
    flag(module.exports(Callback::RequestBody), RPW_TAKES_REQUEST_BODY)
        | flag(module.fail_open(), RPW_FAILS_OPEN)
        | flag(module.exports(Callback::ResponseBody), RPW_TAKES_RESPONSE_BODY)
        | flag(module.rewrites_bodies(), RPW_REWRITES_BODIES)
}

/// Gives a plugin context back. It ends at the next call into the library, once its last stream has ended.
///
/// # Safety
/// `context` is NULL or a handle of `rpw_context_new` that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_context_free(context: *mut rpw_context_t) {
    // Queueing allocates, and nothing but that can fail: there is no one to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as promised by the caller.
        if let Some(context) = unsafe { handle::take(context) } {
            worker::with(|worker| worker.endings.queue_context(context.current()));
        }
    }));
}
