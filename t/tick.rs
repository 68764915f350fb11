//! proxy_on_tick: in each worker, as long as the filter wants it.

use super::ops::wait_for;
use super::support::{Nginx, Probe, Running, poll};

const SCRIPT: &str = "configure: set_tick_period_milliseconds 20
    tick: ids
    request_headers: ids";

#[test]
fn ticks_begin_with_the_first_request() {
    let nginx = Probe::new(SCRIPT).start();
    assert_eq!(nginx.get("/").status, 200);
    let lines = wait_for(&nginx, "tick", 5);
    assert!(lines.len() >= 5 && lines.iter().all(|line| line == "ids -> id=1 root=1"), "{lines:?}");
}

fn with_init_worker(script: &str, workers: usize) -> Running {
    Nginx::new()
        .guest("probe")
        .workers(workers)
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("probe", "probe.wasm", {{ calls = {{ allow = {{ "unix:*" }} }} }}))
                ctx = assert(wasm.on_configure(plugin, [==[{script}
                ]==]))
            }}
            init_worker_by_lua_block {{ assert(wasm.init_worker()) }}
            "#
        ))
        .server("location / { return 200; }")
        .start()
}

/// The workers that ticked, by the process ids of their log lines.
fn ticked(nginx: &Running) -> Vec<i32> {
    let log = nginx.error_log();
    let mut pids: Vec<i32> = log
        .lines()
        .filter(|line| line.contains("wasm log probe: tick "))
        .filter_map(|line| line.split("] ").nth(1)?.split('#').next()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[test]
fn init_worker_starts_them_in_each_worker_without_a_request() {
    let nginx = with_init_worker(SCRIPT, 2);
    let workers = nginx.worker_pids();
    assert!(poll(|| (ticked(&nginx) == workers).then_some(())).is_some(), "{:?}", ticked(&nginx));
    // A graceful end is not held up by them: the harness waits for it.
}

#[test]
fn a_filter_stops_its_ticks() {
    let nginx = Probe::new(
        "configure: set_tick_period_milliseconds 10
        tick: ids
        tick@again: set_tick_period_milliseconds 0",
    )
    .start();
    assert_eq!(nginx.get("/").status, 200);
    let lines = wait_for(&nginx, "tick", 3);
    assert_eq!(
        lines,
        ["ids -> id=1 root=1", "ids -> id=1 root=1", "set_tick_period_milliseconds 0 -> 0"]
    );
    // Another request makes the light thread look: nothing ticks any more.
    for _ in 0..20 {
        assert_eq!(nginx.get("/").status, 200);
    }
    assert_eq!(wait_for(&nginx, "tick", 3).len(), 3);
}

#[test]
fn a_context_whose_vm_was_lost_continues_to_tick() {
    let nginx = Probe::new(
        "configure: set_tick_period_milliseconds 10
        tick: ids
        request_headers: trap",
    )
    .start();
    for round in 1..=3 {
        nginx.get("/");
        let before = wait_for(&nginx, "tick", 1).len();
        let more = wait_for(&nginx, "tick", before + 2).len();
        assert!(more >= before + 2, "round {round}");
    }
}

#[test]
fn a_tick_that_traps_is_logged_and_the_next_vm_ticks() {
    let nginx =
        with_init_worker("configure: set_tick_period_milliseconds 10; tick: ids; tick: trap", 1);
    let told = "wasm plugin \"probe\": proxy_on_tick failed: wasm trap: ";
    nginx.expect_log(told);
    assert!(poll(|| (nginx.error_log().matches(told).count() >= 2).then_some(())).is_some());
}

#[test]
fn a_tick_that_loops_is_stopped() {
    let nginx = Probe::new("configure: set_tick_period_milliseconds 10; tick: loop")
        .options("time_limit = 50")
        .start();
    let told = "proxy_on_tick failed: time limit of 50 ms passed";
    nginx.expect_log(told);
    nginx.get("/");
    nginx.wait_for_log(told);
}

#[test]
fn ticks_end_with_their_context() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("probe", "probe.wasm", { calls = { allow = { "unix:*" } } }))
                held = {}
            }
            "#,
        )
        .server(
            r#"
            location /make {
                content_by_lua_block {
                    held[1] = assert(wasm.on_configure(plugin, [[
                        configure: set_tick_period_milliseconds 10
                        tick: ids
                        root_delete: ids
                    ]]))
                }
            }
            location /drop {
                content_by_lua_block {
                    held[1] = nil
                    collectgarbage()
                    collectgarbage()
                    -- A context ends with the next call of the library.
                    held[2] = assert(wasm.on_configure(plugin))
                }
            }
            "#,
        )
        .start();
    nginx.get("/make");
    wait_for(&nginx, "tick", 3);
    nginx.get("/drop");
    assert_eq!(wait_for(&nginx, "root_delete", 1), ["ids -> id=1 root=1"]);
    let ended = nginx.guest_log("probe").iter().position(|line| line.starts_with("root_delete"));
    // Time for more ticks, were there any: another context's come.
    nginx.get("/make");
    let made = wait_for(&nginx, "tick", 1).len();
    wait_for(&nginx, "tick", made + 3);
    let after = &nginx.guest_log("probe")[ended.expect("an end")..];
    assert!(!after.iter().any(|line| line.starts_with("tick ids -> id=1 ")), "{after:?}");
}

/// A filter whose ticks call a service, and that asks for the next when it answers, is at it for as long as a worker lives.
#[test]
fn a_worker_that_is_to_end_does_so_while_ticks_and_calls_bring_one_another() {
    // Not of the worker's own nginx, which stops to answer when it is to end.
    let service = Nginx::new().http("server { listen unix:service.sock; return 200; }").start();
    let call = format!("http_call unix:{} '' '' '' 20000", service.path("service.sock"));
    for chain in [
        format!("tick: {call}\nhttp_call_response: set_tick_period_milliseconds 5"),
        // Without ticks: each call is made when the one before it is answered.
        format!("tick: set_tick_period_milliseconds 0; tick: {call}\nhttp_call_response: {call}"),
    ] {
        let script = format!("configure: set_tick_period_milliseconds 5\n{chain}");
        let nginx = Probe::new(&script).start();
        nginx.get("/");
        wait_for(&nginx, "http_call_response", 3);
        nginx.reload();
        nginx.wait_for_old_workers();
    }
}
