//! Filters that never end: stopped within their limit, in whatever callback, and everyone else is served.

use super::support::{Nginx, Probe, Running, poll, valgrind};
use std::fs;

/// The text without the guest's backtrace, which must be there.
fn cause(text: &str) -> &str {
    let (cause, frames) = text.split_once(" (in ").expect("a backtrace");
    assert!(frames.ends_with(')'), "{text}");
    cause
}

#[test]
fn an_endless_loop_in_an_event_is_stopped() {
    for (callback, function) in [
        ("request_headers", "on_http_request_headers"),
        ("request_body", "on_http_request_body"),
        ("response_headers", "on_http_response_headers"),
        ("response_body", "on_http_response_body"),
    ] {
        for op in ["loop", "loop_host"] {
            let nginx = Probe::new(&format!("{callback}: {op}"))
                .options("time_limit = 50")
                .content("content_by_lua_block { ngx.print('content') }")
                .start();
            for _ in 0..2 {
                let response = nginx.request("POST", "/").body("hello").send();
                assert_eq!((response.status, response.text().as_str()), (200, "content"));
            }
            let stopped = format!(
                "{function}: failed to run proxy_{function}: \
                 proxy_on_{callback} failed: time limit of 50 ms passed"
            );
            let failures = nginx.log_texts("lua call failed: ");
            let found = failures.iter().filter(|text| cause(text) == stopped).count();
            assert_eq!(found, 2, "{callback} {op}: each request has a new VM: {failures:?}");
        }
    }
}

#[test]
fn an_endless_loop_in_an_end_is_stopped() {
    for callback in ["done", "log", "delete"] {
        let nginx = Probe::new(&format!("{callback}: loop")).options("time_limit = 50").start();
        let stopped = format!(
            "wasm plugin \"probe\": proxy_on_{callback} failed: time limit of 50 ms passed"
        );
        nginx.expect_log(&stopped);
        assert_eq!(nginx.get("/").status, 200);
        nginx.wait_for_log(&stopped);
        assert_eq!(nginx.get("/").status, 200);
    }
}

/// A location that loads and configures the probe by its arguments, in the worker or in the master.
fn starting(master: &str) -> Running {
    Nginx::new()
        .guest("probe")
        .wat("start_loop")
        .http(&format!(
            r#"
            init_by_lua_block {{
                function start(file, conf)
                    local wasm = require("resty.proxy-wasm")
                    local options = {{ time_limit = 40, start_time_limit = 80 }}
                    local plugin, err = wasm.load("start", file, options)
                    if not plugin then
                        return err
                    end
                    local _, err = wasm.on_configure(plugin, conf)
                    return err or "started"
                end
                {master}
            }}
            "#
        ))
        .server(
            r#"
            location /start {
                content_by_lua_block {
                    ngx.print(start(ngx.var.arg_file, ngx.unescape_uri(ngx.var.arg_conf)))
                }
            }
            location /master { content_by_lua_block { ngx.print(started) } }
            "#,
        )
        .start()
}

#[test]
fn an_endless_loop_at_the_start_is_stopped_in_worker_and_master() {
    for (file, conf, stopped) in [
        (
            "start_loop",
            "x",
            "failed to load wasm plugin: _initialize failed: time limit of 80 ms passed",
        ),
        (
            "probe",
            "vm_start: loop",
            "failed to run proxy_on_configure: proxy_on_vm_start failed: time limit of 80 ms passed",
        ),
        (
            "probe",
            "configure: loop",
            "failed to run proxy_on_configure: proxy_on_configure failed: time limit of 80 ms passed",
        ),
    ] {
        let nginx = starting(&format!("started = start('{file}.wasm', '{conf}')"));
        assert_eq!(cause(&nginx.get("/master").text()), stopped);
        let conf = conf.replace(' ', "+");
        for _ in 0..2 {
            let text = nginx.get(&format!("/start?file={file}.wasm&conf={conf}")).text();
            assert_eq!(cause(&text), stopped);
        }
        assert_eq!(nginx.get("/start?file=probe.wasm&conf=log:+ids").text(), "started");
        assert_eq!(tickers(nginx.master_pid()), [0; 0], "no thread is there when nginx forks");
    }
}

