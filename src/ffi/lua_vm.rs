//! What a Lua VM has set up. nginx makes a new Lua VM at each reload, and what the one before set up goes with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use parking_lot::RwLock;
use proxy_wasm_host::folder::Folder;
use rustc_hash::FxHashMap;

use super::functions::Functions;
use super::types::rpw_caller_t;
use crate::callout::{Rules, Trust, Upstream};
use crate::ports::ForeignKind;

/// See the module.
pub(super) struct LuaVm {
    /// Counts the Lua VMs of this nginx since its start.
    number: u64,
    /// Functions of nginx and ngx_lua, which that Lua VM found.
    pub functions: Functions,
    /// What its code chose.
    pub settings: RwLock<Settings>,
    /// The process that has logged that the folder is of no use, or of little.
    pub complained: AtomicU64,
    /// There is a function of Lua that runs inside a guest's call.
    pub any_now: AtomicBool,
    /// The function of Lua that is asked for upstreams that are not listed is there.
    pub asks_lua: AtomicBool,
}

/// What the exports for setting up change. All of it begins empty.
#[derive(Default)]
pub(super) struct Settings {
    /// Where compiled modules are kept.
    pub folder: Option<Arc<Folder>>,
    /// Threads that compile in the background; 0 for the default.
    pub compile_threads: usize,
    /// Bytes by which a compile may make the memory of the process grow; 0 for no cap.
    pub compile_memory: u64,
    /// What filters without rules of their own may call.
    pub rules: Rules,
    /// Upstreams by the names that filters call them by.
    pub upstreams: FxHashMap<Vec<u8>, Upstream>,
    /// Other upstreams, as the function of Lua answered last: for where it cannot be called.
    pub answered: FxHashMap<Vec<u8>, Upstream>,
    /// Whose certificates are believed, of upstreams that have nothing of their own.
    pub trust: Option<Trust>,
    /// HTTP calls take that, too.
    pub trust_of_http: bool,
    /// Functions of Lua that filters can call.
    pub foreign: FxHashMap<Vec<u8>, ForeignKind>,
    /// What calls those that run inside a guest's call.
    pub caller: rpw_caller_t,
}

static CURRENT: AtomicPtr<LuaVm> = AtomicPtr::new(std::ptr::null_mut());

/// Begins a new one.
pub(super) fn begin(functions: Functions) {
    let new = LuaVm {
        number: number() + 1,
        functions,
        settings: RwLock::default(),
        complained: AtomicU64::new(0),
        any_now: AtomicBool::new(false),
        asks_lua: AtomicBool::new(false),
    };
    // Never freed, since requests of before may still be about to call its functions. Its settings are.
    let old = CURRENT.swap(Box::into_raw(Box::new(new)), Ordering::AcqRel);
    // SAFETY: NULL, or a box that is never freed.
    if let Some(old) = unsafe { old.as_ref() } {
        *old.settings.write() = Settings::default();
    }
}

/// The last one; `None` before `rpw_setup`.
#[inline]
pub(super) fn current() -> Option<&'static LuaVm> {
    // SAFETY: NULL, or a box that is never freed.
    unsafe { CURRENT.load(Ordering::Acquire).as_ref() }
}

/// The functions of nginx that it found: a reload may bring ngx_lua at another address while requests of before still end.
#[inline]
pub(super) fn functions() -> Option<&'static Functions> {
    current().map(|vm| &vm.functions)
}

/// Its number; 0 before `rpw_setup`.
pub(super) fn number() -> u64 {
    current().map_or(0, |vm| vm.number)
}

/// Reads its settings; `None` before `rpw_setup`.
pub(super) fn read<R>(f: impl FnOnce(&Settings) -> R) -> Option<R> {
    let settings = current()?.settings.read();
    Some(f(&settings))
}

/// Changes its settings; `None` before `rpw_setup`.
pub(super) fn change<R>(f: impl FnOnce(&mut Settings) -> R) -> Option<R> {
    let mut settings = current()?.settings.write();
    Some(f(&mut settings))
}
