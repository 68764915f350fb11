//! Clocks, randomness, the environment, and all of WASI that a guest must not reach.

use super::ops::check_with;
use super::support::{Nginx, Probe};
use std::time::{Duration, Instant};

/// WASI error numbers.
const BADF: u8 = 8;

#[test]
fn clocks_tell_the_time() {
    // `ok` says that both wall clocks agree, and that the monotonic one does not run backwards.
    let ops = &[
        ("get_current_time_nanoseconds", "0 ok"),
        ("clock", "0 ok"),
        ("wasi_oob clock", "21"),
    ];
    for guest in ["probe", "probe_0_1_0"] {
        check_with("request_headers", ops, |probe| probe.guest(guest));
    }
}

#[test]
fn nothing_waits() {
    let started = Instant::now();
    check_with(
        "request_headers",
        &[("poll", "0 0"), ("yield", "0"), ("wasi_oob poll", "21")],
        |probe| probe,
    );
    // The probe asks to sleep for ten seconds.
    assert!(started.elapsed() < Duration::from_secs(8));
}

/// The random bytes that a script logged.
fn random(lines: &[String]) -> Vec<String> {
    let numbers = lines.iter().filter_map(|line| line.strip_prefix("random -> 0 "));
    numbers.map(Into::into).collect()
}

#[test]
fn random_bytes_are_random() {
    let run = Probe::new(
        "configure: random
         request_headers: random
         response_headers: random
         response_headers: wasi_oob random",
    )
    .run();
    let mut numbers = random(&run.of("configure"));
    // The master's check and the worker's own VM.
    assert_eq!(numbers.len(), 2);
    numbers.extend(random(&run.of("request_headers")));
    numbers.extend(random(&run.of("response_headers")));
    assert!(numbers.iter().all(|number| number.len() == 32), "{numbers:?}");
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
    assert_eq!(run.of("response_headers")[1], "wasi_oob random -> 21");
}

#[test]
fn workers_share_no_random_state() {
    let nginx = Probe::new("configure: random")
        .nginx(|nginx| nginx.workers(2))
        .start();
    let numbers = || {
        let log = nginx.guest_log("probe");
        let lines: Vec<String> = log.iter().map(|line| line.replacen("configure ", "", 1)).collect();
        random(&lines)
    };
    // The master's one, and one of each worker once it has served.
    for _ in 0..500 {
        nginx.get("/");
        if numbers().len() == 3 {
            break;
        }
    }
    let mut numbers = numbers();
    assert_eq!(numbers.len(), 3);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3);
}

#[test]
fn the_environment_is_the_option() {
    check_with(
        "request_headers",
        &[
            ("environ", r"0 3 A=1|B=|C=x=y \xc3\xa9"),
            ("wasi_args", "0 0"),
            ("wasi_oob environ", "21"),
            ("wasi_oob environ_sizes", "21"),
        ],
        |probe| probe.options(r#"env = { C = "x=y é", A = "1", B = "" }"#),
    );
}

#[test]
fn the_environment_of_nginx_is_not_shown() {
    let leak = |nginx: Nginx| {
        nginx
            .env("RPW_SECRET", "secret")
            .main("env RPW_SECRET;\nenv RPW_MORE=more;\n")
    };
    check_with(
        "request_headers",
        &[("environ", "0 0"), ("wasi_args", "0 0")],
        |probe| probe.nginx(leak),
    );
    check_with("request_headers", &[("environ", "0 1 ONE=1")], |probe| {
        probe.options(r#"env = { ONE = "1" }"#).nginx(leak)
    });
}

#[test]
fn no_file_is_reachable() {
    let bad = BADF.to_string();
    let mut ops = vec![("open /etc/passwd", bad.as_str()), ("open etc/passwd", &bad)];
    ops.extend(["prestat 3", "prestat 0", "prestat 4", "prestat max"].map(|op| (op, bad.as_str())));
    check_with("request_headers", &ops, |probe| probe);
}

/// Calls each function on descriptors 0 to 9 and puts the errors into headers, a digit pair for each descriptor.
const REACHES_OUT: &str = r#"
(module
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  IMPORTS
  (memory (export "memory") 1)
  (data (i32.const 0) "/etc/passwd")
  ;; A list of one buffer: 64 bytes at 256.
  (data (i32.const 16) "\00\01\00\00\40\00\00\00")
  (data (i32.const 1024) "NAMES")
  (global $at (mut i32) (i32.const 512))
  (func $put (param $errno i32)
    (i32.store8 (global.get $at) (i32.add (i32.const 48) (i32.div_u (local.get $errno) (i32.const 10))))
    (i32.store8 offset=1 (global.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $errno) (i32.const 10))))
    (global.set $at (i32.add (global.get $at) (i32.const 2))))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (local $fd i32)
    CALLS
    (i32.const 0)))
