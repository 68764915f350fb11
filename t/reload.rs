//! Reloads under load, and many of them.

use super::support::{Nginx, Running, poll};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Where the filter is loaded: Lua code of init_by_lua, of init_worker_by_lua, and of a request.
const PLACES: [(&str, &str, &str); 3] =
    [("load()", "", ""), ("", "load()", ""), ("", "", "if not ctx then load() end")];

/// `/t` is answered with the filter's header, `hello: it`.
fn loaded_in((init, init_worker, request): (&str, &str, &str)) -> Nginx {
    Nginx::new()
        .guest("rust_filter")
        .http(&format!(
            r#"
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                ctx = false
                function load()
                    ctx = assert(wasm.on_configure(assert(wasm.load("it", "rust_filter.wasm")), "hello: it"))
                end
                {init}
            }}
            init_worker_by_lua_block {{ {init_worker} }}
            "#
        ))
        .server(&format!(
            r#"
            location /t {{
                access_by_lua_block {{
                    {request}
                    assert(wasm.on_http_request_headers(ctx))
                }}
                content_by_lua_block {{ ngx.print("answer of ", ngx.worker.pid()) }}
                header_filter_by_lua_block {{ assert(wasm.on_http_response_headers(ctx)) }}
                body_filter_by_lua_block {{ assert(wasm.on_http_response_body(ctx)) }}
            }}
            "#
        ))
}

fn answers(nginx: &Running) {
    let response = nginx.get("/t");
    assert_eq!((response.status, response.header_all("hello")), (200, vec!["it"]));
    assert!(response.text().starts_with("answer of "), "{}", response.text());
}

/// Runs `work` while clients send one request after the other, each on a connection of its own, and check the answers.
/// Between two steps of the work each client gets an answer.
fn under_load(nginx: &Running, steps: usize, work: impl Fn()) {
    const CLIENTS: usize = 4;
    let (done, answered) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; CLIENTS]);
    thread::scope(|scope| {
        let clients = answered.each_ref().map(|count| {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    answers(nginx);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        for _ in 0..steps {
            work();
            let before = answered.each_ref().map(|count| count.load(Ordering::Relaxed));
            let more = || {
                let now = answered.iter().map(|count| count.load(Ordering::Relaxed));
                let failed = clients.iter().any(thread::ScopedJoinHandle::is_finished);
                (failed || now.zip(before).all(|(now, before)| now > before)).then_some(())
            };
            poll(more).expect("answers");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn no_request_is_lost() {
    for place in PLACES {
        for daemon in [false, true] {
            let nginx = loaded_in(place).daemon(daemon).workers(2).start();
            let master = nginx.master_pid();
            under_load(&nginx, 4, || nginx.reload());
            nginx.wait_for_old_workers();
            assert_eq!((nginx.master_pid(), nginx.worker_pids().len()), (master, 2));
        }
    }
}

/// Reloads that do not wait for one another.
#[test]
fn no_request_is_lost_when_reloads_overtake_one_another() {
    let nginx = loaded_in(PLACES[0]).daemon(true).workers(2).start();
    under_load(&nginx, 4, || (0..3).for_each(|_| nginx.signal(libc::SIGHUP)));
    nginx.wait_for_old_workers();
}

/// A number in a custom section at the end, so that the module is another one and does the same.
fn numbered(module: &[u8], number: u32) -> Vec<u8> {
    let section = [&[0, 6, 1, b'n'], &number.to_le_bytes()[..]].concat();
    [module, &section].concat()
}

#[test]
fn only_a_module_that_changed_is_compiled_again() {
    for daemon in [false, true] {
        let nginx = loaded_in(PLACES[0]).daemon(daemon).start();
        let file = nginx.path("rust_filter.wasm");
        let module = fs::read(&file).expect("a guest");
        let compiles = || nginx.log_texts("wasm plugin \"it\": compiled in ").len();
        // nginx has no error log yet when the master runs init_by_lua first.
        for number in 0..3 {
            for _ in 0..3 {
                nginx.reload();
                answers(&nginx);
                assert_eq!(compiles(), number);
            }
            let next = u32::try_from(number).expect("small");
            fs::write(&file, numbered(&module, next)).expect("a file");
        }
    }
}

#[test]
fn a_worker_compiles_or_shares_what_the_master_does_not_hold() {
    let nginx = loaded_in(PLACES[1]).workers(2).start();
    let count = |text: &str| nginx.log_texts(&format!("wasm plugin \"it\": {text} in ")).len();
    let (compiles, shared) = (|| count("compiled"), || count("shared with another process"));
    poll(|| (compiles() + shared() == 2).then_some(())).expect("code in each worker");
    assert_eq!(compiles(), 1);
    nginx.reload();
    poll(|| (compiles() + shared() == 4).then_some(())).expect("code in each new worker");
}

/// The resident memory of the master in KiB after 20 reloads and after 200; `before` runs before each.
fn resident(nginx: &Running, before: impl Fn(u32)) -> (u64, u64) {
    let mut early = 0;
    for number in 1..=200 {
        before(number);
        nginx.reload();
        if number == 20 {
            early = nginx.rss_kib(nginx.master_pid());
        }
    }
    (early, nginx.rss_kib(nginx.master_pid()))
}

#[test]
fn the_master_does_not_grow() {
    // One module that stays and one that is another each time.
    let nginx = Nginx::new()
        .guest("rust_filter")
        .wat("bare")
        .http(
            r#"init_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                stays = assert(wasm.on_configure(assert(wasm.load("stays", "rust_filter.wasm"))))
                changes = assert(wasm.on_configure(assert(wasm.load("changes", "bare.wasm"))))
            }"#,
        )
        .start();
    let plain = Nginx::new().http("init_by_lua_block { require('ngx.semaphore') }").start();
    let file = nginx.path("bare.wasm");
    let module = fs::read(&file).expect("a module");
    let change = |number| fs::write(&file, numbered(&module, number)).expect("a file");
    let (with, without) = thread::scope(|scope| {
        let plain = scope.spawn(|| resident(&plain, |_| ()));
        (resident(&nginx, change), plain.join().expect("figures"))
    });
    assert_eq!(nginx.log_texts("wasm plugin \"stays\": compiled in ").len(), 0);
    assert_eq!(nginx.log_texts("wasm plugin \"changes\": compiled in ").len(), 200);
    // A copy of the smallest module's code in each reload would be 2 MiB and more; what a heap's holes make of the same
    // work again is tens of KiB, with or without filters.
    let grown = |(early, late): (u64, u64)| late.saturating_sub(early);
    let figures = format!("KiB after 20 and 200: with filters {with:?}, without {without:?}");
    assert!(grown(with) <= grown(without) + 1024, "{figures}");
    println!("{figures}");
}
