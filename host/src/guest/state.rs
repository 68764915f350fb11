//! The data of a VM's store: its contexts, and the call in progress.

use std::cell::Cell;
use std::sync::Arc;

use wasmtime::{Func, Memory, TypedFunc};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::deadline::TimeLimits;
use super::{
    CallOf, Calls, ContextId, Contexts, Deadline, Handovers, Limiter, ShownHeaders, Stream, Token,
};
use crate::abi::{Callback, LogLevel, Version};
use crate::callout::Rules;
use crate::limits;
use crate::ports::{Hint, Host, RequestId};
use crate::store::{Counters, Metric};

/// What a plugin is, the same for all of its VMs.
#[derive(Debug)]
pub struct PluginInfo {
    /// The name given to `load`.
    pub name: String,
    /// The `root_id` option.
    pub root_id: String,
    /// The `vm_id` option.
    pub vm_id: String,
    /// The `vm_config` option.
    pub vm_config: Vec<u8>,
    /// The `env` option.
    pub env: Vec<(String, String)>,
    /// The `calls` option.
    pub calls: Rules,
    /// The version of the ABI that the module declares.
    pub version: Version,
    /// It declares a vendor's superset of the ABI.
    pub vendor: bool,
    /// The module imports a function that shows it headers.
    pub reads_headers: bool,
    /// The `body_limit` option: bytes of one body that may be held.
    pub body_limit: usize,
    /// The `fail` option: true for "open".
    pub fail_open: bool,
    /// The `time_limit` and `start_time_limit` options.
    pub time_limits: TimeLimits,
}

/// Which callback runs, and for whom.
#[derive(Debug)]
pub struct Call {
    /// The callback.
    pub callback: Callback,
    /// The context that it was called on.
    pub context: ContextId,
    /// The context that hostcalls work on: `context`, or what proxy_set_effective_context said.
    pub effective: ContextId,
    /// Streams whose pause the guest ended in this call.
    pub resumed: Vec<ContextId>,
    /// Roots whose `proxy_done` came in this call.
    pub finished: Vec<ContextId>,
    /// The guest called a host function, other than to log.
    pub asked: Cell<bool>,
    /// What its log lines count towards [`limits::LOG_BYTES`].
    pub logged: Cell<usize>,
    /// Callbacks that were run: one in some is timed.
    pub count: u32,
    /// When it began, on the host's monotonic clock; `None` when it is not timed.
    pub timed_from: Option<u64>,
    /// The ticks that had passed when it began.
    pub ticks: u64,
    /// With the creation of a stream: there is a snapshot of the response's headers, which the callback after it sees.
    pub shows_response: bool,
}

/// What hosts add to a line: the time, the process, the request.
const LINE_OVERHEAD: usize = 100;

/// What a guest wrote to stdout and stderr without a newline so far.
#[derive(Debug, Default)]
pub struct StdioLines {
    /// Descriptor 1.
    pub stdout: Vec<u8>,
    /// Descriptor 2.
    pub stderr: Vec<u8>,
}

/// The data of a VM's store.
pub struct State {
    /// The world.
    pub host: Arc<dyn Host>,
    /// The plugin.
    pub plugin: Arc<PluginInfo>,
    /// Its contexts.
    pub contexts: Contexts,
    /// The call in progress.
    pub call: Call,
    /// Its calls.
    pub calls: Calls,
    /// When the call in progress has taken its time.
    pub deadline: Deadline,
    /// The guest's memory, once known.
    pub memory: Option<Memory>,
    /// The guest's allocator, once known.
    pub allocator: Option<Func>,
    /// The same, and while it does not run, ready to be called.
    pub allocate: Option<Box<TypedFunc<u32, u32>>>,
    /// What wasmtime-wasi answers from.
    pub wasi: WasiP1Ctx,
    /// Unfinished lines.
    pub stdio: StdioLines,
    /// Caps on memory and tables.
    pub limits: Limiter,
    /// Metrics that it has defined: each id less 1 is a place in the list.
    pub metrics: Vec<Metric>,
    /// What it does is counted here.
    pub own: Arc<dyn Counters>,
    /// Headers that it looks up without a call of the host.
    pub shown: ShownHeaders,
    /// Values on their way to it.
    pub handovers: Handovers,
    /// The guest asked for another VM in place of its own.
    pub wants_new_vm: bool,
    /// Targets of calls that were refused with a warning.
    pub refused_calls: Vec<String>,
    /// Warnings that are given once per VM, by their text.
    pub warned: Vec<&'static str>,
}

impl State {
    /// The stream that hostcalls work on, when the effective context is one.
    pub fn stream(&self) -> Option<&Stream> {
        self.contexts.streams.get(&self.call.effective).map(|s| &**s)
    }

    /// See [`State::stream`].
    pub fn stream_mut(&mut self) -> Option<&mut Stream> {
        self.contexts.streams.get_mut(&self.call.effective).map(|s| &mut **s)
    }

    /// Whether a call would keep the process alive that ends otherwise: no request is left that could want it, and it would
    /// follow the one that is being answered, and so on.
    pub fn outlives_its_requests(&self) -> bool {
        self.call.callback.answers_call()
            && self.contexts.streams.is_empty()
            && self.host.is_ending()
            // One that asked for time to end has it, up to a limit.
            && !self.contexts.root_of(self.call.effective).is_some_and(|root| root.awaits_done)
    }

