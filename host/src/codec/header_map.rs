//! Serialized header maps.
//!
//! `u32le count`, then `count` times (`u32le` name length, `u32le` value length), then each name and value
//! followed by a NUL byte. An empty map is no bytes; a lone `u32` 0 and a lone NUL are read as one too.

use crate::limits;
use crate::snapshot::HeaderMap;

/// Why bytes are no header map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// More than [`limits::HEADER_MAP_BYTES`] or [`limits::HEADER_MAP_PAIRS`].
    TooLarge,
    /// Lengths that reach past the end.
    Truncated,
    /// A name or value that does not end in NUL.
    MissingNul,
    /// Bytes behind the last value.
    Trailing,
}

/// Size of a map once serialized.
pub fn encoded_size(map: &HeaderMap) -> usize {
    if map.is_empty() { 0 } else { 4 + map.len() * (8 + 2) + map.byte_size() }
}

/// Serializes a map to the end of `out`.
pub fn encode(map: &HeaderMap, out: &mut Vec<u8>) {
    if map.is_empty() {
        return;
    }
    out.reserve(encoded_size(map));
    out.extend_from_slice(&(map.len() as u32).to_le_bytes());
    for (name, value) in map.iter() {
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    }
    for (name, value) in map.iter() {
        for part in [name, value] {
            out.extend_from_slice(part);
            out.push(0);
        }
    }
}

/// Names and values in order.
pub type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The pairs of a serialized map, in order, as they stand.
pub fn decode(bytes: &[u8]) -> Result<Pairs<'_>, DecodeError> {
    decode_beside(bytes, (0, 0))
}

/// The same beside pairs and bytes that were given to the guest, which may all be in the map.
pub fn decode_beside(bytes: &[u8], given: (usize, usize)) -> Result<Pairs<'_>, DecodeError> {
    // A pair is 10 bytes longer here.
    let (pairs, size) = (limits::HEADER_MAP_PAIRS + given.0, given.0 * 10 + given.1);
    if bytes.len() > limits::HEADER_MAP_BYTES + size {
        return Err(DecodeError::TooLarge);
    }
    let (pairs, count) = decode_some(bytes, pairs)?;
    if pairs.len() < count { Err(DecodeError::TooLarge) } else { Ok(pairs) }
}

/// Like [`decode`], without a limit on the bytes, and of a map with more than [`limits::HEADER_MAP_PAIRS`] its first
/// ones: `(pairs, how many the map has)`.
pub fn decode_first(bytes: &[u8]) -> Result<(Pairs<'_>, usize), DecodeError> {
    decode_some(bytes, limits::HEADER_MAP_PAIRS)
}

fn decode_some(bytes: &[u8], most: usize) -> Result<(Pairs<'_>, usize), DecodeError> {
    if bytes.is_empty() || bytes == [0] {
        return Ok((Vec::new(), 0));
    }
    let (count, rest) = take_u32(bytes)?;
    let count = count as usize;
    if count > most && rest.len() / 8 < count {
        return Err(DecodeError::TooLarge);
    }
    let lengths_size = count * 8;
    if rest.len() < lengths_size {
        return Err(DecodeError::Truncated);
    }
    let (mut lengths, mut data) = rest.split_at(lengths_size);
    let taken = count.min(most);
    let mut pairs = Vec::with_capacity(taken);
    for _ in 0..taken {
        let (name_size, rest) = take_u32(lengths)?;
        let (value_size, rest) = take_u32(rest)?;
        lengths = rest;
        let name = take_part(&mut data, name_size)?;
        let value = take_part(&mut data, value_size)?;
        pairs.push((name, value));
    }
    if taken == count && !data.is_empty() {
        return Err(DecodeError::Trailing);
    }
    Ok((pairs, count))
}

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    let (head, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
    Ok((u32::from_le_bytes(*head), rest))
}

fn take_part<'a>(data: &mut &'a [u8], size: u32) -> Result<&'a [u8], DecodeError> {
    let size = size as usize;
    if data.len() <= size {
        return Err(DecodeError::Truncated);
    }
    let (part, rest) = data.split_at(size);
    let (nul, rest) = rest.split_at(1);
    if nul != [0] {
        return Err(DecodeError::MissingNul);
    }
    *data = rest;
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (HeaderMap, Vec<u8>) {
        let mut map = HeaderMap::new();
        map.push(b"a", b"1");
        map.push(b"bb", b"");
        let bytes = b"\x02\0\0\0\x01\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0a\x001\0bb\0\0".to_vec();
        (map, bytes)
    }

    #[test]
    fn round_trip_of_the_specified_layout() {
        let (map, bytes) = sample();
        let mut out = Vec::new();
        encode(&map, &mut out);
        assert_eq!(out, bytes);
        assert_eq!(out.len(), encoded_size(&map));
        assert_eq!(decode(&out).unwrap(), [(&b"a"[..], &b"1"[..]), (&b"bb"[..], &b""[..])]);
    }

    #[test]
    fn three_ways_to_say_empty() {
        for bytes in [&b""[..], b"\0", b"\0\0\0\0"] {
            assert_eq!(decode(bytes).unwrap(), []);
        }
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let (_, bytes) = sample();
        for end in 2..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode(&longer), Err(DecodeError::Trailing));
    }

    #[test]
    fn a_missing_nul_is_refused() {
        let (_, mut bytes) = sample();
        bytes[21] = b'x';
        assert_eq!(decode(&bytes), Err(DecodeError::MissingNul));
    }

    #[test]
    fn sizes_past_the_caps_are_refused() {
        let many = (limits::HEADER_MAP_PAIRS as u32 + 1).to_le_bytes();
        assert_eq!(decode(&many), Err(DecodeError::TooLarge));
        assert_eq!(decode(&u32::MAX.to_le_bytes()), Err(DecodeError::TooLarge));
        assert_eq!(decode(&vec![1; limits::HEADER_MAP_BYTES + 1]), Err(DecodeError::TooLarge));
        let mut huge_name = 1u32.to_le_bytes().to_vec();
        huge_name.extend_from_slice(&u32::MAX.to_le_bytes());
        huge_name.extend_from_slice(&u32::MAX.to_le_bytes());
        huge_name.extend_from_slice(b"x\0\0");
        assert_eq!(decode(&huge_name), Err(DecodeError::Truncated));
    }

    #[test]
    fn the_first_pairs_of_a_map_of_too_many() {
        let count = limits::HEADER_MAP_PAIRS + 2;
        let mut bytes = (count as u32).to_le_bytes().to_vec();
        bytes.extend([1, 0, 0, 0, 1, 0, 0, 0].repeat(count));
        bytes.extend(b"a\x001\0".repeat(count));
        assert_eq!(decode(&bytes), Err(DecodeError::TooLarge));
        let (pairs, of) = decode_first(&bytes).expect("a sound map");
        assert_eq!((pairs.len(), of), (limits::HEADER_MAP_PAIRS, count));
        assert!(pairs.iter().all(|pair| *pair == (&b"a"[..], &b"1"[..])));
        assert_eq!(decode_first(&u32::MAX.to_le_bytes()), Err(DecodeError::TooLarge));
    }
}
