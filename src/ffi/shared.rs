//! What workers share: made in the master before it forks, kept by all that comes after.

use std::cell::RefCell;
use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use super::{
    Failure, RPW_CONTINUE, RPW_MISMATCH, RPW_MISSING, boundary, images, listen, nginx, process,
    rpw_error_t, rpw_pair_t, rpw_value_t, types,
};
use crate::abi::LogLevel;
use crate::limits;
use crate::shm::{CallKind, Repair, Shared};
use crate::store::Refusal;
use crate::vm::Plugin;

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());
/// The system gave no memory: it is not asked again in each request.
static FAILED: AtomicBool = AtomicBool::new(false);
/// Lua VMs so far.
static LUA_VMS: AtomicU64 = AtomicU64::new(0);
/// The Lua VM that made what is shared: until it has forked workers it may still make another one.
static MADE_BY: AtomicU64 = AtomicU64::new(0);
/// The process that made it.
static MADE_IN: AtomicU64 = AtomicU64::new(0);
/// What is shared was made in a worker, and so is its own.
static ALONE: AtomicBool = AtomicBool::new(false);

/// Another Lua VM uses the library.
pub(super) fn begin_lua_vm() {
    LUA_VMS.fetch_add(1, Ordering::Relaxed);
}

/// Tells Lua VMs apart: those of one nginx since its start, by which plans of another configuration are known.
///
/// # Returns
/// The number of the Lua VM that has called `rpw_setup` last.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_lua_vm() -> u64 {
    LUA_VMS.load(Ordering::Relaxed)
}

/// Whether other workers have the same.
pub(super) fn is_common() -> bool {
    let made_in = MADE_IN.load(Ordering::Relaxed);
    made_in != 0 && made_in != process::current()
}

/// What all workers share; made here when no master did so, and this process's own then.
pub(super) fn shared() -> Option<&'static Shared> {
    // SAFETY: NULL, or a box that is replaced only before it is used, see `rpw_shared_memory`.
    let made = unsafe { SHARED.load(Ordering::Acquire).as_ref() };
    made.or_else(make_alone)
}

/// The same for whoever keeps data there, and so must know who shares it.
pub(super) fn shared_by_all() -> Option<&'static Shared> {
    let shared = shared()?;
    if ALONE.load(Ordering::Relaxed) && ALONE.swap(false, Ordering::Relaxed) {
        nginx::log(
            None,
            LogLevel::Warn,
            b"wasm: shared data, queues and metrics are this worker's own: require(\"resty.proxy-wasm\") in \
              init_by_lua, so that all workers share them",
        );
    }
    Some(shared)
}

/// Counts a call of a plugin that has ended. One that finds no room is not counted, and nobody needs to hear of that.
pub(super) fn count_call(plugin: &Plugin, upstream: &str, kind: CallKind, failed: bool) {
    if let Some(shared) = shared() {
        let _ = shared.count_call(plugin.name(), upstream, kind, failed);
    }
}

#[cold]
fn make_alone() -> Option<&'static Shared> {
    if FAILED.load(Ordering::Relaxed) {
        return None;
    }
    match Shared::new(limits::DEFAULT_SHARED_MEMORY, on_repair) {
        Ok(made) => {
            ALONE.store(true, Ordering::Relaxed);
            Some(keep(made))
        }
        Err(error) => {
            FAILED.store(true, Ordering::Relaxed);
            let line = format!("wasm: no shared memory: {error}");
            nginx::log(None, LogLevel::Error, line.as_bytes());
            None
        }
    }
}

fn keep(made: Shared) -> &'static Shared {
    MADE_BY.store(LUA_VMS.load(Ordering::Relaxed), Ordering::Relaxed);
    MADE_IN.store(process::current(), Ordering::Relaxed);
    // Lives as long as the process and those that it forks; so it is never freed once it is in use.
    let made: &'static Shared = Box::leak(Box::new(made));
    SHARED.store(std::ptr::from_ref(made).cast_mut(), Ordering::Release);
    made
}