"#;

/// WASI functions with the types of their parameters and arguments for one call on `$fd`.
const REACHING: &[(&str, &str, &str)] = &[
    ("fd_read", "i32 i32 i32 i32", "FD 16 1 128"),
    ("fd_pread", "i32 i32 i32 i64 i32", "FD 16 1 L0 128"),
    ("fd_pwrite", "i32 i32 i32 i64 i32", "FD 16 1 L0 128"),
    ("fd_readdir", "i32 i32 i32 i64 i32", "FD 256 64 L0 128"),
    ("fd_prestat_get", "i32 i32", "FD 128"),
    ("fd_prestat_dir_name", "i32 i32 i32", "FD 256 64"),
    ("fd_seek", "i32 i64 i32 i32", "FD L0 0 128"),
    ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", "FD 0 0 11 0 L2 L2 0 128"),
    ("path_create_directory", "i32 i32 i32", "FD 0 11"),
    ("path_unlink_file", "i32 i32 i32", "FD 0 11"),
    ("path_filestat_get", "i32 i32 i32 i32 i32", "FD 0 0 11 256"),
    ("path_readlink", "i32 i32 i32 i32 i32 i32", "FD 0 11 256 64 128"),
    ("sock_accept", "i32 i32 i32", "FD 0 128"),
    ("sock_recv", "i32 i32 i32 i32 i32 i32", "FD 16 1 0 128 132"),
    ("sock_send", "i32 i32 i32 i32 i32", "FD 16 1 0 128"),
    ("sock_shutdown", "i32 i32", "FD 3"),
];

#[test]
fn no_descriptor_leads_anywhere() {
    let (mut imports, mut calls, mut names) = (String::new(), String::new(), String::new());
    for (name, params, arguments) in REACHING {
        imports += &format!(
            r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {params}) (result i32)))"#
        );
        let arguments = arguments.split(' ').map(|word| match word.strip_prefix('L') {
            _ if word == "FD" => "(local.get $fd)".into(),
            Some(number) => format!("(i64.const {number})"),
            None => format!("(i32.const {word})"),
        });
        calls += &format!(
            "(global.set $at (i32.const 512)) (local.set $fd (i32.const 0))
             (loop $next
               (call $put (call ${name} {}))
               (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
               (br_if $next (i32.lt_u (local.get $fd) (i32.const 10))))
             (drop (call $add (i32.const 2) (i32.const {}) (i32.const {}) (i32.const 512) (i32.const 20)))\n",
            arguments.collect::<String>(),
            1024 + names.len(),
            name.len(),
        );
        names += name;
    }
    let module = REACHES_OUT
        .replace("IMPORTS", &imports)
        .replace("CALLS", &calls)
        .replace("NAMES", &names);
    let nginx = Nginx::new()
        .wat_text("reaches", &module)
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                ctx = assert(wasm.on_configure(assert(wasm.load("reaches", "reaches.wasm"))))
            }
            "#,
        )
        .server(
            r#"
            location / {
                return 200;
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
            }
            "#,
        )
        .start();
    let response = nginx.get("/");
    eprintln!("{response:?}");
    for (name, ..) in REACHING {
        assert_eq!(response.header(name), Some(""), "{name}");
    }
}
