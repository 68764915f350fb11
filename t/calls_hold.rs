//! Whether a request waits for the calls that its filter dispatches, whatever the filter's callbacks answer.

use super::ops::{of, wait_for};
use super::support::{Curl, Nginx, Outcome, Probe, Response, Running};

/// `/deny` and `/allow` answer at once; `/gate` answers when `/open` was asked for, and `/never` does not.
fn upstreams(nginx: Nginx) -> Nginx {
    nginx.http(
        r#"
        lua_socket_log_errors off;
        lua_shared_dict gate 64k;
        server {
            listen unix:upstream.sock;
            location /deny { return 403 denied; }
            location /allow { return 200 allowed; }
            location /open { content_by_lua_block { ngx.shared.gate:set("open", true) ngx.print("opened") } }
            location /gate { content_by_lua_block { while not ngx.shared.gate:get("open") do ngx.sleep(0.005) end ngx.print("gate") } }
            location /never {
                lua_check_client_abort on;
                content_by_lua_block { ngx.on_abort(function() ngx.exit(499) end) ngx.sleep(600) }
            }
            location = / { return 200; }
            location /cut { content_by_lua_block { ngx.exit(444) } }
        }
        server { listen unix:origin.sock; location / { return 200 "reached the origin"; } }
        "#,
    )
}

const ORIGIN: &str = "proxy_pass http://unix:origin.sock;";
const DENY: &str = "send_local_response 403 '' refused '' -1";
const REACHED: (u16, &str) = (200, "reached the origin");
const REFUSED: (u16, &str) = (403, "refused");

fn call(path: &str) -> String {
    format!("http_call unix:@PREFIX@upstream.sock ':path={path}' '' '' 20000")
}

fn probe(script: &str) -> Probe {
    Probe::new(script).nginx(upstreams).content(ORIGIN)
}

fn answer(run: &Outcome) -> (u16, String) {
    (run.response.status, run.response.text())
}

/// A filter that denies in the answer of the call that a callback dispatched.
fn denier(callback: &str) -> String {
    format!(
        "{callback}: {}
         http_call_response: set_effective_context caller
         http_call_response: {DENY}",
        call("/deny")
    )
}

#[test]
fn a_denial_in_the_answer_counts_though_the_callback_said_continue() {
    for callback in ["create", "request_headers", "request_body"] {
        let run = probe(&denier(callback)).request("POST", |request| request.body("hello"));
        assert_eq!(answer(&run), (REFUSED.0, REFUSED.1.into()), "{callback}");
    }
    // Over HTTP/2, too.
    let nginx = probe(&denier("request_headers")).nginx(Nginx::http2).start();
    let denied = Curl::http2(&nginx).get("/");
    assert_eq!((denied.status, denied.text().as_str()), REFUSED);
}

#[test]
fn of_two_calls_the_last_counts_whichever_resumes_the_request() {
    for returned in ["", "request_headers: pause"] {
        let nginx = probe(&format!(
            "request_headers: {}
             request_headers: {}
             request_headers: continue_stream 0
             {returned}
             http_call_response: get_buffer_bytes 4 0 max
             http_call_response: set_effective_context caller
             http_call_response@first: continue_stream 0
             http_call_response@again: {DENY}",
            call("/allow"),
            call("/gate"),
        ))
        .nginx(|nginx| nginx.server("location = /open { proxy_pass http://unix:upstream.sock; }"))
        .start();
        let mut waiting = nginx.connect();
        waiting.write(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        assert_eq!(
            wait_for(&nginx, "http_call_response", 3)[0],
            "get_buffer_bytes 4 0 max -> 0 allowed"
        );
        assert_eq!(nginx.get("/open").text(), "opened");
        let response = waiting.response();
        assert_eq!((response.status, response.text().as_str()), REFUSED, "{returned:?}");
    }
}

#[test]
fn a_filter_that_pauses_and_calls_continues_after_its_call() {
    let mut scripts = vec![];
    for path in ["/allow", "/cut"] {
        for callback in ["request_headers", "request_body"] {
            let call = call(path);
            scripts.push(format!("{callback}: {call}; {callback}: pause"));
            scripts.push(format!("{callback}: {call}; {callback}: {call}; {callback}: pause"));
        }
    }
    for script in scripts {
        let run = probe(&script).request("POST", |request| request.body("hello"));
        if script.contains("/cut") {
            run.nginx.expect_log("upstream.sock failed: closed");
        }
        assert_eq!(answer(&run), (REACHED.0, REACHED.1.into()), "{script}");
        assert_eq!(run.failures(), [""; 0]);
    }
}

#[test]
fn a_filter_without_a_callback_for_answers_waits_too() {
    let nginx = upstreams(Nginx::new())
        .wat_text(
            "unanswered",
            r#"(module
              (import "env" "proxy_http_call"
                (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
              (memory (export "memory") 1)
              (data (i32.const 16) "upstream")
              (func (export "proxy_abi_version_0_2_1"))
              (func (export "malloc") (param i32) (result i32) (i32.const 1024))
              (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (if (call $call (i32.const 16) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 0)
                      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 20000) (i32.const 8))
                  (then unreachable))
                (i32.const 1)))"#,
        )
        .http(
            r#"init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                wasm.setup({ upstreams = { upstream = "unix:" .. ngx.config.prefix() .. "upstream.sock" } })
                ctx = assert(wasm.on_configure(assert(wasm.load("unanswered", "unanswered.wasm"))))
            }"#,
        )
        .server(&format!(
            "location / {{ access_by_lua_block {{ assert(wasm.on_http_request_headers(ctx)) }} {ORIGIN} }}"
        ))
        .start();
    assert_eq!(nginx.get("/").text(), REACHED.1);
}