    /// Whether a plugin context that was told of its end waits for calls: for those that it made when it was told, and in a
    /// process that ends for all.
    pub fn awaits_calls_to_end(&self, root: ContextId) -> bool {
        self.calls.any_of(root, !self.host.is_ending())
    }

    /// The stream that waits for a call which the callback that runs dispatches: the one that the callback belongs to, or
    /// which waited for the call that is answered.
    pub fn stream_to_hold(&self) -> Option<ContextId> {
        let answers = match self.call.callback {
            Callback::ContextCreate | Callback::RequestHeaders | Callback::RequestBody => false,
            callback if callback.answers_call() => true,
            _ => return None,
        };
        let id = if answers { self.calls.answers? } else { self.call.context };
        let stream = self.contexts.streams.get(&id)?;
        (stream.calls_hold && (stream.paused || !answers)).then_some(id)
    }

    /// Counts a call in, and for the stream that it holds. `None` when there are too many.
    pub fn begin_call(&mut self, of: CallOf) -> Option<Token> {
        let holds = of.holds;
        let token = self.calls.begin(of)?;
        if let Some(stream) = holds.and_then(|id| self.contexts.streams.get_mut(&id)) {
            stream.awaited_calls += 1;
        }
        Some(token)
    }

    /// Counts a call out. `None` when nothing waits for it any more.
    pub fn end_call(&mut self, token: Token) -> Option<CallOf> {
        let of = self.calls.end(token)?;
        if let Some(stream) = of.holds.and_then(|id| self.contexts.streams.get_mut(&id)) {
            stream.awaited_calls -= 1;
        }
        Some(of)
    }

    /// Lets a stream continue that waited for nothing but calls, when the last of them is answered.
    pub fn release(&mut self, stream: ContextId) {
        let Some(stream) = self.contexts.streams.get_mut(&stream) else { return };
        if stream.awaited_calls == 0 && std::mem::take(&mut stream.paused) {
            for waker in stream.wakers.drain(..) {
                self.host.wake(waker);
            }
        }
    }

    /// The request of that stream.
    pub fn request(&self) -> Option<RequestId> {
        self.stream().map(|s| s.request)
    }

    /// True when `level` is written for the effective context.
    pub fn logs(&self, level: LogLevel) -> bool {
        level >= self.host.log_level(self.request())
    }

    /// Logs a line as the guest's.
    pub fn log(&self, level: LogLevel, message: &[u8]) {
        if !self.logs(level) {
            return;
        }
        let name = self.plugin.name.as_bytes();
        let shown = &message[..message.len().min(limits::LOG_LINE)];
        if !self.has_log_room(shown.len()) {
            return;
        }
        let mut line = Vec::with_capacity(name.len() + shown.len() + 16);
        line.extend_from_slice(b"wasm log ");
        line.extend_from_slice(name);
        line.extend_from_slice(b": ");
        line.extend_from_slice(shown);
        if shown.len() < message.len() {
            line.extend_from_slice(b" [cut]");
        }
        self.host.log(self.request(), level, &line);
    }

    /// Logs a warning of the host about the guest.
    pub fn warn(&self, message: &str) {
        if self.logs(LogLevel::Warn) && self.has_log_room(message.len()) {
            self.write_warning(message);
        }
    }

    /// Like [`State::warn`], with what the host adds to it.
    pub fn warn_with(&self, message: &str, about: Hint) {
        self.warn(&with_hint(message, self.host.hint(about)));
    }

    fn write_warning(&self, message: &str) {
        let line =
            format!("wasm plugin \"{}\": {}: {message}", self.plugin.name, self.call.callback);
        self.host.log(self.request(), LogLevel::Warn, line.as_bytes());
    }

    /// Counts a line of the call in progress. The first one without room is replaced by a warning.
    fn has_log_room(&self, size: usize) -> bool {
        let before = self.call.logged.get();
        if before > limits::LOG_BYTES {
            return false;
        }
        let after = before + size + LINE_OVERHEAD;
        self.call.logged.set(after);
        if after > limits::LOG_BYTES && self.logs(LogLevel::Warn) {
            self.write_warning(
                "the filter logs more in one callback than the host writes: the rest is dropped",
            );
        }
        after <= limits::LOG_BYTES
    }

    /// Like [`State::warn_once`], with what the host adds to it.
    pub fn warn_once_with(&mut self, message: &'static str, about: Hint) {
        if !self.warned.contains(&message) {
            self.warned.push(message);
            self.warn_with(message, about);
        }
    }

    /// Like [`State::warn`], once per VM.
    pub fn warn_once(&mut self, message: &'static str) {
        if !self.warned.contains(&message) {
            self.warned.push(message);
            self.warn(message);
        }
    }

    /// Logs what the host notices of the guest, and what may be all right, once per VM.
    pub fn note_once(&mut self, message: &'static str) {
        if self.logs(LogLevel::Info) && !self.warned.contains(&message) {
            self.warned.push(message);
            let line = format!("wasm: plugin \"{}\" {message}", self.plugin.name);
            self.host.log(self.request(), LogLevel::Info, line.as_bytes());
        }
    }
}

fn with_hint(message: &str, hint: &str) -> String {
    if hint.is_empty() { message.into() } else { format!("{message}: {hint}") }
}
