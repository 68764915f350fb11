//! Plans to replace plugins, for all workers.

use std::cell::Cell;

use super::process;
use super::shared::shared;
use crate::shm::PlanNumber;

/// A plan as it lies in the shared memory: 8 bytes of the Lua VM's number, 32 of the module's digest, 4 of the length of
/// the path, the path, and the options in Lua's words.
pub struct Plan {
    pub lua_vm: u64,
    pub digest: [u8; 32],
    pub path: Vec<u8>,
    pub options: Vec<u8>,
}

impl Plan {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.lua_vm.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&(self.path.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.path);
        bytes.extend_from_slice(&self.options);
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (lua_vm, rest) = bytes.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (path, options) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Self {
            lua_vm: u64::from_le_bytes(*lua_vm),
            digest: *digest,
            path: path.to_vec(),
            options: options.to_vec(),
        })
    }
}

thread_local! {
    /// The last plan that Lua was told of, and in which process.
    static SEEN: Cell<(u64, PlanNumber)> = const { Cell::new((0, 0)) };
}

/// A plan that needs not be told of.
pub fn seen(number: PlanNumber) {
    SEEN.set((process::current(), number));
}

/// Whether there are plans that Lua was not told of; true once for each.
pub fn is_behind() -> bool {
    let last = shared().map_or(0, |shared| shared.last_plan());
    last != 0 && SEEN.replace((process::current(), last)) != (process::current(), last)
}
