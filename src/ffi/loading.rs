//! Loading modules in the background: threads of the library's own read and compile while nginx serves.
//!
//! A job is one module to be loaded; a caller that wants the same file while it is loaded waits for the same job. Threads take
//! the jobs in turn, with the lowest priority, and end when there are no more. Nothing here enters a guest: that is
//! for nginx's thread, once the code is there.

use std::collections::VecDeque;
use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::{Mutex, const_mutex};
use rustix::fs::stat;
use rustix::process::setpriority_process;

use super::boundary::{boundary, panic_text};
use super::cache::{self, Found};
use super::failure::Failure;
use super::host::host;
use super::types::{self, RPW_CONTINUE, RPW_ERROR, RPW_PAUSE, RPW_UNREADABLE, rpw_error_t};
use super::{forks, handle, threads};
use crate::error::Error;
use crate::limits;
use crate::ports::Host;
use crate::store::Counters;
use crate::vm::{Progress, Stage};

/// A wait for a module.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
pub struct rpw_loading_t {
    job: Arc<Job>,
    /// Where it counts.
    own: Arc<dyn Counters>,
}

impl Drop for rpw_loading_t {
    fn drop(&mut self) {
        if let Some(presence) = self.own.presence() {
            presence.loading_ends();
        }
    }
}

struct Job {
    file: Identity,
    progress: Arc<Progress>,
    result: Mutex<Option<Result<Found, Cause>>>,
}

/// A file, as far as its content did not change.
#[derive(PartialEq, Eq)]
struct Identity {
    path: PathBuf,
    /// Device, inode, size, and when it was changed.
    is: Option<[i64; 5]>,
}

enum Cause {
    /// The file cannot be read.
    Unreadable(String),
    /// It is no module that can be used.
    Module(Error),
    Panic(String),
}

/// The jobs of a process.
#[derive(Default)]
struct Jobs {
    process: u64,
    waiting: VecDeque<Arc<Job>>,
    running: Vec<Arc<Job>>,
    threads: usize,
}

static JOBS: Mutex<Option<Jobs>> = const_mutex(None);

/// Room for the compiler's recursion.
const STACK: usize = 2 * 1024 * 1024;
/// The lowest priority (nice): what is left of a core's time.
const NICE: i32 = 19;

impl Identity {
    fn of(path: &[u8]) -> Self {
        let path = PathBuf::from(OsStr::from_bytes(path));
        let is = stat(&path).ok().map(|stat| {
            let numbers = [stat.st_dev, stat.st_ino];
            let [device, inode] = numbers.map(u64::cast_signed);
            let changed = stat.st_mtime.wrapping_mul(NANOS).wrapping_add(stat.st_mtime_nsec as i64);
            let moved = stat.st_ctime.wrapping_mul(NANOS).wrapping_add(stat.st_ctime_nsec as i64);
            [device, inode, stat.st_size, changed, moved]
        });
        Self { path, is }
    }
}

const NANOS: i64 = 1_000_000_000;

/// The job for a file: one that is under way, or a new one.
fn job(file: Identity) -> Result<Arc<Job>, Failure> {
    let host = host()?;
    let mut jobs = JOBS.lock();
    let jobs = jobs.get_or_insert_default();
    if jobs.process != forks::process() {
        // What the parent process had under way is not under way here.
        *jobs = Jobs { process: forks::process(), ..Jobs::default() };
    }
    let under_way = jobs.waiting.iter().chain(&jobs.running);
    if let Some(job) = under_way.into_iter().find(|job| job.file.is.is_some() && job.file == file) {
        return Ok(job.clone());
    }
    let job = Arc::new(Job { file, progress: Arc::default(), result: Mutex::new(None) });
    if jobs.threads < limits::LOADING_THREADS {
        threads::spawn("wasm loader", STACK, move || work(host.as_ref()))
            .map_err(|error| Failure::new(format!("no thread to load a module with: {error}")))?;
        jobs.threads += 1;
    }
    jobs.waiting.push_back(job.clone());
    Ok(job)
}

/// The next job that somebody waits for; `None` ends the thread.
fn next() -> Option<Arc<Job>> {
    let mut jobs = JOBS.lock();
    let jobs = jobs.get_or_insert_default();
    while let Some(job) = jobs.waiting.pop_front() {
        if Arc::strong_count(&job) > 1 {
            jobs.running.push(job.clone());
            return Some(job);
        }
    }
    jobs.threads = jobs.threads.saturating_sub(1);
    None
}

