//! Chains and bodies of every kind: compressed, partial, without one, of subrequests, over TLS; and what becomes of the
//! length of a response.

use super::chain::{NONE, chain};
use super::support::tls::{self_signed, with_files};
use super::support::{Curl, Nginx, Response, Running, listen_http2};
use std::fs;

/// A server whose `/edit/…` has a filter that appends to bodies, and says so, and `/same/…` one that only looks.
fn nginx(server: &str, http: &str) -> Nginx {
    let location = |name: &str| {
        format!(
            "location /{name}/ {{
                access_by_lua_block {{ chains.{name}:access() }}
                header_filter_by_lua_block {{ chains.{name}:header_filter() }}
                body_filter_by_lua_block {{ chains.{name}:body_filter() }}
                {server}
            }}\n"
        )
    };
    Nginx::new()
        .guest("probe")
        .http(
            r#"
            init_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                local function chain(options, script)
                    local plugin = assert(wasm.load("probe", "probe.wasm", options))
                    return wasm.new_chain({ assert(wasm.on_configure(plugin, script)) })
                end
                chains = {
                    same = chain({}, "request_body,response_body@eos: args"),
                    edit = chain({ body = true }, [[
                        request_body@eos: set_buffer_bytes 0 max 0 <<<
                        response_body@eos: set_buffer_bytes 1 max 0 <<<
                    ]]),
                }
            }"#,
        )
        .http(http)
        .server(&(location("same") + &location("edit")))
}

#[test]
fn compressed_responses() {
    let compressed = "gzip on; gzip_types *; gzip_min_length 1; gzip_http_version 1.0;";
    let nginx = nginx(
        &format!("{compressed} proxy_pass http://unix:upstream.sock;"),
        "server { listen unix:upstream.sock; root html; }",
    )
    .file("html/same/page", "hello ".repeat(1000))
    .file("html/edit/page", "hello ".repeat(1000))
    .start();
    for (path, end) in [("/same/page", ""), ("/edit/page", "<<<")] {
        let answer = Curl::new(&nginx).arguments(&["--compressed"]).get(path);
        assert_eq!(answer.header("content-encoding"), Some("gzip"), "{path}");
        assert_eq!(answer.text(), "hello ".repeat(1000) + end, "{path}");
        assert!(answer.received < 1000, "{path}");
        assert_eq!(nginx.get(path).text(), "hello ".repeat(1000) + end, "{path}");
    }
}

#[test]
fn responses_that_an_upstream_compressed_come_as_they_are() {
    let nginx = nginx(
        "proxy_pass http://unix:upstream.sock; proxy_set_header Accept-Encoding gzip;",
        "server { listen unix:upstream.sock; root html; gzip on; gzip_types *; gzip_min_length 1;
                  gzip_http_version 1.0; gzip_proxied any; }",
    )
    .file("html/same/page", "hello ".repeat(1000))
    .start();
    let answer = Curl::new(&nginx).arguments(&["--compressed"]).get("/same/page");
    assert_eq!(answer.text(), "hello ".repeat(1000));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
}

