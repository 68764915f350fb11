//! What the core asks of its host.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::attributes;
use super::recorder::Recorder;
use super::request::Request;
use crate::core::abi::{Attribute, LogLevel};
use crate::core::callout::Upstream;
use crate::core::limits;
use crate::core::ports::{
    self, Clock as _, Host, Jobs, Log, Phase, RequestId, Requests, SetPropertyError, Stores,
};
use crate::core::snapshot::HeaderMap;
use crate::core::store::{Counters, MemoryStore, Store};

/// One line of the log, as nginx would write it after the time, the level and the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub level: LogLevel,
    /// `wasm log NAME: TEXT` for what a filter said, `wasm plugin "NAME": …` for what the host said of it.
    pub text: String,
}

/// What the clocks show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The system's.
    Real,
    /// They show the time of the start and stand still until [`Server::pass`].
    Paused,
    /// They show always the same time at the start and stand still until [`Server::pass`], and random numbers are always the
    /// same.
    Simulated,
}

/// Where simulated clocks begin: 2023-11-14 22:13:20 UTC, and an hour after the start of the machine.
const WALL_CLOCK: u64 = 1_700_000_000_000_000_000;
const MONOTONIC_CLOCK: u64 = 3_600_000_000_000;

/// What filters share, by default of nginx.
const SHARED_MEMORY: usize = limits::DEFAULT_SHARED_MEMORY;

/// See the module.
pub struct Server {
    clock: Clock,
    started: Instant,
    began: SystemTime,
    level: LogLevel,
    store: MemoryStore,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Requests by their numbers.
    requests: BTreeMap<NonZeroUsize, Request>,
    /// How many requests there were.
    count: usize,
    log: Vec<LogLine>,
    upstreams: BTreeMap<Vec<u8>, Upstream>,
    woken: Vec<NonZeroUsize>,
    /// Nanoseconds that simulated clocks have gone on.
    passed: u64,
    random: u64,
    recorders: BTreeMap<String, Arc<Recorder>>,
}

impl Server {
    /// A server that writes log lines of that level and above.
    pub fn new(clock: Clock, level: LogLevel) -> Arc<Self> {
        Arc::new(Self {
            clock,
            started: Instant::now(),
            began: SystemTime::now(),
            level,
            store: MemoryStore::new(SHARED_MEMORY),
            inner: Mutex::default(),
        })
    }

    /// What is recorded of a filter.
    pub fn recorder(&self, filter: &str) -> Arc<Recorder> {
        let mut inner = self.lock();
        let make = || Arc::new(Recorder::new(self.store.counters(filter)));
        inner.recorders.entry(filter.into()).or_insert_with(make).clone()
    }

    /// Adds a request.
    pub fn add(&self, mut request: Request) -> RequestId {
        request.began = (self.wall_clock(), self.monotonic_clock());
        let mut inner = self.lock();
        let number = NonZeroUsize::MIN.saturating_add(inner.count);
        inner.count += 1;
        inner.requests.insert(number, request);
        RequestId(number)
    }

    /// Looks at a request, or changes it.
    pub fn with<R>(&self, request: RequestId, f: impl FnOnce(&mut Request) -> R) -> R {
        f(self.lock().requests.entry(request.0).or_default())
    }

    /// Forgets a request, which is not used any more.
    pub fn forget(&self, request: RequestId) {
        self.lock().requests.remove(&request.0);
    }

    /// The upstreams that filters know by a name.
    pub fn set_upstreams(&self, upstreams: Vec<(String, Upstream)>) {
        let named = upstreams.into_iter().map(|(name, upstream)| (name.into_bytes(), upstream));
        self.lock().upstreams = named.collect();
    }

    /// The lines that were written since the last look.
    pub fn take_log(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.lock().log)
    }

    /// Whether somebody who waits was woken since the last look.
    pub fn was_woken(&self, waker: NonZeroUsize) -> bool {
        let woken = &mut self.lock().woken;
        let before = woken.len();
        woken.retain(|other| *other != waker);
        woken.len() < before
    }

    /// Lets time pass: simulated clocks continue, with real ones it is waited for.
    pub fn pass(&self, time: Duration) {
        match self.clock {
            Clock::Real => std::thread::sleep(time),
            Clock::Simulated | Clock::Paused => {
                let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                let passed = &mut self.lock().passed;
                *passed = passed.saturating_add(nanoseconds);
            }
        }
    }

    /// Milliseconds since the start, by the monotonic clock.
    pub fn passed_ms(&self) -> u64 {
        let began = if self.clock == Clock::Real { 0 } else { MONOTONIC_CLOCK };
        (self.monotonic_clock() - began) / 1_000_000
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<R>(&self, request: RequestId, f: impl FnOnce(&Request) -> R) -> Option<R> {
        self.lock().requests.get(&request.0).map(f)
    }
}

