//! The table of properties: where each comes from and how its value is encoded.

use super::Attribute;

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
    /// The trailers of the response that the host knows; empty before the end of its body.
    ResponseTrailers,
    /// `grpc-status` of the response, a header or a trailer.
    GrpcStatus,
    /// An attribute.
    Attribute(Attribute<'static>),
    /// An attribute that counts bytes; 0 when it is missing.
    Size(Attribute<'static>),
    /// The status of the response.
    ResponseCode,
    /// Why the response is what it is: a local response's own words, `via_upstream` or `direct_response`.
    CodeDetails,
    /// Two attributes joined as `address:port`.
    Address(Attribute<'static>, Attribute<'static>),
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
    /// Bytes of memory that the VM has.
    Memory,
    /// A number that never changes.
    Constant(i64),
    /// Hosts have nothing of the kind: always missing.
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

use Attribute as A;
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
    p("request.id", V::String, S::Attribute(A::RequestId)),
    p("request.protocol", V::String, S::Attribute(A::RequestProtocol)),
    p("request.query", V::String, S::Attribute(A::RequestQuery)),
    p("request.time", V::Timestamp, S::Attribute(A::RequestStart)),
    p("request.duration", V::Duration, S::Attribute(A::RequestDuration)),
    p("request.size", V::Int, S::Size(A::RequestBodySize)),
    p("request.total_size", V::Int, S::Size(A::RequestSize)),
    p("response.code", V::Int, S::ResponseCode),
    p("response.code_details", V::String, S::CodeDetails),
    p("response.flags", V::Int, S::Constant(0)),
    p("response.grpc_status", V::Int, S::GrpcStatus),
    p("response.headers", V::Map, S::ResponseHeaders),
    p("response.trailers", V::Map, S::ResponseTrailers),
    p("response.size", V::Int, S::Size(A::ResponseBodySize)),
    p("response.total_size", V::Int, S::Size(A::ResponseSize)),
    p("source.address", V::String, S::Address(A::SourceAddress, A::SourcePort)),
    p("source.port", V::Int, S::Attribute(A::SourcePort)),
    p("destination.address", V::String, S::Address(A::DestinationAddress, A::DestinationPort)),
    p("destination.port", V::Int, S::Attribute(A::DestinationPort)),
    p("connection.id", V::Uint, S::Attribute(A::ConnectionId)),
    p("connection.mtls", V::Bool, S::Mtls),
    p("connection.requested_server_name", V::String, S::Attribute(A::TlsServerName)),
    p("connection.tls_version", V::String, S::Attribute(A::TlsVersion)),
    p("connection.subject_local_certificate", V::String, S::Missing),
    p("connection.subject_peer_certificate", V::String, S::Attribute(A::PeerSubject)),
    p("connection.sha256_peer_certificate_digest", V::String, S::PeerDigest),
    p("connection.termination_details", V::String, S::Missing),
    p("upstream.address", V::String, S::Attribute(A::UpstreamAddress)),
    p("upstream.port", V::Int, S::Attribute(A::UpstreamPort)),
    p("upstream.tls_version", V::String, S::Missing),
    p("upstream.local_address", V::String, S::Missing),
    p("upstream.transport_failure_reason", V::String, S::Missing),
    p("plugin_name", V::String, S::PluginName),
    p("plugin_root_id", V::String, S::RootId),
    p("plugin_vm_id", V::String, S::VmId),
    p("plugin_vm_memory", V::Uint, S::Memory),
    p("x_request_id", V::String, S::Attribute(A::RequestId)),
    p("node", V::String, S::Attribute(A::Node)),
    p("cluster_name", V::String, S::Attribute(A::ClusterName)),
    p("route_name", V::String, S::Attribute(A::RouteName)),
    p("listener_direction", V::Int, S::Constant(1)),
    p("xds.node", V::String, S::Attribute(A::Node)),
    p("xds.cluster_name", V::String, S::Attribute(A::ClusterName)),
    p("xds.route_name", V::String, S::Attribute(A::RouteName)),
    p("xds.listener_direction", V::Int, S::Constant(1)),
];
