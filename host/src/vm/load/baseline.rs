//! Compiling for the module cache ahead of time: for processors that are not this one, and without loading anything.

use sha2::{Digest as _, Sha256};
use wasmtime::{Config, Engine};

use super::code_store::{CodeStore, StoreError};
use super::engine::{EngineKind, PerEngine};
use super::{compile, entry};
use crate::codec::hex;
use crate::error::{Error, one_line};
use crate::vm::analysis::profile::Profile;

/// A set of what processors can do, under the name that compilers have for it.
#[derive(Debug)]
pub struct Baseline {
    /// Its name: `x86-64-v3`.
    pub name: &'static str,
    /// The features, as Cranelift names them.
    features: &'static [&'static str],
    engines: PerEngine<Engine>,
}

#[cfg(target_arch = "x86_64")]
const V2: &[&str] =
    &["has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt", "has_cmpxchg16b"];
#[cfg(target_arch = "x86_64")]
const V3: &[&str] = &[
    "has_sse3",
    "has_ssse3",
    "has_sse41",
    "has_sse42",
    "has_popcnt",
    "has_cmpxchg16b",
    "has_avx",
    "has_avx2",
    "has_bmi1",
    "has_bmi2",
    "has_fma",
    "has_lzcnt",
];

/// The baselines of this architecture, the most able first.
#[cfg(target_arch = "x86_64")]
pub static BASELINES: [Baseline; 3] =
    [Baseline::new("x86-64-v3", V3), Baseline::new("x86-64-v2", V2), Baseline::new("x86-64", &[])];
/// The baselines of this architecture, the most able first.
#[cfg(not(target_arch = "x86_64"))]
pub static BASELINES: [Baseline; 1] = [Baseline::new("generic", &[])];

/// What became of a module that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was compiled.
    Compiled,
    /// A good entry was there.
    There,
}

/// What an entry of a cache is to this library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// It is for this processor.
    Own,
    /// It is for a baseline.
    Of(&'static str),
    /// Another version of this library made it, or it is for another processor.
    Other,
    /// It cannot be used. The text completes a sentence that begins with its name.
    Broken(String),
    /// It is no entry.
    Alien,
}

impl Baseline {
    const fn new(name: &'static str, features: &'static [&'static str]) -> Self {
        Self { name, features, engines: PerEngine::new() }
    }

    /// What compiles for it. It runs nothing.
    #[allow(unsafe_code, reason = "the features of a processor are told by name")]
    fn engine(&self, kind: EngineKind) -> Result<&Engine, Error> {
        let make = || {
            let mut config: Config = kind.config()?;
            let triple = triple();
            config.target(triple).map_err(|e| one_line(&e))?;
            for feature in self.features {
                // SAFETY: code that is compiled with a feature is run where the processor has it only: wasmtime looks at
                // the features in an artifact before it takes it.
                unsafe { config.cranelift_flag_enable(feature) };
            }
            Engine::new(&config).map_err(|e| one_line(&e))
        };
        self.engines
            .get_or_try_init(kind, make)
            .map_err(|cause: String| Error::Module(format!("{}: {cause}", self.name)))
    }

    /// The name of a module's entry.
    pub(super) fn entry_name(&self, kind: EngineKind, digest: &[u8; 32]) -> Result<String, Error> {
        Ok(entry::name(digest, self.engine(kind)?))
    }

    /// Compiles a module for a store that has no good entry of it.
    pub fn keep(&self, bytes: &[u8], store: &dyn CodeStore) -> Result<Kept, KeepError> {
        let kind = EngineKind::of(bytes);
        let name = self.entry_name(kind, &Sha256::digest(bytes).into())?;
        if let Ok(Some(found)) = store.read(&name)
            && entry::parse(&name, &found).is_ok()
        {
            return Ok(Kept::There);
        }
        let (artifact, extended) = compile::precompile_guest(self.engine(kind)?, bytes)?;
        let profile = Profile { extended, ..Profile::of(bytes) };
        let header = entry::header(&name, profile, &artifact);
        store.write(&name, [&header, &artifact]).map_err(KeepError::Store)?;
        Ok(Kept::Compiled)
    }
}

/// Why a module was not kept.
#[derive(Debug)]
pub enum KeepError {
    /// It is no module, or the like.
    Module(Error),
    /// The store did not take it.
    Store(StoreError),
}

impl From<Error> for KeepError {
    fn from(error: Error) -> Self {
        Self::Module(error)
    }
}

/// Looks at an entry of that name without running anything of it.
pub fn examine(name: &str, content: &[u8]) -> Result<EntryState, Error> {
    let Some(digest) = name.get(..64).and_then(digest_of) else { return Ok(EntryState::Alien) };
    let is_alien = !name.ends_with(".cwasm") || name.len() != 64 + 1 + 16 + ".cwasm".len();
    if is_alien || !name.is_ascii() {
        return Ok(EntryState::Alien);
    }
    let Some(state) = state_of(name, &digest)? else { return Ok(EntryState::Other) };
    Ok(match entry::parse(name, content) {
        Ok(_) => state,
        Err(cause) => EntryState::Broken(cause.into()),
    })
}

/// Whom the entry of that name is for; `None` when another version of this library made it, or it is for another processor.
fn state_of(name: &str, digest: &[u8; 32]) -> Result<Option<EntryState>, Error> {
    for kind in EngineKind::ALL {
        if name == entry::name(digest, kind.engine()?) {
            return Ok(Some(EntryState::Own));
        }
        for baseline in &BASELINES {
            if name == baseline.entry_name(kind, digest)? {
                return Ok(Some(EntryState::Of(baseline.name)));
            }
        }
    }
    Ok(None)
}

fn digest_of(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    (hex::encode(&digest) == text).then_some(digest)
}

/// The system that this library runs on, as compilers name it.
fn triple() -> &'static str {
    match (cfg!(target_arch = "x86_64"), cfg!(target_env = "musl")) {
        (true, false) => "x86_64-unknown-linux-gnu",
        (true, true) => "x86_64-unknown-linux-musl",
        (false, false) => "aarch64-unknown-linux-gnu",
        (false, true) => "aarch64-unknown-linux-musl",
    }
}
