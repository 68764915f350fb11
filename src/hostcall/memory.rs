//! The only place where a guest's (pointer, length) becomes a slice, and where a value is handed to it.

use wasmtime::{Caller, Extern};

use crate::abi::Status;
use crate::guest::State;
use crate::limits;

/// Why a hostcall does not answer OK.
pub enum Stop {
    /// It answers this status.
    Status(Status),
    /// The guest's own allocator trapped: so does the call.
    Trap(wasmtime::Error),
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// The outcome of a hostcall.
pub type Answer = Result<(), Stop>;

/// A guest's view of an [`Answer`].
pub fn status(answer: Answer) -> wasmtime::Result<i32> {
    match answer {
        Ok(()) => Ok(Status::Ok as i32),
        Err(Stop::Status(status)) => Ok(status as i32),
        Err(Stop::Trap(error)) => Err(error),
    }
}

/// The guest's memory beside the store's data. Taken anew after every call into the guest: its memory may
/// have grown and moved.
#[inline]
#[allow(unsafe_code, reason = "see `View`")]
pub fn split<'a>(caller: &'a mut Caller<'_, State>) -> Result<(&'a mut [u8], &'a mut State), Stop> {
    // SAFETY: the store is the caller's for `'a`, all references to the memory come from here, and the limiter, which
    // wasmtime asks before a memory grows, tells the view.
    match unsafe { caller.data().limits.view.bytes() } {
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
    state.limits.view.keep(bytes);
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

/// Where a hostcall writes the address and the size of a value.
#[derive(Clone, Copy)]
pub struct Return {
    /// Address of the address.
    pub data: u32,
    /// Address of the size.
    pub size: u32,
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
    let size = size_of_value(read(state)?)?;
    let address = allocate(caller, size)?;
    let (memory, state) = split(caller)?;
    let value = if size == 0 { &[] } else { read(state)? };
    let value = &value[..value.len().min(size as usize)];
    Ok(hand_over(memory, to, address, value)?)
}

/// Hands over a value that was built for this call.
pub fn give_bytes(caller: &mut Caller<'_, State>, to: Return, value: Vec<u8>) -> Answer {
    let (memory, _) = split(caller)?;
    to.check(memory)?;
    let address = allocate(caller, size_of_value(&value)?)?;
    let (memory, _) = split(caller)?;
    Ok(hand_over(memory, to, address, &value)?)
}

/// What is kept of such a buffer for the next value.
const SCRATCH: usize = 16 * 1024;

/// Hands over what is in [`State::scratch`], at addresses that were checked. Answers with the guest's memory.
pub fn give_scratch<'a>(
    caller: &'a mut Caller<'_, State>,
    to: Return,
) -> Result<&'a mut [u8], Stop> {
    let size = size_of_value(caller.data_mut().scratch())?;
    let address = allocate(caller, size)?;
    let (memory, state) = split(caller)?;
    let value = state.scratch();
    hand_over(memory, to, address, value)?;
    if value.capacity() > SCRATCH {
        *value = Vec::new();
    }
    Ok(memory)
}

fn size_of_value(value: &[u8]) -> Result<u32, Status> {
    u32::try_from(value.len()).map_err(|_| Status::InternalFailure)
}

fn hand_over(memory: &mut [u8], to: Return, address: u32, value: &[u8]) -> Result<(), Status> {
    slice_mut(memory, address, value.len() as u32)?.copy_from_slice(value);
    write_u32(memory, to.data, address)?;
    write_u32(memory, to.size, value.len() as u32)
}

/// Room in the guest's memory, by its own allocator; 0 for nothing.
fn allocate(caller: &mut Caller<'_, State>, size: u32) -> Result<u32, Stop> {
    if size == 0 {
        return Ok(0);
    }
    if caller.data().handovers >= limits::HANDOVERS {
        caller.data_mut().warn_once(
            "a value cannot be handed over: the filter's allocator asks for values, each while it makes room for another",
        );
        return Err(Status::InternalFailure.into());
    }
    // Taken, for a copy would have to be counted. The guest's allocator may make hostcalls that look for it anew.
    let function = match caller.data_mut().allocate.take() {
        Some(function) => function,
        None => Box::new(find_allocator(caller)?),
    };
    caller.data_mut().handovers += 1;
    let answer = function.call(&mut *caller, size);
    let state = caller.data_mut();
    state.handovers -= 1;
    state.allocate = Some(function);
    match answer {
        Ok(0) => Err(Status::InternalFailure.into()),
        Ok(address) => Ok(address),
        Err(error) => Err(Stop::Trap(error)),
    }
}

fn find_allocator(caller: &mut Caller<'_, State>) -> Result<wasmtime::TypedFunc<u32, u32>, Stop> {
    for name in ["proxy_on_memory_allocate", "malloc"] {
        let Some(function) = caller.get_export(name).and_then(Extern::into_func) else { continue };
        if let Ok(function) = function.typed::<u32, u32>(&*caller) {
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
