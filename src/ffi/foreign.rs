//! Functions of Lua that guests call.
//!
//! One C function of Lua serves them all. LuaJIT allows a call of it only below a call of this library that it did not
//! compile, so each export says of itself whether it was, and where none is on the stack no function of Lua is called.

use std::ffi::c_char;
use std::sync::atomic::Ordering;

use super::boundary::boundary;
use super::entries::Caller;
use super::failure::Failure;
use super::types::{self, RPW_CONTINUE, rpw_caller_t, rpw_error_t, rpw_result_t};
use super::{lua_vm, worker};
use crate::ports::{ForeignError, ForeignKind};

/// Names a function that guests may call, until `rpw_setup` is called for another Lua VM.
///
/// # Arguments
/// `name` is copied. `later`: 0 when it is run inside the guest's call, by the caller of `rpw_foreign_caller`; 1 when it is
/// run afterwards, by `RPW_WORK_RUN`.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` when there is a function of that name.
/// # Safety
/// `name` has the given length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_foreign_function(
    name: *const c_char,
    name_length: usize,
    later: i32,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let name = unsafe { types::bytes(name, name_length) };
        let kind = if later == 0 { ForeignKind::Now } else { ForeignKind::Later };
        let added = lua_vm::change(|settings| {
            let is_new = !settings.foreign.contains_key(name);
            if is_new {
                settings.foreign.insert(name.to_vec(), kind);
            }
            is_new
        });
        if added == Some(false) {
            let name = name.escape_ascii();
            return Err(Failure::new(format!(
                "a foreign function \"{name}\" was registered before"
            )));
        }
        if let Some(vm) = lua_vm::current() {
            vm.any_now.fetch_or(kind == ForeignKind::Now, Ordering::Relaxed);
        }
        Ok(RPW_CONTINUE)
    })
}

/// Says what calls the functions that run inside a guest's call.
///
/// # Returns
/// `RPW_CONTINUE`.
/// # Safety
/// `caller` is NULL, or lives until this is called again, or `rpw_setup`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_foreign_caller(caller: rpw_caller_t) -> i32 {
    lua_vm::change(|settings| settings.caller = caller);
    RPW_CONTINUE
}

/// How a function is called.
pub(super) fn find(name: &[u8]) -> Option<ForeignKind> {
    lua_vm::read(|settings| settings.foreign.get(name).copied())?
}

/// Whether there is a function that runs inside a guest's call.
pub(super) fn any_now() -> bool {
    lua_vm::current().is_some_and(|vm| vm.any_now.load(Ordering::Relaxed))
}

/// Whether there is a function that runs later.
pub(super) fn any_later() -> bool {
    let is_later = |kind: &ForeignKind| *kind == ForeignKind::Later;
    lua_vm::read(|settings| settings.foreign.values().any(is_later)).unwrap_or(false)
}

/// Calls a function that runs now.
pub(super) fn call(name: &[u8], arguments: &[u8]) -> Result<Vec<u8>, ForeignError> {
    let caller = lua_vm::read(|settings| settings.caller).flatten();
    let below = worker::with(|worker| worker.entries.caller());
    let Some(caller) = caller.filter(|_| below == Caller::Interpreter) else {
        return Err(ForeignError::NotHere);
    };
    let mut result = rpw_result_t { data: std::ptr::null(), length: 0 };
    // SAFETY: `rpw_foreign_caller` was promised that it lives, and Lua is below, not compiled.
    let failed = unsafe {
        caller(
            name.as_ptr().cast(),
            name.len(),
            arguments.as_ptr().cast(),
            arguments.len(),
            &raw mut result,
        )
    };
    if failed != 0 {
        return Err(ForeignError::Failed);
    }
    // SAFETY: Lua lends the result until the next call.
    Ok(unsafe { types::bytes(result.data, result.length) }.to_vec())
}
