//! proxy_http_call: calls out of every phase, what comes back, and what becomes of the request that waits.

use super::ops::wait_for;
use super::support::{Nginx, Outcome, Probe, Running, Server, valgrind};

/// Echoes requests with their bodies, answers in odd ways at other paths.
fn upstreams(nginx: Nginx) -> Nginx {
    nginx.http(
        r#"
        # Failed calls are told by the library, and by nginx too unless this is off.
        lua_socket_log_errors off;
        server {
            listen unix:upstream.sock;
            location /slow {
                lua_check_client_abort on;
                content_by_lua_block {
                    ngx.on_abort(function() ngx.log(ngx.NOTICE, "the call was given up") ngx.exit(499) end)
                    ngx.sleep(10)
                    ngx.print("late")
                }
            }
            location /status { return 418 "teapot"; }
            location /chunked {
                content_by_lua_block {
                    for i = 1, 3 do ngx.print("part ", i, ";") ngx.flush(true) end
                }
            }
            location /cut {
                content_by_lua_block {
                    ngx.header["Content-Length"] = 100
                    ngx.print("cut off")
                    ngx.flush(true)
                    ngx.exit(ngx.ERROR)
                }
            }
            location /count { content_by_lua_block { ngx.print(ngx.var.connection_requests) } }
        }
        "#,
    )
}

fn probe(script: &str) -> Probe {
    Probe::new(script).nginx(upstreams)
}

fn call(path: &str, timeout: u32) -> String {
    format!("http_call unix:@PREFIX@upstream.sock ':path={path}' '' '' {timeout}")
}

/// A request whose filter waits for a call, and lets it continue when the call is over.
fn waiting(path: &str, timeout: u32) -> Outcome {
    let call = call(path, timeout);
    probe(&format!(
        "request_headers: {call}
         request_headers: pause
         http_call_response: args
         http_call_response: get_status
         http_call_response: get_header_map_value 6 :status
         http_call_response: get_buffer_bytes 4 0 max
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0"
    ))
    .run()
}

fn answers(run: &Outcome) -> Vec<String> {
    let lines = run.of("http_call_response");
    lines[..4].iter().map(|line| line.split_once(" -> ").expect("an answer").1.into()).collect()
}

#[test]
fn a_request_waits_for_the_response() {
    for (path, status, body) in
        [("/status", "418", "teapot"), ("/chunked", "200", "part 1;part 2;part 3;")]
    {
        let run = waiting(path, 5000);
        assert_eq!(run.response.status, 200);
        let [args, state, got, bytes] = &answers(&run)[..] else { panic!("four answers") };
        assert!(args.starts_with("token=1 headers="), "{args}");
        assert!(args.ends_with(&format!("body_size={} trailers=0", body.len())), "{args}");
        assert_eq!((state.as_str(), got), ("0 0 ''", &format!("0 {status}")));
        assert_eq!(*bytes, format!("0 {body}"));
    }
}

#[test]
fn the_upstream_gets_what_the_filter_asked_for() {
    let run = Probe::new(
        "request_headers: http_call unix:@PREFIX@echo.sock \
            ':method=POST|:path=/call?x=1|:authority=auth.test|x-a=1|x-a=2|connection=x-hop|x-hop=1' hello '' 5000
         request_headers: pause
         http_call_response: get_buffer_bytes 4 0 max
         http_call_response: set_effective_context caller
         http_call_response: add_header_map_value 0 x-auth granted
         http_call_response: continue_stream 0",
    )
    .run();
    let echoed = run.of("http_call_response")[0].clone();
    for part in [
        "POST /call?x=1 HTTP/1.1\\x0d\\x0a",
        "host: auth.test\\x0d\\x0a",
        "x-a: 1\\x0d\\x0ax-a: 2\\x0d\\x0a",
        "content-length: 5\\x0d\\x0a",
        "\\x0d\\x0a\\x0d\\x0ahello",
    ] {
        assert!(echoed.contains(part), "{part} in {echoed}");
    }
    assert!(!echoed.contains("x-hop"), "{echoed}");
    assert!(run.response.text().contains("x-auth: granted\r\n"), "{}", run.response.text());
}

