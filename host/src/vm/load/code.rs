//! Compiled code, which any number of plugins can be made of.

use std::fs::File;

use sha2::{Digest as _, Sha256};

use super::compile::compile_guest;
use super::engine::EngineKind;
use super::watch::Means;
use crate::abi::{Marker, VERSION_MARKER, Version};
use crate::error::{Error, one_line, shown};
use crate::vm::analysis::profile::Profile;

/// SHA-256.
pub(crate) type Digest = [u8; 32];

/// See the module.
pub struct Code {
    /// SHA-256 of the module.
    pub digest: Digest,
    /// What runs it.
    pub(in crate::vm) engine: EngineKind,
    pub(in crate::vm) module: wasmtime::Module,
    pub(in crate::vm) profile: Profile,
    pub(in crate::vm) version: Version,
    /// It says that it is made for a vendor's superset of the ABI.
    pub(in crate::vm) vendor: bool,
    /// What users should know of the module.
    pub(in crate::vm) warnings: Vec<String>,
}

impl Code {
    /// Compiles a module and checks what is the same for all plugins. No calls are inlined, so that the trace of a filter that
    /// fails shows each of its functions. [`Cache::load`](crate::vm::Cache::load) inlines those of small modules.
    pub fn compile(bytes: &[u8]) -> Result<Self, Error> {
        let digest = Sha256::digest(bytes).into();
        Self::compile_by(EngineKind::Plain, bytes, digest, &Means::default())
    }

    /// The same by these means and for that engine, of a module with that digest.
    pub(in crate::vm) fn compile_by(
        engine: EngineKind,
        bytes: &[u8],
        digest: Digest,
        means: &Means,
    ) -> Result<Self, Error> {
        let (module, extended) = compile_guest(engine, bytes, means)?;
        let profile = Profile { extended, ..Profile::of(bytes) };
        Self::of(engine, module, profile, digest)
    }

    /// The code as bytes, from which [`Code::restore`] makes it again.
    pub(in crate::vm) fn artifact(&self) -> Result<Vec<u8>, Error> {
        self.module.serialize().map_err(|e| Error::Module(one_line(&e)))
    }

    /// Makes code of an artifact again, for that engine; fails when another version or setting of wasmtime made it.
    ///
    /// # Safety
    /// The artifact and the profile come from [`Code::artifact`] and the same code, unchanged: what they hold is run.
    #[allow(unsafe_code, reason = "machine code is taken from bytes; the caller vouches for them")]
    pub(in crate::vm) unsafe fn restore(
        engine: EngineKind,
        artifact: &[u8],
        profile: Profile,
        digest: Digest,
    ) -> Result<Self, Error> {
        // SAFETY: as promised by the caller.
        let module = unsafe { wasmtime::Module::deserialize(engine.engine()?, artifact) };
        Self::of(engine, module.map_err(|e| Error::Module(one_line(&e)))?, profile, digest)
    }

    /// Makes code of an artifact in a file, which stays where it is: processes that map the same file share its memory.
    /// Fails as [`Code::restore`] does, and where the system maps no code.
    ///
    /// # Safety
    /// As for [`Code::restore`], and nothing can change the file any more, or cut it.
    #[allow(unsafe_code, reason = "machine code is taken from a file; the caller vouches for it")]
    pub(in crate::vm) unsafe fn map(
        engine: EngineKind,
        file: File,
        profile: Profile,
        digest: Digest,
    ) -> Result<Self, Error> {
        // SAFETY: as promised by the caller.
        let module = unsafe { wasmtime::Module::deserialize_open_file(engine.engine()?, file) };
        Self::of(engine, module.map_err(|e| Error::Module(one_line(&e)))?, profile, digest)
    }

    fn of(
        engine: EngineKind,
        module: wasmtime::Module,
        profile: Profile,
        digest: Digest,
    ) -> Result<Self, Error> {
        let mut warnings = Vec::new();
        let (version, vendor) = version(&module, &mut warnings)?;
        Ok(Self { digest, engine, module, profile, version, vendor, warnings })
    }
}

/// The vendor's version whose additions this host has.
const KNOWN_VENDOR: &str = "0_2_100";

/// The first marker in export order decides: the version, and whether that is a vendor's.
fn version(
    module: &wasmtime::Module,
    warnings: &mut Vec<String>,
) -> Result<(Version, bool), Error> {
    for export in module.exports() {
        match Marker::parse(export.name()) {
            None => {}
            Some(Marker::Known(version)) => return Ok((version, false)),
            Some(Marker::Vendor) => {
                if export.name().strip_prefix(VERSION_MARKER) != Some(KNOWN_VENDOR) {
                    warnings.push(format!(
                        "ABI marker {} is a vendor's: taken as 0.2.1",
                        shown(export.name())
                    ));
                }
                return Ok((Version::V0_2_1, true));
            }
            Some(Marker::Unknown) => {
                return Err(Error::Export(format!(
                    "the module's ABI marker {} is not one of 0.1.0, 0.2.0, 0.2.1",
                    shown(export.name())
                )));
            }
        }
    }
    warnings.push("the module has no proxy_abi_version_* export: taken as 0.2.0".into());
    Ok((Version::V0_2_0, false))
}
