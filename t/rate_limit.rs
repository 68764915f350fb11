//! The filter of examples/rate-limit: never more than the limit, however many workers count.

use super::support::{Nginx, Running, poll, root};
use std::fs;
use std::thread;

fn nginx(configuration: &str) -> Running {
    let filter = root().join("examples/rate-limit/build/release.wasm");
    Nginx::new()
        .workers(2)
        .file("rate_limit.wasm", fs::read(filter).expect("the example"))
        .http(&format!(
            r#"
            init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                assert(wasm.setup({{ shared_memory = "1m", eviction = "lru" }}))
                local plugin = assert(wasm.load("rate_limit", "rate_limit.wasm", {{ vm_id = "rate_limit" }}))
                limit = wasm.new_chain({{ assert(wasm.on_configure(plugin, {configuration})) }})
            }}
            "#
        ))
        .server(
            r#"location / {
                access_by_lua_block { limit:access() }
                content_by_lua_block { ngx.print(ngx.worker.pid()) }
                header_filter_by_lua_block { limit:header_filter() }
                body_filter_by_lua_block { limit:body_filter() }
            }"#,
        )
        .start()
}

/// What requests of so many clients at once were answered with: the workers of those that got through, and the number of
/// the others.
fn rush(nginx: &Running, clients: usize, each: usize, name: &str) -> (Vec<String>, usize) {
    let one = || {
        let (mut through, mut refused) = (Vec::new(), 0);
        for _ in 0..each {
            let answer = nginx.request("GET", "/").header("X-Client", name).send();
            match answer.status {
                200 => through.push(answer.text()),
                429 => {
                    let wait: u64 = answer.header("retry-after").expect("it").parse().expect("one");
                    assert!((1..=3600).contains(&wait), "{wait}");
                    refused += 1;
                }
                other => panic!("status {other}"),
            }
        }
        (through, refused)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
        threads.into_iter().fold((Vec::new(), 0), |(mut all, sum), thread| {
            let (through, refused) = thread.join().expect("a client");
            all.extend(through);
            (all, sum + refused)
        })
    })
}

#[test]
fn exactly_the_limit_gets_through_two_workers_under_load() {
    let nginx = nginx("'500 3600 x-client'");
    for name in ["one", "two"] {
        let (through, refused) = rush(&nginx, 8, 200, name);
        assert_eq!((through.len(), refused), (500, 1100), "{name}");
        let mut workers = through;
        workers.sort_unstable();
        workers.dedup();
        assert_eq!(workers.len(), 2, "both workers let some through");
    }
    nginx.reload();
    let (through, refused) = rush(&nginx, 2, 10, "one");
    assert_eq!((through.len(), refused), (0, 20), "a reload forgets nothing");
}

#[test]
fn a_window_ends_and_clients_are_told_apart_by_address() {
    let nginx = nginx("'3 1'");
    for _ in 0..3 {
        for status in [429, 200] {
            let answered = poll(|| (nginx.get("/").status == status).then_some(()));
            assert!(answered.is_some(), "no answer has the status {status}");
        }
    }
}

#[test]
fn a_configuration_that_is_none_is_refused() {
    let log = Nginx::new()
        .file(
            "rate_limit.wasm",
            fs::read(root().join("examples/rate-limit/build/release.wasm")).expect("the example"),
        )
        .http(
            r#"init_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("rate_limit", "rate_limit.wasm"))
                assert(wasm.on_configure(plugin, "many"))
            }"#,
        )
        .start_fails();
    assert!(log.contains("proxy_on_configure returned false"), "{log}");
}
