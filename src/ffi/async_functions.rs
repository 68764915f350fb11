//! Asynchronous functions of Lua: what light threads exchange with the library.

use std::ffi::c_char;

use super::boundary::guest_boundary;
use super::host::host;
use super::jobs::{Answer, Function};
use super::telling::tell_in_turn;
use super::ticker::Entry;
use super::types::{self, RPW_CONTINUE, rpw_error_t};
use super::worker;

/// A function that was handed out is called now.
///
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_foreign_begin(id: u32) -> i32 {
    if let Ok(host) = host() {
        worker::with(|worker| {
            if let Some(function) = worker.jobs.borrow_mut().functions.get_mut(&id) {
                function.began = host.monotonic_clock();
            }
        });
    }
    RPW_CONTINUE
}

/// Ends a function that was run: hands its guest the result.
///
/// # Arguments
/// `ok`: 1, or 0 when it failed. `yielded`: 1 when nginx did something else meanwhile, so that its time does not count.
/// `result` is copied.
/// # Returns
/// `RPW_CONTINUE`; `RPW_ERROR` when the guest failed.
/// # Safety
/// `result` has the given length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_foreign_end(
    id: u32,
    ok: i32,
    yielded: i32,
    result: *const c_char,
    result_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Request, true, error, |worker| {
        // SAFETY: as promised by the caller.
        let result = unsafe { types::bytes(result, result_length) };
        let found = worker.jobs.borrow_mut().functions.remove(&id);
        if let Some(Function { plugin, of, began }) = found {
            let host = host()?;
            let lasted = host.monotonic_clock().saturating_sub(began);
            let before = if yielded == 0 { lasted } else { 0 };
            tell_in_turn(
                worker,
                &host,
                Answer::Function(plugin, of, result.to_vec(), ok != 0),
                before,
            );
        }
        Ok(RPW_CONTINUE)
    })
}
