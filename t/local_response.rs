//! Local responses: what a filter answers in place of the upstream.

use super::ops::{Ops, PHASES, check, contexts, expect, of, phases, script, wait_for};
use super::support::{Nginx, Probe, Response, Running};

/// Names and values in order, without those that every answer of nginx has.
pub(crate) fn headers(response: &Response) -> Vec<(&str, &str)> {
    let own = ["server", "date", "connection"];
    let headers = response.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    headers.filter(|(name, _)| !own.contains(&name.to_lowercase().as_str())).collect()
}

pub(crate) const DENY: &str =
    r"send_local_response 403 denied 'no entry\n' x-a=1|set-cookie=a\=1|X-A=2|set-cookie=b\=2 -1";

pub(crate) const DENIED: [(&str, &str); 6] = [
    ("Content-Type", "text/plain"),
    ("x-a", "1"),
    ("set-cookie", "a=1"),
    ("X-A", "2"),
    ("set-cookie", "b=2"),
    ("Content-Length", "9"),
];

#[test]
fn from_request_headers_in_each_phase() {
    let script = format!(
        "request_headers: {DENY}
         response_headers: get_header_map_value 2 :status
         response_headers: get_header_map_value 2 set-cookie
         response_headers: add_header_map_value 2 x-late 1
         response_body@first: get_buffer_bytes 1 0 max
         response_body@eos: set_buffer_bytes 1 max 0 ''
         log: get_property ngx.status
         log: get_property response.code_details"
    );
    let nginx = phases("", &script);
    let mut denied = DENIED.to_vec();
    denied.push(("x-late", "1"));
    for path in PHASES {
        let response = nginx.get(path);
        assert_eq!((response.status, response.reason.as_str()), (403, "Forbidden"), "{path}");
        assert_eq!(headers(&response), denied, "{path}");
        assert_eq!(response.text(), "no entry\n", "{path}");
    }
    for (callback, lines) in [
        ("request_headers", &[format!("{DENY} -> 0")][..]),
        (
            "response_headers",
            &[
                "get_header_map_value 2 :status -> 0 403".into(),
                "get_header_map_value 2 set-cookie -> 0 a=1".into(),
                "add_header_map_value 2 x-late 1 -> 0".into(),
            ],
        ),
        (
            "log",
            &[
                "get_property ngx.status -> 0 403".into(),
                "get_property response.code_details -> 0 denied".into(),
            ],
        ),
    ] {
        let expected = [lines; 3].concat();
        assert_eq!(wait_for(&nginx, callback, expected.len()), expected, "{callback}");
    }
    assert_eq!(of(&nginx, "response_body")[0], r"get_buffer_bytes 1 0 max -> 0 no entry\x0a");
}

#[test]
fn from_the_creation_of_a_stream() {
    let nginx = phases("", &format!("create: {DENY}; request_headers: ids"));
    for path in ["/rewrite", "/content"] {
        let response = nginx.get(path);
        assert_eq!(response.status, 403, "{path}");
        assert_eq!(headers(&response), DENIED, "{path}");
        assert_eq!(response.text(), "no entry\n", "{path}");
    }
    // A stream that has its answer is told no more of its request.
    assert_eq!(of(&nginx, "request_headers"), [""; 0]);
}

#[test]
fn from_request_body() {
    let run = Probe::new(&format!("request_body: {DENY}; response_headers: args"))
        .request("POST", |request| request.body("hello"));
    assert_eq!(run.response.status, 403);
    assert_eq!(headers(&run.response), DENIED);
    assert_eq!(run.response.text(), "no entry\n");
    assert_eq!(of(&run.nginx, "response_headers"), ["args -> num_headers=8 eos=0"]);
}

