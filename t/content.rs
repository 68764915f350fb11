//! `chain:content()`: responses that filters can wait in.

use super::ops::wait_for_lines;
use super::support::{Nginx, Running, poll};
use super::vendor_stream::{Client, Pieces};
use std::io::Write as _;

/// A chain of filters of these scripts, the first one nearest to the client, and a server that they call.
fn filters(scripts: &[&str], options: &str) -> String {
    let contexts: String = scripts
        .iter()
        .enumerate()
        .map(|(at, script)| {
            format!(
                "assert(wasm.on_configure(assert(wasm.load('f{at}', 'probe_0_2_100.wasm', {{ {options} }})), [==[{script}]==])),"
            )
        })
        .collect();
    format!(
        r#"
            init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                assert(wasm.setup({{ upstreams = {{ service = "unix:" .. ngx.config.prefix() .. "service.sock" }} }}))
                chain = wasm.new_chain({{ {contexts} }})
            }}
            server {{ listen unix:service.sock; location / {{ return 200 "of the service"; }} }}
        "#
    )
}

/// Such a chain before a server.
fn chain(scripts: &[&str], options: &str) -> Running {
    let filters = filters(scripts, options);
    Nginx::new()
        .guest("probe_0_2_100")
        .http(&format!(
            r#"
            lua_socket_log_errors off;
            client_max_body_size 8m;
            client_body_buffer_size 16k;
            {filters}
            server {{
                listen unix:origin.sock;
                location / {{
                    client_max_body_size 8m;
                    client_body_buffer_size 16k;
                    content_by_lua_block {{
                        ngx.status = tonumber(ngx.var.arg_status) or 200
                        ngx.header["X-Origin"] = {{ "one", "two" }}
                        ngx.header["Content-Type"] = "text/xml"
                        ngx.req.read_body()
                        local body = ngx.req.get_body_data()
                        local file = ngx.req.get_body_file()
                        body = file and "file of " .. assert(io.open(file)):seek("end") or body or "-"
                        local text = ngx.req.get_method() .. " " .. ngx.var.request_uri .. " " ..
                            (ngx.req.get_headers()["x-filter"] or "-") .. " " .. body
                        ngx.header["Content-Length"] = #text
                        ngx.print(text)
                    }}
                }}
                location /cut {{
                    content_by_lua_block {{
                        ngx.header["Content-Length"] = 100
                        ngx.print("cut")
                        ngx.flush(true)
                        ngx.exit(ngx.ERROR)
                    }}
                }}
            }}
            "#
        ))
        .server(
            r#"
            location / {
                access_by_lua_block { chain:access() }
                content_by_lua_block { chain:content("unix:origin.sock") }
            }
            location /wrong { content_by_lua_block { ngx.print(select(2, pcall(chain.content, chain, "/origin"))) } }
            location /nobody { content_by_lua_block { chain:content("unix:nobody.sock") } }
            "#,
        )
        .start()
}

const CALL: &str = "http_call service '' '' '' 20000";
const GO_ON: &str = "http_call_response: continue_stream 1";

#[test]
fn a_response_is_that_of_the_server() {
    let nginx = chain(&["request_headers: add_header_map_value 0 x-filter yes"], "");
    nginx.expect_log("a client request body is buffered to a temporary file");
    let response = nginx.request("POST", "/a?b=c").body("hello").send();
    assert_eq!(response.text(), "POST /a?b=c yes hello");
    assert_eq!(response.header_all("x-origin"), ["one", "two"]);
    assert_eq!(response.header("content-type"), Some("text/xml"));
    assert_eq!(response.header("content-length"), Some("21"));
    let file = nginx.request("POST", "/").body("x".repeat(200_000)).send();
    assert_eq!(file.text(), "POST / yes file of 200000");
    let answer = nginx.request("PROPFIND", "/a%20b%3f%25%0d%c3%a4?x=%0d").send();
    assert_eq!(answer.text(), "PROPFIND /a%20b%3F%25%0D%C3%A4?x=%0d yes -");
    assert_eq!(nginx.get("/?status=404").status, 404);
    let response = nginx.request("HEAD", "/").send();
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    assert_eq!(
        nginx.get("/wrong").text(),
        "bad argument #1 to 'content' (unix:PATH or HOST:PORT expected)"
    );
}

