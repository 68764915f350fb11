//! What the core asks of the world *during* a guest call. The ffi layer answers from nginx, tests from a
//! simulated world.

use std::num::NonZeroUsize;

use crate::abi::LogLevel;
use crate::callout::Upstream;
use crate::shm::{Address, Own, Shared};
use crate::snapshot::HeaderMap;

/// A request of the world, opaque to the core (for nginx: the address of its `ngx_http_request_t`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(pub NonZeroUsize);

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// rewrite, access, content: request headers can change, and a response can still be made here.
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

/// How a process hears of messages in queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// It has not begun to.
    NotYet,
    /// It is woken there.
    At(Address),
    /// It is not woken, and must look.
    Polls,
}

/// Why a variable of the world was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetVariableError {
    /// There is no variable of that name.
    NotFound,
    /// There is one, and it cannot be set.
    ReadOnly,
}

/// How a function of the embedder is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignKind {
    /// Inside the guest's call, by [`Host::call_foreign`].
    Now,
    /// Afterwards, by whoever asks the plugin for work.
    Later,
}

/// Why a function of the embedder has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignError {
    /// It failed; the world has logged why.
    Failed,
    /// It cannot be called from where the guest was.
    NotHere,
}

/// The world. No method blocks, and none enters the guest that it is called for.
pub trait Host: Send + Sync {
    /// Writes a log line, with the request's details when there is one.
    fn log(&self, request: Option<RequestId>, level: LogLevel, message: &[u8]);
    /// The least severe level that is written.
    fn log_level(&self, request: Option<RequestId>) -> LogLevel;
    /// Nanoseconds since the Unix epoch.
    fn wall_clock(&self) -> u64;
    /// Nanoseconds since some fixed point.
    fn monotonic_clock(&self) -> u64;
    /// Fills `out` with random bytes of the operating system; false when there are none.
    fn random(&self, out: &mut [u8]) -> bool;
    /// Puts the value of a variable into `out` (cleared first); false when there is none.
    fn variable(&self, request: RequestId, name: &[u8], out: &mut Vec<u8>) -> bool;
    /// Sets a variable.
    fn set_variable(
        &self,
        request: RequestId,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), SetVariableError>;
    /// Appends the request's headers, without `Host`.
    fn request_headers(&self, request: RequestId, out: &mut HeaderMap);
    /// How many of them there are, and whether they announce a body.
    fn request_summary(&self, request: RequestId) -> RequestSummary;
    /// Path and query of the request now: what the client or a filter wrote, while it stands for that, else as nginx
    /// writes it.
    fn request_path(&self, request: RequestId, out: &mut Vec<u8>);
    /// Whether the response has no body because the client asked with HEAD.
    fn is_head(&self, request: RequestId) -> bool;
    /// Whether a request can be passed on with any method, and with another one than the client's is answered by.
    fn names_methods(&self, request: RequestId) -> bool;
    /// Whether several slashes of a path count as one.
    fn merges_slashes(&self, request: RequestId) -> bool;
    /// The scheme that a filter wrote in place of the connection's; false when none did.
    fn request_scheme(&self, request: RequestId, out: &mut Vec<u8>) -> bool;
    /// Keeps a scheme that a filter wrote, for this filter and the ones after it.
    fn set_request_scheme(&self, request: RequestId, scheme: &[u8]);
    /// Where the request stands.
    fn phase(&self, request: RequestId) -> Phase;
    /// Whether the response headers went out.
    fn headers_sent(&self, request: RequestId) -> bool;
    /// The status of the response, 0 while there is none.
    fn response_status(&self, request: RequestId) -> u16;
    /// A plugin has calls to be made or dropped. It is asked for them soon.
    fn work_waits(&self);
    /// A plugin has callbacks to be run outside of requests, too: ticks, queues, contexts to make again or to end.
    fn callbacks_wait(&self);
    /// Whether this process ends as soon as its requests have.
    fn is_ending(&self) -> bool;
    /// The upstream that was registered under that name.
    fn upstream(&self, name: &[u8]) -> Option<Upstream>;
    /// What all workers share; `None` when the system gave no memory for it.
    fn shared(&self) -> Option<&Shared>;
    /// Where what a plugin does in this process is counted.
    fn own(&self, plugin: &str) -> Own;
    /// How this process hears of messages in queues.
    fn listening(&self) -> Listening;
    /// A message came for whoever is there.
    fn wake_listener(&self, address: Address);
    /// How the embedder's function of that name is called; `None` when there is none.
    fn foreign(&self, name: &[u8]) -> Option<ForeignKind>;
    /// Calls such a function.
    fn call_foreign(&self, name: &[u8], arguments: &[u8]) -> Result<Vec<u8>, ForeignError>;
    /// Wakes whoever waits for a paused stream, by the token that it left.
    fn wake(&self, waker: NonZeroUsize);
}

/// See [`Host::request_summary`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestSummary {
    /// Header lines, `Host` not counted (it is `:authority`).
    pub headers: u32,
    /// There is a Host header.
    pub authority: bool,
    /// Content-Length is more than zero, or there is a Transfer-Encoding.
    pub body: bool,
}