#[test]
fn no_request_callback_comes_after_it() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts(
            "",
            &[("probe", "a", &format!("request_headers: {DENY}; request_body: ids"))],
        ))
        .server(
            r#"
            location / {
                content_by_lua_block { ngx.say("upstream") }
                header_filter_by_lua_block {
                    call("on_http_request_headers", a)
                    call("on_http_request_body", a, "body", true)
                }
                body_filter_by_lua_block { call("on_http_response_body", a) }
            }
            "#,
        )
        .start();
    let response = nginx.get("/");
    assert_eq!((response.status, response.text().as_str()), (403, "no entry\n"));
    assert_eq!(of(&nginx, "request_headers"), [format!("{DENY} -> 0")]);
    assert_eq!(of(&nginx, "request_body"), [""; 0]);
}

/// A server in which the query names the script: `/?c=NAME`.
fn choices(scripts: &[(&str, String)], server: &str) -> Running {
    let contexts_of: Vec<(&str, &str, &str)> =
        scripts.iter().map(|(name, script)| ("probe", *name, script.as_str())).collect();
    Nginx::new()
        .guest("probe")
        .echo()
        .http(&contexts("", &contexts_of))
        .server(
            r#"
            location / {
                access_by_lua_block { call("on_http_request_headers", _G[ngx.var.arg_c]) }
                header_filter_by_lua_block { call("on_http_response_headers", _G[ngx.var.arg_c]) }
                body_filter_by_lua_block { call("on_http_response_body", _G[ngx.var.arg_c]) }
                proxy_pass http://unix:echo.sock;
            }
            "#,
        )
        .server(server)
        .start()
}

#[test]
fn statuses() {
    let bad = ["0", "1", "99", "100", "101", "103", "199", "1000", "-1", "max", "0x80000000"];
    let ops: Vec<String> =
        bad.iter().map(|status| format!("send_local_response {status} '' body '' -1")).collect();
    let ops: Vec<(&str, &str)> = ops.iter().map(|op| (op.as_str(), "2")).collect();
    let run = check("request_headers", &ops);
    assert_eq!(run.response.status, 200);
    run.nginx.expect_log("a local response is refused: its status is not one from 200 to 999");

    let good = [200, 201, 204, 301, 304, 418, 499, 500, 599, 600, 999];
    let scripts = good.map(|status| {
        (
            format!("s{status}"),
            format!("request_headers: send_local_response {status} '' body '' -1"),
        )
    });
    let scripts: Vec<(&str, String)> =
        scripts.iter().map(|(name, script)| (name.as_str(), script.clone())).collect();
    let nginx = choices(&scripts, "");
    let mut connection = nginx.connect();
    for status in good {
        let response = connection.request(&nginx.request("GET", &format!("/?c=s{status}")));
        assert_eq!(response.status, status);
        let bodiless = matches!(status, 204 | 304);
        assert_eq!(response.text(), if bodiless { "" } else { "body" }, "{status}");
        let length = if bodiless { None } else { Some("4") };
        assert_eq!(response.header("content-length"), length, "{status}");
        let content_type = if bodiless { None } else { Some("text/plain") };
        assert_eq!(response.header("content-type"), content_type, "{status}");
    }
}

#[test]
fn nothing_of_nginx_is_added() {
    let scripts = [
        ("body", "request_headers: send_local_response 503 '' mine '' -1".into()),
        (
            "typed",
            "request_headers: send_local_response 404 '' {} content-type=application/json|server=guest -1"
                .into(),
        ),
        (
            "framed",
            "request_headers: send_local_response 200 '' hello \
             content-length=1|content-length=2|transfer-encoding=gzip|connection=upgrade|x-a= -1"
                .into(),
        ),
        ("large", r"request_headers: send_local_response 200 '' \R{1000000}b '' -1".into()),
        ("late", "response_headers: send_local_response 503 '' mine '' -1".into()),
    ];
    let nginx = choices(
        &scripts,
        "error_page 403 404 503 /custom;
         proxy_intercept_errors on;
         location /custom { return 200 custom; }",
    );
    let response = nginx.get("/?c=body");
    assert_eq!((response.status, response.text().as_str()), (503, "mine"));
    assert_eq!(headers(&response), [("Content-Type", "text/plain"), ("Content-Length", "4")]);

    let response = nginx.get("/?c=typed");
    assert_eq!((response.status, response.text().as_str()), (404, "{}"));
    assert_eq!(headers(&response), [("Content-Type", "application/json"), ("Content-Length", "2")]);
    assert_eq!(response.header_all("server"), ["guest"]);

    let response = nginx.get("/?c=framed");
    assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    assert_eq!(
        headers(&response),
        [("Content-Type", "text/plain"), ("x-a", ""), ("Content-Length", "5")]
    );
    assert_eq!(response.header_all("connection"), ["close"]);

    assert_eq!(nginx.get("/?c=large").text(), "b".repeat(1_000_000));

    let response = nginx.get("/?c=late");
    assert_eq!((response.status, response.text().as_str()), (503, "mine"));
}

