//! Compiled code, found again by the digest of its module: in memory, and in a store that outlives the process.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustc_hash::FxBuildHasher;
use sha2::{Digest as _, Sha256};

use super::baseline::BASELINES;
use super::code::{Code, Digest};
use super::code_store::{CodeStore, StoreError, Turn};
use super::engine::EngineKind;
use super::entry;
use super::watch::{Means, Progress, Stage};
use crate::error::Error;
use crate::vm::analysis::profile::Profile;

/// All code that lives in this process. Memory holds what some plugin still uses and nothing else.
#[derive(Default)]
pub struct Cache {
    codes: Mutex<HashMap<Digest, Weak<Code>, FxBuildHasher>>,
    /// Held by the one thread that compiles in the background.
    compiling: Mutex<()>,
}

/// Where code may be found, and how it is compiled.
#[derive(Clone, Copy, Default)]
pub struct Sources<'a> {
    /// What outlives the process.
    pub store: Option<&'a dyn CodeStore>,
    /// What other processes have in memory.
    pub images: Option<&'a dyn Images>,
    /// How many threads compile, for a caller that is not the process's main thread: then one module is compiled after
    /// the other. `None` for one thread for each core.
    pub threads: Option<NonZeroUsize>,
    /// Bytes by which the memory of the process may grow while it compiles.
    pub memory: Option<u64>,
    /// Who is told how far it is.
    pub progress: Option<&'a Arc<Progress>>,
}

/// Compiled code in files of memory that processes share.
///
/// # Safety
/// The code in a file that `find` returns will be run. An implementor gives out nothing that anyone but this user of the
/// system, or root, can have written, and nothing that can still be written to, or cut.
#[allow(unsafe_code, reason = "an implementor vouches for code that is run")]
pub unsafe trait Images {
    /// The file of that name, when some process has it.
    fn find(&self, name: &str) -> Option<File>;
    /// A file of that name, made of these parts, that nothing can change any more.
    fn make(&self, name: &str, parts: [&[u8]; 2]) -> io::Result<File>;
    /// Waits until no other process compiles the module of that name; `None` where that cannot be told.
    fn turn(&self, name: &str) -> Option<Turn>;
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
    /// Another process has it in memory.
    Shared,
    /// The store had it.
    Store,
    /// It was compiled.
    Compiled,
}

impl Cache {
    /// The code of a module: what a living plugin uses, else what another process has in memory, else what the store
    /// has. Else it is compiled now, by one process at a time, and then kept in the store and in memory that processes
    /// share.
    pub fn load(&self, bytes: &[u8], sources: Sources<'_>) -> Result<Loaded, Error> {
        let engine = EngineKind::of(bytes);
        if let Some(progress) = sources.progress {
            progress.enter(Stage::Waiting);
        }
        let digest: Digest = Sha256::digest(bytes).into();
        if let Some(code) = self.living(&digest) {
            return Ok(Loaded::from(code, Origin::Memory));
        }
        let name = entry::name(&digest, engine.engine()?);
        let search = Search { name, digest, engine, sources };
        let mut seen = Seen::default();
        if let Some(loaded) = search.find(&mut seen) {
            return Ok(self.keep(digest, loaded.and(seen)));
        }
        let _turns = search.turns(&seen);
        let _compiling = sources.threads.map(|_| self.compiling.lock());
        // Others may have compiled it meanwhile.
        if let Some(code) = self.living(&digest) {
            return Ok(Loaded::from(code, Origin::Memory).and(seen));
        }
        if let Some(loaded) = search.find(&mut seen) {
            return Ok(self.keep(digest, loaded.and(seen)));
        }
        let code = search.compile(bytes, &mut seen)?;
        Ok(self.keep(digest, Loaded::from(Arc::new(code), Origin::Compiled).and(seen)))
    }

    fn keep(&self, digest: Digest, loaded: Loaded) -> Loaded {
        self.remember(digest, &loaded.code);
        loaded
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

    fn and(self, seen: Seen) -> Self {
        let Seen { bad_entry, unusable, not_kept } = seen;
        Self { bad_entry, unusable, not_kept, ..self }
    }
}

/// What was found out about the store.
#[derive(Default)]
struct Seen {
    bad_entry: Option<String>,
    unusable: Option<String>,
    not_kept: Option<String>,
}

impl Seen {
    fn note(&mut self, error: StoreError) {
        match error {
            StoreError::Entry(cause) => self.bad_entry = Some(cause),
            StoreError::Unusable(cause) => self.unusable = Some(cause),
            StoreError::ReadOnly(cause) => self.not_kept = Some(cause),
        }
    }
}

/// The search for the code of one module.
struct Search<'a> {
    name: String,
    digest: Digest,
    engine: EngineKind,
    sources: Sources<'a>,
}

