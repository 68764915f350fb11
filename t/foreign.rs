//! Functions of Lua that filters call.

use super::ops::{of, wait_for};
use super::support::{Nginx, Probe};

const FUNCTIONS: &str = r#"
    wasm.register_foreign_function("reverse", function(args) return args:reverse() end)
    wasm.register_foreign_function("nothing", function() end)
    wasm.register_foreign_function("uri", function(args) return ngx.var.uri .. args end)
    wasm.register_foreign_function("shared", function(args) return ngx.md5(args) .. ngx.re.gsub(args, "b", "x") end)
    wasm.register_foreign_function("coroutines", function() return coroutine.wrap(function() return "ran" end)() end)
    wasm.register_foreign_function("raises", function(args) error("no " .. args) end)
    wasm.register_foreign_function("table", function() return {} end)
    wasm.register_foreign_function("yields", function() coroutine.yield() end)
    wasm.register_foreign_function("sleeps", function() ngx.sleep(0.001) return "slept" end)
    wasm.register_foreign_function("captures", function() return ngx.location.capture("/plain").body end)
    wasm.register_foreign_function("connects", function() return ngx.socket.tcp():connect("unix:echo.sock") end)
    wasm.register_foreign_function("waits", function() require("ngx.semaphore").new(0):wait(1) end)
    wasm.register_foreign_function("spawns", function() ngx.thread.wait(ngx.thread.spawn(ngx.sleep, 0.001)) end)
    wasm.register_foreign_function("exits", function() ngx.exit(403) end)
    wasm.register_foreign_function("binary", function(args) return args .. "\0\255" end)
    wasm.register_foreign_function("large", function(args) return string.rep(args, 1000000) end)
    wasm.register_foreign_function("collects", function(args) collectgarbage() return args end)
    wasm.register_foreign_function("later", function(args)
        ngx.sleep(0.01)
        return args:upper()
    end, { async = true })
    wasm.register_foreign_function("later raises", function(args)
        ngx.sleep(0.001)
        error("no " .. args)
    end, { async = true })
"#;

fn probe(script: &str) -> Probe {
    Probe::new(script).init(FUNCTIONS)
}

#[test]
fn functions_answer_in_every_callback() {
    for callback in [
        "request_headers",
        "request_body",
        "response_headers",
        "response_body@eos",
        "configure",
        "create",
    ] {
        let run = probe(&format!(
            "{callback}: call_foreign_function reverse abc
             {callback}: call_foreign_function nothing abc
             {callback}: call_foreign_function binary a
             {callback}: call_foreign_function collects a
             {callback}: call_foreign_function nobody abc"
        ))
        .request("POST", |request| request.body("body"));
        assert_eq!(run.response.status, 200);
        let name = callback.split('@').next().expect("a name");
        let lines = run.of(name);
        let answers: Vec<_> =
            lines.iter().map(|line| line.split_once(" -> ").expect("an answer").1).collect();
        assert_eq!(
            answers[answers.len() - 5..],
            ["0 cba", "0 ''", r"0 a\x00\xff", "0 a", "1"],
            "{callback}"
        );
    }
}

#[test]
fn functions_use_what_needs_no_request_and_hand_over_large_results() {
    let run = probe(
        "request_headers: call_foreign_function shared abc
         request_headers: call_foreign_function coroutines abc
         request_headers: call_foreign_function large abc",
    )
    .run();
    let lines = run.of("request_headers");
    assert_eq!(
        lines[0],
        "call_foreign_function shared abc -> 0 900150983cd24fb0d6963f7d28e17f72axc"
    );
    assert_eq!(lines[1], "call_foreign_function coroutines abc -> 0 ran");
    assert!(lines[2].contains(" -> 0 <3000000 bytes, fnv1a "), "{}", lines[2]);
}

#[test]
fn what_fails_in_lua_is_a_status_and_a_line_of_the_log() {
    for (name, cause) in [
        ("raises", "no it"),
        ("table", "returned a table (a string or nil expected)"),
        ("yields", "attempt to yield across C-call boundary"),
        ("uri", "no request found"),
        ("exits", "no request found"),
        ("sleeps", "no request found"),
        ("captures", "no request object found"),
        ("connects", "no request found"),
        ("waits", "no request found"),
        ("spawns", "no request found"),
    ] {
        let nginx = probe(&format!("request_headers: call_foreign_function {name} it"))
            .nginx(|nginx| nginx.server("location /plain { return 204; }"))
            .start();
        nginx.expect_log(&format!("foreign function \"{name}\": "));
        for _ in 0..3 {
            assert_eq!(nginx.get("/").status, 200, "{name}");
        }
        let lines = of(&nginx, "request_headers");
        assert_eq!(lines, vec![format!("call_foreign_function {name} it -> 10"); 3]);
        assert!(nginx.logged(cause), "{name}: {}", nginx.error_log());
    }
}

#[test]
fn functions_answer_on_the_hot_path_however_often() {
    // Enough for LuaJIT to compile what it may.
    let nginx = probe("response_headers: call_foreign_function reverse abc").start();
    for _ in 0..500 {
        assert_eq!(nginx.get("/").status, 200);
    }
    let lines = of(&nginx, "response_headers");
    assert_eq!(lines.len(), 500);
    assert!(lines.iter().all(|line| line.ends_with(" -> 0 cba")), "{:?}", lines.last());
}

