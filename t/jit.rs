//! The hot path is compiled by LuaJIT: a filter that is configured once costs no interpreter in a request.

use super::support::{Nginx, Running, root};

/// Watches the compiler in the worker. `/jit` says a line for each trace through this library: `done` and the functions
/// that it goes through, or `aborted`, the same and why. A function is told by its file and first line.
const WATCH: &str = r#"
local util = require("jit.util")
local recording, lines = {}, {}

-- The errors that tests know, by number. LuaJIT tells numbers, which differ between versions, and the file that lists the
-- names may be missing or of another version. The first one is the same in all; the other is provoked to learn its number.
local names = { [0] = "error thrown or hook called during recording" }

local function short_loop(n)
    local sum = 0
    for i = 1, n do
        sum = sum + i
    end
    return sum
end

local function learn_names()
    local function note(what, _, _, _, code)
        if what == "abort" then
            names[code] = names[code] or "leaving loop in root trace"
        end
    end
    jit.attach(note, "trace")
    jit.on()
    for _ = 1, 100 do
        short_loop(3)
    end
    jit.off()
    jit.attach(note)
end

jit.off(learn_names)

local function name_of(func)
    local info = util.funcinfo(func)
    local file = info.source and info.source:match("/lib/(resty/proxy%-wasm.*)%.lua$")
    return file and file .. ":" .. info.linedefined
end

local function on_record(trace, func)
    local name = name_of(func)
    local seen = recording[trace]
    if seen and name and not seen[name] then
        seen[name] = true
        seen[#seen + 1] = name
    end
end

local function on_trace(what, trace, func, pc, code, reason)
    if what == "start" then
        recording[trace] = {}
        on_record(trace, func)
        return
    end
    local seen = recording[trace]
    if not seen then
        return
    end
    recording[trace] = nil
    if what == "stop" and #seen > 0 then
        lines[#lines + 1] = "done " .. table.concat(seen, " ")
    elseif what == "abort" and #seen > 0 then
        local text = names[code] or "error " .. tostring(code)
        lines[#lines + 1] = "aborted " .. table.concat(seen, " ") .. ": " .. text .. " " .. tostring(reason)
    end
end

-- Until then nothing is compiled: a symbol of a library must have been used once before.
jit.off()
learn_names()

function watch()
    jit.attach(on_trace, "trace")
    jit.attach(on_record, "record")
    jit.on()
end

function traces()
    return table.concat(lines, "\n")
end
"#;

/// `bare` and a context of it, watched after some Lua has run.
fn watched(before: &str, server: &str) -> Running {
    Nginx::new()
        .wat("bare")
        .guest("probe_0_2_100")
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("bare", "bare.wasm"))
                ctx = assert(wasm.on_configure(plugin))
                {before}
                {WATCH}
            }}
            "#
        ))
        .server(server)
        .server("location /watch { content_by_lua_block { watch() } }")
        .server("location /jit { content_by_lua_block { ngx.print(traces()) } }")
        .start()
}

/// Where a function of the library begins, as the watcher tells it.
fn function(file: &str, text: &str) -> String {
    let path = root().join("lib").join(file).with_extension("lua");
    let source = std::fs::read_to_string(path).expect("a file");
    let line = source
        .lines()
        .position(|line| line.contains(text))
        .unwrap_or_else(|| panic!("no {text} in {file}"));
    format!("{file}:{}", line + 1)
}

/// Sends requests and returns the traces through the library.
fn traces(nginx: &Running, requests: usize) -> Vec<String> {
    let request = nginx.request("GET", "/t");
    let mut connection = nginx.connect();
    let mut send = |count: usize| {
        for _ in 0..count {
            assert_eq!(connection.request(&request).header_all("hello"), ["world!"]);
        }
    };
    send(10);
    assert_eq!(nginx.get("/watch").status, 200);
    send(requests);
    nginx.get("/jit").text().lines().map(Into::into).collect()
}

/// The functions that headers go through, in the documented call and below it.
fn path(call: &str) -> Vec<String> {
    vec![
        function("resty/proxy-wasm", &format!("function _M.{call}(")),
        function("resty/proxy-wasm", "local function is_handle("),
        function("resty/proxy-wasm/http/stream", "return function(ctx, calls_hold, takes_body)"),
        function("resty/proxy-wasm/http/stream", "local function run("),
    ]
}

/// The traces that were finished and go through all of `path`.
fn covering<'a>(traces: &'a [String], path: &[String]) -> Vec<&'a String> {
    let covers = |trace: &&String| {
        trace.starts_with("done ")
            && path.iter().all(|name| trace.split(' ').any(|word| word == name))
    };
    traces.iter().filter(covers).collect()
}

/// The traces that LuaJIT gave up, without those that begin in the worker's own timers. These run when they like: a slow
/// machine sees more of their turns, and a loop over one job is too short for a trace. No request waits for them.
fn aborted(traces: &[String]) -> Vec<&String> {
    let of_timer = |trace: &str| {
        trace.starts_with("resty/proxy-wasm/jobs:") || trace.starts_with("resty/proxy-wasm/jobs/")
    };
    let of_request =
        |trace: &&String| trace.strip_prefix("aborted ").is_some_and(|rest| !of_timer(rest));
    traces.iter().filter(of_request).collect()
}

const CONFIGURED_ONCE: &str = "
    location /t {
        return 200;
        header_filter_by_lua_block { wasm.on_http_response_headers(ctx) }
    }";