impl Search<'_> {
    /// What is compiled already.
    fn find(&self, seen: &mut Seen) -> Option<Loaded> {
        let image = self.sources.images.and_then(|images| images.find(&self.name));
        if let Some(code) = image.and_then(|image| self.of_image(image)) {
            return Some(Loaded::from(Arc::new(code), Origin::Shared));
        }
        let store = self.sources.store.filter(|_| seen.unusable.is_none())?;
        let found = store.read(&self.name).and_then(|found| match found {
            Some(entry) => self.restore(&self.name, &entry).map(Some),
            None => Ok(None),
        });
        let code = match found {
            Ok(code) => code,
            Err(error) => {
                seen.note(error);
                None
            }
        };
        let code = code.or_else(|| self.of_baseline(store))?;
        Some(Loaded::from(Arc::new(code), Origin::Store))
    }

    /// The code of an entry for a baseline that this processor has. Others, which it cannot run, are no error.
    fn of_baseline(&self, store: &dyn CodeStore) -> Option<Code> {
        BASELINES.iter().find_map(|baseline| {
            let name = baseline.entry_name(self.engine, &self.digest).ok()?;
            let found = store.read(&name).ok()??;
            self.restore(&name, &found).ok()
        })
    }

    /// Waits for those who compile the module now.
    fn turns(&self, seen: &Seen) -> [Option<Turn>; 2] {
        let store = self.sources.store.filter(|_| seen.unusable.is_none());
        [
            self.sources.images.and_then(|images| images.turn(&self.name)),
            store.and_then(|store| store.turn(&self.name)),
        ]
    }

    fn compile(&self, bytes: &[u8], seen: &mut Seen) -> Result<Code, Error> {
        let code = Code::compile_by(
            self.engine,
            bytes,
            self.digest,
            &Means {
                threads: self.sources.threads,
                memory: self.sources.memory,
                progress: self.sources.progress.cloned(),
            },
        )?;
        let store = self.sources.store.filter(|_| seen.unusable.is_none());
        if store.is_none() && self.sources.images.is_none() {
            return Ok(code);
        }
        let artifact = match code.artifact() {
            Ok(artifact) => artifact,
            Err(error) => {
                seen.unusable = Some(error.to_string());
                return Ok(code);
            }
        };
        if let Some(store) = store {
            let header = entry::header(&self.name, code.profile, &artifact);
            match store.write(&self.name, [&header, &artifact]) {
                Ok(()) => {}
                Err(StoreError::ReadOnly(cause)) => seen.not_kept = Some(cause),
                Err(StoreError::Entry(cause) | StoreError::Unusable(cause)) => {
                    seen.unusable = Some(cause);
                }
            }
        }
        Ok(self.share(code.profile, &artifact).unwrap_or(code))
    }

    /// Makes code of an entry that the store gave out.
    #[allow(unsafe_code, reason = "this is where the module cache is read")]
    fn restore(&self, name: &str, found: &[u8]) -> Result<Code, StoreError> {
        let bad = |cause: &str| StoreError::Entry(format!("{name} {cause}"));
        let (profile, artifact) = entry::parse(name, found).map_err(bad)?;
        if let Some(code) = self.share(profile, artifact) {
            return Ok(code);
        }
        // SAFETY: `compile` wrote the entry, under the name of this module, this wasmtime and these settings: the store
        // vouches that no other user could, and the digest in the entry that it is as it was written.
        unsafe { Code::restore(self.engine, artifact, profile, self.digest) }
            .map_err(|e| bad(&format!("was refused: {e}")))
    }

    /// Puts code into memory that processes share.
    fn share(&self, profile: Profile, artifact: &[u8]) -> Option<Code> {
        let trailer = entry::trailer(profile, artifact.len());
        self.of_image(self.sources.images?.make(&self.name, [artifact, &trailer]).ok()?)
    }

    /// The code in a file of memory; `None` when the file or the system is not made for it.
    #[allow(unsafe_code, reason = "code is taken from memory that processes share")]
    fn of_image(&self, file: File) -> Option<Code> {
        let size = file.metadata().ok()?.len();
        let mut trailer = [0; entry::TRAILER];
        file.read_exact_at(&mut trailer, size.checked_sub(entry::TRAILER as u64)?).ok()?;
        let profile = entry::parse_trailer(&trailer, size)?;
        // SAFETY: `share` made the file, under the name of this module, this wasmtime and these settings: `Images` vouches
        // that no other user could, and that nothing changes it.
        unsafe { Code::map(self.engine, file, profile, self.digest) }.ok()
    }
}
