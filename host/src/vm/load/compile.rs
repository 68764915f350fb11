//! Compiling modules.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use wasmparser::{Chunk, Parser, Payload};
use wasmtime::Engine;

use super::engine::EngineKind;
use super::magic;
use super::watch::{Means, TooMuchMemory, Watch};
use crate::error::{Error, is_out_of_memory, one_line};
use crate::vm::analysis::proposals;
use crate::vm::shim::extended::extended;

/// Compiles a guest by these means, for an engine of that kind. True when the host has added to it, see [`extended`].
pub(super) fn compile_guest(
    kind: EngineKind,
    bytes: &[u8],
    means: &Means,
) -> Result<(wasmtime::Module, bool), Error> {
    refuse_memories(bytes)?;
    compile_module(kind, bytes, means)
}

/// The same for a module of our own, to which nothing is added.
pub(crate) fn compile(kind: EngineKind, bytes: &[u8]) -> Result<wasmtime::Module, Error> {
    let (module, _) = compile_module(kind, bytes, &Means::default())?;
    Ok(module)
}

#[allow(unsafe_code, reason = "machine code is taken from bytes that were made here")]
fn compile_module(
    kind: EngineKind,
    bytes: &[u8],
    means: &Means,
) -> Result<(wasmtime::Module, bool), Error> {
    let compiler = kind.compiler()?;
    if kind == EngineKind::Plain {
        return compiled(bytes, means, false, || {
            with_fronts(&compiler, bytes, |run| wasmtime::Module::from_binary(&compiler, run))
        });
    }
    let (artifact, extended) = compiled(bytes, means, true, || {
        with_fronts(&compiler, bytes, |run| compiler.precompile_module(run))
    })?;
    drop(compiler);
    give_memory_back();
    // SAFETY: these bytes were made just now, by an engine of the same settings.
    let module = unsafe { wasmtime::Module::deserialize(kind.engine()?, artifact) };
    Ok((module.map_err(|e| Error::Module(one_line(&e)))?, extended))
}

/// Compiles a guest for another processor, as the bytes that are kept of it. True as for [`compile_guest`].
pub(super) fn precompile_guest(engine: &Engine, bytes: &[u8]) -> Result<(Vec<u8>, bool), Error> {
    refuse_memories(bytes)?;
    compiled(bytes, &Means::default(), false, || {
        with_fronts(engine, bytes, |run| engine.precompile_module(run))
    })
}

/// Compiles a module with functions in front of those of the host, where it has a use for them; else, and that is false, as it
/// is. So it is with a module that is not valid: the error tells of places in the bytes that its author knows.
fn with_fronts<T>(
    engine: &Engine,
    bytes: &[u8],
    compile: impl FnOnce(&[u8]) -> wasmtime::Result<T>,
) -> wasmtime::Result<(T, bool)> {
    let extended = extended(bytes, || wasmtime::Module::validate(engine, bytes).is_ok());
    Ok((compile(extended.as_deref().unwrap_or(bytes))?, extended.is_some()))
}

fn compiled<T: Send>(
    bytes: &[u8],
    means: &Means,
    inlines: bool,
    compile: impl FnOnce() -> wasmtime::Result<T> + Send,
) -> Result<T, Error> {
    magic::check(bytes).map_err(|what| Error::Module(what.into()))?;
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let most = means.threads.map_or_else(cores, NonZeroUsize::get);
    let threads = if bytes.len() < SMALL { 1 } else { most };
    let watch = Watch::begin(bytes, means, inlines).map_err(|error| {
        Error::Module(format!("the memory that compiling takes cannot be told: {error}"))
    })?;
    let made = in_pool(threads, &watch, compile)
        .map_err(|e| Error::Module(format!("no threads to compile with: {e}")))?;
    watch.end();
    made.or_else(|panic| match (panic.downcast_ref::<TooMuchMemory>(), means.memory) {
        (Some(TooMuchMemory), Some(memory)) => Err(Error::Module(format!(
            "compiling the module takes more memory than the option compile_memory allows, {memory} bytes"
        ))),
        _ => resume_unwind(panic),
    })?
    .map_err(|e| {
        Error::Module(if is_out_of_memory(&e) {
            format!("the module cannot be compiled: {}", one_line(&e))
        } else if is_cut_off(bytes) {
            magic::CUT_OFF.into()
        } else if let Some(missing) = proposals::missing(bytes) {
            missing
        } else {
            format!("not a valid WebAssembly module: {}", one_line(&e))
        })
    })
}

/// Has the allocator give back what compiling took. Else it stays with the process, and with all that it forks.
#[allow(unsafe_code, reason = "a call of the C library")]
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Runs `work` in a rayon pool of its own, all threads of which are gone when this returns, also when it panics.
///
/// wasmtime hands functions to rayon. Its global pool would lose its threads at the next fork and hang
/// the compile after that. The threads are joined, which rayon's own ways of ending a pool do not do: one
/// that is still about to exit takes a signal that was meant for the embedder, which then sleeps on.
#[allow(clippy::disallowed_methods, reason = "the threads end before the process can fork")]
fn in_pool<R: Send>(
    threads: usize,
    watch: &Watch,
    work: impl FnOnce() -> R + Send,
) -> Result<std::thread::Result<R>, rayon::ThreadPoolBuildError> {
    let mut handles = Vec::with_capacity(threads);
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .spawn_handler(|thread| {
            let watch = watch.clone();
            let run = || {
                watch.install();
                thread.run();
            };
            handles.push(std::thread::Builder::new().spawn(run)?);
            Ok(())
        })
        .build();
    // Dropping the pool tells its threads to end.
    let result = built.map(|pool| pool.install(|| catch_unwind(AssertUnwindSafe(work))));
    for handle in handles {
        let _ = handle.join();
    }
    result
}

/// The setting that allows several memories is on for the memory that the host adds. A guest may have one.
fn refuse_memories(bytes: &[u8]) -> Result<(), Error> {
    let payloads = Parser::new(0).parse_all(bytes).map_while(Result::ok);
    let of = |payload| match payload {
        Payload::MemorySection(memories) => memories.count(),
        _ => 0,
    };
    match payloads.map(of).sum() {
        0..=1 => Ok(()),
        _ => proposals::missing(bytes).map_or(Ok(()), |missing| Err(Error::Module(missing))),
    }
}

/// Below this many bytes more threads cost more than they save.
const SMALL: usize = 64 * 1024;

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
