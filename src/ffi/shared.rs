//! Shared memory and shared data, for Lua.

use std::ffi::c_char;

use super::boundary::{boundary, with_worker};
use super::failure::Failure;
use super::lua_vm;
use super::process::PROCESS;
use super::shared_memory::{none, refused};
use super::types::{
    self, RPW_CONTINUE, RPW_MISMATCH, RPW_MISSING, rpw_error_t, rpw_pair_t, rpw_value_t,
};
use crate::limits;
use crate::store::Refusal;

/// Tells Lua VMs apart: those of one nginx since its start, by which plans of another configuration are known.
///
/// # Returns
/// The number of the Lua VM that has called `rpw_setup` last.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_lua_vm() -> u64 {
    lua_vm::number()
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
        PROCESS.prepare_for_forks();
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(limits::MAX_SHARED_MEMORY);
        // SAFETY: as promised by the caller.
        unsafe { PROCESS.shared.make(size) }?;
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
        let shared = PROCESS.shared.get().ok_or_else(none)?;
        shared.set_eviction(evicts != 0).map_err(refused)?;
        Ok(RPW_CONTINUE)
    })
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
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let (vm_id, key, value) = unsafe {
            (types::bytes(vm_id, vm_id_length), types::bytes(key, key_length), value.as_mut())
        };
        let value = value.ok_or_else(|| Failure::new("rpw_shared_get: NULL argument"))?;
        let shared = PROCESS.shared.get_for_data().ok_or_else(none)?;
        let mut lent = worker.lent.shared.borrow_mut();
        let Some(cas) = shared.get(vm_id, key, &mut lent.value).map_err(refused)? else {
            return Ok(RPW_MISSING);
        };
        value.data = lent.value.as_ptr().cast();
        value.length = lent.value.len();
        value.cas = cas;
        Ok(RPW_CONTINUE)
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
        match PROCESS.shared.get_for_data().ok_or_else(none)?.set(vm_id, key, value, *cas) {
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
        let there =
            PROCESS.shared.get_for_data().ok_or_else(none)?.delete(vm_id, key).map_err(refused)?;
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
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let (vm_id, list, count) =
            unsafe { (types::bytes(vm_id, vm_id_length), list.as_mut(), count.as_mut()) };
        let (Some(list), Some(count)) = (list, count) else {
            return Err(Failure::new("rpw_shared_keys: NULL argument"));
        };
        let most = usize::try_from(most).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
        let keys =
            PROCESS.shared.get_for_data().ok_or_else(none)?.keys(vm_id, most).map_err(refused)?;
        let lent = &mut *worker.lent.shared.borrow_mut();
        lent.keys = keys;
        lent.list.clear();
        lent.list.extend(lent.keys.iter().map(|key| rpw_pair_t {
            // `limits::SHARED_KEY` is less.
            name_length: key.len() as i32,
            name: key.as_ptr().cast(),
            value_length: 0,
            value: std::ptr::null(),
        }));
        *list = lent.list.as_ptr();
        *count = lent.list.len();
        Ok(RPW_CONTINUE)
    })
}