#[test]
fn the_callback_may_answer_in_place_of_the_upstream() {
    let call = call("/status", 5000);
    let run = probe(&format!(
        "request_headers: {call}
         request_headers: pause
         http_call_response: set_effective_context caller
         http_call_response: send_local_response 403 denied 'no entry' 'x-why=call' -1"
    ))
    .run();
    assert_eq!((run.response.status, run.response.text().as_str()), (403, "no entry"));
    assert_eq!(run.response.header_all("x-why"), ["call"]);
}

#[test]
fn calls_that_fail() {
    for (path, timeout, word) in [("/slow", 100, "timeout"), ("/cut", 5000, "closed")] {
        let run = waiting(path, timeout);
        run.nginx.expect_log(&format!("upstream.sock failed: {word}"));
        assert_eq!(run.response.status, 200);
        let [args, status, got, body] = &answers(&run)[..] else { panic!("four answers") };
        assert_eq!(*status, format!("0 11 {word}"));
        if path == "/cut" {
            // After its head.
            assert_eq!(args, "token=1 headers=0 body_size=0 trailers=0");
            assert_eq!((got.as_str(), body.as_str()), ("1", "1"), "nothing is there");
        } else {
            assert_eq!(args, "token=1 headers=3 body_size=24 trailers=0");
            assert_eq!((got.as_str(), body.as_str()), ("0 504", "0 upstream request timeout"));
        }
    }
    let refused = "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    for (upstream, word, body) in [
        ("unix:@PREFIX@none.sock", "connect", refused),
        ("127.0.0.1:1", "connect", refused),
        ("no-such-host.invalid", "resolver", "no healthy upstream"),
    ] {
        let run = probe(&format!(
            "request_headers: http_call {upstream} '' '' '' 5000
             request_headers: pause
             http_call_response: get_status
             http_call_response: get_header_map_value 6 :status
             http_call_response: get_buffer_bytes 4 0 max
             http_call_response: set_effective_context caller
             http_call_response: continue_stream 0"
        ))
        .run();
        run.nginx.expect_log(&format!(" failed: {word}"));
        if upstream.starts_with("unix:") {
            // nginx tells of it by itself.
            run.nginx.expect_log(" connect() ");
        }
        assert_eq!(run.response.status, 200);
        assert_eq!(
            run.of("http_call_response")[..3],
            [
                format!("get_status -> 0 11 {word}"),
                "get_header_map_value 6 :status -> 0 503".into(),
                format!("get_buffer_bytes 4 0 max -> 0 {body}"),
            ]
        );
    }
}

#[test]
fn a_timeout_of_0_is_no_timeout() {
    let run = waiting("/status", 0);
    assert_eq!(answers(&run)[1..3], ["0 0 ''", "0 418"]);
}

#[test]
fn calls_that_cannot_be_made_are_refused_at_once() {
    let name = "neither a registered upstream nor the name of a host";
    for (op, answer, warning) in [
        ("http_call upstream '' '' '' -1", "2", None),
        (r"http_call_raw upstream '\x01\0\0\0' '' '' 1000", "2", None),
        ("http_call '' '' '' '' 1000", "2", Some(name)),
        ("http_call 'a b' '' '' '' 1000", "2", Some(name)),
        ("http_call upstream :method=CONNECT '' '' 1000", "2", Some("bad :method")),
    ] {
        let run = probe(&format!("request_headers: {op}")).run();
        if let Some(warning) = warning {
            run.nginx.expect_log(warning);
        }
        assert_eq!(run.response.status, 200);
        assert!(run.of("request_headers")[0].ends_with(&format!(" -> {answer}")), "{op}");
    }
}

