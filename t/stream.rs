//! The course of a stream: continuing, waiting, ending.

use super::ops::{PHASES, contexts, echoed, expect, of, phases, script, wait_for};
use super::support::{Connection, Nginx, Probe, Running};

const HEADERS_STEP: &str = "on_http_request_headers: failed to run proxy_on_http_request_headers";

#[test]
fn continuing_what_is_not_paused_is_harmless() {
    let ops: Vec<(String, &str)> = [("0", "0"), ("1", "0"), ("2", "0"), ("3", "0")]
        .iter()
        .chain(&[("4", "2"), ("-1", "2"), ("max", "2"), ("0x80000000", "2")])
        .map(|(stream, answer)| (format!("continue_stream {stream}"), *answer))
        .chain(["2", "3"].map(|stream| (format!("close_stream {stream}"), "0")))
        .chain(
            ["4", "-1", "max", "0x80000000"].map(|stream| (format!("close_stream {stream}"), "2")),
        )
        .collect();
    let ops: Vec<(&str, &str)> = ops.iter().map(|(op, answer)| (op.as_str(), *answer)).collect();
    for callback in [
        "configure",
        "create",
        "request_headers",
        "request_body",
        "response_headers",
        "response_body",
        "done",
        "log",
    ] {
        let run = Probe::new(&script(&format!("{callback}@first"), &ops))
            .request("POST", |request| request.body("hello"));
        expect(&run.nginx, callback, &ops);
        assert_eq!(run.response.status, 200, "{callback}");
        assert!(run.response.text().ends_with("\r\n\r\nhello"), "{callback}");
        assert_eq!(run.failures(), [""; 0], "{callback}");
    }
}

#[test]
fn abi_0_1_0_has_names_of_its_own() {
    let ops = [
        ("pause", "1"),
        ("continue_request", "0"),
        ("continue_response", "0"),
        ("clear_route_cache", "0"),
    ];
    let run = Probe::new(&script("request_headers", &ops)).guest("probe_0_1_0").run();
    expect(&run.nginx, "request_headers", &ops);
    assert_eq!(run.response.status, 200);
    assert_eq!(run.failures(), [""; 0]);
}

#[test]
fn closing_a_request_closes_its_connection() {
    for stream in [0, 1] {
        let nginx = phases("", &format!("request_headers: close_stream {stream}; done: ids"));
        for path in PHASES {
            let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(nginx.raw(request), b"", "{path}");
        }
        assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
        assert_eq!(wait_for(&nginx, "done", PHASES.len()).len(), PHASES.len());
    }
}

#[test]
fn closing_counts_more_than_a_local_response_or_a_pause() {
    let nginx = phases(
        "",
        "request_headers: close_stream 0
         request_headers: send_local_response 403 '' '' '' -1
         request_headers: pause",
    );
    for path in PHASES {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(nginx.raw(request), b"", "{path}");
    }
}

#[test]
fn closing_in_the_body_callback() {
    let nginx = Probe::new("request_body: close_stream 0").start();
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(nginx.raw(request), b"");
}

#[test]
fn closing_in_header_filter() {
    let nginx =
        Probe::new("response_headers: close_stream 1; done: ids; response_body: ids").start();
    assert_eq!(nginx.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), b"");
    assert_eq!(wait_for(&nginx, "done", 1), ["ids -> id=2 root=1"]);
    assert_eq!(of(&nginx, "response_body"), [""; 0]);
}