#[test]
fn an_answer_that_calls_again_is_waited_for_too() {
    // On the stream, and on the plugin context, on which answers come.
    for context in ["caller", "root"] {
        let run = probe(&format!(
            "request_headers: {}
             http_call_response@first: set_effective_context {context}
             http_call_response@first: {}
             http_call_response@again: set_effective_context 2
             http_call_response@again: {DENY}",
            call("/allow"),
            call("/deny"),
        ))
        .run();
        assert_eq!(answer(&run), (REFUSED.0, REFUSED.1.into()), "{context}");
    }
}

#[test]
fn the_wait_ends_with_pause_timeout() {
    for returned in ["", "request_headers: pause"] {
        let run = probe(&format!("request_headers: {}\n{returned}", call("/never")))
            .options("pause_timeout = 100")
            .run();
        assert_eq!(
            run.failures(),
            ["on_http_request_headers: failed to run proxy_on_http_request_headers: \
              the filter's calls were not answered within 100 ms"]
        );
        // The caller chose to continue.
        assert_eq!(answer(&run), (REACHED.0, REACHED.1.into()), "{returned:?}");
        assert!(run.nginx.logged("upstream.sock dropped: its stream ended"));
    }
}

#[test]
fn phases_that_cannot_wait_say_so() {
    for phase in ["header_filter", "body_filter", "log"] {
        let script = format!("request_headers: {}", call("/allow"));
        let nginx = loaded("", "", &script)
            .server(&format!(
                r#"location / {{
                    {phase}_by_lua_block {{
                        local ok, err = wasm.on_http_request_headers(ctx)
                        if not ok then ngx.log(ngx.NOTICE, "lua call failed: ", err) end
                    }}
                    {ORIGIN}
                }}"#
            ))
            .start();
        assert_eq!(nginx.get("/").text(), REACHED.1, "{phase}");
        let failure = nginx.wait_for_log("lua call failed: ");
        let expected = format!("the filter's calls are under way, and phase {phase} cannot wait");
        assert!(failure.contains(&expected), "{phase}: {failure}");
    }
}

#[test]
fn calls_of_response_callbacks_hold_nothing() {
    for callback in ["response_headers", "response_body@more"] {
        let run = probe(&format!("{callback}: {}", call("/never"))).run();
        assert_eq!(answer(&run), (REACHED.0, REACHED.1.into()), "{callback}");
        let line = run.nginx.wait_for_log("dropped: its stream ended");
        assert!(line.contains("[info]"), "{line}");
        assert!(line.contains("wasm plugin \"probe\": HTTP call to unix:/"), "{line}");
        assert!(line.contains("request: \"GET / HTTP/1.1\""), "{line}");
    }
}

/// The end of the stream comes next, and drops them not: a filter could report nothing of a whole response otherwise.
#[test]
fn calls_with_the_last_piece_of_a_response_are_made() {
    let nginx = probe(&format!(
        "response_body@eos: {}
         http_call_response: args
         http_call_response: get_buffer_bytes 4 0 max
         http_call_response: set_effective_context caller",
        call("/gate")
    ))
    .nginx(|nginx| nginx.server("location = /open { proxy_pass http://unix:upstream.sock; }"))
    .start();
    assert_eq!(nginx.get("/").text(), REACHED.1);
    // It is answered when the stream has ended, so the plugin context is told.
    assert_eq!(nginx.get("/open").text(), "opened");
    let lines = wait_for(&nginx, "http_call_response", 3);
    assert_eq!(lines[0], "args -> token=1 headers=4 body_size=4 trailers=0");
    assert_eq!(lines[1], "get_buffer_bytes 4 0 max -> 0 gate");
    assert!(lines[2].starts_with("set_effective_context caller -> 2"), "{lines:?}");
}

