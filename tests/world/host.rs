//! The world's side of [`Host`].

use super::{number, request_id};
use resty_proxy_wasm::abi::LogLevel;
use resty_proxy_wasm::callout::Upstream;
use resty_proxy_wasm::guest::deadline;
use resty_proxy_wasm::ports::{
    ForeignError, ForeignKind, Host, Listening, Phase, RequestId, RequestSummary, SetVariableError,
};
use resty_proxy_wasm::shm::{Address, Own, Shared};
use resty_proxy_wasm::snapshot::HeaderMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What is known of a request; tests set the fields as they like.
pub struct Request {
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    variables: Vec<Variable>,
    pub phase: Phase,
    pub headers_sent: bool,
    pub status: u16,
    /// What filters made of the path.
    pub path: Option<Vec<u8>>,
    scheme: Option<Vec<u8>>,
}

struct Variable {
    name: Vec<u8>,
    value: Vec<u8>,
    writable: bool,
}

impl Default for Request {
    /// `GET /` of a client that sends nothing but a Host header.
    fn default() -> Self {
        let request = Self {
            headers: Vec::new(),
            variables: Vec::new(),
            phase: Phase::Request,
            headers_sent: false,
            status: 0,
            path: None,
            scheme: None,
        };
        request
            .variable("request_method", "GET")
            .variable("scheme", "http")
            .variable("http_host", "example.com")
            .variable("request_uri", "/")
    }
}

impl Request {
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A variable that cannot be set.
    pub fn variable(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.put(name, value.as_ref(), false);
        self
    }

    /// A variable that filters may set.
    pub fn writable(mut self, name: &str, value: &str) -> Self {
        self.put(name, value.as_bytes(), true);
        self
    }

    pub fn put(&mut self, name: &str, value: &[u8], writable: bool) {
        self.variables.retain(|v| v.name != name.as_bytes());
        self.variables.push(Variable { name: name.into(), value: value.to_vec(), writable });
    }

    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.find(name.as_bytes()).map(|v| v.value.as_slice())
    }

    fn find(&self, name: &[u8]) -> Option<&Variable> {
        self.variables.iter().find(|v| v.name == name)
    }
}

/// See the module.
pub struct World {
    inner: Mutex<Inner>,
    shared: OnceLock<Shared>,
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
}

/// A variable whose reading makes the host panic.
pub const BROKEN: &[u8] = b"broken";

/// What a line of the log ends in that takes [`SLOW_TICKS`] to write. Somebody must let time pass meanwhile.
pub const SLOW: &[u8] = b"slow";
const SLOW_TICKS: u64 = 3;

/// Bytes of what workers share: little, so that tests can fill it.
pub const SHARED_MEMORY: usize = 512 * 1024;

/// What the clocks show at first.
pub const WALL_CLOCK: u64 = 1_700_000_000_000_000_000;
pub const MONOTONIC_CLOCK: u64 = 5_000_000_000;

impl World {
    pub fn new() -> Arc<Self> {
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
        };
        Arc::new(Self { inner: Mutex::new(inner), shared: OnceLock::new() })
    }

    pub fn add(&self, request: Request) -> RequestId {
        let mut inner = self.lock();
        inner.requests.push(request);
        request_id(inner.requests.len() - 1)
    }

    /// Looks at a request, or changes it.
    pub fn with<R>(&self, request: RequestId, f: impl FnOnce(&mut Request) -> R) -> R {
        f(&mut self.lock().requests[number(request)])
    }

    /// As it was at first, but for the level of its log.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.requests.clear();
        inner.log.clear();
        inner.woken.clear();
        inner.monotonic = MONOTONIC_CLOCK;
    }

    pub fn set_log_level(&self, level: LogLevel) {
        self.lock().level = level;
    }

    /// Whether a plugin said that it has work since the last look.
    pub fn work_waits(&self) -> bool {
        std::mem::take(&mut self.lock().work_waits)
    }

    /// The process is to end.
    pub fn end(&self) {
        self.lock().ending = true;
    }

    /// Time passes.
    pub fn pass(&self, milliseconds: u64) {
        self.lock().monotonic += milliseconds * 1_000_000;
    }

    pub fn set_listening(&self, listening: Listening) {
        self.lock().listening = listening;
    }

    /// The listeners of queues that were woken, in order.
    pub fn listeners_woken(&self) -> Vec<Address> {
        std::mem::take(&mut self.lock().listeners_woken)
    }

    /// The wakers that were called, in order.
    pub fn woken(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().woken)
    }

    /// What filters logged at info, without `wasm log NAME: `. Taken out of the log.
    pub fn said(&self) -> Vec<String> {
        self.take("wasm log ").into_iter().map(|(_, text)| text).collect()
    }

    /// What filters logged, with the level in front.
    pub fn said_at(&self) -> Vec<String> {
        let lines = self.take("wasm log ");
        lines.into_iter().map(|(level, text)| format!("{level:?} {text}")).collect()
    }

    /// What the host warned of: `CALLBACK: TEXT`. Taken out of the log; a world that ends with warnings that no test
    /// took fails the test.
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

    /// A panic of the host in one test leaves the world as it was.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<R>(&self, request: RequestId, f: impl FnOnce(&Request) -> R) -> R {
        f(&self.lock().requests[number(request)])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.warned(), [""; 0], "nobody looked at these warnings");
        }
    }
}

