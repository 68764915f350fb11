//! Request targets (`:path`): read as nginx reads those of clients, so that a filter can ask for nothing that a client
//! could not have asked for.
//!
//! Source: nginx `src/http/ngx_http_parse.c` (`ngx_http_parse_uri`, `ngx_http_parse_complex_uri`), the same from 1.21.1
//! to 1.31.

/// A target as nginx keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path: escapes decoded, `.` and `..` resolved. nginx's `$uri`.
    pub path: Vec<u8>,
    /// What follows the first `?`, as it is, without a fragment. nginx's `$args`.
    pub query: &'a [u8],
}

#[derive(Clone, Copy)]
enum Seen {
    Usual,
    Slash,
    Dot,
    DotDot,
}

/// `None` for what nginx answers with 400.
pub fn parse(target: &[u8], merge_slashes: bool) -> Option<Target<'_>> {
    let printable = |b: &u8| *b > b' ' && *b != 0x7f;
    if target.first() != Some(&b'/') || !target.iter().all(printable) {
        return None;
    }
    let mut path = Vec::with_capacity(target.len());
    let mut seen = Seen::Usual;
    let mut at = 0;
    let mut query: &[u8] = b"";
    while let Some(&byte) = target.get(at) {
        at += 1;
        match byte {
            b'?' | b'#' => {
                if byte == b'?' {
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
    Some(Target { path, query })
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
    fn what_nginx_refuses_is_refused() {
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
