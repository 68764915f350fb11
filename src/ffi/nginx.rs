//! nginx as the world.

use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::functions::{Functions, functions};
use super::{
    Failure, attributes, foreign, listen, process, request_line, rpw_pair_t, shared, types,
    upstreams, variables, wakers, worker,
};
use crate::abi::{Attribute, LogLevel};
use crate::callout::Upstream;
use crate::codec::{header, target};
use crate::ports::{
    Clock, ForeignError, ForeignKind, Hint, Host, Jobs, Listening, Log, Phase, RequestId,
    RequestSummary, Requests, SetPropertyError, Stores,
};
use crate::snapshot::HeaderMap;
use crate::store::{Address, Counters, NoCounters, Store};

/// ngx_lua's phase numbers (`ngx_http_lua_common.h`, `NGX_HTTP_LUA_CONTEXT_*`).
mod context {
    pub const LOG: i32 = 0x10;
    pub const HEADER_FILTER: i32 = 0x20;
    pub const BODY_FILTER: i32 = 0x40;
    pub const REWRITE: i32 = 0x2;
    pub const ACCESS: i32 = 0x4;
    pub const CONTENT: i32 = 0x8;
    pub const SERVER_REWRITE: i32 = 0x8000;
}

pub(super) const NGX_OK: c_int = 0;
const NGX_LOG_CRIT: c_int = 3;
const NGX_LOG_ERR: c_int = 4;
const NGX_LOG_WARN: c_int = 5;
const NGX_LOG_INFO: c_int = 7;
const NGX_LOG_DEBUG: c_int = 8;

/// The world, once the shell has set it up.
pub fn host() -> Result<Arc<dyn Host>, Failure> {
    match World::get() {
        Some(world) => Ok(Arc::new(world)),
        None => Err(Failure::new("rpw_setup was not called")),
    }
}

/// Writes a line of our own.
pub fn log(request: Option<RequestId>, level: LogLevel, message: &[u8]) {
    if let Some(world) = World::get() {
        world.log(request, level, message);
    }
}

/// False for the fake requests of timers and of the TLS phases.
pub fn is_real(request: RequestId) -> bool {
    phase_of_real(request).is_some()
}

