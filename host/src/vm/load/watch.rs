//! Watches the compilation of a module: how far it is, and what memory it takes.
//!
//! Cranelift tells a profiler of each of its steps, on the thread that does it; it is made for measuring times. Ours counts functions
//! that are compiled, and ends a compile that takes too much memory: it unwinds, as a panic does.

use std::any::Any;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

use cranelift_codegen::timing::{Pass, Profiler, set_thread_profiler};
use wasmparser::{Parser, Payload};

/// How a module is compiled.
#[derive(Clone, Default)]
pub(crate) struct Means {
    /// On how many threads; `None` for one for each core.
    pub threads: Option<NonZeroUsize>,
    /// Bytes by which the memory of the process may grow meanwhile.
    pub memory: Option<u64>,
    /// Who is told how far it is.
    pub progress: Option<Arc<Progress>>,
}

/// What the load of a module is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    /// Others are loaded before.
    Queued,
    /// Its file is read.
    Reading,
    /// Its code is looked for, or another process compiles it, or another module is compiled.
    Waiting,
    /// Its functions are compiled.
    Compiling,
    /// Its code is put together, kept and mapped.
    Finishing,
}

/// How far a load is, told from the threads that load.
#[derive(Debug, Default)]
pub struct Progress {
    stage: AtomicU32,
    compiled: AtomicU32,
    functions: AtomicU32,
}

impl Progress {
    /// Another stage begins.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u32, Relaxed);
    }

    /// The stage, how many functions are compiled, and of how many: 0 before that is known.
    pub fn get(&self) -> (u32, u32, u32) {
        let functions = self.functions.load(Relaxed);
        // One more is compiled when the host adds a function.
        (self.stage.load(Relaxed), self.compiled.load(Relaxed).min(functions), functions)
    }
}

/// What a compile unwinds with that has taken too much memory.
pub(crate) struct TooMuchMemory;

/// What is watched of one compile, on all of its threads.
#[derive(Clone)]
pub(crate) struct Watch {
    progress: Option<Arc<Progress>>,
    cap: Option<Arc<Cap>>,
    /// All functions are read before one is compiled.
    inlines: bool,
}

impl Watch {
    /// Begins to watch. The error says that the memory of the process cannot be told.
    pub(crate) fn begin(bytes: &[u8], means: &Means, inlines: bool) -> io::Result<Self> {
        if let Some(progress) = &means.progress {
            progress.functions.store(functions(bytes), Relaxed);
            progress.enter(Stage::Compiling);
        }
        let cap = means.memory.map(Cap::new).transpose()?.map(Arc::new);
        Ok(Self { progress: means.progress.clone(), cap, inlines })
    }

    /// The functions are compiled.
    pub(crate) fn end(self) {
        if let Some(progress) = self.progress {
            progress.enter(Stage::Finishing);
        }
    }

    /// To be called on each thread that compiles.
    pub(crate) fn install(self) {
        if self.progress.is_some() || self.cap.is_some() {
            let (in_function, looked) = (Cell::new(false), Cell::new(None));
            set_thread_profiler(Box::new(OnThread { watch: self, in_function, looked }));
        }
    }
}

/// A profiler, as far as cranelift knows.
struct OnThread {
    watch: Watch,
    /// A function of the module was read, and is compiled next. Others are of wasmtime's.
    in_function: Cell<bool>,
    /// When the memory was looked at.
    looked: Cell<Option<Instant>>,
}

/// Between two looks at the memory.
const PAUSE: Duration = Duration::from_millis(1);

impl Profiler for OnThread {
    #[allow(
        clippy::disallowed_methods,
        reason = "how often the memory is looked at changes nothing that guests observe"
    )]
    fn start_pass(&self, pass: Pass) -> Box<dyn Any> {
        if let Some(cap) = &self.watch.cap
            && self.looked.get().is_none_or(|looked| looked.elapsed() >= PAUSE)
        {
            self.looked.set(Some(Instant::now()));
            cap.check();
        }
        match (pass, &self.watch.progress) {
            // Reading takes the better part of the time there, and what is compiled behind it is not told from wasmtime's own.
            (Pass::wasm_translate_function, Some(progress)) if self.watch.inlines => {
                return Box::new(Compiled(progress.clone()));
            }
            (Pass::wasm_translate_function, _) => self.in_function.set(true),
            (Pass::compile, Some(progress)) if self.in_function.take() => {
                return Box::new(Compiled(progress.clone()));
            }
            _ => {}
        }
        Box::new(())
    }
}

/// Dropped when a function is compiled.
struct Compiled(Arc<Progress>);

impl Drop for Compiled {
    fn drop(&mut self) {
        self.0.compiled.fetch_add(1, Relaxed);
    }
}

/// The memory of the process, which may grow by so much.
struct Cap {
    /// `/proc/self/statm`
    file: File,
    most: u64,
    passed: AtomicBool,
}

impl Cap {
    #[allow(
        clippy::disallowed_methods,
        reason = "a file of the kernel's, without a disk behind it"
    )]
    fn new(memory: u64) -> io::Result<Self> {
        let file = File::open("/proc/self/statm")?;
        let most = anonymous(&file)?.saturating_add(memory);
        Ok(Self { file, most, passed: AtomicBool::new(false) })
    }

    /// Unwinds when it has grown by more.
    fn check(&self) {
        if !self.passed.load(Relaxed) {
            let passes = anonymous(&self.file).is_ok_and(|memory| memory > self.most);
            self.passed.store(passes, Relaxed);
        }
        if self.passed.load(Relaxed) {
            std::panic::resume_unwind(Box::new(TooMuchMemory));
        }
    }
}

/// Bytes of memory that belong to this process alone, without what it maps of files.
fn anonymous(statm: &File) -> io::Result<u64> {
    let mut text = [0; 256];
    let length = statm.read_at(&mut text, 0)?;
    let mut numbers = text[..length].split(|byte| *byte == b' ').map(|number| {
        std::str::from_utf8(number).ok().and_then(|number| number.parse::<u64>().ok())
    });
    let (resident, of_files) = (numbers.nth(1).flatten(), numbers.next().flatten());
    match (resident, of_files) {
        (Some(resident), Some(of_files)) => {
            Ok(resident.saturating_sub(of_files) * rustix::param::page_size() as u64)
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// How many functions a module has.
fn functions(bytes: &[u8]) -> u32 {
    let payloads = Parser::new(0).parse_all(bytes).map_while(Result::ok);
    let count = |payload| match payload {
        Payload::CodeSectionStart { count, .. } => Some(count),
        _ => None,
    };
    payloads.into_iter().find_map(count).unwrap_or(0)
}
