//! nginx as a set of C calls.

use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;

use super::lua_vm::functions;
use super::types::{self, rpw_pair_t};
use crate::abi::LogLevel;
use crate::ports::{Phase, RequestId};

/// ngx_lua's phase numbers (`ngx_http_lua_common.h`, `NGX_HTTP_LUA_CONTEXT_*`).
mod context {
    pub(super) const LOG: i32 = 0x10;
    pub(super) const HEADER_FILTER: i32 = 0x20;
    pub(super) const BODY_FILTER: i32 = 0x40;
    pub(super) const REWRITE: i32 = 0x2;
    pub(super) const ACCESS: i32 = 0x4;
    pub(super) const CONTENT: i32 = 0x8;
    pub(super) const SERVER_REWRITE: i32 = 0x8000;
}

/// `ngx_str_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Str {
    pub length: usize,
    pub data: *const u8,
}

impl Str {
    /// The bytes. They live as long as the request, unless something changes it.
    pub(super) unsafe fn bytes<'a>(&self) -> &'a [u8] {
        // SAFETY: nginx has them there.
        unsafe { types::bytes(self.data.cast(), self.length) }
    }
}

pub(super) const NGX_OK: c_int = 0;
const NGX_LOG_CRIT: c_int = 3;
const NGX_LOG_ERR: c_int = 4;
const NGX_LOG_WARN: c_int = 5;
const NGX_LOG_INFO: c_int = 7;
const NGX_LOG_DEBUG: c_int = 8;

/// Writes a line to the error log: of the request, or of the worker.
pub(super) fn log(request: Option<RequestId>, level: LogLevel, message: &[u8]) {
    let Some(functions) = functions() else { return };
    let level = match level {
        LogLevel::Trace | LogLevel::Debug => NGX_LOG_DEBUG,
        LogLevel::Info => NGX_LOG_INFO,
        LogLevel::Warn => NGX_LOG_WARN,
        LogLevel::Error => NGX_LOG_ERR,
        LogLevel::Critical => NGX_LOG_CRIT,
    };
    let escaped;
    // A guest must not be able to forge a line of the log.
    let message = if message.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        escaped = escape_controls(message);
        &escaped
    } else {
        message
    };
    // SAFETY: nginx copies the message; a NULL request means the worker's log.
    unsafe {
        (functions.raw_log)(pointer_or_null(request), level, message.as_ptr(), message.len());
    }
}

/// What the error log takes.
pub(super) fn log_level(request: Option<RequestId>) -> LogLevel {
    let Some(functions) = functions() else { return LogLevel::Critical };
    // SAFETY: reads a number of the request's log, or of the worker's.
    match unsafe { (functions.log_level)(pointer_or_null(request)) } {
        ..=NGX_LOG_CRIT => LogLevel::Critical,
        NGX_LOG_ERR => LogLevel::Error,
        // Notice lies between: info lines are not written there.
        NGX_LOG_WARN..NGX_LOG_INFO => LogLevel::Warn,
        NGX_LOG_INFO => LogLevel::Info,
        _ => LogLevel::Trace,
    }
}

/// False for the fake requests of timers and of the TLS phases.
pub(super) fn is_real(request: RequestId) -> bool {
    phase_of_real(request).is_some()
}

/// The phase of a request; `None` for a fake one, see [`is_real`].
pub(super) fn phase_of_real(request: RequestId) -> Option<Phase> {
    let phase = phase(request);
    // Fake ones are in none of the phases that have a name here.
    let is_real = phase != Phase::Other || header_count(request).is_some();
    is_real.then_some(phase)
}

/// The phase of a request.
#[inline]
pub(super) fn phase(request: RequestId) -> Phase {
    let Some(functions) = functions() else { return Phase::Other };
    let mut error = std::ptr::null();
    // SAFETY: reads a number of the request's ngx_lua context.
    let number = unsafe { (functions.phase)(pointer(request), &raw mut error) };
    // Filters are called there most.
    if number == context::HEADER_FILTER {
        return Phase::ResponseHeaders;
    }
    match number {
        context::BODY_FILTER => Phase::ResponseBody,
        context::REWRITE | context::ACCESS | context::CONTENT | context::SERVER_REWRITE => {
            Phase::Request
        }
        context::LOG => Phase::Log,
        _ => Phase::Other,
    }
}

/// Whether headers of the response went out.
pub(super) fn headers_sent(request: RequestId) -> bool {
    // SAFETY: reads a bit of the request.
    functions().is_some_and(|functions| unsafe { (functions.headers_sent)(pointer(request)) } != 0)
}

/// The status of the response; 0 when there is none.
pub(super) fn response_status(request: RequestId) -> u16 {
    let Some(functions) = functions() else { return 0 };
    // SAFETY: reads a number of the request.
    u16::try_from(unsafe { (functions.response_status)(pointer(request)) }).unwrap_or(0)
}

