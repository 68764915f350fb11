//! The processes of nginx: what is made before a fork and used after it, reloads, and workers that die.

use super::support::{Nginx, Running, poll};
use std::collections::BTreeMap;
use std::fs;

/// What the plugin `it` logged, by the process that did.
fn guest_log_by_process(nginx: &Running) -> BTreeMap<i32, Vec<String>> {
    let marker = "wasm log it: ";
    let log = nginx.error_log();
    let of_line = |line: &str| {
        let (head, _) = line.split_once(marker)?;
        head.split_once("] ")?.1.split('#').next()?.parse().ok()
    };
    let pids = log.lines().filter_map(of_line);
    let mut by_process: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for (pid, text) in pids.zip(nginx.log_texts(marker)) {
        by_process.entry(pid).or_default().push(text);
    }
    by_process
}

/// Sends requests to `/pid`, which answers with the worker's process id, until `count` workers have answered.
fn reach_workers(nginx: &Running, count: usize) -> Vec<i32> {
    let mut pids: Vec<i32> = Vec::new();
    poll(|| {
        let pid = nginx.get("/pid").text().parse().expect("a process id");
        if !pids.contains(&pid) {
            pids.push(pid);
        }
        (pids.len() >= count).then_some(())
    })
    .expect("each worker answers");
    pids.sort_unstable();
    pids
}

/// A plugin and a context `ctx` of this script, made in the master; `/pid` runs a request through it.
fn made_in_the_master(script: &str) -> Nginx {
    Nginx::new()
        .guest("probe")
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("it", "probe.wasm"))
                ctx = assert(wasm.on_configure(plugin, "{script}"))
            }}
            "#
        ))
        .server(
            r#"
            location /pid {
                content_by_lua_block {
                    assert(wasm.on_http_request_headers(ctx))
                    ngx.print(ngx.worker.pid())
                }
            }
            "#,
        )
}

#[test]
fn each_process_makes_its_own_vm() {
    let nginx = made_in_the_master("configure: random; configure: clock; request_headers: ids")
        .workers(2)
        .start();
    // At the first start nginx has no error log yet when the master runs; at a reload it has.
    nginx.reload();
    let workers = reach_workers(&nginx, 2);
    assert_eq!(workers, nginx.worker_pids());

    let logs = guest_log_by_process(&nginx);
    let mut seeds = Vec::new();
    for pid in workers.iter().copied().chain([nginx.master_pid()]) {
        let lines = &logs[&pid];
        // What `configure: random` answered: errno and 16 bytes.
        let seed = lines[0].strip_prefix("configure random -> 0 ").expect("random bytes");
        assert_eq!(seed.len(), 32, "{lines:?}");
        seeds.push(seed);
        assert_eq!(lines[1], "configure clock -> 0 ok");
        // The ids of a new VM: nothing of the master's continues counting.
        let streams = (2..).map(|id| format!("request_headers ids -> id={id} root=1"));
        let expected: Vec<String> = streams.take(lines.len() - 2).collect();
        assert_eq!(lines[2..], expected);
    }
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 3, "{logs:?}");
    assert_eq!(logs[&nginx.master_pid()].len(), 2, "{logs:?}");
}

#[test]
fn what_the_master_made_ends_silently_in_a_worker() {
    let nginx = made_in_the_master("root_done,root_delete: ids; request_headers: ids")
        .server(
            r#"
            location /drop {
                content_by_lua_block {
                    rawset(_G, "ctx", nil)
                    rawset(_G, "ctx", assert(wasm.on_configure(plugin, "root_done: ids; request_headers: ids")))
                    collectgarbage()
                    collectgarbage()
                    assert(wasm.on_http_request_headers(ctx))
                }
            }
            location /drop_again {
                content_by_lua_block {
                    rawset(_G, "ctx", nil)
                    collectgarbage()
                    collectgarbage()
                    rawset(_G, "ctx", assert(wasm.on_configure(plugin, "request_headers: ids")))
                    assert(wasm.on_http_request_headers(ctx))
                }
            }
            "#,
        )
        .start();
    assert_eq!(nginx.get("/drop").status, 200);
    assert_eq!(nginx.guest_log("it"), ["request_headers ids -> id=2 root=1"]);
    // One that was made here ends for real, once the worker goes into the library again.
    assert_eq!(nginx.get("/drop_again").status, 200);
    assert_eq!(
        nginx.guest_log("it")[1..],
        ["root_done ids -> id=1 root=1", "request_headers ids -> id=4 root=3"]
    );
}

/// Loads a filter large enough to be compiled by several threads, in the master and in the worker.
fn large() -> Nginx {
    Nginx::new()
        .guest("rust_filter")
        .workers(2)
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("large", "rust_filter.wasm"))
                ctx = assert(wasm.on_configure(plugin, "hello: master"))
            }
            "#,
        )
        .server(
            r#"
            location /t {
                content_by_lua_block { ngx.print("answer") }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
            }
            location /load {
                content_by_lua_block {
                    local plugin = assert(wasm.load("again", "rust_filter.wasm"))
                    ngx.ctx.filter = assert(wasm.on_configure(plugin, "hello: worker"))
                }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ngx.ctx.filter)) }
            }
            "#,
        )
}

fn serves(nginx: &Running) {
    for _ in 0..4 {
        assert_eq!(nginx.get("/t").header_all("hello"), ["master"]);
    }
}

/// Whether a process has no more threads than that. One that was joined may be in the list for a moment longer.
fn has_threads(pid: i32, most: usize) -> bool {
    let tasks = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    poll(|| (tasks() <= most).then_some(())).is_some()
}

fn is_single_threaded(pid: i32) -> bool {
    has_threads(pid, 1)
}

