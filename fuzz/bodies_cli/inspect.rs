//! Bytes as a file for `proxy-wasm inspect`: they are described, or refused with a cause.

use proxy_wasm_cli::inspect::describe;

/// Larger modules are only slower.
const LARGEST: usize = 8 * 1024;

pub fn run(bytes: &[u8]) {
    if bytes.len() > LARGEST {
        return;
    }
    match describe("a.wasm", bytes) {
        Ok((text, json)) => {
            // A module writes nothing but lines to a terminal, whatever its names are.
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
            assert_eq!(json["bytes"], bytes.len());
            assert_eq!(json["started"], false);
        }
        Err(fail) => super::says_why(&fail.to_string()),
    }
}
