//! proxy_log, proxy_get_log_level, and what a guest writes to its stdout and stderr.

use super::ops::{check, expect, script};
use super::support::{Nginx, Outcome, Probe};

/// nginx's level and the text of each line that the guest logged.
fn levels(run: &Outcome) -> Vec<(String, String)> {
    let log = run.nginx.error_log();
    let lines = log.lines().filter(|line| line.contains("wasm log probe: "));
    let levels = lines.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.into()));
    levels.zip(run.lines()).collect()
}

/// Those lines that are not the probe's own reports of its calls.
fn logged(run: &Outcome) -> Vec<(String, String)> {
    let lines = levels(run).into_iter();
    lines.filter(|(_, text)| !text.contains(" -> ")).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|&(a, b)| (a.into(), b.into())).collect()
}

#[test]
fn levels_become_those_of_nginx() {
    let ops = &[
        ("log 0 trace", "0"),
        ("log 1 debug", "0"),
        ("log 2 info", "0"),
        ("log 3 warn", "0"),
        ("log 4 error", "0"),
        ("log 5 critical", "0"),
        ("log 6 none", "2"),
        ("log max none", "2"),
        ("log 2 ''", "0"),
    ];
    let run =
        Probe::new(&script("request_headers", ops)).nginx(|nginx| nginx.log_level("debug")).run();
    for text in ["probe: warn", "probe: error", "probe: critical"] {
        run.nginx.expect_log(text);
    }
    expect(&run.nginx, "request_headers", ops);
    assert_eq!(
        logged(&run),
        pairs(&[
            ("debug", "trace"),
            ("debug", "debug"),
            ("info", "info"),
            ("warn", "warn"),
            ("error", "error"),
            ("crit", "critical"),
            ("info", ""),
        ])
    );
}

#[test]
fn what_nginx_does_not_log_is_not_an_error() {
    let run = Probe::new(
        "request_headers: log 0 trace
         request_headers: log 2 info
         request_headers: log 3 warn
         request_headers: log 4 error",
    )
    .nginx(|nginx| nginx.log_level("error"))
    .run();
    run.nginx.expect_log("probe: error");
    assert_eq!(levels(&run), pairs(&[("error", "error")]));
}

/// Puts the level that it sees in on_configure and in a request's callback into header `x-levels`. The probe reports
/// by lines at info, which are not there at most of the levels.
const SHOWS_LEVELS: &str = r#"
(module
  (import "env" "proxy_get_log_level" (func $level (param i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "x-levels")
  (data (i32.const 16) "status .., levels .,.")
  (func $digit (param $at i32) (param $value i32)
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (local.get $value))))
  (func $read (param $status_at i32) (param $level_at i32)
    (call $digit (local.get $status_at) (call $level (i32.const 64)))
    (call $digit (local.get $level_at) (i32.load (i32.const 64))))
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_configure") (param i32 i32) (result i32)
    (call $read (i32.const 23) (i32.const 34))
    (i32.const 1))
  (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
    (call $read (i32.const 24) (i32.const 36))
    (drop (call $add (i32.const 2) (i32.const 0) (i32.const 8) (i32.const 16) (i32.const 21)))
    (i32.const 0)))
"#;

/// The header `x-levels` with `error_log` at `outside` for the worker and at `inside` for a location.
fn seen_levels(outside: &str, inside: &str) -> String {
    let nginx = Nginx::new()
        .log_level(outside)
        .wat_text("levels", SHOWS_LEVELS)
        .http(
            r#"
            init_by_lua_block {
                wasm = require("resty.proxy-wasm")
                ctx = assert(wasm.on_configure(assert(wasm.load("levels", "levels.wasm"))))
            }
            "#,
        )
        .server(
            &r#"
            location / {
                error_log logs/error.log INSIDE;
                return 200;
                header_filter_by_lua_block { assert(wasm.on_http_response_headers(ctx)) }
            }
            "#
            .replace("INSIDE", inside),
        )
        .start();
    nginx.get("/").header("x-levels").unwrap_or("none").into()
}

#[test]
fn the_level_of_nginx_is_told() {
    let numbers = [
        ("debug", 0),
        ("info", 2),
        ("notice", 3),
        ("warn", 3),
        ("error", 4),
        ("crit", 5),
        ("alert", 5),
        ("emerg", 5),
    ];
    for (level, number) in numbers {
        let expected = format!("status 00, levels {number},{number}");
        assert_eq!(seen_levels(level, level), expected, "{level}");
    }
}

#[test]
fn the_level_is_that_of_the_location() {
    assert_eq!(seen_levels("error", "info"), "status 00, levels 4,2");
    assert_eq!(seen_levels("info", "crit"), "status 00, levels 2,5");
}

