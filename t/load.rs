//! Loading: what is taken, what is refused and with which words, how a module starts, and what is warned of.

use super::support::{Nginx, Running, guest};
use std::fs;

/// Locations that load the file of their query: `/load` says what came of it, `/run` takes a request through it.
const SERVER: &str = r#"
location /load {
    content_by_lua_block {
        local plugin, err = require("resty.proxy-wasm").load("it", ngx.var.arg_file)
        ngx.print(plugin and "loaded" or err)
    }
}
location /configure {
    content_by_lua_block {
        local wasm = require("resty.proxy-wasm")
        local plugin = assert(wasm.load("it", ngx.var.arg_file))
        local ctx, err = wasm.on_configure(plugin)
        ngx.print(ctx and "configured" or err)
    }
}
location /run {
    access_by_lua_block {
        local wasm = require("resty.proxy-wasm")
        local plugin = assert(wasm.load(ngx.var.arg_file, ngx.var.arg_file))
        ngx.ctx.filter = assert(wasm.on_configure(plugin))
        assert(wasm.on_http_request_headers(ngx.ctx.filter))
        assert(wasm.on_http_request_body(ngx.ctx.filter, nil, true))
    }
    content_by_lua_block { ngx.print("body") }
    header_filter_by_lua_block {
        local ok, err = require("resty.proxy-wasm").on_http_response_headers(ngx.ctx.filter)
        ngx.header["x-failure"] = err
    }
    body_filter_by_lua_block {
        local ok, err = require("resty.proxy-wasm").on_http_response_body(ngx.ctx.filter)
        if err and not ngx.ctx.told then
            ngx.ctx.told = true
            ngx.log(ngx.NOTICE, "body failed: ", err)
        end
    }
}
"#;

fn wats(names: &[&str]) -> Running {
    let nginx = names.iter().fold(Nginx::new(), |nginx, name| nginx.wat(name));
    nginx.server(SERVER).start()
}

fn load(nginx: &Running, file: &str) -> String {
    nginx.get(&format!("/load?file={file}")).text()
}

#[test]
fn modules_that_are_odd_and_work() {
    let names = [
        "bare",
        "start_section_log",
        "initialize_main",
        "initialize_main_void",
        "initialize_and_start",
        "start_exit_0",
    ];
    let nginx = wats(&names);
    for name in names {
        let response = nginx.get(&format!("/run?file={name}.wasm"));
        assert_eq!(response.header_all("hello"), ["world!"], "{name}");
        assert_eq!(response.text(), "body", "{name}");
    }
    assert_eq!(nginx.guest_log("start_section_log.wasm"), ["start section"]);
}

#[test]
fn what_is_odd_is_warned_of_once() {
    let i32s = |count: usize| vec!["i32"; count].join(", ");
    let (seven, nine, ten, twelve) = (i32s(7), i32s(9), i32s(10), i32s(12));
    let cases: [(&str, &[String]); 4] = [
        (
            "marker_none",
            &["the module has no proxy_abi_version_* export: taken as 0.2.0".into()],
        ),
        (
            "marker_vendor",
            &["ABI marker proxy_abi_version_0_2_200 is a vendor's: taken as 0.2.1".into()],
        ),
        (
            "unknown_imports",
            &[
                "import env.proxy_unknown(i64, f64, i32) -> (i32) is not a function of this host: calls answer 12".into(),
                "import env.proxy_unknown_wide() -> (i64) is not a function of this host: calls answer 12".into(),
                "import env.proxy_unknown_silent(f32) -> () is not a function of this host: calls answer 12".into(),
                "import wasi_snapshot_preview1.unknown_function(i32) -> (i32) is not a function of this host: calls answer 52".into(),
            ],
        ),
        (
            "grpc_call_10",
            &[
                format!("import env.proxy_grpc_call({ten}) -> (i32) has another type than this host's ({twelve}) -> (i32): calls answer 12"),
                format!("import env.proxy_grpc_stream({seven}) -> (i32) has another type than this host's ({nine}) -> (i32): calls answer 12"),
            ],
        ),
    ];
    for (name, warnings) in cases {
        // Loaded in the master, started again in each of two workers, used by several requests.
        let nginx = Nginx::new()
            .workers(2)
            .wat(name)
            .http(&format!(
                r#"init_by_lua_block {{
                    wasm = require("resty.proxy-wasm")
                    filter = assert(wasm.on_configure(assert(wasm.load("it", "{name}.wasm"))))
                }}"#
            ))
            .server(
                r#"location /t {
                    access_by_lua_block { assert(wasm.on_http_request_headers(filter)) }
                    content_by_lua_block { ngx.print("body") }
                    header_filter_by_lua_block { assert(wasm.on_http_response_headers(filter)) }
                }"#,
            )
            .start();
        for _ in 0..8 {
            assert_eq!(nginx.get("/t").header_all("hello"), ["world!"], "{name}");
        }
        let of_calls = |line: &String| line.contains("was called, which this host does not have");
        let (called, loaded): (Vec<_>, Vec<_>) =
            nginx.log_texts("wasm plugin \"it\": ").into_iter().partition(of_calls);
        assert_eq!(loaded, warnings, "{name}");
        // Once in each worker that a request came to.
        let calls: &[&str] = match name {
            "unknown_imports" => {
                &["unknown(", "unknown_wide(", "unknown_silent(", "unknown_function("]
            }
            "grpc_call_10" => &["grpc_call(", "grpc_stream("],
            _ => &[],
        };
        for function in calls {
            let times = called.iter().filter(|line| line.contains(function)).count();
            assert!((1..=2).contains(&times), "{function}: {times}");
        }
        if calls.is_empty() {
            assert_eq!(called, [""; 0], "{name}");
        } else {
            nginx.expect_log("was called, which this host does not have: it did nothing");
        }
        for warning in warnings {
            nginx.expect_log(warning);
        }
    }
}

