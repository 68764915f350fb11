//! Redis calls over TLS, which nginx speaks, or the library where `setup` has certificates for it.

use super::redis::{answers, last, prepare, script};
use super::support::redis::Redis;
use super::support::tls::{self_signed, signed_by};
use super::support::{Nginx, Probe};

fn certificates(host: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    self_signed(dir.path(), "ca", "/CN=tests");
    signed_by(dir.path(), "ca", "server", host);
    dir
}

const ARGUMENTS: [&str; 10] = [
    "--tls-port",
    "PORT",
    "--tls-cert-file",
    "server.pem",
    "--tls-key-file",
    "server.key",
    "--tls-ca-cert-file",
    "ca.pem",
    "--requirepass",
    "secret",
];

fn with_tls(host: &str) -> Redis {
    let mut arguments = ARGUMENTS.to_vec();
    arguments.extend(["--tls-auth-clients", "no"]);
    Redis::start_in(certificates(host), &arguments)
}

fn over_tls(redis: &Redis, change: impl FnOnce(Nginx) -> Nginx) -> Probe {
    let upstream = format!("rediss://localhost:{}?db=1 '' secret 5000", redis.port);
    let ca = redis.dir.path().join("ca.pem");
    prepare(Probe::new(&script(&upstream, &[&["PING"]]))).nginx(|nginx| {
        change(nginx.http(&format!("lua_ssl_trusted_certificate {};", ca.display())))
    })
}

#[test]
fn tls() {
    let redis = with_tls("localhost");
    let run = over_tls(&redis, |nginx| nginx).run();
    assert_eq!(answers(&run)[1], "get_buffer_bytes 9 0 max -> 0 +PONG\\x0d\\x0a");
}

#[test]
fn a_certificate_for_another_name_is_not_believed() {
    let redis = with_tls("example.com");
    let nginx = over_tls(&redis, |nginx| nginx).start();
    nginx.expect_log("Redis call to rediss://localhost");
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(last(&nginx, "get_status"), " -> 0 11 tls");
}

/// The library speaks TLS where `setup` says more of an upstream than its address, and shows the certificate that is asked
/// for.
fn by_library(host: &str, table: &str) -> (Redis, Probe) {
    let files = certificates(host);
    signed_by(files.path(), "ca", "client", "client.test");
    let mut arguments = ARGUMENTS.to_vec();
    arguments.extend(["--tls-auth-clients", "yes"]);
    let redis = Redis::start_in(files, &arguments);
    let path = |name: &str| redis.dir.path().join(name).display().to_string();
    let table = table
        .replace("@CA@", &path("ca.pem"))
        .replace("@CERTIFICATE@", &path("client.pem"))
        .replace("@KEY@", &path("client.key"));
    let setup = format!(
        r#"assert(wasm.setup({{ upstreams = {{
            cache = {{ address = "rediss://localhost:{}", {table} }},
        }} }}))"#,
        redis.port
    );
    let probe =
        prepare(Probe::new(&script("cache?db=1 '' secret 5000", &[&["PING"]]))).init(&setup);
    (redis, probe)
}

const OWN: &str = r#"certificate = "@CERTIFICATE@", certificate_key = "@KEY@""#;

#[test]
fn a_server_that_asks_for_a_certificate() {
    let table = format!(r#"trusted_certificate = "@CA@", {OWN}"#);
    let (_redis, probe) = by_library("localhost", &table);
    assert_eq!(answers(&probe.run())[1], "get_buffer_bytes 9 0 max -> 0 +PONG\\x0d\\x0a");
}

#[test]
fn the_library_believes_no_certificate_for_another_name_unless_it_is_told_to() {
    let table = format!(r#"trusted_certificate = "@CA@", {OWN}"#);
    let (_redis, probe) = by_library("example.com", &table);
    let nginx = probe.start();
    nginx.expect_log("Redis call to cache failed: tls (");
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(last(&nginx, "get_status"), " -> 0 11 tls");
    let (_redis, probe) = by_library("example.com", &format!("verify = false, {OWN}"));
    assert_eq!(answers(&probe.run())[1], "get_buffer_bytes 9 0 max -> 0 +PONG\\x0d\\x0a");
}

#[test]
fn a_server_that_gets_no_certificate_ends_the_connection() {
    let (_redis, probe) = by_library("localhost", r#"trusted_certificate = "@CA@""#);
    let nginx = probe.start();
    nginx.expect_log("Redis call to cache failed: ");
    assert_eq!(nginx.get("/").status, 200);
    assert!(last(&nginx, "get_status").starts_with(" -> 0 11 "));
}
