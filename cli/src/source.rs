//! Where a filter's bytes come from.

use std::fs::File;
use std::io::{self, Read as _};
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
    bytes(Path::new(name)).map_err(|error| Fail::input(format!("{name}: {}", plain(&error))))
}

/// The bytes of a file.
pub fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    at_most(MOST_BYTES, path)
        .and_then(|bytes| bytes.ok_or_else(|| io::Error::other("it is larger than 1 GiB")))
}

/// `None` for more bytes. A device (/dev/zero) may have no end, and its size does not say so.
fn at_most(most: u64, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::Error::other("it is a folder; name the file in it"));
    }
    if meta.len() > most {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.take(most + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// The error of a file without its number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// `sha256:` and the digest of bytes.
pub fn digest(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_an_end_are_not_read_for_ever() {
        assert_eq!(at_most(1000, Path::new("/dev/zero")).expect("a device"), None);
        assert_eq!(at_most(1000, Path::new("/dev/null")).expect("a device"), Some(Vec::new()));
        assert!(at_most(1000, Path::new("/dev")).is_err());
    }
}
