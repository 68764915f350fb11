//! A host whose requests live in memory.

use super::{number, request_id};
use crate::abi::{Attribute, LogLevel};
use crate::callout::Upstream;
use crate::limits;
use crate::ports::{
    Clock, ForeignError, ForeignKind, Host, Jobs, Listening, Log, Phase, RequestId, RequestSummary,
    Requests, SetPropertyError, Stores,
};
use crate::snapshot::HeaderMap;
use crate::store::{Address, MemoryStore, Store};
use parking_lot::{Mutex, MutexGuard};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// A request. Its fields can be changed at any time with [`SimHost::with`].
pub struct Request {
    /// Its headers, without `Host`.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    attributes: Vec<(Attribute<'static>, Vec<u8>)>,
    properties: Vec<Property>,
    /// Trailers of its response.
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where it stands.
    pub phase: Phase,
    /// Whether the response's headers went out.
    pub headers_sent: bool,
    /// The status of the response; 0 while there is none.
    pub status: u16,
    /// Path and query as filters set them.
    pub path: Option<Vec<u8>>,
}

struct Property {
    path: Vec<u8>,
    value: Vec<u8>,
    writable: bool,
}

impl Default for Request {
    /// `GET /` of a client that sends nothing but a Host header.
    fn default() -> Self {
        let request = Self {
            headers: Vec::new(),
            attributes: Vec::new(),
            properties: Vec::new(),
            trailers: Vec::new(),
            phase: Phase::Request,
            headers_sent: false,
            status: 0,
            path: None,
        };
        request
            .attribute(Attribute::RequestMethod, "GET")
            .attribute(Attribute::RequestScheme, "http")
            .attribute(Attribute::RequestAuthority, "example.com")
            .attribute(Attribute::RequestPath, "/")
    }
}

impl Request {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a trailer of the response.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.into(), value.into()));
        self
    }

    /// Sets an attribute.
    pub fn attribute(mut self, attribute: Attribute<'static>, value: impl AsRef<[u8]>) -> Self {
        self.set_attribute(attribute, value.as_ref());
        self
    }

    /// Like [`Request::attribute`].
    pub fn set_attribute(&mut self, attribute: Attribute<'static>, value: &[u8]) {
        self.attributes.retain(|(known, _)| *known != attribute);
        self.attributes.push((attribute, value.to_vec()));
    }

    /// Sets a property of the host's own, with one segment in its path, that filters cannot set.
    pub fn property(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.set_property(name, value.as_ref(), false);
        self
    }

    /// Like [`Request::property`], for one that filters may set.
    pub fn writable(mut self, name: &str, value: &str) -> Self {
        self.set_property(name, value.as_bytes(), true);
        self
    }

    /// Sets a property of the host's own, or adds it.
    pub fn set_property(&mut self, name: &str, value: &[u8], writable: bool) {
        self.properties.retain(|property| property.path != name.as_bytes());
        self.properties.push(Property { path: name.into(), value: value.to_vec(), writable });
    }

    /// The value of a property of the host's own.
    pub fn get_property(&self, name: &str) -> Option<&[u8]> {
        self.find(name.as_bytes()).map(|property| property.value.as_slice())
    }

    fn find(&self, path: &[u8]) -> Option<&Property> {
        self.properties.iter().find(|property| property.path == path)
    }

    fn find_attribute(&self, attribute: Attribute<'_>) -> Option<&[u8]> {
        if attribute == Attribute::RequestPath && self.path.is_some() {
            return self.path.as_deref();
        }
        let is = |known: Attribute<'_>| match (known, attribute) {
            (Attribute::ResponseHeader(a), Attribute::ResponseHeader(b)) => {
                a.eq_ignore_ascii_case(b)
            }
            _ => known == attribute,
        };
        let found = self.attributes.iter().find(|(known, _)| is(*known));
        found.map(|(_, value)| value.as_slice())
    }
}