fn since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Host for Server {}

impl Log for Server {
    fn log(&self, _: Option<RequestId>, level: LogLevel, message: &[u8]) {
        let text = String::from_utf8_lossy(message).into_owned();
        self.lock().log.push(LogLine { level, text });
    }

    fn log_level(&self, _: Option<RequestId>) -> LogLevel {
        self.level
    }
}

impl ports::Clock for Server {
    fn wall_clock(&self) -> u64 {
        match self.clock {
            Clock::Simulated => WALL_CLOCK + self.lock().passed,
            Clock::Paused => since_epoch(self.began) + self.lock().passed,
            Clock::Real => since_epoch(SystemTime::now()),
        }
    }

    fn monotonic_clock(&self) -> u64 {
        match self.clock {
            Clock::Simulated | Clock::Paused => MONOTONIC_CLOCK + self.lock().passed,
            Clock::Real => u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
        }
    }

    fn random(&self, out: &mut [u8]) -> bool {
        if self.clock != Clock::Simulated {
            return getrandom::fill(out).is_ok();
        }
        let state = &mut self.lock().random;
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&next(state).to_le_bytes()[..chunk.len()]);
        }
        true
    }
}

impl Requests for Server {
    fn phase(&self, request: RequestId) -> Phase {
        self.read(request, |r| r.phase).unwrap_or(Phase::Other)
    }

    fn attribute(&self, request: RequestId, attribute: Attribute<'_>, out: &mut Vec<u8>) -> bool {
        let now = self.monotonic_clock();
        put(self.read(request, |r| attributes::read(r, attribute, now)).flatten(), out)
    }

    fn request_headers(&self, request: RequestId, out: &mut HeaderMap) {
        self.read(request, |r| r.headers.iter().for_each(|(name, value)| out.push(name, value)));
    }

    fn headers_sent(&self, request: RequestId) -> bool {
        self.read(request, |r| r.headers_sent).unwrap_or(false)
    }

    fn response_status(&self, request: RequestId) -> u16 {
        self.read(request, |r| r.status).unwrap_or(0)
    }

    fn is_head(&self, request: RequestId) -> bool {
        self.read(request, |r| r.is_head).unwrap_or(false)
    }

    /// As nginx, by default.
    fn merges_slashes(&self, _: RequestId) -> bool {
        true
    }

    fn set_request_scheme(&self, request: RequestId, scheme: &[u8]) {
        if let Some(request) = self.lock().requests.get_mut(&request.0) {
            request.written_scheme = Some(scheme.to_vec());
        }
    }

    fn has_property(&self, path: &[u8]) -> bool {
        nginx_variables::named_by(path).is_some()
    }

    fn property(&self, request: RequestId, path: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(name) = nginx_variables::named_by(path) else { return false };
        let now = self.monotonic_clock();
        put(self.read(request, |r| r.variable(name, now)).flatten(), out)
    }

    /// As of `set $NAME …` in nginx: what the input named can be set, what follows from the request cannot.
    fn set_property(
        &self,
        request: RequestId,
        path: &[u8],
        value: &[u8],
    ) -> Result<(), SetPropertyError> {
        let now = self.monotonic_clock();
        let name = nginx_variables::named_by(path).ok_or(SetPropertyError::NotFound)?;
        let mut inner = self.lock();
        let found = inner.requests.get_mut(&request.0).ok_or(SetPropertyError::NotFound)?;
        if let Some(known) = found.variables.get_mut(name) {
            *known = value.to_vec();
            return Ok(());
        }
        Err(match found.variable(name, now) {
            Some(_) => SetPropertyError::ReadOnly(format!(
                "nginx variable \"{}\" cannot be set",
                name.escape_ascii()
            )),
            None => SetPropertyError::NotFound,
        })
    }

    fn wake(&self, waker: NonZeroUsize) {
        self.lock().woken.push(waker);
    }
}

impl Stores for Server {
    fn shared(&self) -> Option<&dyn Store> {
        Some(&self.store)
    }

    fn counters(&self, plugin: &str) -> Arc<dyn Counters> {
        self.recorder(plugin)
    }
}

impl Jobs for Server {
    fn upstream(&self, name: &[u8]) -> Option<Upstream> {
        self.lock().upstreams.get(name).cloned()
    }
}

fn put(value: Option<Vec<u8>>, out: &mut Vec<u8>) -> bool {
    out.clear();
    match value {
        Some(value) => {
            *out = value;
            true
        }
        None => false,
    }
}

/// The next number of SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
