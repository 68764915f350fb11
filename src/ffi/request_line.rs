//! The method and the target of a request, as nginx passes them on to an upstream.
//!
//! ngx_lua can set the path that nginx decoded, and nginx then encodes it again for the upstream, in its own way. To pass on
//! what a filter wrote, byte for byte, it must stand where nginx keeps the target of the client, and the flag must be set
//! that nginx may use it. Where both are in `ngx_http_request_t` differs from version to version, so each is found by what it
//! holds: the texts are next to each other in all versions, and nginx's variables show their addresses; the flag is the one
//! bit that `ngx.req.set_uri_args` clears. Where one is not found, nothing is written, and nginx encodes the path again.

use std::ffi::{c_char, c_void};

use super::boundary::{boundary, with_worker};
use super::line_place::{Line, Text};
use super::lua_vm::functions;
use super::types::{self, RPW_CONTINUE, rpw_error_t};
use super::{nginx, request, variables};
use crate::ports::RequestId;

/// `NGX_HTTP_UNKNOWN` and `NGX_HTTP_HEAD`
const METHOD_UNKNOWN: usize = 0x1;
const METHOD_HEAD: usize = 0x4;

/// Where the part is looked for, in bytes. It is at 800 to 960 from nginx 1.21 to 1.31, and the structure has 1328 bytes and
/// more.
const FIRST: usize = 512;
const LAST: usize = 1024;

/// The words behind the part that hold the flag. The structure continues behind them.
const FLAG_WORDS: usize = 26;

/// Words that may hold the flag, at one time.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rpw_flags_t {
    /// All zero when they were not found.
    pub words: [u64; 26],
}

fn line(request: RequestId) -> Option<*mut Line> {
    let place = functions()?.line_place.get_or(|| find(request))?;
    Some((request.0.get() + place) as *mut Line)
}

/// Three texts at the addresses that nginx's variables tell, in a row: nothing else of a request looks like that. Not
/// `$request_uri`: where the configuration names it nginx keeps the value that was read first.
fn find(request: RequestId) -> Option<usize> {
    let text = |name: &[u8]| {
        let (data, length) = variables::lend(request, name)?;
        Some(Text { length, data })
    };
    let known = [text(b"request")?, text(b"uri")?, text(b"server_protocol")?];
    (FIRST..=LAST).step_by(size_of::<usize>()).find(|place| {
        // SAFETY: the request is the running one, and its structure is larger than what is read here.
        let line = unsafe { &*((request.0.get() + place) as *const Line) };
        [line.request_line, line.uri, line.http_protocol] == known && !line.main.is_null()
    })
}

/// Whether nginx sends no body because the client asked with HEAD; `None` when that cannot be told.
pub(super) fn is_head(request: RequestId) -> Option<bool> {
    // SAFETY: the request is the running one.
    line(request).map(|line| unsafe { (*line).method } == METHOD_HEAD)
}

/// The same, by the variable where the request does not tell.
pub(super) fn is_head_or_variable(request: RequestId) -> bool {
    is_head(request).unwrap_or_else(|| {
        let mut method = Vec::new();
        variables::read(request, b"request_method", &mut method) && method == b"HEAD"
    })
}

/// What `$request_uri` shows; `None` when it cannot be told.
///
/// # Safety
/// The request does not change while the value is in use.
pub(super) unsafe fn target<'a>(request: RequestId) -> Option<&'a [u8]> {
    let line = line(request)?;
    // SAFETY: a part of the request, and as promised by the caller.
    unsafe {
        let Text { length, data } = (*line).unparsed_uri;
        Some(types::bytes(data.cast(), length))
    }
}

/// nginx no longer needs what a filter wrote: variables show the client's target again.
pub(super) fn restore(request: RequestId, target: Text) {
    if let Some(line) = line(request) {
        // SAFETY: the request is about to be freed, and the client's text is as old as the request.
        unsafe { (*line).unparsed_uri = target };
    }
}

/// Memory that lives as long as the request.
fn keep(request: RequestId, bytes: &[u8]) -> Option<Text> {
    let data = nginx::allocate(request, bytes.len().max(1))?;
    // SAFETY: there is room for them.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len()) };
    Some(Text { length: bytes.len(), data })
}

