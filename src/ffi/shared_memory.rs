//! The memory that workers share: made in the master before it forks, kept by all that comes after.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use super::failure::Failure;
use super::{forks, lua_vm, nginx};

use crate::abi::LogLevel;
use crate::limits;
use crate::shm::{CallKind, Repair, Shared};
use crate::store::Refusal;
use crate::vm::Plugin;

/// See the module.
pub(super) struct SharedMemory {
    made: AtomicPtr<Shared>,
    /// The system gave no memory: it is not asked again in each request.
    failed: AtomicBool,
    /// The Lua VM that made it: until it has forked workers it may still make another one.
    made_by: AtomicU64,
    /// The process that made it.
    made_in: AtomicU64,
    /// It was made in a worker, and so is its own.
    alone: AtomicBool,
}

impl SharedMemory {
    /// None so far.
    pub(super) const fn new() -> Self {
        Self {
            made: AtomicPtr::new(std::ptr::null_mut()),
            failed: AtomicBool::new(false),
            made_by: AtomicU64::new(0),
            made_in: AtomicU64::new(0),
            alone: AtomicBool::new(false),
        }
    }

    /// Whether other workers have the same.
    pub(super) fn is_common(&self) -> bool {
        let made_in = self.made_in.load(Ordering::Relaxed);
        made_in != 0 && made_in != forks::process()
    }

    /// What all workers share; made here when no master did so, and this process's own then.
    pub(super) fn get(&self) -> Option<&'static Shared> {
        // SAFETY: NULL, or a box that is replaced only before it is used, see `make`.
        let made = unsafe { self.made.load(Ordering::Acquire).as_ref() };
        made.or_else(|| self.make_alone())
    }

    /// The same for callers that keep data there: a worker that shares it with no other logs that once.
    pub(super) fn get_for_data(&self) -> Option<&'static Shared> {
        let shared = self.get()?;
        if self.alone.load(Ordering::Relaxed) && self.alone.swap(false, Ordering::Relaxed) {
            nginx::log(
                None,
                LogLevel::Warn,
                b"wasm: shared data, queues and metrics are this worker's own: require(\"resty.proxy-wasm\") in \
                  init_by_lua, so that all workers share them",
            );
        }
        Some(shared)
    }

    /// Counts a call of a plugin that has ended. A call is not counted when the memory is full.
    pub(super) fn count_call(&self, plugin: &Plugin, upstream: &str, kind: CallKind, failed: bool) {
        if let Some(shared) = self.get() {
            let _ = shared.count_call(plugin.name(), upstream, kind, failed);
        }
    }

    /// Makes it, of that many bytes; 0 for what is there or the default.
    ///
    /// # Safety
    /// Nothing that is shared was used since this Lua VM began.
    pub(super) unsafe fn make(&self, size: usize) -> Result<(), Failure> {
        let old = self.made.load(Ordering::Acquire);
        let new =
            |size| Shared::new(size, on_repair).map_err(|error| Failure::new(error.to_string()));
        if old.is_null() {
            self.keep(new(if size == 0 { limits::DEFAULT_SHARED_MEMORY } else { size })?);
            return Ok(());
        }
        // SAFETY: a box that `keep` leaked.
        let before = unsafe { &*old }.size().map_err(refused)?.0;
        if size == 0 || size == before {
            return Ok(());
        }
        if self.made_by.load(Ordering::Relaxed) != lua_vm::number() {
            let line = format!(
                "wasm: shared_memory stays at {before} bytes until nginx is started again: workers use it"
            );
            nginx::log(None, LogLevel::Warn, line.as_bytes());
            return Ok(());
        }
        self.keep(new(size)?);
        // SAFETY: it came from `keep`, and nothing has used it since, as promised by the caller.
        drop(unsafe { Box::from_raw(old) });
        Ok(())
    }

    #[cold]
    fn make_alone(&self) -> Option<&'static Shared> {
        if self.failed.load(Ordering::Relaxed) {
            return None;
        }
        match Shared::new(limits::DEFAULT_SHARED_MEMORY, on_repair) {
            Ok(made) => {
                self.alone.store(true, Ordering::Relaxed);
                Some(self.keep(made))
            }
            Err(error) => {
                self.failed.store(true, Ordering::Relaxed);
                let line = format!("wasm: no shared memory: {error}");
                nginx::log(None, LogLevel::Error, line.as_bytes());
                None
            }
        }
    }

    fn keep(&self, made: Shared) -> &'static Shared {
        self.made_by.store(lua_vm::number(), Ordering::Relaxed);
        self.made_in.store(forks::process(), Ordering::Relaxed);
        // Lives as long as the process and those that it forks; so it is never freed once it is in use.
        let made: &'static Shared = Box::leak(Box::new(made));
        self.made.store(std::ptr::from_ref(made).cast_mut(), Ordering::Release);
        made
    }
}

fn on_repair(repair: &Repair) {
    let line = format!(
        "wasm: a worker ended while it changed the shared memory, which was repaired: {} items are there{}",
        repair.kept,
        if repair.cut > 0 {
            format!(", {} ends of lists were lost", repair.cut)
        } else {
            String::new()
        },
    );
    nginx::log(None, LogLevel::Warn, line.as_bytes());
}

/// There is no shared memory.
pub(super) fn none() -> Failure {
    Failure::new("the system gave no shared memory")
}

/// The shared memory refused an operation.
pub(super) fn refused(refusal: Refusal) -> Failure {
    Failure::new(match refusal {
        Refusal::Full => "the shared memory is full",
        Refusal::TooLarge => "the key or the value is too large",
        Refusal::TooMany => "there are too many",
        Refusal::Mismatch => "the version is another one",
        Refusal::TooManyProcesses => "more processes use the shared memory than it has room for",
    })
}
