//! Header maps: changes that are refused, so that nothing of them reaches the upstream or the client.

use super::ops::{check, contexts, echoed, expect, script};
use super::support::{Nginx, Probe, Running};

/// What each writing function answers to a name or a value; nothing of it is seen later.
fn refused(callback: &str, map: u32, pairs: &[(&str, &str)]) {
    let mut ops = Vec::new();
    for (name, value) in pairs {
        ops.push(format!("add_header_map_value {map} {name} {value}"));
        ops.push(format!("replace_header_map_value {map} {name} {value}"));
        let pair = format!("{name}={value}").replace("''", "");
        ops.push(format!("set_header_map_pairs {map} x-fine=1|{pair}"));
    }
    let mut ops: Vec<(&str, &str)> = ops.iter().map(|op| (op.as_str(), "2")).collect();
    ops.push(("get_header_map_value 0 :path", "0 /"));
    ops.push(("get_header_map_value 0 x-fine", "1"));
    ops.push(("get_header_map_value 2 x-fine", "1"));
    // Only what is there at that time.
    ops.retain(|(op, _)| {
        callback == "response_headers" || !op.starts_with("get_header_map_value 2")
    });
    let run = check(callback, &ops);
    assert_eq!(run.response.status, 200);
    assert!(run.response.headers.iter().all(|(name, _)| !name.to_lowercase().starts_with('x')));
    let text = run.response.text();
    assert_eq!(echoed(&text).0, "GET / HTTP/1.0");
    assert_eq!(echoed(&text).1, [("Host", "localhost"), ("Connection", "close")]);
    run.nginx.expect_log("is refused: its name or value is not allowed");
}

const BAD_PAIRS: [(&str, &str); 14] = [
    ("''", "v"),
    ("'x a'", "v"),
    ("x:a", "v"),
    ("x-a:", "v"),
    (r"x\r\nx-b", "v"),
    (r"x\nx-b", "v"),
    (r"x\0x-b", "v"),
    (r"x\xe9", "v"),
    (r"x\x7f", "v"),
    ("x(a)", "v"),
    ("x-a", r"v\r\nx-b\:1"),
    ("x-a", r"v\nx-b\:1"),
    ("x-a", r"v\r"),
    ("x-a", r"v\0w"),
];

#[test]
fn bad_names_and_values_never_reach_the_upstream() {
    refused("request_headers", 0, &BAD_PAIRS);
}

#[test]
fn bad_names_and_values_never_reach_the_client() {
    refused("response_headers", 2, &BAD_PAIRS);
}

#[test]
fn bad_pseudo_headers_of_a_request() {
    refused(
        "request_headers",
        0,
        &[
            (":method", "''"),
            (":method", "get"),
            (":method", "CONNECT"),
            (":method", "HEAD"),
            (":method", "'GET '"),
            (":method", r"GET\r\n"),
            (":path", "''"),
            (":path", "relative"),
            (":path", "'/a b'"),
            (":path", r"/a\r\nx-b\:1"),
            (":path", r"/a\0"),
            (":path", r"/a\x7f"),
            (":path", "/a%00b"),
            (":path", "/a%zz"),
            (":path", "/../a"),
            (":path", "http://a/b"),
            (":path", r"/a?b\nc"),
            (":authority", "''"),
            (":authority", "'a b'"),
            (":authority", r"a\r\nx-b\:1"),
            ("host", "'a b'"),
            (":scheme", "''"),
            (":scheme", "'ht tp'"),
            (":scheme", r"http\n"),
            (":status", "200"),
            (":protocol", "websocket"),
            (":", "v"),
        ],
    );
}

#[test]
fn bad_pseudo_headers_of_a_response() {
    refused(
        "response_headers",
        2,
        &[
            (":status", "''"),
            (":status", "99"),
            (":status", "199"),
            (":status", "1000"),
            (":status", "0404"),
            (":status", "4x4"),
            (":status", "+44"),
            (":status", r"404\n"),
            (":path", "/a"),
            (":method", "GET"),
            (":", "v"),
        ],
    );
}

