//! Several callbacks in one entry of WebAssembly.
//!
//! To enter WebAssembly from outside takes as long as some host functions do, and a request enters it for each callback:
//! context_create and the first event, and at its end done, log and delete. So each guest has beside it an instance of a
//! module of our own, whose functions call several of the guest's callbacks. Between two of them they call `next` of the
//! host, which ends the one and begins the other as [`Vm::call`](super::Vm) does. What it cannot do it leaves to the
//! caller: the function returns, [`Call::callback`](crate::guest::Call) says where it stopped, and the caller does the rest
//! one by one.
//!
//! ```text
//! (func (export "begin_request") (param $id i32) (param $root i32) (param $count i32) (param $ends i32) (result i32)
//!   proxy_on_context_create($id, $root)
//!   if !next(proxy_on_request_headers): return 0
//!   proxy_on_request_headers($id, $count, $ends))
//! ```

use parking_lot::{Mutex, const_mutex};
use rustc_hash::FxHashMap;
use wasm_encoder::{
    BlockType, CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection,
    ImportSection, InstructionSink, NameSection, TypeSection, ValType,
};
use wasmtime::{Caller, Extern, Instance, Linker, Store, TypedFunc};

use super::callback::{begin_callback, end_callback};
use super::exports::{Exports, OnHeaders, typed};
use super::load::compile::compile;
use super::load::engine::{EngineKind, PerEngine};
use crate::abi::Callback;
use crate::error::{Error, HIDDEN_MODULE, one_line};
use crate::guest::State;
use crate::hostcall::link::link_between;

/// Stream, plugin context, number of headers, whether the stream ends with them; what the guest answers.
type Begin = TypedFunc<(u32, u32, u32, u32), u32>;

/// The sequences that a guest has the callbacks for.
#[derive(Default)]
pub(super) struct Sequences {
    /// proxy_on_context_create and proxy_on_request_headers.
    pub begin_request: Option<Begin>,
    /// proxy_on_context_create and proxy_on_response_headers.
    pub begin_response: Option<Begin>,
    /// Of a stream: proxy_on_done, proxy_on_log, proxy_on_delete, those that there are.
    pub end_stream: Option<TypedFunc<u32, ()>>,
    /// proxy_on_context_create, proxy_on_vm_start, proxy_on_configure, those that there are, of a plugin context, with the
    /// sizes of both configurations. 0 when the last one that ran refused.
    pub start_root: Option<TypedFunc<(u32, u32, u32), u32>>,
    /// proxy_on_done and, unless it answers 0, proxy_on_delete of a plugin context. What proxy_on_done answers.
    pub end_root: Option<TypedFunc<u32, u32>>,
}

impl Sequences {
    /// Those of a guest.
    pub(super) fn new(
        engine: EngineKind,
        guest: &Instance,
        exports: &Exports,
        store: &mut Store<State>,
    ) -> Result<Self, Error> {
        let shape = Shape::of(exports);
        if !shape.has_any() {
            return Ok(Self::default());
        }
        let failed = |e: wasmtime::Error| Error::Import(one_line(&e));
        let module = module(engine, shape)?;
        let next = linker(engine)?.get(&mut *store, "host", "next");
        let mut imports = vec![next.map_err(failed)?];
        for (callback, _) in shape.callbacks() {
            let function = guest.get_func(&mut *store, callback.name()).map(Extern::Func);
            imports.extend(function);
        }
        let own = Instance::new(&mut *store, &module, &imports).map_err(failed)?;
        Ok(Self {
            begin_request: typed(&own, store, BEGIN_REQUEST)?,
            begin_response: typed(&own, store, BEGIN_RESPONSE)?,
            end_stream: typed(&own, store, END_STREAM)?,
            start_root: typed(&own, store, START_ROOT)?,
            end_root: typed(&own, store, END_ROOT)?,
        })
    }

    /// The one that creates a stream for that event.
    pub(super) fn begin(&self, callback: Callback) -> Option<&Begin> {
        match callback {
            Callback::RequestHeaders => self.begin_request.as_ref(),
            Callback::ResponseHeaders => self.begin_response.as_ref(),
            _ => None,
        }
    }
}

const BEGIN_REQUEST: &str = "begin_request";
const BEGIN_RESPONSE: &str = "begin_response";
const END_STREAM: &str = "end_stream";
const START_ROOT: &str = "start_root";
const END_ROOT: &str = "end_root";

/// Ends the callback that runs and begins another one of the same context. 0 when that is left to the caller.
fn next(caller: &mut Caller<'_, State>, callback: u32) -> u32 {
    let Some(callback) = FOLLOWERS.into_iter().find(|known| *known as u32 == callback) else {
        return 0;
    };
    let state = caller.data_mut();
    if !state.call.resumed.is_empty() || !can_follow(state, callback) {
        return 0;
    }
    end_callback(state);
    let context = state.call.context;
    begin_callback(caller, callback, context);
    1
}

