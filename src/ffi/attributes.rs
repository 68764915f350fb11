//! Attributes of requests as nginx variables.

use super::types;
use super::variables;
use crate::abi::Attribute;
use crate::codec::header;
use crate::limits;
use crate::ports::RequestId;
use crate::snapshot::HeaderMap;

/// The variables that an attribute is read from, the first of them that has a value; none for those that are read in another
/// way.
pub fn names(attribute: Attribute<'_>) -> &'static [&'static str] {
    match attribute {
        Attribute::RequestMethod => &["request_method"],
        Attribute::RequestScheme => &["scheme"],
        Attribute::RequestQuery => &["args"],
        Attribute::RequestProtocol => &["server_protocol"],
        Attribute::RequestId => &["http_x_request_id", "request_id"],
        Attribute::RequestDuration => &["request_time"],
        Attribute::RequestBodySize => &["content_length"],
        Attribute::RequestSize => &["request_length"],
        Attribute::RequestContentEncoding => &["http_content_encoding"],
        Attribute::ResponseContentType => &["content_type"],
        Attribute::ResponseContentLength => &["sent_http_content_length"],
        Attribute::ResponseContentEncoding => &["sent_http_content_encoding"],
        Attribute::ResponseBodySize => &["body_bytes_sent"],
        Attribute::ResponseSize => &["bytes_sent"],
        Attribute::UpstreamAnswered => &["upstream_status"],
        Attribute::UpstreamAddress | Attribute::UpstreamPort => &["upstream_addr"],
        Attribute::SourceAddress => &["remote_addr"],
        Attribute::SourcePort => &["remote_port"],
        Attribute::DestinationAddress => &["server_addr"],
        Attribute::DestinationPort => &["server_port"],
        Attribute::ConnectionId => &["connection"],
        Attribute::TlsServerName => &["ssl_server_name"],
        Attribute::TlsVersion => &["ssl_protocol"],
        Attribute::PeerVerified => &["ssl_client_verify"],
        Attribute::PeerSubject => &["ssl_client_s_dn"],
        Attribute::PeerCertificate => &["ssl_client_raw_cert"],
        Attribute::Node => &["node", "hostname"],
        Attribute::ClusterName => &["cluster_name"],
        Attribute::RouteName => &["route_name"],
        Attribute::RequestAuthority
        | Attribute::RequestPath
        | Attribute::RequestStart
        | Attribute::ResponseHeader(_) => &[],
    }
}

/// Puts an attribute that variables tell into `out`; false when there is none.
pub fn read(request: RequestId, attribute: Attribute<'_>, out: &mut Vec<u8>) -> bool {
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
    if !names(attribute).iter().any(|name| variables::read(request, name.as_bytes(), out)) {
        return false;
    }
    match attribute {
        Attribute::RequestProtocol => trim_protocol(out),
        Attribute::UpstreamAddress => return keep_part(out, last_upstream),
        Attribute::UpstreamPort => return keep_part(out, |all| port_of(last_upstream(all)?)),
        Attribute::UpstreamAnswered => return !out.is_empty(),
        Attribute::PeerVerified => return out == b"SUCCESS",
        _ => {}
    }
    true
}

/// `HTTP/2` for `HTTP/2.0`, as in the examples of the Proxy-Wasm specification; `HTTP/1.0` stays.
fn trim_protocol(protocol: &mut Vec<u8>) {
    if let Some(short) = protocol.strip_suffix(b".0")
        && !short.ends_with(b"/1")
    {
        protocol.truncate(short.len());
    }
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

/// `$upstream_addr` lists every server that was tried, over commas and (for internal redirects) colons.
fn last_upstream(all: &[u8]) -> Option<&[u8]> {
    all.rsplit(|b| b", ".contains(b)).find(|part| !part.is_empty() && *part != b":")
}

fn port_of(address: &[u8]) -> Option<&[u8]> {
    if address.starts_with(b"unix:") {
        return None;
    }
    address.rsplitn(2, |b| *b == b':').next().filter(|port| port.len() < address.len())
}

fn keep_part(value: &mut Vec<u8>, part: impl FnOnce(&[u8]) -> Option<&[u8]>) -> bool {
    let kept = part(value).map(<[u8]>::to_vec);
    kept.map(|kept| *value = kept).is_some()
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
pub fn trailers(request: RequestId, out: &mut HeaderMap) {
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
pub fn trailer(request: RequestId, name: &[u8], out: &mut Vec<u8>) -> bool {
    let name: Vec<u8> = name.iter().map(|&byte| if byte == b'-' { b'_' } else { byte }).collect();
    [&b"upstream_trailer_"[..], b"sent_trailer_"].iter().any(|prefix| {
        variables::read(request, &[prefix, &name[..]].concat(), out) && !out.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_of_variables() {
        let protocol = |value: &str| {
            let mut value = value.as_bytes().to_vec();
            trim_protocol(&mut value);
            String::from_utf8(value).expect("text")
        };
        assert_eq!(
            ["HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/3.0"].map(protocol),
            ["HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"]
        );
        for (list, address, port) in [
            ("10.0.0.1:80, 10.0.0.2:8080", Some("10.0.0.2:8080"), Some("8080")),
            ("[::1]:80 : 10.0.0.3:81", Some("10.0.0.3:81"), Some("81")),
            ("unix:/tmp/x", Some("unix:/tmp/x"), None),
            ("name", Some("name"), None),
            ("", None, None),
        ] {
            let last = last_upstream(list.as_bytes());
            assert_eq!(last, address.map(str::as_bytes), "{list:?}");
            assert_eq!(last.and_then(port_of), port.map(str::as_bytes), "{list:?}");
        }
        assert_eq!(parse_millis(b"1700000010.250"), Some(1_700_000_010_250));
        assert_eq!((parse_millis(b"oddly"), parse_millis(b"1.x")), (None, None));
    }
}