/// Where a request stands; `None` for a fake one, see [`is_real`].
pub fn phase_of_real(request: RequestId) -> Option<Phase> {
    let world = World::get()?;
    let phase = world.phase(request);
    // Fake ones are in none of the phases that have a name here.
    let is_real = phase != Phase::Other || world.header_count(request).is_some();
    is_real.then_some(phase)
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
pub fn allocate(request: RequestId, size: usize) -> Option<*mut u8> {
    let functions = functions()?;
    // SAFETY: the request is the running one; nginx returns NULL or a record of this layout, without a handler.
    let record =
        unsafe { (functions.cleanup_add)(pointer(request), size).cast::<Cleanup>().as_ref() };
    record.map(|record| record.data.cast()).filter(|data: &*mut u8| !data.is_null())
}

/// Sets a header of the response as `ngx.header[NAME] = VALUE` does, or adds a line when not `alone`; without a value takes
/// the header away. False when ngx_lua does not.
pub fn set_response_header(
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

/// nginx, of which there is one. Its functions are asked for at each call: after a reload ngx_lua may be at
/// another address, and VMs of before still end their requests.
#[derive(Clone, Copy)]
struct World;

impl World {
    fn get() -> Option<Self> {
        functions().map(|_| Self)
    }

    fn call(self) -> &'static Functions {
        functions().unwrap_or_else(|| unreachable!("a World is made after rpw_setup only"))
    }

    /// Lines of request headers, `None` when this is no real request.
    fn header_count(&self, request: RequestId) -> Option<usize> {
        let mut truncated = 0;
        // SAFETY: the request lives: it is the running one, or its cleanup handler runs.
        let count = unsafe { (self.call().headers_count)(pointer(request), 0, &raw mut truncated) };
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
            let rc = (self.call().headers)(pointer(request), list.as_mut_ptr(), count as c_int, 0);
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

    /// Reading the variable would freeze it: where the configuration names `$http_host` nginx keeps the value that
    /// was read first, and a Host that a filter sets later would not be passed on.
    fn host_header(&self, request: RequestId, out: &mut Vec<u8>) -> bool {
        let mut found = false;
        self.for_each_header(request, |name, value| {
            if !found && name == b"host" {
                found = true;
                out.extend_from_slice(value);
            }
        });
        found
    }
}

impl World {
    /// The path and the query of the request now: what a filter or the client wrote, while it stands for that, else as
    /// nginx writes it.
    fn request_path(&self, request: RequestId, out: &mut Vec<u8>) {
        // SAFETY: nothing changes the request while these are in use.
        let value = |name| unsafe { variables::borrow(request, name) };
        let uri = value(b"uri").unwrap_or_default();
        let args = value(b"args").unwrap_or_default();
        let merge_slashes = self.merges_slashes(request);
        let is_now = |target: &[u8]| target::stands_for(target, uri, args, merge_slashes);
        // SAFETY: as above.
        let target = || unsafe { request_line::target(request) }.or_else(|| value(b"request_uri"));
        out.clear();
        let written = worker::with(|worker| worker.requests.path(request));
        if let Some(written) = written.filter(|path| is_now(path)) {
            *out = written;
        } else if let Some(of_client) = target().filter(|target| is_now(target)) {
            out.extend_from_slice(of_client);
        } else {
            target::write(uri, args, out);
        }
    }

    /// From HTTP/2 on a body needs no header that announces it. GET and HEAD have none as a rule.
    fn may_have_body_of_http2(&self, request: RequestId) -> bool {
        let mut value = Vec::new();
        variables::read(request, b"server_protocol", &mut value)
            && !value.starts_with(b"HTTP/1")
            && !value.starts_with(b"HTTP/0")
            && variables::read(request, b"request_method", &mut value)
            && value != b"GET"
            && value != b"HEAD"
    }
}

impl Host for World {
    fn process(&self) -> u64 {
        process::current()
    }
}

impl Log for World {
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
            (self.call().raw_log)(pointer_or_null(request), level, message.as_ptr(), message.len());
        }
    }

    fn log_level(&self, request: Option<RequestId>) -> LogLevel {
        // SAFETY: reads a number of the request's log, or of the worker's.
        match unsafe { (self.call().log_level)(pointer_or_null(request)) } {
            ..=NGX_LOG_CRIT => LogLevel::Critical,
            NGX_LOG_ERR => LogLevel::Error,
            // Notice lies between: info lines are not written there.
            NGX_LOG_WARN..NGX_LOG_INFO => LogLevel::Warn,
            NGX_LOG_INFO => LogLevel::Info,
            _ => LogLevel::Trace,
        }
    }

    fn hint(&self, about: Hint) -> &'static str {
        match about {
            Hint::ForeignNotHere => "there is no Lua: register it with { async = true }",
            Hint::LocalResponse => {
                "on_http_response_headers was not called in header_filter_by_lua"
            }
            Hint::LocalResponseBody => "on_http_response_body was not called in body_filter_by_lua",
            Hint::SharedMemoryFull => {
                "raise shared_memory in wasm.setup, or set eviction = \"lru\""
            }
        }
    }
}

impl Clock for World {}

impl Requests for World {
    fn attribute(&self, request: RequestId, attribute: Attribute<'_>, out: &mut Vec<u8>) -> bool {
        match attribute {
            Attribute::RequestPath => {
                self.request_path(request, out);
                true
            }
            Attribute::RequestAuthority => {
                out.clear();
                self.host_header(request, out)
            }
            Attribute::RequestScheme => {
                if let Some(written) = worker::with(|worker| worker.requests.scheme(request)) {
                    *out = written;
                    return true;
                }
                attributes::read(request, attribute, out)
            }
            other => attributes::read(request, other, out),
        }
    }

    fn has_property(&self, path: &[u8]) -> bool {
        nginx_variables::named_by(path).is_some()
    }

    fn property(&self, request: RequestId, path: &[u8], out: &mut Vec<u8>) -> bool {
        match nginx_variables::named_by(path) {
            Some(b"http_host") => {
                out.clear();
                self.host_header(request, out)
            }
            Some(name) => variables::read(request, name, out),
            None => false,
        }
    }

    fn set_property(
        &self,
        request: RequestId,
        path: &[u8],
        value: &[u8],
    ) -> Result<(), SetPropertyError> {
        let name = nginx_variables::named_by(path).ok_or(SetPropertyError::NotFound)?;
        let shown = || name.escape_ascii();
        // nginx writes variables into messages as they are.
        if !header::is_value(value) && self.property(request, path, &mut Vec::new()) {
            return Err(SetPropertyError::BadValue(format!(
                "nginx variable \"{}\" is not set: a value may hold no CR, LF or NUL",
                shown()
            )));
        }
        if name.eq_ignore_ascii_case(QUERY) && !target::is_query(value) {
            return Err(SetPropertyError::BadValue(
                "nginx variable \"args\" is not set: a query may hold no white space, control character or #"
                    .into(),
            ));
        }
        variables::set(request, name, value)
    }

