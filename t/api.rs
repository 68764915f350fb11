//! The six documented calls: what they take, what they answer, and what they say when something is wrong.

use super::support::{Nginx, Probe, Running};

/// Loads `probe.wasm` with each of these option tables; the answers, without `failed to load wasm plugin: `.
fn load_with(options: &[&str]) -> Vec<String> {
    let list: String =
        options.iter().map(|text| format!("function() return {text} end,\n")).collect();
    let nginx = Nginx::new()
        .guest("probe")
        .server(&format!(
            r#"
            location /t {{
                content_by_lua_block {{
                    local wasm = require("resty.proxy-wasm")
                    for _, options in ipairs({{ {list} }}) do
                        local plugin, err = wasm.load("it", "probe.wasm", options())
                        ngx.say(plugin and "loaded" or err)
                    end
                }}
            }}
            "#
        ))
        .start();
    let text = nginx.get("/t").text();
    let answer =
        |line: &str| line.strip_prefix("failed to load wasm plugin: ").unwrap_or(line).to_string();
    text.lines().map(answer).collect()
}

#[test]
fn options_of_load() {
    let number =
        |key: &str, rest: &str| format!("option \"{key}\" must be a whole number of {rest}");
    let bytes = number("memory_limit", "bytes from 65536 to 4294967296");
    let ms = |key: &str| number(key, "milliseconds from 1 to 2147483647");
    let string = |key: &str| format!("option \"{key}\" must be a string");
    let env = "option \"env\" must be a table of strings by strings".to_string();
    let fail = "option \"fail\" must be \"closed\" or \"open\"".to_string();
    let loaded = "loaded".to_string();
    let cases: Vec<(&str, String)> = vec![
        ("nil", loaded.clone()),
        ("{}", loaded.clone()),
        ("{ vm_config = '', root_id = '', vm_id = '' }", loaded.clone()),
        (
            "{ vm_config = '# \\0\\255', root_id = 'r', vm_id = 'v', env = {}, fail = 'open' }",
            loaded.clone(),
        ),
        ("{ env = { A = '1', B = '', C = 'x=y' }, fail = 'closed' }", loaded.clone()),
        (
            "{ memory_limit = 4294967296, time_limit = 1, start_time_limit = 2147483647 }",
            loaded.clone(),
        ),
        ("{ pause_timeout = 2147483647 }", loaded),
        ("false", "opts must be a table, got boolean".into()),
        ("'x'", "opts must be a table, got string".into()),
        ("require('ffi').cast('void *', nil)", "opts must be a table, got cdata".into()),
        ("{ vm_configuration = 'x' }", "unknown option \"vm_configuration\"".into()),
        ("{ 'x' }", "unknown option \"1\"".into()),
        ("{ [true] = 1 }", "unknown option \"true\"".into()),
        ("{ vm_config = 1 }", string("vm_config")),
        ("{ root_id = {} }", string("root_id")),
        ("{ vm_id = false }", string("vm_id")),
        ("{ root_id = '\\255' }", "root_id is not UTF-8".into()),
        ("{ vm_id = '\\255' }", "vm_id is not UTF-8".into()),
        ("{ env = 'A=1' }", env.clone()),
        ("{ env = { 'A' } }", env.clone()),
        ("{ env = { A = 1 } }", env),
        ("{ env = { ['A=B'] = '1' } }", "env: \"A=B\" cannot be an environment variable".into()),
        ("{ env = { [''] = '1' } }", "env: \"\" cannot be an environment variable".into()),
        ("{ env = { A = 'x\\0y' } }", "env: \"A\" cannot be an environment variable".into()),
        ("{ env = { ['A\\0'] = '' } }", "env: \"A\\x00\" cannot be an environment variable".into()),
        ("{ env = { A = '\\255' } }", "env is not UTF-8".into()),
        ("{ memory_limit = '1' }", bytes.clone()),
        ("{ memory_limit = 65535 }", bytes.clone()),
        ("{ memory_limit = 65536.5 }", bytes.clone()),
        ("{ memory_limit = 4294967297 }", bytes.clone()),
        ("{ memory_limit = -1 }", bytes.clone()),
        ("{ memory_limit = 0/0 }", bytes.clone()),
        ("{ memory_limit = math.huge }", bytes),
        ("{ time_limit = 0 }", ms("time_limit")),
        ("{ time_limit = 1.5 }", ms("time_limit")),
        ("{ time_limit = true }", ms("time_limit")),
        ("{ start_time_limit = 2147483648 }", ms("start_time_limit")),
        ("{ start_time_limit = {} }", ms("start_time_limit")),
        ("{ pause_timeout = 0 }", ms("pause_timeout")),
        ("{ pause_timeout = '60' }", ms("pause_timeout")),
        ("{ fail = 'shut' }", fail.clone()),
        ("{ fail = true }", fail),
    ];
    let options: Vec<&str> = cases.iter().map(|(options, _)| *options).collect();
    for ((options, expected), answer) in cases.iter().zip(load_with(&options)) {
        assert_eq!(answer, *expected, "{options}");
    }
}

