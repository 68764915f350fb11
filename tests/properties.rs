//! Properties: each of the table, the host's own, and what filters keep.

use crate::world::probe::request_headers;
use crate::world::{Probe, Request};
use resty_proxy_wasm::abi::{Attribute, Attribute as A, PROPERTIES, ValueType};

/// A request that has a value for every property that can have one.
fn rich() -> Request {
    let mut request = Request::default()
        .header("referer", "http://from/")
        .header("user-agent", "curl")
        .attribute(Attribute::RequestPath, "/a%20b?c=d");
    for (attribute, value) in [
        (A::RequestId, "id-1"),
        (A::RequestProtocol, "HTTP/1.1"),
        (A::RequestQuery, "c=d"),
        (A::RequestStart, "1700000009000000000"),
        (A::RequestDuration, "1250000000"),
        (A::RequestBodySize, "12"),
        (A::RequestSize, "345"),
        (A::ResponseBodySize, "6"),
        (A::ResponseSize, "78"),
        (A::SourceAddress, "192.0.2.1"),
        (A::SourcePort, "1234"),
        (A::DestinationAddress, "2001:db8::1"),
        (A::DestinationPort, "443"),
        (A::ConnectionId, "99"),
        (A::TlsServerName, "sni.example"),
        (A::TlsVersion, "TLSv1.3"),
        (A::PeerVerified, ""),
        (A::PeerSubject, "CN=client"),
        (A::PeerCertificate, "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n"),
        (A::UpstreamAddress, "10.0.0.2:8080"),
        (A::UpstreamPort, "8080"),
        (A::UpstreamAnswered, ""),
        (A::Node, "box"),
        (A::ClusterName, "backend"),
        (A::RouteName, "r1"),
        (A::ResponseHeader(b"grpc-status"), "7"),
    ] {
        request.set_attribute(attribute, value.as_bytes());
    }
    request.status = 201;
    request
}

