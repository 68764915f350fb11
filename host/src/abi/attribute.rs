//! What only the host can tell of a request.

/// An attribute of a request, its response or its connection. Values are text unless said otherwise; numbers are decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attribute<'a> {
    /// The method.
    RequestMethod,
    /// The scheme, or what a filter wrote in its place.
    RequestScheme,
    /// The authority: the value of the `Host` header, or `:authority`.
    RequestAuthority,
    /// Path and query as they are now: what the client sent or what a filter wrote in its place.
    RequestPath,
    /// The query without `?`.
    RequestQuery,
    /// The protocol and its version: `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`, `HTTP/3`.
    RequestProtocol,
    /// An id that tells requests apart.
    RequestId,
    /// When the request began, in nanoseconds since the Unix epoch.
    RequestStart,
    /// How long ago that was, in nanoseconds.
    RequestDuration,
    /// Bytes of the body that the request announces.
    RequestBodySize,
    /// Bytes of the whole request.
    RequestSize,
    /// The header `content-encoding` of the request.
    RequestContentEncoding,
    /// The header `content-type` of the response, as it is sent.
    ResponseContentType,
    /// The header `content-length` of the response, as it is sent.
    ResponseContentLength,
    /// The header `content-encoding` of the response, as it is sent.
    ResponseContentEncoding,
    /// Another header of the response, as it is sent.
    ResponseHeader(&'a [u8]),
    /// Bytes of the response's body that were sent.
    ResponseBodySize,
    /// Bytes of the whole response that were sent.
    ResponseSize,
    /// There when an upstream answered; the value does not count.
    UpstreamAnswered,
    /// The address of the last upstream that was tried, with its port, or `unix:PATH`.
    UpstreamAddress,
    /// Its port.
    UpstreamPort,
    /// The address of the client.
    SourceAddress,
    /// The port of the client.
    SourcePort,
    /// The address at which the request arrived.
    DestinationAddress,
    /// The port at which the request arrived.
    DestinationPort,
    /// A number that tells connections apart.
    ConnectionId,
    /// The server name that the client asked for in the TLS handshake.
    TlsServerName,
    /// The version of TLS.
    TlsVersion,
    /// There when the client's certificate was verified; the value does not count.
    PeerVerified,
    /// The subject of the client's certificate.
    PeerSubject,
    /// The client's certificate as PEM.
    PeerCertificate,
    /// The name of this server.
    Node,
    /// The cluster that serves the request.
    ClusterName,
    /// The route of the request.
    RouteName,
}