#[test]
fn lines_tell_of_the_request() {
    let run = Probe::new("*: ids").request("POST", |request| request.body("hello"));
    let log = run.nginx.error_log();
    let lines = |callback: &str| -> Vec<&str> {
        let marker = format!("wasm log probe: {callback} ids -> ");
        log.lines().filter(|line| line.contains(&marker)).collect()
    };
    let (vm, stream) = (
        ["vm_start", "configure"],
        [
            "create",
            "request_headers",
            "request_body",
            "response_headers",
            "response_body",
            "done",
            "log",
            "delete",
        ],
    );
    let tells =
        |line: &&str| line.contains(r#", client: 127.0.0.1, server: , request: "POST / HTTP/1.1""#);
    for callback in stream {
        assert!(!lines(callback).is_empty() && lines(callback).iter().all(tells), "{callback}");
    }
    for callback in vm {
        assert!(!lines(callback).is_empty() && !lines(callback).iter().any(tells), "{callback}");
    }
}

#[test]
fn lines_of_the_plugin_context_tell_of_no_request() {
    let run = Probe::new(
        "request_headers: set_effective_context root
         request_headers: log 2 'of the plugin'
         request_headers: set_effective_context self
         request_headers: log 2 'of the stream'",
    )
    .run();
    let line = |text: &str| run.nginx.wait_for_log(&format!("wasm log probe: {text}"));
    assert!(line("of the plugin").ends_with("of the plugin"));
    assert!(line("of the stream").contains("of the stream, client: 127.0.0.1"));
}

#[test]
fn control_characters_are_shown_not_written() {
    let run = Probe::new(
        r"request_headers: log 2 'a\nb\r\0c\x1b[31m\x7f\td\\'
          request_headers: log 2 'x\n2026/01/31 23:59:59 [emerg] 1#1: forged'
          request_headers: stdout 'a\0b\x1bc\rd\n'",
    )
    .run();
    assert_eq!(
        logged(&run),
        pairs(&[
            ("info", "a\\nb\\r\\x00c\\x1b[31m\\x7f\td\\"),
            ("info", "x\\n2026/01/31 23:59:59 [emerg] 1#1: forged"),
            ("info", "a\\x00b\\x1bc\\rd"),
        ])
    );
}

#[test]
fn bytes_past_ascii_stay() {
    let run = Probe::new(r"request_headers: log 2 'caf\xc3\xa9'").run();
    assert_eq!(logged(&run), pairs(&[("info", "café")]));
}

#[test]
fn a_long_line_is_cut_and_the_next_one_is_whole() {
    let run = Probe::new(
        r"request_headers: log 2 '\R{1000}x'
          request_headers: log 2 '\R{100000}y'
          request_headers: stdout '\R{100000}z\nnext\n'",
    )
    .run();
    let lines: Vec<String> = logged(&run).into_iter().map(|(_, text)| text).collect();
    assert_eq!(lines[0], "x".repeat(1000));
    // nginx writes lines of up to 2 KiB, those of OpenResty up to 4 KiB, with all that stands around the text.
    for (line, letter) in [(&lines[1], "y"), (&lines[2], "z")] {
        assert!((1900..4096).contains(&line.len()), "{}", line.len());
        assert_eq!(*line, letter.repeat(line.len()));
    }
    assert_eq!(lines[3..], ["next"]);
    let statuses: Vec<String> = run.of("request_headers");
    assert_eq!(statuses[1], r"log 2 '\R{100000}y' -> 0");
    assert_eq!(statuses[2], r"stdout '\R{100000}z\nnext\n' -> 0 100006");
}

#[test]
fn stdout_and_stderr_are_logged_a_line_at_a_time() {
    let run = Probe::new(
        r"request_headers: stdout 'one\ntwo\nthr'
          request_headers: stderr 'bad'
          request_headers: log 2 between
          response_headers: stdout 'ee\n'
          response_headers: stderr ' luck\nworse\n'",
    )
    .run();
    run.nginx.expect_log("probe: bad luck");
    run.nginx.expect_log("probe: worse");
    assert_eq!(
        levels(&run),
        pairs(&[
            ("info", "one"),
            ("info", "two"),
            ("info", r"request_headers stdout 'one\ntwo\nthr' -> 0 11"),
            ("info", "request_headers stderr 'bad' -> 0 3"),
            ("info", "between"),
            ("info", "request_headers log 2 between -> 0"),
            ("info", "three"),
            ("info", r"response_headers stdout 'ee\n' -> 0 3"),
            ("error", "bad luck"),
            ("error", "worse"),
            ("info", r"response_headers stderr ' luck\nworse\n' -> 0 12"),
        ])
    );
}

#[test]
fn other_descriptors_are_bad() {
    // WASI: 8 is BADF, 21 FAULT, 28 INVAL.
    check(
        "request_headers",
        &[
            ("fdwrite 0 x", "8 0"),
            ("fdwrite 3 x", "8 0"),
            ("fdwrite max x", "8 0"),
            ("fdwrite 1 ''", "0 0"),
            ("fdwrite_oob", "21 21 21 28"),
        ],
    );
}

#[test]
fn abi_0_1_0_logs_too() {
    let run = Probe::new("request_headers: log 2 text; request_headers: stdout 'out\\n'")
        .guest("probe_0_1_0")
        .run();
    assert_eq!(logged(&run), pairs(&[("info", "text"), ("info", "out")]));
}
