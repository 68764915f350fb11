//! Replacing the module of a plugin while nginx serves.
//!
//! The worker that is asked starts the new module, has it take the configurations of all contexts of the plugin, and makes
//! a plan that all workers find in the shared memory. Then new requests get the new contexts; requests under way end with
//! the old ones. The other workers are woken, and do the same by that plan.

use std::ffi::c_char;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::boundary::{guest_boundary, with_worker};
use super::failure::Failure;
use super::host::host;
use super::loading::rpw_loading_t;
use super::objects::{rpw_context_t, rpw_plugin_t};
use super::plans::{Plan, rpw_plan_t};
use super::process::PROCESS;
use super::shared_memory::{none, refused};
use super::ticker::Entry;
use super::types::{self, RPW_CONTINUE, RPW_MISSING, rpw_error_t, rpw_options_t};
use super::worker::Worker;
use super::{handle, listen, plugin};
use crate::shm::PlanNumber;
use crate::vm::{Context, Options, Plugin};

/// Tells where to look whether plugins were replaced: a number that changes with each replacement in this process.
///
/// # Returns
/// An address that stays good for the life of the process.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_replacements() -> *const i32 {
    PROCESS.replacements.as_ptr()
}

/// A module that has started and has taken all configurations.
struct Successor {
    plugin: Rc<Plugin>,
    options: Options,
    contexts: Vec<(Rc<rpw_context_t>, Rc<Context>)>,
}

impl Successor {
    /// Starts what a plugin is to be replaced with.
    fn start(
        worker: &Worker,
        old: &rpw_plugin_t,
        loading: &rpw_loading_t,
        options: Option<Options>,
    ) -> Result<Self, Failure> {
        let before = old.options();
        let options = match options {
            None => before,
            Some(options) => {
                let own_root = !options.root_id.is_empty();
                let root_id = if own_root { options.root_id } else { before.name.clone() };
                Options { root_id, name: before.name, ..options }
            }
        };
        let code = loading.with_found(|found| Ok(found.code(&options.name)))?;
        let plugin = plugin::start(worker, code, options.clone())?;
        let mut contexts = Vec::new();
        for context in old.contexts() {
            let configuration = context.current();
            let made = Context::new(&plugin, configuration.configuration())?;
            contexts.push((context, made));
        }
        Ok(Self { plugin, options, contexts })
    }

    /// Takes the place of the old one.
    fn take_over(
        self,
        worker: &Worker,
        old: &rpw_plugin_t,
        plan: PlanNumber,
    ) -> Result<(), Failure> {
        let counters = host()?.counters(self.plugin.name());
        if let Some(presence) = counters.presence() {
            presence.version(plan.into());
        }
        for (context, made) in self.contexts {
            worker.endings.queue_context(context.replace(made));
        }
        old.replace(self.plugin, self.options);
        PROCESS.replacements.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Replaces the module of a plugin in this process, and has the other workers follow.
///
/// # Arguments
/// `loading` is one whose state is `RPW_CONTINUE`. `options`: NULL for those of before. `lua_vm`: what
/// `rpw_lua_vm` said when the Lua VM began. `path` and `words` are for the other workers: the file, and the options in
/// whatever words Lua reads them in.
/// # Returns
/// `RPW_CONTINUE`; `RPW_ERROR` when the module does not start or refuses a configuration, or when the other workers cannot be
/// told: then everything is as before.
/// # Safety
/// `plugin` and `loading` are live handles, strings have the given lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_plugin_replace(
    plugin: *const rpw_plugin_t,
    loading: *const rpw_loading_t,
    options: *const rpw_options_t,
    lua_vm: u64,
    path: *const c_char,
    path_length: usize,
    words: *const c_char,
    words_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Setup, true, error, |worker| {
        // SAFETY: as promised by the caller.
        let (plugin, loading) = unsafe { (handle::share(plugin), handle::lend(loading)) };
        let (Some(plugin), Some(loading)) = (plugin, loading) else {
            return Err(Failure::new("rpw_plugin_replace: NULL argument"));
        };
        // SAFETY: as promised by the caller.
        let options = unsafe { read(options) }?;
        let successor = Successor::start(worker, &plugin, loading, options)?;
        // SAFETY: as promised by the caller.
        let (path, options) =
            unsafe { (types::bytes(path, path_length), types::bytes(words, words_length)) };
        let plan = Plan {
            lua_vm,
            digest: loading.with_found(|found| Ok(found.digest()))?,
            path: path.to_vec(),
            options: options.to_vec(),
        };
        let shared = PROCESS.shared.get_for_data().ok_or_else(none)?;
        let name = successor.options.name.as_bytes();
        let number = shared.set_plan(name, &plan.to_bytes()).map_err(|refusal| {
            let cause = refused(refusal).text().to_owned();
            Failure::new(format!("the other workers cannot be told: {cause}"))
        })?;
        successor.take_over(worker, &plugin, number)?;
        plugin.plan.set(number);
        worker.plans.set(number);
        worker.run_endings();
        for address in shared.addresses() {
            listen::wake(worker, address);
        }
        Ok(RPW_CONTINUE)
    })
}