#[test]
fn nothing_follows_a_response_that_a_filter_closed() {
    let contents = [
        "content_by_lua_block { ngx.print('content') }",
        "content_by_lua_block { ngx.exit(204) }",
        "return 200 static;",
        "proxy_pass http://unix:echo.sock;",
    ];
    for content in contents {
        let nginx = Probe::new("response_headers: close_stream 1")
            .content(content)
            .nginx(|nginx| nginx.server("location = /second { return 200 second; }"))
            .start();
        if content.contains("print") {
            nginx.expect_log("a wasm filter closed the stream");
        }
        for method in ["GET", "HEAD", "POST"] {
            for version in ["1.0", "1.1"] {
                let bytes = nginx.raw(format!(
                    "{method} / HTTP/{version}\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n\
                     GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                ));
                let text = String::from_utf8_lossy(&bytes);
                assert_eq!(text, "", "{method} {version} {content}");
            }
        }
        assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
    }
}

#[test]
fn closing_in_body_filter_cuts_the_body_off() {
    let nginx = Probe::new("response_body: close_stream 1; done: ids")
        .content("content_by_lua_block { ngx.print('first') ngx.flush(true) ngx.print('second') }")
        .start();
    let bytes = nginx.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("second") && !text.ends_with("0\r\n\r\n"), "{text}");
    nginx.expect_log("a wasm filter closed the stream");
    assert_eq!(wait_for(&nginx, "done", 1), ["ids -> id=2 root=1"]);
}

#[test]
fn a_pause_ends_with_its_time() {
    let nginx = phases("pause_timeout = 100", "request_headers: pause; done: ids");
    for path in PHASES {
        let response = nginx.get(path);
        assert_eq!((response.status, response.header("x-went-on")), (200, None), "{path}");
    }
    let failure = format!(
        "{HEADERS_STEP}: the filter paused the request, and nothing let it go on within 100 ms"
    );
    assert_eq!(nginx.log_texts("lua call failed: "), [failure.as_str(); 3]);
    assert_eq!(wait_for(&nginx, "done", 3).len(), 3);
}

#[test]
fn every_action_but_zero_pauses() {
    for action in ["1", "2", "4", "-1", "max"] {
        let nginx = phases("pause_timeout = 1", &format!("request_headers: return {action}"));
        assert_eq!(nginx.get("/access").header("x-went-on"), None, "{action}");
        assert_eq!(nginx.log_texts("lua call failed: ").len(), 1, "{action}");
    }
}

#[test]
fn a_pause_that_the_callback_itself_ends() {
    let nginx =
        phases("pause_timeout = 100", "request_headers: pause; request_headers: continue_stream 0");
    for path in PHASES {
        assert_eq!(nginx.get(path).header("x-went-on"), Some(&path[1..]));
    }
    assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
}

#[test]
fn a_pause_where_nothing_can_wait() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", "request_headers,request_body@eos: pause")]))
        .server(
            r#"
            location / {
                content_by_lua_block { ngx.print("content") }
                header_filter_by_lua_block {
                    call("on_http_request_headers", a)
                    call("on_http_request_body", a, "body", true)
                }
            }
            "#,
        )
        .start();
    assert_eq!(nginx.get("/").text(), "content");
    let paused = "the filter paused the request, and phase header_filter cannot wait";
    assert_eq!(
        nginx.log_texts("lua call failed: "),
        [
            format!("{HEADERS_STEP}: {paused}"),
            format!("on_http_request_body: failed to run proxy_on_http_request_body: {paused}"),
        ]
    );
}

#[test]
fn a_pause_on_response_headers_continues_with_one_warning() {
    let warning = "Pause on response headers is not possible: the response continues";
    let nginx = Probe::new("response_headers: pause").start();
    for _ in 0..3 {
        let response = nginx.get("/");
        assert_eq!(response.status, 200);
        assert!(response.text().starts_with("GET / HTTP/1.0\r\n"));
    }
    nginx.expect_log(warning);
    assert_eq!(nginx.error_log().matches(warning).count(), 1);
    assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
}

#[test]
fn a_pause_on_a_part_of_the_request_body_asks_for_more() {
    let nginx = Nginx::new()
        .guest("probe")
        .echo()
        .http(&contexts(
            "pause_timeout = 100",
            &[("probe", "a", "request_body: args; request_body: get_buffer_bytes 0 0 max; request_body: pause")],
        ))
        .server(
            r#"
            location / {
                access_by_lua_block {
                    ngx.log(ngx.NOTICE, "returned ", tostring(call("on_http_request_body", a, "one", false)))
                    ngx.log(ngx.NOTICE, "returned ", tostring(call("on_http_request_body", a, "two", true)))
                }
                proxy_pass http://unix:echo.sock;
            }
            "#,
        )
        .start();
    nginx.get("/");
    assert_eq!(nginx.log_texts("returned "), ["true", "nil"]);
    assert_eq!(
        of(&nginx, "request_body"),
        [
            "args -> size=3 eos=0",
            "get_buffer_bytes 0 0 max -> 0 one",
            "pause -> 1",
            "args -> size=6 eos=1",
            "get_buffer_bytes 0 0 max -> 0 onetwo",
            "pause -> 1",
        ]
    );
}

