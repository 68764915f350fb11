//! The module cache of the process.

use std::ffi::{OsStr, c_char};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::boundary::boundary;
use super::failure::Failure;
use super::images::Siblings;
use super::process::PROCESS;
use super::types::{self, RPW_CONTINUE, rpw_error_t};
use super::{failures, forks, lua_vm};
use crate::abi::LogLevel;
use crate::error::Error;
use crate::ports::Host;
use crate::store::Counters as _;
use crate::vm::{Code, CodeStore, Loaded, Origin, Progress, Sources};
use proxy_wasm_host::folder::Folder;

/// Keeps compiled modules in a folder from now on, until `rpw_setup` is called for another Lua VM.
///
/// The folder is made (mode 0755) when it is not there; its parent must be. A process reads entries that its own user
/// or root wrote, and writes into a folder of its own user.
///
/// # Arguments
/// `path` is absolute, holds no NUL and is copied.
/// # Returns
/// `RPW_CONTINUE`.
/// # Errors
/// `RPW_ERROR` when the folder cannot be made or opened, is a symbolic link or no folder, belongs to another user than
/// the effective one and root, or can be written to by group or others. Then no folder is used.
/// # Safety
/// `path` has the given length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_cache_dir(
    path: *const c_char,
    path_length: usize,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let path = Path::new(OsStr::from_bytes(unsafe { types::bytes(path, path_length) }));
        set_folder(None);
        if !path.is_absolute() {
            return Err(Failure::new("rpw_cache_dir: the path is not absolute"));
        }
        set_folder(Some(Folder::set_up(path).map_err(Failure::new)?));
        Ok(RPW_CONTINUE)
    })
}

const NANOS_PER_MS: u64 = 1_000_000;

/// Keeps compiled modules in this folder, or in none.
fn set_folder(folder: Option<Folder>) {
    lua_vm::change(|settings| settings.folder = folder.map(Arc::new));
    if let Some(vm) = lua_vm::current() {
        vm.complained.store(0, Ordering::Relaxed);
    }
}

/// Compiles in the background on that many threads from now on, until `rpw_setup` is called for another Lua VM.
///
/// # Arguments
/// `threads`: 0 for the default, half as many as there are cores.
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_compile_threads(threads: u32) -> i32 {
    lua_vm::change(|settings| settings.compile_threads = threads as usize);
    RPW_CONTINUE
}

/// Ends compiles during which the memory of the process grows by more bytes, from now on, until `rpw_setup` is called for
/// another Lua VM.
///
/// # Arguments
/// `bytes`: 0 for no cap.
/// # Returns
/// `RPW_CONTINUE`.
#[unsafe(no_mangle)]
pub extern "C" fn rpw_compile_memory(bytes: u64) -> i32 {
    lua_vm::change(|settings| settings.compile_memory = bytes);
    RPW_CONTINUE
}

fn threads() -> NonZeroUsize {
    let set = lua_vm::read(|settings| settings.compile_threads).unwrap_or(0);
    NonZeroUsize::new(set).unwrap_or_else(|| {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
    })
}

/// The code of a module, how long it took to get it, and the folder that was used.
pub(super) struct Found {
    loaded: Loaded,
    nanoseconds: u64,
    /// The log has it.
    told: AtomicBool,
    folder: Option<Arc<Folder>>,
}

/// The code of a module. In the background, where somebody is told how far it is, it is compiled on a few threads, and one
/// module after the other.
pub(super) fn find(
    host: &dyn Host,
    bytes: &[u8],
    progress: Option<&Arc<Progress>>,
) -> Result<Found, Error> {
    let set = lua_vm::read(|settings| (settings.folder.clone(), settings.compile_memory));
    let (folder, memory) = set.unwrap_or_default();
    let start = host.monotonic_clock();
    let loaded = PROCESS.cache.load(
        bytes,
        Sources {
            store: folder.as_deref().map(|folder| folder as &dyn CodeStore),
            images: Some(&Siblings),
            threads: progress.map(|_| threads()),
            memory: NonZeroU64::new(memory).map(NonZeroU64::get),
            progress,
        },
    )?;
    let nanoseconds = host.monotonic_clock().saturating_sub(start);
    Ok(Found { loaded, nanoseconds, folder, told: AtomicBool::new(false) })
}

impl Found {
    /// SHA-256 of the module.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.loaded.code.digest
    }

    /// The code, for the plugin of that name: the first one to ask has the log tell where it came from.
    pub(super) fn code(&self, name: &str) -> Arc<Code> {
        let is_first = !self.told.swap(true, Ordering::Relaxed);
        if is_first {
            self.tell(name);
        }
        if let Some(shared) = PROCESS.shared.get() {
            // What one has loaded is in memory for those that come after it.
            let origin = if is_first { self.loaded.origin } else { Origin::Memory };
            if let Some(presence) = shared.own(name).presence() {
                presence.found(origin as usize, self.nanoseconds);
            }
        }
        self.loaded.code.clone()
    }

    /// Logs where the code came from, and what is wrong with the folder: once in each process, since that does not change
    /// with the modules.
    fn tell(&self, name: &str) {
        let loaded = &self.loaded;
        if let Some(folder) = &self.folder {
            let path = folder.path().display();
            if let Some(cause) = &loaded.bad_entry {
                let text = format!("cache entry {path}/{cause}; the module was compiled again");
                failures::log(name, LogLevel::Warn, &text);
            }
            let unusable = loaded.unusable.as_ref();
            let unusable =
                unusable.map(|cause| format!("{cause}; modules are compiled without it"));
            let complaint = unusable.or_else(|| loaded.not_kept.clone());
            if let Some(complaint) = complaint
                && let Some(vm) = lua_vm::current()
                && vm.complained.swap(forks::process(), Ordering::Relaxed) != forks::process()
            {
                failures::log(name, LogLevel::Warn, &format!("cache_dir {path} {complaint}"));
            }
        }
        let what = match loaded.origin {
            Origin::Memory => return,
            Origin::Shared => "shared with another process",
            Origin::Store => "taken from cache_dir",
            Origin::Compiled => "compiled",
        };
        let text = format!("{what} in {} ms", self.nanoseconds / NANOS_PER_MS);
        failures::log(name, LogLevel::Info, &text);
    }
}
