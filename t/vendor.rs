//! What a vendor's ABI 0.2.100 adds besides Redis: foreign functions, properties, answers of callbacks, hosts.

use super::support::{Nginx, Outcome, Probe, Running};

fn probe(script: &str) -> Probe {
    Probe::new(script).guest("probe_0_2_100")
}

fn run(script: &str) -> Outcome {
    probe(script).run()
}

#[test]
fn foreign_functions_of_the_host() {
    let run = run("
        request_headers: call_foreign_function get_log_level
        request_headers: call_foreign_function clear_route_cache x
        request_headers: call_foreign_function set_global_max_requests_per_io_cycle '\\x14\\0\\0\\0\\0\\0\\0\\0'
        request_headers: call_foreign_function compress aaaaaaaaaa
        request_headers: call_foreign_function uncompress 'x\\x9cKL\\x84\\x01\\0\\x14\\xe1\\x03\\xcb'
        request_headers: call_foreign_function uncompress 'no zlib'
        request_headers: call_foreign_function nothing");
    let lines = run.of("request_headers");
    let statuses: Vec<_> =
        lines.iter().filter_map(|line| line.split_once(" -> ")).map(|(_, answer)| answer).collect();
    assert_eq!(
        statuses,
        [
            "0 \\x02\\x00\\x00\\x00",
            "0 ''",
            "0 ''",
            "0 x\\x9cKL\\x84\\x01\\x00\\x14\\xe1\\x03\\xcb",
            "0 aaaaaaaaaa",
            "3",
            "1",
        ]
    );
}

#[test]
fn functions_that_the_host_has_not_are_warned_of_once() {
    let nginx = probe(
        "request_headers: call_foreign_function expr_create a
         request_headers: call_foreign_function expr_evaluate a
         request_headers: call_foreign_function declare_property a
         request_headers: call_foreign_function set_envoy_filter_state a",
    )
    .start();
    nginx.expect_log("the host evaluates no expressions of CEL");
    nginx.expect_log("the host has neither declare_property nor set_envoy_filter_state");
    let response = nginx.get("/");
    nginx.stop();
    let run = Outcome { nginx, response };
    assert!(run.of("request_headers").iter().all(|line| line.ends_with(" -> 1")));
    assert_eq!(run.nginx.log_texts("proxy_on_request_headers: the host ").len(), 2);
}

#[test]
fn a_function_of_lua_comes_before_the_hosts() {
    let run = probe("request_headers: call_foreign_function get_log_level")
        .init(r#"wasm.register_foreign_function("get_log_level", function() return "mine" end)"#)
        .run();
    assert_eq!(run.of("request_headers"), ["call_foreign_function get_log_level -> 0 mine"]);
}

#[test]
fn properties() {
    let nginx = probe(
        "request_headers: get_property_int plugin_vm_memory
         request_headers: get_property x_request_id
         request_headers: get_property route_name
         request_headers: get_property cluster_name",
    )
    .content(
        "set $route_name my-route; proxy_pass http://unix:echo.sock; proxy_set_header Connection close;",
    )
    .start();
    let response = nginx.request("GET", "/").header("x-request-id", "abc").send();
    nginx.stop();
    let lines = Outcome { nginx, response }.of("request_headers");
    let memory: u64 = lines[0].rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!(memory >= 65536 && memory.is_multiple_of(65536), "{memory}");
    assert_eq!(
        lines[1..],
        [
            "get_property x_request_id -> 0 abc",
            "get_property route_name -> 0 my-route",
            "get_property cluster_name -> 1",
        ]
    );
}

#[test]
fn properties_for_access_logs() {
    let nginx = probe(
        "request_headers: set_property trace_span_tag\\.rag-docs 3
         request_headers: set_property ai_log '{\"a\":1}'
         request_headers: set_property trace_span_tag\\.other 4
         request_headers: get_property trace_span_tag\\.other",
    )
    .nginx(|nginx| {
        nginx.http("log_format tags escape=none '[$trace_span_tag_rag_docs] [$ai_log]';")
    })
    .content(
        r#"set $trace_span_tag_rag_docs ""; set $ai_log ""; access_log logs/access.log tags;
           proxy_pass http://unix:echo.sock; proxy_set_header Connection close;"#,
    )
    .start();
    nginx.get("/");
    nginx.stop();
    let log = std::fs::read_to_string(nginx.path("logs/access.log")).expect("a log");
    assert_eq!(log, "[3] [{\"a\":1}]\n");
    let other = "request_headers get_property trace_span_tag\\.other -> 0 4";
    assert!(nginx.guest_log("probe").iter().any(|line| line == other));
}

/// A chain of one filter before a server that answers with the body that it got.
fn chain(script: &str, options: &str, http: &str) -> Running {
    Nginx::new()
        .guest("probe_0_2_100")
        .http(http)
        .http(&format!(
            r#"init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("probe", "probe_0_2_100.wasm", {{ {options} }}))
                chain = wasm.new_chain({{ assert(wasm.on_configure(plugin, [==[{script}]==])) }})
            }}"#
        ))
        .server(
            "location / {
                access_by_lua_block { chain:access() }
                content_by_lua_block { ngx.req.read_body() ngx.print(ngx.req.get_body_data()) }
            }",
        )
        .start()
}