/// A server in which filter `a` (root 1) holds requests to `/hold`, and filter `b` is told of those to `/other`. The
/// first held request is context 2.
fn holding(options: &str, a: &str, b: &str) -> Running {
    let location = |path: &str, filter: &str| {
        format!(
            "location {path} {{
                access_by_lua_block {{
                    call('on_http_request_headers', {filter})
                    ngx.req.read_body()
                    if ngx.req.get_body_data() then
                        call('on_http_request_body', {filter}, ngx.req.get_body_data(), true)
                    end
                }}
                header_filter_by_lua_block {{ call('on_http_response_headers', {filter}) }}
                proxy_pass http://unix:echo.sock;
            }}\n"
        )
    };
    Nginx::new()
        .guest("probe")
        .echo()
        .http(&contexts(options, &[("probe", "a", a), ("probe", "b", b)]))
        .server(&location("/hold", "a"))
        .server(&location("/other", "b"))
        .start()
}

/// Sends a request and waits until its stream, of this context id, is held.
fn hold(nginx: &Running, request: &str, id: u32) -> Connection {
    let mut connection = nginx.connect();
    connection.write(request.as_bytes());
    nginx.wait_for_log(&format!("ids -> id={id} root=1"));
    connection
}

const HOLD: &str = "request_headers: ids; request_headers: pause";
const GET: &str = "GET /hold?x HTTP/1.1\r\nHost: held\r\nConnection: close\r\n\r\n";

#[test]
fn another_request_resumes_a_held_one() {
    let nginx = holding(
        "",
        &format!("{HOLD}; response_headers: get_header_map_value 0 x-late"),
        "request_headers: ids
         request_headers: get_header_map_value 0 :path
         request_headers: set_effective_context 2
         request_headers: get_header_map_value 0 :path
         request_headers: add_header_map_value 0 x-late yes
         request_headers: replace_header_map_value 0 :path /late
         request_headers: continue_stream 0",
    );
    let mut held = hold(&nginx, GET, 2);
    let other = nginx.get("/other").text();
    assert_eq!(echoed(&other).0, "GET /other HTTP/1.0");
    assert!(!other.contains("x-late"), "{other}");
    let response = held.response();
    assert_eq!(response.status, 200);
    let (line, headers) = (response.text(), response.text());
    assert_eq!(echoed(&line).0, "GET /late HTTP/1.0");
    assert!(echoed(&headers).1.contains(&("x-late", "yes")), "{headers}");
    assert_eq!(of(&nginx, "response_headers"), ["get_header_map_value 0 x-late -> 0 yes"]);
    assert_eq!(
        of(&nginx, "request_headers")[2..],
        [
            "ids -> id=4 root=3",
            "get_header_map_value 0 :path -> 0 /other",
            "set_effective_context 2 -> 0",
            "get_header_map_value 0 :path -> 0 /hold?x",
            "add_header_map_value 0 x-late yes -> 0",
            "replace_header_map_value 0 :path /late -> 0",
            "continue_stream 0 -> 0",
        ]
    );
    assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
}

#[test]
fn another_request_answers_for_a_held_one() {
    let nginx = holding(
        "",
        &format!("{HOLD}; response_headers: get_header_map_value 2 :status"),
        "request_headers: set_effective_context 2
         request_headers: send_local_response 418 '' teapot x-a=1 -1
         request_headers: send_local_response 418 '' again '' -1",
    );
    let mut held = hold(&nginx, GET, 2);
    assert_eq!(nginx.get("/other").status, 200);
    let response = held.response();
    assert_eq!((response.status, response.text().as_str()), (418, "teapot"));
    assert_eq!(response.header("x-a"), Some("1"));
    assert_eq!(of(&nginx, "response_headers"), ["get_header_map_value 2 :status -> 0 418"]);
    let lines = of(&nginx, "request_headers");
    assert_eq!(
        lines[3..],
        [
            "send_local_response 418 '' teapot x-a=1 -1 -> 0",
            "send_local_response 418 '' again '' -1 -> 2",
        ]
    );
    nginx.expect_log("a second local response on one stream is refused");
}

