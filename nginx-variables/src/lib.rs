//! Which variables of nginx tell the attributes of a request, and what their values mean: for the library, which reads
//! nginx's, and for the command `proxy-wasm`, which has a server without sockets in nginx's place.

use proxy_wasm_host::abi::Attribute;

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
        Attribute::ResponseContentType => &["sent_http_content_type"],
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

/// Makes the value of an attribute's variable the attribute's; false when there is none.
pub fn read(attribute: Attribute<'_>, value: &mut Vec<u8>) -> bool {
    match attribute {
        Attribute::RequestProtocol => shorten_protocol(value),
        Attribute::UpstreamAddress => return keep_part(value, last_upstream),
        Attribute::UpstreamPort => return keep_part(value, |all| port_of(last_upstream(all)?)),
        Attribute::UpstreamAnswered => return !value.is_empty(),
        Attribute::PeerVerified => return value == b"SUCCESS",
        _ => {}
    }
    true
}

/// nginx itself has no names of this length.
const LONGEST: usize = 255;

/// The variable that a property's path, whose segments are joined by NUL, names: `ngx.NAME`, or NAME alone.
pub fn named_by(path: &[u8]) -> Option<&[u8]> {
    let name = path.strip_prefix(b"ngx\0").unwrap_or(path);
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    (!name.is_empty() && name.len() <= LONGEST && name.iter().all(is_name)).then_some(name)
}

/// `HTTP/2` for `HTTP/2.0`, as in the examples of the Proxy-Wasm specification; `HTTP/1.0` stays.
fn shorten_protocol(protocol: &mut Vec<u8>) {
    if let Some(short) = protocol.strip_suffix(b".0")
        && !short.ends_with(b"/1")
    {
        protocol.truncate(short.len());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(attribute: Attribute<'_>, value: &str) -> Option<String> {
        let mut value = value.as_bytes().to_vec();
        read(attribute, &mut value).then(|| String::from_utf8(value).expect("text"))
    }

    #[test]
    fn odd_values_of_variables() {
        assert_eq!(
            ["HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/3.0"].map(|value| text(
                Attribute::RequestProtocol,
                value
            )
            .expect("a value")),
            ["HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"]
        );
        for (list, address, port) in [
            ("10.0.0.1:80, 10.0.0.2:8080", Some("10.0.0.2:8080"), Some("8080")),
            ("[::1]:80 : 10.0.0.3:81", Some("10.0.0.3:81"), Some("81")),
            ("unix:/tmp/x", Some("unix:/tmp/x"), None),
            ("name", Some("name"), None),
            ("", None, None),
        ] {
            assert_eq!(text(Attribute::UpstreamAddress, list).as_deref(), address, "{list:?}");
            assert_eq!(text(Attribute::UpstreamPort, list).as_deref(), port, "{list:?}");
        }
    }

    #[test]
    fn which_paths_name_a_variable() {
        assert_eq!(named_by(b"host"), Some(&b"host"[..]));
        assert_eq!(named_by(b"ngx\0http_x_a"), Some(&b"http_x_a"[..]));
        for path in [&b""[..], b"ngx\0", b"ngx\0a\0b", b"request\0path", b"a-b"] {
            assert_eq!(named_by(path), None, "{path:?}");
        }
    }
}