#[test]
fn a_worker_in_a_loop_answers_all_when_the_limit_has_passed() {
    let nginx = Probe::new("request_headers: loop")
        .options("time_limit = 300")
        .nginx(|nginx| nginx.server("location /plain { return 200; }"))
        .start();
    let looping: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = nginx.connect();
            connection.write(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
            connection
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(nginx.get("/plain").status, 200);
    }
    for mut connection in looping {
        let answer = connection.read_to_end();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", answer.escape_ascii());
    }
}

/// A filter that calls a function of Lua which blocks the worker for so long, without using the processor.
fn blocked(milliseconds: u32, time_limit: u32) -> Probe {
    Probe::new(
        "request_headers: call_foreign_function block x
         request_headers: ids",
    )
    .init(&format!(
        r#"
        local ffi = require("ffi")
        ffi.cdef("int usleep(unsigned int usec);")
        wasm.register_foreign_function("block", function() ffi.C.usleep({milliseconds} * 1000) end)
        "#
    ))
    .options(&format!("time_limit = {time_limit}"))
}

#[test]
fn time_in_which_a_filter_does_not_run_is_not_its_own() {
    let run = blocked(1500, 1000).run();
    assert_eq!(run.failures(), [""; 0]);
    assert_eq!(run.of("request_headers").len(), 2);
}

#[test]
fn a_worker_that_stands_still_ends_its_filter_too() {
    let run = blocked(2000, 20).run();
    let failures = run.failures();
    let stopped = "on_http_request_headers: failed to run proxy_on_http_request_headers: \
                   proxy_on_request_headers failed: time limit of 20 ms passed";
    assert_eq!(cause(&failures[0]), stopped);
}

/// The threads of a process that make time pass.
fn tickers(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .filter(|tid| {
            fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"))
                .is_ok_and(|name| name.trim_end() == "wasm ticker")
        })
        .collect()
}

/// The one of a worker that has served a request; it names itself when it runs.
fn ticker(pid: i32) -> i32 {
    poll(|| tickers(pid).first().copied()).expect("a ticker")
}

/// A line of a thread's `/proc/PID/task/TID/status`.
fn status(pid: i32, tid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).expect("a thread");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim().into()
}

#[test]
fn an_idle_worker_is_not_woken() {
    if valgrind() {
        return;
    }
    let nginx = Probe::new("request_headers: loop").options("time_limit = 50").start();
    let worker = nginx.worker_pids()[0];
    assert_eq!(tickers(worker), [0; 0], "it starts with the first request");
    for _ in 0..2 {
        assert_eq!(nginx.get("/").status, 200);
        let ticker = ticker(worker);
        let wakeups = || status(worker, ticker, "voluntary_ctxt_switches");
        // Fifty looks make a second in which a ticking thread would wake a hundred times.
        let (mut last, mut same) = (String::new(), 0);
        let asleep = poll(|| {
            let now = wakeups();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            (same == 50).then_some(())
        });
        assert!(asleep.is_some(), "it wakes for nothing");
    }
    assert_eq!(tickers(nginx.master_pid()), [0; 0]);
}

#[test]
fn no_signal_of_nginx_reaches_the_ticker() {
    if valgrind() {
        return;
    }
    let nginx = Probe::new("request_headers: ids").start();
    nginx.get("/");
    let worker = nginx.worker_pids()[0];
    let ticker = ticker(worker);
    let blocked = u64::from_str_radix(&status(worker, ticker, "SigBlk"), 16).expect("a mask");
    for signal in [
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGCHLD,
        libc::SIGALRM,
        libc::SIGIO,
        libc::SIGWINCH,
        libc::SIGINT,
    ] {
        assert_ne!(blocked & (1 << (signal - 1)), 0, "signal {signal}");
    }
}
