//! nginx variables: reading and setting them.

use smallvec::SmallVec;

use super::lua_vm::functions;
use super::nginx::{NGX_OK, Str, pointer};
use super::types;
use crate::ports::{RequestId, SetPropertyError};

/// No name of nginx's own variables is as long.
const SHORT: usize = 48;

/// `ngx_variable_value_t`
#[repr(C)]
struct Value {
    /// 28 bits of the length, then four flags.
    length_and_flags: u32,
    data: *const u8,
}

const LENGTH: u32 = (1 << 28) - 1;
/// `not_found`, the third flag.
const NOT_FOUND_FLAG: u32 = 1 << 30;

/// Where nginx has the value of a variable, and its length; `None` when it has none.
pub(super) fn lend(request: RequestId, name: &[u8]) -> Option<(*const u8, usize)> {
    if name.eq_ignore_ascii_case(b"http_host") {
        return lend_by_lua(request, name);
    }
    let hash = hash(name);
    if name.iter().any(u8::is_ascii_uppercase) {
        let lower = SmallVec::<[u8; SHORT]>::from_iter(name.iter().map(u8::to_ascii_lowercase));
        return lend_hashed(request, &lower, hash);
    }
    lend_hashed(request, name, hash)
}

/// The hash by which nginx finds a name, in whatever case that is.
pub(super) fn hash(name: &[u8]) -> usize {
    name.iter().fold(0, |hash, byte| hash_with(hash, byte.to_ascii_lowercase()))
}

/// `ngx_hash`
const fn hash_with(hash: usize, byte: u8) -> usize {
    hash.wrapping_mul(31).wrapping_add(byte as usize)
}

/// The name of a variable that is known when the library is compiled, in lower case, and its hash.
#[derive(Clone, Copy)]
pub(super) struct Known(&'static [u8], usize);

impl Known {
    /// See [`Known`].
    pub(super) const fn new(name: &'static [u8]) -> Self {
        let (mut hash, mut at) = (0, 0);
        while at < name.len() {
            hash = hash_with(hash, name[at]);
            at += 1;
        }
        Self(name, hash)
    }
}

fn lend_hashed(request: RequestId, name: &[u8], hash: usize) -> Option<(*const u8, usize)> {
    let functions = functions()?;
    let name = Str { length: name.len(), data: name.as_ptr() };
    // SAFETY: nginx reads the name, and answers where it has the value, or NULL.
    let found = unsafe {
        let value = (functions.get_variable)(pointer(request), (&raw const name).cast(), hash);
        value.cast::<Value>().as_ref()?
    };
    let is_found = found.length_and_flags & NOT_FOUND_FLAG == 0;
    is_found.then_some((found.data, (found.length_and_flags & LENGTH) as usize))
}

/// The same by ngx_lua, which knows where a request of HTTP/3 has its host.
fn lend_by_lua(request: RequestId, name: &[u8]) -> Option<(*const u8, usize)> {
    let functions = functions()?;
    let (mut value, mut length) = (std::ptr::null::<u8>(), 0);
    let mut error = std::ptr::null();
    let mut lower = SmallVec::<[u8; SHORT]>::from_slice(name);
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

/// # Safety
/// As for [`borrow`].
pub(super) unsafe fn borrow_known<'a>(request: RequestId, name: Known) -> Option<&'a [u8]> {
    let (value, length) = lend_hashed(request, name.0, name.1)?;
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
