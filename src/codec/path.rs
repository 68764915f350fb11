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

/// nginx itself has no names of this length; longer ones are kept like any other path.
const LONGEST_VARIABLE: usize = 255;

/// The nginx variable that a path names: `ngx.NAME`, or NAME alone.
pub fn variable(path: &[u8]) -> Option<&[u8]> {
    let name = match split_first(path) {
        (name, None) => name,
        (b"ngx", Some(name)) if !name.contains(&0) => name,
        _ => return None,
    };
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    (!name.is_empty() && name.len() <= LONGEST_VARIABLE && name.iter().all(is_name)).then_some(name)
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

    #[test]
    fn which_paths_name_a_variable() {
        assert_eq!(variable(b"host"), Some(&b"host"[..]));
        assert_eq!(variable(b"ngx\0http_x_a"), Some(&b"http_x_a"[..]));
        for path in [&b""[..], b"ngx\0", b"ngx\0a\0b", b"request\0path", b"a-b"] {
            assert_eq!(variable(path), None, "{path:?}");
        }
    }
}