/// Called with a line of the log, or with the path of a property, before the host looks at it.
pub type Hook = Box<dyn Fn(&[u8]) + Send + Sync>;

/// A function of the embedder: its result for those arguments.
pub type ForeignFunction = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, ForeignError> + Send + Sync>;

/// A [`Host`] with requests, a log, clocks and a store of its own, which can be read and changed from outside.
pub struct SimHost {
    inner: Mutex<Inner>,
    settings: Settings,
}

/// What a [`SimHost`] has from the beginning.
pub struct Settings {
    /// What the wall clock shows, in nanoseconds since the Unix epoch. It stands still.
    pub wall_clock: u64,
    /// What all plugins share.
    pub store: Arc<dyn Store>,
    /// Upstreams by name.
    pub upstreams: Vec<(Vec<u8>, Upstream)>,
    /// Functions of the embedder by name. Those of [`ForeignKind::Later`] are not called: they become work of the plugin.
    pub foreign: Vec<(Vec<u8>, ForeignKind, ForeignFunction)>,
    /// Called with each line of the log before it is kept.
    pub on_log: Option<Hook>,
    /// Called with the path of each property of the host's own that is read, before it is looked up.
    pub on_property: Option<Hook>,
    /// Panics when the host is dropped with warnings that were not taken by [`SimHost::warned`]: for tests.
    pub warnings_are_taken: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            wall_clock: WALL_CLOCK,
            store: Arc::new(MemoryStore::new(SHARED_MEMORY)),
            upstreams: Vec::new(),
            foreign: Vec::new(),
            on_log: None,
            on_property: None,
            warnings_are_taken: false,
        }
    }
}

struct Inner {
    requests: Vec<Request>,
    log: Vec<(LogLevel, String)>,
    level: LogLevel,
    woken: Vec<usize>,
    /// Nanoseconds.
    monotonic: u64,
    work_waits: bool,
    ending: bool,
    listening: Listening,
    listeners_woken: Vec<Address>,
    process: u64,
}

/// Bytes of the store by default: little, so that tests can fill it.
pub const SHARED_MEMORY: usize = 512 * 1024;

/// What the wall clock shows by default.
pub const WALL_CLOCK: u64 = 1_700_000_000_000_000_000;
/// What the monotonic clock shows at first.
pub const MONOTONIC_CLOCK: u64 = 5_000_000_000;

impl SimHost {
    /// A host without requests.
    pub fn new() -> Arc<Self> {
        Self::with_settings(Settings::default())
    }

    /// A host without requests, other than the default one.
    pub fn with_settings(settings: Settings) -> Arc<Self> {
        let inner = Inner {
            requests: Vec::new(),
            log: Vec::new(),
            level: LogLevel::Info,
            woken: Vec::new(),
            monotonic: MONOTONIC_CLOCK,
            work_waits: false,
            ending: false,
            listening: Listening::At(7),
            listeners_woken: Vec::new(),
            process: 1,
        };
        Arc::new(Self { inner: Mutex::new(inner), settings })
    }

    /// Adds a request.
    pub fn add(&self, request: Request) -> RequestId {
        let mut inner = self.lock();
        inner.requests.push(request);
        request_id(inner.requests.len() - 1)
    }

    /// Reads or changes a request.
    pub fn with<R>(&self, request: RequestId, f: impl FnOnce(&mut Request) -> R) -> R {
        f(&mut self.lock().requests[number(request)])
    }

