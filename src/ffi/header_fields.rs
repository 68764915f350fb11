//! Headers that nginx has a field for.

/// Request headers that nginx has a field for, of which ngx_lua keeps one line (`src/ngx_http_lua_headers_in.c`, the handlers
/// that are not `..._multi_header`). Those of framing and `Host` are not among them.
pub(super) const OF_REQUEST: &[&str] = &[
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
pub(super) const OF_RESPONSE: &[&str] = &[
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
pub(super) fn has(fields: &[&str], name: &[u8]) -> bool {
    fields.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

/// True for a request header of which ngx_lua keeps one line.
pub(super) fn is_of_request(name: &[u8]) -> bool {
    static LETTERS: [u32; LENGTHS] = letters(OF_REQUEST);
    is_one_of(name, OF_REQUEST, &LETTERS)
}

/// True for a response header that nginx has a field for.
#[inline]
pub(super) fn is_of_response(name: &[u8]) -> bool {
    static LETTERS: [u32; LENGTHS] = letters(OF_RESPONSE);
    is_one_of(name, OF_RESPONSE, &LETTERS)
}

/// No field's name is as long.
const LENGTHS: usize = 32;

/// By the length of a name: the letters that those of the fields begin with, as bits.
const fn letters(fields: &[&str]) -> [u32; LENGTHS] {
    let mut letters = [0; LENGTHS];
    let mut at = 0;
    while at < fields.len() {
        let name = fields[at].as_bytes();
        letters[name.len()] |= 1 << (name[0] - b'a');
        at += 1;
    }
    letters
}

/// Most names are told from all of them by their length and first letter.
#[inline]
fn is_one_of(name: &[u8], fields: &[&str], letters: &[u32; LENGTHS]) -> bool {
    let Some(letter) = name.first().map(|b| b.to_ascii_lowercase().wrapping_sub(b'a')) else {
        return false;
    };
    let known = letters.get(name.len()).copied().unwrap_or_default();
    letter < 26
        && known >> letter & 1 == 1
        && fields.iter().any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_are_found_whatever_their_case() {
        for field in OF_REQUEST {
            let upper = field.to_ascii_uppercase();
            assert!(is_of_request(field.as_bytes()) && is_of_request(upper.as_bytes()));
        }
        for field in OF_RESPONSE {
            let upper = field.to_ascii_uppercase();
            assert!(is_of_response(field.as_bytes()) && is_of_response(upper.as_bytes()));
        }
        for name in [&b""[..], b"e", b"datf", b"_ate", b"\xe4tag", &[b'e'; 40]] {
            assert!(!is_of_request(name) && !is_of_response(name), "{name:?}");
        }
    }
}
