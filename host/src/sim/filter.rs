//! Plugins on a simulated host, and their streams: what a shell does with the effects and the outcome of each event.

use super::{Request, SimHost, module};
use crate::abi::Callback;
use crate::effect::{Effect, EffectKind, Effects};
use crate::error::Error;
use crate::event::{Action, Event};
use crate::guest::Output;
use crate::ports::{Host, Phase, RequestId};
use crate::vm::{BeginError, Context, Module, Options, Plugin, StreamRef};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

/// A loaded plugin on a host.
#[derive(Clone)]
pub struct Filter {
    /// The host.
    pub host: Arc<SimHost>,
    /// The plugin.
    pub plugin: Rc<Plugin>,
}

impl Filter {
    /// Loads a module by the name `filter`.
    ///
    /// # Panics
    /// When the module does not start.
    pub fn new(host: &Arc<SimHost>, bytes: &[u8]) -> Self {
        Self::load(host, bytes, Options::new("filter")).expect("a filter that starts")
    }

    /// Loads a module.
    pub fn load(host: &Arc<SimHost>, bytes: &[u8], options: Options) -> Result<Self, Error> {
        Self::of_module(host, module(host, bytes, options)?)
    }

    /// Makes a plugin of a module.
    pub fn of_module(host: &Arc<SimHost>, module: Module) -> Result<Self, Error> {
        let shared: Arc<dyn Host> = host.clone();
        Ok(Self::of(host, Plugin::new(module, shared)?))
    }

    /// A plugin that is loaded already.
    pub fn of(host: &Arc<SimHost>, plugin: Rc<Plugin>) -> Self {
        Self { host: host.clone(), plugin }
    }

    /// From now on its host is another process, as after a fork.
    pub fn fork(&self) {
        self.host.fork();
    }

    /// Makes a plugin context.
    pub fn configure(&self, configuration: &str) -> Result<Rc<Context>, Error> {
        self.configure_bytes(configuration.as_bytes())
    }

    /// Makes a plugin context of a configuration that may not be text.
    pub fn configure_bytes(&self, configuration: &[u8]) -> Result<Rc<Context>, Error> {
        Context::new(&self.plugin, configuration)
    }

    /// Makes a plugin context.
    ///
    /// # Panics
    /// When the filter refuses the configuration.
    pub fn context(&self, configuration: &str) -> Rc<Context> {
        self.configure(configuration).expect("a configuration that the filter takes")
    }

    /// Ends a plugin context with its last stream.
    pub fn drop_context(&self, context: &Context) -> Result<(), Error> {
        context.drop_by_owner()
    }

    /// Starts a stream of a new `GET /`.
    ///
    /// # Panics
    /// When the filter fails.
    pub fn open(&self, context: &Rc<Context>) -> Stream {
        self.open_for(context, Request::default())
    }

    /// Starts a stream of that request.
    ///
    /// # Panics
    /// When the filter fails.
    pub fn open_for(&self, context: &Rc<Context>, request: Request) -> Stream {
        self.try_open(context, self.host.add(request)).expect("a stream")
    }

    /// Starts a stream of a request that the host has.
    pub fn try_open(&self, context: &Rc<Context>, request: RequestId) -> Result<Stream, Error> {
        let at = context.start_stream(request, calls_hold(context))?;
        Ok(Stream { host: self.host.clone(), context: context.clone(), at, request })
    }
}

impl Filter {
    /// A stream that begins with an event of headers, as a server begins one: both in one call. The stream is there unless it
    /// could not be created.
    pub fn begin(
        &self,
        context: &Rc<Context>,
        request: RequestId,
        callback: Callback,
    ) -> (Option<Stream>, Result<Answer, Error>) {
        let calls_hold = calls_hold(context);
        let event = Event {
            callback,
            end_of_stream: false,
            piecewise: false,
            calls_hold,
            waits: false,
            body: &[],
        };
        let mut begun = None;
        let result = context.begin_stream(request, calls_hold, |vm, at| {
            begun = Some(at);
            if callback == Callback::ResponseHeaders
                && vm.wants_response_headers(at.id, callback)
                && let Some(map) = vm.response_headers_mut(at.id)
            {
                map.push(b"x-of-upstream", b"1");
            }
            vm.run_first(at.id, event).map_err(|error| match error {
                BeginError::Failed(error) => error,
                BeginError::NotCreated(error) => {
                    begun = None;
                    error
                }
            })
        });
        let stream = |at| Stream { host: self.host.clone(), context: context.clone(), at, request };
        let begun = begun.map(stream);
        let answer = result.map(|outcome| Answer {
            action: outcome.action,
            body: outcome.body,
            effects: begun.as_ref().map(Stream::effects).unwrap_or_default(),
        });
        (begun, answer)
    }
}

