//! Clocks, randomness, the environment, and all of WASI that a guest must not reach.

use super::ops::{check_with, expect, script};
use super::support::{Nginx, Probe, valgrind};
use std::time::{Duration, Instant};

#[test]
fn clocks_tell_the_time() {
    // `ok` says that both wall clocks agree, and that the monotonic one does not run backwards.
    let ops =
        &[("get_current_time_nanoseconds", "0 ok"), ("clock", "0 ok"), ("wasi_oob clock", "21")];
    for guest in ["probe", "probe_0_1_0"] {
        check_with("request_headers", ops, |probe| probe.guest(guest));
    }
}

#[test]
fn nothing_waits() {
    let ops = &[("poll", "0 0"), ("yield", "0"), ("wasi_oob poll", "21")];
    let nginx = Probe::new(&script("request_headers", ops)).start();
    let started = Instant::now();
    assert_eq!(nginx.get("/").status, 200);
    // The probe asks to sleep for ten seconds.
    assert!(started.elapsed() < Duration::from_secs(8));
    expect(&nginx, "request_headers", ops);
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
    assert_eq!(numbers.len(), 1);
    numbers.extend(random(&run.of("request_headers")));
    numbers.extend(random(&run.of("response_headers")));
    assert!(numbers.iter().all(|number| number.len() == 32), "{numbers:?}");
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 3);
    assert_eq!(run.of("response_headers")[1], "wasi_oob random -> 21");
}

#[test]
fn workers_share_no_random_state() {
    if valgrind() {
        return;
    }
    let nginx = Probe::new("configure: random").nginx(|nginx| nginx.workers(2)).start();
    let numbers = || {
        let log = nginx.guest_log("probe");
        let lines: Vec<String> =
            log.iter().map(|line| line.replacen("configure ", "", 1)).collect();
        random(&lines)
    };
    // Each worker makes its VM when it first serves.
    for _ in 0..500 {
        nginx.get("/");
        if numbers().len() == 2 {
            break;
        }
    }
    let numbers = numbers();
    assert_eq!(numbers.len(), 2);
    assert_ne!(numbers[0], numbers[1]);
}

#[test]
fn the_environment_is_the_option() {
    let run = Probe::new(
        "request_headers: environ
         request_headers: wasi_args
         request_headers: wasi_oob environ
         request_headers: wasi_oob environ_sizes",
    )
    .options(r#"env = { C = "x=y é", A = "1", B = "" }"#)
    .run();
    let lines = run.of("request_headers");
    let entries = lines[0].strip_prefix("environ -> 0 3 ").expect("three entries");
    let mut entries: Vec<&str> = entries.split('|').collect();
    // A Lua table has no order.
    entries.sort_unstable();
    assert_eq!(entries, ["A=1", "B=", r"C=x=y \xc3\xa9"]);
    assert_eq!(
        lines[1..],
        ["wasi_args -> 0 0", "wasi_oob environ -> 21", "wasi_oob environ_sizes -> 21",]
    );
}

#[test]
fn the_environment_of_nginx_is_not_shown() {
    let leak = |nginx: Nginx| {
        nginx.env("RPW_SECRET", "secret").main("env RPW_SECRET;\nenv RPW_MORE=more;\n")
    };
    check_with("request_headers", &[("environ", "0 0"), ("wasi_args", "0 0")], |probe| {
        probe.nginx(leak)
    });
    check_with("request_headers", &[("environ", "0 1 ONE=1")], |probe| {
        probe.options(r#"env = { ONE = "1" }"#).nginx(leak)
    });
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

/// WASI functions with the types of their parameters, the arguments of a call on `$fd`, and what calls on 0, 1, 2, and
/// on 3 and above answer. Standard input is there and empty. 8 is BADF, 54 NOTDIR, 57 NOTSOCK, 70 SPIPE.
const REACHING: &[(&str, &str, &str, &str)] = &[
    ("fd_read", "i32 i32 i32 i32", "FD 16 1 128", "00 08 08 08"),
    ("fd_pread", "i32 i32 i32 i64 i32", "FD 16 1 L0 128", "70 08 08 08"),
    ("fd_pwrite", "i32 i32 i32 i64 i32", "FD 16 1 L0 128", "08 70 70 08"),
    ("fd_readdir", "i32 i32 i32 i64 i32", "FD 256 64 L0 128", "08 08 08 08"),
    ("fd_prestat_get", "i32 i32", "FD 128", "08 08 08 08"),
    ("fd_prestat_dir_name", "i32 i32 i32", "FD 256 64", "54 54 54 08"),
    ("fd_seek", "i32 i64 i32 i32", "FD L0 0 128", "70 70 70 08"),
    ("path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32", "FD 0 0 11 0 L2 L2 0 128", "08 08 08 08"),
    ("path_create_directory", "i32 i32 i32", "FD 0 11", "08 08 08 08"),
    ("path_unlink_file", "i32 i32 i32", "FD 0 11", "08 08 08 08"),
    ("path_filestat_get", "i32 i32 i32 i32 i32", "FD 0 0 11 256", "08 08 08 08"),
    ("path_readlink", "i32 i32 i32 i32 i32 i32", "FD 0 11 256 64 128", "08 08 08 08"),
    ("sock_accept", "i32 i32 i32", "FD 0 128", "57 57 57 08"),
    ("sock_recv", "i32 i32 i32 i32 i32 i32", "FD 16 1 0 128 132", "57 57 57 08"),
    ("sock_send", "i32 i32 i32 i32 i32", "FD 16 1 0 128", "57 57 57 08"),
    ("sock_shutdown", "i32 i32", "FD 3", "57 57 57 08"),
];

#[test]
fn no_descriptor_leads_anywhere() {
    let (mut imports, mut calls, mut names) = (String::new(), String::new(), String::new());
    for (name, params, arguments, _) in REACHING {
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
    let module =
        REACHES_OUT.replace("IMPORTS", &imports).replace("CALLS", &calls).replace("NAMES", &names);
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
    for (name, _, _, answers) in REACHING {
        let answers: Vec<&str> = answers.split(' ').collect();
        let expected = answers[..3].concat() + &answers[3].repeat(7);
        assert_eq!(response.header(name), Some(&*expected), "{name}");
    }
}

/// The functions that the Proxy-Wasm specification describes answer FAULT; a bad pointer to another one ends the
/// instance, and the next request gets a new one.
#[test]
fn other_wasi_functions_trap_on_bad_pointers() {
    let nginx = Probe::new(
        "request_headers: prestat 3
         request_headers: wasi_oob prestat
         request_headers: wasi_oob args",
    )
    .start();
    for request in 1..=2 {
        assert_eq!(nginx.get("/").status, 200);
        let of_request = |lines: Vec<String>, text: &str| {
            lines.iter().filter(|line| line.starts_with(text)).count()
        };
        let logged = of_request(nginx.guest_log("probe"), "request_headers wasi_oob prestat -> 8");
        assert_eq!(logged, request);
        let trap = "on_http_request_headers: failed to run proxy_on_http_request_headers: proxy_on_request_headers \
                    failed: In func wasi_snapshot_preview1::args_sizes_get at write size: Pointer out of bounds";
        assert_eq!(of_request(nginx.log_texts("lua call failed: "), trap), request);
    }
}
