//! The table of properties: where each comes from and how its value is encoded.

/// How a value reaches the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Raw bytes.
    String,
    /// 8 bytes, little endian, signed.
    Int,
    /// 8 bytes, little endian, unsigned.
    Uint,
    /// One byte.
    Bool,
    /// Nanoseconds since the Unix epoch, int64 little endian.
    Timestamp,
    /// Nanoseconds, int64 little endian.
    Duration,
    /// A serialized header map.
    Map,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Path and query of the request.
    Path,
    /// The path without the query.
    UrlPath,
    /// A pseudo header or header of the request.
    RequestHeader(&'static str),
    /// A header of the response.
    ResponseHeader(&'static str),
    /// All headers of the request, or one by its name as a third segment.
    RequestHeaders,
    /// All headers of the response, or one by its name as a third segment.
    ResponseHeaders,
    /// The trailers of the response that nginx shows; empty before the end of its body.
    ResponseTrailers,
    /// `grpc-status` of the response, a header or a trailer.
    GrpcStatus,
    /// The first nginx variable of the list that has a value.
    Variable(&'static [&'static str]),
    /// A variable that counts bytes; 0 when it is missing.
    Size(&'static str),
    /// `$server_protocol`, in the spelling of the specification's examples (`HTTP/2`, not `HTTP/2.0`).
    Protocol,
    /// When the request began.
    StartTime,
    /// How long ago that was.
    Duration,
    /// The status of the response.
    ResponseCode,
    /// Why the response is what it is: a local response's own words, `via_upstream` or `direct_response`.
    CodeDetails,
    /// Two variables joined as `address:port`.
    Address(&'static str, &'static str),
    /// The address or the port of the last upstream that was tried.
    Upstream { port: bool },
    /// Whether the client's certificate was verified.
    Mtls,
    /// SHA-256 of the client's certificate, in hexadecimal.
    PeerDigest,
    /// The plugin's name.
    PluginName,
    /// The plugin's `root_id`.
    RootId,
    /// The plugin's `vm_id`.
    VmId,
    /// A number that never changes.
    Constant(i64),
    /// nginx has nothing of the kind: always missing.
    Missing,
}

/// A property of the host.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// Its path, segments joined by `.`.
    pub path: &'static str,
    /// How its value is encoded.
    pub value: ValueType,
    /// Where its value comes from.
    pub source: Source,
}

const fn p(path: &'static str, value: ValueType, source: Source) -> Property {
    Property { path, value, source }
}

use Source as S;
use ValueType as V;

/// Every property that the host itself knows.
pub static PROPERTIES: &[Property] = &[
    p("request.path", V::String, S::Path),
    p("request.url_path", V::String, S::UrlPath),
    p("request.host", V::String, S::RequestHeader(":authority")),
    p("request.scheme", V::String, S::RequestHeader(":scheme")),
    p("request.method", V::String, S::RequestHeader(":method")),
    p("request.headers", V::Map, S::RequestHeaders),
    p("request.referer", V::String, S::RequestHeader("referer")),
    p("request.useragent", V::String, S::RequestHeader("user-agent")),
    p("request.id", V::String, S::Variable(&["http_x_request_id", "request_id"])),
    p("request.protocol", V::String, S::Protocol),
    p("request.query", V::String, S::Variable(&["args"])),
    p("request.time", V::Timestamp, S::StartTime),
    p("request.duration", V::Duration, S::Duration),
    p("request.size", V::Int, S::Size("content_length")),
    p("request.total_size", V::Int, S::Size("request_length")),
    p("response.code", V::Int, S::ResponseCode),
    p("response.code_details", V::String, S::CodeDetails),
    p("response.flags", V::Int, S::Constant(0)),
    p("response.grpc_status", V::Int, S::GrpcStatus),
    p("response.headers", V::Map, S::ResponseHeaders),
    p("response.trailers", V::Map, S::ResponseTrailers),
    p("response.size", V::Int, S::Size("body_bytes_sent")),
    p("response.total_size", V::Int, S::Size("bytes_sent")),
    p("source.address", V::String, S::Address("remote_addr", "remote_port")),
    p("source.port", V::Int, S::Variable(&["remote_port"])),
    p("destination.address", V::String, S::Address("server_addr", "server_port")),
    p("destination.port", V::Int, S::Variable(&["server_port"])),
    p("connection.id", V::Uint, S::Variable(&["connection"])),
    p("connection.mtls", V::Bool, S::Mtls),
    p("connection.requested_server_name", V::String, S::Variable(&["ssl_server_name"])),
    p("connection.tls_version", V::String, S::Variable(&["ssl_protocol"])),
    p("connection.subject_local_certificate", V::String, S::Missing),
    p("connection.subject_peer_certificate", V::String, S::Variable(&["ssl_client_s_dn"])),
    p("connection.sha256_peer_certificate_digest", V::String, S::PeerDigest),
    p("connection.termination_details", V::String, S::Missing),
    p("upstream.address", V::String, S::Upstream { port: false }),
    p("upstream.port", V::Int, S::Upstream { port: true }),
    p("upstream.tls_version", V::String, S::Missing),
    p("upstream.local_address", V::String, S::Missing),
    p("upstream.transport_failure_reason", V::String, S::Missing),
    p("plugin_name", V::String, S::PluginName),
    p("plugin_root_id", V::String, S::RootId),
    p("plugin_vm_id", V::String, S::VmId),
    p("node", V::String, S::Variable(&["node", "hostname"])),
    p("cluster_name", V::String, S::Variable(&["cluster_name"])),
    p("route_name", V::String, S::Variable(&["route_name"])),
    p("listener_direction", V::Int, S::Constant(1)),
    p("xds.node", V::String, S::Variable(&["node", "hostname"])),
    p("xds.cluster_name", V::String, S::Variable(&["cluster_name"])),
    p("xds.route_name", V::String, S::Variable(&["route_name"])),
    p("xds.listener_direction", V::Int, S::Constant(1)),
];
