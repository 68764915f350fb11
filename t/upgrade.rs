//! The library is replaced by another file of its name while nginx runs.

use super::support::{Nginx, Running, library};
use std::fs;
use std::os::unix::fs::MetadataExt as _;

const FILE: &str = "native/libresty_proxy_wasm.so";

/// The ways in which a guest's fault reaches wasmtime: by SIGILL, by SIGSEGV, by SIGFPE, and by a check of its own.
const TRAPS: [(&str, &str, &str); 4] = [
    ("unreachable", "unreachable", "wasm `unreachable` instruction executed"),
    ("memory", "(i32.load (i32.const 0x7fffffff))", "out of bounds memory access"),
    ("division", "(i32.div_s (local.get 0) (local.get 3))", "integer divide by zero"),
    (
        "recursion",
        "(i32.add (call 0 (local.get 0) (local.get 0) (local.get 0)) (i32.const 1))",
        "call stack exhausted",
    ),
];

fn trap(body: &str) -> String {
    format!(
        r#"(module
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local i32) {body})
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1")))"#
    )
}

fn nginx() -> Nginx {
    let nginx = Nginx::new().lua_files("lua").file(FILE, library()).wat("bare");
    TRAPS
        .iter()
        .fold(nginx, |nginx, (name, body, _)| nginx.wat_text(name, &trap(body)))
        .http(
            r#"
            lua_package_path "lua/?.lua;;";
            lua_package_cpath "native/?.so;;";
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                local function load(name)
                    return assert(wasm.on_configure(assert(wasm.load(name, name .. ".wasm"))))
                end
                bare, filters = load("bare"), {}
                for _, name in ipairs({ "unreachable", "memory", "division", "recursion" }) do
                    filters[name] = load(name)
                end
                function trap(name)
                    ngx.print(select(2, wasm.on_http_request_headers(filters[name])))
                end
            }
            "#,
        )
        .server(
            r#"
            location /t { return 200; header_filter_by_lua_block { assert(wasm.on_http_response_headers(bare)) } }
            location /pid { content_by_lua_block { ngx.print(ngx.worker.pid()) } }
            location /trap { content_by_lua_block { trap(ngx.var.arg_name) } }
            location /late {
                content_by_lua_block {
                    ngx.log(ngx.NOTICE, "late begins")
                    repeat
                        ngx.sleep(0.02)
                        local go = io.open("go")
                    until go
                    trap("memory")
                }
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(bare)) }
            }
            "#,
        )
}

fn is_trap(text: &str, cause: &str) {
    let step = "failed to run proxy_on_http_request_headers: proxy_on_request_headers failed: ";
    assert!(text.starts_with(step) && text.contains(&format!("wasm trap: {cause}")), "{text}");
}

/// The filter works, and no trap ends the worker; returns the worker.
fn works(nginx: &Running) -> i32 {
    let pid = || nginx.get("/pid").text().parse().expect("a process id");
    let worker = pid();
    for _ in 0..2 {
        for (name, _, cause) in TRAPS {
            is_trap(&nginx.get(&format!("/trap?name={name}")).text(), cause);
        }
        assert_eq!(nginx.get("/t").header_all("hello"), ["world!"]);
    }
    assert_eq!(pid(), worker);
    worker
}

/// Puts a new file with the same content in the library's place, and returns its inode.
fn replace(nginx: &Running) -> u64 {
    let (file, new) = (nginx.path(FILE), nginx.path("native/new"));
    fs::write(&new, library()).expect("a file");
    fs::rename(&new, &file).expect("a file");
    fs::metadata(&file).expect("a file").ino()
}

/// Whether a process has code of this file.
fn runs(pid: i32, inode: u64) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process");
    maps.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace();
        fields.nth(1).is_some_and(|access| access.contains('x'))
            && fields.nth(2) == Some(inode.to_string().as_str())
    })
}

#[test]
fn old_workers_continue_and_new_ones_run_the_new_library() {
    for daemon in [false, true] {
        let nginx = nginx().daemon(daemon).start();
        let old = works(&nginx);
        let mut late = nginx.connect();
        late.write(b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n");
        nginx.wait_for_log("late begins");

        for _ in 0..2 {
            let before = nginx.worker_pids()[0];
            let inode = replace(&nginx);
            assert!(!runs(before, inode));
            nginx.reload();
            let worker = works(&nginx);
            assert!(worker != before && runs(worker, inode) && !runs(old, inode));
        }

        fs::write(nginx.path("go"), "").expect("a file");
        let response = late.response();
        assert_eq!(response.header_all("hello"), ["world!"]);
        is_trap(&response.text(), "out of bounds memory access");
        nginx.wait_for_old_workers();
        // The master starts workers with what it has.
        let killed = works(&nginx);
        // SAFETY: kill has no memory preconditions; the process is this test's.
        assert_eq!(unsafe { libc::kill(killed, libc::SIGKILL) }, 0);
        nginx.expect_log(&format!("worker process {killed} exited on signal 9"));
        nginx.wait_for_log("exited on signal 9");
        assert_ne!(works(&nginx), killed);
    }
}