fn on_repair(repair: &Repair) {
    let line = format!(
        "wasm: a worker ended while it changed the shared memory, which was repaired: {} items are there{}",
        repair.kept,
        if repair.cut > 0 {
            format!(", {} ends of lists were lost", repair.cut)
        } else {
            String::new()
        },
    );
    nginx::log(None, LogLevel::Warn, line.as_bytes());
}

/// Makes what workers share. To be called in the master before it forks; what is made later belongs to one worker.
///
/// What another Lua VM of this process made, before a reload, stays, with a warning when its size is another one.
///
/// # Arguments
/// `size`: bytes, or 0 for what is there or the default.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` when the system has no such memory.
/// # Safety
/// `error` is NULL or valid. Nothing that is shared was used since this Lua VM began.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_shared_memory(size: u64, error: *mut rpw_error_t) -> i32 {
    boundary(error, || {
        listen::prepare();
        images::prepare();
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(limits::MAX_SHARED_MEMORY);
        let old = SHARED.load(Ordering::Acquire);
        if old.is_null() {
            let size = if size == 0 { limits::DEFAULT_SHARED_MEMORY } else { size };
            keep(Shared::new(size, on_repair).map_err(|error| Failure::new(error.to_string()))?);
            return Ok(RPW_CONTINUE);
        }
        // SAFETY: a box that `keep` leaked.
        let before = unsafe { &*old }.size().map_err(refused)?.0;
        if size == 0 || size == before {
            return Ok(RPW_CONTINUE);
        }
        if MADE_BY.load(Ordering::Relaxed) != LUA_VMS.load(Ordering::Relaxed) {
            let line = format!(
                "wasm: shared_memory stays at {before} bytes until nginx is started anew: workers use it"
            );
            nginx::log(None, LogLevel::Warn, line.as_bytes());
            return Ok(RPW_CONTINUE);
        }
        keep(Shared::new(size, on_repair).map_err(|error| Failure::new(error.to_string()))?);
        // SAFETY: it came from `keep`, and nobody has used it since, as promised by the caller.
        drop(unsafe { Box::from_raw(old) });
        Ok(RPW_CONTINUE)
    })
}

/// Says whether the entry of shared data that was not used for the longest time gives way to a new one (1), or whether
/// that one is refused (0).
///
/// # Returns
/// `RPW_CONTINUE`; `RPW_ERROR`.
/// # Safety
/// `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_shared_eviction(evicts: i32, error: *mut rpw_error_t) -> i32 {
    boundary(error, || {
        let shared = shared().ok_or_else(none)?;
        shared.set_eviction(evicts != 0).map_err(refused)?;
        Ok(RPW_CONTINUE)
    })
}

thread_local! {
    static OUT: RefCell<Out> = RefCell::default();
}

/// What the last answer points to.
#[derive(Default)]
struct Out {
    value: Vec<u8>,
    keys: Vec<Vec<u8>>,
    list: Vec<rpw_pair_t>,
}

/// Reads an entry of shared data.
///
/// # Returns
/// `RPW_CONTINUE` with the value in `*value`, good until the next call of this function; `RPW_MISSING`; `RPW_ERROR`.
/// # Safety
/// The strings have the given lengths, `value` is valid, `error` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_shared_get(
    vm_id: *const c_char,
    vm_id_length: usize,
    key: *const c_char,
    key_length: usize,
    value: *mut rpw_value_t,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let (vm_id, key, value) = unsafe {
            (types::bytes(vm_id, vm_id_length), types::bytes(key, key_length), value.as_mut())
        };
        let value = value.ok_or_else(|| Failure::new("rpw_shared_get: NULL argument"))?;
        let shared = shared_by_all().ok_or_else(none)?;
        OUT.with_borrow_mut(|out| {
            let Some(cas) = shared.get(vm_id, key, &mut out.value).map_err(refused)? else {
                return Ok(RPW_MISSING);
            };
            value.data = out.value.as_ptr().cast();
            value.length = out.value.len();
            value.cas = cas;
            Ok(RPW_CONTINUE)
        })
    })
}

