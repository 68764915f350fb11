//! Plugins: loading and freeing.

use std::cell::{Cell, RefCell};
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::ticker::Entry;
use super::{
    Failure, RPW_CONTINUE, RPW_ERROR, cache, guest_boundary, handle, nginx, rpw_context_t,
    rpw_error_t, rpw_loading_t, rpw_options_t, types, upstreams, work,
};
use crate::abi::LogLevel;
use crate::shm::PlanNumber;
use crate::vm::{Code, Module, Options, Plugin, TimeLimits};

/// A loaded plugin. When it is replaced, another takes its place.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
pub struct rpw_plugin_t {
    /// Never another one.
    pub(super) name: String,
    current: RefCell<Rc<Plugin>>,
    options: RefCell<Options>,
    contexts: RefCell<Vec<Weak<rpw_context_t>>>,
    /// The last plan that was followed, or tried.
    pub(super) plan: Cell<PlanNumber>,
}

thread_local! {
    /// Those that live.
    static PLUGINS: RefCell<Vec<Weak<rpw_plugin_t>>> = const { RefCell::new(Vec::new()) };
}

/// All plugins, in the order in which they were loaded.
pub(super) fn all() -> Vec<Rc<rpw_plugin_t>> {
    PLUGINS.with_borrow(|plugins| plugins.iter().filter_map(Weak::upgrade).collect())
}

impl rpw_plugin_t {
    fn new(plugin: Rc<Plugin>, options: Options) -> Rc<Self> {
        let made = Rc::new(Self {
            name: options.name.clone(),
            current: RefCell::new(plugin),
            options: RefCell::new(options),
            contexts: RefCell::default(),
            plan: Cell::new(0),
        });
        PLUGINS.with_borrow_mut(|plugins| {
            plugins.retain(|plugin| plugin.strong_count() > 0);
            plugins.push(Rc::downgrade(&made));
        });
        made
    }

    /// What new contexts get.
    pub(super) fn current(&self) -> Rc<Plugin> {
        self.current.borrow().clone()
    }

    /// What it was started with.
    pub(super) fn options(&self) -> Options {
        self.options.borrow().clone()
    }

    pub(super) fn add_context(&self, context: &Rc<rpw_context_t>) {
        let mut contexts = self.contexts.borrow_mut();
        // Now and then only: a look at each of them costs more than to make a context.
        if contexts.len() == contexts.capacity() {
            contexts.retain(|context| context.strong_count() > 0);
            let left = contexts.len();
            contexts.reserve(left.max(16));
        }
        contexts.push(Rc::downgrade(context));
    }

    pub(super) fn contexts(&self) -> Vec<Rc<rpw_context_t>> {
        self.contexts.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Puts another in its place.
    pub(super) fn replace(&self, with: Rc<Plugin>, options: Options) {
        self.current.replace(with);
        self.options.replace(options);
    }
}

/// Compiles a module, unless the cache has it compiled, and starts it once.
///
/// # Arguments
/// `name` and `code` are copied; `options` is required.
/// # Returns
/// `RPW_CONTINUE` and the handle in `*plugin`, to be freed by `rpw_plugin_free`; else `RPW_ERROR`.
/// # Safety
/// All pointers are valid for the call, strings have the given lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_plugin_load(
    name: *const c_char,
    name_length: usize,
    code: *const c_char,
    code_length: usize,
    options: *const rpw_options_t,
    plugin: *mut *mut rpw_plugin_t,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Setup, true, error, |_| {
        // SAFETY: as promised by the caller.
        let (name, code, options) = unsafe {
            let options = options.as_ref().filter(|_| !plugin.is_null());
            let options = options.ok_or_else(|| Failure::new("rpw_plugin_load: NULL argument"))?;
            (types::bytes(name, name_length), types::bytes(code, code_length), read(options))
        };
        let name = text(name, "name")?;
        let found = cache::find(nginx::host()?.as_ref(), code, None)?;
        let options = Options { name, ..options? };
        let loaded = start(found.code(&options.name), options.clone())?;
        // SAFETY: checked above.
        unsafe { *plugin = handle::give(rpw_plugin_t::new(loaded, options)) };
        Ok(RPW_CONTINUE)
    })
}

