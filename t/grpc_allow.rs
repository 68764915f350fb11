//! What filters may call by gRPC: `calls` of load, and the addresses that names are resolved to.

use super::calls_allow::resolving;
use super::grpc::Server;
use super::support::{Nginx, Probe};

const PERMITTED: &str = "get_buffer_bytes 5 0 max -> 0 echo hi";

/// A filter that tells what came of its call.
fn probe(upstream: &str, rules: &str) -> Probe {
    Probe::new(&script(upstream))
        .options(&format!("calls = {{ {rules} }}"))
        .nginx(|nginx| nginx.http("lua_socket_log_errors off;"))
}

fn script(upstream: &str) -> String {
    format!(
        "request_headers: grpc_call {upstream} t.Peer echo '' hi 20000
         request_headers: pause
         grpc_receive: get_buffer_bytes 5 0 max
         grpc_close: get_status
         grpc_receive,grpc_close: set_effective_context caller
         grpc_receive,grpc_close: continue_stream 0"
    )
}

#[test]
fn names_are_judged_by_the_address_that_they_were_resolved_to() {
    let server = Server::start_tcp();
    let upstream = format!("rebound.test:{}", server.port);
    let cause = "refused (rebound.test is 127.0.0.1, which the filter may not call)";
    for (rules, may) in [
        ("", true),
        ("allow = { '127.0.0.0/8' }", true),
        ("allow = { '*.test' }", true),
        ("allow = { '*.test' }, deny = { '127.0.0.0/8' }", false),
        ("deny = { '127.0.0.0/8' }", false),
        ("allow = { '10.0.0.0/8' }", false),
    ] {
        let run = resolving(probe(&upstream, rules), [127, 0, 0, 1]).run();
        assert_eq!(run.response.status, 200);
        if may {
            assert_eq!(run.of("grpc_receive")[0], PERMITTED, "{rules}");
            continue;
        }
        run.nginx.expect_log(&format!("gRPC call to {upstream} failed: UNAVAILABLE ({cause})"));
        assert_eq!(run.of("grpc_close")[0], format!("get_status -> 0 14 {cause}"), "{rules}");
    }
}

#[test]
fn names_and_addresses_that_are_not_allowed_are_refused_at_once() {
    for (upstream, shown, rules) in [
        ("127.0.0.1:1", "127.0.0.1:1", "deny = { '127.0.0.0/8' }"),
        ("grpcs://other.test:1", "other.test:1", "allow = { 'auth.test' }"),
        ("unix:/run/a.sock", "unix:/run/a.sock", ""),
        // GrpcService{envoy_grpc{cluster_name: "a.test:1"}}
        ("'\\n\\x0a\\n\\x08a.test:1'", "a.test:1", "allow = {}"),
    ] {
        let call = format!("request_headers: grpc_call {upstream} s m '' '' 1000");
        let nginx = Probe::new(&call).options(&format!("calls = {{ {rules} }}")).start();
        nginx.expect_log(&format!("proxy_grpc_call: the filter may not call \"{shown}\""));
        assert_eq!(nginx.get("/").status, 200);
        nginx.stop();
        let lines = nginx.guest_log("probe");
        // SDKs know no other status for an upstream that is none.
        assert!(lines[0].ends_with(" -> 2"), "{lines:?}");
    }
}

/// A connection that one filter may use is of no use to another one that may not.
#[test]
fn connections_are_shared_by_filters_of_the_same_rules_only() {
    let server = Server::start_tcp();
    let upstream = format!("localhost:{}", server.port);
    let text = script(&upstream);
    let nginx = Nginx::new()
        .guest("probe")
        .http("lua_socket_log_errors off;")
        .http(&format!(
            r#"init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                local function chain(name, calls)
                    local plugin = assert(wasm.load(name, "probe.wasm", {{ root_id = "probe", calls = calls }}))
                    return wasm.new_chain({{ assert(wasm.on_configure(plugin, [==[{text}]==])) }})
                end
                may = chain("may", {{ allow = {{ "127.0.0.0/8" }} }})
                may_not = chain("may_not", {{ deny = {{ "127.0.0.0/8" }} }})
            }}"#
        ))
        .server(
            r#"location /may { access_by_lua_block { may:access() } content_by_lua_block { ngx.print("ok") } }
               location /may_not { access_by_lua_block { may_not:access() } content_by_lua_block { ngx.print("ok") } }"#,
        )
        .start();
    nginx.expect_log("gRPC call to localhost");
    for path in ["/may", "/may_not", "/may"] {
        nginx.get(path);
    }
    nginx.stop();
    let told = |name: &str, callback: &str| {
        let lines = nginx.guest_log(name);
        lines.iter().filter(|line| line.starts_with(callback)).count()
    };
    assert_eq!((told("may", "grpc_receive get_buffer"), told("may", "grpc_close")), (2, 0));
    assert_eq!(told("may_not", "grpc_receive"), 0);
    assert!(told("may_not", "grpc_close get_status -> 0 14 refused") == 1);
}