/// SDKs leave responses alone that come from elsewhere.
#[test]
fn a_response_is_that_of_an_upstream() {
    let nginx = chain(&["response_headers: get_property response.code_details"], "");
    assert_eq!(nginx.get("/").status, 200);
    let lines = nginx.guest_log("f0");
    let line = "response_headers get_property response.code_details -> 0 via_upstream";
    assert!(lines.iter().any(|this| this == line), "{lines:#?}");
}

#[test]
fn a_filter_waits_at_the_end_of_a_body_for_a_call() {
    let script = format!(
        "response_body: {CALL}
         response_body: pause
         http_call_response: get_buffer_bytes 4 0 max
         http_call_response: set_effective_context caller
         http_call_response: get_buffer_bytes 1 0 max
         {GO_ON}"
    );
    let nginx = chain(&[&script], "");
    assert_eq!(nginx.get("/").text(), "GET / - -");
    let lines = nginx.guest_log("f0");
    for line in [
        "http_call_response get_buffer_bytes 4 0 max -> 0 of the service",
        "http_call_response get_buffer_bytes 1 0 max -> 0 GET / - -",
    ] {
        assert!(lines.iter().any(|this| this == line), "{line}: {lines:#?}");
    }
}

#[test]
fn what_it_makes_of_the_body_meanwhile_goes_on() {
    for (change, body) in [
        ("set_buffer_bytes 1 0 max changed", "changed"),
        ("inject_encoded_data_to_filter_chain before: 0", "before:GET / - -"),
    ] {
        let script = format!(
            "response_body: {CALL}
             response_body: pause
             http_call_response: set_effective_context caller
             http_call_response: {change}
             {GO_ON}"
        );
        let nginx = chain(&["# behind", &script], "");
        assert_eq!(nginx.get("/").text(), body, "{change}");
    }
}

/// As the filters do that check what a model answers: the last piece of theirs says that it is the last.
#[test]
fn a_piece_that_ends_the_body_ends_the_wait() {
    let script = format!(
        "response_body: {CALL}
         response_body: return 3
         http_call_response: set_effective_context caller
         http_call_response: inject_encoded_data_to_filter_chain 'checked ' 0
         http_call_response: inject_encoded_data_to_filter_chain piece 1"
    );
    let nginx = chain(&[&script], "");
    assert_eq!(nginx.get("/").text(), "checked piece");
}

#[test]
fn a_denial_takes_the_place_of_the_response() {
    for script in [
        format!(
            "response_body: {CALL}
             response_body: pause
             http_call_response: set_effective_context caller
             http_call_response: send_local_response 451 '' denied 'x-why=law' -1"
        ),
        "response_body: send_local_response 451 '' denied 'x-why=law' -1".into(),
        "response_headers: send_local_response 451 '' denied 'x-why=law' -1".into(),
    ] {
        let nginx = chain(&[&script], "");
        let response = nginx.get("/");
        assert_eq!((response.status, response.text().as_str()), (451, "denied"), "{script}");
        assert_eq!(response.header("x-why"), Some("law"), "{script}");
        assert_eq!(response.header("x-origin"), None, "{script}");
    }
}

#[test]
fn headers_change_by_what_is_in_the_body() {
    for script in [
        "response_headers: pause
         response_body: get_header_map_value 2 content-type
         response_body: replace_header_map_value 2 content-type application/json
         response_body: set_buffer_bytes 1 0 max {}"
            .to_string(),
        format!(
            "response_headers: pause
             response_body: {CALL}
             response_body: pause
             http_call_response: set_effective_context caller
             http_call_response: replace_header_map_value 2 content-type application/json
             http_call_response: set_buffer_bytes 1 0 max {{}}
             {GO_ON}"
        ),
    ] {
        let nginx = chain(&[&script], "");
        let response = nginx.get("/");
        assert_eq!(response.text(), "{}", "{script}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{script}");
        assert_eq!(response.header("content-length"), Some("2"), "{script}");
    }
}

