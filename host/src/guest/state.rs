//! The data of a VM's store: its contexts, and the call in progress.

use std::cell::Cell;
use std::sync::Arc;

use wasmtime::{Func, Memory, TypedFunc};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::deadline::TimeLimits;
use super::{
    CallOf, Calls, ContextId, Deadline, Handovers, Limiter, Listener, Properties, Root, Stream,
    Token,
};
use crate::abi::{Callback, LogLevel, Version};
use crate::callout::Rules;
use crate::id_map::IdMap;
use crate::limits;
use crate::ports::{Hint, Host, RequestId};
use crate::store::{Counters, Metric, QueueId};

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

/// Roots and streams by id.
#[derive(Debug, Default)]
pub struct Contexts {
    /// Plugin contexts.
    pub roots: IdMap<ContextId, Box<Root>>,
    /// Stream contexts.
    pub streams: IdMap<ContextId, Box<Stream>>,
    /// Ended streams whose buffers serve again.
    #[allow(
        clippy::vec_box,
        reason = "streams move in and out as they are; unboxed they would be copied"
    )]
    spare: Vec<Box<Stream>>,
    /// Ended plugin contexts whose memory serves again.
    #[allow(clippy::vec_box, reason = "as above")]
    spare_roots: Vec<Box<Root>>,
    last_id: ContextId,
    /// Ids begin anew, so one may be that of a context that lives.
    has_wrapped: bool,
    /// Some stream has loaded its request's headers.
    pub loads_request_headers: bool,
    /// Plugin contexts that were told of their end.
    ending: usize,
    /// Bodies held for all streams, see [`limits::HELD_BODIES`].
    pub held: usize,
    /// Properties of all contexts, see [`limits::ALL_PROPERTY_BYTES`].
    property_bytes: usize,
}

/// What hosts add to a line: the time, the process, the request.
const LINE_OVERHEAD: usize = 100;

/// Ended contexts of each kind kept for reuse; more would only be memory held for a burst that is over.
const SPARE: usize = 64;

impl Contexts {
    /// The next id: never one that lives, never 0, and used again only past `i32::MAX`.
    #[inline]
    pub fn next_id(&mut self) -> ContextId {
        if self.has_wrapped || self.last_id >= i32::MAX as u32 {
            return self.free_id();
        }
        self.last_id += 1;
        self.last_id
    }

    #[cold]
    fn free_id(&mut self) -> ContextId {
        self.has_wrapped = true;
        loop {
            self.last_id = if self.last_id >= i32::MAX as u32 { 1 } else { self.last_id + 1 };
            if !self.roots.contains_key(&self.last_id) && !self.streams.contains_key(&self.last_id)
            {
                return self.last_id;
            }
        }
    }

    /// Adds a plugin context and returns its id.
    pub fn add_root(&mut self, configuration: &Arc<[u8]>) -> ContextId {
        let id = self.next_id();
        let new = Root::new(id, configuration.clone());
        let root = match self.spare_roots.pop() {
            Some(mut root) => {
                *root = new;
                root
            }
            None => Box::new(new),
        };
        self.roots.insert(id, root);
        id
    }

    /// Adds a stream and returns its id.
    pub fn add_stream(
        &mut self,
        root: ContextId,
        request: RequestId,
        calls_hold: bool,
    ) -> ContextId {
        let id = self.next_id();
        let mut stream = match self.spare.pop() {
            Some(mut stream) => {
                stream.renew(id, root, request);
                stream
            }
            None => Box::new(Stream::new(id, root, request)),
        };
        stream.calls_hold = calls_hold;
        self.streams.insert(id, stream);
        if let Some(root) = self.roots.get_mut(&root) {
            root.streams += 1;
        }
        id
    }

    /// Removes a stream.
    pub fn remove_stream(&mut self, id: ContextId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        if let Some(root) = self.roots.get_mut(&stream.root) {
            root.streams -= 1;
        }
        self.held -= stream.held;
        self.property_bytes -= stream.properties.size();
        if self.spare.len() < SPARE {
            self.spare.push(stream);
        }
    }

    /// A plugin context is told of its end.
    pub fn end_root(&mut self, id: ContextId) -> Option<&mut Root> {
        let root = self.roots.get_mut(&id)?;
        self.ending += usize::from(!std::mem::replace(&mut root.ends, true));
        Some(root)
    }

