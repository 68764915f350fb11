//! Where a filter's bytes come from.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::fail::Fail;
use crate::oci::reference::{Reference, SCHEME};
use crate::oci::store::{Store, StoreArgs};

/// More than this is no filter.
const MOST_BYTES: u64 = 1 << 30;

/// Reads a filter: a file, or one that was pulled, by its reference with a digest.
pub fn filter(name: &str) -> Result<Vec<u8>, Fail> {
    if !name.starts_with(SCHEME) {
        return read(name);
    }
    let reference =
        Reference::parse(name).map_err(|cause| Fail::input(format!("{name} {cause}")))?;
    let digest = reference.digest.ok_or_else(|| {
        Fail::input(format!("{name} has no digest (@sha256:…): proxy-wasm pull says which it has"))
    })?;
    let found =
        Store::new(&StoreArgs { store: std::env::var_os("PROXY_WASM_STORE").map(Into::into) })?;
    let root = found.root().display().to_string();
    found
        .read(&digest)?
        .ok_or_else(|| Fail::input(format!("{name} is not in {root}: proxy-wasm pull {name}")))
}

/// Reads a file.
pub fn read(name: &str) -> Result<Vec<u8>, Fail> {
    let path = Path::new(name);
    let failed = |error: std::io::Error| Fail::input(format!("{name}: {}", plain(&error)));
    let meta = std::fs::metadata(path).map_err(failed)?;
    if meta.is_dir() {
        return Err(Fail::input(format!("{name}: it is a folder; name the .wasm file in it")));
    }
    if meta.len() > MOST_BYTES {
        return Err(Fail::input(format!("{name}: it is larger than 1 GiB, so it is no filter")));
    }
    std::fs::read(path).map_err(failed)
}

/// The error of a file without its number.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// `sha256:` and the digest of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
