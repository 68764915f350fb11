//! The module cache of the process.

use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use super::folder::Folder;
use super::{Failure, RPW_CONTINUE, boundary, nginx, plugin, process, rpw_error_t, types};
use crate::abi::LogLevel;
use crate::vm::{Cache, Code, CodeStore, Origin};

static CACHE: LazyLock<Cache> = LazyLock::new(Cache::default);
static FOLDER: RwLock<Option<Arc<Folder>>> = RwLock::new(None);
/// The process that has logged that the folder is of no use, or of little.
static COMPLAINED: AtomicU64 = AtomicU64::new(0);

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

/// Keeps compiled modules in this folder, or in none.
pub(super) fn set_folder(folder: Option<Folder>) {
    *FOLDER.write().unwrap_or_else(PoisonError::into_inner) = folder.map(Arc::new);
    COMPLAINED.store(0, Ordering::Relaxed);
}

/// The code of a module for the plugin of that name. Logs where it came from, and what is wrong with the folder: once
/// in each process, since that does not change with the modules.
pub(super) fn code(name: &str, bytes: &[u8]) -> Result<Arc<Code>, Failure> {
    let host = nginx::host()?;
    let folder = FOLDER.read().unwrap_or_else(PoisonError::into_inner).clone();
    let start = host.monotonic_clock();
    let loaded = CACHE.load(bytes, folder.as_deref().map(|folder| folder as &dyn CodeStore))?;
    let taken = host.monotonic_clock().saturating_sub(start) / 1_000_000;

    if let Some(folder) = &folder {
        let path = folder.path().display();
        if let Some(cause) = loaded.bad_entry {
            let text = format!("cache entry {path}/{cause}; the module was compiled again");
            plugin::log(name, LogLevel::Warn, &text);
        }
        let unusable =
            loaded.unusable.map(|cause| format!("{cause}; modules are compiled without it"));
        let complaint = unusable.or(loaded.not_kept);
        if let Some(complaint) = complaint
            && COMPLAINED.swap(process::current(), Ordering::Relaxed) != process::current()
        {
            plugin::log(name, LogLevel::Warn, &format!("cache_dir {path} {complaint}"));
        }
    }
    match loaded.origin {
        Origin::Memory => {}
        Origin::Store => {
            plugin::log(name, LogLevel::Info, &format!("taken from cache_dir in {taken} ms"));
        }
        Origin::Compiled => plugin::log(name, LogLevel::Info, &format!("compiled in {taken} ms")),
    }
    Ok(loaded.code)
}
