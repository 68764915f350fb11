//! No file, socket or environment of the host is within reach: a filter tries each way out that WASI names.

use super::support::{Nginx, Running, poll, valgrind};
use std::collections::BTreeMap;
use std::fs;

/// What the guest `escape` can be told to try, each at a location of that name.
const TRIES: [&str; 4] = ["files", "sockets", "signal", "outside"];

fn start(guest: &str) -> Running {
    let context = |name: &str| format!("{name} = assert(wasm.on_configure(plugin, '{name}'))\n");
    let location = |name: &str| {
        format!(
            r#"
            location /{name} {{
                content_by_lua_block {{
                    local ok, err = wasm.on_http_request_headers({name})
                    ngx.print(ok and "tried" or err)
                }}
            }}
            "#
        )
    };
    Nginx::new()
        .guest(guest)
        .env("OF_THE_HOST", "secret")
        .main("env OF_THE_HOST;\n")
        .http(&format!(
            r#"init_by_lua_block {{
                assert(os.getenv("OF_THE_HOST") == "secret")
                wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("escape", "{guest}.wasm", {{ env = {{ OWN = "yes" }} }}))
                {}
            }}"#,
            TRIES.map(context).concat()
        ))
        .server(&TRIES.map(location).concat())
        .start()
}

/// The open descriptors of a process and what they are.
fn descriptors(pid: i32) -> BTreeMap<u32, String> {
    let list = fs::read_dir(format!("/proc/{pid}/fd")).expect("a process");
    list.filter_map(|entry| {
        let path = entry.ok()?.path();
        let number = path.file_name()?.to_str()?.parse().ok()?;
        Some((number, fs::read_link(&path).ok()?.display().to_string()))
    })
    .collect()
}

/// Runs `tries` and checks that the worker is the one of before, with the same files and sockets open.
fn with_nothing_opened(nginx: &Running, tries: impl FnOnce()) {
    let workers = nginx.worker_pids();
    // The port, both ends of the channel to the master, and the socket that wakes the worker, which it opens last.
    let started = poll(|| {
        let open = descriptors(workers[0]);
        (open.values().filter(|what| what.starts_with("socket:")).count() >= 4).then_some(open)
    });
    let before = started.expect("the sockets of a worker that has started");
    let mut sockets = before.iter().filter(|(_, what)| what.starts_with("socket:"));
    assert!(sockets.all(|(number, _)| *number < 65), "the guest tries 0 to 64: {before:?}");
    tries();
    assert_eq!(nginx.worker_pids(), workers);
    // The connections of the test are closed a little later than they are answered.
    let same = poll(|| (descriptors(workers[0]) == before).then_some(()));
    assert!(same.is_some(), "{before:?} became {:?}", descriptors(workers[0]));
}

/// The guest's lines, one of several that are the same.
fn lines(nginx: &Running) -> Vec<String> {
    let mut lines = nginx.guest_log("escape");
    lines.dedup();
    lines
}

/// As `NAME DESCRIPTORS=ERRNO …`. 0 to 2 are the filter's own standard streams, 1 and 2 lead to the log and 0 is at its
/// end. 8 is EBADF, 54 ENOTDIR, 57 ENOTSOCK, 70 ESPIPE.
const FILES: &[&str] = &[
    "environ 0 0 OWN=yes",
    "args 0 0",
    "random_get 4 GiB 28",
    "random_get outside 21",
    "poll_oneoff 0 0",
    "fd_advise 0-64=8",
    "fd_allocate 0-64=8",
    "fd_datasync 0-64=8",
    "fd_fdstat_get 0-2=0 3-64=8",
    "fd_fdstat_set_flags 0-64=8",
    "fd_fdstat_set_rights 0-64=8",
    "fd_filestat_get 0-2=0 3-64=8",
    "fd_filestat_set_size 0-64=8",
    "fd_filestat_set_times 0-64=8",
    "fd_pread 0=70 1-64=8",
    "fd_prestat_get 0-64=8",
    "fd_prestat_dir_name 0-2=54 3-64=8",
    "fd_pwrite 0=8 1-2=70 3-64=8",
    "fd_read 0=0 1-64=8",
    "fd_readdir 0-64=8",
    "fd_seek 0-2=70 3-64=8",
    "fd_sync 0-64=8",
    "fd_tell 0-2=70 3-64=8",
    "path_open 0-64=8",
    "path_create_directory 0-64=8",
    "path_filestat_get 0-64=8",
    "path_filestat_set_times 0-64=8",
    "path_link 0-64=8",
    "path_readlink 0-64=8",
    "path_remove_directory 0-64=8",
    "path_rename 0-64=8",
    "path_symlink 0-64=8",
    "path_unlink_file 0-64=8",
    "fd_renumber 0-2=0 3-64=8",
    "fd_close 0=0 1-64=8",
];

const NO_SOCKETS: &str = "import wasi_unstable.sock_accept(i32, i32, i32) -> (i32) is not a function of this host: \
                          calls answer 52";

