//! The filter of examples/redis-rate-limit: one limit over two nginx and one Redis.

use super::support::redis::Redis;
use super::support::{Nginx, Running, poll, root};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

fn nginx(redis: &Redis, configuration: &str) -> Running {
    let filter = root().join("examples/redis-rate-limit/build/release.wasm");
    let port = redis.port;
    Nginx::new()
        .workers(2)
        .file("limit.wasm", fs::read(filter).expect("the example"))
        .http(&format!(
            r#"
            lua_socket_log_errors off;
            init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                assert(wasm.setup({{ upstreams = {{ ["outbound|6379||redis.static"] = "redis://127.0.0.1:{port}" }} }}))
                local plugin = assert(wasm.load("limit", "limit.wasm"))
                limit = wasm.new_chain({{ assert(wasm.on_configure(plugin, "outbound|6379||redis.static {configuration}")) }})
            }}
            init_worker_by_lua_block {{ require("resty.proxy-wasm").init_worker() }}
            "#
        ))
        .server(
            r#"location / {
                access_by_lua_block { limit:access() }
                content_by_lua_block { ngx.print(ngx.worker.pid()) }
            }"#,
        )
        .start()
}

#[test]
fn two_servers_never_let_more_than_the_limit_through() {
    const LIMIT: usize = 100;
    let redis = Redis::start(&[]);
    let servers = [(); 2].map(|()| nginx(&redis, &format!("{LIMIT} 3600 header=x-client")));
    let (through, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in 0..8 {
            let nginx = &servers[client % 2];
            let (through, refused) = (&through, &refused);
            scope.spawn(move || {
                for _ in 0..50 {
                    let answer = nginx.request("GET", "/").header("X-Client", "one").send();
                    match answer.status {
                        200 => through.fetch_add(1, Ordering::Relaxed),
                        429 => {
                            let wait: u64 =
                                answer.header("retry-after").expect("it").parse().expect("one");
                            assert!((1..=3600).contains(&wait), "{wait}");
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                        other => panic!("status {other}"),
                    };
                }
            });
        }
    });
    assert_eq!((through.into_inner(), refused.into_inner()), (LIMIT, 300));
    // Each client has a count of its own.
    assert_eq!(servers[0].request("GET", "/").header("X-Client", "two").send().status, 200);
}

#[test]
fn requests_continue_while_redis_is_gone() {
    let mut redis = Redis::start(&[]);
    let nginx = nginx(&redis, "1 3600 header=x-client");
    nginx.expect_log("to outbound|6379||redis.static failed");
    let ask = || nginx.request("GET", "/").header("X-Client", "one").send().status;
    assert_eq!((ask(), ask()), (200, 429));
    redis.kill();
    for _ in 0..50 {
        assert_eq!(ask(), 200);
    }
    redis.restart();
    // The first request may still find a connection that is lost.
    let counted = poll(|| (ask() == 429).then_some(()));
    assert!(counted.is_some(), "nothing is counted after the restart");
}

#[test]
fn requests_that_cannot_be_counted_are_refused_when_that_is_asked_for() {
    let mut redis = Redis::start(&[]);
    let nginx = nginx(&redis, "100 3600 header=x-client closed");
    nginx.expect_log("to outbound|6379||redis.static failed");
    assert_eq!(nginx.get("/").status, 200);
    redis.kill();
    assert_eq!(nginx.get("/").status, 503);
    assert_eq!(nginx.get("/").status, 503);
}