#[test]
fn options_reach_the_guest() {
    let run = Probe::new(
        "request_headers: get_property plugin_name
         request_headers: get_property plugin_root_id
         request_headers: get_property plugin_vm_id
         request_headers: get_buffer_bytes 6 0 max
         request_headers: environ
         request_headers: pause",
    )
    .options(
        "root_id = 'r', vm_id = 'v', vm_config = '# vm', env = { KEY = 'a=b' }, pause_timeout = 50",
    )
    .run();
    assert_eq!(
        run.of("request_headers")[..5],
        [
            "get_property plugin_name -> 0 probe",
            "get_property plugin_root_id -> 0 r",
            "get_property plugin_vm_id -> 0 v",
            "get_buffer_bytes 6 0 max -> 0 # vm",
            "environ -> 0 1 KEY=a=b",
        ]
    );
    assert_eq!(
        run.failures(),
        [
            "on_http_request_headers: failed to run proxy_on_http_request_headers: the filter paused the request, and \
             nothing let it go on within 50 ms"
        ]
    );
}

#[test]
fn defaults_of_the_options() {
    let run = Probe::new(
        "request_headers: get_property plugin_root_id; request_headers: get_property plugin_vm_id
         request_headers: get_buffer_bytes 6 0 max; request_headers: environ; request_headers: grow 4095",
    )
    .run();
    assert_eq!(
        run.of("request_headers")[..5],
        [
            "get_property plugin_root_id -> 0 probe",
            "get_property plugin_vm_id -> 0 ''",
            "get_buffer_bytes 6 0 max -> 0 ''",
            "environ -> 0 0",
            // 256 MiB are 4096 pages, and the guest has two.
            "grow 4095 -> -1",
        ]
    );
}

/// Runs Lua in requests to `/t`, with `wasm`, a `plugin`, a `ctx`, `NULL(type)` and `tell(...)`, which says its
/// arguments.
fn lua(code: &str) -> Running {
    Nginx::new()
        .guest("probe")
        .http(
            r#"
            init_by_lua_block {
                ffi = require("ffi")
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("it", "probe.wasm"))
                ctx = assert(wasm.on_configure(plugin, "configure: get_buffer_bytes 7 0 max"))

                function NULL(name)
                    return ffi.cast(name .. " *", nil)
                end

                function tell(...)
                    local words = {}
                    for i = 1, select('#', ...) do
                        local word = select(i, ...)
                        words[i] = type(word) == "cdata" and "cdata" or tostring(word)
                    end
                    ngx.say(table.concat(words, " "))
                end
            }
            "#,
        )
        .server(&format!("location /t {{ content_by_lua_block {{ {code} }} }}"))
        .start()
}

const REFUSED: &str = "failed to run proxy_on_configure: proxy_on_configure returned false: the filter refused its \
                       configuration";

