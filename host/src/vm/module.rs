//! A compiled module, ready to be started any number of times.

use std::cell::Cell;
use std::sync::Arc;

use wasmtime::{ExternType, FuncType, InstancePre, Store};

use super::deadline::TimeLimits;
use super::exports::{Exports, allocator};
use super::load::engine::EngineKind;
use super::load::{linker, process_limits};
use super::sequences::Sequences;
use super::shim::extended;
use super::start::StartCode;
use super::{Code, Vm};
use crate::abi::{Callback, Version};
use crate::callout::Rules;
use crate::error::{Error, one_line};
use crate::guest::{
    Call, Calls, Contexts, Deadline, Handovers, Limiter, PluginInfo, ShownHeaders, State,
    StdioLines,
};
use crate::limits;
use crate::ports::Host;
use crate::store::NoCounters;
use crate::wasi;

/// What `load` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plugin's name, for logs and the property `plugin_name`.
    pub name: String,
    /// The root that plugin contexts are made of; SDKs look it up in `proxy_on_context_create`.
    pub root_id: String,
    /// Who shares data with whom.
    pub vm_id: String,
    /// What `proxy_on_vm_start` may read.
    pub vm_config: Vec<u8>,
    /// Environment variables of the guest.
    pub env: Vec<(String, String)>,
    /// Bytes of linear memory.
    pub memory_limit: u64,
    /// How long the guest may run.
    pub time_limits: TimeLimits,
    /// Milliseconds that a paused request waits.
    pub pause_timeout: u32,
    /// Bytes of one body that may be held.
    pub body_limit: usize,
    /// A request continues without this filter where it fails.
    pub fail_open: bool,
    /// The filter rewrites bodies.
    pub body: bool,
    /// What the filter may call.
    pub calls: Rules,
    /// Whether requests wait for the calls that this filter dispatches; `None` leaves that to the shell.
    pub calls_hold: Option<bool>,
}

impl Options {
    /// The defaults for a plugin of that name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            root_id: name.into(),
            vm_id: String::new(),
            vm_config: Vec::new(),
            env: Vec::new(),
            memory_limit: limits::DEFAULT_MEMORY,
            time_limits: TimeLimits::default(),
            pause_timeout: limits::DEFAULT_PAUSE_MS,
            body_limit: limits::HELD_BODY,
            fail_open: false,
            body: false,
            calls: Rules::default(),
            calls_hold: None,
        }
    }
}

/// See the module.
pub struct Module {
    linked: InstancePre<State>,
    info: Arc<PluginInfo>,
    memory_limit: usize,
    pause_timeout: u32,
    body: bool,
    calls_hold: Option<bool>,
    makes_calls: bool,
    names_upstreams: bool,
    calls_foreign: bool,
    /// It has `proxy_on_response_headers`, and may look at the response's headers in it or at how many there are.
    looks_at_response: bool,
    /// Held, because the cache finds what a plugin holds.
    pub(super) code: Arc<Code>,
    /// What users should know of this module, for the log.
    warnings: Vec<String>,
}

impl Module {
    /// A plugin's module of compiled code. Checks all that can be checked without running it.
    pub fn new(code: Arc<Code>, options: Options, host: &Arc<dyn Host>) -> Result<Self, Error> {
        let module = &code.module;
        let mut warnings = code.warnings.clone();
        warnings.extend(process_limits::warning());
        check_memory(module, options.memory_limit)?;
        let memory_limit =
            usize::try_from(options.memory_limit.min(limits::MAX_MEMORY)).unwrap_or(usize::MAX);
        let info = Arc::new(PluginInfo {
            name: options.name,
            root_id: options.root_id,
            vm_id: options.vm_id,
            vm_config: options.vm_config,
            env: options.env,
            calls: options.calls,
            version: code.version,
            vendor: code.vendor,
            reads_headers: code.profile.reads_headers,
            body_limit: options.body_limit.min(limits::MAX_HELD_BODY),
            fail_open: options.fail_open,
            time_limits: options.time_limits,
        });
        let limiter = Limiter::new(memory_limit, Arc::new(NoCounters));
        let mut store = store(code.engine, &info, host, limiter)?;
        let (linker, stand_ins) = linker::for_module(&code, &mut store)?;
        let linked = linker.instantiate_pre(module).map_err(|e| Error::Import(one_line(&e)))?;
        warnings.extend(stand_ins);
        let imports = |name: &str| module.imports().any(|import| import.name() == name);
        let makes_calls = imports("proxy_http_call") || imports("proxy_redis_call");
        let names_upstreams = makes_calls
            || ["proxy_redis_init", "proxy_grpc_call", "proxy_grpc_stream"]
                .into_iter()
                .any(imports);
        let calls_foreign = imports("proxy_call_foreign_function");
        let looks_at_response = (code.profile.reads_response || code.profile.response_arguments)
            && module.get_export(Callback::ResponseHeaders.name()).is_some();
        Ok(Self {
            linked,
            info,
            memory_limit,
            pause_timeout: options.pause_timeout,
            body: options.body,
            calls_hold: options.calls_hold,
            makes_calls,
            names_upstreams,
            calls_foreign,
            looks_at_response,
            code,
            warnings,
        })
    }

    /// What the plugin is.
    pub fn info(&self) -> &Arc<PluginInfo> {
        &self.info
    }

    /// The `pause_timeout` option, in milliseconds.
    pub fn pause_timeout(&self) -> u32 {
        self.pause_timeout
    }

