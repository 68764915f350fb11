//! The only place where a guest's (pointer, length) becomes a slice, and where a value is handed to it.

use wasmtime::{Caller, Extern, TypedFunc};

use super::Step;
use crate::abi::{ALLOCATORS, Status};
use crate::guest::{Return, State};

/// Why a hostcall does not answer OK.
pub enum Stop {
    /// It answers this status.
    Status(Status),
    /// The guest's own allocator trapped: so does the call.
    Trap(wasmtime::Error),
    /// The guest's allocator has to run first. Then the current one of [`State::handovers`] is handed over.
    NeedsAllocation,
    /// The same for a short value.
    ShortNeedsAllocation(Short, Return),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The outcome of a hostcall.
pub type Answer = Result<(), Stop>;

/// A guest's view of an [`Answer`]; what it waits for is done here.
#[inline]
pub fn status(caller: &mut Caller<'_, State>, answer: Answer) -> wasmtime::Result<i32> {
    match answer {
        Ok(()) => Ok(Status::Ok as i32),
        Err(Stop::Status(status)) => Ok(status as i32),
        Err(Stop::Trap(error)) => Err(error),
        Err(Stop::NeedsAllocation) => give_in_new_room(caller),
        Err(Stop::ShortNeedsAllocation(value, to)) => {
            let current = caller.data_mut().handovers.current();
            current.value.clear();
            value.unpack(&mut current.value);
            (current.to, current.number) = (to, None);
            give_in_new_room(caller)
        }
    }
}

/// What a [beginning](super::BEGIN) answers, and a short value.
type Begun = (i64, i64, i64, i64, i64);

fn alone(number: i64) -> wasmtime::Result<Begun> {
    Ok((number, 0, 0, 0, 0))
}

/// The same for who calls the guest's allocator itself: the status; or [`WANTS_ROOM`] and for how many bytes, with a short
/// value behind it; or these and [`BY_HOST`] for a value that the host hands over when there is room for it, see [`go_on`].
#[inline]
pub fn status_or_value(caller: &mut Caller<'_, State>, answer: Answer) -> wasmtime::Result<Begun> {
    let value = match answer {
        Err(Stop::ShortNeedsAllocation(value, _)) => value,
        Err(Stop::NeedsAllocation) => match pack_current(caller) {
            Some(value) => value,
            None => return alone(wait_for_room(caller)?),
        },
        answer => return alone(i64::from(status(caller, answer)?)),
    };
    let [a, b, c, d] = value.words;
    Ok((WANTS_ROOM | value.size as i64, a, b, c, d))
}

fn pack_current(caller: &mut Caller<'_, State>) -> Option<Short> {
    let current = caller.data_mut().handovers.current();
    if current.number.is_some() { None } else { Short::pack(&current.value) }
}

fn wait_for_room(caller: &mut Caller<'_, State>) -> wasmtime::Result<i64> {
    let state = caller.data_mut();
    let size = state.handovers.current().value.len();
    if size == 0 || size > u32::MAX as usize {
        return give_in_new_room(caller).map(i64::from);
    }
    Ok(match begin_handover(state) {
        Ok(()) => WANTS_ROOM | BY_HOST | size as i64,
        Err(status) => status as i64,
    })
}

/// See [`status_or_value`].
pub const WANTS_ROOM: i64 = 1 << 32;

/// See [`status_or_value`].
pub const BY_HOST: i64 = 1 << 33;

/// Numbers that a short value is packed into.
pub const WORDS: usize = 4;

/// A value of 1 to 32 bytes as numbers: its first bytes and its last ones, which overlap unless it is as long as they are.
/// `vm/shim/give.rs` writes them.
#[derive(Clone, Copy)]
pub struct Short {
    size: usize,
    words: [i64; WORDS],
}

impl Short {
    /// `None` for another value.
    #[inline]
    pub fn pack(value: &[u8]) -> Option<Self> {
        let size = value.len();
        let long = |at: usize| {
            let bytes = value.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| i64::from_le_bytes(*bytes))
        };
        let short = |at: usize| {
            let bytes = value.get(at..).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
        };
        let words = match size {
            16..=32 => [long(0), long(8), long(size - 16), long(size - 8)],
            8..16 => [long(0), long(size - 8), 0, 0],
            4..8 => [short(0), short(size - 4), 0, 0],
            1..4 => [value[0].into(), value[size / 2].into(), value[size - 1].into(), 0],
            _ => return None,
        };
        Some(Self { size, words })
    }

    fn unpack(&self, out: &mut Vec<u8>) {
        let [a, b, c, d] = self.words.map(i64::to_le_bytes);
        let (first, last) = match self.size {
            16.. => ([a, b].concat(), [c, d].concat()),
            8..16 => (a.to_vec(), b.to_vec()),
            4..8 => (a[..4].to_vec(), b[..4].to_vec()),
            _ => (vec![a[0], b[0]], vec![c[0]]),
        };
        out.extend_from_slice(&first);
        out.truncate(self.size - last.len());
        out.extend_from_slice(&last);
    }
}

