//! nginx variables: reading and setting them.

use smallvec::SmallVec;

use super::lua_vm::functions;
use super::nginx::{NGX_OK, pointer};
use super::types;
use crate::ports::{RequestId, SetPropertyError};

/// No name of nginx's own variables is as long.
const SHORT: usize = 48;

/// Where nginx has the value of a variable, and its length; `None` when it has none.
pub(super) fn lend(request: RequestId, name: &[u8]) -> Option<(*const u8, usize)> {
    let functions = functions()?;
    // Zeroes cost less than an allocation.
    let mut lower = SmallVec::<[u8; SHORT]>::from_elem(0, name.len());
    let (mut value, mut length) = (std::ptr::null::<u8>(), 0);
    let mut error = std::ptr::null();
    // SAFETY: `lower` has room for the name.
    let rc = unsafe {
        (functions.var_get)(
            pointer(request),
            name.as_ptr(),
            name.len(),
            lower.as_mut_ptr(),
            0,
            &raw mut value,
            &raw mut length,
            &raw mut error,
        )
    };
    (rc == NGX_OK).then_some((value, length))
}

/// Puts the value of a variable into `out` (cleared first); false when nginx has none.
pub(super) fn read(request: RequestId, name: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some((value, length)) = lend(request, name) else { return false };
    // SAFETY: nginx lends the value, which is copied at once.
    out.extend_from_slice(unsafe { types::bytes(value.cast(), length) });
    true
}

/// # Safety
/// The request does not change while the value is in use.
pub(super) unsafe fn borrow<'a>(request: RequestId, name: &[u8]) -> Option<&'a [u8]> {
    let (value, length) = lend(request, name)?;
    // SAFETY: nginx lends the value until the request changes.
    Some(unsafe { types::bytes(value.cast(), length) })
}

/// Sets a variable.
pub(super) fn set(request: RequestId, name: &[u8], value: &[u8]) -> Result<(), SetPropertyError> {
    let functions = functions().ok_or(SetPropertyError::NotFound)?;
    let mut lower = name.to_vec();
    let mut error = [0u8; 512];
    let mut error_length = error.len();
    // A NULL value would make the variable undefined; an empty one is a value.
    let data = if value.is_empty() { c"".as_ptr().cast() } else { value.as_ptr() };
    // SAFETY: `lower` has room for the name; nginx copies the value and writes at most `error_length` bytes of
    // error, and then their number there.
    let rc = unsafe {
        (functions.var_set)(
            pointer(request),
            name.as_ptr(),
            name.len(),
            lower.as_mut_ptr(),
            data,
            value.len(),
            error.as_mut_ptr(),
            &raw mut error_length,
        )
    };
    if rc == NGX_OK {
        return Ok(());
    }
    let text = error.get(..error_length).unwrap_or_default();
    if text.windows(NOT_FOUND.len()).any(|part| part == NOT_FOUND) {
        return Err(SetPropertyError::NotFound);
    }
    let why = format!("nginx variable \"{}\" cannot be set", name.escape_ascii());
    Err(SetPropertyError::ReadOnly(why))
}

/// How ngx_lua says that a variable does not exist (`ngx_http_lua_ffi_var_set`).
const NOT_FOUND: &[u8] = b"not found for writing";