    /// The `fail` option: true for "open".
    pub fn fail_open(&self) -> bool {
        self.info.fail_open
    }

    /// The `body` option: true when the filter is said to rewrite bodies.
    pub fn rewrites_bodies(&self) -> bool {
        self.body
    }

    /// The `calls_hold` option.
    pub fn calls_hold(&self) -> Option<bool> {
        self.calls_hold
    }

    /// Whether the guest can make calls.
    pub fn makes_calls(&self) -> bool {
        self.makes_calls
    }

    /// Whether the guest can name upstreams.
    pub fn names_upstreams(&self) -> bool {
        self.names_upstreams
    }

    /// Whether the guest can call functions of the embedder.
    pub fn calls_foreign(&self) -> bool {
        self.calls_foreign
    }

    /// Whether `proxy_on_response_headers` needs to be told how many headers there are, or may read them.
    pub fn looks_at_response(&self) -> bool {
        self.looks_at_response
    }

    /// Whether the guest has a callback.
    pub fn exports(&self, callback: Callback) -> bool {
        matches!(self.code.module.get_export(callback.name()), Some(ExternType::Func(_)))
    }

    /// What users should know of this module.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Makes an instance and runs its own start code.
    pub fn start(self: &Arc<Self>, host: &Arc<dyn Host>) -> Result<Vm, Error> {
        let own = host.counters(&self.info.name);
        if let Some(presence) = own.presence() {
            let now = host.wall_clock() / NANOS_PER_SECOND;
            presence.code(&self.code.digest, self.memory_limit, now);
        }
        let began = host.monotonic_clock();
        let limiter = Limiter::new(self.memory_limit, own);
        let mut store = store(self.code.engine, &self.info, host, limiter)?;
        let start = StartCode { limit_ms: self.info.time_limits.of(Callback::Start) };
        let is_extended = self.code.profile.extended;
        let instance = start.instantiate(&self.linked, is_extended, &mut store)?;
        let exports = Exports::find(&instance, &mut store, &self.code.profile)?;
        let allocate = allocator(&instance, &mut store)?;
        let memory = instance.get_memory(&mut store, "memory");
        if is_extended && let Some(shown) = instance.get_memory(&mut store, extended::MEMORY) {
            let (bytes, state) = shown.data_and_store_mut(&mut store);
            state.shown.set_memory(bytes);
        }
        let state = store.data_mut();
        state.memory = memory;
        state.allocator = allocate.as_ref().map(|function| *function.func());
        state.allocate = allocate.map(Box::new);
        let sequences = Sequences::new(self.code.engine, &instance, &exports, &mut store)?;
        start.run(&instance, &mut store)?;
        if let Some(presence) = store.data().own.presence() {
            presence.started(host.monotonic_clock().saturating_sub(began));
        }
        Ok(Vm {
            store,
            exports,
            sequences,
            module: self.clone(),
            stops_all: false,
            dead: None,
            notified_last: (0, 0),
        })
    }
}

/// Every function that this host has for guests: module, name and type.
pub fn host_functions(host: &Arc<dyn Host>) -> Result<Vec<(String, String, FuncType)>, Error> {
    let info = Arc::new(PluginInfo {
        name: String::new(),
        root_id: String::new(),
        vm_id: String::new(),
        vm_config: Vec::new(),
        env: Vec::new(),
        calls: Rules::default(),
        version: Version::V0_2_1,
        vendor: false,
        reads_headers: false,
        body_limit: limits::HELD_BODY,
        fail_open: false,
        time_limits: TimeLimits::default(),
    });
    let limiter = Limiter::new(0, Arc::new(NoCounters));
    linker::functions(&mut store(EngineKind::Plain, &info, host, limiter)?)
}

fn store(
    engine: EngineKind,
    info: &Arc<PluginInfo>,
    host: &Arc<dyn Host>,
    limits: Limiter,
) -> Result<Store<State>, Error> {
    let state = State {
        host: host.clone(),
        plugin: info.clone(),
        contexts: Contexts::default(),
        call: Call {
            callback: Callback::Start,
            context: 0,
            effective: 0,
            resumed: Vec::new(),
            finished: Vec::new(),
            asked: Cell::new(false),
            logged: Cell::new(0),
            count: 0,
            timed_from: None,
            ticks: 0,
            shows_response: false,
        },
        calls: Calls::default(),
        deadline: Deadline::NEVER,
        memory: None,
        allocator: None,
        allocate: None,
        wasi: wasi::context(),
        stdio: StdioLines::default(),
        metrics: Vec::new(),
        own: limits.own().clone(),
        limits,
        shown: ShownHeaders::default(),
        handovers: Handovers::default(),
        wants_new_vm: false,
        refused_calls: Vec::new(),
        warned: Vec::new(),
    };
    let mut store = Store::new(engine.engine()?, state);
    store.limiter(|state| &mut state.limits);
    Ok(store)
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;

fn check_memory(module: &wasmtime::Module, limit: u64) -> Result<(), Error> {
    match module.get_export("memory") {
        Some(ExternType::Memory(memory)) => {
            let wanted = memory.minimum().saturating_mul(memory.page_size());
            if wanted <= limit {
                return Ok(());
            }
            Err(Error::Module(format!(
                "the module wants {wanted} bytes of memory to begin with, and the option memory_limit allows {limit}"
            )))
        }
        Some(_) => Err(Error::Export("the module's export \"memory\" is not a memory".into())),
        None => Err(Error::Export(
            "the module exports no memory (\"memory\"): it is not a Proxy-Wasm filter".into(),
        )),
    }
}