/// Goes on with a value: there is room for it, or none can be made. Answers the status.
#[cold]
pub fn go_on(caller: &mut Caller<'_, State>, step: i64, number: u64) -> wasmtime::Result<Begun> {
    let status = if step == Step::Finish as i64 {
        caller.data_mut().handovers.end();
        let answer = room(number as u32).and_then(|address| hand_over_current(caller, address));
        status(caller, answer)?
    } else {
        let state = caller.data_mut();
        if number as i64 & BY_HOST != 0 {
            state.handovers.end();
        }
        refuse_handover(state) as i32
    };
    alone(status.into())
}

fn give_in_new_room(caller: &mut Caller<'_, State>) -> wasmtime::Result<i32> {
    let size = caller.data_mut().handovers.current().value.len();
    match allocate(caller, size).and_then(|address| hand_over_current(caller, address)) {
        Ok(()) => Ok(Status::Ok as i32),
        Err(Stop::Status(status)) => Ok(status as i32),
        Err(Stop::Trap(error)) => Err(error),
        Err(Stop::NeedsAllocation | Stop::ShortNeedsAllocation(..)) => {
            Ok(Status::InternalFailure as i32)
        }
    }
}

/// The guest's memory beside the store's data. Taken again after every call into the guest: its memory may
/// have grown and moved.
#[inline]
#[allow(unsafe_code, reason = "see `CachedMemory`")]
pub fn split<'a>(caller: &'a mut Caller<'_, State>) -> Result<(&'a mut [u8], &'a mut State), Stop> {
    // SAFETY: the store is the caller's for `'a`, all references to the memory come from here, and the limiter, which
    // wasmtime asks before a memory grows, tells the cache.
    match unsafe { caller.data().limits.cached.bytes() } {
        Some(memory) => Ok((memory, caller.data_mut())),
        None => find_memory(caller),
    }
}

#[cold]
fn find_memory<'a>(
    caller: &'a mut Caller<'_, State>,
) -> Result<(&'a mut [u8], &'a mut State), Stop> {
    if caller.data().memory.is_none() {
        // Hostcalls can come out of a start section, before anyone looked at the exports.
        caller.data_mut().memory = caller.get_export("memory").and_then(Extern::into_memory);
    }
    let memory = caller.data().memory.ok_or(Stop::Status(Status::InvalidMemoryAccess))?;
    let (bytes, state) = memory.data_and_store_mut(caller);
    state.limits.cached.keep(bytes);
    Ok((bytes, state))
}

/// The bytes at `pointer`.
pub fn slice(memory: &[u8], pointer: u32, size: u32) -> Result<&[u8], Status> {
    let end = u64::from(pointer) + u64::from(size);
    if end > memory.len() as u64 {
        return Err(Status::InvalidMemoryAccess);
    }
    Ok(&memory[pointer as usize..end as usize])
}

/// The bytes at `pointer`, to write to.
pub fn slice_mut(memory: &mut [u8], pointer: u32, size: u32) -> Result<&mut [u8], Status> {
    slice(memory, pointer, size)?;
    Ok(&mut memory[pointer as usize..][..size as usize])
}

