//! The shell of the simulated world: it does what the Lua module does in nginx, and nothing more.

use super::{PROCESS, Request, World, module};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::effect::{Effect, EffectKind, Effects};
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::event::{Action, Event};
use resty_proxy_wasm::guest::Output;
use resty_proxy_wasm::ports::{Host, Phase, RequestId};
use resty_proxy_wasm::vm::{Context, Module, Options, Plugin, StreamRef};
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

/// A loaded plugin in a world.
#[derive(Clone)]
pub struct Filter {
    pub world: Arc<World>,
    pub plugin: Rc<Plugin>,
    process: Rc<Cell<u64>>,
}

impl Filter {
    pub fn new(world: &Arc<World>, bytes: &[u8]) -> Self {
        Self::load(world, bytes, Options::new("filter")).expect("a filter that starts")
    }

    pub fn load(world: &Arc<World>, bytes: &[u8], options: Options) -> Result<Self, Error> {
        Self::of_module(world, module(world, bytes, options)?)
    }

    pub fn of_module(world: &Arc<World>, module: Module) -> Result<Self, Error> {
        let host: Arc<dyn Host> = world.clone();
        Ok(Self::of(world, Plugin::new(module, host, PROCESS)?))
    }

    pub fn of(world: &Arc<World>, plugin: Rc<Plugin>) -> Self {
        Self { world: world.clone(), plugin, process: Rc::new(Cell::new(PROCESS)) }
    }

    /// From here on all calls come from another process.
    pub fn fork(&self) {
        self.process.set(self.process.get() + 1);
    }

    pub fn configure(&self, configuration: &str) -> Result<Rc<Context>, Error> {
        self.configure_bytes(configuration.as_bytes())
    }

    pub fn configure_bytes(&self, configuration: &[u8]) -> Result<Rc<Context>, Error> {
        Context::new(&self.plugin, configuration, self.process.get())
    }

    pub fn context(&self, configuration: &str) -> Rc<Context> {
        self.configure(configuration).expect("a configuration that the filter takes")
    }

    /// Lua lets go of a context.
    pub fn drop_context(&self, context: &Context) -> Result<(), Error> {
        context.drop_by_owner(self.process.get())
    }

    /// A stream of a new `GET /`.
    pub fn open(&self, context: &Rc<Context>) -> Stream {
        self.open_for(context, Request::default())
    }

    pub fn open_for(&self, context: &Rc<Context>, request: Request) -> Stream {
        self.try_open(context, self.world.add(request)).expect("a stream")
    }

    pub fn try_open(&self, context: &Rc<Context>, request: RequestId) -> Result<Stream, Error> {
        let at = context.start_stream(request, calls_hold(context), self.process.get())?;
        Ok(Stream { world: self.world.clone(), context: context.clone(), at, request })
    }
}

/// A stream of one plugin context. It ends when a test says so.
pub struct Stream {
    pub world: Arc<World>,
    pub context: Rc<Context>,
    pub at: StreamRef,
    pub request: RequestId,
}

/// What came of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub action: Action,
    pub body: Output,
    /// The effects in order, see [`shown`].
    pub effects: Vec<String>,
}

impl Stream {
    pub fn request_headers(&self) -> Answer {
        self.run(Callback::RequestHeaders, b"", false).expect("an answer")
    }

    pub fn request_body(&self, chunk: &[u8], end_of_stream: bool) -> Answer {
        self.run(Callback::RequestBody, chunk, end_of_stream).expect("an answer")
    }

    /// A piece of a request body whose outcome is taken at once.
    pub fn request_piece(&self, piece: &[u8], end_of_stream: bool) -> Answer {
        let body = piece.to_vec().leak();
        let callback = Callback::RequestBody;
        self.tell(self.event(callback, body, end_of_stream, true)).expect("an answer")
    }

    pub fn response_headers(&self, headers: &[(&str, &str)]) -> Answer {
        self.try_response_headers(headers).expect("an answer")
    }

