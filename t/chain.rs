//! `new_chain`: several filters as one, and what becomes of a request when one of them fails.

use super::support::{Nginx, Running};

/// A chain of the probes `a`, `b`, `c` with these scripts, each loaded with `options`, around an upstream that echoes the
/// request and sends `x-upstream`.
pub(crate) fn chain(options: [&str; 3], scripts: [&str; 3]) -> Running {
    let mut lua = String::from("local wasm = require('resty.proxy-wasm')\nlocal list = {}\n");
    lua += "local function script(text) return (text:gsub('@PREFIX@', ngx.config.prefix())) .. '\\n' end\n";
    for (i, name) in ["a", "b", "c"].iter().enumerate() {
        let (options, script) = (options[i], scripts[i]);
        lua += &format!(
            "local plugin = assert(wasm.load('{name}', 'probe.wasm', {{ calls = {{ allow = {{ 'unix:*' }} }}, {options} }}))
             list[#list + 1] = assert(wasm.on_configure(plugin, script([==[{script}]==])))\n"
        );
    }
    Nginx::new()
        .guest("probe")
        .echo()
        .http(&format!("init_by_lua_block {{ {lua} chain = wasm.new_chain(list) }}"))
        .server(
            r#"
            client_max_body_size 0;
            location / {
                access_by_lua_block { chain:access() }
                header_filter_by_lua_block { chain:header_filter() }
                body_filter_by_lua_block { chain:body_filter() }
                proxy_pass http://unix:echo.sock;
            }
            location /length {
                header_filter_by_lua_block { chain:header_filter() }
                body_filter_by_lua_block { chain:body_filter() }
                content_by_lua_block {
                    ngx.header["Content-Length"] = 5
                    ngx.print("hello")
                }
            }
            location /pieces {
                header_filter_by_lua_block { chain:header_filter() }
                body_filter_by_lua_block { chain:body_filter() }
                content_by_lua_block {
                    for _, piece in ipairs({ "ab", "cd", "ef" }) do
                        ngx.print(piece)
                        ngx.flush(true)
                    end
                    -- Until a file says so.
                    while ngx.var.arg_wait and not io.open(ngx.config.prefix() .. "go") do
                        ngx.sleep(0.01)
                    end
                }
            }
            location /rewrite {
                rewrite_by_lua_block { chain:access() }
                header_filter_by_lua_block { chain:header_filter() }
                body_filter_by_lua_block { chain:body_filter() }
                proxy_pass http://unix:echo.sock;
            }
            "#,
        )
        .start()
}

/// What the probes logged in the order in which they did: `NAME CALLBACK OP -> ANSWER`.
pub(crate) fn order(nginx: &Running) -> Vec<String> {
    nginx.log_texts("wasm log ").iter().map(|line| line.replacen(": ", " ", 1)).collect()
}

pub(crate) const NONE: [&str; 3] = [""; 3];

#[test]
fn requests_go_in_order_and_responses_in_reverse() {
    let each = "request_headers: add_header_map_value 0 x-order NAME
                request_headers: get_header_map_value 0 x-order
                request_body: get_buffer_bytes 0 0 max
                response_headers: get_header_map_value 2 x-order
                response_headers: replace_header_map_value 2 x-order NAME
                response_body: ids";
    let scripts = ["a", "b", "c"].map(|name| each.replace("NAME", name));
    let nginx = chain(NONE, [&scripts[0], &scripts[1], &scripts[2]]);
    for path in ["/", "/rewrite"] {
        let from = order(&nginx).len();
        let response = nginx.request("POST", path).body("hello").send();
        assert_eq!(response.status, 200);
        assert_eq!(response.header_all("x-order"), ["a"]);
        assert_eq!(response.text().matches("x-order: ").count(), 3, "{}", response.text());
        let lines: Vec<String> =
            order(&nginx)[from..].iter().filter(|line| line.contains(" get_")).cloned().collect();
        assert_eq!(
            lines,
            [
                "a request_headers get_header_map_value 0 x-order -> 0 a",
                "b request_headers get_header_map_value 0 x-order -> 0 a",
                "c request_headers get_header_map_value 0 x-order -> 0 a",
                "a request_body get_buffer_bytes 0 0 max -> 0 hello",
                "b request_body get_buffer_bytes 0 0 max -> 0 hello",
                "c request_body get_buffer_bytes 0 0 max -> 0 hello",
                "c response_headers get_header_map_value 2 x-order -> 1",
                "b response_headers get_header_map_value 2 x-order -> 0 c",
                "a response_headers get_header_map_value 2 x-order -> 0 b",
            ],
            "{path}"
        );
    }
}

#[test]
fn each_filter_gets_the_request_body_that_the_one_before_left() {
    let nginx = chain(
        NONE,
        [
            "request_body: set_buffer_bytes 0 0 max one",
            "request_body: set_buffer_bytes 0 0 0 two-",
            "log: ids",
        ],
    );
    let response = nginx.request("POST", "/").body("hello").send();
    assert!(response.text().ends_with("\r\n\r\ntwo-one"), "{}", response.text());
    nginx.expect_log("a client request body is buffered to a temporary file");
    let large = "x".repeat(200_000);
    let response = nginx.request("POST", "/").body(&large).send();
    assert!(response.text().ends_with("\r\n\r\ntwo-one"), "a body in a file");
    assert!(nginx.get("/").text().ends_with("\r\n\r\n"), "no body, no callback");
}

/// Filter `b` traps in `callback`.
fn failing(fail: &str, callback: &str) -> Running {
    let ids = "request_headers,request_body,response_headers,response_body,log: ids";
    let b = format!("{ids}; {callback}: trap");
    let nginx = chain(["", fail, ""], [ids, &b, ids]);
    nginx.expect_log(&format!(
        "wasm plugin \"b\": failed to run proxy_on_http_{callback}: proxy_on_{callback} failed: wasm trap: "
    ));
    nginx
}

/// The callbacks that ran, as `NAME CALLBACK`.
fn ran(nginx: &Running) -> Vec<String> {
    nginx.stop();
    let lines = order(nginx);
    let ran = lines.iter().filter(|line| line.contains(" ids -> "));
    ran.map(|line| line.split(" ids").next().expect("a callback").into()).collect()
}

#[test]
fn a_filter_that_fails_open_is_skipped_for_the_rest_of_the_request() {
    for callback in ["request_headers", "request_body", "response_headers", "response_body"] {
        let nginx = failing("fail = 'open'", callback);
        let response = nginx.request("POST", "/").body("hello").send();
        assert_eq!(response.status, 200, "{callback}");
        assert!(response.text().ends_with("\r\n\r\nhello"), "{callback}");
        assert_eq!(nginx.error_log().matches("[error]").count(), 1, "told once");
        let ran = ran(&nginx);
        let last = ran.iter().rfind(|line| line.starts_with("b ")).expect("b ran");
        assert_eq!(*last, format!("b {callback}"), "nothing after it failed: {ran:?}");
        assert_eq!(ran.iter().filter(|line| *line == "a log" || *line == "c log").count(), 2);
    }
}

#[test]
fn a_filter_that_fails_closed_answers_503() {
    for callback in ["request_headers", "request_body"] {
        let nginx = failing("", callback);
        let response = nginx.request("POST", "/").body("hello").send();
        assert_eq!(response.status, 503, "{callback}");
        assert!(!response.text().contains("hello"), "{callback}");
        let ran = ran(&nginx);
        assert!(!ran.iter().any(|line| *line == format!("c {callback}")), "{ran:?}");
        let sees = |name: &str| ran.iter().any(|line| *line == format!("{name} response_headers"));
        assert!(sees("a") && !sees("b"), "{ran:?}");
        assert_eq!(sees("c"), callback == "request_body", "who saw the request: {ran:?}");
    }
    let nginx = failing("fail = 'closed'", "response_headers");
    let response = nginx.request("POST", "/").body("hello").send();
    assert_eq!((response.status, response.text().as_str()), (503, ""));
    assert_eq!(response.header_all("x-upstream"), [""; 0]);
    assert!(ran(&nginx).iter().any(|line| line == "a response_headers"));
}

#[test]
fn a_filter_that_fails_closed_in_the_body_cuts_the_response_off() {
    let nginx = failing("", "response_body");
    nginx.expect_log("the response is cut off: a filter failed");
    let answer = nginx.raw("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello");
    assert!(!answer.ends_with(b"0\r\n\r\n"), "{}", answer.escape_ascii());
    assert!(!answer.ends_with(b"hello"), "{}", answer.escape_ascii());
}

#[test]
fn grpc_clients_are_told_unavailable() {
    for callback in ["request_headers", "response_headers"] {
        let nginx = failing("", callback);
        let request = nginx.request("POST", "/").header("Content-Type", "application/grpc+proto");
        let response = request.body("hello").send();
        assert_eq!(response.status, 200, "{callback}");
        assert_eq!(response.header_all("grpc-status"), ["14"], "{callback}");
        assert_eq!(response.header_all("content-type"), ["application/grpc"], "{callback}");
        assert_eq!(response.text(), "");
    }
}

/// The callbacks that ran and the answer, with `b` answering in `callback`.
fn answered(callback: &str) -> (Vec<String>, u16, String) {
    let ids = "request_headers,request_body,response_headers,log: ids; response_body@eos: ids";
    let b = format!("{ids}; {callback}: send_local_response 403 '' no x-b=1 -1");
    let see = format!("{ids}; response_headers: add_header_map_value 2 x-seen 1");
    let nginx = chain(NONE, [&see, &b, &see]);
    let response = nginx.request("POST", "/").body("hello").send();
    assert_eq!(response.header_all("x-b"), ["1"]);
    assert_eq!(response.header_all("x-upstream"), [""; 0]);
    let seen = response.header_all("x-seen").len();
    let (status, text) = (response.status, response.text());
    let ran = ran(&nginx);
    let sees = ran.iter().filter(|line| line.ends_with(" response_headers")).count();
    assert!(seen <= sees, "{ran:?}");
    (ran, status, text)
}

#[test]
fn an_answer_goes_through_the_filters_that_saw_the_request() {
    let (ran, status, text) = answered("request_headers");
    assert_eq!((status, text.as_str()), (403, "no"));
    assert_eq!(
        ran,
        [
            "a request_headers",
            "b request_headers",
            "b response_headers",
            "a response_headers",
            "b response_body",
            "a response_body",
            "a log",
            "b log"
        ]
    );
    let (ran, status, text) = answered("request_body");
    assert_eq!((status, text.as_str()), (403, "no"));
    let response: Vec<&String> =
        ran.iter().filter(|line| line.ends_with(" response_headers")).collect();
    assert_eq!(response, ["c response_headers", "b response_headers", "a response_headers"]);
    assert!(!ran.iter().any(|line| line == "c request_body"), "{ran:?}");
}

#[test]
fn an_answer_in_place_of_a_response_goes_out_as_it_is() {
    let (ran, status, text) = answered("response_headers");
    assert_eq!((status, text.as_str()), (403, "no"));
    let later: Vec<&String> = ran.iter().skip_while(|line| !line.contains("response")).collect();
    assert_eq!(later, ["c response_headers", "b response_headers", "a log", "b log", "c log"]);
}

#[test]
fn chains_of_routes_are_made_from_tables() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(
            r#"
            init_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("probe", "probe.wasm"))
                local function context(name)
                    return assert(wasm.on_configure(plugin, "response_headers: add_header_map_value 2 x-by " .. name))
                end
                local one, two = context("one"), context("two")
                chains = {
                    ["/a"] = wasm.new_chain({ one, two }),
                    ["/b"] = wasm.new_chain({ two, one, two }),
                    ["/c"] = wasm.new_chain({}),
                }
            }
            "#,
        )
        .server(
            r#"
            location / {
                access_by_lua_block { chains[ngx.var.uri]:access() }
                header_filter_by_lua_block { chains[ngx.var.uri]:header_filter() }
                body_filter_by_lua_block { chains[ngx.var.uri]:body_filter() }
                content_by_lua_block { ngx.say("content") }
            }
            "#,
        )
        .start();
    for (path, by) in [("/a", &["two", "one"][..]), ("/b", &["two", "one", "two"]), ("/c", &[])] {
        let response = nginx.get(path);
        assert_eq!(
            (response.header_all("x-by").as_slice(), response.text().as_str()),
            (by, "content\n")
        );
    }
}

