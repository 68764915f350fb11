//! gRPC calls over TLS, which the library speaks.

use super::grpc::Server;
use super::support::tls::{self_signed, signed_by};
use super::support::{Nginx, Outcome, Probe};
use std::path::Path;
use tempfile::TempDir;

/// A folder with `ca.pem`, and a certificate of it for `host`.
pub(crate) fn certificates(host: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    self_signed(dir.path(), "ca", "/CN=tests");
    signed_by(dir.path(), "ca", "server", host);
    dir
}

fn server(dir: &Path) -> Server {
    let file = |name: &str| dir.join(name).display().to_string();
    Server::start_with(&dir.join("grpc.sock"), &[&file("server.key"), &file("server.pem")])
}

/// A request whose filter calls the server in that folder.
pub(crate) fn calling(
    dir: &Path,
    setup: &str,
    fails: bool,
    change: impl FnOnce(Nginx) -> Nginx,
) -> Outcome {
    let nginx = Probe::new(&format!(
        "request_headers: grpc_call grpcs://unix:{}/grpc.sock t.Peer echo '' hello 5000
         request_headers: pause
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_close: get_status
         grpc_receive,grpc_close: set_effective_context caller
         grpc_receive,grpc_close: continue_stream 0",
        dir.display()
    ))
    .init(setup)
    .nginx(change)
    .start();
    if fails {
        nginx.expect_log("gRPC call to");
    }
    let response = nginx.get("/");
    nginx.stop();
    Outcome { nginx, response }
}

pub(crate) fn trusting(dir: &Path) -> String {
    format!(r#"assert(wasm.setup({{ trusted_certificate = "{}/ca.pem" }}))"#, dir.display())
}

#[test]
fn a_server_that_is_trusted() {
    let dir = certificates("localhost");
    let server = server(dir.path());
    let run = calling(dir.path(), &trusting(dir.path()), false, |nginx| nginx);
    assert_eq!(run.of("grpc_receive")[0], "get_buffer_bytes 5 0 max -> 0 echo hello");
    drop(server);
}

#[test]
fn servers_that_are_not_trusted() {
    let right = certificates("localhost");
    let wrong = certificates("other");
    for (dir, setup, cause) in [
        // The system does not know it.
        (&right, String::new(), "UnknownIssuer"),
        (&wrong, trusting(wrong.path()), "not valid for name"),
    ] {
        let server = server(dir.path());
        let run = calling(dir.path(), &setup, true, |nginx| nginx);
        let status = &run.of("grpc_close")[0];
        assert!(status.starts_with("get_status -> 0 14 tls ("), "{status}");
        assert!(status.contains(cause), "{status}");
        drop(server);
    }
}

#[test]
fn a_server_without_http_2() {
    let dir = certificates("localhost");
    let path = dir.path().display().to_string();
    let run = calling(dir.path(), &trusting(dir.path()), true, |nginx| {
        nginx.http(&format!(
            "server {{
                 listen unix:{path}/grpc.sock ssl;
                 ssl_certificate {path}/server.pem;
                 ssl_certificate_key {path}/server.key;
             }}"
        ))
    });
    let status = &run.of("grpc_close")[0];
    assert_eq!(status, "get_status -> 0 14 tls (received fatal alert: NoApplicationProtocol)");
}

#[test]
fn files_that_hold_no_certificates() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("empty.pem"), "nothing").expect("a file");
    let path = dir.path().display();
    for (file, cause) in [("empty.pem", "it holds no certificate"), ("none.pem", "No such file")] {
        // What is asserted in there is the test.
        let run = Probe::new("")
            .init(&format!(
                r#"local ok, err = wasm.setup({{ trusted_certificate = "{path}/{file}" }})
                   assert(ok == nil and err:find("failed to set trusted_certificate", 1, true), err)
                   assert(err:find("{cause}", 1, true), err)"#
            ))
            .run();
        assert_eq!(run.response.status, 200);
    }
}

/// A server that asks for a certificate, and one that a filter knows by a name of setup.
#[test]
fn a_server_that_asks_for_a_certificate() {
    let dir = certificates("localhost");
    signed_by(dir.path(), "ca", "client", "client.test");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let files = [file("server.key"), file("server.pem"), file("ca.pem")];
    let files = files.each_ref().map(String::as_str);
    let server = Server::start_with(&dir.path().join("grpc.sock"), &files);
    let run = |more: &str| {
        let init = format!(
            r#"assert(wasm.setup({{ upstreams = {{ auth = {{
                address = "grpcs://unix:{0}/grpc.sock", trusted_certificate = "{0}/ca.pem", {more}
            }} }} }}))"#,
            dir.path().display()
        );
        // Some SDKs name what Envoy calls a cluster by a message: field 1 of GrpcService is EnvoyGrpc, its field 1 the name.
        let nginx = Probe::new(
            "request_headers: grpc_call '\\n\\x06\\n\\x04auth' t.Peer echo '' hello 5000
             request_headers: pause
             grpc_receive: get_buffer_bytes 5 0 max
             grpc_close: get_status
             grpc_receive,grpc_close: set_effective_context caller
             grpc_receive,grpc_close: continue_stream 0",
        )
        .init(&init)
        .nginx(|nginx| nginx.http("lua_socket_log_errors off;"))
        .start();
        if more.is_empty() {
            nginx.expect_log("gRPC call to");
        }
        let response = nginx.get("/");
        nginx.stop();
        Outcome { nginx, response }
    };
    let own = format!(
        r#"certificate = "{}", certificate_key = "{}""#,
        file("client.pem"),
        file("client.key")
    );
    assert_eq!(run(&own).of("grpc_receive")[0], "get_buffer_bytes 5 0 max -> 0 echo hello");
    let refused = run("");
    assert!(
        refused.of("grpc_close")[0].starts_with("get_status -> 0 14 "),
        "{:?}",
        refused.lines()
    );
    drop(server);
}