    fn response_trailers(&self, request: RequestId, out: &mut HeaderMap) {
        attributes::trailers(request, out);
    }

    fn response_trailer(&self, request: RequestId, name: &[u8], out: &mut Vec<u8>) -> bool {
        attributes::trailer(request, name, out)
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
        let mut has_length = false;
        self.for_each_header(request, |name, value| {
            match name {
                b"host" => {
                    summary.authority = true;
                    return;
                }
                b"content-length" => {
                    has_length = true;
                    summary.body |= value != b"0";
                }
                b"transfer-encoding" => summary.body = true,
                _ => {}
            }
            summary.headers += 1;
        });
        if !has_length && !summary.body {
            summary.body = self.may_have_body_of_http2(request);
        }
        summary
    }

    fn is_head(&self, request: RequestId) -> bool {
        request_line::is_head(request).unwrap_or_else(|| {
            let mut method = Vec::new();
            variables::read(request, b"request_method", &mut method) && method == b"HEAD"
        })
    }

    fn names_methods(&self, request: RequestId) -> bool {
        request_line::is_head(request).is_some()
    }

    fn merges_slashes(&self, request: RequestId) -> bool {
        // SAFETY: the request lives: it is the running one.
        unsafe { self.call().merge_slashes.of(pointer(request)) }
    }

    fn set_request_scheme(&self, request: RequestId, scheme: &[u8]) {
        worker::with(|worker| worker.requests.set_scheme(request, scheme));
    }

    fn phase(&self, request: RequestId) -> Phase {
        let mut error = std::ptr::null();
        // SAFETY: reads a number of the request's ngx_lua context.
        match unsafe { (self.call().phase)(pointer(request), &raw mut error) } {
            context::HEADER_FILTER => Phase::ResponseHeaders,
            context::BODY_FILTER => Phase::ResponseBody,
            context::REWRITE | context::ACCESS | context::CONTENT | context::SERVER_REWRITE => {
                Phase::Request
            }
            context::LOG => Phase::Log,
            _ => Phase::Other,
        }
    }

    fn headers_sent(&self, request: RequestId) -> bool {
        // SAFETY: reads a bit of the request.
        unsafe { (self.call().headers_sent)(pointer(request)) != 0 }
    }

    fn response_status(&self, request: RequestId) -> u16 {
        // SAFETY: reads a number of the request.
        u16::try_from(unsafe { (self.call().response_status)(pointer(request)) }).unwrap_or(0)
    }

    fn wake(&self, waker: NonZeroUsize) {
        wakers::post(waker);
    }
}

impl Jobs for World {
    fn work_waits(&self) {
        super::work::announce();
    }

    fn callbacks_wait(&self) {
        super::work::announce_callbacks();
    }

    fn is_ending(&self) -> bool {
        // SAFETY: it reads a number.
        unsafe { (self.call().worker_exiting)() != 0 }
    }

    fn upstream(&self, name: &[u8]) -> Option<Upstream> {
        upstreams::find(name)
    }

    fn foreign(&self, name: &[u8]) -> Option<ForeignKind> {
        foreign::find(name)
    }

    fn call_foreign(&self, name: &[u8], arguments: &[u8]) -> Result<Vec<u8>, ForeignError> {
        foreign::call(name, arguments)
    }
}

impl Stores for World {
    fn shared(&self) -> Option<&dyn Store> {
        shared::shared_by_all().map(|shared| shared as _)
    }

    fn counters(&self, plugin: &str) -> Arc<dyn Counters> {
        shared::shared().map_or_else(|| Arc::new(NoCounters) as _, |shared| shared.counters(plugin))
    }

    fn count_stand_in(&self, plugin: &str, function: &str, calls: u32) {
        if let Some(shared) = shared::shared() {
            // One that finds no room is counted without its name.
            let _ = shared.stand_in(plugin.as_bytes(), function.as_bytes(), calls.into());
        }
    }

    fn listening(&self) -> Listening {
        listen::listening()
    }

    fn wake_listener(&self, address: Address) {
        listen::wake(address);
    }
}

/// Posts a semaphore of ngx_lua: that of a stream that waits, or of the light thread that waits for work.
pub fn post(semaphore: NonZeroUsize) {
    let Some(functions) = functions() else { return };
    // SAFETY: the semaphore lives: its finalizer calls `rpw_semaphore_gone` first, and then nobody posts it.
    unsafe {
        (functions.semaphore_post)(semaphore.get() as *mut c_void, 1);
    }
}

/// nginx passes it on to upstreams as it is.
const QUERY: &[u8] = b"args";

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