impl Host for World {
    fn log(&self, _: Option<RequestId>, level: LogLevel, message: &[u8]) {
        if message.ends_with(SLOW) {
            let until = deadline::passed() + SLOW_TICKS;
            while deadline::passed() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.lock().log.push((level, String::from_utf8_lossy(message).into_owned()));
    }

    fn log_level(&self, _: Option<RequestId>) -> LogLevel {
        self.lock().level
    }

    fn wall_clock(&self) -> u64 {
        WALL_CLOCK
    }

    fn monotonic_clock(&self) -> u64 {
        self.lock().monotonic
    }

    fn random(&self, out: &mut [u8]) -> bool {
        out.fill(0x2a);
        true
    }

    fn variable(&self, request: RequestId, name: &[u8], out: &mut Vec<u8>) -> bool {
        assert_ne!(name, BROKEN, "somebody looked at the variable that breaks the host");
        out.clear();
        self.read(request, |r| match r.find(name) {
            Some(found) => {
                out.extend_from_slice(&found.value);
                true
            }
            None => false,
        })
    }

    fn set_variable(
        &self,
        request: RequestId,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), SetVariableError> {
        self.with(request, |r| match r.variables.iter_mut().find(|v| v.name == name) {
            Some(found) if found.writable => {
                found.value = value.to_vec();
                Ok(())
            }
            Some(_) => Err(SetVariableError::ReadOnly),
            None => Err(SetVariableError::NotFound),
        })
    }

    fn request_headers(&self, request: RequestId, out: &mut HeaderMap) {
        self.read(request, |r| r.headers.iter().for_each(|(name, value)| out.push(name, value)));
    }

    fn request_summary(&self, request: RequestId) -> RequestSummary {
        self.read(request, |r| RequestSummary {
            headers: r.headers.len() as u32,
            authority: r.find(b"http_host").is_some(),
            body: r.headers.iter().any(|(name, _)| name == b"content-length"),
        })
    }

    fn request_path(&self, request: RequestId, out: &mut Vec<u8>) {
        out.clear();
        self.read(request, |r| {
            let path = r.path.as_deref().or_else(|| r.get("request_uri"));
            out.extend_from_slice(path.unwrap_or_default());
        });
    }

    fn is_head(&self, request: RequestId) -> bool {
        self.read(request, |r| r.get("request_method") == Some(b"HEAD"))
    }

    fn names_methods(&self, _: RequestId) -> bool {
        true
    }

    fn merges_slashes(&self, _: RequestId) -> bool {
        true
    }

    fn request_scheme(&self, request: RequestId, out: &mut Vec<u8>) -> bool {
        out.clear();
        self.read(request, |r| {
            r.scheme.as_ref().map(|scheme| out.extend_from_slice(scheme)).is_some()
        })
    }

    fn set_request_scheme(&self, request: RequestId, scheme: &[u8]) {
        assert!(scheme.iter().all(u8::is_ascii_graphic), "{:?}", scheme.escape_ascii());
        self.with(request, |r| r.scheme = Some(scheme.to_vec()));
    }

    fn phase(&self, request: RequestId) -> Phase {
        self.read(request, |r| r.phase)
    }

    fn headers_sent(&self, request: RequestId) -> bool {
        self.read(request, |r| r.headers_sent)
    }

    fn response_status(&self, request: RequestId) -> u16 {
        self.read(request, |r| r.status)
    }

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
        (name == b"registered").then(|| Upstream::parse(b"https://127.0.0.1:8443", false))?
    }

    fn shared(&self) -> Option<&Shared> {
        let make = || Shared::new(SHARED_MEMORY, |_| panic!("nobody was killed")).expect("memory");
        Some(self.shared.get_or_init(make))
    }

    fn own(&self, plugin: &str) -> Own {
        self.shared().map(|shared| shared.own(plugin)).unwrap_or_default()
    }

    fn listening(&self) -> Listening {
        self.lock().listening
    }

    fn wake_listener(&self, address: Address) {
        self.lock().listeners_woken.push(address);
    }

    fn foreign(&self, name: &[u8]) -> Option<ForeignKind> {
        match name {
            b"reverse" | b"fails" | b"nowhere" => Some(ForeignKind::Now),
            b"later" => Some(ForeignKind::Later),
            _ => None,
        }
    }

    fn call_foreign(&self, name: &[u8], arguments: &[u8]) -> Result<Vec<u8>, ForeignError> {
        match name {
            b"reverse" => Ok(arguments.iter().rev().copied().collect()),
            b"fails" => Err(ForeignError::Failed),
            _ => Err(ForeignError::NotHere),
        }
    }

    fn wake(&self, waker: NonZeroUsize) {
        self.lock().woken.push(waker.get());
    }
}
