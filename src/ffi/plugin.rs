//! Plugins: loading and freeing.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use super::boundary::guest_boundary;
use super::failure::Failure;
use super::host::host;
use super::loading::rpw_loading_t;
use super::objects::rpw_plugin_t;
use super::ticker::Entry;
use super::types::{self, RPW_CONTINUE, RPW_ERROR, rpw_error_t, rpw_options_t};
use super::worker::Worker;
use super::{cache, failures, handle, nginx, upstreams};
use crate::abi::LogLevel;
use crate::vm::{Code, Module, Options, Plugin, TimeLimits};

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
    guest_boundary(Entry::Setup, true, error, |worker| {
        // SAFETY: as promised by the caller.
        let (name, code, options) = unsafe {
            let options = options.as_ref().filter(|_| !plugin.is_null());
            let options = options.ok_or_else(|| Failure::new("rpw_plugin_load: NULL argument"))?;
            (types::bytes(name, name_length), types::bytes(code, code_length), read(options))
        };
        let name = text(name, "name")?;
        let found = cache::find(host()?.as_ref(), code, None)?;
        let options = Options { name, ..options? };
        let loaded = start(worker, found.code(&options.name), options.clone())?;
        // SAFETY: checked above.
        unsafe { *plugin = give(worker, loaded, options) };
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
    guest_boundary(Entry::Setup, true, error, |worker| {
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
        let loaded = start(worker, code, options.clone())?;
        // SAFETY: checked above.
        unsafe { *plugin = give(worker, loaded, options) };
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

fn give(worker: &Worker, plugin: Rc<Plugin>, options: Options) -> *mut rpw_plugin_t {
    let made = rpw_plugin_t::new(plugin, options);
    worker.add_plugin(&made);
    handle::give(made)
}

/// Starts a plugin of that code.
pub(super) fn start(
    worker: &Worker,
    code: Arc<Code>,
    options: Options,
) -> Result<Rc<Plugin>, Failure> {
    let host = host()?;
    let module = Module::new(code, options, &host)?;
    let loaded = Plugin::new(module, host)?;
    for warning in loaded.warnings() {
        failures::log(loaded.name(), LogLevel::Warn, warning);
    }
    worker.jobs.borrow_mut().add_plugin(&loaded);
    Ok(loaded)
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
