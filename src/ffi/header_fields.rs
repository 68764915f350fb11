//! Headers that nginx has a field for.

/// Request headers that nginx has a field for, of which ngx_lua keeps one line (`src/ngx_http_lua_headers_in.c`, the handlers
/// that are not `..._multi_header`). Those of framing and `Host` are not among them.
pub const OF_REQUEST: &[&str] = &[
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
pub const OF_RESPONSE: &[&str] = &[
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

/// Whether one of them has that name.
pub fn has(fields: &[&str], name: &[u8]) -> bool {
    fields.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}
