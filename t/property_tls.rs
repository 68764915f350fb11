//! Properties of a TLS connection. nginx is its own client: plain locations hand a request over to the TLS side of the
//! same server, with a client certificate or without one.

use super::ops::{Ops, expect, script};
use super::support::Probe;
use super::support::tls::{openssl, self_signed, with_files};
use std::path::Path;
use std::str;
use tempfile::TempDir;

/// SHA-256 of the certificate, in lower-case hexadecimal.
fn digest(dir: &Path, name: &str) -> String {
    let pem = format!("{name}.pem");
    let text = openssl(dir, &["x509", "-in", &pem, "-noout", "-fingerprint", "-sha256"]);
    let text = str::from_utf8(&text).expect("text");
    let (_, digest) = text.trim().split_once('=').expect("a fingerprint");
    digest.replace(':', "").to_lowercase()
}

const SERVER: &str = "
    listen unix:tls.sock ssl;
    ssl_certificate server.pem;
    ssl_certificate_key server.key;
    ssl_protocols TLSv1.3;
    ssl_client_certificate client.pem;
    ssl_verify_client optional_no_ca;
    proxy_ssl_protocols TLSv1.3;
    location /verified {
        proxy_ssl_certificate client.pem;
        proxy_ssl_certificate_key client.key;
        proxy_ssl_server_name on;
        proxy_ssl_name sni.test;
        proxy_pass https://unix:tls.sock:/;
    }
    location /stranger {
        proxy_ssl_certificate stranger.pem;
        proxy_ssl_certificate_key stranger.key;
        proxy_pass https://unix:tls.sock:/;
    }
    location /anonymous { proxy_pass https://unix:tls.sock:/; }";

/// Runs ops on a request that `location` hands over by TLS.
fn over_tls(location: &str, dir: &Path, ops: Ops<'_>) {
    let nginx = Probe::new(&script("request_headers", ops))
        .nginx(|nginx| with_files(nginx, dir).server(SERVER))
        .start();
    assert_eq!(nginx.get(location).status, 200);
    expect(&nginx, "request_headers", ops);
}

#[test]
fn tls_connections_tell_who_speaks() {
    let dir = TempDir::new().expect("a directory");
    let dir = dir.path();
    self_signed(dir, "server", "/CN=server.test");
    self_signed(dir, "client", "/O=Tests/CN=client");
    self_signed(dir, "stranger", "/CN=stranger");

    let of_all = [
        ("get_property request.scheme", "0 https"),
        ("get_property connection.tls_version", "0 TLSv1.3"),
        // nginx does not show its own certificate.
        ("get_property connection.subject_local_certificate", "1"),
        // A socket without addresses and ports.
        ("get_property source.address", "0 unix:"),
        ("get_property source.port", "1"),
        ("get_property destination.address", "0 unix:tls.sock"),
        ("get_property destination.port", "1"),
    ];
    let sha256 = format!("0 {}", digest(dir, "client"));
    let verified = [
        ("get_property_bool connection.mtls", "0 true"),
        ("get_property connection.requested_server_name", "0 sni.test"),
        ("get_property connection.subject_peer_certificate", "0 CN=client,O=Tests"),
        ("get_property connection.sha256_peer_certificate_digest", &sha256),
    ];
    let sha256 = format!("0 {}", digest(dir, "stranger"));
    let stranger = [
        ("get_property_bool connection.mtls", "0 false"),
        ("get_property connection.requested_server_name", "1"),
        ("get_property connection.subject_peer_certificate", "0 CN=stranger"),
        ("get_property connection.sha256_peer_certificate_digest", &sha256),
    ];
    let anonymous = [
        ("get_property_bool connection.mtls", "0 false"),
        ("get_property connection.requested_server_name", "1"),
        ("get_property connection.subject_peer_certificate", "1"),
        ("get_property connection.sha256_peer_certificate_digest", "1"),
    ];
    over_tls("/verified", dir, &[&of_all[..], &verified].concat());
    over_tls("/stranger", dir, &[&of_all[..], &stranger].concat());
    over_tls("/anonymous", dir, &[&of_all[..], &anonymous].concat());
}
