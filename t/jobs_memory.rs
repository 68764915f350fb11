//! Jobs outside of requests leave no memory behind: a worker has after a hundred thousand of them what it had after the first
//! tenth.

use super::jobs::count;
use super::support::{Nginx, poll, valgrind};

/// Jobs of which each brings the next one, some at the same time.
pub(crate) struct Endless {
    pub script: String,
    /// Lua of `init_by_lua_block`.
    pub init: &'static str,
    /// Which callback is counted.
    pub callback: &'static str,
    /// How many plugin contexts run the script.
    pub contexts: usize,
    /// How many jobs there are, see [`JOBS`].
    pub number: u64,
}

/// What a worker has in KiB after a tenth of that many jobs, and after all.
fn memory_over(what: &str, jobs: &Endless) -> (u64, u64) {
    let Endless { script, init, callback, contexts, number } = jobs;
    let nginx = Nginx::new()
        .guest("probe")
        .log_level("emerg")
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                {init}
                local plugin = assert(wasm.load("jobs", "probe.wasm", {{ calls = {{ allow = {{ "unix:*" }} }} }}))
                contexts = {{}}
                for i = 1, {contexts} do
                    contexts[i] = assert(wasm.on_configure(plugin, [==[{script}]==]))
                end
            }}
            init_worker_by_lua_block {{ assert(wasm.init_worker()) }}
            "#
        ))
        .server(
            "location /metrics { content_by_lua_block { ngx.print(assert(wasm.prometheus())) } }",
        )
        .start();
    let worker = nginx.worker_pids()[0];
    let done = || count(&nginx, "jobs", callback);
    let wait_for = |least: u64| {
        // Each wait is for as much as a slow machine does in the harness's patience.
        let mut seen = done();
        while seen < least {
            poll(|| (done() > seen).then_some(()))
                .unwrap_or_else(|| panic!("{what}: stuck at {seen}"));
            seen = done();
        }
    };
    wait_for(number / 10);
    let early = nginx.rss_kib(worker);
    wait_for(*number);
    let late = nginx.rss_kib(worker);
    println!("{what}: {early} KiB after {}, {late} KiB after {number}", number / 10);
    (early, late)
}

/// The first tick begins so many rows of jobs.
const ROWS: usize = 8;

pub(crate) fn rows(first: &str, next: &str) -> String {
    format!(
        "configure: set_tick_period_milliseconds 1\ntick: set_tick_period_milliseconds 0\n{}{next}",
        format!("tick: {first}\n").repeat(ROWS)
    )
}

/// 20 bytes that each leaves would be seen.
pub(crate) const JOBS: u64 = 100_000;

pub(crate) fn expect_flat(what: &str, jobs: &Endless) {
    let (early, late) = memory_over(what, jobs);
    assert!(late < early + 1536, "{what}: {early} KiB became {late} KiB");
}

/// nginx keeps some hundred bytes of each connection for as long as the light thread lives that opened it: 100,000 calls
/// left 25 MiB.
#[test]
fn connections_of_calls_leave_no_memory_behind() {
    if valgrind() {
        return;
    }
    let service = Nginx::new()
        .connections(4096)
        .http(
            // A `return` of the server itself says keep-alive, and nginx closes the connection nevertheless.
            "keepalive_timeout 0;
             server { listen unix:closes.sock; location / { return 200; } }
             server { listen unix:says.sock; return 200; }",
        )
        .start();
    let [closes, says] =
        ["closes", "says"].map(|name| format!("unix:{}", service.path(&format!("{name}.sock"))));
    for (upstream, what) in [
        ("unix:/none.sock", "failing calls"),
        (closes.as_str(), "succeeding calls"),
        (says.as_str(), "calls whose connections are closed afterwards"),
    ] {
        let call = format!("http_call {upstream} '' '' '' 10000");
        let script = rows(&call, &format!("http_call_response: {call}"));
        expect_flat(
            what,
            &Endless {
                script,
                init: "",
                callback: "proxy_on_http_call_response",
                contexts: 1,
                number: JOBS,
            },
        );
    }
}

/// The light threads of queues and of functions live as long as their worker.
#[test]
fn messages_and_functions_leave_no_memory_behind() {
    if valgrind() {
        return;
    }
    let script = format!(
        "configure: register_shared_queue q >q\n{}",
        rows(
            "enqueue_shared_queue $q again",
            "queue_ready: dequeue_shared_queue $q\nqueue_ready: enqueue_shared_queue $q again"
        )
    );
    expect_flat(
        "messages",
        &Endless { script, init: "", callback: "proxy_on_queue_ready", contexts: 1, number: JOBS },
    );
    let function = "call_foreign_function later x";
    let script = rows(function, &format!("foreign: {function}"));
    let init =
        "wasm.register_foreign_function('later', function(x) return x end, { async = true })";
    expect_flat(
        "functions",
        &Endless { script, init, callback: "proxy_on_foreign_function", contexts: 1, number: JOBS },
    );
}

/// The timers of ticks, and the light thread that runs them.
#[test]
fn ticks_leave_no_memory_behind() {
    if valgrind() {
        return;
    }
    let script = "configure: set_tick_period_milliseconds 1\ntick: ids".to_string();
    let jobs = Endless { script, init: "", callback: "proxy_on_tick", contexts: 50, number: JOBS };
    expect_flat("ticks", &jobs);
    let script = "configure,tick: set_tick_period_milliseconds 1".to_string();
    let jobs = Endless { script, init: "", callback: "proxy_on_tick", contexts: 50, number: JOBS };
    expect_flat("ticks that set their period anew", &jobs);
}
