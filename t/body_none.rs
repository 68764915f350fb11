//! Responses without a body: filters are told so with the headers, and give them none. And bodies that are encoded.

use super::support::{Curl, Nginx, Running};

/// What upstreams answer: nothing in many ways, or something.
const UPSTREAM: &str = r#"
server {
    listen unix:upstream.sock;
    root html;
    location /204 { return 204; }
    location /304 { return 304; }
    location /0 { content_by_lua_block { ngx.header["Content-Length"] = 0 ngx.send_headers() } }
    location /unknown { content_by_lua_block { ngx.send_headers() } }
    location /hello { content_by_lua_block { ngx.header["Content-Length"] = 5 ngx.print("hello") } }
    location /gzip { content_by_lua_block { ngx.header["Content-Encoding"] = "gzip" ngx.print("hello") } }
    location /identity {
        content_by_lua_block { ngx.header["Content-Encoding"] = "identity" ngx.print("hello") }
    }
}"#;

/// A filter before that upstream: in a chain, and below `/plain` by the documented calls. nginx itself answers below `/own`.
fn nginx(options: &str, script: &str) -> Running {
    let location = |path: &str, headers: &str, body: &str, content: &str| {
        format!(
            "location {path} {{
                header_filter_by_lua_block {{ {headers} }}
                body_filter_by_lua_block {{ {body} }}
                {content}
            }}\n"
        )
    };
    let proxy = "proxy_http_version 1.1; proxy_pass http://unix:upstream.sock:/;";
    let chain = ["chain:header_filter()", "chain:body_filter()"];
    let plain = ["wasm.on_http_response_headers(ctx)", "wasm.on_http_response_body(ctx)"];
    Nginx::new()
        .guest("probe")
        .http2()
        .http(UPSTREAM)
        .http(&format!(
            "init_by_lua_block {{
                wasm = require('resty.proxy-wasm')
                local plugin = assert(wasm.load('probe', 'probe.wasm', {{ {options} }}))
                ctx = assert(wasm.on_configure(plugin, [==[{script}]==]))
                chain = wasm.new_chain({{ ctx }})
            }}"
        ))
        .file("html/empty", "")
        .server(
            &(location("/chain/", chain[0], chain[1], proxy)
                + &location("/plain/", plain[0], plain[1], proxy)
                + &location("/own/204", chain[0], chain[1], "return 204;")
                + &location("/own/0", chain[0], chain[1], "return 200;")
                + &location("= /own/empty", chain[0], chain[1], "alias html/empty;")),
        )
        .start()
}

const WRITES: &str = "response_headers: args; response_body@more: pause; response_body@eos: set_buffer_bytes 1 0 max BODY";

/// The answers to a request and to one that follows on the same connection, as one text.
fn two(nginx: &Running, method: &str, path: &str) -> String {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: t\r\n\r\n");
    let next = "GET /next HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    String::from_utf8_lossy(&nginx.raw(request + next)).into_owned()
}

#[test]
fn nothing_follows_a_response_without_a_body() {
    for options in ["", "body = true"] {
        let nginx = nginx(options, WRITES);
        nginx.expect_log("No such file or directory");
        for (method, path, status) in [
            ("GET", "/chain/204", 204),
            ("GET", "/plain/204", 204),
            ("GET", "/chain/304", 304),
            ("GET", "/plain/304", 304),
            ("GET", "/chain/0", 200),
            ("GET", "/plain/0", 200),
            ("HEAD", "/chain/hello", 200),
            ("HEAD", "/plain/hello", 200),
            ("HEAD", "/chain/unknown", 200),
            ("GET", "/own/204", 204),
            ("GET", "/own/0", 200),
            ("GET", "/own/empty", 200),
        ] {
            if !options.is_empty()
                && ["0", "empty"].iter().any(|end| path.ends_with(&format!("/{end}")))
            {
                continue;
            }
            let text = two(&nginx, method, path);
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {text}");
            let (_, rest) = text.split_once("\r\n\r\n").expect("a head");
            assert!(rest.starts_with("HTTP/1.1 404 "), "{method} {path}: {text}");
            assert!(!text.contains("BODY"), "{method} {path}: {text}");
            let old = nginx.raw(format!("{method} {path} HTTP/1.0\r\n\r\n"));
            assert!(old.ends_with(b"\r\n\r\n"), "{path}: {}", old.escape_ascii());
            let curl = Curl::http2(&nginx);
            let answer = if method == "HEAD" { curl.arguments(&["-I"]) } else { curl }.get(path);
            assert_eq!((answer.status, answer.received), (status, 0), "{method} {path}");
        }
        let lines = nginx.guest_log("probe");
        assert!(lines.iter().all(|line| line.ends_with(" eos=1")), "told once: {lines:?}");
    }
}

