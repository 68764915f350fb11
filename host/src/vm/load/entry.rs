//! An entry of the module cache: a header, then the compiled code.
//!
//! | bytes | |
//! | --- | --- |
//! | 8 | [`MAGIC`] |
//! | 8 | the profile's flags, little endian |
//! | 8 | the code's length, little endian |
//! | 32 | SHA-256 of the entry's name, the 24 bytes above, and the code |

use std::hash::{Hash as _, Hasher};

use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use crate::codec::hex;
use crate::vm::analysis::profile::Profile;

/// Its last byte is the number of this format, and of the profile's meaning.
const MAGIC: [u8; 8] = *b"rpwcode\x06";
const DIGEST: usize = 24;
const HEADER: usize = DIGEST + 32;

/// The name of an entry: the module, and all that its code depends on: the versions of this library and of wasmtime,
/// wasmtime's settings, and what the processor can do.
pub(super) fn name(digest: &[u8; 32], engine: &Engine) -> String {
    let mut maker = Maker(Sha256::new_with_prefix(env!("CARGO_PKG_VERSION")));
    engine.precompile_compatibility_hash().hash(&mut maker);
    let maker = &maker.0.finalize()[..8];
    format!("{}-{}.cwasm", hex::encode(digest), hex::encode(maker))
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

/// What stands in front of the code in the entry of that name.
pub(super) fn header(name: &str, profile: Profile, code: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (head, sum) = header.split_at_mut(DIGEST);
    head.copy_from_slice(&trailer(profile, code.len()));
    sum.copy_from_slice(&digest(name, head, code));
    header
}

/// Bytes that stand behind code in memory that processes share: the first three fields of the table.
pub(super) const TRAILER: usize = DIGEST;

/// What stands behind code of that length in memory that processes share.
pub(super) fn trailer(profile: Profile, length: usize) -> [u8; TRAILER] {
    let mut trailer = [0; TRAILER];
    trailer[..8].copy_from_slice(&MAGIC);
    trailer[8..16].copy_from_slice(&profile.to_flags().to_le_bytes());
    trailer[16..].copy_from_slice(&(length as u64).to_le_bytes());
    trailer
}

/// The profile of code with that trailer, in a file of that size; `None` when it is no such file.
pub(super) fn parse_trailer(trailer: &[u8; TRAILER], size: u64) -> Option<Profile> {
    let is_whole = trailer[..8] == MAGIC && number(&trailer[16..]) + TRAILER as u64 == size;
    is_whole.then(|| Profile::from_flags(number(&trailer[8..16])))
}

/// Profile and code of an entry; the error completes a sentence that begins with the entry's name.
pub(super) fn parse<'a>(name: &str, entry: &'a [u8]) -> Result<(Profile, &'a [u8]), &'static str> {
    let Some((header, code)) = entry.split_first_chunk::<HEADER>() else {
        return Err("is cut off");
    };
    let (head, sum) = header.split_at(DIGEST);
    if head[..8] != MAGIC {
        return Err("is no entry of this cache");
    }
    match number(&head[16..]).cmp(&(code.len() as u64)) {
        std::cmp::Ordering::Less => return Err("is longer than it says"),
        std::cmp::Ordering::Greater => return Err("is cut off"),
        std::cmp::Ordering::Equal => {}
    }
    if digest(name, head, code) != sum {
        return Err("is damaged: its digest is another");
    }
    Ok((Profile::from_flags(number(&head[8..16])), code))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn digest(name: &str, head: &[u8], code: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(name).chain_update(head).chain_update(code).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_back_and_any_change_is_seen() {
        let profile = Profile::from_flags(0b0110);
        let mut entry = header("a", profile, b"code").to_vec();
        entry.extend(b"code");
        assert_eq!(parse("a", &entry), Ok((profile, &b"code"[..])));
        assert_eq!(parse("b", &entry), Err("is damaged: its digest is another"));
        for at in 0..entry.len() {
            assert!(parse("a", &entry[..at]).is_err(), "cut at {at}");
            entry[at] ^= 1;
            assert!(parse("a", &entry).is_err(), "changed at {at}");
            entry[at] ^= 1;
        }
        entry.push(0);
        assert_eq!(parse("a", &entry), Err("is longer than it says"));
    }

    #[test]
    fn a_trailer_tells_whether_its_file_is_whole() {
        let profile = Profile::from_flags(0b0101);
        let mut bytes = trailer(profile, 4);
        assert_eq!(parse_trailer(&bytes, 4 + TRAILER as u64), Some(profile));
        assert_eq!(parse_trailer(&bytes, 3 + TRAILER as u64), None);
        bytes[0] ^= 1;
        assert_eq!(parse_trailer(&bytes, 4 + TRAILER as u64), None);
    }

    #[test]
    fn all_flags_are_kept() {
        for flags in 0..1 << 12 {
            assert_eq!(Profile::from_flags(flags).to_flags(), flags);
        }
    }
}
