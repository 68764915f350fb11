//! nginx as the world: the functions of ngx_lua that need a request and no Lua state.
//!
//! The shell looks them up and hands their addresses over, so that this library links to nothing of nginx.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{Failure, RPW_CONTINUE, boundary, process, request, rpw_error_t, rpw_pair_t, types};
use crate::abi::LogLevel;
use crate::ports::{Host, Phase, RequestId, RequestSummary, SetVariableError};
use crate::snapshot::HeaderMap;

/// Functions of nginx and ngx_lua, each named as there. All are required.
///
/// Sources: nginx `src/http/ngx_http_request.c`; ngx_lua `src/ngx_http_lua_{variable,log,headers,phase,
/// misc,semaphore}.c`.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rpw_nginx_t {
    /// `ngx_http_cleanup_add`
    pub cleanup_add: Option<unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void>,
    /// `ngx_http_lua_ffi_raw_log`
    pub raw_log: Option<unsafe extern "C" fn(*mut c_void, c_int, *const u8, usize) -> c_int>,
    /// `ngx_http_lua_ffi_errlog_get_sys_filter_level`
    pub log_level: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `ngx_http_lua_ffi_var_get`
    pub var_get: Option<
        unsafe extern "C" fn(
            *mut c_void,
            *const u8,
            usize,
            *mut u8,
            c_int,
            *mut *const u8,
            *mut usize,
            *mut *const c_char,
        ) -> c_int,
    >,
    /// `ngx_http_lua_ffi_var_set`
    pub var_set: Option<
        unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8, *const u8, usize, *mut u8, usize) -> c_int,
    >,
    /// `ngx_http_lua_ffi_req_get_headers_count`
    pub headers_count: Option<unsafe extern "C" fn(*mut c_void, c_int, *mut c_int) -> c_int>,
    /// `ngx_http_lua_ffi_req_get_headers`
    pub headers: Option<unsafe extern "C" fn(*mut c_void, *mut rpw_pair_t, c_int, c_int) -> c_int>,
    /// `ngx_http_lua_ffi_get_phase`
    pub phase: Option<unsafe extern "C" fn(*mut c_void, *mut *const c_char) -> c_int>,
    /// `ngx_http_lua_ffi_headers_sent`
    pub headers_sent: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `ngx_http_lua_ffi_get_resp_status`
    pub response_status: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
    /// `ngx_http_lua_ffi_sema_post`
    pub semaphore_post: Option<unsafe extern "C" fn(*mut c_void, c_int) -> c_int>,
}

/// ngx_lua's phase numbers (`ngx_http_lua_common.h`, `NGX_HTTP_LUA_CONTEXT_*`).
mod context {
    pub const HEADER_FILTER: i32 = 0x20;
    pub const BODY_FILTER: i32 = 0x40;
    pub const REWRITE: i32 = 0x2;
    pub const ACCESS: i32 = 0x4;
    pub const CONTENT: i32 = 0x8;
    pub const SERVER_REWRITE: i32 = 0x8000;
}

const NGX_OK: c_int = 0;
const NGX_LOG_CRIT: c_int = 3;
const NGX_LOG_ERR: c_int = 4;
const NGX_LOG_WARN: c_int = 5;
const NGX_LOG_INFO: c_int = 7;
const NGX_LOG_DEBUG: c_int = 8;

/// Takes the functions of nginx over. Again is harmless: a reload brings a new Lua VM.
///
/// # Returns
/// `RPW_CONTINUE`, or `RPW_ERROR` when a function is missing.
/// # Safety
/// `functions` is valid for the call and its members are what their names say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_setup(functions: *const rpw_nginx_t, error: *mut rpw_error_t) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let functions = unsafe { functions.as_ref() }.ok_or_else(|| Failure::new("rpw_setup: NULL argument"))?;
        let nginx = Nginx::new(functions).ok_or_else(|| Failure::new("rpw_setup: a function is NULL"))?;
        process::watch_forks();
        NGINX.get_or_init(|| Arc::new(nginx));
        Ok(RPW_CONTINUE)
    })
}

static NGINX: OnceLock<Arc<Nginx>> = OnceLock::new();

/// The world, once the shell has set it up.
pub fn host() -> Result<Arc<dyn Host>, Failure> {
    match NGINX.get() {
        Some(nginx) => Ok(nginx.clone()),
        None => Err(Failure::new("rpw_setup was not called")),
    }
}

/// Writes a line of our own.
pub fn log(request: Option<RequestId>, level: LogLevel, message: &[u8]) {
    if let Some(nginx) = NGINX.get() {
        nginx.log(request, level, message);
    }
}

