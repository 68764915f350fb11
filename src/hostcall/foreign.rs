//! Functions of the embedder.

use wasmtime::Caller;

use super::memory::{Answer, Return, slice, split};
use crate::abi::Status;
use crate::guest::State;

/// No function can be registered yet, so every name is unknown. The return addresses may be 0.
pub fn proxy_call_foreign_function(
    caller: &mut Caller<'_, State>,
    name: u32,
    name_size: u32,
    args: u32,
    args_size: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let (memory, _) = split(caller)?;
    slice(memory, name, name_size)?;
    slice(memory, args, args_size)?;
    Return { data: return_data, size: return_size }.check(memory)?;
    Err(Status::NotFound.into())
}