#[test]
fn a_filter_without_callbacks_lets_everything_pass() {
    let nginx = wats(&["no_callbacks"]);
    let response = nginx.request("POST", "/run?file=no_callbacks.wasm").body("x").send();
    assert_eq!((response.status, response.text().as_str()), (200, "body"));
    assert_eq!(response.header("x-failure"), None);
    assert_eq!(nginx.log_texts("body failed: "), [""; 0]);
}

#[test]
fn statuses_of_allocators_and_versions() {
    let cases = [
        ("allocator_missing", "10"),
        ("allocator_zero", "10"),
        ("allocator_oob", "06"),
        // A header that is missing: 0.1.0 would have said 00.
        ("markers_two", "01"),
    ];
    let nginx = wats(&cases.map(|(name, _)| name));
    for (name, status) in cases {
        let response = nginx.get(&format!("/run?file={name}.wasm"));
        assert_eq!(response.header_all("x-status"), [status], "{name}");
    }
    nginx.expect_log(
        "wasm plugin \"allocator_missing.wasm\": proxy_on_response_headers: a value cannot be handed over: the module \
         exports neither proxy_on_memory_allocate nor malloc",
    );
}

#[test]
fn an_allocator_that_traps_fails_the_request() {
    let nginx = wats(&["allocator_trap"]);
    for _ in 0..2 {
        let response = nginx.get("/run?file=allocator_trap.wasm");
        let failure = response.header("x-failure").unwrap_or("none");
        let cause = "failed to run proxy_on_http_response_headers: proxy_on_response_headers failed: \
                     wasm trap: wasm `unreachable` instruction executed (in ";
        assert!(failure.starts_with(cause), "{failure}");
        assert_eq!(response.text(), "body");
    }
    // The stream is gone with its VM, and the body's callback says so.
    let lost = nginx.log_texts("body failed: ");
    assert_eq!(lost.len(), 2);
    for text in lost {
        let cause = "failed to run proxy_on_http_response_body: the filter's VM was lost: \
                     proxy_on_response_headers failed: wasm trap: ";
        assert!(text.starts_with(cause), "{text}");
    }
}

#[test]
fn modules_that_are_refused() {
    let cases = [
        ("no_memory", "the module exports no memory (\"memory\"): it is not a Proxy-Wasm filter"),
        (
            "memory_too_large",
            "the module wants 4294967296 bytes of memory to begin with, and the option memory_limit allows 268435456",
        ),
        (
            "start_section_trap",
            "instantiation failed: wasm trap: wasm `unreachable` instruction executed (in <unknown>!begin)",
        ),
        ("start_exit_3", "_start failed: the filter ended itself with exit code 3 (proc_exit)"),
        (
            "import_other_module",
            "the module imports function \"foo.bar\", which is neither Proxy-Wasm (module \"env\") nor WASI",
        ),
        (
            "import_memory",
            "the module imports memory \"env.memory\"; a host gives functions only (link the filter without imported \
             memory and tables)",
        ),
        (
            "import_global",
            "the module imports global \"env.proxy_log\"; a host gives functions only (link the filter without \
             imported memory and tables)",
        ),
        (
            "wrong_signature",
            "export \"proxy_on_request_headers\" has type (i64, f32) -> (i64), which is not the type that the \
             Proxy-Wasm ABI gives it",
        ),
        (
            "wrong_signature_start",
            "export \"_initialize\" has type (i32) -> (), which is not the type that the Proxy-Wasm ABI gives it",
        ),
    ];
    let nginx = wats(&cases.map(|(name, _)| name));
    for (name, cause) in cases {
        let expected = format!("failed to load wasm plugin: {cause}");
        assert_eq!(load(&nginx, &format!("{name}.wasm")), expected, "{name}");
    }
}

