//! Property paths: segments join to the path again; only names of variables name variables. Request targets: what is
//! taken stays below the root.

use resty_proxy_wasm::codec::path::{split_first, trim, variable};
use resty_proxy_wasm::codec::target;

pub fn run(bytes: &[u8]) {
    check_target(bytes);
    let path = trim(bytes);
    assert!(bytes == path || bytes == [path, &[0]].concat());

    let mut joined = Vec::with_capacity(path.len());
    let mut rest = Some(path);
    while let Some(part) = rest {
        let (segment, behind) = split_first(part);
        assert!(!segment.contains(&0));
        joined.extend_from_slice(segment);
        if behind.is_some() {
            joined.push(0);
        }
        rest = behind;
    }
    assert_eq!(joined, path);

    let named = path.strip_prefix(b"ngx\0").unwrap_or(path);
    let is_name = !named.is_empty()
        && named.len() < 256
        && std::str::from_utf8(named).is_ok_and(|name| {
            name.chars().all(|c| c == '_' || matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9'))
        });
    assert_eq!(variable(path), is_name.then_some(named));
}

fn check_target(bytes: &[u8]) {
    for merge_slashes in [false, true] {
        let Some(read) = target::parse(bytes, merge_slashes) else { continue };
        assert!(read.path.starts_with(b"/") && read.path.len() <= bytes.len());
        assert!(!read.path.contains(&0) && target::is_query(read.query));
        let mut segments = read.path[1..].split(|&b| b == b'/').peekable();
        while let Some(segment) = segments.next() {
            assert!(segment != b"." && segment != b"..");
            assert!(!merge_slashes || !segment.is_empty() || segments.peek().is_none());
        }
    }
}