/// 3 and 4 stop all: the body is told behind the answer of the call.
#[test]
fn a_pause_of_the_headers_is_waited_for() {
    for answer in [3, 4] {
        let script = format!(
            "response_headers: {CALL}
             response_headers: return {answer}
             response_body: get_buffer_status 1
             http_call_response: set_effective_context caller
             http_call_response: replace_header_map_value 2 x-origin waited
             {GO_ON}"
        );
        let nginx = chain(&[&script], "");
        let response = nginx.get("/");
        assert_eq!((response.status, response.text().as_str()), (200, "GET / - -"), "{answer}");
        assert_eq!(response.header("x-origin"), Some("waited"), "{answer}");
        let lines = nginx.guest_log("f0");
        let at = |what: &str| lines.iter().position(|line| line.starts_with(what));
        assert!(at("http_call_response").is_some(), "{answer}: {lines:#?}");
        assert!(at("http_call_response") < at("response_body"), "{answer}: {lines:#?}");
    }
}

#[test]
fn a_filter_that_fails_or_waits_too_long() {
    let waits = format!("response_body: {CALL}\nresponse_body: pause");
    let nginx = chain(&[&waits], "pause_timeout = 100");
    nginx.expect_log("failed to run proxy_on_http_response_body: ");
    let response = nginx.get("/");
    assert_eq!((response.status, response.header("x-origin")), (503, None));
    let nginx = chain(&[&waits], "pause_timeout = 100, fail = 'open'");
    nginx.expect_log("failed to run proxy_on_http_response_body: ");
    assert_eq!(nginx.get("/").text(), "GET / - -");
    let nginx = chain(&["response_headers: trap"], "");
    nginx.expect_log("failed to run proxy_on_http_response_headers: ");
    assert_eq!(nginx.get("/").status, 503);
}

#[test]
fn a_body_that_is_held_and_too_large() {
    let waits = format!(
        "response_body: {CALL}
         response_body: pause
         http_call_response: set_effective_context caller
         {GO_ON}"
    );
    for (options, status) in [("body_limit = 8", 503), ("body_limit = 9", 200)] {
        let nginx = chain(&[&waits], options);
        if status == 503 {
            nginx.expect_log("holds the response body, and it is larger than body_limit (8 bytes)");
        }
        assert_eq!(nginx.get("/").status, status, "{options}");
        // The call is made all the same.
        wait_for_lines(&nginx, "f0", 4);
    }
}

#[test]
fn a_response_that_ends_too_early_is_no_response() {
    let nginx = chain(&["# nothing"], "");
    nginx.expect_log("the response of unix:origin.sock is cut off: it ended too early");
    nginx.expect_log("lua entry thread aborted: runtime error: the response is cut off");
    let response = nginx.raw("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n");
    let text = String::from_utf8_lossy(&response);
    assert!(text.ends_with("\r\n3\r\ncut\r\n"), "{text}");
    nginx.expect_log("no response of unix:nobody.sock: ");
    nginx.expect_log("connect() to unix:nobody.sock failed");
    assert_eq!(nginx.get("/nobody").status, 502);
}

/// Such a chain before a server that the test plays.
fn streamed(scripts: &[&str], options: &str, pieces: &Pieces) -> Running {
    let filters = filters(scripts, options);
    Nginx::new()
        .guest("probe_0_2_100")
        .http(&format!(
            r#"
            lua_socket_log_errors off;
            {filters}
            "#
        ))
        .server(&format!(
            r#"location / {{
                access_by_lua_block {{ chain:access() }}
                content_by_lua_block {{ chain:content("127.0.0.1:{}") }}
            }}"#,
            pieces.port()
        ))
        .start()
}

