//! nginx as a host of the core.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::failure::Failure;
use super::process::PROCESS;
use super::worker::{self, Worker};
use super::{
    attributes, foreign, forks, listen, lua_vm, nginx, request_line, upstreams, variables,
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

/// nginx as a host, of which there is one. Its functions are asked for at each call: after a reload ngx_lua may be at
/// another address, and VMs of before still end their requests.
#[derive(Clone, Copy)]
struct NginxHost;

/// nginx, once the shell has set it up.
pub(super) fn host() -> Result<Arc<dyn Host>, Failure> {
    match lua_vm::functions() {
        Some(_) => Ok(Arc::new(NginxHost)),
        None => Err(Failure::new("rpw_setup was not called")),
    }
}

impl NginxHost {
    /// Reading the variable would freeze it: where the configuration names `$http_host` nginx keeps the value that
    /// was read first, and a Host that a filter sets later would not be passed on.
    fn host_header(&self, request: RequestId, out: &mut Vec<u8>) -> bool {
        let mut found = false;
        nginx::for_each_header(request, |name, value| {
            if !found && name == b"host" {
                found = true;
                out.extend_from_slice(value);
            }
        });
        found
    }

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

impl Host for NginxHost {
    fn process(&self) -> u64 {
        forks::process()
    }
}

impl Log for NginxHost {
    fn log(&self, request: Option<RequestId>, level: LogLevel, message: &[u8]) {
        nginx::log(request, level, message);
    }

    fn log_level(&self, request: Option<RequestId>) -> LogLevel {
        nginx::log_level(request)
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

impl Clock for NginxHost {}

impl Requests for NginxHost {
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
        nginx::for_each_header(request, |name, value| {
            if !name.eq_ignore_ascii_case(b"host") {
                out.push(name, value);
            }
        });
    }

    fn request_summary(&self, request: RequestId) -> RequestSummary {
        let mut summary = RequestSummary::default();
        let mut has_length = false;
        nginx::for_each_header(request, |name, value| {
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
        request_line::is_head_or_variable(request)
    }

    fn names_methods(&self, request: RequestId) -> bool {
        request_line::is_head(request).is_some()
    }

    fn merges_slashes(&self, request: RequestId) -> bool {
        nginx::merges_slashes(request)
    }

    fn set_request_scheme(&self, request: RequestId, scheme: &[u8]) {
        worker::with(|worker| worker.requests.set_scheme(request, scheme));
    }

    fn phase(&self, request: RequestId) -> Phase {
        nginx::phase(request)
    }

    fn progress(&self, request: RequestId) -> (Phase, bool) {
        let phase = nginx::phase(request);
        // They go out behind the header filters.
        (phase, phase != Phase::ResponseHeaders && nginx::headers_sent(request))
    }

    fn headers_sent(&self, request: RequestId) -> bool {
        nginx::headers_sent(request)
    }

    fn response_status(&self, request: RequestId) -> u16 {
        nginx::response_status(request)
    }

    fn wake(&self, waker: NonZeroUsize) {
        worker::with(|worker| worker.wakers.post(waker));
    }
}

impl Jobs for NginxHost {
    fn work_waits(&self) {
        worker::with(Worker::announce);
    }

    fn callbacks_wait(&self) {
        worker::with(Worker::announce_callbacks);
    }

    fn is_ending(&self) -> bool {
        nginx::is_exiting()
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

impl Stores for NginxHost {
    fn shared(&self) -> Option<&dyn Store> {
        PROCESS.shared.get_for_data().map(|shared| shared as _)
    }

    fn counters(&self, plugin: &str) -> Arc<dyn Counters> {
        PROCESS
            .shared
            .get()
            .map_or_else(|| Arc::new(NoCounters) as _, |shared| shared.counters(plugin))
    }

    fn count_stand_in(&self, plugin: &str, function: &str, calls: u32) {
        if let Some(shared) = PROCESS.shared.get() {
            // One that finds no room is counted without its name.
            let _ = shared.stand_in(plugin.as_bytes(), function.as_bytes(), calls.into());
        }
    }

    fn listening(&self) -> Listening {
        worker::with(|worker| worker.queue.listening())
    }

    fn wake_listener(&self, address: Address) {
        worker::with(|worker| listen::wake(worker, address));
    }
}

/// nginx passes it on to upstreams as it is.
const QUERY: &[u8] = b"args";
