//! Response bodies that became shorter or longer than the Content-Length that was sent: what a client that keeps its
//! connection sees of this response and of the next one.

use super::ops::contexts;
use super::support::tls::{self_signed, with_files};
use super::support::{Connection, Curl, Nginx};

const WARNING: &str = "the size of a response body changed after its Content-Length was sent";
const SECOND: &str = "the second response";

/// What a filter makes of the six bytes `secret`, and what a client gets of that.
const SHORTER: [(&str, &str); 5] = [
    ("response_body@first: set_buffer_bytes 1 0 2 ''", "cret"),
    ("response_body: set_buffer_bytes 1 0 max ''", ""),
    ("response_body@more: pause; response_body@eos: set_buffer_bytes 1 0 max ok", "ok"),
    ("response_body@more: pause; response_body@eos: set_buffer_bytes 1 5 max ''", "secre"),
    // A local response that shrinks again is one with the length of the host's.
    (
        "request_headers: send_local_response 403 '' secret '' max; response_body@first: set_buffer_bytes 1 0 max no",
        "no",
    ),
];

const LONGER: [&str; 3] = [
    "response_body@first: set_buffer_bytes 1 0 0 more",
    "response_body@eos: set_buffer_bytes 1 max 0 'HTTP/1.1 200 OK'",
    "response_body@more: pause; response_body@eos: set_buffer_bytes 1 0 max 'no secrets at all'",
];

/// Where the body comes from: ngx_lua, an upstream, a file.
const SOURCES: [&str; 3] = ["lua", "up", "file"];

/// An nginx with `/KIND/SOURCE`, where KIND is `plain` for the documented calls and `chain`, and `/second` without a filter.
fn nginx(script: &str) -> Nginx {
    let mut server = String::from("keepalive_timeout 60s;\n");
    for kind in ["plain", "chain"] {
        let phases = match kind {
            "plain" => [
                "access_by_lua_block { call('on_http_request_headers', a) }",
                "header_filter_by_lua_block { call('on_http_response_headers', a) }",
                "body_filter_by_lua_block { call('on_http_response_body', a) }",
            ],
            _ => [
                "access_by_lua_block { chain:access() }",
                "header_filter_by_lua_block { chain:header_filter() }",
                "body_filter_by_lua_block { chain:body_filter() }",
            ],
        };
        for source in SOURCES {
            let content = match source {
                "lua" => {
                    "content_by_lua_block { ngx.header['Content-Length'] = 6 ngx.print('secret') }"
                }
                "up" => "proxy_pass http://unix:up.sock;",
                _ => "alias html/file;",
            };
            server +=
                &format!("location = /{kind}/{source} {{ {} {content} }}\n", phases.join("\n"));
        }
    }
    server += &format!("location = /second {{ return 200 '{SECOND}'; }}\n");
    Nginx::new()
        .guest("probe")
        .http2()
        .file("html/file", "secret")
        .http(&contexts("", &[("probe", "a", script)]))
        .http(
            "init_worker_by_lua_block { chain = require('resty.proxy-wasm').new_chain({ a }) }
             server {
                 listen unix:up.sock;
                 location / {
                     content_by_lua_block { ngx.header['Content-Length'] = 6 ngx.print('secret') }
                 }
             }",
        )
        .server(&server)
}

fn paths() -> impl Iterator<Item = String> {
    ["plain", "chain"]
        .into_iter()
        .flat_map(|kind| SOURCES.map(|source| format!("/{kind}/{source}")))
}

/// Both requests at once, so that the answer to the second would stand behind that to the first.
fn two(path: &str, head: &str) -> String {
    format!("GET {path} {head}\r\nGET /second {head}\r\n")
}

const HEADS: [&str; 3] =
    ["HTTP/1.1\r\nHost: t\r\n", "HTTP/1.0\r\nConnection: keep-alive\r\n", "HTTP/1.0\r\n"];

fn body_of(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    text.split_once("\r\n\r\n").expect("a head").1.into()
}

#[test]
fn a_shorter_body_ends_its_connection() {
    for (script, left) in SHORTER {
        let nginx = nginx(script).start();
        nginx.expect_log(WARNING);
        for path in paths() {
            for head in HEADS {
                let case = format!("{script}: {path} {head}");
                let answer = nginx.raw(format!("GET {path} {head}\r\n"));
                let text = String::from_utf8_lossy(&answer).to_lowercase();
                assert!(text.contains("\r\ncontent-length: 6\r\n"), "{case}: {text}");
                assert_eq!(body_of(&answer), left, "{case}");
                let answer = nginx.raw(two(&path, head));
                assert_eq!(body_of(&answer), left, "{case}: two requests at once");
            }
            // The stream of HTTP/2 has an error; its connection has none.
            let body = Curl::http2(&nginx).get_cut(&path);
            assert!(body.len() < 6, "{script}: {path}: {}", body.escape_ascii());
            assert_eq!(Curl::http2(&nginx).get("/second").text(), SECOND);
        }
    }
}

#[test]
fn a_longer_body_is_cut_at_its_length() {
    for script in LONGER {
        let nginx = nginx(script).start();
        nginx.expect_log(WARNING);
        for path in paths() {
            let mut connection = nginx.connect();
            for _ in 0..2 {
                connection.write(two(&path, HEADS[0]).as_bytes());
                assert_eq!(connection.response().body.len(), 6, "{script}: {path}");
                assert_eq!(connection.response().text(), SECOND, "{script}: {path}");
            }
            let mut old = nginx.connect();
            old.write(two(&path, HEADS[1]).as_bytes());
            assert_eq!(old.response().body.len(), 6, "{script}: {path}");
            assert_eq!(old.response().text(), SECOND, "{script}: {path}");
            assert_eq!(body_of(&nginx.raw(format!("GET {path} {}\r\n", HEADS[2]))).len(), 6);
            assert_eq!(Curl::http2(&nginx).get(&path).body.len(), 6, "{script}: {path}");
        }
    }
}

