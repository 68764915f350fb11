//! Headers that nginx has a field for.

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
pub fn is_of_request(name: &[u8]) -> bool {
    REQUEST_FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// True for a response header that nginx has a field for.
pub fn is_of_response(name: &[u8]) -> bool {
    RESPONSE_FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}
