//! Local responses from header_filter: the upstream has answered, and the client sees nothing of it.

use super::local_response::{DENIED, DENY, headers};
use super::ops::{contexts, of, wait_for};
use super::support::{Nginx, Running};

/// What an upstream answers: something of everything that must not be seen.
const UPSTREAM: &str = r#"
server {
    listen unix:upstream.sock;
    location / {
        content_by_lua_block {
            ngx.header["X-Upstream"] = { "1", "2" }
            ngx.header["Set-Cookie"] = "secret=1"
            ngx.header["Content-Type"] = "text/x-upstream"
            ngx.header["Content-Length"] = 16
            ngx.header["ETag"] = '"secret"'
            ngx.header["Last-Modified"] = "Thu, 01 Jan 1970 00:00:01 GMT"
            ngx.header["Cache-Control"] = { "private", "no-store" }
            ngx.header["Content-Encoding"] = "x-secret"
            ngx.header["Expires"] = "Thu, 01 Jan 1970 00:00:01 GMT"
            ngx.header["Location"] = "/secret"
            ngx.print("upstream's ")
            ngx.flush(true)
            ngx.print("body\n")
        }
    }
    location /204 { return 204; }
    location /304 { return 304; }
    location /404 { return 404; }
}
"#;

/// A server that proxies to [`UPSTREAM`], or gives a file, with a filter in header_filter, and in body_filter unless
/// under `/headers`.
fn before_upstream(script: &str) -> Running {
    Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", script)]))
        .http(UPSTREAM)
        .file("html/file/page", "a page")
        .server(
            r#"
            header_filter_by_lua_block { call("on_http_response_headers", a) }
            location / {
                body_filter_by_lua_block { call("on_http_response_body", a) }
                proxy_pass http://unix:upstream.sock;
            }
            location /file {
                body_filter_by_lua_block { call("on_http_response_body", a) }
                root html;
            }
            location /headers { proxy_pass http://unix:upstream.sock; }
            "#,
        )
        .start()
}

#[test]
fn from_response_headers() {
    let nginx = before_upstream(&format!(
        "response_headers: {DENY}
         response_body: ids
         log: get_property ngx.status"
    ));
    let mut denied = vec![("Content-Type", "text/plain"), ("Transfer-Encoding", "chunked")];
    denied.extend(&DENIED[1..5]);
    let paths = ["/", "/204", "/304", "/404", "/file/page"];
    for path in paths {
        let response = nginx.get(path);
        assert_eq!((response.status, response.reason.as_str()), (403, "Forbidden"), "{path}");
        assert_eq!(headers(&response), denied, "{path}");
        assert_eq!(response.text(), "no entry\n", "{path}");
    }
    let head = nginx.request("HEAD", "/").send();
    assert_eq!((head.status, head.text().as_str()), (403, ""));
    // The upstream's body is none of the filter's business any more.
    assert_eq!(of(&nginx, "response_body"), [""; 0]);
    let lines = vec!["get_property ngx.status -> 0 403"; paths.len() + 1];
    assert_eq!(wait_for(&nginx, "log", lines.len()), lines);
}

#[test]
fn from_response_headers_without_a_body() {
    let nginx = before_upstream("response_headers: send_local_response 503 '' '' x-a=1 -1");
    for path in ["/", "/204", "/file/page"] {
        let response = nginx.get(path);
        assert_eq!(response.status, 503, "{path}");
        assert_eq!(headers(&response), [("Transfer-Encoding", "chunked"), ("x-a", "1")], "{path}");
        assert_eq!(response.text(), "", "{path}");
    }
}

#[test]
fn from_response_headers_without_a_body_filter() {
    let warning = "on_http_response_body was not called in body_filter_by_lua";
    let nginx = before_upstream(&format!("response_headers: {DENY}"));
    let response = nginx.get("/headers");
    assert_eq!(response.status, 403);
    assert_eq!(response.header("x-a"), Some("1"));
    assert_eq!(response.header("x-upstream"), None);
    nginx.expect_log(warning);
    nginx.wait_for_log(warning);
    nginx.request("HEAD", "/headers").send();
    nginx.get("/");
    assert_eq!(nginx.error_log().matches(warning).count(), 1);

    for op in ["send_local_response 403 '' '' '' -1", "send_local_response 204 '' body '' -1"] {
        let nginx = before_upstream(&format!("response_headers: {op}"));
        nginx.get("/headers");
        nginx.finish();
    }
}

#[test]
fn a_second_filter_sees_the_first_ones_answer() {
    let see = "response_headers: get_header_map_value 2 :status
               response_headers: get_header_map_value 2 x-upstream
               response_headers: get_header_map_value 2 x-a
               response_body@first: get_buffer_bytes 1 0 max";
    let deny = format!("response_headers: {DENY}");
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("other", "a", &deny), ("probe", "b", see)]))
        .http(UPSTREAM)
        .server(
            r#"
            location / {
                proxy_pass http://unix:upstream.sock;
                header_filter_by_lua_block {
                    call("on_http_response_headers", a)
                    call("on_http_response_headers", b)
                }
                body_filter_by_lua_block {
                    call("on_http_response_body", a)
                    call("on_http_response_body", b)
                }
            }
            "#,
        )
        .start();
    assert_eq!(nginx.get("/").text(), "no entry\n");
    let lines = [
        "get_header_map_value 2 :status -> 0 403",
        "get_header_map_value 2 x-upstream -> 1",
        "get_header_map_value 2 x-a -> 0 1",
    ];
    assert_eq!(of(&nginx, "response_headers"), lines);
    assert_eq!(of(&nginx, "response_body"), [r"get_buffer_bytes 1 0 max -> 0 no entry\x0a"]);
}

#[test]
fn grpc_status_from_response_headers() {
    let script = "response_headers: send_local_response 503 '' overloaded x-a=1 -1";
    let nginx = before_upstream(script);
    let response = nginx.request("POST", "/").header("content-type", "application/grpc").send();
    assert_eq!(response.status, 200);
    assert_eq!(
        headers(&response),
        [
            ("Content-Type", "application/grpc"),
            ("Transfer-Encoding", "chunked"),
            ("x-a", "1"),
            ("grpc-status", "14"),
            ("grpc-message", "overloaded"),
        ]
    );
    assert_eq!(response.text(), "");
}