#[test]
fn answers_without_a_body() {
    let nginx = nginx(
        r#"content_by_lua_block {
            local status = tonumber(ngx.var.arg_status)
            if status then
                return ngx.exit(status)
            end
            ngx.header["Content-Length"] = 5
            ngx.print("hello")
        }"#,
        "",
    )
    .http2()
    .start();
    for (path, length) in [("/same/", Some("5")), ("/edit/", None)] {
        let head = nginx.request("HEAD", path).send();
        assert_eq!((head.status, head.text().as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-length"), length, "{path}");
        let head = Curl::http2(&nginx).arguments(&["-I"]).get(path);
        assert_eq!((head.status, head.header("content-length")), (200, length), "{path}");
        for status in [204, 304] {
            let bytes = nginx.raw(format!(
                "GET {path}?status={status} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
            ));
            assert!(bytes.ends_with(b"\r\n\r\n"), "{path} {status}: {}", bytes.escape_ascii());
            let answer = Curl::http2(&nginx).get(&format!("{path}?status={status}"));
            assert_eq!((answer.status, answer.body.len()), (status, 0), "{path}");
        }
    }
}

#[test]
fn ranges() {
    let nginx = nginx("root html;", "")
        .file("html/same/page", "0123456789")
        .file("html/edit/page", "0123456789")
        .start();
    let range = |path: &str| nginx.request("GET", path).header("Range", "bytes=2-4").send();
    let same = range("/same/page");
    assert_eq!((same.status, same.text().as_str()), (206, "234"));
    assert_eq!(same.header("content-range"), Some("bytes 2-4/10"));
    // Ranges of what a filter is about to make are not known.
    let edit = range("/edit/page");
    assert_eq!((edit.status, edit.text().as_str()), (200, "0123456789<<<"));
    assert_eq!(edit.header("content-range"), None);
}

#[test]
fn without_buffering() {
    let nginx = nginx(
        "proxy_buffering off;
         proxy_request_buffering off;
         proxy_http_version 1.1;
         client_max_body_size 0;
         proxy_pass http://unix:echo.sock;",
        "",
    )
    .echo()
    .start();
    nginx.expect_log("a client request body is buffered to a temporary file");
    let large = "x".repeat(3_000_000);
    for (path, end) in [("/same/", ""), ("/edit/", "<<<<<<")] {
        let response = nginx.request("POST", path).body(&large).send();
        let text = response.text();
        let (_, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(body == large.clone() + end, "{path}: {} bytes", body.len());
    }
}

#[test]
fn subrequests() {
    let content = r#"content_by_lua_block {
        ngx.req.read_body()
        ngx.print("got ", ngx.req.get_body_data())
    }"#;
    let nginx = nginx(content, "")
        .server(
            r#"
            location /outer {
                content_by_lua_block {
                    local inner = ngx.location.capture("/" .. ngx.var.arg_inner .. "/", {
                        method = ngx.HTTP_POST, body = "hello",
                    })
                    ngx.print(inner.status, " ", inner.body)
                }
            }"#,
        )
        .start();
    assert_eq!(nginx.get("/outer?inner=same").text(), "200 got hello");
    // nginx has no access phase for subrequests.
    assert_eq!(nginx.get("/outer?inner=edit").text(), "200 got hello<<<");
}

#[test]
fn http2_over_tls() {
    let dir = tempfile::tempdir().expect("a directory");
    self_signed(dir.path(), "server", "/CN=localhost");
    let nginx = with_files(nginx("proxy_pass http://unix:echo.sock;", "").echo(), dir.path())
        .server(&listen_http2("unix:tls.sock ssl"))
        .server("ssl_certificate server.pem; ssl_certificate_key server.key;")
        .start();
    for (path, end) in [("same", ""), ("edit", "<<<<<<")] {
        for framing in [&["-H", "X-A: 1"][..], &["-H", "Transfer-Encoding:"]] {
            let socket = nginx.path("tls.sock");
            let answer = Curl::tls(&nginx)
                .arguments(&["--unix-socket", &socket, "--data-binary", "hello"])
                .arguments(framing)
                .send(&format!("https://localhost/{path}/"));
            assert_eq!(answer.status, 200);
            let text = answer.text();
            assert!(text.ends_with(&format!("\r\n\r\nhello{end}")), "{path}: {text}");
        }
    }
}

/// What a client is told of a body of five bytes that came with its length.
fn told(nginx: &Running) -> Response {
    let response = nginx.get("/length");
    assert_eq!(response.status, 200);
    response
}

#[test]
fn a_filter_that_says_that_it_rewrites_bodies_takes_the_length_away() {
    let edit = "response_body@eos: set_buffer_bytes 1 max 0 <<<";
    for script in [
        format!("response_headers: pause; {edit}"),
        format!("response_headers: add_header_map_value 2 x-a 1; {edit}"),
        format!("response_headers: replace_header_map_value 2 content-length 1; {edit}"),
    ] {
        let nginx = chain(NONE, ["", &script, "response_body@eos: args"]);
        if script.contains("pause") {
            nginx.expect_log("Pause on response headers is not possible");
        }
        let response = told(&nginx);
        assert_eq!(response.text(), "hello<<<", "{script}");
        assert_eq!(response.header("content-length"), None, "{script}");
    }
    let nginx = chain(["", "body = true", ""], ["", edit, ""]);
    assert_eq!(told(&nginx).text(), "hello<<<");
    // A filter that says nothing keeps it.
    let nginx = chain(NONE, ["", "response_body: args", ""]);
    assert_eq!(told(&nginx).header("content-length"), Some("5"));
}

#[test]
fn a_filter_that_cannot_rewrite_bodies_keeps_the_length() {
    let nginx = Nginx::new()
        .file("add.wasm", include_bytes!("../examples/add-header/build/release.wasm"))
        .http(
            r#"init_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("add_header", "add.wasm"))
                chain = wasm.new_chain({ assert(wasm.on_configure(plugin, "hello")) })
            }"#,
        )
        .server(
            r#"location / {
                header_filter_by_lua_block { chain:header_filter() }
                body_filter_by_lua_block { chain:body_filter() }
                return 200 hello;
            }"#,
        )
        .start();
    let response = nginx.get("/");
    assert_eq!((response.header("hello"), response.text().as_str()), (Some("hello"), "hello"));
    assert_eq!(response.header("content-length"), Some("5"));
}