/// Sets an entry of shared data.
///
/// # Arguments
/// `cas`: 0, or the version that an entry which is there must have. Out: its new version.
/// # Returns
/// `RPW_CONTINUE`; `RPW_MISMATCH` when the entry has another version; `RPW_ERROR`.
/// # Safety
/// The strings have the given lengths, `cas` is valid, `error` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_shared_set(
    vm_id: *const c_char,
    vm_id_length: usize,
    key: *const c_char,
    key_length: usize,
    value: *const c_char,
    value_length: usize,
    cas: *mut u32,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let (vm_id, key, value, cas) = unsafe {
            (
                types::bytes(vm_id, vm_id_length),
                types::bytes(key, key_length),
                types::bytes(value, value_length),
                cas.as_mut(),
            )
        };
        let cas = cas.ok_or_else(|| Failure::new("rpw_shared_set: NULL argument"))?;
        match shared_by_all().ok_or_else(none)?.set(vm_id, key, value, *cas) {
            Ok(version) => {
                *cas = version;
                Ok(RPW_CONTINUE)
            }
            Err(Refusal::Mismatch) => Ok(RPW_MISMATCH),
            Err(refusal) => Err(refused(refusal)),
        }
    })
}

/// Takes an entry of shared data out.
///
/// # Returns
/// `RPW_CONTINUE`; `RPW_MISSING` when it was not there; `RPW_ERROR`.
/// # Safety
/// The strings have the given lengths, `error` is NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_shared_delete(
    vm_id: *const c_char,
    vm_id_length: usize,
    key: *const c_char,
    key_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let (vm_id, key) =
            unsafe { (types::bytes(vm_id, vm_id_length), types::bytes(key, key_length)) };
        let there = shared_by_all().ok_or_else(none)?.delete(vm_id, key).map_err(refused)?;
        Ok(if there { RPW_CONTINUE } else { RPW_MISSING })
    })
}

/// Lists the keys of shared data.
///
/// # Arguments
/// `most`: how many at most, 0 for all of them.
/// # Returns
/// `RPW_CONTINUE` with the keys as names in `*list`, in no order, good until the next call of this function; `RPW_ERROR`.
/// # Safety
/// `vm_id` has the given length, `list` and `count` are valid, `error` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_shared_keys(
    vm_id: *const c_char,
    vm_id_length: usize,
    most: u64,
    list: *mut *const rpw_pair_t,
    count: *mut usize,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let (vm_id, list, count) =
            unsafe { (types::bytes(vm_id, vm_id_length), list.as_mut(), count.as_mut()) };
        let (Some(list), Some(count)) = (list, count) else {
            return Err(Failure::new("rpw_shared_keys: NULL argument"));
        };
        let most = usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
        let keys = shared_by_all().ok_or_else(none)?.keys(vm_id, most).map_err(refused)?;
        OUT.with_borrow_mut(|out| {
            out.keys = keys;
            out.list.clear();
            out.list.extend(out.keys.iter().map(|key| rpw_pair_t {
                // `limits::SHARED_KEY` is less.
                name_length: key.len() as i32,
                name: key.as_ptr().cast(),
                value_length: 0,
                value: std::ptr::null(),
            }));
            *list = out.list.as_ptr();
            *count = out.list.len();
            Ok(RPW_CONTINUE)
        })
    })
}

pub(super) fn none() -> Failure {
    Failure::new("the system gave no shared memory")
}

pub(super) fn refused(refusal: Refusal) -> Failure {
    Failure::new(match refusal {
        Refusal::Full => "the shared memory is full",
        Refusal::TooLarge => "the key or the value is too large",
        Refusal::TooMany => "there are too many",
        Refusal::Mismatch => "the version is another one",
        Refusal::TooManyProcesses => "more processes use the shared memory than it has room for",
    })
}
