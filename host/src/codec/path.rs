//! Property paths: segments joined by NUL, one NUL at the end tolerated.

/// A path without the NUL at its end.
pub fn trim(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"\0").unwrap_or(path)
}

/// Splits off the first segment: `(segment, rest)`, with no rest behind the last one.
pub fn split_first(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|&b| b == 0) {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments() {
        assert_eq!(trim(b"a\0b\0"), b"a\0b");
        assert_eq!(split_first(b"a\0b\0c"), (&b"a"[..], Some(&b"b\0c"[..])));
        assert_eq!(split_first(b"a"), (&b"a"[..], None));
    }
}
