//! Authorities (`:authority`, `Host`): read as a strict server reads those of clients.
//!
//! The rules are those of `ngx_http_validate_host`, the same from 1.21 to 1.31, and nothing past ASCII. The name becomes a part of
//! paths where the configuration says so (`root /srv/$host`), so it must not lead out of them.

/// Whether a client could have sent it.
pub fn is_authority(value: &[u8]) -> bool {
    let printable = value.iter().all(|b| b.is_ascii_graphic() && *b != b'/');
    let dots = value.windows(2).any(|pair| pair == b"..");
    let name = name(value);
    printable && !dots && !name.strip_suffix(b".").unwrap_or(name).is_empty()
}

/// What stands before the port.
fn name(value: &[u8]) -> &[u8] {
    if value.first() == Some(&b'[') {
        let end = value.iter().position(|b| *b == b']');
        return &value[..end.map_or(value.len(), |end| end + 1)];
    }
    value.split(|b| *b == b':').next().unwrap_or_default()
}
