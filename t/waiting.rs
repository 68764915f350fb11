//! Requests that wait for their filter: who lets them continue, many at once, and clients that do not wait.

use super::ops::{of, wait_for};
use super::support::{Nginx, Probe, Running, poll};
use std::fs;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";

/// A location whose filter callback is on_http_request_body alone, to let the others continue.
const GO: &str = r#"
    location /go {
        content_by_lua_block {
            probe.call("on_http_request_body", probe.ctx, "go", true)
            ngx.print("gone")
        }
    }
"#;

/// Streams 2 and up wait, each on its connection.
fn waiting(nginx: &Running, count: usize) -> Vec<super::support::Connection> {
    let mut connections = Vec::new();
    for i in 1..=count {
        let mut connection = nginx.connect();
        connection.write(GET);
        connections.push(connection);
        wait_for(nginx, "request_headers", i);
    }
    connections
}

#[test]
fn one_tick_resumes_ten_and_answers_five() {
    let mut script = String::from(
        "request_headers: pause
         request_body: set_effective_context 1
         request_body: set_tick_period_milliseconds 10
         tick: set_tick_period_milliseconds 0\n",
    );
    for id in 2..=16 {
        script += &format!("tick: set_effective_context {id}\n");
        script += &if id % 3 == 0 {
            format!("tick: send_local_response 403 denied 'no {id}' 'x-id={id}' -1\n")
        } else {
            format!("tick: add_header_map_value 0 x-id {id}\ntick: continue_stream 0\n")
        };
    }
    let nginx = Probe::new(&script).nginx(|nginx| nginx.server(GO)).start();
    let connections = waiting(&nginx, 15);
    assert_eq!(nginx.get("/go").text(), "gone");
    for (mut connection, id) in connections.into_iter().zip(2..) {
        let response = connection.response();
        if id % 3 == 0 {
            assert_eq!((response.status, response.text()), (403, format!("no {id}")));
            assert_eq!(response.header_all("x-id"), [id.to_string()]);
        } else {
            assert_eq!(response.status, 200);
            assert!(response.text().contains(&format!("x-id: {id}\r\n")), "{}", response.text());
        }
    }
    assert!(of(&nginx, "tick").iter().all(|line| line.ends_with(" -> 0")));
}

#[test]
fn the_response_of_a_call_of_the_plugin_context_resumes_a_request() {
    let nginx = Probe::new(
        "request_headers: pause
         request_body: set_effective_context 1
         request_body: set_tick_period_milliseconds 10
         tick: set_tick_period_milliseconds 0
         tick: http_call unix:@PREFIX@echo.sock '' '' '' 20000
         http_call_response: ids
         http_call_response: set_effective_context 2
         http_call_response: continue_stream 0",
    )
    .nginx(|nginx| nginx.server(GO))
    .start();
    let mut connection = waiting(&nginx, 1).remove(0);
    assert_eq!(nginx.get("/go").text(), "gone");
    assert_eq!(connection.response().status, 200);
    assert_eq!(wait_for(&nginx, "http_call_response", 1)[0], "ids -> id=1 root=1");
}

/// What a client that goes away leaves of a request that waits.
fn left_alone(check: &str, options: &str) -> Running {
    let nginx = Probe::new(
        "request_headers: http_call unix:@PREFIX@slow.sock '' '' '' 60000
         request_headers: pause
         done: ids
         log: ids
         delete: ids
         http_call_response: ids",
    )
    .options(options)
    .nginx(|nginx| {
        nginx.server(check).http(
            r#"
            lua_socket_log_errors off;
            server {
                listen unix:slow.sock;
                location / {
                    lua_check_client_abort on;
                    content_by_lua_block {
                        ngx.on_abort(function()
                            ngx.log(ngx.NOTICE, "the call was given up")
                            ngx.exit(499)
                        end)
                        ngx.log(ngx.NOTICE, "the call has come")
                        ngx.sleep(100)
                    }
                }
            }
            "#,
        )
    })
    .start();
    let connection = waiting(&nginx, 1);
    nginx.wait_for_log("the call has come");
    drop(connection);
    nginx
}

#[test]
fn a_client_that_goes_away_ends_its_stream_and_its_calls() {
    // Found at once where nginx looks, and else when the wait is over.
    for (check, options) in [
        ("lua_check_client_abort on;", "pause_timeout = 60000"),
        ("lua_check_client_abort off;", "pause_timeout = 3000"),
    ] {
        let nginx = left_alone(check, options);
        for callback in ["done", "log", "delete"] {
            assert_eq!(wait_for(&nginx, callback, 1), ["ids -> id=2 root=1"], "{check}");
        }
        nginx.wait_for_log("the call was given up");
        assert!(of(&nginx, "http_call_response").is_empty());
    }
}

