//! What the core asks of its host *during* a guest call: small traits, most of whose methods have defaults.
//!
//! No method blocks, and none enters the guest that it is called for.

use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::abi::{Attribute, LogLevel};
use crate::callout::Upstream;
use crate::id_map::Id;
use crate::snapshot::HeaderMap;
use crate::store::{Address, Counters, NoCounters, Store};

/// A request of the host, opaque to the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub NonZeroUsize);

impl Id for RequestId {
    #[inline]
    fn number(self) -> u64 {
        self.0.get() as u64
    }
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Request headers can change, and a response can still be made here.
    Request,
    /// The response headers are about to go out.
    ResponseHeaders,
    /// Response body chunks are going out.
    ResponseBody,
    /// Everything was sent.
    Log,
    /// Somewhere else: headers can be read, and nothing can change.
    Other,
}

/// How a process is notified of messages in queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// It has not begun to.
    NotYet,
    /// It is woken there.
    At(Address),
    /// It is not woken, and must look.
    Polls,
}

/// Why a property of the host was not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetPropertyError {
    /// The host has no property of that path: the guest's value is kept by the core.
    NotFound,
    /// It cannot be set. The text is a warning for the log.
    ReadOnly(String),
    /// It cannot have that value. The text is a warning for the log.
    BadValue(String),
}

/// How a function of the embedder is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignKind {
    /// Inside the guest's call, by [`Jobs::call_foreign`].
    Now,
    /// Afterwards, as a job of the plugin.
    Later,
}

/// Why a function of the embedder has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignError {
    /// It failed; the host has logged why.
    Failed,
    /// It cannot be called from where the guest was.
    NotHere,
}

/// A warning of the core to which a host can add what its users can do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A foreign function could not be called here.
    ForeignNotHere,
    /// A local response was not sent, because no event of the response's headers came.
    LocalResponse,
    /// The body of a local response was not sent, because no event of the response's body came.
    LocalResponseBody,
    /// The shared memory is full.
    SharedMemoryFull,
}

/// The log.
pub trait Log {
    /// Writes a log line, with the request's details when there is one.
    fn log(&self, request: Option<RequestId>, level: LogLevel, message: &[u8]);

    /// The least severe level that is written.
    fn log_level(&self, _request: Option<RequestId>) -> LogLevel {
        LogLevel::Info
    }

    /// What is added to a warning; empty for nothing.
    fn hint(&self, _about: Hint) -> &'static str {
        ""
    }
}

