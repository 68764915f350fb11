//! Jobs outside of requests that bring jobs without end: the worker answers its requests meanwhile, and ends when it must.

use super::support::{Nginx, Running, poll, valgrind};
use std::time::{Duration, Instant};

/// A filter that ticks each millisecond, and whose tick takes longer.
const DEAR_TICKS: &str = r#"(module
    (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $period (i32.const 1)))
        (i32.const 1))
    (func (export "proxy_on_tick") (param i32) (local i32)
        (local.set 1 (i32.const 6000000))
        (loop $more (br_if $more (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))))"#;

/// A kind of job: plugins by name, module and configuration, and the callback in which it continues.
pub(crate) struct Kind {
    pub plugins: &'static [(&'static str, &'static str, &'static str)],
    pub callback: &'static str,
    /// What it has the error log say.
    pub says: &'static [&'static str],
}

pub(crate) const TICKS: Kind = Kind {
    plugins: &[("tick1", "dear", ""), ("tick2", "dear", ""), ("tick3", "dear", "")],
    callback: "proxy_on_tick",
    says: &[],
};

const QUEUE: Kind = Kind {
    plugins: &[(
        "queue",
        "probe",
        "configure: register_shared_queue q
         configure: enqueue_shared_queue 1 m
         queue_ready: dequeue_shared_queue 1
         queue_ready: enqueue_shared_queue 1 m",
    )],
    callback: "proxy_on_queue_ready",
    says: &[],
};

const FAILING_CALLS: Kind = Kind {
    plugins: &[(
        "fails",
        "probe",
        "configure: set_tick_period_milliseconds 1
         tick: set_tick_period_milliseconds 0
         tick: http_call unix:/none.sock '' '' '' 1000
         http_call_response: http_call unix:/none.sock '' '' '' 1000",
    )],
    callback: "proxy_on_http_call_response",
    says: &["HTTP call to unix:/none.sock failed", "connect() to unix:/none.sock failed"],
};

const CALLS: Kind = Kind {
    plugins: &[(
        "calls",
        "probe",
        "configure: set_tick_period_milliseconds 1
         tick: set_tick_period_milliseconds 0
         tick: http_call service '' '' '' 10000
         http_call_response: http_call service '' '' '' 10000",
    )],
    callback: "proxy_on_http_call_response",
    says: &[],
};

const FUNCTIONS: Kind = Kind {
    plugins: &[(
        "functions",
        "probe",
        "configure: set_tick_period_milliseconds 1
         tick: set_tick_period_milliseconds 0
         tick: call_foreign_function later x
         foreign: call_foreign_function later x",
    )],
    callback: "proxy_on_foreign_function",
    says: &[],
};

pub(crate) const KINDS: [&Kind; 5] = [&TICKS, &QUEUE, &FAILING_CALLS, &CALLS, &FUNCTIONS];

/// What calls that succeed go to: another nginx, since the service of one that ends goes first.
pub(crate) fn service() -> Running {
    Nginx::new().connections(4096).http("server { listen unix:service.sock; return 200; }").start()
}

/// What `setup` says of it.
pub(crate) fn upstream(service: &Running) -> String {
    format!("service = \"unix:{}\", ", service.path("service.sock"))
}

/// `upstreams`: the inside of that table of `setup`.
pub(crate) fn start(kinds: &[&Kind], upstreams: &str) -> Running {
    let mut contexts = String::new();
    for (name, module, script) in kinds.iter().flat_map(|kind| kind.plugins) {
        contexts += &format!("make('{name}', '{module}', [==[{script}]==])\n");
    }
    let nginx = Nginx::new()
        .guest("probe")
        .wat_text("dear", DEAR_TICKS)
        // The filters' own lines would be many.
        .log_level("warn")
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                wasm.setup({{ upstreams = {{ {upstreams} }} }})
                wasm.register_foreign_function("later", function(arguments)
                    ngx.update_time()
                    return arguments
                end, {{ async = true }})
                contexts = {{}}
                function make(name, module, script)
                    local plugin = assert(wasm.load(name, module .. ".wasm", {{ vm_id = name, calls = {{ allow = {{ "*", "unix:*" }} }} }}))
                    contexts[name] = assert(wasm.on_configure(plugin, script ~= "" and script or nil))
                end
                {contexts}
            }}
            init_worker_by_lua_block {{ assert(wasm.init_worker()) }}
            "#
        ))
        .server(
            r#"
            location /plain { return 200 plain; }
            location /sleep { content_by_lua_block { for _ = 1, 5 do ngx.sleep(0.001) end ngx.print("slept") } }
            location /metrics { content_by_lua_block { ngx.print(assert(wasm.prometheus())) } }
            "#,
        )
        .start();
    for says in kinds.iter().flat_map(|kind| kind.says) {
        nginx.expect_log(says);
    }
    nginx
}

/// How often a plugin's callback ran.
pub(crate) fn count(nginx: &Running, plugin: &str, callback: &str) -> u64 {
    let metrics = nginx.get("/metrics").text();
    let line = metrics.lines().find(|line| {
        line.starts_with("proxy_wasm_callbacks_total{")
            && line.contains(&format!("\"{plugin}\""))
            && line.contains(&format!("\"{callback}\""))
    });
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0)
}

