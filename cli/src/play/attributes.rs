//! Attributes of requests by the variables of nginx that tell them, as in `src/ffi/attributes.rs`.

use super::request::Request;
use crate::core::abi::Attribute;

/// The variables that an attribute is read from, the first of them that has a value; none for those that are read in another
/// way.
pub fn names(attribute: Attribute<'_>) -> &'static [&'static str] {
    use Attribute as A;
    match attribute {
        A::RequestMethod => &["request_method"],
        A::RequestScheme => &["scheme"],
        A::RequestQuery => &["args"],
        A::RequestProtocol => &["server_protocol"],
        A::RequestId => &["http_x_request_id", "request_id"],
        A::RequestBodySize => &["content_length"],
        A::RequestSize => &["request_length"],
        A::RequestContentEncoding => &["http_content_encoding"],
        A::ResponseContentType => &["sent_http_content_type"],
        A::ResponseContentLength => &["sent_http_content_length"],
        A::ResponseContentEncoding => &["sent_http_content_encoding"],
        A::ResponseBodySize => &["body_bytes_sent"],
        A::ResponseSize => &["bytes_sent"],
        A::UpstreamAnswered => &["upstream_status"],
        A::UpstreamAddress | A::UpstreamPort => &["upstream_addr"],
        A::SourceAddress => &["remote_addr"],
        A::SourcePort => &["remote_port"],
        A::DestinationAddress => &["server_addr"],
        A::DestinationPort => &["server_port"],
        A::ConnectionId => &["connection"],
        A::TlsServerName => &["ssl_server_name"],
        A::TlsVersion => &["ssl_protocol"],
        A::PeerVerified => &["ssl_client_verify"],
        A::PeerSubject => &["ssl_client_s_dn"],
        A::PeerCertificate => &["ssl_client_raw_cert"],
        A::Node => &["node", "hostname"],
        A::ClusterName => &["cluster_name"],
        A::RouteName => &["route_name"],
        A::RequestAuthority
        | A::RequestPath
        | A::RequestStart
        | A::RequestDuration
        | A::ResponseHeader(_) => &[],
    }
}

/// An attribute. `now` is the time by the monotonic clock.
pub fn read(request: &Request, attribute: Attribute<'_>, now: u64) -> Option<Vec<u8>> {
    let variable = |name: &str| request.variable(name.as_bytes(), now);
    match attribute {
        Attribute::RequestAuthority => return request.authority.clone(),
        Attribute::RequestPath => return Some(request.path_now().to_vec()),
        Attribute::RequestStart => return Some(request.began.0.to_string().into_bytes()),
        Attribute::RequestDuration => {
            return Some(now.saturating_sub(request.began.1).to_string().into_bytes());
        }
        Attribute::ResponseHeader(name) => {
            return request.response_headers.get(name).map(<[u8]>::to_vec);
        }
        Attribute::RequestScheme if request.written_scheme.is_some() => {
            return request.written_scheme.clone();
        }
        _ => {}
    }
    let value = names(attribute).iter().find_map(|name| variable(name))?;
    match attribute {
        Attribute::RequestProtocol => {
            let short = value.strip_suffix(b".0").filter(|short| !short.ends_with(b"/1"));
            Some(short.unwrap_or(&value).to_vec())
        }
        Attribute::UpstreamPort if !value.starts_with(b"unix:") => {
            let at = value.iter().rposition(|byte| *byte == b':')?;
            Some(value[at + 1..].to_vec())
        }
        Attribute::UpstreamPort => None,
        Attribute::PeerVerified => (value == b"SUCCESS").then_some(value),
        _ => Some(value),
    }
}

/// The variable that a property's path, whose segments are joined by NUL, names: `ngx.NAME`, or NAME alone.
pub fn variable_of(path: &[u8]) -> Option<&[u8]> {
    let name = path.strip_prefix(b"ngx\0").unwrap_or(path);
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    (!name.is_empty() && name.len() <= 255 && name.iter().all(is_name)).then_some(name)
}