#[test]
fn an_end_that_nothing_announces_is_told_with_the_body() {
    let nginx = nginx("", WRITES);
    for path in ["/chain/unknown", "/plain/unknown"] {
        assert_eq!(nginx.get(path).text(), "BODY", "{path}");
    }
    let lines = nginx.guest_log("probe");
    assert!(lines[0].ends_with(" eos=0"), "{lines:?}");
}

#[test]
fn a_body_that_is_there_is_changed_as_before() {
    let nginx = nginx("body = true", WRITES);
    nginx.expect_log(ENCODED);
    for path in ["/chain/hello", "/chain/gzip"] {
        assert_eq!(nginx.get(path).text(), "BODY", "{path}");
    }
}

#[test]
fn a_local_response_without_a_body_has_none() {
    for (status, path) in [(204, "/chain/hello"), (304, "/plain/hello")] {
        let nginx =
            nginx("", &format!("response_headers: send_local_response {status} '' BODY '' -1"));
        nginx.expect_log("No such file or directory");
        let text = two(&nginx, "GET", path);
        assert!(!text.contains("BODY"), "{text}");
        assert!(text.contains("\r\n\r\nHTTP/1.1 404 "), "{text}");
    }
}

const ENCODED: &str = "proxy_on_response_body: a filter changes the body of a response with a content-encoding: it sees \
                       and writes encoded bytes";

#[test]
fn a_change_of_an_encoded_response_is_told_once() {
    let change = "response_body@eos: set_buffer_bytes 1 max 0 !";
    let see = "response_headers: get_header_map_size 2";
    let remove = "response_headers: remove_header_map_value 2 content-encoding";
    for script in [change.to_string(), format!("{see}; {change}")] {
        let nginx = nginx("", &script);
        nginx.expect_log(ENCODED);
        nginx.get("/chain/gzip");
        nginx.get("/plain/gzip");
        assert_eq!(nginx.error_log().matches(ENCODED).count(), 1);
    }
    // Nothing to tell of: another body, a filter that decodes by itself, one that changes nothing.
    for (script, path) in [
        (change.to_string(), "/chain/identity"),
        (change.to_string(), "/chain/unknown"),
        (format!("{remove}; {change}"), "/chain/gzip"),
        (format!("{see}; {remove}; {change}"), "/plain/gzip"),
        ("response_body: get_buffer_bytes 1 0 max".to_string(), "/chain/gzip"),
    ] {
        let nginx = nginx("", &script);
        nginx.get(path);
        assert!(!nginx.logged("content-encoding: it sees"), "{script} {path}");
    }
}

#[test]
fn a_change_of_an_encoded_request_is_told_once() {
    let told = "proxy_on_request_body: a filter changes the body of a request with a content-encoding: it sees and writes \
                encoded bytes";
    let nginx = super::chain::chain(
        super::chain::NONE,
        ["request_body: set_buffer_bytes 0 0 max !", "", ""],
    );
    nginx.expect_log(told);
    for coding in ["identity", "gzip", "br"] {
        nginx.request("POST", "/").header("Content-Encoding", coding).body("hello").send();
        let count = nginx.error_log().matches(told).count();
        assert_eq!(count, usize::from(coding != "identity"), "{coding}");
    }
}