fn finished(job: &Arc<Job>) {
    let mut jobs = JOBS.lock();
    jobs.get_or_insert_default().running.retain(|running| !Arc::ptr_eq(running, job));
}

/// What a thread does.
fn work(host: &dyn Host) {
    // Of this thread alone, and of those that it starts.
    let _ = setpriority_process(None, NICE);
    while let Some(job) = next() {
        let result = catch_unwind(AssertUnwindSafe(|| load(host, &job)));
        let result = result.unwrap_or_else(|panic| Err(Cause::Panic(panic_text(&panic).into())));
        *job.result.lock() = Some(result);
        finished(&job);
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "read on a thread of our own, so that nginx does not wait"
)]
fn load(host: &dyn Host, job: &Job) -> Result<Found, Cause> {
    job.progress.enter(Stage::Reading);
    let path = &job.file.path;
    let bytes = std::fs::read(path).map_err(|error| {
        let text = error.to_string();
        let cause = text.split(" (os error").next().unwrap_or(&text);
        Cause::Unreadable(format!("{}: {cause}", path.display()))
    })?;
    cache::find(host, &bytes, Some(&job.progress)).map_err(Cause::Module)
}

impl rpw_loading_t {
    /// What came of it, once it is over.
    pub(super) fn with_found<R>(
        &self,
        f: impl FnOnce(&Found) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        match &*self.job.result.lock() {
            Some(Ok(found)) => f(found),
            Some(Err(cause)) => Err(cause.failure()),
            None => Err(Failure::new("the module is not loaded yet")),
        }
    }
}

impl Cause {
    fn failure(&self) -> Failure {
        let (code, text) = match self {
            Self::Unreadable(text) => (RPW_UNREADABLE, text.clone()),
            Self::Module(error) => (RPW_ERROR, error.to_string()),
            Self::Panic(text) => {
                (RPW_ERROR, format!("the host panicked: {text}; this is a bug of the host"))
            }
        };
        Failure::with_code(code, text)
    }
}

/// Begins to load a module in the background.
///
/// # Arguments
/// `name` is that of the plugin to be. `path` is copied.
/// # Returns
/// `RPW_CONTINUE` and the handle in `*loading`, to be freed by `rpw_loading_free`; `RPW_ERROR`.
/// # Safety
/// All pointers are valid for the call, strings have the given lengths.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_loading_begin(
    name: *const c_char,
    name_length: usize,
    path: *const c_char,
    path_length: usize,
    loading: *mut *mut rpw_loading_t,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        if loading.is_null() {
            return Err(Failure::new("rpw_loading_begin: NULL argument"));
        }
        // SAFETY: as promised by the caller.
        let (name, path) =
            unsafe { (types::bytes(name, name_length), types::bytes(path, path_length)) };
        let job = job(Identity::of(path))?;
        let host = host()?;
        let own = host.counters(&String::from_utf8_lossy(name));
        if let Some(presence) = own.presence() {
            presence.loading_begins(host.wall_clock() / NANOS.unsigned_abs());
        }
        // SAFETY: checked above.
        unsafe { *loading = handle::give(Rc::new(rpw_loading_t { job, own })) };
        Ok(RPW_CONTINUE)
    })
}

/// Says whether a module is loaded.
///
/// # Returns
/// `RPW_CONTINUE` when it is, `RPW_PAUSE` while it is not; `RPW_UNREADABLE` when the file cannot be read, and `RPW_ERROR`.
/// # Safety
/// `loading` is NULL or a live handle, `error` NULL or valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_loading_state(
    loading: *const rpw_loading_t,
    error: *mut rpw_error_t,
) -> i32 {
    boundary(error, || {
        // SAFETY: as promised by the caller.
        let loading = unsafe { handle::lend(loading) };
        let loading = loading.ok_or_else(|| Failure::new("rpw_loading_state: NULL argument"))?;
        if loading.job.result.lock().is_none() {
            if let Some(presence) = loading.own.presence() {
                let (stage, compiled, functions) = loading.job.progress.get();
                presence.loading_is_at([stage, compiled, functions].map(u64::from));
            }
            return Ok(RPW_PAUSE);
        }
        loading.with_found(|_| Ok(RPW_CONTINUE))
    })
}

/// Gives up waiting. A module that nothing waits for is not begun; one that is begun is finished, and kept where a
/// `cache_dir` is set.
///
/// # Safety
/// `loading` is NULL or a handle of `rpw_loading_begin` that was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rpw_loading_free(loading: *mut rpw_loading_t) {
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as promised by the caller.
        drop(unsafe { handle::take(loading) });
    }));
}
