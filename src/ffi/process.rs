//! What a process has one of.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicI32;
use std::sync::{LazyLock, OnceLock};

use rustix::fs::{MemfdFlags, memfd_create};

use super::shared_memory::SharedMemory;
use super::ticker::Ticker;
use super::wake_socket::WakeSocket;
use crate::vm::Cache;

/// See the module. The Lua VM, which a reload replaces, is in `lua_vm.rs`; what nginx's thread works with is in `worker.rs`.
pub(super) struct Process {
    /// The thread that makes time pass for guests.
    pub ticker: Ticker,
    /// What all workers share.
    pub shared: SharedMemory,
    /// Compiled modules.
    pub cache: LazyLock<Cache>,
    /// A file without content that all workers inherit: they lock places of it.
    pub image_locks: OnceLock<Option<OwnedFd>>,
    /// The socket that wakes workers.
    pub wake_socket: OnceLock<Result<WakeSocket, String>>,
    /// Counts the replacements of plugins.
    pub replacements: AtomicI32,
}

/// The one of this process. Workers begin with the master's.
pub(super) static PROCESS: Process = Process {
    ticker: Ticker::new(),
    shared: SharedMemory::new(),
    cache: LazyLock::new(Cache::default),
    image_locks: OnceLock::new(),
    wake_socket: OnceLock::new(),
    replacements: AtomicI32::new(0),
};

impl Process {
    /// Makes what workers inherit; to be called before the master forks.
    pub(super) fn prepare_for_forks(&self) {
        self.wake_socket();
        self.image_locks.get_or_init(|| memfd_create("rpw-locks", MemfdFlags::CLOEXEC).ok());
    }

    /// The socket that wakes workers, or why there is none.
    pub(super) fn wake_socket(&self) -> &Result<WakeSocket, String> {
        self.wake_socket.get_or_init(WakeSocket::new)
    }
}
