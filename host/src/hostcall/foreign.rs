//! Functions of the embedder.

use wasmtime::Caller;

use super::builtin;
use super::dispatch::begin;
use super::memory::{Answer, give_bytes, slice, split};
use crate::abi::Status;
use crate::guest::{ForeignCall, Return, State};
use crate::limits;
use crate::ports::{ForeignError, ForeignKind, Hint};

/// The result of a function that runs now; of one that runs later, the id by which proxy_on_foreign_function will know
/// it, as four bytes in little endian. A guest that wants no result passes 0 for an address.
pub(super) fn proxy_call_foreign_function(
    caller: &mut Caller<'_, State>,
    name: u32,
    name_size: u32,
    args: u32,
    args_size: u32,
    return_data: u32,
    return_size: u32,
) -> Answer {
    let to = Return { data: return_data, size: return_size };
    let (memory, state) = split(caller)?;
    let name = slice(memory, name, name_size)?;
    let arguments = slice(memory, args, args_size)?;
    to.check(memory)?;
    if name != builtin::GET_LOG_LEVEL {
        state.call.asked.set(true);
    }
    if name.len() > limits::FOREIGN_NAME {
        return Err(Status::NotFound.into());
    }
    if arguments.len() > limits::FOREIGN_ARGUMENTS {
        state.warn_once("the arguments of a foreign function are larger than the host passes on");
        return Err(Status::BadArgument.into());
    }
    let result = match state.host.foreign(name) {
        None => builtin::call(state, name, arguments)?,
        Some(ForeignKind::Now) => match state.host.call_foreign(name, arguments) {
            Ok(result) => result,
            Err(ForeignError::Failed) => return Err(Status::InternalFailure.into()),
            Err(ForeignError::NotHere) => {
                state.warn_once_with("a foreign function cannot run here", Hint::ForeignNotHere);
                return Err(Status::InternalFailure.into());
            }
        },
        Some(ForeignKind::Later) => {
            let token = begin(state, String::new(), name.len() + arguments.len())?;
            if state.outlives_its_requests() {
                state.end_call(token);
            } else {
                let (name, arguments) = (name.to_vec(), arguments.to_vec());
                state.calls.run_foreign(ForeignCall { token, name, arguments });
                state.host.work_waits();
            }
            token.to_le_bytes().to_vec()
        }
    };
    if return_data == 0 || return_size == 0 {
        return Ok(());
    }
    give_bytes(caller, to, result)
}
