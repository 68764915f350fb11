//! The boundary round each export: panics become errors, and guests have their time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::entries::Caller;
use super::failure::Failure;
use super::process::PROCESS;
use super::ticker::Entry;
use super::types::{self, RPW_ERROR, rpw_error_t};
use super::worker::{self, Worker};

/// Runs an export's body; a panic becomes an error of that call.
pub(super) fn boundary(
    error: *mut rpw_error_t,
    body: impl FnOnce() -> Result<i32, Failure>,
) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(code)) => code,
        Ok(Err(Failure(failure))) => {
            let (code, text) = *failure;
            types::write_error(error, &text);
            code
        }
        Err(panic) => {
            let text = panic_text(&panic);
            types::write_error(
                error,
                &format!("the host panicked: {text}; this is a bug of the host"),
            );
            RPW_ERROR
        }
    }
}

/// Like [`boundary`], for a body that needs what the worker keeps.
pub(super) fn with_worker(
    error: *mut rpw_error_t,
    body: impl FnOnce(&Worker) -> Result<i32, Failure>,
) -> i32 {
    boundary(error, || worker::with(body))
}

/// Like [`boundary`], for a body that may enter guests: their time runs, and endings that waited come first. `lua` is true
/// when LuaJIT cannot have compiled the call, so that guests may call Lua.
pub(super) fn guest_boundary(
    entry: Entry,
    lua: bool,
    error: *mut rpw_error_t,
    body: impl FnOnce(&Worker) -> Result<i32, Failure>,
) -> i32 {
    boundary(error, || {
        worker::with(|worker| {
            let caller = if lua { Caller::Interpreter } else { Caller::Lua };
            let _below = worker.entries.enter(caller)?;
            let _running = PROCESS.ticker.enter(entry)?;
            worker.run_endings();
            body(worker)
        })
    })
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no text",
    }
}