#[test]
fn wrong_arguments_are_raised_where_the_mistake_is() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("probe", "probe.wasm"))
                ctx = assert(wasm.on_configure(plugin, "log: ids"))
            }
            "#,
        )
        .server(
            r#"
            location /new {
                content_by_lua_block {
                    for _, contexts in ipairs{
                        1, { plugin }, { ctx, "x" }, { ctx, [3] = ctx }, { name = ctx },
                    } do
                        ngx.say(select(2, pcall(wasm.new_chain, contexts)))
                    end
                    ngx.say(select(2, pcall(wasm.new_chain, { ctx }, { fail = "open" })))
                    ngx.say(select(2, pcall(function() wasm.new_chain() end)))
                    ngx.say(wasm.new_chain({}):access(), wasm.new_chain({}, {}):access())
                }
            }
            location /call {
                content_by_lua_block {
                    local chain = wasm.new_chain({ ctx })
                    ngx.say(select(2, pcall(chain.access)))
                    ngx.say(select(2, pcall(chain.header_filter, chain)))
                    ngx.say(select(2, pcall(chain.body_filter, chain)))
                }
            }
            "#,
        )
        .start();
    // The place is that of the call: the function is the only caller with a line.
    let text = nginx.get("/new").text();
    let at = text.lines().find(|line| line.starts_with("content_by_lua(")).expect("a place");
    let place = at.split(" bad").next().expect("a place");
    let bad = "bad argument #1 to 'new_chain' ";
    assert_eq!(
        text.replace(bad, "").replace(place, "HERE:"),
        "(table of plugin contexts expected, got number)
(contexts[1] is not a plugin context)
(contexts[2] is not a plugin context)
(contexts has a hole or the key 3)
(contexts has a hole or the key name)
bad argument #2 to 'new_chain' (a chain has no options)
HERE: (table of plugin contexts expected, got nil)
truetrue
"
    );
    assert_eq!(
        nginx.get("/call").text(),
        "call it as chain:access()
chain:header_filter() cannot be called in phase content
chain:body_filter() cannot be called in phase content
"
    );
}