/// Clocks and randomness.
pub trait Clock {
    /// Nanoseconds since the Unix epoch.
    #[allow(clippy::disallowed_methods, reason = "the clock of hosts that have none of their own")]
    fn wall_clock(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since some fixed point.
    #[allow(clippy::disallowed_methods, reason = "the clock of hosts that have none of their own")]
    fn monotonic_clock(&self) -> u64 {
        static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(STARTED.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Fills `out` with random bytes of the operating system; false when there are none.
    fn random(&self, out: &mut [u8]) -> bool {
        getrandom::fill(out).is_ok()
    }
}

/// Requests, their responses and their connections.
pub trait Requests {
    /// Where the request stands.
    fn phase(&self, request: RequestId) -> Phase;

    /// Puts an attribute into `out` (cleared first); false when the host does not know it.
    fn attribute(&self, request: RequestId, attribute: Attribute<'_>, out: &mut Vec<u8>) -> bool;

    /// Appends the request's headers, without `Host`. Names are in lower case.
    fn request_headers(&self, request: RequestId, out: &mut HeaderMap);

    /// How many of them there are, and whether they announce a body.
    fn request_summary(&self, request: RequestId) -> RequestSummary {
        let mut headers = HeaderMap::new();
        self.request_headers(request, &mut headers);
        let authority = self.attribute(request, Attribute::RequestAuthority, &mut Vec::new());
        let length = headers.get(b"content-length").is_some_and(|length| length != b"0");
        RequestSummary {
            headers: headers.len() as u32,
            authority,
            body: length || headers.get(b"transfer-encoding").is_some(),
        }
    }

    /// Whether the response headers went out.
    fn headers_sent(&self, request: RequestId) -> bool;

    /// Both: where the request stands, and whether the response headers went out.
    fn progress(&self, request: RequestId) -> (Phase, bool) {
        (self.phase(request), self.headers_sent(request))
    }

    /// The status of the response, 0 while there is none.
    fn response_status(&self, request: RequestId) -> u16;

    /// Whether the response has no body because the client asked with HEAD.
    fn is_head(&self, request: RequestId) -> bool {
        let mut method = Vec::new();
        self.attribute(request, Attribute::RequestMethod, &mut method) && method == b"HEAD"
    }

    /// Whether a request can be passed on with any method, and with another one than the client's is answered by.
    fn names_methods(&self, _request: RequestId) -> bool {
        true
    }

    /// Whether several slashes of a path count as one.
    fn merges_slashes(&self, _request: RequestId) -> bool {
        false
    }

    /// Keeps a scheme that a filter wrote, for this filter and the ones after it: see [`Attribute::RequestScheme`].
    fn set_request_scheme(&self, _request: RequestId, _scheme: &[u8]) {}

    /// Appends the trailers of the response, at most [`limits::TRAILERS`](crate::limits::TRAILERS). Asked once, at the end
    /// of the body. Names are in lower case.
    fn response_trailers(&self, _request: RequestId, _out: &mut HeaderMap) {}

    /// Puts a trailer of the response into `out` (cleared first), also one that [`Requests::response_trailers`] does not
    /// know of; false when there is none.
    fn response_trailer(&self, _request: RequestId, _name: &[u8], _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Whether the host may have a property of that path, whose segments are joined by NUL.
    fn has_property(&self, _path: &[u8]) -> bool {
        false
    }

    /// Puts a property of the host's own into `out` (cleared first); false when there is none.
    fn property(&self, _request: RequestId, _path: &[u8], _out: &mut Vec<u8>) -> bool {
        false
    }

    /// Sets a property of the host's own.
    fn set_property(
        &self,
        _request: RequestId,
        _path: &[u8],
        _value: &[u8],
    ) -> Result<(), SetPropertyError> {
        Err(SetPropertyError::NotFound)
    }

    /// Wakes the light thread that waits for a paused stream, by the token that it left.
    fn wake(&self, _waker: NonZeroUsize) {}
}

/// What plugins share: values by key, queues, metrics.
pub trait Stores {
    /// What all plugins share; `None` when there is no memory for it.
    fn shared(&self) -> Option<&dyn Store> {
        None
    }

    /// Where what a plugin does in this process is counted.
    fn counters(&self, plugin: &str) -> Arc<dyn Counters> {
        self.shared().map_or_else(|| Arc::new(NoCounters) as _, |store| store.counters(plugin))
    }

    /// Counts that many calls of a function that this host does not have; 0 when a plugin's module asks for it.
    fn count_stand_in(&self, plugin: &str, function: &str, calls: u32) {
        if let Some(store) = self.shared() {
            // One that finds no room is counted without its name.
            let _ = store.stand_in(plugin.as_bytes(), function.as_bytes(), calls.into());
        }
    }

    /// How this process is notified of messages in queues.
    fn listening(&self) -> Listening {
        Listening::Polls
    }

    /// A message came for the process that listens at that address.
    fn wake_listener(&self, _address: Address) {}
}

/// Background jobs: ticks, queue callbacks, calls, functions of the embedder.
pub trait Jobs {
    /// A plugin has calls to be made or dropped. It is asked for them soon.
    fn work_waits(&self) {}

    /// A plugin has callbacks to be run outside of requests, too: ticks, queues, contexts to make again or to end.
    fn callbacks_wait(&self) {}

    /// Whether this process ends as soon as its requests have.
    fn is_ending(&self) -> bool {
        false
    }

    /// The upstream that was registered under that name.
    fn upstream(&self, _name: &[u8]) -> Option<Upstream> {
        None
    }

    /// How the embedder's function of that name is called; `None` when there is none.
    fn foreign(&self, _name: &[u8]) -> Option<ForeignKind> {
        None
    }

    /// Calls such a function.
    fn call_foreign(&self, _name: &[u8], _arguments: &[u8]) -> Result<Vec<u8>, ForeignError> {
        Err(ForeignError::NotHere)
    }
}

/// A host: all of the above.
pub trait Host: Log + Clock + Requests + Stores + Jobs + Send + Sync {
    /// A number of this process, which is another one in each process that is forked from it. VMs are not used in another
    /// process than the one that made them.
    fn process(&self) -> u64 {
        1
    }
}

/// See [`Requests::request_summary`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestSummary {
    /// Header lines, `Host` not counted (it is `:authority`).
    pub headers: u32,
    /// There is a Host header.
    pub authority: bool,
    /// Content-Length is more than zero, or there is a Transfer-Encoding.
    pub body: bool,
}