#[test]
fn pseudo_headers_cannot_be_removed() {
    let ops = [
        ("remove_header_map_value 0 :path", "2"),
        ("remove_header_map_value 0 :METHOD", "2"),
        ("remove_header_map_value 0 :authority", "2"),
        ("remove_header_map_value 0 host", "2"),
        ("remove_header_map_value 0 :scheme", "2"),
        ("remove_header_map_value 0 'a b'", "2"),
        ("remove_header_map_value 0 ''", "2"),
        (
            "get_header_map_pairs 0",
            "0 :method=GET|:scheme=http|:authority=localhost|:path=/|connection=close",
        ),
    ];
    let run = check("request_headers", &ops);
    run.nginx.expect_log("proxy_on_request_headers: a pseudo header cannot be removed");
    let run = check(
        "response_headers",
        &[
            ("remove_header_map_value 2 :status", "2"),
            ("remove_header_map_value 2 host", "0"),
            ("get_header_map_value 2 :status", "0 200"),
        ],
    );
    run.nginx.expect_log("proxy_on_response_headers: a pseudo header cannot be removed");
}

#[test]
fn malformed_maps_are_refused_whole() {
    // One pair a=1 in the right form: \1\0\0\0 \1\0\0\0 \1\0\0\0 a\0 1\0
    const MALFORMED: [&str; 12] = [
        r"\x01",
        r"\0\0",
        r"\0\0\0\0\0",
        r"\x01\0\0\0",
        r"\x01\0\0\0\x01\0\0\0\x01\0\0\0",
        r"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\x001",
        r"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\x001\0b",
        r"\x01\0\0\0\x01\0\0\0\x01\0\0\0ab1\0",
        r"\x01\0\0\0\x01\0\0\0\x01\0\0\0a\x001b",
        r"\x02\0\0\0\x01\0\0\0\x01\0\0\0a\x001\0",
        r"\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xffa\x001\0",
        r"\xff\xff\xff\xff\x01\0\0\0\x01\0\0\0a\x001\0",
    ];
    for (callback, map) in [("request_headers", 0), ("response_headers", 2)] {
        let ops: Vec<String> = MALFORMED
            .iter()
            .map(|bytes| format!("set_header_map_raw {map} {bytes}"))
            .chain([
                // A few were given.
                format!("set_header_map_pairs {map} *1050"),
                format!(r"set_header_map_pairs {map} a=\R{{1049600}}v"),
            ])
            .collect();
        let mut ops: Vec<(&str, &str)> = ops.iter().map(|op| (op.as_str(), "2")).collect();
        ops.push(("get_header_map_value 0 :path", "0 /"));
        ops.push(("get_header_map_value 0 connection", "0 close"));
        let run = check(callback, &ops);
        let text = run.response.text();
        assert_eq!(echoed(&text).1, [("Host", "localhost"), ("Connection", "close")]);
        assert_eq!(run.response.header("content-type"), Some("text/plain"));
    }
}

#[test]
fn changes_at_the_wrong_time_are_refused() {
    let writes = |map: u32| {
        [
            format!("add_header_map_value {map} x-a 1"),
            format!("replace_header_map_value {map} x-a 1"),
            format!("remove_header_map_value {map} connection"),
            format!("set_header_map_pairs {map} x-a=1"),
        ]
    };
    let request = "a change of the request headers came too late: the request has gone on";
    let response = "a change of the response headers came too early or too late";
    let none = "there are no headers to change: the effective context is not a stream";
    for (callback, export, map, warning) in [
        ("response_headers", "proxy_on_response_headers", 0, request),
        ("response_body", "proxy_on_response_body", 0, request),
        ("log", "proxy_on_log", 0, request),
        ("create", "proxy_on_context_create", 2, response),
        ("request_headers", "proxy_on_request_headers", 2, response),
        ("response_body", "proxy_on_response_body", 2, response),
        ("done", "proxy_on_done", 2, response),
        ("configure", "proxy_on_configure", 0, none),
        ("configure", "proxy_on_configure", 2, none),
    ] {
        let ops = writes(map);
        let ops: Vec<(&str, &str)> = ops.iter().map(|op| (op.as_str(), "2")).collect();
        let run = Probe::new(&script(&format!("{callback}@first"), &ops)).run();
        expect(&run.nginx, callback, &ops);
        assert_eq!(run.response.header("x-a"), None, "{callback} {map}");
        let text = run.response.text();
        assert_eq!(echoed(&text).1, [("Host", "localhost"), ("Connection", "close")]);
        run.nginx.expect_log(&format!("wasm plugin \"probe\": {export}: {warning}"));
    }
}