/// The callbacks that are not the first of every sequence.
const FOLLOWERS: [Callback; 6] = [
    Callback::ResponseHeaders,
    Callback::RequestHeaders,
    Callback::Delete,
    Callback::Log,
    Callback::Configure,
    Callback::VmStart,
];

/// Prepares the context that runs for another callback.
fn can_follow(state: &mut State, callback: Callback) -> bool {
    let id = state.call.context;
    let shows_response = state.call.shows_response;
    match callback {
        Callback::RequestHeaders | Callback::ResponseHeaders => {
            // Contexts that ended while the stream was created are deleted first.
            let finished = !state.call.finished.is_empty();
            let Some(stream) = state.contexts.streams.get_mut(&id) else { return false };
            let answered = match callback {
                Callback::RequestHeaders => stream.responded,
                _ => stream.respond_now,
            };
            if finished || answered {
                return false;
            }
            stream.response_headers_loaded = shows_response;
        }
        Callback::Delete if state.contexts.roots.contains_key(&id) => {
            let awaits_calls = state.awaits_calls_to_end(id);
            state.contexts.end_root(id);
            return !awaits_calls;
        }
        _ => {}
    }
    true
}

/// Which callbacks a guest has, of those that are part of sequences.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    create: bool,
    vm_start: bool,
    configure: bool,
    /// Their parameters.
    request_headers: Option<usize>,
    response_headers: Option<usize>,
    done: bool,
    log: bool,
    delete: bool,
}

impl Shape {
    fn of(exports: &Exports) -> Self {
        let params = |headers: &Option<OnHeaders>| {
            headers.as_ref().map(|f| if matches!(f, OnHeaders::Two(_)) { 2 } else { 3 })
        };
        Self {
            create: exports.context_create.is_some(),
            vm_start: exports.vm_start.is_some(),
            configure: exports.configure.is_some(),
            request_headers: params(&exports.request_headers),
            response_headers: params(&exports.response_headers),
            done: exports.done.is_some(),
            log: exports.log.is_some(),
            delete: exports.delete.is_some(),
        }
    }

    fn has_any(self) -> bool {
        let begins = self.request_headers.is_some() || self.response_headers.is_some();
        (self.create && begins) || self.starts() || self.ends()
    }

    fn starts(self) -> bool {
        [self.create, self.vm_start, self.configure].into_iter().filter(|has| *has).count() > 1
    }

    fn ends(self) -> bool {
        [self.done, self.log, self.delete].into_iter().filter(|has| *has).count() > 1
    }

    /// The callbacks with their types: parameters, and whether they answer.
    fn callbacks(self) -> impl Iterator<Item = (Callback, (usize, bool))> {
        let of = |has: bool, params: usize, answers: bool| has.then_some((params, answers));
        [
            (Callback::ContextCreate, of(self.create, 2, false)),
            (Callback::VmStart, of(self.vm_start, 2, true)),
            (Callback::Configure, of(self.configure, 2, true)),
            (Callback::RequestHeaders, self.request_headers.map(|params| (params, true))),
            (Callback::ResponseHeaders, self.response_headers.map(|params| (params, true))),
            (Callback::Done, of(self.done, 1, true)),
            (Callback::Log, of(self.log, 1, false)),
            (Callback::Delete, of(self.delete, 1, false)),
        ]
        .into_iter()
        .filter_map(|(callback, ty)| Some((callback, ty?)))
    }
}

/// The module for guests of that shape, compiled once for each engine.
fn module(engine: EngineKind, shape: Shape) -> Result<wasmtime::Module, Error> {
    static MODULES: Mutex<Option<FxHashMap<(EngineKind, Shape), wasmtime::Module>>> =
        const_mutex(None);
    let mut modules = MODULES.lock();
    let modules = modules.get_or_insert_default();
    if let Some(known) = modules.get(&(engine, shape)) {
        return Ok(known.clone());
    }
    let made = compile(engine, &Builder::new(shape).binary())?;
    modules.insert((engine, shape), made.clone());
    Ok(made)
}

fn linker(engine: EngineKind) -> Result<&'static Linker<State>, Error> {
    static LINKERS: PerEngine<Linker<State>> = PerEngine::new();
    LINKERS.get_or_try_init(engine, || {
        let mut linker = Linker::new(engine.engine()?);
        link_between(&mut linker, ("host", "next"), next)
            .map_err(|e| Error::Import(one_line(&e)))?;
        Ok(linker)
    })
}

struct Builder {
    shape: Shape,
    types: TypeSection,
    declared: FunctionSection,
    exports: ExportSection,
    code: CodeSection,
    /// Functions so far.
    functions: u32,
}