#[test]
fn response_headers() {
    let traces = traces(&watched("", CONFIGURED_ONCE), 400);
    let path = path("on_http_response_headers");
    assert!(!covering(&traces, &path).is_empty(), "{path:?}: {traces:#?}");
    assert_eq!(aborted(&traces), [""; 0]);
}

/// Changes of the request are Lua's to make.
#[test]
fn effects() {
    let before = r#"
        local script = "request_headers: add_header_map_value 0 x-a b\n" ..
            "response_headers: add_header_map_value 2 hello world!"
        local probe = assert(wasm.load("probe", "probe_0_2_100.wasm"))
        ctx = assert(wasm.on_configure(probe, script))
    "#;
    let server = r#"location /t {
        access_by_lua_block { wasm.on_http_request_headers(ctx) }
        content_by_lua_block { ngx.print("") }
        header_filter_by_lua_block { wasm.on_http_response_headers(ctx) }
    }"#;
    let traces = traces(&watched(before, server), 400);
    let path = [
        function("resty/proxy-wasm/http/effects", "function _M.apply("),
        function("resty/proxy-wasm/http/effects", "local function apply_one("),
    ];
    assert!(!covering(&traces, &path).is_empty(), "{path:?}: {traces:#?}");
}

/// Some filters ask for the level before each line that they may log. The host answers that itself, without Lua.
#[test]
fn a_filter_that_asks_for_the_level_of_the_log() {
    let before = r#"
        local script = "response_headers: call_foreign_function get_log_level\n" ..
            "response_headers: add_header_map_value 2 hello world!"
        local probe = assert(wasm.load("probe", "probe_0_2_100.wasm"))
        ctx = assert(wasm.on_configure(probe, script))
    "#;
    let traces = traces(&watched(before, CONFIGURED_ONCE), 400);
    let path = path("on_http_response_headers");
    // It begins in the loop over the response's headers, which the filter may read.
    assert!(!covering(&traces, &path[2..]).is_empty(), "{path:?}: {traces:#?}");
}

#[test]
fn request_headers() {
    let server = r#"location /t {
        access_by_lua_block { wasm.on_http_request_headers(ctx) }
        content_by_lua_block { ngx.print("") }
        header_filter_by_lua_block { wasm.on_http_response_headers(ctx) }
    }"#;
    let traces = traces(&watched("", server), 400);
    for call in ["on_http_request_headers", "on_http_response_headers"] {
        let path = path(call);
        assert!(!covering(&traces, &path).is_empty(), "{path:?}: {traces:#?}");
    }
    assert_eq!(aborted(&traces), [""; 0]);
}

#[test]
fn a_chain() {
    let server = r#"location /t {
        access_by_lua_block { chain:access() }
        content_by_lua_block { ngx.print("") }
        header_filter_by_lua_block { chain:header_filter() }
    }"#;
    let traces = traces(&watched("chain = wasm.new_chain({ ctx })", server), 400);
    let path = &path("on_http_response_headers")[2..];
    assert!(!covering(&traces, path).is_empty(), "{path:?}: {traces:#?}");
    // A chain's own loop is too short for LuaJIT, which gives up on it and compiles what is called in it.
    let left = "leaving loop in root trace";
    let aborted: Vec<_> =
        aborted(&traces).into_iter().filter(|trace| !trace.contains(left)).collect();
    assert_eq!(aborted, [""; 0]);
}

#[test]
fn configuring_in_every_request() {
    let server = r#"location /t {
        return 200;
        header_filter_by_lua_block { wasm.on_http_response_headers(wasm.on_configure(plugin, "x")) }
    }"#;
    let traces = traces(&watched("", server), 400);
    let configure = [
        function("resty/proxy-wasm", "function _M.on_configure("),
        function("resty/proxy-wasm/pacing", "function _M.made_context("),
    ];
    for path in [&path("on_http_response_headers")[..], &configure] {
        assert!(!covering(&traces, path).is_empty(), "{path:?}: {traces:#?}");
    }
    // The collector frees contexts now and then, and a finalizer that runs while a trace is being recorded
    // ends the recording; LuaJIT tries again later. That is no fault of the path.
    let finalizer = "error thrown or hook called during recording";
    let aborted: Vec<_> =
        aborted(&traces).into_iter().filter(|trace| !trace.contains(finalizer)).collect();
    assert_eq!(aborted, [""; 0]);
}

#[test]
fn the_watcher_sees_what_is_not_compiled() {
    let tell = function("resty/proxy-wasm/http/stream", "function _M.response_headers(");
    let off = r#"jit.off(require("resty.proxy-wasm.http.stream").response_headers)"#;
    let traces = traces(&watched(off, CONFIGURED_ONCE), 400);
    assert_eq!(covering(&traces, std::slice::from_ref(&tell)), [""; 0]);
    let aborted = aborted(&traces);
    assert!(aborted.iter().any(|trace| trace.contains(&tell)), "{aborted:?}");
}

#[test]
fn what_timers_do_is_left_out() {
    let traces = [
        "aborted resty/proxy-wasm/jobs:172: leaving loop in root trace nil",
        "aborted resty/proxy-wasm/jobs/queue:20: leaving loop in root trace nil",
        "aborted resty/proxy-wasm/http/stream:9 resty/proxy-wasm/jobs:300: error 7 nil",
        "done resty/proxy-wasm/http/stream:9",
    ]
    .map(String::from);
    assert_eq!(aborted(&traces), [&traces[2]]);
}
