//! Headers of one connection that filters write: clients and servers of HTTP/2 take a message with one of them for malformed.

use super::ops::contexts;
use super::support::{Curl, Nginx, Running};

const HEADERS: [(&str, &str); 6] = [
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("upgrade", "h2c"),
    ("te", "gzip"),
    ("connection", "x-a"),
    ("transfer-encoding", "gzip"),
];

/// What HTTP/1 has of them.
const OF_HTTP1: [&str; 2] = ["upgrade", "te"];

fn ways(map: u32, callback: &str) -> [String; 4] {
    let each = |op: &dyn Fn(&str, &str) -> String| -> String {
        HEADERS.iter().map(|(name, value)| op(name, value) + "\n").collect()
    };
    let pairs: Vec<String> = HEADERS
        .iter()
        .map(|(name, value)| format!("{name}={}", value.replace('=', r"\=")))
        .collect();
    [
        each(&|name, value| format!("{callback}: add_header_map_value {map} {name} {value}")),
        each(&|name, value| format!("{callback}: replace_header_map_value {map} {name} {value}")),
        each(&|name, value| {
            let add = format!("{callback}: add_header_map_value {map} {name} {value}");
            format!("{add}\n{add}")
        }),
        format!("{callback}: set_header_map_pairs {map} x-b=1|{}", pairs.join("|")),
    ]
}

/// `/plain` and `/chain` with that filter, over HTTP/1 and HTTP/2.
fn nginx(script: &str) -> Running {
    Nginx::new()
        .guest("probe")
        .http2()
        .http(&contexts("", &[("probe", "a", script)]))
        .http("init_worker_by_lua_block { chain = require('resty.proxy-wasm').new_chain({ a }) }")
        .server(
            r#"
            location /plain {
                access_by_lua_block { call("on_http_request_headers", a) }
                header_filter_by_lua_block { call("on_http_response_headers", a) }
                body_filter_by_lua_block { call("on_http_response_body", a) }
                content_by_lua_block { ngx.print("hello") }
            }
            location /chain {
                access_by_lua_block { chain:access() }
                header_filter_by_lua_block { chain:header_filter() }
                body_filter_by_lua_block { chain:body_filter() }
                content_by_lua_block { ngx.print("hello") }
            }
            "#,
        )
        .start()
}

fn check(script: &str, status: u16) {
    let nginx = nginx(script);
    for path in ["/plain", "/chain"] {
        let new = Curl::http2(&nginx).get(path);
        assert_eq!((new.status, new.text().as_str()), (status, "hello"), "{script}: {path}");
        let old = nginx.request("GET", path).header("Connection", "close").send();
        assert_eq!((old.status, old.text().as_str()), (status, "hello"), "{script}: {path}");
        for (name, value) in HEADERS {
            assert_eq!(new.header(name), None, "{script}: {path} {name}");
            let sent = old.header(name) == Some(value);
            assert_eq!(sent, OF_HTTP1.contains(&name), "{script}: {path} {name}");
        }
    }
}

#[test]
fn responses() {
    for script in ways(2, "response_headers") {
        check(&script, 200);
    }
}

#[test]
fn local_responses() {
    let pairs: Vec<String> = HEADERS
        .iter()
        .map(|(name, value)| format!("{name}={}", value.replace('=', r"\=")))
        .collect();
    for callback in ["request_headers", "response_headers"] {
        let answer =
            format!("{callback}: send_local_response 403 '' hello '{}' max", pairs.join("|"));
        check(&answer, 403);
    }
}

#[test]
fn a_filter_reads_what_it_wrote() {
    let nginx = nginx(
        "response_headers: add_header_map_value 2 keep-alive 1; response_headers: add_header_map_value 2 upgrade 2
         response_headers: get_header_map_value 2 keep-alive; response_headers: get_header_map_value 2 upgrade",
    );
    assert_eq!(Curl::http2(&nginx).get("/plain").status, 200);
    let lines = nginx.guest_log("probe");
    let read: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split_once("get_")?.1.split_once("-> "))
        .map(|(_, answer)| answer)
        .collect();
    assert_eq!(read, ["0 1", "0 2"]);
}

#[test]
fn requests_to_http2_upstreams() {
    for script in ways(0, "request_headers") {
        let nginx = Nginx::new()
            .guest("probe")
            .http2()
            .http(&contexts("", &[("probe", "a", &script)]))
            .server(
                r#"
                location / {
                    access_by_lua_block { call("on_http_request_headers", a) }
                    grpc_pass grpc://unix:h2.sock;
                    rewrite ^ /seen break;
                }
                location /seen {
                    content_by_lua_block {
                        for name in pairs(ngx.req.get_headers(0)) do ngx.say("[", name, "]") end
                    }
                }
                "#,
            )
            .start();
        let answer = nginx.request("GET", "/").header("Proxy-Connection", "close").send();
        assert_eq!(answer.status, 200, "{script}");
        let text = answer.text();
        for (name, _) in HEADERS {
            // nginx says `TE: trailers` itself.
            assert!(!text.contains(&format!("[{name}]")), "{script}: {name}: {text}");
        }
    }
}