#[test]
fn a_filter_says_itself_how_much_is_held() {
    let script = |limit: &str| {
        format!(
            "request_headers: set_property set_decoder_buffer_limit {limit}
             request_body: get_buffer_status 0
             request_body@more: pause"
        )
    };
    let send = |nginx: &Running, size: usize| {
        nginx.request("POST", "/").body("x".repeat(size)).send().status
    };
    // A body in a file is told in pieces of a MiB.
    const HTTP: &str = "client_body_buffer_size 16k; client_max_body_size 8m;";
    const TO_FILE: &str = "a client request body is buffered to a temporary file";
    let nginx = chain(&script("3000000"), "body_limit = 1000", HTTP);
    nginx.expect_log(TO_FILE);
    assert_eq!(send(&nginx, 2_000_000), 200);
    let nginx = chain(&script("none"), "body_limit = 1000", HTTP);
    nginx.expect_log(TO_FILE);
    nginx.expect_log("the limit of a body is no number");
    nginx.expect_log("it is larger than body_limit (1000 bytes)");
    assert_eq!(send(&nginx, 2_000_000), 413);
}

/// A response that a filter holds up to the limit that it set itself; without the marker it sets none.
#[test]
fn the_same_for_responses() {
    let held = |guest: &str| {
        let script = "response_headers: set_property set_encoder_buffer_limit 3000000
                      response_headers: set_property clear_route_cache off
                      response_body@more: pause";
        Nginx::new()
            .guest(guest)
            .http(&format!(
                r#"init_by_lua_block {{
                    local wasm = require("resty.proxy-wasm")
                    local plugin = assert(wasm.load("probe", "{guest}.wasm", {{ body_limit = 1000 }}))
                    chain = wasm.new_chain({{ assert(wasm.on_configure(plugin, [==[{script}]==])) }})
                }}"#
            ))
            .server(
                "location / {
                    header_filter_by_lua_block { chain:header_filter() }
                    body_filter_by_lua_block { chain:body_filter() }
                    content_by_lua_block {
                        for _ = 1, 4 do ngx.print(('x'):rep(500000)) ngx.flush(true) end
                    }
                }",
            )
            .start()
    };
    let nginx = held("probe_0_2_100");
    assert_eq!(nginx.get("/").body.len(), 2_000_000);
    let lines = nginx.guest_log("probe");
    for command in ["set_encoder_buffer_limit 3000000", "clear_route_cache off"] {
        let line = format!("response_headers set_property {command} -> 0");
        assert!(lines.contains(&line), "{lines:#?}");
    }
    let nginx = held("probe");
    nginx.expect_log("holds the response body, and it is larger than body_limit (1000 bytes)");
    nginx.expect_log("the response is cut off");
    assert!(nginx.raw("GET / HTTP/1.0\r\n\r\n").len() < 1000);
}

/// 2 holds, as 1 does; 3 lets the piece go nowhere.
#[test]
fn answers_for_pieces_of_a_request() {
    // A body in a file is told in pieces of a MiB.
    const HTTP: &str = "client_body_buffer_size 16k; client_max_body_size 8m;";
    const PIECE: usize = 1024 * 1024;
    const SIZE: usize = 2 * PIECE + 10;
    for (script, left) in [
        ("request_body@more: return 1; request_body@eos: get_buffer_status 0", SIZE),
        ("request_body@more: return 2; request_body@eos: get_buffer_status 0", SIZE),
        ("request_body@more: return 3; request_body@eos: get_buffer_status 0", 10),
    ] {
        let nginx = Nginx::new()
            .guest("probe_0_2_100")
            .http(HTTP)
            .http(&format!(
                r#"init_by_lua_block {{
                    local wasm = require("resty.proxy-wasm")
                    local plugin = assert(wasm.load("probe", "probe_0_2_100.wasm"))
                    chain = wasm.new_chain({{ assert(wasm.on_configure(plugin, [==[{script}]==])) }})
                }}"#
            ))
            .server(
                "location / {
                    access_by_lua_block { chain:access() }
                    content_by_lua_block {
                        ngx.req.read_body()
                        local file = ngx.req.get_body_file()
                        ngx.print(file and assert(io.open(file)):seek('end') or #(ngx.req.get_body_data() or ''))
                    }
                }",
            )
            .start();
        nginx.expect_log("a client request body is buffered to a temporary file");
        let answer = nginx.request("POST", "/").body("x".repeat(SIZE)).send();
        assert_eq!(answer.text(), left.to_string(), "{script}");
        let lines = nginx.guest_log("probe");
        let shown = format!("request_body get_buffer_status 0 -> 0 {left}");
        assert!(lines.iter().any(|line| line.starts_with(&shown)), "{script}: {lines:#?}");
    }
}

