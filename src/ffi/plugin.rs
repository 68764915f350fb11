//! Plugins: loading and freeing.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ticker::Entry;
use super::{
    Failure, RPW_CONTINUE, cache, guest_boundary, handle, nginx, rpw_error_t, rpw_options_t, types,
    upstreams, work,
};
use crate::abi::LogLevel;
use crate::vm::{Module, Options, Plugin, TimeLimits};

/// A loaded plugin.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
pub type rpw_plugin_t = Plugin;

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
    guest_boundary(Entry::Setup, true, error, || {
        // SAFETY: as promised by the caller.
        let (name, code, options) = unsafe {
            let options = options.as_ref().filter(|_| !plugin.is_null());
            let options = options.ok_or_else(|| Failure::new("rpw_plugin_load: NULL argument"))?;
            (types::bytes(name, name_length), types::bytes(code, code_length), read(options))
        };
        let host = nginx::host()?;
        let name = text(name, "name")?;
        let options = Options { name, ..options? };
        let code = cache::code(&options.name, code)?;
        let module = Module::new(code, options, &host)?;
        let loaded = Plugin::new(module, host)?;
        for warning in loaded.warnings() {
            log(loaded.name(), LogLevel::Warn, warning);
        }
        work::add_plugin(&loaded);
        // SAFETY: checked above.
        unsafe { *plugin = handle::give(loaded) };
        Ok(RPW_CONTINUE)
    })
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
unsafe fn read(options: &rpw_options_t) -> Result<Options, Failure> {
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
