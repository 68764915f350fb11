//! Which header names and values may reach nginx.

/// True for a name that is a token of RFC 9110 (section 5.6.2).
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|&b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// True for a value that cannot end its line: no CR, LF or NUL.
pub fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0))
}

/// True for a request target: not empty, no white space and no control characters.
pub fn is_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && path.iter().all(|&b| b > b' ' && b != 0x7f)
}

/// True for a name that starts like a pseudo header.
pub fn is_pseudo(name: &[u8]) -> bool {
    name.first() == Some(&b':')
}

/// Request headers that nginx has a field for, of which ngx_lua keeps one line (`src/ngx_http_lua_headers_in.c`, the handlers
/// that are not `..._multi_header`). Those of framing and `Host` are not among them.
const REQUEST_FIELDS: [&str; 20] = [
    "if-modified-since",
    "if-unmodified-since",
    "if-match",
    "if-none-match",
    "user-agent",
    "referer",
    "content-type",
    "range",
    "if-range",
    "expect",
    "upgrade",
    "accept-encoding",
    "via",
    "authorization",
    "keep-alive",
    "x-real-ip",
    "depth",
    "destination",
    "overwrite",
    "date",
];

/// Response headers that nginx has a field for (`ngx_http_headers_out_t`, `src/ngx_http_lua_headers_out.c`).
const RESPONSE_FIELDS: [&str; 17] = [
    "server",
    "date",
    "content-encoding",
    "location",
    "refresh",
    "last-modified",
    "content-range",
    "accept-ranges",
    "www-authenticate",
    "proxy-authenticate",
    "expires",
    "e-tag",
    "etag",
    "cache-control",
    "link",
    "content-type",
    "content-length",
];

/// True for a request header of which ngx_lua keeps one line.
pub fn has_request_field(name: &[u8]) -> bool {
    REQUEST_FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// True for a response header that nginx has a field for.
pub fn has_response_field(name: &[u8]) -> bool {
    RESPONSE_FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_splits_a_response_passes() {
        assert!(is_token(b"X-Forwarded-For") && is_token(b"a_b"));
        for name in [&b""[..], b"a b", b"a:", b"a\r\nb", b"a\0", "\u{e4}".as_bytes()] {
            assert!(!is_token(name), "{name:?}");
        }
        assert!(is_value(b"") && is_value("caf\u{e9}\t".as_bytes()));
        for value in [&b"a\r\nSet-Cookie: x"[..], b"\n", b"\0"] {
            assert!(!is_value(value), "{value:?}");
        }
        assert!(is_path(b"/a?b=c") && !is_path(b"/a b") && !is_path(b"/a\nb") && !is_path(b""));
    }
}