/// # Safety
/// `options` is NULL or valid, and its strings have the given lengths.
unsafe fn read(options: *const rpw_options_t) -> Result<Option<Options>, Failure> {
    // SAFETY: as promised by the caller.
    let options = unsafe { options.as_ref() };
    // SAFETY: as promised by the caller.
    options.map(|options| unsafe { plugin::read(options) }).transpose()
}

/// The next plan that this process has not followed.
///
/// # Arguments
/// `lua_vm`: what `rpw_lua_vm` said when the Lua VM began. Plans of another one are over: a reload has brought a new
/// configuration.
/// # Returns
/// `RPW_CONTINUE` with the plan in `*plan`, whose strings are good until the next call of this function, and whose plugin
/// is to be freed by `rpw_plugin_free`; `RPW_MISSING` when there is none; `RPW_ERROR`.
/// # Safety
/// `plan` is valid, `error` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_plan_next(
    lua_vm: u64,
    plan: *mut rpw_plan_t,
    error: *mut rpw_error_t,
) -> i32 {
    with_worker(error, |worker| {
        // SAFETY: as promised by the caller.
        let out = unsafe { plan.as_mut() };
        let out = out.ok_or_else(|| Failure::new("rpw_plan_next: NULL argument"))?;
        let shared = PROCESS.shared.get().ok_or_else(none)?;
        for plugin in worker.plugins() {
            let name = plugin.name.clone();
            let Some((number, plan)) = shared.plan(name.as_bytes()).map_err(refused)? else {
                continue;
            };
            let plan = Plan::parse(&plan).filter(|plan| plan.lua_vm == lua_vm);
            let Some(plan) = plan.filter(|_| plugin.plan.get() != number) else { continue };
            // One that fails is not tried again.
            plugin.plan.set(number);
            {
                let mut kept = worker.lent.plan.borrow_mut();
                let (name, plan) = kept.insert((name, plan));
                (out.name, out.name_length) = types::lend(name.as_bytes());
                (out.path, out.path_length) = types::lend(&plan.path);
                (out.options, out.options_length) = types::lend(&plan.options);
                out.digest = plan.digest;
                out.number = number;
            }
            out.plugin = handle::give(plugin);
            return Ok(RPW_CONTINUE);
        }
        Ok(RPW_MISSING)
    })
}

/// Replaces the module of a plugin in this process, by a plan of another worker.
///
/// # Arguments
/// `loading` is one whose state is `RPW_CONTINUE`. `options`: NULL for those of before. `number` and `digest`, 32 bytes, are
/// those of the plan.
/// # Returns
/// `RPW_CONTINUE`; `RPW_MISSING` when the plugin was replaced by a later plan while the module was loaded; `RPW_ERROR`
/// when the module is another one, does not start or refuses a configuration: then everything is as before.
/// # Safety
/// `plugin` and `loading` are live handles, the strings of `options` have the given lengths, `digest` has 32 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_plugin_follow(
    plugin: *const rpw_plugin_t,
    loading: *const rpw_loading_t,
    options: *const rpw_options_t,
    number: u32,
    digest: *const u8,
    error: *mut rpw_error_t,
) -> i32 {
    guest_boundary(Entry::Setup, true, error, |worker| {
        // SAFETY: as promised by the caller.
        let (plugin, loading) = unsafe { (handle::share(plugin), handle::lend(loading)) };
        let (Some(plugin), Some(loading)) = (plugin, loading) else {
            return Err(Failure::new("rpw_plugin_follow: NULL argument"));
        };
        if plugin.plan.get() != number {
            return Ok(RPW_MISSING);
        }
        // SAFETY: as promised by the caller.
        let (options, digest) = unsafe { (read(options)?, types::bytes(digest.cast(), 32)) };
        if loading.with_found(|found| Ok(found.digest()))? != digest {
            return Err(Failure::new(
                "the file is another one than the worker had that replaced the plugin",
            ));
        }
        Successor::start(worker, &plugin, loading, options)?.take_over(worker, &plugin, number)?;
        worker.run_endings();
        Ok(RPW_CONTINUE)
    })
}
