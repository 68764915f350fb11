//! Replacing the module of a plugin while nginx serves.

use super::support::{Nginx, Running, poll, root, valgrind};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// A filter that adds `hello: VALUE`, of six letters.
fn filter(value: &str) -> Vec<u8> {
    assert_eq!(value.len(), 6);
    let text = fs::read_to_string(root().join("t/guests/wat/bare.wat")).expect("a guest");
    wat::parse_str(text.replace("world!", value)).expect("a module")
}

/// `/t` runs the filter, by the documented calls; `/chain` by a chain; `/replace?path=` replaces it.
fn nginx(workers: usize) -> Nginx {
    Nginx::new()
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                waiting = false
                plugin = assert(wasm.load("it", "first.wasm"))
                ctx = assert(wasm.on_configure(plugin, "configured"))
                chain = wasm.new_chain({ ctx })
            }
            init_worker_by_lua_block { assert(wasm.init_worker()) }
            "#,
        )
        .server(
            r#"
            location /t {
                access_by_lua_block { assert(wasm.on_http_request_headers(ctx)) }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
                content_by_lua_block { ngx.print(ngx.worker.pid()) }
            }
            location /slow {
                access_by_lua_block {
                    assert(wasm.on_http_request_headers(ctx))
                    waiting = true
                    while not ngx.shared.flags:get("go") do
                        ngx.sleep(0.005)
                    end
                }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
                content_by_lua_block { ngx.print("answer") }
            }
            location /waiting { content_by_lua_block { ngx.print(tostring(waiting)) } }
            location /go { content_by_lua_block { ngx.shared.flags:set("go", true) } }
            location /chain {
                access_by_lua_block { chain:access() }
                header_filter_by_lua_block { chain:header_filter() }
                body_filter_by_lua_block { chain:body_filter() }
                content_by_lua_block { ngx.print("answer") }
            }
            location /replace {
                content_by_lua_block {
                    local opts = ngx.var.arg_memory and { memory_limit = tonumber(ngx.var.arg_memory) } or nil
                    local ok, err = plugin:replace(ngx.var.arg_path, opts)
                    ngx.print(ok and "replaced" or err)
                }
            }
            "#,
        )
        .http("lua_shared_dict flags 64k;")
        .file("first.wasm", filter("first!"))
        .file("second.wasm", filter("second"))
        .wat("start_section_trap")
        .wat("configure_false")
        .workers(workers)
}

fn replace(nginx: &Running, path: &str) -> String {
    nginx.get(&format!("/replace?path={path}")).text()
}

fn hello(nginx: &Running, path: &str) -> String {
    let answer = nginx.get(path);
    assert_eq!(answer.status, 200);
    answer.header("hello").expect("a header").into()
}

#[test]
fn new_requests_get_the_new_module() {
    let nginx = nginx(1).start();
    for path in ["/t", "/chain"] {
        assert_eq!(hello(&nginx, path), "first!");
    }
    assert_eq!(replace(&nginx, "second.wasm"), "replaced");
    for path in ["/t", "/chain"] {
        assert_eq!(hello(&nginx, path), "second");
    }
    assert_eq!(replace(&nginx, "first.wasm"), "replaced");
    assert_eq!(hello(&nginx, "/t"), "first!");
}

#[test]
fn a_request_under_way_ends_with_the_old_module() {
    let nginx = nginx(1).start();
    thread::scope(|scope| {
        let slow = scope.spawn(|| hello(&nginx, "/slow"));
        let waits = poll(|| (nginx.get("/waiting").text() == "true").then_some(()));
        assert!(waits.is_some());
        assert_eq!(replace(&nginx, "second.wasm"), "replaced");
        assert_eq!(hello(&nginx, "/t"), "second");
        assert_eq!(replace(&nginx, "first.wasm"), "replaced");
        assert_eq!(replace(&nginx, "second.wasm"), "replaced");
        nginx.get("/go");
        assert_eq!(slow.join().expect("an answer"), "first!");
    });
    assert_eq!(hello(&nginx, "/t"), "second");
}

#[test]
fn a_module_that_fails_leaves_the_old_one_in_place() {
    let nginx = nginx(1).file("bad.wasm", "nonsense").start();
    for (path, cause) in [
        ("missing.wasm", "missing.wasm: No such file or directory"),
        ("bad.wasm", "not a WebAssembly module: "),
        ("start_section_trap.wasm", "failed: "),
        (
            "configure_false.wasm",
            "proxy_on_configure returned false: the filter refused its configuration",
        ),
    ] {
        let told = replace(&nginx, path);
        assert!(told.starts_with("failed to replace wasm plugin: "), "{path}: {told}");
        assert!(told.contains(cause), "{path}: {told}");
        for path in ["/t", "/chain"] {
            assert_eq!(hello(&nginx, path), "first!");
        }
    }
    let told = nginx.get("/replace?path=second.wasm&memory=1").text();
    assert_eq!(
        told,
        "failed to replace wasm plugin: option \"memory_limit\" must be a whole number of bytes from 65536 to 4294967296"
    );
    assert_eq!(nginx.get("/replace?path=second.wasm&memory=65536").text(), "replaced");
    assert_eq!(hello(&nginx, "/t"), "second");
}