/// What each property of the table is for [`rich`] (in `proxy_on_request_headers`).
const VALUES: &[(&str, &str)] = &[
    ("request.path", "0 /a%20b?c=d"),
    ("request.url_path", "0 /a%20b"),
    ("request.host", "0 example.com"),
    ("request.scheme", "0 http"),
    ("request.method", "0 GET"),
    (
        "request.headers",
        "0 :method=GET|:scheme=http|:authority=example.com|:path=/a%20b?c=d|referer=http://from/|user-agent=curl",
    ),
    ("request.referer", "0 http://from/"),
    ("request.useragent", "0 curl"),
    ("request.id", "0 id-1"),
    ("request.protocol", "0 HTTP/1.1"),
    ("request.query", "0 c=d"),
    ("request.time", "0 1700000009000000000"),
    ("request.duration", "0 1250000000"),
    ("request.size", "0 12"),
    ("request.total_size", "0 345"),
    ("response.code", "0 201"),
    ("response.code_details", "0 via_upstream"),
    ("response.flags", "0 0"),
    ("response.grpc_status", "0 7"),
    ("response.headers", "1"),
    ("response.trailers", "0 ''"),
    ("response.size", "0 6"),
    ("response.total_size", "0 78"),
    ("source.address", "0 192.0.2.1:1234"),
    ("source.port", "0 1234"),
    ("destination.address", "0 [2001:db8::1]:443"),
    ("destination.port", "0 443"),
    ("connection.id", "0 99"),
    ("connection.mtls", "0 true"),
    ("connection.requested_server_name", "0 sni.example"),
    ("connection.tls_version", "0 TLSv1.3"),
    ("connection.subject_local_certificate", "1"),
    ("connection.subject_peer_certificate", "0 CN=client"),
    (
        "connection.sha256_peer_certificate_digest",
        // SHA-256 of "abc", from FIPS 180-2.
        "0 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ),
    ("connection.termination_details", "1"),
    ("upstream.address", "0 10.0.0.2:8080"),
    ("upstream.port", "0 8080"),
    ("upstream.tls_version", "1"),
    ("upstream.local_address", "1"),
    ("upstream.transport_failure_reason", "1"),
    ("plugin_name", "0 probe"),
    ("plugin_root_id", "0 probe"),
    ("plugin_vm_id", "0 ''"),
    ("plugin_vm_memory", "0 131072"),
    ("x_request_id", "0 id-1"),
    ("node", "0 box"),
    ("cluster_name", "0 backend"),
    ("route_name", "0 r1"),
    ("listener_direction", "0 1"),
    ("xds.node", "0 box"),
    ("xds.cluster_name", "0 backend"),
    ("xds.route_name", "0 r1"),
    ("xds.listener_direction", "0 1"),
];

fn op(path: &str, value: ValueType) -> String {
    let op = match value {
        ValueType::String => "get_property",
        ValueType::Int | ValueType::Uint | ValueType::Timestamp | ValueType::Duration => {
            "get_property_int"
        }
        ValueType::Bool => "get_property_bool",
        ValueType::Map => "get_property_map",
    };
    format!("{op} {path}")
}

#[test]
fn every_property_of_the_table() {
    assert_eq!(
        VALUES.iter().map(|(path, _)| *path).collect::<Vec<_>>(),
        PROPERTIES.iter().map(|p| p.path).collect::<Vec<_>>()
    );
    let script: Vec<String> = PROPERTIES.iter().map(|p| op(p.path, p.value)).collect();
    let answers = request_headers(rich(), &script.join("\n"));
    for ((path, wanted), answer) in VALUES.iter().zip(&answers) {
        assert_eq!(answer, wanted, "{path}");
    }
}

#[test]
fn what_is_missing_is_not_found_and_sizes_are_0() {
    let found: Vec<&str> = PROPERTIES
        .iter()
        .map(|p| op(p.path, p.value))
        .zip(PROPERTIES)
        .filter(|(op, _)| request_headers(Request::default(), op) != ["1"])
        .map(|(_, p)| p.path)
        .collect();
    let always = "request.path request.url_path request.host request.scheme request.method request.headers \
        request.size request.total_size response.code_details response.flags response.trailers response.size \
        response.total_size connection.mtls plugin_name plugin_root_id plugin_vm_id plugin_vm_memory listener_direction \
        xds.listener_direction";
    assert_eq!(found, always.split(' ').collect::<Vec<_>>());
}

#[test]
fn outside_a_request_only_the_plugin_is_known() {
    let script: String =
        PROPERTIES.iter().map(|p| format!("configure: {}\n", op(p.path, p.value))).collect();
    let answers = Probe::new(&script).answers();
    let found: Vec<&str> = PROPERTIES
        .iter()
        .zip(answers)
        .filter(|(_, answer)| answer != "1")
        .map(|(p, _)| p.path)
        .collect();
    assert_eq!(
        found,
        [
            "response.flags",
            "plugin_name",
            "plugin_root_id",
            "plugin_vm_id",
            "plugin_vm_memory",
            "listener_direction",
            "xds.listener_direction"
        ]
    );
}

#[test]
fn single_headers_and_spellings() {
    let probe = Probe::new(
        "request_headers: get_property request.headers.User-Agent; request_headers: get_property request.headers.:path
         request_headers: get_property request.headers.host; request_headers: get_property request.headers.absent
         request_headers: get_property_raw plugin_name\\0; request_headers: get_property_raw request\\0path\\0
         request_headers: get_property_raw request\\0path\\0\\0; request_headers: get_property ''
         request_headers: get_property request; request_headers: get_property request.path.x
         log: get_property response.headers.Grpc-Status; log: get_property response.headers.absent
         response_headers: get_property response.headers.a; response_headers: get_property_map response.headers",
    );
    let stream = probe.open_for(rich());
    stream.request_headers();
    let path = "0 /a%20b?c=d";
    assert_eq!(
        probe.answers(),
        ["0 curl", path, "0 example.com", "1", "0 probe", path, "1", "1", "1", "1"]
    );
    stream.end().expect("an end");
    assert_eq!(probe.answers(), ["0 7", "1"], "without a snapshot from the sent headers");
    let stream = probe.open_for(rich());
    stream.response_headers(&[("a", "1"), ("a", "2")]);
    assert_eq!(probe.answers(), ["0 1", "0 :status=201|a=1|a=2"]);
}

#[test]
fn odd_values_of_attributes() {
    let get = |attribute, value: &str, op: &str| {
        request_headers(Request::default().attribute(attribute, value), op).remove(0)
    };
    let digest = "get_property connection.sha256_peer_certificate_digest";
    for (attribute, value, op, wanted) in [
        (A::SourceAddress, "unix:", "get_property source.address", "0 unix:"),
        (A::PeerCertificate, "", digest, "1"),
        (A::PeerCertificate, "!", digest, "1"),
        (A::DestinationPort, "no number", "get_property_int destination.port", "1"),
        (A::DestinationPort, "", "get_property_int destination.port", "1"),
        (A::RequestStart, "oddly", "get_property_int request.time", "1"),
    ] {
        assert_eq!(get(attribute, value, op), wanted, "{attribute:?} = {value:?}");
    }
}

#[test]
fn properties_of_the_host_are_read_and_set() {
    let request =
        Request::default().property("fixed", "1").writable("free", "2").writable("empty", "");
    let probe = Probe::new(
        "request_headers: get_property fixed; request_headers: get_property absent
         request_headers: get_property empty; request_headers: set_property free 3
         request_headers: get_property free; request_headers: set_property free ''
         request_headers: get_property free; request_headers: set_property fixed 4
         request_headers: get_property fixed",
    );
    let stream = probe.open_for(request);
    stream.request_headers();
    assert_eq!(probe.answers(), ["0 1", "1", "0 ''", "0", "0 3", "0", "0 ''", "10", "0 1"]);
    assert_eq!(
        stream.host.with(stream.request, |r| r.get_property("free").map(<[u8]>::to_vec)),
        Some(Vec::new())
    );
    assert_eq!(probe.warned(), ["proxy_on_request_headers: property \"fixed\" cannot be set"]);
}

#[test]
fn other_paths_are_kept_for_the_context() {
    let probe = Probe::new(
        "request_headers: set_property my.own one; request_headers: set_property solo two
         response_headers: get_property my.own; response_headers: get_property_raw my\\0own\\0
         response_headers: get_property solo; response_headers: set_property my.own ''
         log: get_property my.own; log: get_property request.path; request_headers: set_property request.path /kept
         configure: set_property root.only x; configure: get_property root.only; log: get_property root.only",
    );
    assert_eq!(probe.answers(), ["0", "0 x"]);
    let stream = probe.open();
    stream.request_headers();
    stream.response_headers(&[]);
    assert_eq!(probe.answers(), ["0", "0", "0", "0 one", "0 one", "0 two", "0"]);
    stream.end().expect("an end");
    assert_eq!(probe.answers(), ["0 ''", "0 /kept", "1"], "a kept one shadows the host's");
    let other = probe.open();
    other.response_headers(&[]);
    assert_eq!(probe.answers()[..1], ["1"], "not seen by other streams");
}
