//! Header names, values and paths: what is accepted makes exactly one line of a message.

use resty_proxy_wasm::codec::header::{is_path, is_pseudo, is_token, is_value};

/// The bytes are a name and a value behind the first `:`, and each alone.
pub(super) fn run(bytes: &[u8]) {
    let at = bytes.iter().position(|&b| b == b':').unwrap_or(bytes.len());
    let (name, value) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    if is_token(name) && is_value(value) {
        let line = [name, b":", value].concat();
        assert!(!line.contains(&b'\r') && !line.contains(&b'\n') && !line.contains(&0));
        assert_eq!(line.split(|&b| b == b':').next(), Some(name));
    }
    for part in [bytes, name, value] {
        if is_token(part) {
            assert!(!part.is_empty() && part.iter().all(u8::is_ascii_graphic));
            assert!(!part.iter().any(|b| b"\"(),/:;<=>?@[\\]{}".contains(b)));
            assert!(is_value(part) && !is_pseudo(part));
        }
        if is_path(part) {
            assert!(part[0] == b'/' && is_value(part));
            assert!(!part.iter().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()));
        }
        assert_eq!(is_pseudo(part), part.starts_with(b":"));
    }
}
