//! Plans to replace plugins, for all workers.

use std::cell::Cell;
use std::ffi::c_char;

use super::forks;
use super::objects::rpw_plugin_t;
use crate::shm::PlanNumber;

/// A plan as it lies in the shared memory: 8 bytes of the Lua VM's number, 32 of the module's digest, 4 of the length of
/// the path, the path, and the options in Lua's words.
pub(super) struct Plan {
    pub lua_vm: u64,
    pub digest: [u8; 32],
    pub path: Vec<u8>,
    pub options: Vec<u8>,
}

impl Plan {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.lua_vm.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&(self.path.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.path);
        bytes.extend_from_slice(&self.options);
        bytes
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
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

/// The last plan that Lua was told of, and in which process.
#[derive(Default)]
pub(super) struct Seen(Cell<(u64, PlanNumber)>);

impl Seen {
    /// A plan that need not be told of.
    pub(super) fn set(&self, number: PlanNumber) {
        self.0.set((forks::process(), number));
    }

    /// Whether there are plans up to that one that Lua was not told of; true once for each.
    pub(super) fn is_behind(&self, last: PlanNumber) -> bool {
        last != 0 && self.0.replace((forks::process(), last)) != (forks::process(), last)
    }
}

/// What a plugin is to be replaced with.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
#[repr(C)]
pub struct rpw_plan_t {
    /// The plugin.
    pub plugin: *mut rpw_plugin_t,
    /// Its name.
    pub name: *const c_char,
    pub name_length: usize,
    /// The file of the module.
    pub path: *const c_char,
    pub path_length: usize,
    /// Options, in Lua's words.
    pub options: *const c_char,
    pub options_length: usize,
    /// The module's SHA-256.
    pub digest: [u8; 32],
    /// Counts plans.
    pub number: u32,
}
