//! What the limits of the process leave for guests: of its stack, on which they run, and of its addresses.

use rustix::process::{Resource, getrlimit};
use wasmtime::Config;

use crate::limits;

/// Stack of the embedder and of this library below the first guest.
const BELOW: u64 = 256 * 1024;

/// Stack of host functions, and of the embedder where a foreign function runs another filter, for each guest.
const BESIDE: u64 = 128 * 1024;

/// Where addresses are limited, a memory has room for this much more before it has to move.
const GROWTH: u64 = 16 * 1024 * 1024;
/// A guard has to be larger than what compiled code adds to an address without a check.
const GUARD: u64 = 64 * 1024;

/// Sets a guest's stack and how its memory is reserved. The error is for users.
pub(crate) fn apply(config: &mut Config) -> Result<(), String> {
    config.max_wasm_stack(guest_stack(getrlimit(Resource::Stack).current)?);
    // Elsewhere each memory takes 4 GiB of addresses and guards, so that compiled code checks no address.
    if getrlimit(Resource::As).current.is_some() {
        config
            .memory_reservation(0)
            .memory_reservation_for_growth(GROWTH)
            .memory_guard_size(GUARD)
            .memory_may_move(true);
    }
    Ok(())
}

/// A warning where a guest's stack is smaller than usual.
pub(crate) fn warning() -> Option<String> {
    let limit = getrlimit(Resource::Stack).current?;
    let stack = guest_stack(Some(limit)).ok().filter(|stack| *stack < limits::GUEST_STACK)?;
    Some(format!(
        "the stack of the process is limited to {} KiB (ulimit -s): a filter has {} KiB of it in place of {}",
        limit / 1024,
        stack / 1024,
        limits::GUEST_STACK / 1024
    ))
}

/// Bytes of stack for each guest, where the process may have that many and [`limits::NESTED_ENTRIES`] guests run inside each
/// other.
fn guest_stack(limit: Option<u64>) -> Result<usize, String> {
    let guests = limits::NESTED_ENTRIES as u64;
    let Some(limit) = limit else { return Ok(limits::GUEST_STACK) };
    let room = (limit.saturating_sub(BELOW) / guests).saturating_sub(BESIDE);
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(limits::GUEST_STACK);
    if room >= limits::MIN_GUEST_STACK {
        return Ok(room);
    }
    let least = BELOW + guests * (BESIDE + limits::MIN_GUEST_STACK as u64);
    Err(format!(
        "the stack of the process is limited to {} KiB (ulimit -s), and filters need {} KiB: raise the limit",
        limit / 1024,
        least / 1024
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_guests_have_their_stack_within_the_limit() {
        const KIB: u64 = 1024;
        assert_eq!(guest_stack(None), Ok(limits::GUEST_STACK));
        assert_eq!(guest_stack(Some(8192 * KIB)), Ok(limits::GUEST_STACK));
        assert_eq!(guest_stack(Some(1024 * KIB)), Ok(limits::MIN_GUEST_STACK));
        for limit in 1024..8192 {
            let stack = guest_stack(Some(limit * KIB)).expect("enough") as u64;
            assert!(BELOW + limits::NESTED_ENTRIES as u64 * (stack + BESIDE) <= limit * KIB);
        }
        for limit in [0, 64, 1023] {
            let error = guest_stack(Some(limit * KIB)).expect_err("too little");
            assert!(error.contains(&format!("limited to {limit} KiB")), "{error}");
            assert!(error.contains("need 1024 KiB"), "{error}");
        }
    }
}