    /// Forgets all requests and what was logged, and sets the monotonic clock back.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.requests.clear();
        inner.log.clear();
        inner.woken.clear();
        inner.monotonic = MONOTONIC_CLOCK;
    }

    /// Sets the least severe level that is kept.
    pub fn set_log_level(&self, level: LogLevel) {
        self.lock().level = level;
    }

    /// Whether a plugin has said since the last call that it has work.
    pub fn work_waits(&self) -> bool {
        std::mem::take(&mut self.lock().work_waits)
    }

    /// From now on the process is about to end.
    pub fn end(&self) {
        self.lock().ending = true;
    }

    /// From now on this is another process, as after a fork.
    pub fn fork(&self) {
        self.lock().process += 1;
    }

    /// Moves the monotonic clock.
    pub fn pass(&self, milliseconds: u64) {
        self.lock().monotonic += milliseconds * 1_000_000;
    }

    /// Sets how the process is notified of messages in queues.
    pub fn set_listening(&self, listening: Listening) {
        self.lock().listening = listening;
    }

    /// Takes the listeners of queues that were woken, in order.
    pub fn listeners_woken(&self) -> Vec<Address> {
        std::mem::take(&mut self.lock().listeners_woken)
    }

    /// Takes the wakers that were called, in order.
    pub fn woken(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().woken)
    }

    /// Takes the whole log: levels and lines.
    pub fn take_log(&self) -> Vec<(LogLevel, String)> {
        std::mem::take(&mut self.lock().log)
    }

    /// Takes what filters logged out of the log, without `wasm log NAME: `.
    pub fn said(&self) -> Vec<String> {
        self.take("wasm log ").into_iter().map(|(_, text)| text).collect()
    }

    /// Like [`SimHost::said`], with the level in front.
    pub fn said_at(&self) -> Vec<String> {
        let lines = self.take("wasm log ");
        lines.into_iter().map(|(level, text)| format!("{level:?} {text}")).collect()
    }

    /// Takes what the library logged of plugins out of the log, without `wasm plugin NAME: `.
    pub fn warned(&self) -> Vec<String> {
        self.take("wasm plugin ").into_iter().map(|(_, text)| text).collect()
    }

    /// Takes the lines that begin so, and returns what follows the plugin's name.
    fn take(&self, prefix: &str) -> Vec<(LogLevel, String)> {
        let log = &mut self.lock().log;
        let taken = log.extract_if(.., |(_, line)| line.starts_with(prefix));
        let text = |line: String| line.split_once(": ").expect("a plugin's name").1.to_string();
        taken.map(|(level, line)| (level, text(line))).collect()
    }

    fn find_foreign(&self, name: &[u8]) -> Option<&(Vec<u8>, ForeignKind, ForeignFunction)> {
        self.settings.foreign.iter().find(|(known, _, _)| known == name)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    fn read<R>(&self, request: RequestId, f: impl FnOnce(&Request) -> R) -> R {
        f(&self.lock().requests[number(request)])
    }
}

impl Drop for SimHost {
    fn drop(&mut self) {
        if self.settings.warnings_are_taken && !std::thread::panicking() {
            assert_eq!(self.warned(), [""; 0], "warnings that were not taken");
        }
    }
}

impl Host for SimHost {
    fn process(&self) -> u64 {
        self.lock().process
    }
}

impl Log for SimHost {
    fn log(&self, _: Option<RequestId>, level: LogLevel, message: &[u8]) {
        if let Some(hook) = &self.settings.on_log {
            hook(message);
        }
        self.lock().log.push((level, String::from_utf8_lossy(message).into_owned()));
    }

    fn log_level(&self, _: Option<RequestId>) -> LogLevel {
        self.lock().level
    }
}

impl Clock for SimHost {
    fn wall_clock(&self) -> u64 {
        self.settings.wall_clock
    }

    fn monotonic_clock(&self) -> u64 {
        self.lock().monotonic
    }

    fn random(&self, out: &mut [u8]) -> bool {
        out.fill(0x2a);
        true
    }
}

impl Requests for SimHost {
    fn phase(&self, request: RequestId) -> Phase {
        self.read(request, |r| r.phase)
    }

    fn attribute(&self, request: RequestId, attribute: Attribute<'_>, out: &mut Vec<u8>) -> bool {
        out.clear();
        self.read(request, |r| {
            r.find_attribute(attribute).map(|value| out.extend_from_slice(value)).is_some()
        })
    }