/// Writes a `u32`, little endian.
pub fn write_u32(memory: &mut [u8], pointer: u32, value: u32) -> Result<(), Status> {
    slice_mut(memory, pointer, 4)?.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

/// Writes a `u64`, little endian.
pub fn write_u64(memory: &mut [u8], pointer: u32, value: u64) -> Result<(), Status> {
    slice_mut(memory, pointer, 8)?.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

impl Return {
    /// Refuses addresses outside the memory, before anything is done.
    pub fn check(self, memory: &[u8]) -> Result<(), Status> {
        slice(memory, self.data, 4)?;
        slice(memory, self.size, 4)?;
        Ok(())
    }
}

/// Hands over what `read` finds in the store's data, in memory that the guest allocates for it.
///
/// `read` is asked twice, before and after the guest's allocator ran, so that nothing is copied to the side
/// first; what it finds the second time is cut to the size that it had the first time.
pub fn give<F>(caller: &mut Caller<'_, State>, to: Return, read: F) -> Answer
where
    F: Fn(&State) -> Result<&[u8], Status>,
{
    let (memory, state) = split(caller)?;
    to.check(memory)?;
    let size = read(state)?.len();
    let address = allocate(caller, size)?;
    let (memory, state) = split(caller)?;
    let value = if size == 0 { &[] } else { read(state)? };
    let value = &value[..value.len().min(size)];
    Ok(hand_over(memory, to, address, value)?)
}

/// Hands over a value that was built for this call.
pub fn give_bytes(caller: &mut Caller<'_, State>, to: Return, value: Vec<u8>) -> Answer {
    let (memory, state) = split(caller)?;
    to.check(memory)?;
    state.handovers.current().value = value;
    give_current(state, to, None)
}

/// Hands over what `write` makes of the store's data.
pub fn give_copy(
    state: &mut State,
    to: Return,
    write: impl FnOnce(&mut State, &mut Vec<u8>),
) -> Answer {
    build_current(state, write);
    give_current(state, to, None)
}

/// Has `write` make the current value, which is empty before, and returns what it returns.
pub fn build_current<T>(state: &mut State, write: impl FnOnce(&mut State, &mut Vec<u8>) -> T) -> T {
    // Taken, for it is the state's as well.
    let mut buffer = std::mem::take(&mut state.handovers.current().value);
    buffer.clear();
    let returned = write(state, &mut buffer);
    // A longer value is handed over first, see `hand_over_current`.
    if buffer.len() <= KEPT {
        buffer.shrink_to(KEPT);
    }
    state.handovers.current().value = buffer;
    returned
}

/// Hands over what is the current value once its function is done. It has its place in [`State::handovers`] already.
pub fn give_current(state: &mut State, to: Return, number: Option<(u32, u32)>) -> Answer {
    let current = state.handovers.current();
    (current.to, current.number) = (to, number);
    Err(Stop::NeedsAllocation)
}

/// What is kept of a value's buffer for the next value.
const KEPT: usize = 16 * 1024;

/// Writes the current value to its room, and where that is to where the guest looks for it.
fn hand_over_current(caller: &mut Caller<'_, State>, address: u32) -> Answer {
    let (memory, state) = split(caller)?;
    let current = state.handovers.current();
    hand_over(memory, current.to, address, &current.value)?;
    if let Some((to, number)) = current.number {
        write_u32(memory, to, number)?;
    }
    if current.value.capacity() > KEPT {
        current.value = Vec::new();
    }
    Ok(())
}

fn hand_over(memory: &mut [u8], to: Return, address: u32, value: &[u8]) -> Result<(), Status> {
    slice_mut(memory, address, value.len() as u32)?.copy_from_slice(value);
    write_u32(memory, to.data, address)?;
    write_u32(memory, to.size, value.len() as u32)
}

/// Room in the guest's memory, by its own allocator; 0 for nothing.
fn allocate(caller: &mut Caller<'_, State>, size: usize) -> Result<u32, Stop> {
    if size == 0 {
        return Ok(0);
    }
    let size = u32::try_from(size).map_err(|_| Status::InternalFailure)?;
    // Taken, for a copy would have to be counted. The guest's allocator may make hostcalls that look for it again.
    let function = match caller.data_mut().allocate.take() {
        Some(function) => function,
        None => Box::new(find_allocator(caller)?),
    };
    let begun = begin_handover(caller.data_mut());
    let answer = begun.map(|()| function.call(&mut *caller, size));
    let state = caller.data_mut();
    state.allocate = Some(function);
    let answer = answer?;
    state.handovers.end();
    answer.map_err(Stop::Trap).and_then(room)
}

fn begin_handover(state: &mut State) -> Result<(), Status> {
    if state.handovers.begin() { Ok(()) } else { Err(refuse_handover(state)) }
}

#[cold]
fn refuse_handover(state: &mut State) -> Status {
    state.warn_once(
        "a value cannot be handed over: the filter's allocator asks for values, each while it makes room for another",
    );
    Status::InternalFailure
}

/// What the allocator answered.
fn room(address: u32) -> Result<u32, Stop> {
    if address == 0 { Err(Status::InternalFailure.into()) } else { Ok(address) }
}

fn find_allocator(caller: &mut Caller<'_, State>) -> Result<TypedFunc<u32, u32>, Stop> {
    let known = caller.data().allocator;
    for name in ALLOCATORS {
        // Hostcalls can come out of a start section, before anyone looked at the exports.
        let found = known.or_else(|| caller.get_export(name).and_then(Extern::into_func));
        if let Some(Ok(function)) = found.map(|found| found.typed::<u32, u32>(&*caller)) {
            return Ok(function);
        }
    }
    caller.data_mut().warn_once(
        "a value cannot be handed over: the module exports neither proxy_on_memory_allocate nor malloc",
    );
    Err(Status::InternalFailure.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_are_packed() {
        let value: Vec<u8> = (0..33).collect();
        for size in 1..=32 {
            let mut out = Vec::new();
            Short::pack(&value[..size]).expect("a short value").unpack(&mut out);
            assert_eq!(out, value[..size]);
        }
        assert!(Short::pack(&value).is_none() && Short::pack(b"").is_none());
    }

    #[test]
    fn no_address_wraps_round() {
        let memory = [0u8; 16];
        assert!(slice(&memory, 0, 16).is_ok() && slice(&memory, 16, 0).is_ok());
        for (pointer, size) in
            [(0, 17), (16, 1), (17, 0), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)]
        {
            assert_eq!(slice(&memory, pointer, size), Err(Status::InvalidMemoryAccess));
        }
    }
}
