//! Property paths: segments join to the path again; only names of variables name variables.

use resty_proxy_wasm::codec::path::{split_first, trim, variable};

pub fn run(bytes: &[u8]) {
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