    fn request_headers(&self, request: RequestId, out: &mut HeaderMap) {
        self.read(request, |r| r.headers.iter().for_each(|(name, value)| out.push(name, value)));
    }

    fn request_summary(&self, request: RequestId) -> RequestSummary {
        self.read(request, |r| RequestSummary {
            headers: r.headers.len() as u32,
            authority: r.find_attribute(Attribute::RequestAuthority).is_some(),
            body: r.headers.iter().any(|(name, _)| name == b"content-length"),
        })
    }

    fn headers_sent(&self, request: RequestId) -> bool {
        self.read(request, |r| r.headers_sent)
    }

    fn response_status(&self, request: RequestId) -> u16 {
        self.read(request, |r| r.status)
    }

    fn merges_slashes(&self, _: RequestId) -> bool {
        true
    }

    fn set_request_scheme(&self, request: RequestId, scheme: &[u8]) {
        assert!(scheme.iter().all(u8::is_ascii_graphic), "{:?}", scheme.escape_ascii());
        self.with(request, |r| r.set_attribute(Attribute::RequestScheme, scheme));
    }

    fn response_trailers(&self, request: RequestId, out: &mut HeaderMap) {
        self.read(request, |r| {
            let shown = r.trailers.iter().take(limits::TRAILERS);
            shown.for_each(|(name, value)| out.push(name, value));
        });
    }

    fn response_trailer(&self, request: RequestId, name: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        self.read(request, |r| {
            let found = r.trailers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| out.extend_from_slice(value)).is_some()
        })
    }

    fn has_property(&self, path: &[u8]) -> bool {
        !path.contains(&0)
    }

    fn property(&self, request: RequestId, path: &[u8], out: &mut Vec<u8>) -> bool {
        if let Some(hook) = &self.settings.on_property {
            hook(path);
        }
        out.clear();
        self.read(request, |r| {
            r.find(path).map(|property| out.extend_from_slice(&property.value)).is_some()
        })
    }

    fn set_property(
        &self,
        request: RequestId,
        path: &[u8],
        value: &[u8],
    ) -> Result<(), SetPropertyError> {
        let text = |what| format!("property \"{}\" {what}", path.escape_ascii());
        self.with(request, |r| match r.properties.iter_mut().find(|p| p.path == path) {
            Some(_) if value.contains(&0) => {
                Err(SetPropertyError::BadValue(text("is not set: a value may hold no NUL")))
            }
            Some(found) if found.writable => {
                found.value = value.to_vec();
                Ok(())
            }
            Some(_) => Err(SetPropertyError::ReadOnly(text("cannot be set"))),
            None => Err(SetPropertyError::NotFound),
        })
    }

    fn wake(&self, waker: NonZeroUsize) {
        self.lock().woken.push(waker.get());
    }
}

impl Stores for SimHost {
    fn shared(&self) -> Option<&dyn Store> {
        Some(&*self.settings.store)
    }

    fn listening(&self) -> Listening {
        self.lock().listening
    }

    fn wake_listener(&self, address: Address) {
        self.lock().listeners_woken.push(address);
    }
}

impl Jobs for SimHost {
    fn work_waits(&self) {
        self.lock().work_waits = true;
    }

    fn callbacks_wait(&self) {
        self.lock().work_waits = true;
    }

    fn is_ending(&self) -> bool {
        self.lock().ending
    }

    fn upstream(&self, name: &[u8]) -> Option<Upstream> {
        let found = self.settings.upstreams.iter().find(|(known, _)| known == name);
        found.map(|(_, upstream)| upstream.clone())
    }

    fn foreign(&self, name: &[u8]) -> Option<ForeignKind> {
        self.find_foreign(name).map(|(_, kind, _)| *kind)
    }

    fn call_foreign(&self, name: &[u8], arguments: &[u8]) -> Result<Vec<u8>, ForeignError> {
        let (_, _, function) = self.find_foreign(name).ok_or(ForeignError::Failed)?;
        function(arguments)
    }
}