#[test]
fn another_request_closes_a_held_one() {
    let nginx = holding(
        "",
        HOLD,
        "request_headers: set_effective_context 2; request_headers: close_stream 0",
    );
    let mut held = hold(&nginx, GET, 2);
    assert_eq!(nginx.get("/other").status, 200);
    assert_eq!(held.read_to_end(), b"");
}

#[test]
fn a_request_held_in_its_body_callback_continues_with_the_new_body() {
    let nginx = holding(
        "",
        "request_body: ids; request_body: set_buffer_bytes 0 0 5 changed; request_body: pause",
        "request_headers: set_effective_context 2
         request_headers: add_header_map_value 0 x-late yes
         request_headers: continue_stream 0",
    );
    let post =
        "POST /hold HTTP/1.1\r\nHost: held\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    let mut held = hold(&nginx, post, 2);
    nginx.get("/other");
    let text = held.response().text();
    assert!(echoed(&text).1.contains(&("x-late", "yes")), "{text}");
    assert!(text.ends_with("\r\n\r\nchanged"), "{text}");
}

#[test]
fn several_are_held_at_once() {
    let nginx = holding(
        "",
        HOLD,
        "request_headers: set_effective_context 4
         request_headers: send_local_response 403 '' no '' -1
         request_headers: set_effective_context 2
         request_headers: continue_stream 0
         request_headers: set_effective_context 3
         request_headers: close_stream 0
         request_headers: set_effective_context 5
         request_headers: continue_stream 1",
    );
    let mut held: Vec<Connection> = (2..=5).map(|id| hold(&nginx, GET, id)).collect();
    assert_eq!(nginx.get("/other").status, 200);
    assert_eq!(held[0].response().status, 200);
    assert_eq!(held[1].read_to_end(), b"");
    assert_eq!(held[2].response().status, 403);
    assert_eq!(held[3].response().status, 200);
    assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
}

#[test]
fn a_resumed_request_is_not_held_any_more() {
    let nginx = holding(
        "",
        HOLD,
        "request_headers: set_effective_context 2
         request_headers: continue_stream 0
         request_headers: add_header_map_value 0 x-a 1
         response_headers: set_effective_context 2",
    );
    let mut held = hold(&nginx, GET, 2);
    nginx.get("/other");
    let text = held.response().text();
    assert!(echoed(&text).1.contains(&("x-a", "1")), "{text}");
    held.read_to_end();
    // It has ended, and its id is not used again.
    nginx.get("/other");
    assert_eq!(of(&nginx, "response_headers")[1], "set_effective_context 2 -> 2");
}

#[test]
fn a_held_request_learns_of_the_end_of_its_vm() {
    let nginx = holding("", HOLD, "request_headers: trap");
    let mut held = hold(&nginx, GET, 2);
    assert_eq!(nginx.get("/other").status, 200);
    assert_eq!(held.response().status, 200);
    let failures = nginx.log_texts("lua call failed: on_http_request_headers: ");
    assert_eq!(failures.len(), 2, "{failures:?}");
    let step = "failed to run proxy_on_http_request_headers: ";
    let cause = failures[0].strip_prefix(step).expect("the step");
    assert!(cause.starts_with("proxy_on_request_headers failed: wasm trap: "), "{cause}");
    assert_eq!(failures[1], format!("{step}the filter's VM was lost: {cause}"));
}

#[test]
fn a_held_request_keeps_nothing_after_its_time() {
    let nginx = holding(
        "pause_timeout = 50",
        &format!("{HOLD}; request_body: args; response_headers: ids; done: ids"),
        "request_headers: set_effective_context 2",
    );
    let post =
        "POST /hold HTTP/1.1\r\nHost: held\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    let mut held = hold(&nginx, post, 2);
    assert_eq!(held.response().status, 200);
    drop(held);
    assert_eq!(of(&nginx, "request_body"), ["args -> size=5 eos=1"]);
    assert_eq!(of(&nginx, "response_headers"), ["ids -> id=2 root=1"]);
    assert_eq!(wait_for(&nginx, "done", 1), ["ids -> id=2 root=1"]);
    nginx.get("/other");
    assert_eq!(of(&nginx, "request_headers")[2..], ["set_effective_context 2 -> 2"]);
}
