//! Request targets (`:path`): read as a strict server reads those of clients, so that a filter can ask for nothing that a
//! client could not have asked for.
//!
//! The rules are those of `ngx_http_parse_uri` and `ngx_http_parse_complex_uri`, the same from 1.21.1 to 1.31.

/// A target that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path: escapes decoded, `.` and `..` resolved.
    pub path: Vec<u8>,
    /// What follows the first `?`, as it is, without a fragment.
    pub query: &'a [u8],
    /// Where the query begins in the target; 0 when there is no `?`.
    pub query_at: usize,
}

#[derive(Clone, Copy)]
enum Seen {
    Usual,
    Slash,
    Dot,
    DotDot,
}

/// `None` for what a server answers with 400.
pub fn parse(target: &[u8], merge_slashes: bool) -> Option<Target<'_>> {
    let printable = |b: &u8| *b > b' ' && *b != 0x7f;
    if target.first() != Some(&b'/') || !target.iter().all(printable) {
        return None;
    }
    let mut path = Vec::with_capacity(target.len());
    let mut seen = Seen::Usual;
    let mut at = 0;
    let mut query: &[u8] = b"";
    let mut query_at = 0;
    while let Some(&byte) = target.get(at) {
        at += 1;
        match byte {
            b'?' | b'#' => {
                if byte == b'?' {
                    query_at = at;
                    query = target[at..].split(|&b| b == b'#').next().unwrap_or_default();
                }
                break;
            }
            b'%' => {
                let decoded = (digit(target, at)? << 4) | digit(target, at + 1)?;
                at += 2;
                match decoded {
                    0 => return None,
                    // These do not count as what they would mean without the escape.
                    b'%' | b'#' | b'?' => {
                        path.push(decoded);
                        seen = Seen::Usual;
                    }
                    _ => seen = push(&mut path, seen, decoded, merge_slashes)?,
                }
            }
            _ => seen = push(&mut path, seen, byte, merge_slashes)?,
        }
    }
    match seen {
        Seen::Usual | Seen::Slash => {}
        Seen::Dot => path.truncate(path.len() - 1),
        Seen::DotDot => go_up(&mut path)?,
    }
    Some(Target { path, query, query_at })
}

fn digit(target: &[u8], at: usize) -> Option<u8> {
    char::from(*target.get(at)?).to_digit(16).map(|digit| digit as u8)
}

fn push(path: &mut Vec<u8>, seen: Seen, byte: u8, merge_slashes: bool) -> Option<Seen> {
    Some(match (seen, byte) {
        (Seen::Slash, b'/') if merge_slashes => Seen::Slash,
        (Seen::Dot, b'/') => {
            path.truncate(path.len() - 1);
            Seen::Slash
        }
        (Seen::DotDot, b'/') => {
            go_up(path)?;
            Seen::Slash
        }
        _ => {
            path.push(byte);
            match (seen, byte) {
                (_, b'/') => Seen::Slash,
                (Seen::Slash, b'.') => Seen::Dot,
                (Seen::Dot, b'.') => Seen::DotDot,
                _ => Seen::Usual,
            }
        }
    })
}

/// Takes `/..` and the segment before it away; `None` above the root.
fn go_up(path: &mut Vec<u8>) -> Option<()> {
    let parent = path.len().checked_sub(b"/..".len())?;
    let slash = path[..parent].iter().rposition(|&b| b == b'/')?;
    path.truncate(slash + 1);
    Some(())
}

/// True when that path and query are what the target is read as.
pub fn stands_for(target: &[u8], path: &[u8], query: &[u8], merge_slashes: bool) -> bool {
    // Most are plain, and need no reading.
    if let Some(rest) = target.strip_prefix(path)
        && !path.iter().any(|b| b"%?#".contains(b))
        && (rest.is_empty() && query.is_empty() || rest.strip_prefix(b"?") == Some(query))
    {
        return true;
    }
    parse(target, merge_slashes).is_some_and(|read| read.path == path && read.query == query)
}

/// Appends the target that is sent to an upstream for a path and a query, where there is no target of a client's.
///
/// The rules are those of `ngx_escape_uri` with `NGX_ESCAPE_URI`, from 1.21.1 on.
pub fn write(path: &[u8], query: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in path {
        if byte.is_ascii_graphic() && !b"\"#%<>?\\^`{|}".contains(&byte) {
            out.push(byte);
        } else {
            let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'%', high, low]);
        }
    }
    if !query.is_empty() {
        out.push(b'?');
        out.extend_from_slice(query);
    }
}

/// True for a query that a client could have sent.
pub fn is_query(query: &[u8]) -> bool {
    query.iter().all(|&b| b > b' ' && b != 0x7f && b != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str, merge_slashes: bool) -> Option<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let target = parse(target.as_bytes(), merge_slashes)?;
        Some((text(&target.path), text(target.query)))
    }

    #[test]
    fn paths_are_resolved_within_the_root() {
        for (target, path, query) in [
            ("/", "/", ""),
            ("/a/./b/../c", "/a/c", ""),
            ("/a/..", "/", ""),
            ("/a/.", "/a/", ""),
            ("/a/..?x", "/", "x"),
            ("/.?x", "/", "x"),
            ("/..a/...", "/..a/...", ""),
            ("//a//b", "/a/b", ""),
            ("/a%2F..%2fb", "/b", ""),
            ("/a/%2e%2e/b", "/b", ""),
            ("/a%3f%23%25b?c#d?e", "/a?#%b", "c"),
            ("/a#b?c", "/a", ""),
            ("/a?b?c/../..", "/a", "b?c/../.."),
        ] {
            let expected = (path.to_string(), query.to_string());
            assert_eq!(read(target, true), Some(expected), "{target}");
        }
        assert_eq!(read("//a//b/../../c", false).unwrap().0, "//a/c");
        assert_eq!(read("//..//..", false).unwrap().0, "/");
        assert_eq!(read("//..//..", true), None);
    }

    #[test]
    fn a_target_stands_for_what_it_is_read_as() {
        let now = |target: &[u8], path: &[u8], query: &[u8]| stands_for(target, path, query, true);
        assert!(now(b"/a", b"/a", b"") && now(b"/a?", b"/a", b"") && now(b"/a?b", b"/a", b"b"));
        assert!(now(b"/%61/../b?c#d", b"/b", b"c"));
        assert!(
            !now(b"/a?b", b"/a", b"c") && !now(b"/a?b", b"/a", b"") && !now(b"/ab", b"/a", b"")
        );
        assert!(!now(b"/a%20", b"/a%20", b""), "it is read as a space");
    }

    #[test]
    fn targets_are_escaped() {
        let written = |path: &str, query: &str| {
            let mut out = Vec::new();
            write(path.as_bytes(), query.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written("/a b?#%\u{e9}\n", "c=d e"), "/a%20b%3F%23%25%C3%A9%0A?c=d e");
        assert_eq!(
            written("/\"<>\\^`{|}~!$&'()*+,;=:@[]", ""),
            "/%22%3C%3E%5C%5E%60%7B%7C%7D~!$&'()*+,;=:@[]"
        );
    }

    #[test]
    fn bad_targets_are_refused() {
        for target in [
            "",
            "a",
            "?a",
            "*",
            "http://a/b",
            "/a b",
            "/a\n",
            "/a\0",
            "/a?b c",
            "/a#b\x7f",
            "/%",
            "/%4",
            "/%zz",
            "/a%00",
            "/..",
            "/../a",
            "/a/../..",
            "/a/%2e%2e%2f..",
            "/.%2e/a",
        ] {
            assert_eq!(read(target, true), None, "{target:?}");
        }
    }
}