/// Reads the words that may hold the flag. Called before and after `ngx.req.set_uri_args`, which clears it.
///
/// # Returns
/// `RPW_CONTINUE` with the words in `*flags`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
/// # Safety
/// `request` is NULL or the running `ngx_http_request_t`; `flags` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_request_flags(
    request: *mut c_void,
    flags: *mut rpw_flags_t,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        let request = request::id(request)?;
        let mut words = [0; FLAG_WORDS];
        if let Some(line) = line(request) {
            // SAFETY: they are a part of the request.
            words = unsafe { line.add(1).cast::<[u64; FLAG_WORDS]>().read() };
        }
        // SAFETY: as promised by the caller.
        unsafe { flags.write(rpw_flags_t { words }) };
        Ok(RPW_CONTINUE)
    })
}

/// Has nginx pass a target on as it is, after `ngx.req.set_uri_args` and `ngx.req.set_uri` have set what it means. A
/// request that had no target of a client's any more (nginx redirected it, or made it) has none afterwards either.
///
/// # Returns
/// `RPW_CONTINUE`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
/// # Safety
/// As [`rpw_request_flags`]; `target` has that length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_request_target(
    request: *mut c_void,
    before: *const rpw_flags_t,
    after: *const rpw_flags_t,
    target: *const c_char,
    target_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    with_worker(error, |worker| {
        let request = request::id(request)?;
        // SAFETY: as promised by the caller.
        let (before, after, target) =
            unsafe { (&(*before).words, &(*after).words, types::bytes(target, target_length)) };
        worker.requests.set_path(request, target);
        let (Some((word, bit)), Some(line)) = (cleared(before, after), line(request)) else {
            return Ok(RPW_CONTINUE);
        };
        let Some(text) = keep(request, target) else { return Ok(RPW_CONTINUE) };
        // SAFETY: the text is where nginx keeps the target, and the word a part of the request.
        unsafe {
            let of_client = (*line).unparsed_uri;
            worker.requests.set_client_target(request, of_client);
            (*line).unparsed_uri = text;
            *line.add(1).cast::<u64>().add(word) |= bit;
        }
        Ok(RPW_CONTINUE)
    })
}

/// The one bit that was cleared: its word and itself. `None` when anything else changed.
fn cleared(before: &[u64; FLAG_WORDS], after: &[u64; FLAG_WORDS]) -> Option<(usize, u64)> {
    let mut changed = (0..FLAG_WORDS).filter(|&word| before[word] != after[word]);
    let (word, None) = (changed.next()?, changed.next()) else { return None };
    let bits = before[word] ^ after[word];
    (bits.is_power_of_two() && after[word] & bits == 0).then_some((word, bits))
}

/// Passes a method on under its name. Whether the response has a body stays as the client asked.
///
/// # Returns
/// `RPW_CONTINUE`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
/// # Safety
/// `request` is NULL or the running `ngx_http_request_t`; `name` has that length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_request_method(
    request: *mut c_void,
    name: *const c_char,
    name_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        let request = request::id(request)?;
        // SAFETY: as promised by the caller.
        let name = unsafe { types::bytes(name, name_length) };
        if let (Some(line), Some(name)) = (line(request), keep(request, name)) {
            // SAFETY: a part of the request.
            unsafe {
                (*line).method_name = name;
                if (*line).method != METHOD_HEAD {
                    (*line).method = METHOD_UNKNOWN;
                }
            }
        }
        Ok(RPW_CONTINUE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_the_one_bit_that_was_cleared() {
        let mut before = [u64::MAX; FLAG_WORDS];
        assert_eq!(cleared(&before, &before), None);
        let mut after = before;
        after[3] &= !(1 << 44);
        assert_eq!(cleared(&before, &after), Some((3, 1 << 44)));
        assert_eq!(cleared(&after, &before), None, "it was set");
        after[3] &= !1;
        assert_eq!(cleared(&before, &after), None, "two bits");
        after[3] |= 1;
        before[4] = 0;
        assert_eq!(cleared(&before, &after), None, "two words");
    }
}