/// What a module that fails has asked for does not take the place of what the filter asked for that stays.
#[test]
fn a_module_that_fails_takes_no_queue_and_no_tick() {
    let fails = r#"(module
        (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 8) "q")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 0))
        (func (export "proxy_on_queue_ready") (param i32 i32) unreachable)
        (func (export "proxy_on_tick") (param i32) unreachable)
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $register (i32.const 8) (i32.const 1) (i32.const 0)))
            (drop (call $tick (i32.const 1)))
            (i32.const 0)))"#;
    let nginx = Nginx::new()
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                local function context(name, script)
                    local plugin = assert(wasm.load(name, "probe.wasm", { vm_id = "vm" }))
                    return assert(wasm.on_configure(plugin, script)), plugin
                end
                listens, plugin = context("listens", "configure: register_shared_queue q; queue_ready: dequeue_shared_queue 1")
                sends = context("sends", "request_headers: resolve_shared_queue '' q; request_headers: enqueue_shared_queue 1 m")
            }
            init_worker_by_lua_block { assert(wasm.init_worker()) }
            "#,
        )
        .server(
            r#"
            location /send { content_by_lua_block { assert(wasm.on_http_request_headers(sends)) ngx.print("sent") } }
            location /replace {
                content_by_lua_block {
                    local ok, err = plugin:replace(ngx.var.arg_path)
                    ngx.print(ok and "replaced" or err)
                }
            }
            "#,
        )
        .guest("probe")
        .wat_text("fails", fails)
        .start();
    for sent in 1..=3 {
        assert_eq!(
            replace(&nginx, "fails.wasm"),
            "failed to replace wasm plugin: proxy_on_configure returned false: the filter refused its configuration"
        );
        assert_eq!(nginx.get("/send").text(), "sent");
        let marker = "wasm log listens: queue_ready dequeue_shared_queue 1 -> 0 m";
        let heard = poll(|| (nginx.error_log().matches(marker).count() == sent).then_some(()));
        assert!(heard.is_some(), "{}", nginx.error_log());
    }
}

/// What each worker answers, once all have been asked.
fn answers(nginx: &Running) -> Vec<String> {
    let pids = nginx.worker_pids();
    pids.iter()
        .map(|pid| {
            let answer = poll(|| {
                let answer = nginx.get("/t");
                (answer.text() == pid.to_string())
                    .then(|| answer.header("hello").expect("a header").to_owned())
            });
            answer.unwrap_or_else(|| panic!("worker {pid} does not answer"))
        })
        .collect()
}

#[test]
fn all_workers_follow() {
    if valgrind() {
        return;
    }
    let nginx = nginx(3).start();
    for (path, value) in [("second.wasm", "second"), ("first.wasm", "first!")] {
        assert_eq!(replace(&nginx, path), "replaced");
        let all = poll(|| answers(&nginx).iter().all(|answer| answer == value).then_some(()));
        assert!(all.is_some(), "{:?}", answers(&nginx));
    }
    // Of a module that fails the others do not hear.
    assert_ne!(replace(&nginx, "configure_false.wasm"), "replaced");
    assert!(answers(&nginx).iter().all(|answer| answer == "first!"));
}