/// False for the fake requests of timers and of the TLS phases.
pub fn is_real(request: RequestId) -> bool {
    NGINX.get().is_some_and(|nginx| nginx.header_count(request).is_some())
}

/// True in log_by_lua.
pub fn in_log_phase(request: RequestId) -> bool {
    NGINX.get().is_some_and(|nginx| nginx.phase(request) == Phase::Log)
}

/// nginx's cleanup record, `ngx_http_cleanup_t`.
#[repr(C)]
struct Cleanup {
    handler: Option<unsafe extern "C" fn(*mut c_void)>,
    data: *mut c_void,
    next: *mut Cleanup,
}

/// Has nginx call `handler` with the request's address when it frees the request; false when out of memory.
pub fn add_cleanup(request: RequestId, handler: unsafe extern "C" fn(*mut c_void)) -> bool {
    let Some(nginx) = NGINX.get() else { return false };
    // SAFETY: the request is the running one, and nginx returns NULL or a record of this layout.
    unsafe {
        let record = (nginx.cleanup_add)(pointer(request), 0).cast::<Cleanup>();
        let Some(record) = record.as_mut() else { return false };
        record.handler = Some(handler);
        record.data = pointer(request);
    }
    true
}

fn pointer(request: RequestId) -> *mut c_void {
    request.0.get() as *mut c_void
}

fn pointer_or_null(request: Option<RequestId>) -> *mut c_void {
    request.map_or(std::ptr::null_mut(), pointer)
}

macro_rules! nginx {
    ($($name:ident: $ty:ty),* $(,)?) => {
        /// The same functions, all there.
        struct Nginx {
            $($name: $ty,)*
            started: Instant,
        }

        impl Nginx {
            fn new(f: &rpw_nginx_t) -> Option<Self> {
                Some(Self { $($name: f.$name?,)* started: Instant::now() })
            }
        }
    };
}

nginx! {
    cleanup_add: unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void,
    raw_log: unsafe extern "C" fn(*mut c_void, c_int, *const u8, usize) -> c_int,
    log_level: unsafe extern "C" fn(*mut c_void) -> c_int,
    var_get: unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8, c_int, *mut *const u8, *mut usize, *mut *const c_char) -> c_int,
    var_set: unsafe extern "C" fn(*mut c_void, *const u8, usize, *mut u8, *const u8, usize, *mut u8, usize) -> c_int,
    headers_count: unsafe extern "C" fn(*mut c_void, c_int, *mut c_int) -> c_int,
    headers: unsafe extern "C" fn(*mut c_void, *mut rpw_pair_t, c_int, c_int) -> c_int,
    phase: unsafe extern "C" fn(*mut c_void, *mut *const c_char) -> c_int,
    headers_sent: unsafe extern "C" fn(*mut c_void) -> c_int,
    response_status: unsafe extern "C" fn(*mut c_void) -> c_int,
    semaphore_post: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
}

impl Nginx {
    /// Lines of request headers, `None` when this is no real request.
    fn header_count(&self, request: RequestId) -> Option<usize> {
        let mut truncated = 0;
        // SAFETY: the request lives: it is the running one, or its cleanup handler runs.
        let count = unsafe { (self.headers_count)(pointer(request), 0, &raw mut truncated) };
        usize::try_from(count).ok()
    }

    /// Calls `f` with each request header, names in lower case.
    fn for_each_header(&self, request: RequestId, mut f: impl FnMut(&[u8], &[u8])) {
        let Some(count) = self.header_count(request) else { return };
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
            let rc = (self.headers)(pointer(request), list.as_mut_ptr(), count as c_int, 0);
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
}

impl Host for Nginx {
    fn log(&self, request: Option<RequestId>, level: LogLevel, message: &[u8]) {
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
            (self.raw_log)(pointer_or_null(request), level, message.as_ptr(), message.len());
        }
    }

    fn log_level(&self, request: Option<RequestId>) -> LogLevel {
        // SAFETY: reads a number of the request's log, or of the worker's.
        match unsafe { (self.log_level)(pointer_or_null(request)) } {
            ..=NGX_LOG_CRIT => LogLevel::Critical,
            NGX_LOG_ERR => LogLevel::Error,
            // Notice lies between: info lines are not written there.
            NGX_LOG_WARN..NGX_LOG_INFO => LogLevel::Warn,
            NGX_LOG_INFO => LogLevel::Info,
            _ => LogLevel::Trace,
        }
    }

