//! Shared queues in a real nginx: proxy_on_queue_ready in one worker for what comes from any.

use super::support::{Nginx, Running, poll};
use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

/// A filter that listens, in workers by `init_worker`, and one that sends at `/send`.
fn nginx(workers: usize, init_worker: &str) -> Nginx {
    Nginx::new()
        .guest("probe")
        .workers(workers)
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                local function context(name, script)
                    local plugin = assert(wasm.load(name, "probe.wasm", {{ vm_id = "vm" }}))
                    return assert(wasm.on_configure(plugin, script))
                end
                listens = context("listens", "configure: register_shared_queue q; queue_ready: dequeue_shared_queue 1")
                sends = context("sends", "request_headers: resolve_shared_queue '' q; request_headers: enqueue_shared_queue 1 m")
            }}
            init_worker_by_lua_block {{ {init_worker} }}
            "#
        ))
        .server(
            r#"
            location /send {
                content_by_lua_block {
                    assert(wasm.on_http_request_headers(sends))
                    ngx.print(ngx.worker.pid())
                }
            }
            location /pid { content_by_lua_block { ngx.print(ngx.worker.pid()) } }
            location /listen { content_by_lua_block { assert(wasm.on_http_request_headers(listens)) } }
            "#,
        )
}

fn notifications(nginx: &Running) -> usize {
    let marker = "wasm log listens: queue_ready dequeue_shared_queue 1 -> 0 m";
    nginx.error_log().matches(marker).count()
}

fn wait_for_notifications(nginx: &Running, count: usize) {
    let found = poll(|| (notifications(nginx) >= count).then_some(()));
    assert!(found.is_some(), "{} of {count} were notified", notifications(nginx));
    assert_eq!(notifications(nginx), count);
}

#[test]
fn each_message_of_any_worker_is_notified_once() {
    let nginx = nginx(2, "assert(wasm.init_worker())").start();
    // The worker that registers last listens. One that answers has registered.
    let both = |path: &str, least: usize| {
        let (mut pids, mut count) = (BTreeSet::new(), 0);
        poll(|| {
            pids.insert(nginx.get(path).text());
            count += 1;
            (pids.len() == 2 && count >= least).then_some(())
        })
        .expect("both workers");
        count
    };
    both("/pid", 2);
    let count = both("/send", 20);
    wait_for_notifications(&nginx, count);
    let log = nginx.error_log();
    let by: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("wasm log listens: queue_ready"))
        .filter_map(|line| line.split("] ").nth(1)?.split('#').next())
        .collect();
    assert!(by.iter().all(|pid| *pid == by[0]), "one worker listens: {by:?}");
}

#[test]
fn without_init_worker_the_first_request_begins_to_listen() {
    let nginx = nginx(1, "").start();
    nginx.get("/send");
    wait_for_notifications(&nginx, 1);
    nginx.get("/send");
    wait_for_notifications(&nginx, 2);
}

#[test]
fn messages_outlive_workers_and_reloads() {
    let nginx = nginx(1, "").daemon(true).start();
    nginx.get("/listen");
    for round in 0..5 {
        nginx.get("/send");
        wait_for_notifications(&nginx, 2 * round + 1);
        nginx.reload();
        // The new worker listens with its first request.
        nginx.get("/send");
        wait_for_notifications(&nginx, 2 * round + 2);
        let worker = nginx.worker_pids()[0];
        nginx.expect_log("exited on signal 9");
        // SAFETY: a process of this test.
        unsafe { libc::kill(worker, libc::SIGKILL) };
        poll(|| nginx.worker_pids().first().is_some_and(|pid| *pid != worker).then_some(()))
            .expect("a new worker");
    }
    nginx.wait_for_old_workers();
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count()
}

#[test]
fn reloads_leave_no_descriptor_behind() {
    let nginx = nginx(2, "assert(wasm.init_worker())").start();
    nginx.get("/send");
    nginx.reload();
    nginx.wait_for_old_workers();
    let master = nginx.master_pid();
    let before = descriptors(master);
    for _ in 0..5 {
        nginx.reload();
        nginx.get("/send");
    }
    nginx.wait_for_old_workers();
    assert_eq!(descriptors(master), before);
}

/// A worker that looks at nothing by itself, and is notified of a message all the same, was woken for it.
#[test]
fn an_idle_listener_does_not_wake_and_is_woken() {
    let nginx = nginx(1, "assert(wasm.init_worker())").start();
    let worker = nginx.worker_pids()[0];
    let switches = || -> u64 {
        let status = fs::read_to_string(format!("/proc/{worker}/status")).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.expect("a count").trim().parse().expect("a number")
    };
    for sent in 1..=3 {
        nginx.get("/send");
        wait_for_notifications(&nginx, sent);
        // The light thread that ran the callback ends after two seconds without anything to do.
        let quiet = poll(|| {
            let before = switches();
            std::thread::sleep(Duration::from_secs(1));
            (switches() - before <= 2).then_some(())
        });
        assert!(quiet.is_some(), "the worker wakes more than twice a second");
    }
}

#[test]
fn workers_of_another_user_are_woken_too() {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let nginx = nginx(2, "assert(wasm.init_worker())").user("daemon").start();
    for count in 1..=5 {
        nginx.get("/send");
        wait_for_notifications(&nginx, count);
    }
}

#[test]
fn many_workers_begin_to_listen_at_once() {
    let nginx = nginx(24, "assert(wasm.init_worker())").start();
    for count in 1..=5 {
        nginx.get("/send");
        wait_for_notifications(&nginx, count);
    }
}