/// What the documented calls and a chain make of a local response of that status without a body.
fn without_a_body(status: u16) -> Running {
    let script =
        format!("send_local_response {status} '' '' x-a=1|content-type=text/x|location=/else -1");
    Nginx::new()
        .guest("probe")
        .http(&contexts(
            "",
            &[
                ("probe", "headers", &format!("request_headers: {script}")),
                ("probe", "body", &format!("request_body: {script}")),
                ("probe", "late", &format!("response_headers: {script}")),
            ],
        ))
        .http(r#"init_worker_by_lua_block { require("resty.proxy-wasm").init_worker() }"#)
        .server(
            r#"
            location /access { access_by_lua_block { call("on_http_request_headers", headers) } }
            location /rewrite { rewrite_by_lua_block { call("on_http_request_headers", headers) } }
            location /content { content_by_lua_block { call("on_http_request_headers", headers) } }
            location /body { content_by_lua_block { call("on_http_request_body", body, "hello", true) } }
            location /late {
                content_by_lua_block { ngx.print("upstream") }
                header_filter_by_lua_block { call("on_http_response_headers", late) }
                body_filter_by_lua_block { call("on_http_response_body", late) }
            }
            location /named { error_page 403 503 = /custom; access_by_lua_block { call("on_http_request_headers", headers) } }
            location /custom { return 200 "custom"; }
            location /chain {
                error_page 403 503 /custom;
                access_by_lua_block { require("resty.proxy-wasm").new_chain({ headers }):access() }
            }
            "#,
        )
        .start()
}

#[test]
fn without_a_body_nginx_answers_by_its_own_page() {
    for (status, page) in
        [(403, true), (503, true), (302, true), (418, false), (200, false), (204, false)]
    {
        let nginx = without_a_body(status);
        for path in ["/access", "/rewrite", "/content", "/body"] {
            let mut connection = nginx.connect();
            for method in ["GET", "HEAD", "GET"] {
                let response = connection.request(&nginx.request(method, path));
                assert_eq!(response.status, status, "{path}");
                assert_eq!(response.header_all("x-a"), ["1"], "{path} {status}");
                let text = response.text();
                let is_page = text.contains(&format!("<title>{status} "))
                    && text.contains("<hr><center>nginx");
                assert_eq!(is_page, page && method == "GET", "{path} {status}: {text}");
                assert!(is_page || text.is_empty(), "{path} {status}: {text}");
            }
        }
        // As Envoy.
        for path in ["/chain", "/late"] {
            let response = nginx.get(path);
            assert_eq!((response.status, response.text().as_str()), (status, ""), "{path}");
            assert_eq!(response.header_all("x-a"), ["1"], "{path} {status}");
        }
    }
    for status in [403, 503] {
        let response = without_a_body(status).get("/named");
        assert_eq!((response.status, response.text().as_str()), (200, "custom"));
    }
}

#[test]
fn for_every_kind_of_request() {
    let nginx = phases("", &format!("request_headers: {DENY}"));
    for path in PHASES {
        let head = nginx.request("HEAD", path).send();
        assert_eq!((head.status, head.text().as_str()), (403, ""), "{path}");
        assert_eq!(headers(&head), DENIED, "{path}");

        let old = nginx.request("GET", path).http10().send();
        assert_eq!((old.status, old.text().as_str()), (403, "no entry\n"), "{path}");
        assert_eq!(old.header("connection"), Some("close"), "{path}");

        // A body that was not read is thrown away, and the connection stays open.
        let mut connection = nginx.connect();
        for request in [
            nginx.request("GET", path),
            nginx.request("POST", path).body("x".repeat(100_000)),
            nginx.request("POST", path).chunks(&["chunk", "chunk"]),
            nginx.request("HEAD", path),
            nginx.request("GET", path),
        ] {
            let response = connection.request(&request);
            assert_eq!((response.status, headers(&response)), (403, DENIED.to_vec()), "{path}");
            assert_eq!(response.header("connection"), Some("keep-alive"), "{path}");
        }
    }
}

#[test]
fn a_second_one_is_refused() {
    let second = "send_local_response 404 second two '' -1";
    let ops: Ops<'_> = &[(DENY, "0"), (second, "2")];
    let script = script("request_headers", ops) + &format!("response_headers: {second}");
    let run = Probe::new(&script).run();
    expect(&run.nginx, "request_headers", ops);
    expect(&run.nginx, "response_headers", &[(second, "2")]);
    assert_eq!((run.response.status, run.response.text().as_str()), (403, "no entry\n"));
    for callback in ["proxy_on_request_headers", "proxy_on_response_headers"] {
        run.nginx
            .expect_log(&format!("{callback}: a second local response on one stream is refused"));
    }
}

#[test]
fn at_the_wrong_time() {
    let late = "a local response came too late: the response headers were sent";
    let none = "a local response needs a stream, and the effective context is none";
    for (callback, export, warning) in [
        ("done", "proxy_on_done", late),
        ("log", "proxy_on_log", late),
        ("delete", "proxy_on_delete", late),
        ("configure", "proxy_on_configure", none),
    ] {
        let run = Probe::new(&format!("{callback}@first: {DENY}"))
            .content("content_by_lua_block { ngx.print('content') }")
            .run();
        assert_eq!(wait_for(&run.nginx, callback, 1), [format!("{DENY} -> 2")]);
        assert_eq!((run.response.status, run.response.text().as_str()), (200, "content"));
        run.nginx.expect_log(&format!("wasm plugin \"probe\": {export}: {warning}"));
    }
}

#[test]
fn bad_headers_do_not_stop_it() {
    let sound = r"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\x001\0";
    let cut = sound.strip_suffix(r"\0").expect("a NUL");
    let named = |name: &str| format!("headers that are not allowed or too many: \"{name}\"");
    let malformed = || "its headers, which are malformed".to_string();
    for (i, (send, without)) in [
        ("send_local_response 403 '' body ''=v|x-a=1 -1".to_string(), named("")),
        (r"send_local_response 403 '' body 'a b'=v|x-a=1 -1".into(), named("a b")),
        (r"send_local_response 403 '' body a\r\nb=v|x-a=1 -1".into(), named(r"a\r\nb")),
        (r"send_local_response 403 '' body x-a=1|a=v\r\nb\:1 -1".into(), named("a")),
        (r"send_local_response 403 '' body a=v\n|x-a=1 -1".into(), named("a")),
        (r"send_local_response 403 '' body a=v\0|x-a=1 -1".into(), named("a")),
        ("send_local_response 403 '' body x-a=1|:status=200 -1".into(), String::new()),
        (
            "send_local_response 403 '' body :status=302|:path=/|:method=GET|:scheme=x|:authority=b|:=|x-a=1 -1"
                .into(),
            String::new(),
        ),
        (
            "send_local_response 403 '' body keep-alive=timeout\\=5|proxy-connection=x|content-length=999|\
             transfer-encoding=chunked|connection=close|x-a=1 -1"
                .into(),
            String::new(),
        ),
        (format!("send_local_response_raw 403 '' body {cut} -1"), malformed()),
        (format!(r"send_local_response_raw 403 '' body {sound}\0 -1"), malformed()),
    ]
    .into_iter()
    .enumerate()
    {
        for callback in ["request_headers", "response_headers", "request_body"] {
            if i % 3 != 0 && callback != "request_headers" {
                continue;
            }
            let run = Probe::new(&script(callback, &[(&send, "0")]))
                .request("POST", |request| request.body("hello"));
            expect(&run.nginx, callback, &[(&send, "0")]);
            assert_eq!((run.response.status, run.response.text().as_str()), (403, "body"), "{send}");
            let mut wanted = vec![("Content-Type", "text/plain")];
            if without != malformed() {
                wanted.push(("x-a", "1"));
            }
            let sent = headers(&run.response);
            let sent: Vec<_> = sent
                .into_iter()
                .filter(|(name, value)| {
                    (*name, *value) != ("Content-Length", "4") && *name != "Transfer-Encoding"
                })
                .collect();
            assert_eq!(sent, wanted, "{callback} {send}");
            if !without.is_empty() {
                run.nginx.expect_log(&format!(
                    "proxy_on_{callback}: a local response is sent without {without}"
                ));
            }
        }
    }
}

#[test]
fn what_is_too_large_is_left_out() {
    for (send, body, warned) in [
        (r"send_local_response 403 '' body x=\R{1048577}v|k=v -1", "body", true),
        // Without its body it is nginx's own page.
        (r"send_local_response 403 '' \R{16777217}b k=v -1", "403 Forbidden", true),
        (r"send_local_response 403 \R{16777217}d body k=v -1", "body", false),
    ] {
        // Making the large ones takes the guest its time.
        let run =
            Probe::new(&format!("request_headers: {send}")).options("time_limit = 60000").run();
        assert_eq!(run.response.status, 403, "{send}");
        assert!(run.response.text().contains(body), "{send}: {}", run.response.text());
        assert_eq!(run.response.header_all("k").first(), Some(&"v"), "{send}");
        if warned {
            run.nginx.expect_log("a local response is sent without ");
        }
    }
}

#[test]
fn bad_pointers() {
    let run = Probe::new("request_headers: oob send_local_response 403 details body a=1 -1").run();
    let lines = [1, 3, 5]
        .map(|i| ["far", "end"].map(|note| format!("oob send_local_response arg {i} -> 6 {note}")));
    assert_eq!(run.of("request_headers"), lines.concat());
    assert_eq!(run.response.status, 200);
}

#[test]
fn grpc_requests_get_a_grpc_status() {
    let answer = |status: &str, details: &str, body: &str, grpc: &str| {
        format!(
            "request_headers: send_local_response {status} {details} {body} content-type=text/html|x-a=1 {grpc}"
        )
    };
    let scripts = [
        ("mapped", answer("403", "denied", "'no entry'", "-1")),
        ("given", answer("503", "denied", r"caf\xc3\xa9%\n", "5")),
        ("zero", answer("200", "ok", "''", "0")),
        ("beyond", answer("418", "details", "''", "17")),
    ];
    let nginx = choices(&scripts, "");
    let trailers = |name: &str, content_type: &str| {
        let request = nginx.request("POST", &format!("/?c={name}"));
        let response = request.header("content-type", content_type).send();
        let all = |header: &str| response.header_all(header).join("|");
        (
            response.status,
            all("content-type"),
            all("grpc-status"),
            all("grpc-message"),
            all("x-a"),
            response.text(),
        )
    };
    let grpc = |status: &str, message: &str| {
        let [status, message] = [status, message].map(String::from);
        (200, "application/grpc".to_string(), status, message, "1".to_string(), String::new())
    };
    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc;charset=x"]
    {
        assert_eq!(trailers("mapped", content_type), grpc("7", "no entry"), "{content_type}");
    }
    assert_eq!(trailers("given", "application/grpc"), grpc("5", "caf%C3%A9%25%0A"));
    assert_eq!(trailers("zero", "application/grpc"), grpc("0", "ok"));
    assert_eq!(trailers("beyond", "application/grpc"), grpc("2", "details"));

    // Others get what the filter said, and no gRPC status.
    for content_type in ["application/grpc-web", "text/plain"] {
        let plain = trailers("mapped", content_type);
        let (status, html, none, no_message, x_a, body) = &plain;
        assert_eq!((*status, html.as_str(), none.as_str()), (403, "text/html", ""));
        assert_eq!((no_message.as_str(), x_a.as_str(), body.as_str()), ("", "1", "no entry"));
    }
}