/// docs/operations.md says when the access log has such a request, and with which status.
#[test]
fn the_log_of_a_request_whose_client_left() {
    let check = "lua_check_client_abort on; access_log logs/access.log;";
    let nginx = left_alone(check, "pause_timeout = 60000");
    let lines = || fs::read_to_string(nginx.path("logs/access.log")).unwrap_or_default();
    assert!(poll(|| lines().contains("\" 499 ").then_some(())).is_some(), "{}", lines());
    nginx.wait_for_log("its stream ended");
}

#[test]
fn a_worker_that_is_to_end_makes_the_calls_of_its_requests() {
    let call = "http_call unix:@PREFIX@slow.sock '' '' '' 20000";
    let nginx = Probe::new(&format!(
        "request_headers: {call}
         request_headers: pause
         http_call_response@first: {call}
         http_call_response@again: set_effective_context 2
         http_call_response@again: continue_stream 0"
    ))
    .nginx(|nginx| {
        nginx.http(
            r#"
            server {
                listen unix:slow.sock;
                location / {
                    content_by_lua_block {
                        ngx.log(ngx.NOTICE, "the call has come")
                        ngx.sleep(0.5)
                    }
                }
            }
            "#,
        )
    })
    .start();
    let mut connection = waiting(&nginx, 1).remove(0);
    nginx.wait_for_log("the call has come");
    nginx.reload();
    assert_eq!(connection.response().status, 200);
}

/// Open descriptors of a process.
fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count()
}

/// Resident memory of a process in KiB.
fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let (_, rest) = status.split_once("VmRSS:").expect("its memory");
    rest.split_whitespace().next().expect("a number").parse().expect("a number")
}

#[test]
fn five_hundred_requests_wait_for_three_calls_each() {
    const REQUESTS: usize = 500;
    let nginx = Nginx::new()
        .wat("three_calls")
        .connections(8192)
        .http(
            r#"
            lua_max_running_timers 4096;
            init_by_lua_block {
                wasm, arrived = require("resty.proxy-wasm"), 0
                local sock = "unix:" .. ngx.config.prefix() .. "part.sock"
                wasm.setup({ upstreams = { part = sock } })
                ctx = assert(wasm.on_configure(assert(wasm.load("three_calls", "three_calls.wasm", { time_limit = 60000 }))))
            }
            server {
                listen unix:part.sock backlog=4096;
                location / {
                    # Answers only once all are there, so that all wait at once.
                    content_by_lua_block {
                        arrived = arrived + 1
                        local all = math.ceil(arrived / CALLS) * CALLS
                        while arrived < all do ngx.sleep(0.01) end
                        ngx.print("part")
                    }
                }
            }
            "#
            .replace("CALLS", &(3 * REQUESTS).to_string())
            .as_str(),
        )
        .server(
            r#"
            location / {
                access_by_lua_block { assert(wasm.on_http_request_headers(ctx)) }
                content_by_lua_block { ngx.print(ngx.req.get_headers()["x-sum"]) }
            }
            location /pool { content_by_lua_block { ngx.print("ok") } }
            "#,
        )
        .start();
    let pid = nginx.worker_pids()[0];
    let round = || {
        let mut connections: Vec<_> = (0..REQUESTS).map(|_| nginx.connect()).collect();
        for connection in &mut connections {
            connection.write(GET);
        }
        for mut connection in connections {
            let response = connection.response();
            // Three bodies of four bytes.
            assert_eq!((response.status, response.text().as_str()), (200, "12"));
        }
    };
    // The collector runs when it will: the least of some rounds tells.
    let least = |rounds: usize| {
        let sizes = (0..rounds).map(|_| {
            round();
            resident(pid)
        });
        sizes.min().expect("a round")
    };
    // Lua's heap and nginx's pools find their size.
    least(5);
    let resident_before = least(4);
    let before = (descriptors(pid), resident_before);
    least(2);
    let after = least(4);
    // Connections of clients close a moment after their answers.
    let settled = poll(|| (descriptors(pid) <= before.0).then_some(()));
    assert!(settled.is_some(), "{} descriptors, {} before", descriptors(pid), before.0);
    assert!(after < before.1 + 4096, "{after} KiB, {} before", before.1);
}

/// Lua frees what a light thread waited on when it kills the thread. What is made next may be at the same address, and must
/// not be posted when the filter lets its request continue.
#[test]
fn a_request_that_waits_no_more_is_not_woken_nor_another_in_its_place() {
    let nginx = Probe::new(
        "request_headers: pause
         request_headers: ids
         request_body: set_effective_context 2
         request_body: continue_stream 0",
    )
    .nginx(|nginx| {
        nginx.server(GO).server(
            r#"
            location /other {
                content_by_lua_block {
                    local semaphore = require("ngx.semaphore")
                    local function waits()
                        probe.call("on_http_request_headers", probe.ctx)
                        ngx.log(ngx.NOTICE, "it went on")
                    end
                    for _ = 1, 3 do
                        local thread = ngx.thread.spawn(waits)
                        assert(ngx.thread.kill(thread))
                    end
                    collectgarbage()
                    collectgarbage()
                    local others = {}
                    for i = 1, 100 do
                        others[i] = semaphore.new(0)
                    end
                    ngx.location.capture("/go")
                    local posted = 0
                    for i = 1, 100 do
                        posted = posted + others[i]:count()
                    end
                    ngx.print(posted, " posted")
                }
            }
            "#,
        )
    })
    .start();
    assert_eq!(nginx.get("/other").text(), "0 posted");
    assert!(of(&nginx, "request_body").iter().all(|line| line.ends_with(" -> 0")));
    assert!(!nginx.logged("it went on"));
}

