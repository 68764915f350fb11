//! Statuses and methods that a filter writes: what follows a response on its connection is the next response.

use super::ops::contexts;
use super::support::{Curl, Nginx, Response, Running, Upstream, version};

const STATUSES: [u16; 14] = [0, 99, 100, 101, 103, 199, 200, 204, 205, 304, 403, 600, 999, 1000];

/// A filter and what is asked of it.
#[derive(Debug)]
enum Filter {
    /// Answers in a callback.
    Local(&'static str, u16),
    /// Writes the status of a response of that status.
    Status {
        of_upstream: u16,
        written: u16,
    },
    Method(&'static str),
}

impl Filter {
    fn script(&self) -> String {
        match self {
            Filter::Local(callback, status) => {
                format!("{callback}: send_local_response {status} '' 'no entry' '' max")
            }
            Filter::Status { written, .. } => {
                format!("response_headers: replace_header_map_value 2 :status {written}")
            }
            Filter::Method(method) => {
                format!("request_headers: replace_header_map_value 0 :method {method}")
            }
        }
    }

    fn of_upstream(&self) -> u16 {
        match self {
            Filter::Status { of_upstream, .. } => *of_upstream,
            _ => 200,
        }
    }
}

fn filters() -> Vec<Filter> {
    let mut filters = Vec::new();
    for status in STATUSES {
        for callback in ["create", "request_headers", "response_headers"] {
            filters.push(Filter::Local(callback, status));
        }
        for of_upstream in [200, 204, 304, 404] {
            filters.push(Filter::Status { of_upstream, written: status });
        }
    }
    let methods = ["GET", "HEAD", "POST", "FOO", "M-SEARCH", "PROPFIND", "CONNECT", "get"];
    filters.extend(methods.map(Filter::Method));
    filters
}

/// `/N/…` goes through the filter of that number, `/second` through none.
fn server(filters: &[Filter]) -> Running {
    let scripts: String = filters.iter().map(|filter| filter.script() + "\n").collect();
    Nginx::new()
        .guest("probe")
        .http2()
        .file("scripts", scripts)
        .log_level("error")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("probe", "probe.wasm"))
                filters = {}
                for line in io.lines("scripts") do
                    filters[#filters + 1] = assert(wasm.on_configure(plugin, line))
                end
                function filter()
                    return filters[tonumber(ngx.var.uri:match("%d+"))]
                end
            }
            server {
                listen unix:up.sock;
                location / {
                    content_by_lua_block {
                        ngx.status = tonumber(ngx.var.arg_up)
                        ngx.header["X-Method"] = ngx.var.request_method
                        if ngx.status ~= 204 then
                            ngx.header["Content-Length"] = 5
                        end
                        ngx.print("hello")
                    }
                }
            }
            "#,
        )
        .server(
            r#"
            keepalive_requests 100000;
            location / {
                rewrite_by_lua_block { assert(wasm.on_http_request_headers(filter())) }
                header_filter_by_lua_block { wasm.on_http_response_headers(filter()) }
                body_filter_by_lua_block { wasm.on_http_response_body(filter()) }
                proxy_http_version 1.1;
                proxy_pass http://unix:up.sock;
            }
            location = /second { return 200 "second"; }
            "#,
        )
        .start()
}