    pub fn try_response_headers(&self, headers: &[(&str, &str)]) -> Result<Answer, Error> {
        self.world.with(self.request, |r| {
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

    pub fn response_body(&self, chunk: &[u8], end_of_stream: bool) -> Answer {
        self.world.with(self.request, |r| {
            r.phase = Phase::ResponseBody;
            r.headers_sent = true;
        });
        self.run(Callback::ResponseBody, chunk, end_of_stream).expect("an answer")
    }

    /// Tells the filter of an event in the phase that the request is in.
    pub fn run(
        &self,
        callback: Callback,
        chunk: &[u8],
        end_of_stream: bool,
    ) -> Result<Answer, Error> {
        // Chunks are lent for one call; in a test they may as well live for ever.
        self.lend(callback, chunk.to_vec().leak(), end_of_stream)
    }

    /// Like [`Stream::run`], for chunks that do live for ever.
    pub fn lend(
        &self,
        callback: Callback,
        body: &'static [u8],
        end_of_stream: bool,
    ) -> Result<Answer, Error> {
        self.tell(self.event(callback, body, end_of_stream, false))
    }

    fn event(
        &self,
        callback: Callback,
        body: &'static [u8],
        end_of_stream: bool,
        piecewise: bool,
    ) -> Event {
        Event { callback, end_of_stream, piecewise, calls_hold: calls_hold(&self.context), body }
    }

    fn tell(&self, event: Event) -> Result<Answer, Error> {
        let outcome = self.context.with_stream(self.at, |vm| vm.run(self.at.id, event))?;
        Ok(Answer { action: outcome.action, body: outcome.body, effects: self.effects() })
    }

    /// Says whom to wake when the stream's pause ends.
    pub fn wait(&self, waker: usize) {
        self.context
            .with_stream(self.at, |vm| {
                let stream = vm.state_mut().contexts.streams.get_mut(&self.at.id);
                stream.expect("the stream").waker = NonZeroUsize::new(waker);
                Ok(())
            })
            .expect("a VM");
    }

    /// What came of a pause that ended.
    pub fn resumed(&self) -> Result<Answer, Error> {
        let (action, body) = self.context.with_stream(self.at, |vm| {
            let action = vm.resumed(self.at.id)?;
            Ok((action, vm.let_request_body_go(self.at.id, action)))
        })?;
        Ok(Answer { action, body, effects: self.effects() })
    }

    /// nginx frees the request.
    pub fn end(&self) -> Result<(), Error> {
        self.world.with(self.request, |r| r.phase = Phase::Log);
        self.context.end_stream(self.at)
    }

    /// All callbacks of a request without bodies.
    pub fn whole(&self) -> Vec<String> {
        let mut effects = self.request_headers().effects;
        effects.extend(self.response_headers(&[]).effects);
        self.end().expect("an end");
        effects
    }

    fn effects(&self) -> Vec<String> {
        let taken = self.context.with_stream(self.at, |vm| {
            let stream = vm.state_mut().contexts.streams.get_mut(&self.at.id);
            let mut taken = Effects::default();
            if let Some(stream) = stream {
                stream.effects.take_into(&mut taken);
            }
            Ok(taken)
        });
        let taken = taken.unwrap_or_default();
        for effect in taken.iter().filter(|effect| effect.kind == EffectKind::SetPath) {
            self.world.with(self.request, |r| r.path = Some(effect.value.to_vec()));
        }
        taken.iter().inspect(sound).map(shown).collect()
    }
}

/// Without the option of `load` this shell is a chain, whose requests do not wait.
fn calls_hold(context: &Context) -> bool {
    context.plugin().module().calls_hold().unwrap_or(false)
}

/// Fails the test when nginx would send what a filter must not be able to send. Other words for it than the product's own.
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
        K::SetStatus => (200..=599).contains(&number),
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