#[test]
fn filters_that_refuse_to_start() {
    let nginx = wats(&["vm_start_false", "configure_false"]);
    for callback in ["vm_start", "configure"] {
        let file = format!("{callback}_false.wasm");
        assert_eq!(load(&nginx, &file), "loaded");
        assert_eq!(
            nginx.get(&format!("/configure?file={file}")).text(),
            format!(
                "failed to run proxy_on_configure: proxy_on_{callback} returned false: the filter refused its \
                 configuration"
            )
        );
    }
}

#[test]
fn files_that_are_no_modules() {
    let cases: [(&str, &[u8], &str); 7] = [
        ("empty", b"", "the file is empty"),
        ("text", b"no module", "not a WebAssembly module: the file does not begin with \"\\0asm\""),
        (
            "elf",
            b"\x7fELF\x02\x01\x01",
            "not a WebAssembly module: the file does not begin with \"\\0asm\"",
        ),
        (
            "wat",
            b" \n(module)",
            "the file is WebAssembly text; compile it to a binary first (wat2wasm)",
        ),
        (
            "component",
            b"\0asm\x0d\0\x01\0",
            "the file is a WebAssembly component; build the filter as a core module (for Rust: wasm32-wasip1)",
        ),
        (
            "version",
            b"\0asm\x02\0\0\0",
            "the file is of a version of WebAssembly that is not supported",
        ),
        (
            "garbage",
            b"\0asm\x01\0\0\0\xff\xff",
            "not a valid WebAssembly module: failed to parse WebAssembly module: malformed section id (at offset 0x8)",
        ),
    ];
    let nginx =
        cases.iter().fold(Nginx::new(), |nginx, (name, content, _)| nginx.file(name, content));
    let nginx = nginx.file("directory/file", "").server(SERVER).start();
    for (name, _, cause) in cases {
        assert_eq!(load(&nginx, name), format!("failed to load wasm plugin: {cause}"), "{name}");
    }
    assert_eq!(load(&nginx, "missing"), "missing: No such file or directory");
    assert_eq!(load(&nginx, "directory"), "directory: Is a directory");
}

#[test]
fn a_module_cut_off_anywhere() {
    // Says what loading the first 0, 1, 2 … bytes answers; the same answer in a row is one line.
    let nginx = Nginx::new()
        .guest("zig")
        .server(
            r#"
            location /t {
                content_by_lua_block {
                    local file = assert(io.open("zig.wasm", "rb"))
                    local whole = file:read("*a")
                    file:close()
                    local last
                    for size = 0, #whole do
                        file = assert(io.open("cut.wasm", "wb"))
                        file:write(whole:sub(1, size))
                        file:close()
                        local plugin, err = require("resty.proxy-wasm").load("it", "cut.wasm")
                        local answer = plugin and "loaded" or err
                        if answer ~= last then
                            ngx.say(size, " ", answer)
                            last = answer
                        end
                    end
                }
            }
            "#,
        )
        .start();
    let whole = fs::read(guest("zig")).expect("a guest");
    let cut_off = "failed to load wasm plugin: the file is cut off: it ends in the middle of a WebAssembly module \
                   (an unfinished copy or download?)";
    let no_memory = "failed to load wasm plugin: the module exports no memory (\"memory\"): it is not a Proxy-Wasm \
                     filter";
    let mut expected = vec![
        "0 failed to load wasm plugin: the file is empty".into(),
        format!("1 {cut_off}"),
        format!("8 {no_memory}"),
        format!("9 {cut_off}"),
    ];
    for (section, end) in section_ends(&whole) {
        // Where a section ends, what is there may be a module of its own: one without functions, and one whose
        // functions are all there.
        match section {
            ..FUNCTION_SECTION => expected.push(format!("{end} {no_memory}")),
            FUNCTION_SECTION..CODE_SECTION => continue,
            CODE_SECTION.. => expected.push(format!("{end} loaded")),
        }
        if end < whole.len() {
            expected.push(format!("{} {cut_off}", end + 1));
        }
    }
    assert_eq!(nginx.get("/t").text().lines().collect::<Vec<_>>(), expected);
}

