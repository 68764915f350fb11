//! The WASI functions that the Proxy-Wasm specification describes, and the two that would wait.

use wasmtime::{Caller, Linker};
use wasmtime_wasi::I32Exit;

use crate::abi::LogLevel;
use crate::guest::State;
use crate::hostcall::link::link_function;
use crate::hostcall::memory::{Stop, slice, slice_mut, split, write_u32, write_u64};
use crate::limits;

/// WASI errno numbers that are answered here.
#[derive(Clone, Copy)]
enum Errno {
    Badf = 8,
    Fault = 21,
    Inval = 28,
    Io = 29,
    Notsup = 58,
}

macro_rules! link {
    ($linker:ident, $module:ident, $name:ident($($param:ident: $ty:ty),*)) => {
        link_function!($linker, $module, stringify!($name), |caller $(, $param: $ty)*| {
            errno($name(&mut caller $(, $param)*))
        })?;
    };
}

/// Links them under one name of WASI.
pub(super) fn add_to_linker(linker: &mut Linker<State>, module: &str) -> wasmtime::Result<()> {
    link!(linker, module, fd_write(fd: u32, iovs: u32, count: u32, return_written: u32));
    link!(linker, module, environ_sizes_get(return_count: u32, return_size: u32));
    link!(linker, module, environ_get(array: u32, buffer: u32));
    link!(linker, module, clock_time_get(clock: u32, precision: u64, return_time: u32));
    link!(linker, module, random_get(buffer: u32, size: u32));
    link!(linker, module, poll_oneoff(subscriptions: u32, events: u32, count: u32, ret: u32));
    link!(linker, module, sched_yield());
    // Any code ends the guest, also those that wasmtime-wasi refuses: SDKs abort with 255.
    link_function!(linker, module, "proc_exit", |caller, code: i32| {
        Err::<(), _>(I32Exit(code).into())
    })?;
    Ok(())
}

enum Fail {
    Errno(Errno),
    Trap(wasmtime::Error),
}

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Stop> for Fail {
    fn from(stop: Stop) -> Self {
        match stop {
            // The memory helpers fail in one way only: an address outside the memory.
            Stop::Status(_) | Stop::NeedsAllocation | Stop::ShortNeedsAllocation(..) => {
                Self::Errno(Errno::Fault)
            }
            Stop::Trap(error) => Self::Trap(error),
        }
    }
}

impl From<crate::abi::Status> for Fail {
    fn from(_: crate::abi::Status) -> Self {
        Self::Errno(Errno::Fault)
    }
}

fn errno(result: Result<(), Fail>) -> wasmtime::Result<u32> {
    match result {
        Ok(()) => Ok(0),
        Err(Fail::Errno(errno)) => Ok(errno as u32),
        Err(Fail::Trap(error)) => Err(error),
    }
}

fn fd_write(
    caller: &mut Caller<'_, State>,
    fd: u32,
    iovs: u32,
    count: u32,
    return_written: u32,
) -> Result<(), Fail> {
    let level = match fd {
        1 => LogLevel::Info,
        2 => LogLevel::Error,
        _ => return Err(Errno::Badf.into()),
    };
    if count > limits::STDIO_IOVECS {
        return Err(Errno::Inval.into());
    }
    let (memory, state) = split(caller)?;
    slice(memory, return_written, 4)?;
    let vectors = slice(memory, iovs, count * 8)?;
    let mut parts = Vec::with_capacity(count as usize);
    for vector in vectors.chunks_exact(8) {
        let number = |at: usize| {
            u32::from_le_bytes([vector[at], vector[at + 1], vector[at + 2], vector[at + 3]])
        };
        parts.push(slice(memory, number(0), number(4))?);
    }
    let mut written = 0;
    for part in parts {
        let part = &part[..part.len().min(limits::STDIO_BYTES - written)];
        write_lines(state, level, part);
        written += part.len();
    }
    Ok(write_u32(memory, return_written, written as u32)?)
}

/// Logs each line that ends in `part`, and keeps the rest for the next write.
fn write_lines(state: &mut State, level: LogLevel, part: &[u8]) {
    let stdout = level == LogLevel::Info;
    let mut pending =
        std::mem::take(if stdout { &mut state.stdio.stdout } else { &mut state.stdio.stderr });
    for piece in part.split_inclusive(|&b| b == b'\n') {
        let line = piece.strip_suffix(b"\n");
        let room = limits::STDIO_LINE.saturating_sub(pending.len());
        let text = line.unwrap_or(piece);
        pending.extend_from_slice(&text[..text.len().min(room)]);
        if line.is_some() || pending.len() >= limits::STDIO_LINE {
            if !pending.is_empty() {
                state.log(level, &pending);
            }
            pending.clear();
        }
    }
    *(if stdout { &mut state.stdio.stdout } else { &mut state.stdio.stderr }) = pending;
}

fn environ_sizes_get(
    caller: &mut Caller<'_, State>,
    return_count: u32,
    return_size: u32,
) -> Result<(), Fail> {
    let (memory, state) = split(caller)?;
    let size: usize = state.plugin.env.iter().map(|(k, v)| k.len() + v.len() + 2).sum();
    slice(memory, return_size, 4)?;
    write_u32(memory, return_count, state.plugin.env.len() as u32)?;
    Ok(write_u32(memory, return_size, size as u32)?)
}

fn environ_get(
    caller: &mut Caller<'_, State>,
    mut array: u32,
    mut buffer: u32,
) -> Result<(), Fail> {
    let (memory, state) = split(caller)?;
    for (key, value) in &state.plugin.env {
        let entry = format!("{key}={value}\0");
        slice_mut(memory, buffer, entry.len() as u32)?.copy_from_slice(entry.as_bytes());
        write_u32(memory, array, buffer)?;
        buffer += entry.len() as u32;
        array = array.checked_add(4).ok_or(Errno::Fault)?;
    }
    Ok(())
}

fn clock_time_get(
    caller: &mut Caller<'_, State>,
    clock: u32,
    _precision: u64,
    return_time: u32,
) -> Result<(), Fail> {
    let (memory, state) = split(caller)?;
    let time = match clock {
        0 => state.host.wall_clock(),
        1 => state.host.monotonic_clock(),
        _ => return Err(Errno::Notsup.into()),
    };
    Ok(write_u64(memory, return_time, time)?)
}

fn random_get(caller: &mut Caller<'_, State>, buffer: u32, size: u32) -> Result<(), Fail> {
    let (memory, state) = split(caller)?;
    if size > limits::RANDOM_BYTES {
        return Err(Errno::Inval.into());
    }
    let out = slice_mut(memory, buffer, size)?;
    if state.host.random(out) { Ok(()) } else { Err(Errno::Io.into()) }
}

/// Go's scheduler polls the clock and needs success; it gets it at once, with no event.
fn poll_oneoff(
    caller: &mut Caller<'_, State>,
    subscriptions: u32,
    events: u32,
    count: u32,
    return_events: u32,
) -> Result<(), Fail> {
    let (memory, _) = split(caller)?;
    if count == 0 || count > limits::POLL_SUBSCRIPTIONS {
        return Err(Errno::Inval.into());
    }
    slice(memory, subscriptions, count * 48)?;
    slice(memory, events, count * 32)?;
    Ok(write_u32(memory, return_events, 0)?)
}

fn sched_yield(_: &mut Caller<'_, State>) -> Result<(), Fail> {
    Ok(())
}