/// A client decides about the headers that a filter hands on, and not whether the filter can ask.
#[test]
fn headers_that_cannot_be_sent_are_left_out() {
    let headers = format!(
        r"a b=c|x-sound=1|x-split=b\r\nx-injected: 1|x-control=\x01|connection={}x-hop|x-hop=1",
        "a,".repeat(4000)
    );
    let run = Probe::new(&format!(
        "request_headers: http_call unix:@PREFIX@echo.sock '{headers}' '' '' 20000
         request_headers: pause
         http_call_response: get_buffer_bytes 4 0 max
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0"
    ))
    .run();
    run.nginx.expect_log(
        "a call is made without headers that are not allowed or too many: \"a b\", \"x-split\", \"x-control\"",
    );
    assert_eq!(run.response.status, 200);
    let echoed = run.of("http_call_response")[0].clone();
    assert!(echoed.contains(r"\x0ax-sound: 1\x0d"), "{echoed}");
    for name in ["x-injected", "x-split", "x-control", "x-hop", "a b"] {
        assert!(!echoed.contains(name), "{name}: {echoed}");
    }
}

#[test]
fn calls_run_in_parallel_and_each_answer_finds_its_stream() {
    let (one, two, three) = (call("/status", 5000), call("/chunked", 5000), call("/count", 5000));
    let nginx = probe(&format!(
        "request_headers: {one}
         request_headers: {two}
         request_headers: {three}
         request_headers: pause
         http_call_response: args
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0"
    ))
    .start();
    let mut connections: Vec<_> = (0..20).map(|_| nginx.connect()).collect();
    for connection in &mut connections {
        connection.write(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    }
    for mut connection in connections {
        let answer = connection.read_to_end();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
    }
    // The first answer of each lets its request continue; the others come in time or are dropped.
    let lines = wait_for(&nginx, "http_call_response", 60);
    let answered = lines.iter().filter(|line| line.starts_with("continue_stream")).count();
    assert!(answered >= 20, "{answered}");
}

#[test]
fn connections_are_kept() {
    let call = call("/count", 5000);
    let nginx = probe(&format!(
        "request_headers: {call}
         request_headers: pause
         http_call_response: get_buffer_bytes 4 0 max
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0"
    ))
    .start();
    for i in 1..=3 {
        assert_eq!(nginx.get("/").status, 200);
        let lines = wait_for(&nginx, "http_call_response", 3 * i);
        assert_eq!(lines[3 * (i - 1)], format!("get_buffer_bytes 4 0 max -> 0 {i}"));
    }
}

#[test]
fn calls_from_other_phases_arrive_on_the_plugin_context() {
    for callback in ["response_headers", "response_body@eos", "log", "done"] {
        let call = call("/status", 5000);
        let nginx: Running = probe(&format!(
            "{callback}: {call}
             http_call_response: ids
             http_call_response: get_header_map_value 6 :status"
        ))
        .start();
        assert_eq!(nginx.get("/").status, 200);
        let stays = callback == "log" || callback == "done";
        if stays {
            let lines = wait_for(&nginx, "http_call_response", 2);
            assert_eq!(
                lines,
                ["ids -> id=1 root=1", "get_header_map_value 6 :status -> 0 418"],
                "{callback}"
            );
        } else {
            // Nothing tells when this call is made, and nginx may have closed the upstream by then.
            nginx.may_log("upstream.sock failed");
        }
        let name = callback.split('@').next().expect("a name");
        let calls = wait_for(&nginx, name, 1);
        assert!(calls[0].ends_with(" -> 0 1"), "{calls:?}");
    }
}

#[test]
fn a_stream_that_ends_drops_its_call() {
    let call = call("/slow", 20_000);
    let script = format!("request_headers: {call}\nhttp_call_response: ids");
    let nginx = probe(&script).options("calls_hold = false").start();
    for _ in 0..3 {
        assert_eq!(nginx.get("/").status, 200);
    }
    // The upstream sees its connections closed, long before it answers.
    nginx.wait_for_log("the call was given up");
    assert_eq!(
        nginx.guest_log("probe").iter().filter(|l| l.contains("http_call_response")).count(),
        0
    );
}

#[test]
fn calls_from_on_configure_of_a_worker_arrive_without_a_request() {
    let nginx = upstreams(Nginx::new())
        .guest("probe")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                local script = [[
                    configure: http_call unix:@PREFIX@upstream.sock :path=/status '' '' 5000
                    http_call_response: ids
                    http_call_response: get_header_map_value 6 :status
                    http_call_response@first: http_call unix:@PREFIX@upstream.sock :path=/count '' '' 5000
                ]]
                script = script:gsub("@PREFIX@", ngx.config.prefix())
                ctx = assert(wasm.on_configure(assert(wasm.load("probe", "probe.wasm", { calls = { allow = { "unix:*" } } })), script))
            }
            init_worker_by_lua_block { assert(wasm.init_worker()) }
            "#,
        )
        .server("location / { return 200; }")
        .start();
    // The call that the check in the master asked for is not made: the worker's is, and one that its response asked for.
    let lines = wait_for(&nginx, "http_call_response", 5);
    assert_eq!(lines[1], "get_header_map_value 6 :status -> 0 418");
    assert!(lines[2].ends_with(" -> 0 2"), "{lines:?}");
    assert_eq!(lines[4], "get_header_map_value 6 :status -> 0 200");
}

