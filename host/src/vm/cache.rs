//! Compiled code, found again by the digest of its module: in memory, and in a store that outlives the process.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use sha2::{Digest as _, Sha256};

use super::Code;
use super::engine::engine;
use super::entry;
use crate::codec::hex;
use crate::error::Error;

type Digest = [u8; 32];

/// All code that lives in this process. Memory holds what some plugin still uses and nothing else.
#[derive(Default)]
pub struct Cache {
    codes: Mutex<HashMap<Digest, Weak<Code>, FxBuildHasher>>,
}

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

/// See [`Cache::load`].
pub struct Loaded {
    /// The code.
    pub code: Arc<Code>,
    /// Where it came from.
    pub origin: Origin,
    /// An entry of the store that was not used, and why.
    pub bad_entry: Option<String>,
    /// Why the store is of no use.
    pub unusable: Option<String>,
    /// Why the store did not keep what was compiled, though it can be read.
    pub not_kept: Option<String>,
}

/// Where code came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Another plugin uses it.
    Memory,
    /// The store had it.
    Store,
    /// It was compiled.
    Compiled,
}

impl Cache {
    /// The code of a module: what a living plugin uses, else what the store has, else compiled now, and then
    /// kept in the store.
    pub fn load(&self, bytes: &[u8], store: Option<&dyn CodeStore>) -> Result<Loaded, Error> {
        let digest: Digest = Sha256::digest(bytes).into();
        if let Some(code) = self.living(&digest) {
            return Ok(Loaded::from(code, Origin::Memory));
        }
        let loaded = match store {
            None => Loaded::from(Arc::new(Code::compile(bytes)?), Origin::Compiled),
            Some(store) => through(store, &digest, bytes)?,
        };
        self.remember(digest, &loaded.code);
        Ok(loaded)
    }

    fn living(&self, digest: &Digest) -> Option<Arc<Code>> {
        let codes = self.codes.lock();
        codes.get(digest)?.upgrade()
    }

    fn remember(&self, digest: Digest, code: &Arc<Code>) {
        let mut codes = self.codes.lock();
        codes.retain(|_, code| code.strong_count() > 0);
        codes.insert(digest, Arc::downgrade(code));
    }
}

impl Loaded {
    fn from(code: Arc<Code>, origin: Origin) -> Self {
        Self { code, origin, bad_entry: None, unusable: None, not_kept: None }
    }
}

fn through(store: &dyn CodeStore, digest: &Digest, bytes: &[u8]) -> Result<Loaded, Error> {
    let name = entry_name(digest)?;
    let (mut bad_entry, mut unusable, mut not_kept) = (None, None, None);
    match store.read(&name).and_then(|found| found.map(|e| restore(&name, &e)).transpose()) {
        Ok(Some(code)) => return Ok(Loaded::from(Arc::new(code), Origin::Store)),
        Ok(None) => {}
        Err(StoreError::Entry(cause)) => bad_entry = Some(cause),
        Err(StoreError::Unusable(cause)) => unusable = Some(cause),
        Err(StoreError::ReadOnly(cause)) => not_kept = Some(cause),
    }
    let code = Code::compile(bytes)?;
    if unusable.is_none() {
        match keep(store, &name, &code) {
            Ok(()) => {}
            Err(StoreError::ReadOnly(cause)) => not_kept = Some(cause),
            Err(StoreError::Entry(cause) | StoreError::Unusable(cause)) => unusable = Some(cause),
        }
    }
    Ok(Loaded { code: Arc::new(code), origin: Origin::Compiled, bad_entry, unusable, not_kept })
}

/// Makes code of an entry that the store gave out.
#[allow(unsafe_code, reason = "this is where the module cache is read")]
fn restore(name: &str, found: &[u8]) -> Result<Code, StoreError> {
    let bad = |cause: &str| StoreError::Entry(format!("{name} {cause}"));
    let (profile, artifact) = entry::parse(name, found).map_err(bad)?;
    // SAFETY: `keep` wrote the entry, under the name of this module, this wasmtime and these settings: the store
    // vouches that nobody else could, and the digest in the entry that it is as it was written.
    unsafe { Code::restore(artifact, profile) }.map_err(|e| bad(&format!("was refused: {e}")))
}

fn keep(store: &dyn CodeStore, name: &str, code: &Code) -> Result<(), StoreError> {
    let artifact = code.artifact().map_err(|error| StoreError::Unusable(error.to_string()))?;
    let header = entry::header(name, code.profile, &artifact);
    store.write(name, [&header, &artifact])
}

/// The module, and all that its code depends on: the versions of this library and of wasmtime, wasmtime's settings, and
/// what the processor can do.
fn entry_name(digest: &Digest) -> Result<String, Error> {
    let mut maker = Maker(Sha256::new_with_prefix(env!("CARGO_PKG_VERSION")));
    engine()?.precompile_compatibility_hash().hash(&mut maker);
    let maker = &maker.0.finalize()[..8];
    Ok(format!("{}-{}.cwasm", hex::encode(digest), hex::encode(maker)))
}

/// The hashers of the standard library may change with its version, and a name must not.
struct Maker(Sha256);

impl Hasher for Maker {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("the digest is taken instead")
    }
}