/// The probe with that script as the context `ctx`.
fn loaded(setup: &str, options: &str, script: &str) -> Nginx {
    upstreams(Nginx::new()).guest("probe").http(&format!(
        r#"init_by_lua_block {{
            wasm = require("resty.proxy-wasm")
            {setup}
            local script = ([==[{script}]==]):gsub("@PREFIX@", ngx.config.prefix())
            ctx = assert(wasm.on_configure(assert(wasm.load("probe", "probe.wasm", {{ calls = {{ allow = {{ "unix:*" }} }}, {options} }})), script))
        }}"#
    ))
}

/// Where the call of a filter goes that denies in its answer: the answer comes at once, or never where the request does not
/// wait for it.
fn path(expected: (u16, &str)) -> &'static str {
    if expected == REFUSED { "/deny" } else { "/never" }
}

/// A filter behind the documented calls at `/calls` and in a chain at `/chain`.
fn both(setup: &str, options: &str, paths: [&str; 2]) -> Running {
    let script = denier("request_headers");
    let [calls, chain] = paths;
    let contexts = format!(
        r#"
        {setup}
        plugin = assert(wasm.load("probe", "probe.wasm", {{ calls = {{ allow = {{ "unix:*" }} }}, {options} }}))
        local script = ([==[{script}]==]):gsub("@PREFIX@", ngx.config.prefix())
        a = assert(wasm.on_configure(plugin, (script:gsub("/deny", "{calls}"))))
        chain = wasm.new_chain({{ assert(wasm.on_configure(plugin, (script:gsub("/deny", "{chain}")))) }})
        "#
    );
    upstreams(Nginx::new())
        .guest("probe")
        .http(&format!(
            r#"init_by_lua_block {{ wasm = require("resty.proxy-wasm") {contexts} }}"#
        ))
        .server(&format!(
            r#"
            location /calls {{ access_by_lua_block {{ assert(wasm.on_http_request_headers(a)) }} {ORIGIN} }}
            location /chain {{ access_by_lua_block {{ chain:access() }} {ORIGIN} }}
            "#
        ))
        .start()
}

#[test]
fn load_and_setup_choose_otherwise() {
    let setup = |value: &str| format!("assert(wasm.setup({{ calls_hold = {value} }}))");
    for (setup, options, calls, chain) in [
        (String::new(), "", REFUSED, REACHED),
        (String::new(), "calls_hold = true", REFUSED, REFUSED),
        (String::new(), "calls_hold = false", REACHED, REACHED),
        (setup("true"), "", REFUSED, REFUSED),
        (setup("false"), "", REACHED, REACHED),
        (setup("true"), "calls_hold = false", REACHED, REACHED),
        (setup("false"), "calls_hold = true", REFUSED, REFUSED),
    ] {
        let nginx = both(&setup, options, [calls, chain].map(path));
        for (path, expected) in [("/calls", calls), ("/chain", chain)] {
            let response = nginx.get(path);
            let got = (response.status, response.text());
            assert_eq!(got, (expected.0, expected.1.into()), "{path} {setup} {options}");
        }
    }
}

/// A chain whose filter asks, says Continue and denies in the answer, in front of an origin that answers when the denial is
/// there. `behind`: what the filter behind it does; `/gate` answers it after the denial.
fn denied_late(behind: &str, response_phases: &str) -> (Running, Response) {
    let nginx = denying_late(behind, response_phases);
    let response = nginx.get("/");
    (nginx, response)
}