/// A file of three megabytes, which comes in pieces of one.
const PIECES: usize = 3 * 1024 * 1024;

#[test]
fn a_body_in_a_file_comes_in_pieces_and_can_be_held() {
    let body = "x".repeat(PIECES);
    for (script, start, end) in [
        ("request_body: args", "", ""),
        ("request_body@more: pause; request_body: args", "", ""),
        ("request_body@more: pause; request_body@eos: set_buffer_bytes 0 max 0 <<<", "", "<<<"),
        ("request_body@first: pause; request_body@eos: set_buffer_bytes 0 0 0 ---", "---", ""),
        ("request_headers: pause; request_body@eos: set_buffer_bytes 0 0 0 ---", "---", ""),
    ] {
        let nginx = chain(NONE, ["", script, "request_body@eos: args"]);
        nginx.expect_log("a client request body is buffered to a temporary file");
        let response = nginx.request("POST", "/").body(&body).send();
        let text = response.text();
        let (_, came) = text.split_once("\r\n\r\n").expect("a head");
        // What stands in front of the last piece comes after two of them.
        let (first, last) = body.split_at(if start.is_empty() { 0 } else { 2 * PIECES / 3 });
        let expected = [first, start, last, end].concat();
        assert!(came == expected, "{script}: {} bytes", came.len());
    }
}

#[test]
fn a_filter_that_fails_open_in_the_middle_of_a_request_body() {
    let script = "request_body@first: set_buffer_bytes 0 0 0 '>>>'; request_body@again: trap";
    let nginx = chain(["", "fail = 'open'", ""], ["", script, "request_body@eos: args"]);
    nginx.expect_log("a client request body is buffered to a temporary file");
    nginx.expect_log("failed to run proxy_on_http_request_body: ");
    let body = "x".repeat(PIECES);
    let response = nginx.request("POST", "/").body(&body).send();
    let text = response.text();
    let (_, came) = text.split_once("\r\n\r\n").expect("a head");
    assert!(came == ">>>".to_string() + &body, "{} bytes", came.len());
}

#[test]
fn what_a_filter_holds_of_a_response_is_sent_when_it_fails_open() {
    let script = "response_body@more: pause; response_body@eos: trap";
    let nginx = chain(["", "fail = 'open'", ""], ["", script, "response_body@eos: args"]);
    nginx.expect_log("failed to run proxy_on_http_response_body: ");
    assert_eq!(nginx.get("/pieces").text(), "abcdef");
}

#[test]
fn what_was_held_in_a_vm_that_another_request_ended_is_no_whole_response() {
    let nginx = chain(
        ["", "fail = 'open'", ""],
        ["", "response_body@more: pause; request_body: trap", "response_body@eos: args"],
    );
    nginx.expect_log("failed to run proxy_on_http_request_body: ");
    nginx.expect_log("failed to run proxy_on_http_response_body: ");
    nginx.expect_log("the response is cut off: a filter failed");
    let mut slow = nginx.connect();
    slow.write(b"GET /pieces?wait=1 HTTP/1.1\r\nHost: t\r\n\r\n");
    nginx.wait_for_log("response_body pause");
    assert_eq!(nginx.request("POST", "/").body("hello").send().status, 200);
    fs::write(nginx.path("go"), "").expect("a file");
    let answer = slow.read_to_end();
    assert!(!answer.ends_with(b"0\r\n\r\n"), "{}", answer.escape_ascii());
}

#[test]
fn where_nginx_does_not_read_bodies_without_a_length_over_http2() {
    let lua = r#"
        local read_body = ngx.req.read_body
        ngx.req.read_body = function()
            if ngx.req.http_version() == 2 and not ngx.var.http_content_length then
                error("http2 requests are not supported without content-length header")
            end
            return read_body()
        end
        local wasm = require("resty.proxy-wasm")
        local plugin = assert(wasm.load("probe", "probe.wasm"))
        chain = wasm.new_chain({ assert(wasm.on_configure(plugin, "request_body: args")) })"#;
    let nginx = Nginx::new()
        .guest("probe")
        .echo()
        .http2()
        .http(&format!("init_by_lua_block {{ {lua} }}"))
        .server("location / { access_by_lua_block { chain:access() } proxy_pass http://unix:echo.sock; }")
        .file("input", "hello")
        .start();
    assert_eq!(Curl::http2(&nginx).get("/").status, 200);
    assert_eq!(Curl::http2(&nginx).upload("input").get("/").status, 200);
    nginx.expect_log("this nginx reads no body over HTTP/2 without a content-length");
    // Whether there is a body is not known.
    assert_eq!(Curl::http2(&nginx).arguments(&["-X", "POST"]).get("/").status, 503);
}
