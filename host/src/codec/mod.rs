//! Encodings of the ABI: pure functions over bytes.

pub mod authority;
pub mod header;
pub mod header_map;
pub mod hex;
pub mod path;
pub mod target;