/// Whether nginx merges slashes in paths of the request's server.
pub(super) fn merges_slashes(request: RequestId) -> bool {
    // SAFETY: the request lives: it is the running one.
    functions().is_none_or(|functions| unsafe { functions.merge_slashes.of(pointer(request)) })
}

/// Whether this process ends as soon as its requests have.
pub(super) fn is_exiting() -> bool {
    // SAFETY: it reads a number.
    functions().is_some_and(|functions| unsafe { (functions.worker_exiting)() } != 0)
}

/// Lines of request headers, `None` when this is no real request.
fn header_count(request: RequestId) -> Option<usize> {
    let mut truncated = 0;
    // SAFETY: the request lives: it is the running one, or its cleanup handler runs.
    let count = unsafe { (functions()?.headers_count)(pointer(request), 0, &raw mut truncated) };
    usize::try_from(count).ok()
}

/// Calls `f` with each request header, names in lower case.
pub(super) fn for_each_header(request: RequestId, mut f: impl FnMut(&[u8], &[u8])) {
    let (Some(functions), Some(count)) = (functions(), header_count(request)) else { return };
    let empty = rpw_pair_t {
        name_length: 0,
        name: std::ptr::null(),
        value_length: 0,
        value: std::ptr::null(),
    };
    let mut list: smallvec::SmallVec<[rpw_pair_t; 32]> = smallvec::smallvec![empty; count];
    // SAFETY: the list has room for `count` entries; nginx lends the strings until the request changes,
    // which nothing does in this function.
    unsafe {
        let rc = (functions.headers)(pointer(request), list.as_mut_ptr(), count as c_int, 0);
        if rc != NGX_OK {
            return;
        }
        for (name, value) in types::pairs(list.as_ptr(), count) {
            if !name.is_empty() {
                f(name, value);
            }
        }
    }
}

/// nginx's cleanup record, `ngx_http_cleanup_t`.
#[repr(C)]
struct Cleanup {
    handler: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
    next: *mut Cleanup,
}

/// Has nginx call `handler` with the request's address when it frees the request; false when out of memory.
pub(super) fn add_cleanup(request: RequestId, handler: unsafe extern "C" fn(*mut c_void)) -> bool {
    let Some(functions) = functions() else { return false };
    // SAFETY: the request is the running one, and nginx returns NULL or a record of this layout.
    unsafe {
        let record = (functions.cleanup_add)(pointer(request), 0).cast::<Cleanup>();
        let Some(record) = record.as_mut() else { return false };
        record.handler = Some(handler);
        record.data = pointer(request);
    }
    true
}

/// Memory of that many bytes that lives as long as the request; `None` when there is none.
pub(super) fn allocate(request: RequestId, size: usize) -> Option<*mut u8> {
    let functions = functions()?;
    // SAFETY: the request is the running one; nginx returns NULL or a record of this layout, without a handler.
    let record =
        unsafe { (functions.cleanup_add)(pointer(request), size).cast::<Cleanup>().as_ref() };
    record.map(|record| record.data.cast()).filter(|data: &*mut u8| !data.is_null())
}

/// Sets a header of the response as `ngx.header[NAME] = VALUE` does, or adds a line when not `alone`; without a value takes
/// the header away. False when ngx_lua does not.
pub(super) fn set_response_header(
    request: RequestId,
    name: &[u8],
    value: Option<&[u8]>,
    alone: bool,
) -> bool {
    let Some(functions) = functions() else { return false };
    let (is_nil, value) = (value.is_none(), value.unwrap_or_default());
    let mut error = std::ptr::null();
    // SAFETY: the request is the running one; ngx_lua copies name and value, and there is no list of values.
    let rc = unsafe {
        (functions.set_response_header)(
            pointer(request),
            name.as_ptr(),
            name.len(),
            is_nil.into(),
            value.as_ptr(),
            value.len(),
            std::ptr::null_mut(),
            0,
            alone.into(),
            &raw mut error,
        )
    };
    rc == NGX_OK
}

pub(super) fn pointer(request: RequestId) -> *mut c_void {
    request.0.get() as *mut c_void
}

fn pointer_or_null(request: Option<RequestId>) -> *mut c_void {
    request.map_or(std::ptr::null_mut(), pointer)
}

/// Posts a semaphore of ngx_lua: that of a stream that waits, or of the light thread that waits for work.
pub(super) fn post(semaphore: NonZeroUsize) {
    let Some(functions) = functions() else { return };
    // SAFETY: the semaphore lives: its finalizer calls `rpw_semaphore_gone` first, and then nothing posts it.
    unsafe {
        (functions.semaphore_post)(semaphore.get() as *mut c_void, 1);
    }
}

fn escape_controls(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 8);
    for &byte in message {
        if byte.is_ascii_control() && byte != b'\t' {
            out.extend(byte.escape_ascii());
        } else {
            out.push(byte);
        }
    }
    out
}