const FUNCTION_SECTION: u8 = 3;
const CODE_SECTION: u8 = 10;

/// Id and end of each section of a module.
fn section_ends(module: &[u8]) -> Vec<(u8, usize)> {
    let mut ends = Vec::new();
    let mut at = 8;
    while at < module.len() {
        let id = module[at];
        let (mut size, mut shift) = (0, 0);
        loop {
            at += 1;
            size |= usize::from(module[at] & 0x7f) << shift;
            shift += 7;
            if module[at] & 0x80 == 0 {
                break;
            }
        }
        at += 1 + size;
        ends.push((id, at));
    }
    ends
}

/// A module whose start functions log their names, of these exports.
fn starter(exports: &[(&str, &str)]) -> String {
    let mut text = String::from(
        r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        "#,
    );
    for (index, (name, rest)) in exports.iter().enumerate() {
        let (at, length) = (index * 32, name.len());
        text += &format!(
            "(data (i32.const {at}) \"{name}\")\n(func (export \"{name}\") {rest_head}\n \
             (drop (call $log (i32.const 2) (i32.const {at}) (i32.const {length}))) {rest_body})\n",
            rest_head = rest.split_once('|').map_or("", |(head, _)| head),
            rest_body = rest.split_once('|').map_or(*rest, |(_, body)| body),
        );
    }
    text + ")"
}

#[test]
fn start_functions_run_in_order_and_never_both() {
    const VOID: &str = "";
    const MAIN: &str = "(param i32 i32) (result i32)|(i32.const 0)";
    const MAIN_VOID: &str = "(result i32)|(i32.const 0)";
    const CREATE: (&str, &str) = ("proxy_on_context_create", "(param i32 i32)|");
    let failed = "failed to load wasm plugin: ";
    type Exports<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Exports<'_>, &[&str], &str); 10] = [
        (&[("main", MAIN), CREATE, ("_initialize", VOID)], &["_initialize", "main"], "loaded"),
        (
            &[("__main_void", MAIN_VOID), ("_initialize", VOID)],
            &["_initialize", "__main_void"],
            "loaded",
        ),
        (
            &[("__main_void", MAIN_VOID), ("main", MAIN), ("_initialize", VOID)],
            &["_initialize", "main"],
            "loaded",
        ),
        (&[("_start", VOID), ("_initialize", VOID)], &["_initialize"], "loaded"),
        (&[("_start", VOID), ("main", MAIN), ("__main_void", MAIN_VOID)], &["_start"], "loaded"),
        // Without `_initialize`, `main` is a function like any other.
        (&[("main", MAIN)], &[], "loaded"),
        // A `main` of another type is not C's.
        (&[("_initialize", VOID), ("main", "(param i64)|")], &["_initialize"], "loaded"),
        (
            &[("_initialize", "|(call $exit (i32.const 0))"), ("main", MAIN)],
            &["_initialize", "main"],
            "loaded",
        ),
        (
            &[("_initialize", "|(call $exit (i32.const 1))"), ("main", MAIN)],
            &["_initialize"],
            "_initialize failed: the filter ended itself with exit code 1 (proc_exit)",
        ),
        (
            &[("_initialize", VOID), ("main", "(param i32 i32) (result i32)|unreachable")],
            &["_initialize", "main"],
            "main failed: wasm trap: wasm `unreachable` instruction executed (in <unknown>!<wasm function 4>)",
        ),
    ];
    let mut nginx = Nginx::new();
    for (index, (exports, _, _)) in cases.iter().enumerate() {
        nginx = nginx.wat_text(&format!("start{index}"), &starter(exports));
    }
    let nginx = nginx.server(SERVER).start();
    let mut before = 0;
    for (index, (exports, logged, answer)) in cases.iter().enumerate() {
        let said = load(&nginx, &format!("start{index}.wasm"));
        assert_eq!(said.strip_prefix(failed).unwrap_or(&said), *answer, "{exports:?}");
        let lines = nginx.guest_log("it");
        assert_eq!(lines[before..], **logged, "{exports:?}");
        before = lines.len();
    }
}