impl Builder {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            types: TypeSection::new(),
            declared: FunctionSection::new(),
            exports: ExportSection::new(),
            code: CodeSection::new(),
            functions: 0,
        }
    }

    /// Declares a type of so many numbers and an answer or none.
    fn ty(&mut self, params: usize, answers: bool) -> u32 {
        let ty = self.types.len();
        self.types.ty().function(vec![ValType::I32; params], vec![ValType::I32; answers.into()]);
        ty
    }

    fn binary(mut self) -> Vec<u8> {
        let mut imports = ImportSection::new();
        let next = self.ty(1, true);
        imports.import("host", "next", EntityType::Function(next));
        for (callback, (params, answers)) in self.shape.callbacks() {
            let ty = self.ty(params, answers);
            imports.import("guest", callback.name(), EntityType::Function(ty));
        }
        self.functions = imports.len();

        let shape = self.shape;
        for (name, callback, params) in [
            (BEGIN_REQUEST, Callback::RequestHeaders, shape.request_headers),
            (BEGIN_RESPONSE, Callback::ResponseHeaders, shape.response_headers),
        ] {
            if let Some(params) = params.filter(|_| shape.create) {
                let body = self.begin(callback, params);
                self.function(name, 4, true, &body);
            }
        }
        if shape.ends() {
            let body = self.end_stream();
            self.function(END_STREAM, 1, false, &body);
        }
        if shape.starts() {
            let body = self.start_root();
            self.function(START_ROOT, 3, true, &body);
        }
        if shape.done && shape.delete {
            let body = self.end_root();
            self.function(END_ROOT, 1, true, &body);
        }

        let mut shown = NameSection::new();
        shown.module(HIDDEN_MODULE);
        let mut module = wasm_encoder::Module::new();
        module.section(&self.types).section(&imports).section(&self.declared);
        module.section(&self.exports).section(&self.code).section(&shown);
        module.finish()
    }

    fn function(&mut self, name: &str, params: usize, answers: bool, body: &Function) {
        let ty = self.ty(params, answers);
        self.declared.function(ty);
        self.exports.export(name, ExportKind::Func, self.functions);
        self.functions += 1;
        self.code.function(body);
    }

    /// The number of an imported callback.
    fn import(&self, callback: Callback) -> u32 {
        let at = self.shape.callbacks().position(|(known, _)| known == callback);
        at.map_or(0, |at| at as u32 + 1)
    }

    fn begin(&self, callback: Callback, params: usize) -> Function {
        let mut body = Function::new([]);
        let mut code = body.instructions();
        code.local_get(0).local_get(1).call(self.import(Callback::ContextCreate));
        proceed(&mut code, callback, Some(0));
        code.local_get(0).local_get(2);
        if params == 3 {
            code.local_get(3);
        }
        code.call(self.import(callback)).end();
        body
    }

    fn end_stream(&self) -> Function {
        let mut body = Function::new([]);
        let mut code = body.instructions();
        if self.shape.done {
            code.local_get(0).call(self.import(Callback::Done)).drop();
        }
        if self.shape.log {
            if self.shape.done {
                proceed(&mut code, Callback::Log, None);
            }
            code.local_get(0).call(self.import(Callback::Log));
        }
        if self.shape.delete {
            proceed(&mut code, Callback::Delete, None);
            code.local_get(0).call(self.import(Callback::Delete));
        }
        code.end();
        body
    }

    fn start_root(&self) -> Function {
        let mut body = Function::new([]);
        let mut code = body.instructions();
        if self.shape.create {
            code.local_get(0).i32_const(0).call(self.import(Callback::ContextCreate));
        }
        if self.shape.vm_start {
            if self.shape.create {
                proceed(&mut code, Callback::VmStart, Some(1));
            }
            code.local_get(0).local_get(1).call(self.import(Callback::VmStart));
            code.i32_eqz().if_(BlockType::Empty).i32_const(0).return_().end();
        }
        if self.shape.configure {
            proceed(&mut code, Callback::Configure, Some(1));
            code.local_get(0).local_get(2).call(self.import(Callback::Configure));
        } else {
            code.i32_const(1);
        }
        code.end();
        body
    }

    fn end_root(&self) -> Function {
        let mut body = Function::new([(1, ValType::I32)]);
        let mut code = body.instructions();
        code.local_get(0).call(self.import(Callback::Done)).local_tee(1);
        code.i32_eqz().if_(BlockType::Empty).i32_const(0).return_().end();
        proceed(&mut code, Callback::Delete, Some(1));
        code.local_get(0).call(self.import(Callback::Delete)).local_get(1).end();
        body
    }
}

/// Begins the next callback, or returns that answer.
fn proceed(code: &mut InstructionSink<'_>, callback: Callback, answer: Option<i32>) {
    code.i32_const(callback as i32).call(0).i32_eqz().if_(BlockType::Empty);
    if let Some(answer) = answer {
        code.i32_const(answer);
    }
    code.return_().end();
}