#[test]
fn results_of_the_calls() {
    let nginx = lua(r#"
        tell(wasm.load("a", "probe.wasm"))
        tell(wasm.on_configure(plugin))
        tell(wasm.on_configure(plugin, nil))
        tell(wasm.on_configure(plugin, '# any'))
        tell(wasm.on_configure(plugin, "nonsense"))
        tell(wasm.on_http_request_headers(ctx))
        tell(wasm.on_http_request_body(ctx, nil, false))
        tell(wasm.on_http_request_body(ctx, "", false))
        tell(wasm.on_http_request_body(ctx, "x"))
        tell(wasm.on_http_request_body(ctx, "y", true))
        tell(wasm.on_http_response_headers(ctx))
        tell(wasm.on_http_response_body(ctx))
        "#);
    let text = nginx.get("/t").text();
    nginx.expect_log("probe: bad line: nonsense");
    let body = "failed to run proxy_on_http_response_body: there is no ngx.arg in phase content";
    let expected = [
        "cdata",
        "cdata",
        "cdata",
        "cdata",
        &format!("nil {REFUSED}"),
        "true",
        "true",
        "true",
        "true",
        "true",
        "true",
        &format!("nil {body}"),
    ];
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1..], expected[1..]);
    assert!(["cdata", "cdata nil"].contains(&lines[0]), "{text}");
}