/// Sends a request and the next one on its connection, which must be kept.
fn keeps(connection: &mut Connection, path: &str, body: &str) {
    connection.write(two(path, HEADS[0]).as_bytes());
    assert_eq!(connection.response().text(), body, "{path}");
    assert_eq!(connection.response().text(), SECOND, "{path}");
}

#[test]
fn a_body_of_the_same_size_keeps_its_connection() {
    for (script, body) in [
        ("response_body@more: pause; response_body@eos: set_buffer_bytes 1 0 max SECRET", "SECRET"),
        ("response_body@first: set_buffer_bytes 1 0 2 SE", "SEcret"),
        ("response_body@more: pause", "secret"),
        // Without the length any size fits.
        (
            "response_headers: remove_header_map_value 2 content-length; response_body@first: set_buffer_bytes 1 0 2 ''",
            "cret",
        ),
    ] {
        let nginx = nginx(script).start();
        let mut connection = nginx.connect();
        for path in paths() {
            keeps(&mut connection, &path, body);
        }
    }
}

#[test]
fn filters_that_make_up_for_one_another_keep_the_connection() {
    let shorter = "response_body@first: set_buffer_bytes 1 0 2 ''";
    let longer = "response_body@first: set_buffer_bytes 1 0 0 SE";
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", longer), ("probe", "b", shorter)]))
        .http(
            "init_worker_by_lua_block { chain = require('resty.proxy-wasm').new_chain({ a, b }) }",
        )
        .server(&format!(
            "location /chain {{
                 body_filter_by_lua_block {{ chain:body_filter() }}
                 content_by_lua_block {{ ngx.header['Content-Length'] = 6 ngx.print('secret') }}
             }}
             location /plain {{
                 body_filter_by_lua_block {{
                     call('on_http_response_body', b)
                     call('on_http_response_body', a)
                 }}
                 content_by_lua_block {{ ngx.header['Content-Length'] = 6 ngx.print('secret') }}
             }}
             location = /second {{ return 200 '{SECOND}'; }}"
        ))
        .start();
    nginx.expect_log(WARNING);
    let mut connection = nginx.connect();
    keeps(&mut connection, "/chain", "SEcret");
    keeps(&mut connection, "/plain", "SEcret");
}

#[test]
fn a_shorter_body_over_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    self_signed(dir.path(), "server", "/CN=localhost");
    let nginx = with_files(nginx(SHORTER[0].0), dir.path())
        .server(
            "listen unix:tls.sock ssl; ssl_certificate server.pem; ssl_certificate_key server.key;",
        )
        .start();
    nginx.expect_log(WARNING);
    let socket = nginx.path("tls.sock");
    for path in ["/plain/lua", "/chain/up"] {
        let curl = Curl::tls(&nginx).arguments(&["--http1.1", "--unix-socket", &socket]);
        assert_eq!(curl.send_cut(&format!("https://localhost{path}")), b"cret");
    }
}

/// A subrequest's body is a part of its parent's response, or none of it.
#[test]
fn bodies_of_subrequests() {
    for (script, body) in [(SHORTER[0].0, "cret"), (LONGER[0], "morese")] {
        let nginx = nginx(script)
            .server(
                "location = /capture {
                     content_by_lua_block {
                         local inner = ngx.location.capture(ngx.var.arg_inner)
                         ngx.print(inner.body)
                     }
                 }
                 location = /page { ssi on; ssi_types *; return 200 '<!--# include virtual=\"/chain/lua\" -->'; }",
            )
            .start();
        nginx.expect_log(WARNING);
        let mut connection = nginx.connect();
        for path in paths() {
            keeps(&mut connection, &format!("/capture?inner={path}"), body);
        }
        keeps(&mut connection, "/page", body);
    }
}

/// A filter without a callback for the headers of responses cannot say that it rewrites bodies.
#[test]
fn a_filter_with_nothing_but_a_body_callback_takes_the_length_away_in_a_chain() {
    const REDACT: &str = r#"(module
        (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "redacted, all of it")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
            (if (local.get 1)
                (then (drop (call $set (i32.const 1) (i32.const 0) (local.get 1) (i32.const 0) (i32.const LENGTH)))))
            (i32.const 0)))"#;
    for (length, body) in [("19", "redacted, all of it"), ("3", "red")] {
        let nginx = Nginx::new()
            .file("redact.wasm", wat::parse_str(REDACT.replace("LENGTH", length)).expect("wat"))
            .http(
                "init_by_lua_block {
                    local wasm = require('resty.proxy-wasm')
                    ctx = assert(wasm.on_configure(assert(wasm.load('redact', 'redact.wasm'))))
                    chain = wasm.new_chain({ ctx })
                }",
            )
            .server(&format!(
                "location = /chain {{
                     header_filter_by_lua_block {{ chain:header_filter() }}
                     body_filter_by_lua_block {{ chain:body_filter() }}
                     content_by_lua_block {{ ngx.header['Content-Length'] = 6 ngx.print('secret') }}
                 }}
                 location = /second {{ return 200 '{SECOND}'; }}"
            ))
            .start();
        let mut connection = nginx.connect();
        for _ in 0..2 {
            keeps(&mut connection, "/chain", body);
        }
        assert_eq!(nginx.get("/chain").header("content-length"), None);
    }
}