    /// Whether a plugin context was told of its end and has not come to it.
    pub fn any_ending(&self) -> bool {
        self.ending > 0
    }

    /// Removes a plugin context.
    pub fn remove_root(&mut self, id: ContextId) {
        if let Some(root) = self.roots.remove(&id) {
            self.ending -= usize::from(root.ends);
            self.property_bytes -= root.properties.size();
            let is_small = root.configuration.len() <= 4096 && root.properties.size() == 0;
            if self.spare_roots.len() < SPARE && is_small {
                self.spare_roots.push(root);
            }
        }
    }

    /// Brings the account of held bodies up to date after an event of a stream.
    pub fn count_held(&mut self, id: ContextId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let now = stream.held_size();
            self.held = self.held - stream.held + now;
            stream.held = now;
        }
    }

    /// Bytes that may be held for a stream on top of what is held for the others.
    pub fn hold_room(&self, stream: &Stream) -> usize {
        limits::HELD_BODIES.saturating_sub(self.held - stream.held)
    }

    /// Keeps a property of a context; `None` when there is no such context, false when there is no room.
    pub fn keep_property(&mut self, id: ContextId, path: &[u8], value: &[u8]) -> Option<bool> {
        let properties = match self.streams.get_mut(&id) {
            Some(stream) => &mut stream.properties,
            None => &mut self.roots.get_mut(&id)?.properties,
        };
        let before = properties.size();
        let most = self.property_bytes + Properties::size_of_one(path, value);
        let kept = most <= limits::ALL_PROPERTY_BYTES && properties.set(path, value);
        self.property_bytes = self.property_bytes - before + properties.size();
        Some(kept)
    }

    /// The root of a context registers a queue; of this VM's roots it alone listens to it from now on.
    pub fn listen(&mut self, id: ContextId, queue: QueueId) {
        for root in self.roots.values_mut() {
            root.queues.retain(|listener| listener.id != queue);
        }
        if let Some(root) = self.root_of_mut(id) {
            root.queues.push(Listener { id: queue, ticket: None });
        }
    }

    /// The root of a context: itself, or the parent of a stream.
    pub fn root_of(&self, id: ContextId) -> Option<&Root> {
        match self.streams.get(&id) {
            Some(stream) => self.roots.get(&stream.root),
            None => self.roots.get(&id),
        }
        .map(|root| &**root)
    }

    /// See [`Contexts::root_of`].
    pub fn root_of_mut(&mut self, id: ContextId) -> Option<&mut Root> {
        match self.streams.get(&id) {
            Some(stream) => self.roots.get_mut(&stream.root),
            None => self.roots.get_mut(&id),
        }
        .map(|root| &mut **root)
    }
}

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

    /// Counts a call out. `None` when nobody waits for it any more.
    pub fn end_call(&mut self, token: Token) -> Option<CallOf> {
        let of = self.calls.end(token)?;
        if let Some(stream) = of.holds.and_then(|id| self.contexts.streams.get_mut(&id)) {
            stream.awaited_calls -= 1;
        }
        Some(of)
    }

    /// Lets a stream go on that waited for nothing but calls, when the last of them is answered.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;

    #[test]
    fn ids_wrap_past_i32_and_skip_what_lives() {
        let mut contexts = Contexts::default();
        let root = contexts.add_root(&(Arc::new([]) as Arc<[u8]>));
        let request = RequestId(NonZeroUsize::MIN);
        let two = contexts.add_stream(root, request, false);
        let three = contexts.add_stream(root, request, false);
        assert_eq!((root, two, three), (1, 2, 3));
        contexts.remove_stream(two);
        assert_eq!(contexts.add_stream(root, request, false), 4, "not used again");

        contexts.last_id = i32::MAX as u32 - 1;
        assert_eq!(contexts.add_stream(root, request, false), i32::MAX as u32);
        assert_eq!(contexts.add_stream(root, request, false), 2, "0 is none, 1 lives");
        assert_eq!(contexts.add_stream(root, request, false), 5, "3 and 4 live");
        assert_eq!(contexts.roots.get(&root).map(|root| root.streams), Some(5));
    }
}