/// Jobs have their share of the time, and who reads a response rests after each piece once it is used up. The light thread
/// of jobs begins the next round, whether it has anything to do by itself or not.
#[test]
fn a_large_response_waits_for_no_other_job() {
    const SIZE: usize = 12 << 20;
    if valgrind() {
        return;
    }
    let server = Server::start("127.0.0.1", |peer| {
        peer.send(format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {SIZE}\r\n\r\n"
        ));
        peer.send(vec![b'x'; SIZE]);
    });
    let upstream = server.as_ref().expect("a server").address();
    let script = format!(
        "request_headers: http_call {upstream} '' '' '' 20000
         request_headers: pause
         http_call_response: args
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0"
    );
    // Counts who sleeps: the light thread that reads, and that of jobs between two rounds.
    let nginx = Nginx::new()
        .guest("probe")
        .http(&format!(
            r#"
            init_by_lua_block {{
                sleeps = {{ call = 0, jobs = 0 }}
                local sleep = ngx.sleep
                function ngx.sleep(seconds)
                    local who = debug.getinfo(2, "S").source:match("(%w+)%.lua$")
                    sleeps[who] = sleeps[who] + 1
                    return sleep(seconds)
                end
                wasm = require("resty.proxy-wasm")
                ctx = assert(wasm.on_configure(assert(wasm.load("probe", "probe.wasm")), [==[{script}]==]))
            }}
            "#
        ))
        .server(
            r#"
            location / {
                access_by_lua_block { assert(wasm.on_http_request_headers(ctx)) }
                content_by_lua_block { ngx.print(sleeps.call, " ", sleeps.jobs) }
            }
            "#,
        )
        .start();
    let answer = nginx.get("/").text();
    let (reader, jobs) = answer.split_once(' ').expect("two numbers");
    let number = |text: &str| text.parse::<u32>().expect("a number");
    let (reader, jobs) = (number(reader), number(jobs));
    let size = format!("body_size={SIZE}");
    assert_eq!(nginx.guest_log("probe").iter().filter(|line| line.contains(&size)).count(), 1);
    // It rests as the other does, and now and then it wakes first. Without that it rests after each of some hundred pieces.
    assert!(reader <= 4 * (jobs + 1), "{reader} rests of the reader, and {jobs} rounds");
}