/// A stream of one plugin context. It ends with [`Stream::end`], and not when it is dropped.
pub struct Stream {
    /// The host.
    pub host: Arc<SimHost>,
    /// Its plugin context.
    pub context: Rc<Context>,
    /// The stream in its VM.
    pub at: StreamRef,
    /// Its request.
    pub request: RequestId,
}

/// The result of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the request continues.
    pub action: Action,
    /// What becomes of the body chunk.
    pub body: Output,
    /// The effects in order, as text: `set request NAME: VALUE`, `add response NAME: VALUE`, `remove request NAME`,
    /// `method VALUE`, `path PATH as TARGET`, `status NUMBER`, `answer STATUS [REASON] BODY`, `answer NAME: VALUE`.
    /// Bytes that are not printable ASCII are escaped.
    pub effects: Vec<String>,
}

impl Stream {
    /// Runs `proxy_on_request_headers`.
    ///
    /// # Panics
    /// When the filter fails.
    pub fn request_headers(&self) -> Answer {
        self.run(Callback::RequestHeaders, b"", false).expect("an answer")
    }

    /// Runs `proxy_on_request_body`.
    ///
    /// # Panics
    /// When the filter fails.
    pub fn request_body(&self, chunk: &[u8], end_of_stream: bool) -> Answer {
        self.run(Callback::RequestBody, chunk, end_of_stream).expect("an answer")
    }

    /// Like [`Stream::request_body`], for a piece whose outcome is taken at once.
    ///
    /// # Panics
    /// When the filter fails.
    pub fn request_piece(&self, piece: &[u8], end_of_stream: bool) -> Answer {
        let event = Event::body(Callback::RequestBody, piece, end_of_stream);
        self.tell(Event { piecewise: true, ..event }).expect("an answer")
    }

    /// Runs `proxy_on_response_headers` with those headers and the request's status (200 when it has none).
    ///
    /// # Panics
    /// When the filter fails.
    pub fn response_headers(&self, headers: &[(&str, &str)]) -> Answer {
        self.try_response_headers(headers).expect("an answer")
    }

    /// Like [`Stream::response_headers`], with the error of a filter that fails.
    pub fn try_response_headers(&self, headers: &[(&str, &str)]) -> Result<Answer, Error> {
        self.host.with(self.request, |r| {
            r.phase = Phase::ResponseHeaders;
            if r.status == 0 {
                r.status = 200;
            }
        });
        self.context.with_stream(self.at, |vm| {
            if vm.wants_response_headers(self.at.id, Callback::ResponseHeaders)
                && let Some(map) = vm.response_headers_mut(self.at.id)
            {
                headers
                    .iter()
                    .for_each(|(name, value)| map.push(name.as_bytes(), value.as_bytes()));
            }
            Ok(())
        })?;
        self.run(Callback::ResponseHeaders, b"", false)
    }

    /// Runs `proxy_on_response_body`.
    ///
    /// # Panics
    /// When the filter fails.
    pub fn response_body(&self, chunk: &[u8], end_of_stream: bool) -> Answer {
        self.host.with(self.request, |r| {
            r.phase = Phase::ResponseBody;
            r.headers_sent = true;
        });
        self.run(Callback::ResponseBody, chunk, end_of_stream).expect("an answer")
    }

    /// Runs the callback of an event in the phase that the request is in.
    pub fn run(
        &self,
        callback: Callback,
        chunk: &[u8],
        end_of_stream: bool,
    ) -> Result<Answer, Error> {
        self.tell(Event::body(callback, chunk, end_of_stream))
    }

    fn tell(&self, event: Event<'_>) -> Result<Answer, Error> {
        let event = Event { calls_hold: calls_hold(&self.context), ..event };
        let outcome = self.context.with_stream(self.at, |vm| vm.run(self.at.id, event))?;
        Ok(Answer { action: outcome.action, body: outcome.body, effects: self.effects() })
    }