/// A request that another of its light threads ends, while a filter holds it.
#[test]
fn a_request_that_ends_while_it_waits_leaves_nothing_to_wake() {
    let nginx = Probe::new(
        "request_headers: http_call unix:@PREFIX@slow.sock '' '' '' 20000
         request_headers: pause
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0",
    )
    .nginx(|nginx| {
        nginx
            .http("lua_socket_log_errors off; server { listen unix:slow.sock; location / { content_by_lua_block { ngx.sleep(0.2) } } }")
            .server(
                r#"
                location /exit {
                    content_by_lua_block {
                        ngx.thread.spawn(function() probe.call("on_http_request_headers", probe.ctx) end)
                        ngx.print("exits")
                        ngx.exit(200)
                    }
                }
                location /fails {
                    content_by_lua_block {
                        ngx.thread.spawn(function() probe.call("on_http_request_headers", probe.ctx) end)
                        error("on purpose")
                    }
                }
                location /posted {
                    content_by_lua_block {
                        local semaphore = require("ngx.semaphore")
                        collectgarbage()
                        collectgarbage()
                        local others, posted = {}, 0
                        for i = 1, 100 do
                            others[i] = semaphore.new(0)
                        end
                        ngx.sleep(0.5)
                        for i = 1, 100 do
                            posted = posted + others[i]:count()
                        end
                        ngx.print(posted, " posted")
                    }
                }
                "#,
            )
    })
    .start();
    nginx.expect_log("on purpose");
    assert_eq!(nginx.get("/exit").text(), "exits");
    assert_eq!(nginx.get("/fails").status, 500);
    assert_eq!(nginx.get("/posted").text(), "0 posted");
}

/// What two light threads of one request were told by the same filter. `between` runs when both have called it.
fn two_threads(script: &str, options: &str, between: &str) -> String {
    let nginx = Probe::new(script)
        .options(options)
        .nginx(|nginx| {
            nginx.server(GO).server(&format!(
                "location /threads {{
                     content_by_lua_block {{
                         local wasm = require('resty.proxy-wasm')
                         local function waits()
                             local ok, err = wasm.on_http_request_headers(probe.ctx)
                             return ok and 'went on' or err
                         end
                         local a, b = ngx.thread.spawn(waits), ngx.thread.spawn(waits)
                         {between}
                         local _, one = ngx.thread.wait(a)
                         local _, other = ngx.thread.wait(b)
                         ngx.print(one, '|', other)
                     }}
                 }}"
            ))
        })
        .start();
    nginx.get("/threads").text()
}

const LET_GO: &str = "request_body: set_effective_context 2; request_body: continue_stream 0";

#[test]
fn light_threads_of_one_request_continue_together() {
    let go = "ngx.location.capture('/go')";
    let paused = format!("request_headers: pause; {LET_GO}");
    assert_eq!(two_threads(&paused, "", go), "went on|went on");
    // The second one is not held, and neither is the first any more.
    assert_eq!(two_threads("request_headers@first: pause", "", ""), "went on|went on");
    let resumed = "request_headers: pause; request_headers@again: continue_stream 0";
    assert_eq!(two_threads(resumed, "", ""), "went on|went on");
    // One that is killed holds up no other.
    let killed = "ngx.thread.kill(a) a = ngx.thread.spawn(function() return 'killed' end) collectgarbage() collectgarbage()"
        .to_string()
        + go;
    assert_eq!(two_threads(&paused, "", &killed), "killed|went on");
    let call = "request_headers: http_call unix:@PREFIX@echo.sock '' '' '' 20000; request_headers: pause
                http_call_response: set_effective_context caller; http_call_response: continue_stream 0";
    assert_eq!(two_threads(call, "", ""), "went on|went on");
    let denied = "request_headers: http_call unix:@PREFIX@echo.sock '' '' '' 20000; request_headers: pause
                  http_call_response: set_effective_context caller; http_call_response: send_local_response 403 '' no '' max";
    assert_eq!(two_threads(denied, "", ""), "no");
}

#[test]
fn light_threads_of_one_request_give_up_each_for_itself() {
    let told = two_threads("request_headers: pause", "pause_timeout = 200", "");
    let failed = "failed to run proxy_on_http_request_headers: the filter paused the request, and nothing let it go on \
                  within 200 ms";
    assert_eq!(told, format!("{failed}|{failed}"));
}
