//! Filters that eat memory: a worker stays within their limit, and gets it back.

use super::support::{Nginx, Probe, Running, poll, valgrind};

const MIB: u64 = 1024 * 1024;
const LIMIT: u64 = 64 * MIB;

/// Grows its memory until that fails, touches all of it, and then does as its configuration's length says: traps
/// without one.
const EATS: &str = r#"(module
    (memory (export "memory") 1)
    (global $keeps (mut i32) (i32.const 0))
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (global.set $keeps (local.get 1))
        (i32.const 1))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (memory.fill (i32.const 0) (i32.const 1) (i32.mul (memory.size) (i32.const 65536)))
        (if (i32.eqz (global.get $keeps)) (then unreachable))
        (i32.const 0)))"#;

fn start() -> Running {
    Nginx::new()
        .wat_text("eats", EATS)
        .http(&format!(
            r#"init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                local function eater(conf)
                    local plugin = assert(wasm.load("eats", "eats.wasm", {{ memory_limit = {LIMIT} }}))
                    return assert(wasm.on_configure(plugin, conf))
                end
                traps, keeps = eater(), eater("it")
            }}"#
        ))
        .server(
            r#"
            location /traps {
                content_by_lua_block {
                    local ok, err = wasm.on_http_request_headers(traps)
                    ngx.print(err)
                }
            }
            location /keeps {
                content_by_lua_block {
                    assert(wasm.on_http_request_headers(keeps))
                    ngx.print("kept")
                }
            }
            location /plain { return 200 plain; }
            "#,
        )
        .start()
}

/// What a worker needs besides, in KiB: its own code and Lua, and a second VM of which little is used.
const REST_KIB: u64 = 8 * 1024;

#[test]
fn a_worker_stays_within_the_limit_of_its_filter() {
    if valgrind() {
        return;
    }
    let nginx = start();
    let workers = nginx.worker_pids();
    nginx.get("/plain");
    let before = nginx.rss_kib(workers[0]);
    for _ in 0..100 {
        assert_eq!(nginx.get("/keeps").text(), "kept");
        let now = nginx.rss_kib(workers[0]);
        assert!(now < before + LIMIT / 1024 + REST_KIB, "{before} KiB became {now}");
    }
    assert!(nginx.rss_kib(workers[0]) > before + LIMIT / 1024 / 2, "it did eat");
    assert_eq!(nginx.worker_pids(), workers);
}

#[test]
fn the_memory_of_a_vm_that_ended_is_given_back() {
    if valgrind() {
        return;
    }
    let nginx = start();
    let workers = nginx.worker_pids();
    // The library's own code and what a first VM leaves behind are in memory before.
    nginx.get("/plain");
    nginx.get("/traps");
    let before = nginx.rss_kib(workers[0]);
    for _ in 0..100 {
        let answer = nginx.get("/traps").text();
        assert!(answer.contains("unreachable"), "{answer}");
    }
    // The answer may come a moment before the VM is gone.
    let given_back = poll(|| (nginx.rss_kib(workers[0]) < before + REST_KIB).then_some(()));
    assert!(given_back.is_some(), "{before} KiB became {}", nginx.rss_kib(workers[0]));
    assert_eq!(nginx.worker_pids(), workers);
}

#[test]
fn memory_grows_up_to_the_limit_and_no_further() {
    let run = Probe::new("request_headers: memory; request_headers: grow 1 >old; request_headers: grow 4096; request_headers: memory")
        .options(&format!("memory_limit = {}", 2 * MIB))
        .run();
    let lines = run.of("request_headers");
    let first: u64 =
        lines[0].strip_prefix("memory -> ").and_then(|n| n.parse().ok()).expect("a size");
    let pages = first / 65536;
    assert_eq!(
        lines[1..],
        [
            format!("grow 1 >old -> {pages}"),
            "grow 4096 -> -1".into(),
            format!("memory -> {}", first + 65536),
        ]
    );
    assert_eq!(run.failures(), [""; 0]);

    // Exactly the limit can be had.
    let rest = 2 * MIB / 65536 - pages;
    let script = format!(
        "request_headers: grow {}; request_headers: grow {rest}; request_headers: grow 1; request_headers: memory",
        rest + 1
    );
    let run = Probe::new(&script).options(&format!("memory_limit = {}", 2 * MIB)).run();
    assert_eq!(
        run.of("request_headers")[..4],
        [
            format!("grow {} -> -1", rest + 1),
            format!("grow {rest} -> {pages}"),
            "grow 1 -> -1".into(),
            format!("memory -> {}", 2 * MIB),
        ]
    );
}

#[test]
fn memory_limit_is_what_a_module_may_begin_with() {
    let nginx = Nginx::new()
        .wat_text("two", r#"(module (memory (export "memory") 2) (func (export "proxy_abi_version_0_2_1")))"#)
        .server(
            r#"
            location /t {
                content_by_lua_block {
                    for _, limit in ipairs({ 65536, 131071, 131072 }) do
                        local plugin, err = require("resty.proxy-wasm").load("it", "two.wasm", { memory_limit = limit })
                        ngx.say(plugin and "loaded" or err)
                    end
                }
            }
            "#,
        )
        .start();
    let refused = |limit: u32| {
        format!(
            "failed to load wasm plugin: the module wants 131072 bytes of memory to begin with, and the option \
             memory_limit allows {limit}\n"
        )
    };
    assert_eq!(nginx.get("/t").text(), refused(65536) + &refused(131_071) + "loaded\n");
}