    fn wall_clock(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn monotonic_clock(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn random(&self, out: &mut [u8]) -> bool {
        getrandom::fill(out).is_ok()
    }

    fn variable(&self, request: RequestId, name: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let mut lower = name.to_vec();
        let (mut value, mut length) = (std::ptr::null(), 0);
        let mut error = std::ptr::null();
        // SAFETY: `lower` has room for the name; nginx lends the value, which is copied at once.
        unsafe {
            let rc = (self.var_get)(
                pointer(request),
                name.as_ptr(),
                name.len(),
                lower.as_mut_ptr(),
                0,
                &raw mut value,
                &raw mut length,
                &raw mut error,
            );
            if rc != NGX_OK {
                return false;
            }
            out.extend_from_slice(types::bytes(value.cast(), length));
        }
        true
    }

    fn set_variable(&self, request: RequestId, name: &[u8], value: &[u8]) -> Result<(), SetVariableError> {
        let mut lower = name.to_vec();
        let mut error = [0u8; 512];
        // A NULL value would make the variable undefined; an empty one is a value.
        let data = if value.is_empty() { c"".as_ptr().cast() } else { value.as_ptr() };
        // SAFETY: `lower` has room for the name; nginx copies the value and writes at most the given bytes of
        // error, the last of which stays NUL.
        let rc = unsafe {
            (self.var_set)(
                pointer(request),
                name.as_ptr(),
                name.len(),
                lower.as_mut_ptr(),
                data,
                value.len(),
                error.as_mut_ptr(),
                error.len() - 1,
            )
        };
        if rc == NGX_OK {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&error).map(CStr::to_bytes).unwrap_or_default();
        let unknown = text.windows(NOT_FOUND.len()).any(|part| part == NOT_FOUND);
        Err(if unknown { SetVariableError::NotFound } else { SetVariableError::ReadOnly })
    }

    fn request_headers(&self, request: RequestId, out: &mut HeaderMap) {
        self.for_each_header(request, |name, value| {
            if !name.eq_ignore_ascii_case(b"host") {
                out.push(name, value);
            }
        });
    }

    fn request_summary(&self, request: RequestId) -> RequestSummary {
        let mut summary = RequestSummary::default();
        self.for_each_header(request, |name, value| {
            match name {
                b"host" => {
                    summary.authority = true;
                    return;
                }
                b"content-length" => summary.body |= value != b"0",
                b"transfer-encoding" => summary.body = true,
                _ => {}
            }
            summary.headers += 1;
        });
        summary
    }

    fn request_path(&self, request: RequestId, out: &mut Vec<u8>) {
        match request::path(request) {
            Some(path) => *out = path,
            None => {
                self.variable(request, b"request_uri", out);
            }
        }
    }

    fn set_request_path(&self, request: RequestId, path: &[u8]) {
        request::set_path(request, path);
    }

    fn request_scheme(&self, request: RequestId, out: &mut Vec<u8>) -> bool {
        request::scheme(request).map(|scheme| *out = scheme).is_some()
    }

    fn set_request_scheme(&self, request: RequestId, scheme: &[u8]) {
        request::set_scheme(request, scheme);
    }

    fn phase(&self, request: RequestId) -> Phase {
        let mut error = std::ptr::null();
        // SAFETY: reads a number of the request's ngx_lua context.
        match unsafe { (self.phase)(pointer(request), &raw mut error) } {
            context::HEADER_FILTER => Phase::ResponseHeaders,
            context::BODY_FILTER => Phase::ResponseBody,
            context::REWRITE | context::ACCESS | context::CONTENT | context::SERVER_REWRITE => Phase::Request,
            // LOG; phases without a request of their own, or no ngx_lua context any more: nothing can change.
            _ => Phase::Log,
        }
    }

    fn headers_sent(&self, request: RequestId) -> bool {
        // SAFETY: reads a bit of the request.
        unsafe { (self.headers_sent)(pointer(request)) != 0 }
    }

    fn response_status(&self, request: RequestId) -> u16 {
        // SAFETY: reads a number of the request.
        u16::try_from(unsafe { (self.response_status)(pointer(request)) }).unwrap_or(0)
    }

    fn wake(&self, waker: NonZeroUsize) {
        // SAFETY: the shell keeps the semaphore alive until it has taken the stream's outcome, and the waker
        // is forgotten then and when the stream ends.
        unsafe {
            (self.semaphore_post)(waker.get() as *mut c_void, 1);
        }
    }
}

/// How ngx_lua says that a variable does not exist (`ngx_http_lua_ffi_var_set`).
const NOT_FOUND: &[u8] = b"not found for writing";

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