#[test]
fn wrong_arguments_of_every_kind() {
    let nginx = lua(r#"
        local foreign = ffi.new("int[1]")
        local values = {
            "x", 1, true, print, foreign, ffi.cast("void *", foreign), NULL("void"), NULL("rpw_plugin_t"),
            NULL("rpw_context_t"), NULL("rpw_event_t"), ffi.cast("rpw_event_t *", foreign),
        }
        for _, value in ipairs(values) do
            tell(wasm.on_configure(value, "x"))
            for _, name in ipairs({ "request_headers", "request_body", "response_headers", "response_body" }) do
                tell(wasm["on_http_" .. name](value))
            end
        end
        tell("and")
        tell(wasm.on_configure(ctx))
        for _, conf in ipairs({ 1, true, false, print, foreign, NULL("void") }) do
            tell(wasm.on_configure(plugin, conf))
        end
        for _, body in ipairs({ 1, true, false, {}, foreign, NULL("char") }) do
            tell(wasm.on_http_request_body(ctx, body, true))
        end
        tell("and")
        tell(wasm.load())
        tell(wasm.load(""))
        tell(wasm.load(1, "probe.wasm"))
        tell(wasm.load("\255", "probe.wasm"))
        tell(wasm.load("a"))
        tell(wasm.load("a", 1))
        tell(wasm.load("a", {}))
        tell(wasm.load("a", ""))
        "#);
    let text = nginx.get("/t").text();
    let expected = format!(
        "{handles}and\nnil bad plugin\n{confs}{bodies}and\n{loads}",
        handles = format!("nil bad plugin\n{}", "nil bad plugin ctx\n".repeat(4)).repeat(11),
        confs = "nil bad conf\n".repeat(6),
        bodies = "nil bad body\n".repeat(6),
        loads = "\
            nil failed to load wasm plugin: name must be a string, got nil\n\
            nil failed to load wasm plugin: name must not be empty\n\
            nil failed to load wasm plugin: name must be a string, got number\n\
            nil failed to load wasm plugin: name is not UTF-8\n\
            nil failed to load wasm plugin: path must be a string, got nil\n\
            nil failed to load wasm plugin: path must be a string, got number\n\
            nil failed to load wasm plugin: path must be a string, got table\n\
            nil : No such file or directory\n",
    );
    assert_eq!(text, expected);
}

#[test]
fn a_configuration_may_hold_any_bytes() {
    let nginx = lua(r#"
        local every = {}
        for byte = 0, 255 do
            every[byte + 1] = string.char(byte)
        end
        tell(wasm.on_configure(plugin, '#' .. (table.concat(every):gsub("[\n;]", ""))))
        tell(wasm.on_configure(plugin, '#' .. ("x"):rep(2 ^ 20)))
        tell(wasm.on_configure(plugin, "\0"))
        "#);
    let expected = format!("cdata\ncdata\nnil {REFUSED}\n");
    assert_eq!(nginx.get("/t").text(), expected);
    nginx.expect_log("probe: bad line: \\x00");
}

const TRAP: &str = "wasm trap: wasm `unreachable` instruction executed";

/// Sends two requests through a probe and checks that one worker served both; the failures of the second.
fn failures_of(script: &str) -> Vec<String> {
    let nginx = Probe::new(script).start();
    let workers = nginx.worker_pids();
    nginx.request("POST", "/").body("x").send();
    let first = nginx.log_texts("lua call failed: ").len();
    assert_eq!(nginx.request("POST", "/").body("x").send().status, 200, "{script}");
    assert_eq!(nginx.worker_pids(), workers, "{script}");
    nginx.log_texts("lua call failed: ").split_off(first)
}

/// What the call of a callback answers when the guest ends in it, and what those after it do in the same stream.
#[test]
fn a_guest_that_ends_in_a_request_callback() {
    let calls = ["request_headers", "request_body", "response_headers", "response_body"];
    let runs = [
        (0, "trap", TRAP),
        (1, "trap", TRAP),
        (2, "trap", TRAP),
        (3, "trap", TRAP),
        (0, "exit 3", "the filter ended itself with exit code 3 (proc_exit)"),
        (1, "exit 0", "the filter ended itself with exit code 0 (proc_exit)"),
        (2, "exit 255", "the filter ended itself with exit code 255 (proc_exit)"),
        (3, "recurse", "wasm trap: call stack exhausted"),
    ];
    for (at, op, cause) in runs {
        let call = calls[at];
        let failures = failures_of(&format!("{call}: {op}"));
        let expected = format!(
            "on_http_{call}: failed to run proxy_on_http_{call}: proxy_on_{call} failed: {cause}"
        );
        assert!(failures[0].starts_with(&expected), "{op}: {failures:?}");
        // The body filter may run more than once.
        assert!(failures.len() >= calls.len() - at, "{op}: {failures:?}");
        for (failure, after) in failures[1..].iter().zip(&calls[at + 1..]) {
            let expected = format!(
                "on_http_{after}: failed to run proxy_on_http_{after}: the filter's VM was lost: proxy_on_{call} \
                 failed: {cause}"
            );
            assert!(failure.starts_with(&expected), "{op}: {failures:?}");
        }
    }
}

#[test]
fn a_guest_that_traps_when_a_stream_is_made() {
    let failures = failures_of("create: trap");
    let expected = format!(
        "on_http_request_headers: failed to run proxy_on_http_request_headers: proxy_on_context_create failed: {TRAP}"
    );
    assert!(failures[0].starts_with(&expected), "{failures:?}");
}

#[test]
fn a_guest_that_traps_in_its_configuration() {
    for callback in ["vm_start", "configure"] {
        let nginx = lua(&format!(
            r#"
            tell(wasm.on_configure(plugin, "{callback}: trap"))
            tell(wasm.on_configure(plugin, '# good'))
            tell(wasm.on_http_request_headers(ctx))
            "#
        ));
        let text = nginx.get("/t").text();
        let lines: Vec<&str> = text.lines().collect();
        let expected =
            format!("nil failed to run proxy_on_configure: proxy_on_{callback} failed: {TRAP}");
        assert!(lines[0].starts_with(&expected), "{text}");
        // The VM is made again, and contexts of before come back in it.
        assert_eq!(lines[1..], ["cdata", "true"], "{text}");
    }
}

#[test]
fn a_guest_that_traps_when_a_stream_ends() {
    for callback in ["done", "log", "delete"] {
        let nginx: Running = Probe::new(&format!("{callback}: trap")).start();
        let workers = nginx.worker_pids();
        for _ in 0..2 {
            assert_eq!(nginx.get("/").status, 200);
        }
        assert_eq!(nginx.worker_pids(), workers);
        assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
        let expected = format!("wasm plugin \"probe\": proxy_on_{callback} failed: {TRAP}");
        nginx.expect_log(&expected);
        assert_eq!(nginx.error_log().matches(&expected).count(), 2);
    }
}

#[test]
fn after_a_trap_a_new_vm_serves() {
    let script =
        "configure: ids; request_headers: ids; response_headers: ids; response_body@first: trap";
    let nginx = Probe::new(script).start();
    let workers = nginx.worker_pids();
    for _ in 0..2 {
        nginx.get("/");
    }
    let of_one_request = [
        "configure ids -> id=1 root=1",
        "request_headers ids -> id=2 root=1",
        "response_headers ids -> id=2 root=1",
        "response_body trap -> ...",
    ];
    let lines = nginx.guest_log("probe");
    // The first VM may be one that was configured before nginx opened its log.
    assert!(lines.ends_with(&of_one_request.map(String::from)), "{lines:?}");
    assert!(lines.len() <= 2 * of_one_request.len(), "{lines:?}");
    assert_eq!(nginx.worker_pids(), workers);
}