/// The same before its request. `/early` has an origin that sends its headers first, and is denied behind them.
fn denying_late(behind: &str, response_phases: &str) -> Running {
    let script = denier("request_headers");
    upstreams(Nginx::new())
        .guest("probe")
        .http(&format!(
            r#"
            # It answers when the headers of a response are there.
            server {{
                listen unix:late.sock;
                location / {{
                    content_by_lua_block {{
                        while not ngx.shared.gate:get("headers") do ngx.sleep(0.005) end
                        ngx.exit(403)
                    }}
                }}
            }}
            server {{
                listen unix:slow.sock;
                location /early {{
                    content_by_lua_block {{
                        ngx.send_headers()
                        ngx.flush(true)
                        while not ngx.shared.gate:get("denied") do ngx.sleep(0.005) end
                        ngx.print("secret")
                    }}
                }}
                location / {{
                    content_by_lua_block {{
                        ngx.shared.gate:set("asked", true)
                        while not ngx.shared.gate:get("denied") do ngx.sleep(0.005) end
                        ngx.header["X-Origin"] = "yes"
                        ngx.print("secret")
                    }}
                }}
            }}
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                wasm.register_foreign_function("told", function()
                    ngx.shared.gate:set("denied", true)
                    ngx.shared.gate:set("open", true)
                end)
                local options = {{ calls = {{ allow = {{ "unix:*" }} }} }}
                local function made(name, script)
                    script = script:gsub("@PREFIX@", ngx.config.prefix())
                    return assert(wasm.on_configure(assert(wasm.load(name, "probe.wasm", options)), script))
                end
                chain = wasm.new_chain({{
                    made("a", [==[{script}
                        http_call_response: call_foreign_function told x]==]),
                    made("b", [==[{behind}]==]),
                }})
                late = wasm.new_chain({{
                    made("c", (([==[{script}
                        http_call_response: call_foreign_function told x]==]):gsub("upstream.sock", "late.sock"))),
                }})
            }}
            "#
        ))
        .server(&format!(
            "location / {{
                access_by_lua_block {{ chain:access() }}
                {response_phases}
                proxy_pass http://unix:slow.sock;
            }}
            location /early {{
                access_by_lua_block {{ late:access() }}
                header_filter_by_lua_block {{
                    late:header_filter()
                    ngx.shared.gate:set('headers', true)
                }}
                body_filter_by_lua_block {{ late:body_filter() }}
                proxy_pass http://unix:slow.sock;
            }}
            location /asked {{ content_by_lua_block {{ ngx.print(tostring(ngx.shared.gate:get('asked'))) }} }}"
        ))
        .start()
}

const RESPONSE_PHASES: &str = "header_filter_by_lua_block { chain:header_filter() }
    body_filter_by_lua_block { chain:body_filter() }";

#[test]
fn a_denial_that_comes_late_takes_the_place_of_the_response() {
    let (nginx, response) = denied_late("request_headers: ids", RESPONSE_PHASES);
    assert_eq!((response.status, response.text().as_str()), REFUSED);
    assert_eq!(response.header("x-origin"), None);
    assert_eq!(nginx.get("/asked").text(), "true");
}

#[test]
fn a_denial_that_comes_while_another_filter_waits_is_in_time() {
    let behind = format!(
        "request_headers: {}
         request_headers: pause
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0",
        call("/gate")
    );
    let (nginx, response) = denied_late(&behind, RESPONSE_PHASES);
    assert_eq!((response.status, response.text().as_str()), REFUSED);
    assert_eq!(nginx.get("/asked").text(), "nil");
}

#[test]
fn a_denial_that_comes_behind_the_headers_cuts_the_response() {
    let nginx = denying_late("request_headers: ids", RESPONSE_PHASES);
    nginx.expect_log("the filter answered with 403 when the headers of the response were sent");
    let bytes = nginx.raw("GET /early HTTP/1.1\r\nHost: t\r\n\r\n");
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("secret") && !text.ends_with("0\r\n\r\n"), "{text}");
}

#[test]
fn a_denial_that_is_not_sent_is_told() {
    let (nginx, response) = denied_late("request_headers: ids", "");
    assert_eq!((response.status, response.text().as_str()), (200, "secret"));
    nginx.expect_log(
        "its local response was not sent: on_http_response_headers was not called in header_filter_by_lua",
    );
}

#[test]
fn wrong_values_are_refused() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(
            r#"init_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                said = {}
                for _, value in ipairs({ "yes", 1, 0, {} }) do
                    said[#said + 1] = select(2, pcall(wasm.setup, { calls_hold = value }))
                    said[#said + 1] = select(2, wasm.load("probe", "probe.wasm", { calls_hold = value }))
                end
            }"#,
        )
        .server(r#"location / { content_by_lua_block { ngx.print(table.concat(said, "\n")) } }"#)
        .start();
    let of_setup = "bad argument #1 to 'setup' (calls_hold must be true or false)";
    let of_load = "failed to load wasm plugin: option \"calls_hold\" must be true or false";
    assert_eq!(nginx.get("/").text(), vec![[of_setup, of_load].join("\n"); 4].join("\n"));
    assert!(of(&nginx, "request_headers").is_empty());
}