#[test]
fn no_thread_outlives_a_load() {
    let nginx = large().start();
    assert!(is_single_threaded(nginx.master_pid()));
    serves(&nginx);
    for _ in 0..2 {
        assert_eq!(nginx.get("/load").header_all("hello"), ["worker"]);
    }
    // Both have their ticker by now, see `time_limit`.
    for pid in nginx.worker_pids() {
        assert!(has_threads(pid, 2));
    }
}

#[test]
fn a_worker_loads_what_the_master_has_loaded() {
    for daemon in [false, true] {
        let nginx = large().daemon(daemon).start();
        for _ in 0..2 {
            assert_eq!(nginx.get("/load").header_all("hello"), ["worker"]);
        }
        serves(&nginx);
    }
}

#[test]
fn reloads_with_requests_in_between() {
    for daemon in [false, true] {
        let nginx = large().daemon(daemon).start();
        let master = nginx.master_pid();
        for _ in 0..3 {
            serves(&nginx);
            nginx.reload();
            assert!(is_single_threaded(master));
        }
        serves(&nginx);
        assert_eq!(nginx.get("/load").header_all("hello"), ["worker"]);
        assert_eq!(nginx.master_pid(), master);
    }
}

#[test]
fn a_request_that_a_reload_overtakes() {
    let nginx = large()
        .server(
            r#"
            location /slow {
                access_by_lua_block { assert(wasm.on_http_request_headers(ctx)) }
                content_by_lua_block {
                    ngx.log(ngx.NOTICE, "slow begins")
                    repeat
                        ngx.sleep(0.02)
                        local go = io.open("go")
                    until go
                    ngx.print("slow answer")
                }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
                body_filter_by_lua_block { assert(wasm.on_http_response_body(ctx)) }
            }
            "#,
        )
        .start();
    let mut connection = nginx.connect();
    connection.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n");
    nginx.wait_for_log("slow begins");
    nginx.reload();
    serves(&nginx);
    fs::write(nginx.path("go"), "").expect("a file");
    let response = connection.response();
    assert_eq!((response.status, response.text().as_str()), (200, "slow answer"));
    assert_eq!(response.header_all("hello"), ["master"]);
    assert_eq!(response.header_all("x-rust-path"), ["/slow"]);
}

#[test]
fn a_reload_that_fails_leaves_the_old_workers() {
    let nginx = large().start();
    let workers = nginx.worker_pids();
    let good = fs::read(nginx.path("rust_filter.wasm")).expect("a guest");
    fs::write(nginx.path("rust_filter.wasm"), &good[..good.len() / 2]).expect("a file");
    nginx.signal(libc::SIGHUP);
    nginx.wait_for_log("failed to load wasm plugin: the file is cut off");
    nginx.expect_log("failed to load wasm plugin: the file is cut off");
    assert_eq!(nginx.worker_pids(), workers);
    serves(&nginx);
    fs::write(nginx.path("rust_filter.wasm"), good).expect("a file");
    nginx.reload();
    serves(&nginx);
}

#[test]
fn a_worker_that_is_killed_is_replaced() {
    let nginx = made_in_the_master("request_headers: ids").start();
    let killed = reach_workers(&nginx, 1)[0];
    // SAFETY: kill has no memory preconditions; the process is this test's.
    assert_eq!(unsafe { libc::kill(killed, libc::SIGKILL) }, 0);
    nginx.wait_for_log("exited on signal 9");
    nginx.expect_log(&format!("worker process {killed} exited on signal 9"));
    let replaced = poll(|| nginx.worker_pids().first().copied().filter(|pid| *pid != killed));
    assert_eq!(reach_workers(&nginx, 1), [replaced.expect("a new worker")]);
    assert_eq!(nginx.guest_log("it"), ["request_headers ids -> id=2 root=1"; 2]);
}

#[test]
fn a_filter_that_cannot_start_in_a_worker() {
    // It starts in the master, where nginx has opened no error log yet and writes no more than notices, and traps where
    // the level is info.
    let guest = r#"(module
        (import "env" "proxy_get_log_level" (func $level (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "_initialize")
            (drop (call $level (i32.const 0)))
            (if (i32.eq (i32.load (i32.const 0)) (i32.const 2)) (then unreachable))))"#;
    let nginx = Nginx::new()
        .wat_text("picky", guest)
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                plugin = assert(wasm.load("picky", "picky.wasm"))
                ctx = assert(wasm.on_configure(plugin))
            }
            "#,
        )
        .server(
            r#"
            location /call {
                content_by_lua_block {
                    local _, of_configure = wasm.on_configure(plugin)
                    local _, of_headers = wasm.on_http_request_headers(ctx)
                    ngx.say(of_configure)
                    ngx.say(of_headers)
                }
            }
            location /other { return 200 "other"; }
            "#,
        )
        .start();
    let workers = nginx.worker_pids();
    let cause = "_initialize failed: wasm trap: wasm `unreachable` instruction executed (in <unknown>!<wasm function 2>)";
    let told = format!("wasm plugin \"picky\": {cause}; next try in 100 ms");
    nginx.expect_log(&told);
    for _ in 0..3 {
        let text = nginx.get("/call").text();
        for (line, function) in text.lines().zip(["configure", "http_request_headers"]) {
            let failed = format!("failed to run proxy_on_{function}: {cause}");
            let wait = line.strip_prefix(&failed).unwrap_or_else(|| panic!("{line}"));
            assert!(wait.is_empty() || wait.starts_with("; next try in "), "{line}");
        }
        assert!(text.contains("; next try in "), "the second of two calls comes too early: {text}");
        assert_eq!(nginx.get("/other").text(), "other");
    }
    assert_eq!(nginx.error_log().matches("next try in").count(), 1, "told once, not per request");
    assert_eq!(nginx.worker_pids(), workers);
}