/// By the order of events, and not by time: the server sends the next piece only when the client has seen the last one.
#[test]
fn each_piece_reaches_the_client_before_the_next_is_sent() {
    for head in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
    {
        let pieces = Pieces::new();
        let nginx =
            streamed(&["# nothing", "response_body: get_buffer_bytes 1 0 max"], "", &pieces);
        let mut client = Client::ask(&nginx);
        let mut upstream = pieces.accept_with(head);
        let chunked = head.contains("chunked");
        for number in 0..5 {
            let piece = format!("data: {number}\n\n");
            let sent = if chunked {
                format!("{:x};x=y\r\n{piece}\r\n", piece.len())
            } else {
                piece.clone()
            };
            upstream.write_all(sent.as_bytes()).expect("written");
            assert!(client.sees(&piece), "{number}: {:?}", client.text());
        }
        if chunked {
            upstream.write_all(b"0\r\nX-Trailer: a\r\n\r\n").expect("written");
        }
        drop(upstream);
        assert!(client.ends(), "{:?}", client.text());
    }
}

/// As the filters do that check what a model streams: they hold, ask, and send what was found good.
#[test]
fn a_stream_is_checked_and_goes_on() {
    let script = format!(
        "response_body@more: return 3
         response_body@more: inject_encoded_data_to_filter_chain checked 0
         response_body@eos: {CALL}
         response_body@eos: pause
         http_call_response: set_effective_context caller
         http_call_response: inject_encoded_data_to_filter_chain ' end' 1"
    );
    let pieces = Pieces::new();
    let nginx = streamed(&[&script], "", &pieces);
    let mut client = Client::ask(&nginx);
    let mut upstream = pieces.accept();
    upstream.write_all(b"one").expect("written");
    assert!(client.sees("\r\n\r\nchecked"), "{:?}", client.text());
    upstream.write_all(b"two").expect("written");
    assert!(client.sees("checkedchecked"), "{:?}", client.text());
    drop(upstream);
    assert!(client.sees("checkedchecked end"), "{:?}", client.text());
}

/// The answer of the call comes between two pieces, before anything was sent.
#[test]
fn pieces_that_come_between_those_of_the_server() {
    let script = format!(
        "response_body@first: {CALL}
         response_body@more: return 3
         http_call_response: set_effective_context caller
         http_call_response: inject_encoded_data_to_filter_chain checked 0"
    );
    let pieces = Pieces::new();
    let nginx = streamed(&[&script], "", &pieces);
    let mut client = Client::ask(&nginx);
    let mut upstream = pieces.accept();
    upstream.write_all(b"one").expect("written");
    wait_for_lines(&nginx, "f0", 4);
    upstream.write_all(b"two").expect("written");
    assert!(client.sees("\r\n\r\nchecked"), "{:?}", client.text());
}

#[test]
fn no_more_is_in_memory_than_filters_hold() {
    let pieces = Pieces::new();
    let nginx = streamed(&["response_body: get_buffer_status 1"], "body_limit = 1000", &pieces);
    let worker = nginx.worker_pids()[0];
    let piece = vec![b'x'; 1024 * 1024];
    let mut before = 0;
    for round in 0..2 {
        let mut connection = nginx.connect();
        connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut upstream = pieces.accept();
        std::thread::scope(|scope| {
            let read = scope.spawn(|| connection.read_to_end().len());
            for _ in 0..[4, 64][round] {
                upstream.write_all(&piece).expect("written");
            }
            drop(upstream);
            assert!(read.join().expect("a client") > [4, 64][round] * piece.len());
        });
        if round == 0 {
            before = nginx.peak_rss_kib(worker);
        }
    }
    let grown = nginx.peak_rss_kib(worker).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 64 MiB");
}

