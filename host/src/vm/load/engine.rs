//! The wasmtime engines of the process.
//!
//! There are two. One inlines calls between the functions of a module. Small filters gain by it, those above all whose
//! compiler does not do it, such as that of AssemblyScript. But while wasmtime inlines, it holds all functions of a module in
//! memory at once: 0.5 GB for a module of 2 MB. So larger modules are compiled with the other one. wasmtime runs a module only
//! in the engine that it was compiled with, or in one of the same settings.

use once_cell::sync::OnceCell;
use wasmtime::{Config, Engine, Inlining, WasmBacktraceDetails};

use super::process_limits;
use crate::error::{Error, one_line};

/// The largest module whose calls are inlined, in bytes. Compiling one of half that size takes 40 MB more of memory meanwhile,
/// and 0.2 s.
const INLINED_MODULE: usize = 64 * 1024;

/// How large a function may become, in instructions of Cranelift's. Compiled code grows to three times its size with it, and to four
/// times with twice as many.
const INLINED_FUNCTION: &str = "1000";

/// What a module is compiled with, and runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EngineKind {
    /// Calls between the functions of a module are inlined.
    Inlining,
    /// They are not.
    Plain,
}

impl EngineKind {
    /// All of them.
    pub(super) const ALL: [Self; 2] = [Self::Inlining, Self::Plain];

    /// The one for a module.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINED_MODULE { Self::Inlining } else { Self::Plain }
    }

    /// That engine; workers inherit it by fork, with all code that was compiled before.
    pub(crate) fn engine(self) -> Result<&'static Engine, Error> {
        Ok(&self.made()?.engine)
    }

    /// What compiles for that engine. For one that inlines it is another one of the same settings, to be dropped: an engine keeps
    /// for the next module what it took to compile the functions of the last one, which are all at work at once there.
    pub(super) fn compiler(self) -> Result<Engine, Error> {
        let made = self.made()?;
        match self {
            Self::Inlining => Engine::new(&made.config).map_err(cannot_start),
            Self::Plain => Ok(made.engine.clone()),
        }
    }

    fn made(self) -> Result<&'static Made, Error> {
        ENGINES.get_or_try_init(self, || {
            let config = self.config().map_err(Error::Module)?;
            Ok(Made { engine: Engine::new(&config).map_err(cannot_start)?, config })
        })
    }

    /// The settings of all engines of that kind, but for the processor that they compile for.
    #[allow(unsafe_code, reason = "a setting that wasmtime has no function for")]
    pub(super) fn config(self) -> Result<Config, String> {
        let mut config = Config::new();
        process_limits::apply(&mut config)?;
        config
            .wasm_backtrace_details(WasmBacktraceDetails::Disable)
            .wasm_memory64(false)
            // For a memory of our own beside the guest's, in which headers are looked up. Guests may not have two.
            .wasm_multi_memory(true)
            .concurrency_support(false)
            // Time limits, see `deadline`.
            .epoch_interruption(true)
            // Always inside a pool of our own, see `compile`.
            .parallel_compilation(true);
        if self == Self::Inlining {
            config.compiler_inlining(Inlining::Yes);
            // SAFETY: it changes how much is inlined, and not what code does.
            unsafe {
                config.cranelift_flag_set("wasmtime_inlining_sum_size_threshold", INLINED_FUNCTION)
            };
        }
        Ok(config)
    }
}

struct Made {
    engine: Engine,
    config: Config,
}

static ENGINES: PerEngine<Made> = PerEngine::new();

fn cannot_start(error: wasmtime::Error) -> Error {
    Error::Module(format!("wasmtime cannot start here: {}", one_line(&error)))
}

/// The engines that have been asked for so far.
pub(crate) fn made() -> impl Iterator<Item = &'static Engine> {
    ENGINES.0.iter().filter_map(OnceCell::get).map(|made| &made.engine)
}

/// What is made once for each engine, when it is asked for first.
#[derive(Debug)]
pub(crate) struct PerEngine<T>([OnceCell<T>; EngineKind::ALL.len()]);

impl<T> PerEngine<T> {
    /// Nothing was made yet.
    pub(crate) const fn new() -> Self {
        Self([const { OnceCell::new() }; EngineKind::ALL.len()])
    }

    /// That of an engine.
    pub(crate) fn get_or_try_init<E>(
        &self,
        kind: EngineKind,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        self.0[kind as usize].get_or_try_init(make)
    }
}