/// Starts a plugin of a module that was loaded in the background.
///
/// # Arguments
/// `loading` is one whose state is `RPW_CONTINUE`; `name` is copied; `options` is required.
/// # Returns
/// As `rpw_plugin_load`.
/// # Safety
/// All pointers are valid for the call, strings have the given lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_plugin_start(
    loading: *const rpw_loading_t,
    name: *const c_char,
    name_length: usize,
    options: *const rpw_options_t,
    plugin: *mut *mut rpw_plugin_t,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Setup, true, error, |_| {
        // SAFETY: as promised by the caller.
        let (loading, options) =
            unsafe { (handle::lend(loading), options.as_ref().filter(|_| !plugin.is_null())) };
        let (Some(loading), Some(options)) = (loading, options) else {
            return Err(Failure::new("rpw_plugin_start: NULL argument"));
        };
        // SAFETY: as promised by the caller.
        let (name, options) = unsafe { (types::bytes(name, name_length), read(options)?) };
        let options = Options { name: text(name, "name")?, ..options };
        let code = loading.with_found(|found| Ok(found.code(&options.name)))?;
        let loaded = start(code, options.clone())?;
        // SAFETY: checked above.
        unsafe { *plugin = handle::give(rpw_plugin_t::new(loaded, options)) };
        Ok(RPW_CONTINUE)
    })
}

/// Tells the name of a plugin, good as long as its handle lives.
///
/// # Returns
/// `RPW_CONTINUE`; `RPW_ERROR` for NULL.
/// # Safety
/// `plugin` is NULL or a live handle, the others are valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_plugin_name(
    plugin: *const rpw_plugin_t,
    name: *mut *const c_char,
    length: *mut usize,
) -> i32 {
    // SAFETY: as promised by the caller.
    let (plugin, name, length) = unsafe { (handle::lend(plugin), name.as_mut(), length.as_mut()) };
    let (Some(plugin), Some(name), Some(length)) = (plugin, name, length) else { return RPW_ERROR };
    *name = plugin.name.as_ptr().cast();
    *length = plugin.name.len();
    RPW_CONTINUE
}

/// Starts a plugin of that code.
pub(super) fn start(code: Arc<Code>, options: Options) -> Result<Rc<Plugin>, Failure> {
    let host = nginx::host()?;
    let module = Module::new(code, options, &host)?;
    let loaded = Plugin::new(module, host)?;
    for warning in loaded.warnings() {
        log(loaded.name(), LogLevel::Warn, warning);
    }
    work::add_plugin(&loaded);
    Ok(loaded)
}

/// Writes a line about the plugin of that name.
pub(super) fn log(name: &str, level: LogLevel, text: &str) {
    nginx::log(None, level, format!("wasm plugin \"{name}\": {text}").as_bytes());
}

/// Gives a plugin back. Its plugin contexts keep what they need of it.
///
/// # Safety
/// `plugin` is NULL or a handle of `rpw_plugin_load` that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_plugin_free(plugin: *mut rpw_plugin_t) {
    // Dropping a VM runs no guest, so a finalizer may do it at once.
    let freed = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as promised by the caller.
        drop(unsafe { handle::take(plugin) });
    }));
    if freed.is_err() {
        nginx::log(
            None,
            LogLevel::Error,
            b"the host panicked while a plugin was freed; this is a bug of the host",
        );
    }
}

/// # Safety
/// The strings of `options` have the given lengths.
pub(super) unsafe fn read(options: &rpw_options_t) -> Result<Options, Failure> {
    // SAFETY: as promised by the caller.
    let (vm_config, root_id, vm_id, env) = unsafe {
        (
            types::bytes(options.vm_config, options.vm_config_length),
            types::bytes(options.root_id, options.root_id_length),
            types::bytes(options.vm_id, options.vm_id_length),
            types::pairs(options.env, options.env_length),
        )
    };
    // SAFETY: as promised by the caller.
    let calls = unsafe { upstreams::rules(options.calls, options.calls_length) }?;
    let mut variables = Vec::new();
    for (key, value) in env {
        if key.is_empty() || key.contains(&b'=') || key.contains(&0) || value.contains(&0) {
            return Err(Failure::new(format!(
                "env: \"{}\" cannot be an environment variable",
                key.escape_ascii()
            )));
        }
        variables.push((text(key, "env")?, text(value, "env")?));
    }
    Ok(Options {
        root_id: text(root_id, "root_id")?,
        vm_id: text(vm_id, "vm_id")?,
        vm_config: vm_config.to_vec(),
        env: variables,
        memory_limit: options.memory_limit,
        time_limits: TimeLimits { callback: options.time_limit, start: options.start_time_limit },
        pause_timeout: options.pause_timeout,
        body_limit: usize::try_from(options.body_limit).unwrap_or(usize::MAX),
        fail_open: options.fail_open != 0,
        body: options.body != 0,
        calls: calls.unwrap_or_else(upstreams::default_rules),
        calls_hold: (options.calls_hold >= 0).then_some(options.calls_hold != 0),
        ..Options::new("")
    })
}

fn text(bytes: &[u8], what: &str) -> Result<String, Failure> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Failure::new(format!("{what} is not UTF-8")))
}