#[test]
fn where_a_request_is_freed_functions_run_later_or_not_at_all() {
    let nginx = probe(
        "log: call_foreign_function reverse abc
         log: call_foreign_function later abc
         foreign: get_buffer_bytes 8 0 max",
    )
    .start();
    nginx.expect_log("a foreign function cannot run here: there is no Lua");
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(wait_for(&nginx, "foreign", 1), ["get_buffer_bytes 8 0 max -> 0 ABC"]);
    let answers = of(&nginx, "log");
    assert_eq!(answers[0], "call_foreign_function reverse abc -> 10");
    assert!(answers[1].starts_with("call_foreign_function later abc -> 0 "), "{answers:?}");
}

#[test]
fn a_request_waits_for_a_function_that_yields() {
    let nginx = probe(
        r"request_headers: call_foreign_function later abc
          request_headers: pause
          foreign: get_status
          foreign: get_buffer_bytes 8 0 max
          foreign: set_effective_context 2
          foreign: add_header_map_value 0 x-result come
          foreign: continue_stream 0",
    )
    .start();
    let response = nginx.get("/");
    assert!(response.text().contains("x-result: come\r\n"), "{}", response.text());
    assert_eq!(
        wait_for(&nginx, "foreign", 2)[..2],
        ["get_status -> 0 0 ''", "get_buffer_bytes 8 0 max -> 0 ABC"]
    );
}

#[test]
fn a_function_that_fails_later_tells_its_filter() {
    let nginx = probe(
        "request_headers: call_foreign_function 'later raises' it
         request_headers: pause
         foreign: args
         foreign: get_status
         foreign: set_effective_context 2
         foreign: continue_stream 0",
    )
    .start();
    nginx.expect_log("foreign function \"later raises\": ");
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(
        wait_for(&nginx, "foreign", 2)[..2],
        ["args -> id=1 size=0", "get_status -> 0 10 failed"]
    );
}

#[test]
fn a_function_may_configure_another_filter_but_not_its_own() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                outer = assert(wasm.load("outer", "probe.wasm"))
                inner = assert(wasm.load("inner", "probe.wasm"))
                wasm.register_foreign_function("inner", function(args)
                    return tostring(assert(wasm.on_configure(inner, args)))
                end)
                wasm.register_foreign_function("own", function(args)
                    return select(2, wasm.on_configure(outer, args))
                end)
            }
            "#,
        )
        .server(
            r#"
            location / {
                content_by_lua_block {
                    assert(wasm.on_configure(outer, [[
                        configure: call_foreign_function inner 'configure: ids'
                        configure: call_foreign_function own 'configure: ids'
                    ]]))
                }
            }
            "#,
        )
        .start();
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(nginx.guest_log("inner"), ["configure ids -> id=1 root=1"]);
    let answers = nginx.guest_log("outer");
    assert!(answers[0].contains(" -> 0 cdata<"), "{answers:?}");
    assert!(answers[1].contains("outer is running: a filter cannot be entered"), "{answers:?}");
}

#[test]
fn filters_inside_each_other_are_counted() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                plugins = {}
                for i = 1, 10 do
                    plugins[i] = assert(wasm.load("filter " .. i, "probe.wasm"))
                end
                function deeper(i)
                    local script = "configure: call_foreign_function deeper " .. i + 1
                    local _, err = wasm.on_configure(plugins[i], script)
                    return err
                end
                wasm.register_foreign_function("deeper", function(args) return deeper(tonumber(args)) end)
            }
            "#,
        )
        .server("location / { content_by_lua_block { ngx.print(tostring(deeper(1))) } }")
        .start();
    assert_eq!(nginx.get("/").text(), "nil");
    let said: Vec<_> = (1..=5).map(|i| nginx.guest_log(&format!("filter {i}"))).collect();
    assert!(said[3][0].ends_with("too deep"), "{said:?}");
    assert!(said[..3].iter().all(|lines| lines[0].ends_with(" -> 0 ''")), "{said:?}");
    assert!(said[4].is_empty(), "{said:?}");
}

#[test]
fn wrong_arguments_are_raised() {
    for (arguments, cause) in [
        (
            "1, print",
            "bad argument #1 to 'register_foreign_function' (a name expected, got number)",
        ),
        ("'', print", "bad argument #1 to 'register_foreign_function' (a name expected, got \"\")"),
        (
            "'a', 1",
            "bad argument #2 to 'register_foreign_function' (function expected, got number)",
        ),
        (
            "'a', print, 1",
            "bad argument #3 to 'register_foreign_function' (table expected, got number)",
        ),
        (
            "'a', print, { asinc = true }",
            "bad argument #3 to 'register_foreign_function' (unknown key \"asinc\")",
        ),
        (
            "'a', print, { async = 1 }",
            "bad argument #3 to 'register_foreign_function' (async must be a boolean)",
        ),
        ("'there', print", "a foreign function \"there\" was registered before"),
    ] {
        let nginx = Nginx::new()
            .http(&format!(
                r#"
                init_by_lua_block {{
                    local wasm = require("resty.proxy-wasm")
                    assert(wasm.register_foreign_function("there", print))
                    said = select(2, pcall(wasm.register_foreign_function, {arguments}))
                }}
                "#
            ))
            .server("location / { content_by_lua_block { ngx.print(said) } }")
            .start();
        assert_eq!(nginx.get("/").text(), cause);
        // A reload registers them again.
        nginx.reload();
        assert_eq!(nginx.get("/").text(), cause);
    }
}
