//! Property paths: segments join to the path again. Request targets: what is taken stays below the root.

use resty_proxy_wasm::codec::path::{split_first, trim};
use resty_proxy_wasm::codec::target;

pub(super) fn run(bytes: &[u8]) {
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
