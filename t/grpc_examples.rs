//! The filters of `examples/` that ask services of Envoy's API, with such services: `grpc/envoy_services.py`.

use super::grpc::Server;
use super::grpc_call::RESET;
use super::grpc_tls::certificates;
use super::support::{Nginx, Running, root};
use std::path::Path;
use tempfile::TempDir;

/// The services, and nginx with a filter in front of a server that says which headers came. nginx is to be dropped first.
struct Guarded {
    nginx: Running,
    server: Server,
    /// With the socket and the certificates.
    dir: TempDir,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Speaks {
    Plain,
    Tls,
    /// The server asks for a certificate.
    MutualTls,
}

const ALL: [Speaks; 3] = [Speaks::Plain, Speaks::Tls, Speaks::MutualTls];

fn server(dir: &Path, speaks: Speaks) -> Server {
    let file = |name: &str| dir.join(name).display().to_string();
    let files = [file("server.key"), file("server.pem"), file("ca.pem")];
    let files = files.each_ref().map(String::as_str);
    let count = match speaks {
        Speaks::Plain => 0,
        Speaks::Tls => 2,
        Speaks::MutualTls => 3,
    };
    Server::start_script("envoy_services.py", &file("grpc.sock"), &files[..count])
}

fn guarded(example: &str, configuration: &str, speaks: Speaks) -> Guarded {
    let dir = certificates("localhost");
    let server = server(dir.path(), speaks);
    let path = dir.path().display();
    let socket = format!("unix:{path}/grpc.sock");
    let upstream = match speaks {
        Speaks::Plain => format!(r#""grpc://{socket}""#),
        Speaks::Tls => {
            format!(r#"{{ address = "grpcs://{socket}", trusted_certificate = "{path}/ca.pem" }}"#)
        }
        Speaks::MutualTls => format!(
            r#"{{ address = "grpcs://{socket}", trusted_certificate = "{path}/ca.pem",
                 certificate = "{path}/server.pem", certificate_key = "{path}/server.key" }}"#
        ),
    };
    let module = root().join("examples").join(example).join("build/release.wasm");
    let nginx = Nginx::new()
        .file("release.wasm", std::fs::read(module).expect("the module"))
        .http(&format!(
            r#"
            lua_socket_log_errors off;
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                assert(wasm.setup({{ upstreams = {{ service = {upstream} }} }}))
                local plugin = assert(wasm.load("it", "release.wasm"))
                chain = wasm.new_chain({{ assert(wasm.on_configure(plugin, "service {configuration}")) }})
            }}
            "#
        ))
        .server(
            r#"
            location / {
                access_by_lua_block { chain:access() }
                header_filter_by_lua_block { chain:header_filter() }
                body_filter_by_lua_block { chain:body_filter() }
                content_by_lua_block {
                    local headers = ngx.req.get_headers()
                    for _, name in ipairs({ "authorization", "x-told", "x-counted" }) do
                        ngx.say(name, ": ", headers[name])
                    end
                }
            }
            "#,
        )
        .start();
    Guarded { nginx, server, dir }
}

#[test]
fn ext_auth_passes_requests_that_its_service_allows() {
    for speaks in ALL {
        let guarded = guarded("ext-auth", "20000", speaks);
        let nginx = &guarded.nginx;
        let ask = |authorization: &str| {
            let request = nginx.request("GET", "/page?a=b").header("authorization", authorization);
            request.header("x-told", "nothing").send()
        };
        for _ in 0..2 {
            let passed = ask("good");
            assert_eq!(passed.header("x-checked"), Some("yes"), "{speaks:?}");
            let told = "GET /page?a=b localhost http HTTP/1.1 -1 127.0.0.1 True";
            assert_eq!(
                passed.text(),
                format!("authorization: nil\nx-told: {told}\nx-counted: nil\n"),
                "{speaks:?}"
            );
            let refused = ask("bad");
            assert_eq!((refused.status, refused.text().as_str()), (401, "who are you?\n"));
            assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        }
        nginx.expect_log("the authorization service failed: 13 caf");
        assert_eq!(ask("broken").status, 503);
    }
}

#[test]
fn ext_auth_without_its_service_passes_no_request() {
    let Guarded { nginx, server, dir } = guarded("ext-auth", "20000", Speaks::Plain);
    // As soon as the worker knows of its end, or before.
    for text in [RESET, "send() failed (32: Broken pipe)", "connect() to unix:"] {
        nginx.may_log(text);
    }
    nginx.expect_log("gRPC call to service failed: UNAVAILABLE");
    nginx.expect_log("the authorization service failed: 14");
    let ask = || nginx.request("GET", "/").header("authorization", "good").send().status;
    assert_eq!(ask(), 200);
    server.kill();
    assert_eq!(ask(), 503);
    // One that comes back is asked again.
    let socket = dir.path().join("grpc.sock");
    let _ = std::fs::remove_file(&socket);
    let _server = self::server(dir.path(), Speaks::Plain);
    assert_eq!(ask(), 200);
}

#[test]
fn grpc_rate_limit_stops_what_its_service_counts_as_too_many() {
    for speaks in ALL {
        let guarded = guarded("grpc-rate-limit", "web remote_address plan=x-plan of:tests", speaks);
        let ask = |plan: &str| guarded.nginx.request("GET", "/").header("x-plan", plan).send();
        for plan in ["small", "large"] {
            for left in ["1", "0"] {
                let passed = ask(plan);
                assert_eq!(passed.header("x-ratelimit-remaining"), Some(left), "{speaks:?}");
                let counted = format!(
                    "('web', ('remote_address', '127.0.0.1'), ('plan', '{plan}'), ('of', 'tests'))"
                );
                assert_eq!(
                    passed.text(),
                    format!("authorization: nil\nx-told: nil\nx-counted: {counted}\n")
                );
            }
            let refused = ask(plan);
            assert_eq!((refused.status, refused.text().as_str()), (429, "too many requests\n"));
            assert_eq!(refused.header("retry-after"), Some("30"));
            assert_eq!(refused.header("x-envoy-ratelimited"), Some("true"));
        }
        // What has no such header is not counted.
        assert_eq!(guarded.nginx.get("/").header("x-ratelimit-remaining"), None);
    }
}