/// Requests are answered while all of these continue, each of them.
pub(crate) fn answers_meanwhile(nginx: &Running, kinds: &[&Kind]) {
    for kind in kinds {
        for (plugin, ..) in kind.plugins {
            let before = count(nginx, plugin, kind.callback);
            let goes_on = || (count(nginx, plugin, kind.callback) > before + 3).then_some(());
            assert!(poll(goes_on).is_some(), "{plugin}: {} stands still", kind.callback);
        }
    }
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let start = Instant::now();
        assert_eq!(nginx.get("/plain").text(), "plain");
        assert_eq!(nginx.get("/sleep").text(), "slept");
        longest = longest.max(start.elapsed());
    }
    println!("two requests, six waits: {longest:?} at the most");
}

#[test]
fn requests_are_answered_while_jobs_bring_jobs() {
    let service = service();
    for kind in KINDS {
        let nginx = start(&[kind], &upstream(&service));
        answers_meanwhile(&nginx, &[kind]);
        // The harness ends it by SIGQUIT.
    }
}

#[test]
fn requests_are_answered_while_jobs_of_all_kinds_bring_jobs() {
    let service = service();
    let nginx = start(&KINDS, &upstream(&service));
    answers_meanwhile(&nginx, &KINDS);
}

#[test]
fn functions_that_do_not_yield_give_nginx_a_turn_between_them() {
    const FUNCTIONS: usize = 40;
    let nginx = Nginx::new()
        .guest("probe")
        .file("script", "request_headers: call_foreign_function busy x\n".repeat(FUNCTIONS))
        .log_level("warn")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("probe", "probe.wasm", { calls_hold = false }))
                filter = assert(wasm.on_configure(plugin, io.open("script"):read("*a")))
                round, ran, asked, most, in_round = 0, 0, 0, 0, {}
                wasm.register_foreign_function("busy", function()
                    ngx.update_time()
                    local begin = ngx.now()
                    repeat ngx.update_time() until ngx.now() >= begin + 0.01
                    ran = ran + 1
                    in_round[round] = (in_round[round] or 0) + 1
                    most = math.max(most, in_round[round])
                    return ""
                end, { async = true })
            }
            "#,
        )
        .server(&format!(
            r#"
            location /ask {{
                access_by_lua_block {{ assert(wasm.on_http_request_headers(filter)) }}
                content_by_lua_block {{
                    asked = asked + {FUNCTIONS}
                    repeat
                        round = round + 1
                        ngx.sleep(0.001)
                    until ran >= asked
                    ngx.print(ran, " ", most)
                }}
            }}
            "#
        ))
        .start();
    // Light threads that have nothing to do are kept for the second time.
    for times in 1..=2 {
        let (ran, most) = nginx
            .get("/ask")
            .text()
            .split_once(' ')
            .map(|(ran, most)| (ran.to_string(), most.parse::<usize>().expect("a number")))
            .expect("two numbers");
        assert_eq!(ran, (times * FUNCTIONS).to_string());
        assert!(most <= 2, "{most} functions ran in one pass of nginx's loop");
    }
}

/// The worker ends at a reload and by SIGTERM, and answers requests until then. The harness ends it by SIGQUIT.
pub(crate) fn worker_ends(nginx: &Running, kinds: &[&Kind]) {
    answers_meanwhile(nginx, &kinds[..1]);
    nginx.reload();
    nginx.wait_for_old_workers();
    answers_meanwhile(nginx, &kinds[..1]);
    if valgrind() {
        return;
    }
    let worker = nginx.worker_pids()[0];
    // SAFETY: a process of this test.
    unsafe { libc::kill(worker, libc::SIGTERM) };
    let ended = poll(|| (!nginx.worker_pids().contains(&worker)).then_some(()));
    assert!(ended.is_some(), "a worker does not end when it is told to");
}

#[test]
fn workers_end_while_jobs_bring_jobs() {
    let service = service();
    let all = [&KINDS[..], &[&TICKS], &[&QUEUE], &[&FAILING_CALLS], &[&CALLS], &[&FUNCTIONS]];
    for kinds in all {
        worker_ends(&start(kinds, &upstream(&service)), kinds);
    }
}

/// The calls of a request follow one another without end, too; its time ends that.
#[test]
fn a_request_whose_calls_follow_one_another_delays_no_other() {
    let nginx = Nginx::new()
        .guest("probe")
        .log_level("warn")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("chain", "probe.wasm", { pause_timeout = 1000, calls = { allow = { "unix:*" } } }))
                ctx = assert(wasm.on_configure(plugin, [[
                    request_headers: http_call unix:/none.sock '' '' '' 1000
                    request_headers: pause
                    http_call_response: set_effective_context caller
                    http_call_response: http_call unix:/none.sock '' '' '' 1000
                ]]))
            }
            "#,
        )
        .server(
            r#"
            location /chain {
                content_by_lua_block {
                    local ok, err = wasm.on_http_request_headers(ctx)
                    ngx.print(err)
                }
            }
            location /plain { return 200 plain; }
            "#,
        )
        .start();
    nginx.expect_log("HTTP call to unix:/none.sock failed");
    nginx.expect_log("connect() to unix:/none.sock failed");
    let mut chain = nginx.connect();
    chain.write(b"GET /chain HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    for _ in 0..20 {
        assert_eq!(nginx.get("/plain").text(), "plain");
    }
    let answer = chain.response().text();
    assert!(answer.ends_with("nothing let it go on within 1000 ms"), "{answer}");
}