    /// Sets the waker that is called when the stream's pause ends.
    ///
    /// # Panics
    /// When the VM has ended.
    pub fn wait(&self, waker: usize) {
        self.context
            .with_stream(self.at, |vm| Ok(vm.wait(self.at.id, || NonZeroUsize::new(waker))))
            .expect("a VM");
    }

    /// Takes the outcome of a pause that ended.
    pub fn resumed(&self) -> Result<Answer, Error> {
        let outcome = self.context.with_stream(self.at, |vm| {
            vm.keep_wakers(self.at.id, |_| false);
            vm.resume(self.at.id)
        })?;
        Ok(Answer { action: outcome.action, body: outcome.body, effects: self.effects() })
    }

    /// Ends the stream: `proxy_on_done`, `proxy_on_log`, `proxy_on_delete`.
    pub fn end(&self) -> Result<(), Error> {
        self.host.with(self.request, |r| r.phase = Phase::Log);
        self.context.end_stream(self.at)
    }

    /// Runs all callbacks of a request without bodies and returns the effects.
    ///
    /// # Panics
    /// When the filter fails.
    pub fn whole(&self) -> Vec<String> {
        let mut effects = self.request_headers().effects;
        effects.extend(self.response_headers(&[]).effects);
        self.end().expect("an end");
        effects
    }

    fn effects(&self) -> Vec<String> {
        let taken = self.context.with_stream(self.at, |vm| {
            let mut taken = Effects::default();
            vm.take_effects(self.at.id, &mut taken);
            Ok(taken)
        });
        let taken = taken.unwrap_or_default();
        for effect in taken.iter().filter(|effect| effect.kind == EffectKind::SetPath) {
            self.host.with(self.request, |r| r.path = Some(effect.value.to_vec()));
        }
        taken.iter().inspect(sound).map(shown).collect()
    }
}

/// Without the option of the plugin, requests do not wait for calls.
fn calls_hold(context: &Context) -> bool {
    context.plugin().module().calls_hold().unwrap_or(false)
}

/// Panics when an effect has bytes that no filter may send. Written independently of the checks in the library.
fn sound(effect: &Effect<'_>) {
    use EffectKind as K;
    let Effect { kind, number, name, value } = *effect;
    let token = |name: &[u8]| {
        !name.is_empty()
            && name.iter().all(|b| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(b))
    };
    let breaks = |text: &[u8]| text.iter().any(|b| matches!(b, b'\r' | b'\n' | b'\0'));
    let is_sound = match kind {
        K::SetRequestHeader
        | K::AddRequestHeader
        | K::RemoveRequestHeader
        | K::SetResponseHeader
        | K::AddResponseHeader
        | K::RemoveResponseHeader
        | K::LocalResponseHeader => token(name) && !breaks(value),
        K::SetMethod => name.is_empty() && token(value),
        K::SetPath => {
            name.starts_with(b"/")
                && !name.contains(&0)
                && value.iter().all(|b| *b > b' ' && *b != 0x7f)
        }
        K::SetStatus => (200..=999).contains(&number),
        K::LocalResponse => (200..=999).contains(&number) && !breaks(name),
    };
    assert!(is_sound, "{effect:?}");
}

/// An effect as `what name: value`.
fn shown(effect: Effect<'_>) -> String {
    let Effect { kind, number, name, value } = effect;
    let (name, value) = (name.escape_ascii(), value.escape_ascii());
    match kind {
        EffectKind::SetRequestHeader => format!("set request {name}: {value}"),
        EffectKind::AddRequestHeader => format!("add request {name}: {value}"),
        EffectKind::RemoveRequestHeader => format!("remove request {name}"),
        EffectKind::SetResponseHeader => format!("set response {name}: {value}"),
        EffectKind::AddResponseHeader => format!("add response {name}: {value}"),
        EffectKind::RemoveResponseHeader => format!("remove response {name}"),
        EffectKind::SetMethod => format!("method {value}"),
        EffectKind::SetPath => format!("path {name} as {value}"),
        EffectKind::SetStatus => format!("status {number}"),
        EffectKind::LocalResponse => format!("answer {number} [{name}] {value}"),
        EffectKind::LocalResponseHeader => format!("answer {name}: {value}"),
    }
}
