//! Functions of Lua that guests call.
//!
//! One C function of Lua serves them all. LuaJIT allows a call of it only below a call of this library that it did not
//! compile, so each export says of itself whether it was, and where none is on the stack no function of Lua is called.

use std::cell::Cell;
use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, PoisonError, RwLock};

use rustc_hash::FxHashMap;

use super::{Failure, RPW_CONTINUE, boundary, rpw_error_t, types};
use crate::limits;
use crate::ports::{ForeignError, ForeignKind};

/// What a function of Lua answers. Lent until the next call.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
#[repr(C)]
pub struct rpw_result_t {
    /// The result.
    pub data: *const c_char,
    /// Its bytes.
    pub length: usize,
}

/// Calls a function of Lua: its name, its arguments, both lent, and where to put its result. 0, or not 0 when it failed.
///
/// It never raises an error and never yields.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
pub type rpw_caller_t = Option<
    unsafe extern "C" fn(*const c_char, usize, *const c_char, usize, *mut rpw_result_t) -> i32,
>;

static FUNCTIONS: LazyLock<RwLock<FxHashMap<Vec<u8>, ForeignKind>>> =
    LazyLock::new(RwLock::default);
static CALLER: RwLock<rpw_caller_t> = RwLock::new(None);
/// There is a function that runs inside a guest's call.
static ANY_NOW: AtomicBool = AtomicBool::new(false);

thread_local! {
    static LUA: Cell<Caller> = const { Cell::new(Caller::Nginx) };
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

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
        let mut functions = FUNCTIONS.write().unwrap_or_else(PoisonError::into_inner);
        if functions.contains_key(name) {
            let name = name.escape_ascii();
            return Err(Failure::new(format!(
                "a foreign function \"{name}\" was registered before"
            )));
        }
        functions.insert(name.to_vec(), kind);
        ANY_NOW.fetch_or(kind == ForeignKind::Now, Ordering::Relaxed);
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
    *CALLER.write().unwrap_or_else(PoisonError::into_inner) = caller;
    RPW_CONTINUE
}

/// Forgets the functions of a Lua VM that is gone.
pub(super) fn clear() {
    FUNCTIONS.write().unwrap_or_else(PoisonError::into_inner).clear();
    *CALLER.write().unwrap_or_else(PoisonError::into_inner) = None;
    ANY_NOW.store(false, Ordering::Relaxed);
}

/// How a function is called.
pub(super) fn find(name: &[u8]) -> Option<ForeignKind> {
    FUNCTIONS.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
}

/// Whether there is a function that runs inside a guest's call.
pub(super) fn any_now() -> bool {
    ANY_NOW.load(Ordering::Relaxed)
}

/// Whether there is a function that runs later.
pub(super) fn any_later() -> bool {
    let functions = FUNCTIONS.read().unwrap_or_else(PoisonError::into_inner);
    functions.values().any(|kind| *kind == ForeignKind::Later)
}

/// Calls a function that runs now.
pub(super) fn call(name: &[u8], arguments: &[u8]) -> Result<Vec<u8>, ForeignError> {
    let caller = *CALLER.read().unwrap_or_else(PoisonError::into_inner);
    let Some(caller) = caller.filter(|_| LUA.get() == Caller::Interpreter) else {
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

/// Who called the library.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// nginx itself.
    Nginx,
    /// Lua that LuaJIT may have compiled.
    Lua,
    /// Lua that it has not.
    Interpreter,
}

/// Whether Lua is what called last.
pub(super) fn is_below_lua() -> bool {
    LUA.get() != Caller::Nginx
}

/// A call of the library, until this is dropped.
pub(super) struct Below {
    before: Caller,
}

impl Below {
    /// A call from Lua.
    pub fn enter(caller: Caller) -> Result<Self, Failure> {
        if DEPTH.get() >= limits::NESTED_ENTRIES {
            return Err(Failure::new("foreign functions call filters, which call them, too deep"));
        }
        Ok(Self::set(caller))
    }

    /// A call from nginx.
    pub fn enter_from_nginx() -> Self {
        Self::set(Caller::Nginx)
    }

    fn set(caller: Caller) -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self { before: LUA.replace(caller) }
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        LUA.set(self.before);
        DEPTH.set(DEPTH.get() - 1);
    }
}
