//! Limits of the process: of its stack, on which filters run, and of its addresses.

use super::support::{Nginx, valgrind};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A filter that goes down a thousand calls and asks for `deeper` there, and where that is not there recurses for ever.
const DEEP: &str = r#"(module
    (import "env" "proxy_call_foreign_function" (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "deeper")
    (func (export "proxy_abi_version_0_2_1"))
    (func $down (param i32) (result i32)
        (if (result i32) (local.get 0)
            (then (i32.add (call $down (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
            (else (call $call (i32.const 0) (i32.const 6) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))))
    (func $forever (param i32) (result i32)
        (i32.add (call $forever (local.get 0)) (i32.const 1)))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (if (i32.ne (call $down (i32.const 500)) (i32.const 500))
            (then (drop (call $forever (i32.const 0)))))
        (i32.const 1)))"#;

/// Filters that configure each other, up to the last that may; that one recurses for ever.
fn nested() -> Nginx {
    Nginx::new()
        .wat_text("deep", DEEP)
        .http(
            r#"
        init_by_lua_block {
            wasm = require("resty.proxy-wasm")
            plugins, errors, depth = {}, {}, 0
            for i = 1, 10 do
                local plugin, err = wasm.load("filter " .. i, "deep.wasm")
                if not plugin then error(err, 0) end
                plugins[i] = plugin
            end
            function deeper()
                depth = depth + 1
                local _, err = wasm.on_configure(plugins[depth])
                table.insert(errors, tostring(err))
                if err then error(err) end
            end
            wasm.register_foreign_function("deeper", deeper)
        }
        "#,
        )
        .server(
            r#"location / {
            content_by_lua_block {
                depth, errors = 0, {}
                pcall(deeper)
                ngx.print(table.concat(errors, "\n"))
            }
        }"#,
        )
}

#[test]
fn a_small_stack_is_shared_by_filters_inside_each_other() {
    if valgrind() {
        return;
    }
    for (limit, left) in [(1024, Some(64)), (2048, Some(320)), (8192, None)] {
        let nginx = nested().limit(libc::RLIMIT_STACK, limit * KIB).start();
        nginx.expect_log("foreign function \"deeper\": ");
        if let Some(left) = left {
            let warning = format!(
                "the stack of the process is limited to {limit} KiB (ulimit -s): a filter has {left} KiB of it in place of 1024"
            );
            nginx.expect_log(&warning);
            assert!(nginx.logged(&warning), "{}", nginx.error_log());
        }
        let workers = nginx.worker_pids();
        for _ in 0..2 {
            let text = nginx.get("/").text();
            let errors: Vec<&str> = text.lines().collect();
            assert!(errors[0].contains("too deep"), "{limit}: {text}");
            assert!(
                errors[1..].iter().all(|error| error.contains("call stack exhausted")),
                "{limit}: {text}"
            );
            assert_eq!(errors.len(), 5, "{limit}: {text}");
        }
        assert_eq!(nginx.worker_pids(), workers, "no worker has crashed");
    }
}

#[test]
fn with_too_small_a_stack_no_filter_is_loaded() {
    if valgrind() {
        return;
    }
    let log = nested().limit(libc::RLIMIT_STACK, 512 * KIB).start_fails();
    let cause = "failed to load wasm plugin: the stack of the process is limited to 512 KiB (ulimit -s), and filters need \
                 1024 KiB: raise the limit";
    assert!(log.contains(cause), "{log}");
}

/// Configures as many plugins as the query says, each with a memory of that many pages.
fn many(memory: u32) -> Nginx {
    let module = format!(
        r#"(module
            (memory (export "memory") {memory})
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_configure") (param i32 i32) (result i32)
                (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))"#
    );
    Nginx::new().wat_text("many", &module).server(
        r#"location / {
            content_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                local contexts = {}
                for i = 1, tonumber(ngx.var.arg_count) do
                    local plugin, err = wasm.load("filter " .. i, "many.wasm")
                    if plugin then
                        contexts[i], err = wasm.on_configure(plugin)
                    end
                    if err then
                        return ngx.print(err)
                    end
                end
                ngx.print("configured")
            }
        }"#,
    )
}

#[test]
fn several_vms_run_where_addresses_are_limited() {
    if valgrind() {
        return;
    }
    let nginx = many(16).limit(libc::RLIMIT_AS, 1024 * MIB).start();
    assert_eq!(nginx.get("/?count=10").text(), "configured");
}

#[test]
fn a_vm_without_addresses_says_what_to_do() {
    if valgrind() {
        return;
    }
    let nginx = many(3000).limit(libc::RLIMIT_AS, 1024 * MIB).start();
    let error = nginx.get("/?count=10").text();
    // musl has another text for it than glibc.
    assert!(error.contains("(os error 12)"), "{error}");
    assert!(
        error.contains("(raise the limit of the process on addresses, ulimit -v, load fewer plugins, or lower memory_limit)"),
        "{error}"
    );
}