#[test]
fn a_new_vm_when_the_filter_asks_for_one() {
    let nginx = probe(
        "create: ids
         request_headers: set_property wasm_need_rebuild true
         configure: log 2 configured",
    )
    .start();
    for _ in 0..3 {
        assert_eq!(nginx.get("/").status, 200);
    }
    let lines = nginx.guest_log("probe");
    let configured = lines.iter().filter(|line| line.starts_with("configure log")).count();
    assert_eq!(configured, 3, "{lines:#?}");
}

#[test]
fn headers_that_wait_without_the_body() {
    // 3 and 4 stop all: the body is told after the pause only. A tick ends it.
    let script = |answer: u32| {
        format!(
            "configure: set_tick_period_milliseconds 50
             request_headers: return {answer}
             request_headers: get_buffer_status 7 >stream
             request_body: get_buffer_status 0
             tick: set_effective_context 2
             tick: continue_stream 0"
        )
    };
    for answer in [3, 4] {
        let nginx = chain(&script(answer), "", "");
        assert_eq!(nginx.request("POST", "/").body("hello").send().text(), "hello");
        let lines = nginx.guest_log("probe");
        let at = |what: &str| lines.iter().position(|line| line.starts_with(what));
        let (tick, body) = (at("tick continue_stream"), at("request_body"));
        assert!(tick.is_some() && tick < body, "{answer}: {lines:#?}");
    }
}

#[test]
fn headers_that_continue_and_a_body_that_is_added() {
    assert_eq!(run("request_headers: return 2").response.status, 200);
}

/// The servers of an upstream, and a balancer that goes to the one that the filter chose.
fn balanced(script: &str, variables: &str) -> Running {
    probe(script)
        .nginx(|nginx| {
            nginx.http(
                r#"
                server { listen unix:a.sock; location / { return 200 "a"; } }
                server { listen unix:b.sock; location / { return 200 "b"; } }
                upstream chosen {
                    server 0.0.0.1;
                    balancer_by_lua_block {
                        assert(require("ngx.balancer").set_current_peer(ngx.var.wasm_upstream_host))
                    }
                }
                "#,
            )
        })
        .content(&format!("{variables} proxy_pass http://chosen;"))
        .start()
}

#[test]
fn a_filter_chooses_the_server() {
    let nginx = balanced(
        "request_headers: get_upstream_hosts
         request_headers: set_upstream_override_host unix:b.sock",
        r#"set $wasm_upstream_hosts "unix:a.sock, unix:b.sock"; set $wasm_upstream_host "unix:a.sock";"#,
    );
    let response = nginx.get("/");
    if response.status == 200 {
        // ngx_lua since 0.10.24 takes sockets there.
        assert_eq!(response.text(), "b");
    } else {
        nginx.expect_log("failed to run balancer_by_lua");
    }
    let info = r#"{"health_status":"Healthy","metrics":""}"#;
    let hosts = format!("get_upstream_hosts -> 0 unix:a.sock={info}|unix:b.sock={info}");
    let lines = nginx.guest_log("probe");
    assert!(lines.contains(&format!("request_headers {hosts}")), "{lines:#?}");
}

#[test]
fn what_is_known_of_the_servers() {
    let nginx = probe("request_headers: get_upstream_hosts")
        .content(
            r#"set $wasm_upstream_hosts '{"a:1": {"metrics": "running 3"}, "b:2": {"metrics": ""}}';
               proxy_pass http://unix:echo.sock; proxy_set_header Connection close;"#,
        )
        .start();
    assert_eq!(nginx.get("/").status, 200);
    let hosts = r#"get_upstream_hosts -> 0 a:1={"metrics":"running 3"}|b:2={"metrics":""}"#;
    let lines = nginx.guest_log("probe");
    assert!(lines.contains(&format!("request_headers {hosts}")), "{lines:#?}");
}

#[test]
fn without_the_variables_the_way_is_named() {
    let nginx = probe(
        "request_headers: get_upstream_hosts
         request_headers: set_upstream_override_host 127.0.0.1:80
         request_headers: set_upstream_override_host 'a b'",
    )
    .start();
    nginx.expect_log("the variable $wasm_upstream_hosts would name them");
    nginx.expect_log("balancer_by_lua that reads it would do that");
    nginx.expect_log("a filter chooses a server that is no address");
    let response = nginx.get("/");
    nginx.stop();
    assert_eq!(
        Outcome { nginx, response }.of("request_headers"),
        [
            "get_upstream_hosts -> 0 ''",
            "set_upstream_override_host 127.0.0.1:80 -> 1",
            "set_upstream_override_host 'a b' -> 2",
        ]
    );
}