/// While a worker loads the module of one plan, it is replaced by a later one, which stays.
#[test]
fn a_plan_that_is_overtaken_is_dropped() {
    if valgrind() {
        return;
    }
    let nginx = nginx(2)
        .server(
            r#"
            location /hold {
                content_by_lua_block {
                    if ngx.var.arg_pid ~= tostring(ngx.worker.pid()) then
                        return ngx.print("other")
                    end
                    local loading = require("resty.proxy-wasm.loading")
                    local wait = loading.wait
                    function loading.wait(...)
                        local loaded, err, is_about_file = wait(...)
                        if ngx.get_phase() == "timer" then
                            loading.wait = wait
                            ngx.shared.flags:set("held", true)
                            while not ngx.shared.flags:get("go") do
                                ngx.sleep(0.005)
                            end
                            -- It runs when the plan has been followed, or not.
                            ngx.timer.at(0, function() ngx.shared.flags:set("over", true) end)
                        end
                        return loaded, err, is_about_file
                    end
                    ngx.print("held")
                }
            }
            location /replace_in {
                content_by_lua_block {
                    if ngx.var.arg_pid ~= tostring(ngx.worker.pid()) then
                        return ngx.print("other")
                    end
                    local ok, err = plugin:replace(ngx.var.arg_path)
                    ngx.print(ok and "replaced" or err)
                }
            }
            location /flag {
                content_by_lua_block { ngx.print(tostring(ngx.shared.flags:get(ngx.var.arg_name))) }
            }
            "#,
        )
        .start();
    let pids = nginx.worker_pids();
    let ask = |pid: i32, path: &str| {
        let answer = poll(|| {
            let text = nginx.get(&path.replace("PID", &pid.to_string())).text();
            (text != "other").then_some(text)
        });
        answer.unwrap_or_else(|| panic!("worker {pid} does not answer"))
    };
    let wait_for = |flag: &str| {
        let path = format!("/flag?name={flag}");
        assert!(poll(|| (nginx.get(&path).text() == "true").then_some(())).is_some(), "{flag}");
    };
    assert_eq!(ask(pids[1], "/hold?pid=PID"), "held");
    assert_eq!(ask(pids[0], "/replace_in?pid=PID&path=second.wasm"), "replaced");
    wait_for("held");
    assert_eq!(ask(pids[1], "/replace_in?pid=PID&path=first.wasm"), "replaced");
    nginx.get("/go");
    wait_for("over");
    let all = poll(|| answers(&nginx).iter().all(|answer| answer == "first!").then_some(()));
    assert!(all.is_some(), "{:?}", answers(&nginx));
}

#[test]
fn a_worker_that_starts_follows_and_a_reload_forgets_replacements() {
    if valgrind() {
        return;
    }
    let nginx = nginx(2).start();
    assert_eq!(replace(&nginx, "second.wasm"), "replaced");
    let before = nginx.worker_pids();
    // SAFETY: a process of this test's.
    unsafe { libc::kill(before[0], libc::SIGKILL) };
    nginx.expect_log("exited on signal 9");
    let again = poll(|| {
        let now = nginx.worker_pids();
        (now.len() == 2 && now != before).then_some(())
    });
    assert!(again.is_some());
    let all = poll(|| answers(&nginx).iter().all(|answer| answer == "second").then_some(()));
    assert!(all.is_some(), "{:?}", answers(&nginx));
    nginx.reload();
    nginx.wait_for_old_workers();
    assert!(answers(&nginx).iter().all(|answer| answer == "first!"));
}

/// Many replacements under load: every tenth with a module that fails, and with workers killed meanwhile when there are
/// several. Every request is answered by some module.
fn many(workers: usize, replacements: usize) {
    let nginx = nginx(workers).log_level("warn").start();
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut kib = Vec::new();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // A worker that is killed takes its connections with it.
                    match workers {
                        1 => assert!(matches!(hello(&nginx, "/t").as_str(), "first!" | "second")),
                        _ => drop(nginx.request("GET", "/t").try_send().ok()),
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for i in 0..replacements {
            let path = match i % 10 {
                9 => "configure_false.wasm",
                i if i % 2 == 0 => "second.wasm",
                _ => "first.wasm",
            };
            if workers > 1 && i % 20 == 10 {
                // SAFETY: a process of this test's.
                unsafe { libc::kill(nginx.worker_pids()[0], libc::SIGKILL) };
            }
            let told = nginx.request("GET", &format!("/replace?path={path}")).try_send().ok();
            if let Some(told) = told {
                assert_eq!(
                    told.text() == "replaced",
                    path != "configure_false.wasm",
                    "{path}: {}",
                    told.text()
                );
            } else {
                assert!(workers > 1);
            }
            if workers == 1 && (i == replacements / 2 || i == replacements - 1) {
                kib.push(nginx.rss_kib(nginx.worker_pids()[0]));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(answered.load(Ordering::Relaxed) > 0);
    if let [half, end] = kib[..] {
        assert!(end < half + 2048, "{half} KiB grew to {end} KiB");
    }
    let last = poll(|| (replace(&nginx, "second.wasm") == "replaced").then_some(()));
    assert!(last.is_some());
    let all = poll(|| answers(&nginx).iter().all(|answer| answer == "second").then_some(()));
    assert!(all.is_some(), "{:?}", answers(&nginx));
    if workers > 1 {
        nginx.expect_log("exited on signal 9");
    }
}

#[test]
fn many_replacements_under_load_lose_no_request_and_no_memory() {
    many(1, 200);
}

#[test]
fn replacements_continue_while_workers_are_killed() {
    if valgrind() {
        return;
    }
    many(3, 100);
}