/// Sends a request and a second one behind it. Returns the first answer; the second must be its own.
fn first_of_two(nginx: &Running, version: &str, method: &str, path: &str) -> Response {
    let mut connection = nginx.connect();
    connection.write(
        format!(
            "{method} {path} {version}\r\nHost: t\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n\
             GET /second HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    );
    let first = connection.answer_to(method).expect("an answer");
    if let Some(second) = connection.answer_to("GET") {
        assert_eq!(second.text(), "second", "{method} {path} {version}: {first:?}");
    }
    let rest = connection.read_to_end();
    assert_eq!(rest, b"", "{method} {path} {version}: {first:?}");
    first
}

fn is_final(status: u16) -> bool {
    (200..=999).contains(&status)
}

/// Status and body that a filter makes of a GET.
fn expected(filter: &Filter) -> (u16, &'static str) {
    let has_body = |status: u16| !matches!(status, 204 | 304);
    match *filter {
        Filter::Local(_, status) if is_final(status) => {
            (status, if has_body(status) && status != 205 { "no entry" } else { "" })
        }
        Filter::Status { of_upstream, written } if is_final(written) => {
            let has_body = has_body(of_upstream) && has_body(written);
            (written, if has_body { "hello" } else { "" })
        }
        Filter::Status { of_upstream, .. } => {
            (of_upstream, if has_body(of_upstream) { "hello" } else { "" })
        }
        _ => (200, "hello"),
    }
}

#[test]
fn every_answer_is_that_of_its_request() {
    let filters = filters();
    let nginx = server(&filters);
    for (index, filter) in filters.iter().enumerate() {
        let path = format!("/{}/?up={}", index + 1, filter.of_upstream());
        let (status, body) = expected(filter);
        for version in ["HTTP/1.1", "HTTP/1.0"] {
            for method in ["GET", "HEAD", "POST"] {
                let answer = first_of_two(&nginx, version, method, &path);
                let what = format!("{method} {version} {filter:?}: {answer:?}");
                assert_eq!(answer.status, status, "{what}");
                let body = if method == "HEAD" { "" } else { body };
                assert_eq!(answer.body, body.as_bytes(), "{what}");
                if let Filter::Method(written) = filter {
                    let passed = match (*written, method) {
                        ("CONNECT" | "get", _) | ("HEAD", _) => method,
                        _ => written,
                    };
                    assert_eq!(answer.header("x-method"), Some(passed), "{what}");
                }
            }
        }
    }
}

#[test]
fn every_answer_is_whole_on_http2() {
    let filters = filters();
    let nginx = server(&filters);
    for (index, filter) in filters.iter().enumerate() {
        let path = format!("/{}/?up={}", index + 1, filter.of_upstream());
        let (status, body) = expected(filter);
        let answer = Curl::http2(&nginx).get(&path);
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{filter:?}");
        let answer = Curl::http2(&nginx).arguments(&["--head"]).get(&path);
        assert_eq!(answer.status, status, "HEAD {filter:?}");
    }
}

#[test]
fn a_changed_protocol_has_no_other_status() {
    const SWITCH: &[u8] =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nHTTP/1.1 200 no\r\n\r\n";
    let upstream = Upstream::start(|_, out| out.write_all(SWITCH));
    for (script, status) in [
        ("response_headers: replace_header_map_value 2 :status 200", 101),
        ("response_headers: send_local_response 403 '' 'no entry' '' max", 0),
    ] {
        let nginx = Nginx::new()
            .guest("probe")
            .http(&contexts("", &[("probe", "a", script)]))
            .server(&format!(
                "location / {{
                    header_filter_by_lua_block {{ call('on_http_response_headers', a) }}
                    proxy_http_version 1.1;
                    proxy_set_header Connection upgrade;
                    proxy_set_header Upgrade x;
                    proxy_pass {};
                }}",
                upstream.url()
            ))
            .start();
        let answer =
            nginx.raw("GET / HTTP/1.1\r\nHost: t\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        let text = String::from_utf8_lossy(&answer);
        if status == 101 {
            assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
            nginx.expect_log("the connection has changed its protocol");
        } else {
            assert_eq!(text, "", "nothing of an upgraded connection is a response");
            nginx.expect_log("the body of its local response was not sent");
        }
    }
}

/// What an upstream sends as a status that is not one of a final response ends with its headers, and stays what it is.
#[test]
fn a_response_that_is_none_stays_without_a_body() {
    for status in ["099", "100", "103", "199"] {
        // From 1.29 on nginx itself reads on when an upstream sends a status of 1xx.
        if version() >= (1, 29, 0) && status != "099" {
            continue;
        }
        let head = format!("HTTP/1.1 {status} X\r\nX-A: 1\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhi");
        let upstream = Upstream::start(move |_, out| out.write_all(head.as_bytes()));
        for (script, refused) in [
            ("response_headers: replace_header_map_value 2 :status 200", true),
            ("response_body@eos: set_buffer_bytes 1 0 max more", false),
        ] {
            let nginx = Nginx::new()
                .guest("probe")
                .http(&contexts("", &[("probe", "a", script)]))
                .server(&format!(
                    "location / {{
                        header_filter_by_lua_block {{ call('on_http_response_headers', a) }}
                        body_filter_by_lua_block {{ call('on_http_response_body', a) }}
                        proxy_pass {};
                    }}
                    location = /second {{ return 200 second; }}",
                    upstream.url()
                ))
                .start();
            if refused {
                nginx.expect_log("the upstream's status is not that of a final response");
            }
            let bytes = nginx.raw(
                "GET / HTTP/1.1\r\nHost: t\r\n\r\n\
                 GET /second HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n",
            );
            let text = String::from_utf8_lossy(&bytes);
            let (first, rest) = text.split_once("\r\n\r\n").expect("a head");
            assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{script}: {text}");
            assert!(rest.starts_with("HTTP/1.1 200 OK"), "{script}: {text}");
            assert!(rest.ends_with("\r\n\r\nsecond"), "{script}: {text}");
        }
    }
}

/// nginx answers these by a page of its own, through the filters of the server.
#[test]
fn methods_that_nginx_refuses_are_answered_through_filters() {
    let script = "response_headers: add_header_map_value 2 x-a 1
        response_headers: remove_header_map_value 2 content-length
        response_body: set_buffer_bytes 1 0 max mine";
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", script)]))
        .server(
            "header_filter_by_lua_block { call('on_http_response_headers', a) }
             body_filter_by_lua_block { call('on_http_response_body', a) }",
        )
        .start();
    // From 1.31 on nginx reads the target of CONNECT as an authority.
    let (to_a_path, to_an_authority) = if version() < (1, 31, 0) { (405, 400) } else { (400, 405) };
    for (line, status) in [
        ("CONNECT / HTTP/1.1", to_a_path),
        ("CONNECT a:443 HTTP/1.1", to_an_authority),
        ("TRACE / HTTP/1.1", 405),
        ("get / HTTP/1.1", 400),
    ] {
        let mut connection = nginx.connect();
        connection.write(format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
        let answer = connection.answer_to("CONNECT").expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (status, "mine"), "{line}");
        assert_eq!(answer.header("x-a"), Some("1"), "{line}");
        assert_eq!(connection.read_to_end(), b"", "{line}");
    }
}