#[test]
fn files_and_sockets_and_the_environment_are_out_of_reach() {
    if valgrind() {
        return;
    }
    for guest in ["escape", "escape_unstable"] {
        let nginx = start(guest);
        if guest == "escape_unstable" {
            nginx.expect_log(NO_SOCKETS);
        }
        nginx.get("/signal");
        with_nothing_opened(&nginx, || assert_eq!(nginx.get("/files").text(), "tried"));
        assert_eq!(lines(&nginx)[1..], *FILES, "{guest}");
    }
}

#[test]
fn sockets_of_nginx_are_out_of_reach() {
    if valgrind() {
        return;
    }
    let nginx = start("escape");
    nginx.get("/signal");
    with_nothing_opened(&nginx, || assert_eq!(nginx.get("/sockets").text(), "tried"));
    assert_eq!(
        lines(&nginx)[1..],
        ["sock_accept", "sock_recv", "sock_send", "sock_shutdown"]
            .map(|name| format!("{name} 0-2=57 3-64=8"))
    );

    // The old WASI had no sockets worth the name: its functions end the instance.
    let nginx = start("escape_unstable");
    nginx.expect_log(NO_SOCKETS);
    nginx.expect_log("wasi_unstable.sock_accept(i32, i32, i32) -> (i32) was called");
    nginx.get("/signal");
    with_nothing_opened(&nginx, || {
        for _ in 0..2 {
            let answer = nginx.get("/sockets").text();
            assert!(answer.contains("sock_recv unsupported"), "{answer}");
        }
    });
}

#[test]
fn a_filter_raises_no_signal() {
    for guest in ["escape", "escape_unstable"] {
        let nginx = start(guest);
        if guest == "escape_unstable" {
            nginx.expect_log(NO_SOCKETS);
        }
        let workers = nginx.worker_pids();
        assert_eq!(nginx.get("/signal").text(), "tried");
        assert_eq!(lines(&nginx), ["proc_raise 58"], "{guest}: not supported");
        assert_eq!(nginx.worker_pids(), workers);
    }
}

/// What the host itself answers for bad pointers is tested beside the functions; the others end the instance.
#[test]
fn memory_outside_its_own_is_out_of_reach() {
    let nginx = start("escape");
    let workers = nginx.worker_pids();
    for _ in 0..2 {
        let answer = nginx.get("/outside").text();
        assert!(answer.contains("Pointer out of bounds"), "{answer}");
    }
    assert_eq!(nginx.worker_pids(), workers);
}

/// A module that imports a function and calls it for request headers.
fn calling(import: &str) -> String {
    format!(
        r#"(module
        (import {import} (func $out (param i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "/etc/passwd\00")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $out (i32.const 0))))"#
    )
}

fn try_import(nginx: Nginx) -> Running {
    nginx
        .server(
            r#"
            location /t {
                content_by_lua_block {
                    local wasm = require("resty.proxy-wasm")
                    local plugin, err = wasm.load("out", "out.wasm")
                    if plugin then
                        local ctx = assert(wasm.on_configure(plugin))
                        local ok
                        ok, err = wasm.on_http_request_headers(ctx)
                    end
                    ngx.print(err)
                }
            }
            "#,
        )
        .start()
}

#[test]
fn functions_of_the_host_are_out_of_reach() {
    for name in ["system", "open", "fork", "getenv", "dlsym", "exit", "rpw_setup"] {
        let nginx =
            try_import(Nginx::new().wat_text("out", &calling(&format!(r#""env" "{name}""#))));
        nginx.expect_log("a call of it traps");
        let workers = nginx.worker_pids();
        let cause = format!("env.{name}(i32) -> (i32) was called, which this host does not have");
        for _ in 0..2 {
            let answer = nginx.get("/t").text();
            assert!(answer.contains(&cause), "{answer}");
        }
        assert_eq!(nginx.worker_pids(), workers);
    }
}

#[test]
fn modules_that_import_from_elsewhere_do_not_load() {
    for import in [
        r#""wasi:sockets/tcp" "create""#,
        r#""wasi_snapshot_preview2" "open""#,
        r#""wasi_ephemeral_sock" "sock_open""#,
        r#""spectest" "print_i32""#,
        r#""" """#,
    ] {
        let nginx = try_import(Nginx::new().wat_text("out", &calling(import)));
        let answer = nginx.get("/t").text();
        assert!(
            answer.contains("which is neither Proxy-Wasm (module \"env\") nor WASI"),
            "{answer}"
        );
    }
}

/// `memory.atomic.wait32` would put the worker to sleep, which no time limit ends.
#[test]
fn shared_memory_is_no_way_to_sleep() {
    let module = r#"(module
        (memory (export "memory") 1 1 shared)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))"#;
    let nginx = try_import(Nginx::new().wat_text("out", module));
    let answer = nginx.get("/t").text();
    assert!(
        answer.starts_with("failed to load wasm plugin: not a valid WebAssembly module for this host: it uses threads"),
        "{answer}"
    );
}