#[test]
fn maps_that_cannot_be_written() {
    let ops: Vec<String> = [1, 3, 4, 5, 6, 7, 8]
        .iter()
        .flat_map(|map| {
            [
                format!("add_header_map_value {map} x-a 1"),
                format!("replace_header_map_value {map} x-a 1"),
                format!("remove_header_map_value {map} x-a"),
                format!("set_header_map_pairs {map} x-a=1"),
            ]
        })
        .collect();
    let ops: Vec<(&str, &str)> = ops.iter().map(|op| (op.as_str(), "2")).collect();
    check("request_headers", &ops);
    check("response_headers", &ops);
}

/// nginx's `$host` of a client's request with this `Host`; nothing when it refuses it.
fn host_of_client(nginx: &Running, host: &str) -> Option<String> {
    let mut connection = nginx.connect();
    connection.write(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes());
    let answer = connection.answer_to("GET").expect("an answer");
    match answer.status {
        200 => Some(answer.text()),
        400 => None,
        other => panic!("{host}: {other}"),
    }
}

#[test]
fn an_authority_is_one_that_a_client_can_send() {
    const HOSTS: [&str; 26] = [
        "a", "a.b", "a.b.", "A.B:80", "a:80", "a:", "a:b:c", "[::1]", "[::1]:80", "[a..b]", "[::1",
        "-", "a_b", ".a", "a%2fb", "a?b", "a@b", "..", ".", "...", "a..b", "a/b", "../a",
        "a:80/..", ":80", ".:80",
    ];
    // nginx before 1.31 takes these from clients.
    const LENIENT: [&str; 4] = ["a:b:c", "[::1", "a?b", "a@b"];
    let names: Vec<String> = (0..HOSTS.len()).map(|index| format!("h{index}")).collect();
    let scripts = HOSTS
        .map(|host| format!("request_headers: replace_header_map_value 0 :authority '{host}'"));
    let of_all: Vec<(&str, &str, &str)> = names
        .iter()
        .zip(&scripts)
        .map(|(name, script)| ("probe", name.as_str(), script.as_str()))
        .collect();
    let nginx = Nginx::new()
        .guest("probe")
        .log_level("error")
        .http(&contexts("", &of_all))
        .server(
            "location / { content_by_lua_block { ngx.print(ngx.var.host) } }
             location /filter {
                 access_by_lua_block { call('on_http_request_headers', _G['h' .. ngx.var.arg_n]) }
                 content_by_lua_block { ngx.print(ngx.var.host) }
             }",
        )
        .start();
    let mut refused = 0;
    for (index, host) in HOSTS.iter().enumerate() {
        let of_filter = nginx.get(&format!("/filter?n={index}"));
        assert_eq!(of_filter.status, 200, "{host}");
        let of_filter = Some(of_filter.text()).filter(|host| host != "localhost");
        refused += usize::from(of_filter.is_none());
        if LENIENT.contains(host) {
            assert_eq!(of_filter, None, "{host}");
        } else {
            assert_eq!(of_filter, host_of_client(&nginx, host), "{host}");
        }
    }
    assert_eq!(refused, 14);
}
