//! The one wasmtime engine of the process, and compiling with it.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use wasmparser::{Chunk, Parser, Payload};
use wasmtime::{Config, Engine, WasmBacktraceDetails};

use crate::error::{Error, one_line};
use crate::limits;

/// The engine; workers inherit it by fork, with all code that was compiled before.
pub fn engine() -> Result<&'static Engine, Error> {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    ENGINE
        .get_or_init(|| Engine::new(&config()).map_err(|e| one_line(&e)))
        .as_ref()
        .map_err(|cause| Error::Module(format!("wasmtime cannot start here: {cause}")))
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .max_wasm_stack(limits::GUEST_STACK)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .concurrency_support(false)
        // Time limits, see `deadline`.
        .epoch_interruption(true)
        // Always inside a pool of our own, see `compile`.
        .parallel_compilation(true);
    config
}

/// Compiles a module.
pub fn compile(bytes: &[u8]) -> Result<wasmtime::Module, Error> {
    check_header(bytes)?;
    let engine = engine()?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = if bytes.len() < SMALL { 1 } else { cores };
    in_pool(threads, || wasmtime::Module::from_binary(engine, bytes))
        .map_err(|e| Error::Module(format!("no threads to compile with: {e}")))?
        .map_err(|e| match is_cut_off(bytes) {
            true => Error::Module(CUT_OFF.into()),
            false => Error::Module(format!("not a valid WebAssembly module: {}", one_line(&e))),
        })
}

/// Runs `work` in a rayon pool of its own, all threads of which are gone when this returns.
///
/// wasmtime hands functions to rayon. Its global pool would lose its threads at nginx's next fork and hang
/// the compile after that. The threads are joined, which rayon's own ways of ending a pool do not do: one
/// that is still about to exit takes a signal that was meant for nginx, which then sleeps on.
#[allow(clippy::disallowed_methods, reason = "the threads end before nginx can fork")]
fn in_pool<R: Send>(
    threads: usize,
    work: impl FnOnce() -> R + Send,
) -> Result<R, rayon::ThreadPoolBuildError> {
    let mut handles = Vec::with_capacity(threads);
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .spawn_handler(|thread| {
            handles.push(std::thread::Builder::new().spawn(|| thread.run())?);
            Ok(())
        })
        .build();
    // Dropping the pool tells its threads to end.
    let result = built.map(|pool| pool.install(work));
    for handle in handles {
        let _ = handle.join();
    }
    result
}

/// Below this many bytes more threads cost more than they save.
const SMALL: usize = 64 * 1024;

const HEADER: [u8; 8] = *b"\0asm\x01\0\0\0";

const CUT_OFF: &str = "the file is cut off: it ends in the middle of a WebAssembly module (an unfinished copy or download?)";

/// Says what a file is that is no module, as far as its first bytes tell.
fn check_header(bytes: &[u8]) -> Result<(), Error> {
    let what = match bytes {
        [] => "the file is empty",
        _ if bytes.starts_with(&HEADER) => return Ok(()),
        [b'\0', b'a', b's', b'm', _, 0, 1, 0, ..] => {
            "the file is a WebAssembly component; build the filter as a core module (for Rust: wasm32-wasip1)"
        }
        _ if HEADER.starts_with(bytes) => CUT_OFF,
        [b'\0', b'a', b's', b'm', ..] => {
            "the file is of a version of WebAssembly that is not supported"
        }
        _ if bytes.trim_ascii_start().starts_with(b"(") => {
            "the file is WebAssembly text; compile it to a binary first (wat2wasm)"
        }
        _ => "not a WebAssembly module: the file does not begin with \"\\0asm\"",
    };
    Err(Error::Module(what.into()))
}

/// True when a section, or the function that a section announced, is not there any more.
fn is_cut_off(mut bytes: &[u8]) -> bool {
    let mut parser = Parser::new(0);
    let mut functions = 0;
    loop {
        match parser.parse(bytes, false) {
            Ok(Chunk::NeedMoreData(_)) => return !bytes.is_empty() || functions > 0,
            Ok(Chunk::Parsed { consumed, payload }) => {
                match payload {
                    Payload::FunctionSection(section) => functions = section.count(),
                    Payload::CodeSectionEntry(_) => functions = functions.saturating_sub(1),
                    _ => {}
                }
                bytes = &bytes[consumed..];
            }
            Err(_) => return false,
        }
    }
}
