//! Where compiled code is kept beyond the life of a process.

use std::any::Any;

/// A turn to compile a module: others wait until it is dropped.
pub type Turn = Box<dyn Any + Send>;

/// Where entries are kept beyond the life of a process.
///
/// # Safety
/// What `read` returns is machine code that will be run. An implementor gives out nothing that anyone but this user
/// of the system, or root, can have written.
#[allow(unsafe_code, reason = "an implementor vouches for code that is run")]
pub unsafe trait CodeStore {
    /// The entry of that name, `None` when there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Keeps an entry, made of these parts, in place of one of that name: as a whole or not at all.
    fn write(&self, name: &str, parts: [&[u8]; 2]) -> Result<(), StoreError>;
    /// Waits until no other process compiles the module of that entry; `None` where that cannot be told.
    fn turn(&self, _name: &str) -> Option<Turn> {
        None
    }
}

/// Why a store did not do what it was asked; neither keeps a module from being loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The store as a whole is of no use to this process now.
    Unusable(String),
    /// This process may read entries, and not write them.
    ReadOnly(String),
    /// This entry cannot be trusted.
    Entry(String),
}