/// The server is not read any further, or this one would never end.
#[test]
fn what_a_filter_holds_has_a_limit() {
    for (scripts, sent, status) in [
        (&["response_body: pause"][..], false, "HTTP/1.1 503 "),
        // The first piece was sent, so all that is left is to cut the response off.
        (&["response_body: pause", "response_body: get_buffer_status 1"], false, "HTTP/1.1 503 "),
        (
            &["response_body@more: inject_encoded_data_to_filter_chain first 0
               response_body: return 2"],
            true,
            "HTTP/1.1 200 ",
        ),
    ] {
        let pieces = Pieces::new();
        let nginx = streamed(scripts, "body_limit = 100000", &pieces);
        nginx
            .expect_log("holds the response body, and it is larger than body_limit (100000 bytes)");
        if sent {
            nginx.expect_log("the response is cut off: a filter failed");
        }
        let mut connection = nginx.connect();
        connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut upstream = pieces.accept();
        let piece = vec![b'x'; 10_000];
        let stopped = poll(|| upstream.write_all(&piece).is_err().then_some(()));
        assert!(stopped.is_some(), "nginx reads on");
        let answer = String::from_utf8_lossy(&connection.read_to_end()).into_owned();
        assert!(answer.starts_with(status), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n") || !sent, "{answer}");
    }
}

#[test]
fn what_a_filter_held_goes_on_when_it_fails_open() {
    for (end, failure) in [
        (
            format!("response_body@eos: {CALL}\nresponse_body@eos: pause"),
            "nothing let it go on within 100 ms",
        ),
        ("response_body@eos: trap".into(), "wasm trap"),
    ] {
        let script = format!("response_body@more: pause\n{end}");
        let pieces = Pieces::new();
        let nginx = streamed(&[&script], "fail = 'open', pause_timeout = 100", &pieces);
        nginx.expect_log("failed to run proxy_on_http_response_body: ");
        let mut client = Client::ask(&nginx);
        let mut upstream = pieces.accept();
        for piece in ["one ", "two ", "three"] {
            upstream.write_all(piece.as_bytes()).expect("written");
            std::thread::yield_now();
        }
        drop(upstream);
        assert!(client.sees("\r\n\r\none two three"), "{failure}: {:?}", client.text());
    }
}

#[test]
fn a_filter_ends_the_response_before_the_server_does() {
    let script = "response_body@first: inject_encoded_data_to_filter_chain 'the answer' 1
                  response_body: return 3";
    let pieces = Pieces::new();
    let nginx = streamed(&["response_body: get_buffer_bytes 1 0 max", script], "", &pieces);
    let mut connection = nginx.connect();
    connection.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = pieces.accept();
    upstream.write_all(b"event one").expect("written");
    assert_eq!(connection.response().text(), "the answer");
    let stopped = poll(|| upstream.write_all(b"event").is_err().then_some(()));
    assert!(stopped.is_some(), "nginx reads on");
}

#[test]
fn servers_that_answer_what_is_no_http() {
    for (head, why) in [
        ("SSH-2.0\r\n\r\n", "the response has no status"),
        ("HTTP/1.1 20\r\n\r\n", "the response has no status"),
        ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", "the response has a bad header"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "the response has a bad header"),
        ("HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", "the response has a bad header"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "that is not known"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "a bad content-length",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "a bad content-length"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "the server switches the protocol"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "the response has a bad chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            "the response has a bad chunk",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "it ended too early (closed)"),
    ] {
        let pieces = Pieces::new();
        let nginx = streamed(&["# nothing"], "", &pieces);
        nginx.expect_log(why);
        let mut connection = nginx.connect();
        connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        drop(pieces.accept_with(head));
        assert_eq!(connection.response().status, 502, "{head:?}");
    }
    // Without end.
    let pieces = Pieces::new();
    let nginx = streamed(&["# nothing"], "", &pieces);
    nginx.expect_log("a line or a head is too long");
    let mut connection = nginx.connect();
    connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut upstream = pieces.accept_with("HTTP/1.1 200 OK\r\nA: ");
    let piece = vec![b'x'; 10_000];
    let stopped = poll(|| upstream.write_all(&piece).is_err().then_some(()));
    assert!(stopped.is_some(), "nginx reads on");
    assert_eq!(connection.response().status, 502);
    // Before the response there may be others.
    let pieces = Pieces::new();
    let nginx = streamed(&["# nothing"], "", &pieces);
    let mut connection = nginx.connect();
    connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    drop(
        pieces
            .accept_with("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    );
    assert_eq!(connection.response().status, 204);
}
