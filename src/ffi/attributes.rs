//! Attributes of requests as nginx variables.

use super::{types, variables};
use crate::abi::Attribute;
use crate::codec::header;
use crate::limits;
use crate::ports::RequestId;
use crate::snapshot::HeaderMap;

/// Puts an attribute that variables tell into `out`; false when there is none.
pub(super) fn read(request: RequestId, attribute: Attribute<'_>, out: &mut Vec<u8>) -> bool {
    match attribute {
        Attribute::RequestStart => {
            let start = millis(request, b"msec")
                .zip(millis(request, b"request_time"))
                .and_then(|(now, since)| now.checked_sub(since));
            return put_nanos(start, out);
        }
        Attribute::RequestDuration => return put_nanos(millis(request, b"request_time"), out),
        Attribute::ResponseHeader(name) => {
            return variables::read(request, &[b"sent_http_", &*in_variable(name)].concat(), out);
        }
        _ => {}
    }
    let names = nginx_variables::names(attribute);
    names.iter().any(|name| variables::read(request, name.as_bytes(), out))
        && nginx_variables::read(attribute, out)
}

/// nginx counts milliseconds: `SECONDS.MMM`.
fn millis(request: RequestId, variable: &[u8]) -> Option<i64> {
    let (value, length) = variables::lend(request, variable)?;
    // SAFETY: nginx lends the value, which is read at once.
    parse_millis(unsafe { types::bytes(value.cast(), length) })
}

fn parse_millis(text: &[u8]) -> Option<i64> {
    let (seconds, rest) = std::str::from_utf8(text).ok()?.split_once('.')?;
    seconds.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(rest.parse().ok()?)
}

fn put_nanos(millis: Option<i64>, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some(nanos) = millis.and_then(|millis| millis.checked_mul(1_000_000)) else {
        return false;
    };
    out.extend_from_slice(nanos.to_string().as_bytes());
    true
}

/// A header's name as it stands in the name of a variable.
fn in_variable(name: &[u8]) -> Vec<u8> {
    name.iter().map(|&b| if b == b'-' { b'_' } else { b.to_ascii_lowercase() }).collect()
}

/// Trailers that gRPC sends without announcing them.
const OF_GRPC: [&[u8]; 3] = [b"grpc-status", b"grpc-message", b"grpc-status-details-bin"];

/// Where names of trailers are announced: as they came, and as they go out.
const ANNOUNCED: [&[u8]; 2] = [b"upstream_http_trailer", b"sent_http_trailer"];

/// The trailers of a response. nginx shows each in a variable of its name, and has no list of them: the names are those that
/// the response announces, and those that gRPC has.
pub(super) fn trailers(request: RequestId, out: &mut HeaderMap) {
    let mut value = Vec::new();
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut add = |name: &[u8]| {
        let name = name.trim_ascii().to_ascii_lowercase();
        if names.len() < limits::TRAILERS && !names.contains(&name) {
            names.push(name);
        }
    };
    if variables::read(request, b"content_type", &mut value)
        && value.starts_with(b"application/grpc")
    {
        OF_GRPC.iter().for_each(|name| add(name));
    }
    for list in ANNOUNCED {
        if variables::read(request, list, &mut value) {
            value.split(|&byte| byte == b',').for_each(&mut add);
        }
    }
    for name in names {
        if name.len() <= limits::SHOWN_BYTES
            && header::is_token(&name)
            && trailer(request, &name, &mut value)
        {
            out.push(&name, &value);
        }
    }
}

/// One trailer.
pub(super) fn trailer(request: RequestId, name: &[u8], out: &mut Vec<u8>) -> bool {
    let name: Vec<u8> = name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte }).collect();
    [&b"upstream_trailer_"[..], b"sent_trailer_"].iter().any(|prefix| {
        variables::read(request, &[prefix, &name[..]].concat(), out) && !out.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_nginx() {
        assert_eq!(parse_millis(b"1700000010.250"), Some(1_700_000_010_250));
        assert_eq!((parse_millis(b"oddly"), parse_millis(b"1.x")), (None, None));
    }
}
