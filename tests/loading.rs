//! Loading modules: what is refused and with which words, what is stood in for, and how a module starts.

use crate::world::{Filter, Probe, guest, module, sim_host};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::vm::{Options, Plugin};

/// The error of loading these bytes.
fn refused(bytes: &[u8]) -> String {
    refused_with(bytes, Options::new("filter"))
}

fn refused_with(bytes: &[u8], options: Options) -> String {
    match Filter::load(&sim_host(), bytes, options) {
        Ok(_) => "loaded".into(),
        Err(error) => error.to_string(),
    }
}

const CUT_OFF: &str = "the file is cut off: it ends in the middle of a WebAssembly module (an unfinished copy or download?)";

#[test]
fn files_that_are_no_modules_are_told_apart() {
    let valid = guest("bare.wat");
    let component = b"\0asm\x0d\0\x01\0";
    let cases: &[(&[u8], &str)] = &[
        (b"", "the file is empty"),
        (b"hello", "not a WebAssembly module: the file does not begin with \"\\0asm\""),
        (b"\0asm\x01\0", CUT_OFF),
        (b"\0asm\x02\0\0\0", "the file is of a version of WebAssembly that is not supported"),
        (b" \n(module)", "the file is WebAssembly text; compile it to a binary first (wat2wasm)"),
        (
            component,
            "the file is a WebAssembly component; build the filter as a core module (for Rust: wasm32-wasip1)",
        ),
        (&valid[..valid.len() - 1], CUT_OFF),
        (
            b"\xef\xbb\xbf;; a comment\n(module)",
            "the file is WebAssembly text; compile it to a binary first (wat2wasm)",
        ),
        (b"\0\0\0\0\0\0\0\0\0", "the file holds zeros only (an unfinished copy or download?)"),
    ];
    for (bytes, error) in cases {
        assert_eq!(refused(bytes), *error);
    }
}

#[test]
fn other_kinds_of_files_are_named_with_what_to_do() {
    let tar = [&[b'x'; 257][..], b"ustar\x0000"].concat();
    for (bytes, what) in [
        (&b"\x1f\x8b\x08\0\0\0\0\0"[..], "compressed with gzip; decompress it first (gunzip)"),
        (b"\x28\xb5\x2f\xfd\0", "compressed with zstd"),
        (b"\xfd7zXZ\0\0", "compressed with xz"),
        (b"BZh9", "compressed with bzip2"),
        (b"PK\x03\x04\0", "a zip archive; unpack it"),
        (&tar, "a tar archive; unpack it"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"\r\n <HTML>", "an HTML page"),
        (b"<?xml version=\"1.0\"?><Error>", "an XML document"),
        (b"{\"error\": 404}", "JSON"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a pointer of Git LFS and not the module itself; fetch it with `git lfs pull`",
        ),
        (b"MZ\x90", "a program for Windows"),
        (b"!<arch>\nfoo", "a static library"),
        (b"BC\xc0\xde", "LLVM bitcode"),
        (b"AGFzbQEAAAA=", "a module in base64"),
        (b"#!/bin/sh", "a script"),
    ] {
        let error = refused(bytes);
        assert!(error.starts_with("the file is ") && error.contains(what), "{error}");
    }
}

#[test]
fn modules_that_are_no_filters_are_refused_with_the_cause() {
    for (file, error) in [
        ("no_memory", "the module exports no memory (\"memory\"): it is not a Proxy-Wasm filter"),
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
            "memory_too_large",
            "the module wants 4294967296 bytes of memory to begin with, and the option memory_limit allows 268435456",
        ),
        (
            "wrong_signature",
            "export \"proxy_on_request_headers\" has type (i64, f32) -> (i64), which is not \
             the type that the Proxy-Wasm ABI gives it",
        ),
        (
            "wrong_signature_start",
            "export \"_initialize\" has type (i32) -> (), which is not the type that the Proxy-Wasm \
             ABI gives it",
        ),
        (
            "start_section_trap",
            "instantiation failed: wasm trap: wasm `unreachable` instruction executed (in <unknown>!begin)",
        ),
        ("start_exit_3", "_start failed: the filter ended itself with exit code 3 (proc_exit)"),
    ] {
        assert_eq!(refused(&guest(&format!("{file}.wat"))), error, "{file}");
    }
}

#[test]
fn exports_of_the_wrong_kind_are_refused() {
    let with = |export: &str| {
        let text = format!("(module {export} (func (export \"proxy_abi_version_0_2_1\")))");
        refused(&wat::parse_str(text).expect("WebAssembly text"))
    };
    assert_eq!(
        with(r#"(global (export "memory") i32 (i32.const 0))"#),
        "the module's export \"memory\" is not a memory"
    );
    assert_eq!(
        with(r#"(memory (export "memory") 1) (global (export "proxy_on_done") i32 (i32.const 0))"#),
        "export \"proxy_on_done\" is not a function"
    );
    let marker = r#"(memory (export "memory") 1) (func (export "proxy_abi_version_0_3_0"))"#;
    assert_eq!(
        with(marker),
        "the module's ABI marker proxy_abi_version_0_3_0 is not one of 0.1.0, 0.2.0, 0.2.1"
    );
}

/// Loads a filter that adds `hello: world!`, runs a request, and returns what users were warned of.
fn works(bytes: &[u8], root_id: &str) -> Vec<String> {
    let mut options = Options::new("filter");
    options.root_id = root_id.into();
    let filter = Filter::load(&sim_host(), bytes, options).expect("a filter that starts");
    let effects = filter.open(&filter.context("")).whole();
    assert_eq!(effects, ["add response hello: world!"]);
    // Of calls of functions that are not there, see `a_stand_in_that_is_called_is_told_of_once`.
    filter.host.warned();
    filter.plugin.warnings().to_vec()
}

#[test]
fn odd_modules_work_and_what_is_odd_is_told() {
    let unknown = |import: &str, then: &str| {
        format!("import {import} is not a function of this host: {then}")
    };
    let i32s = |count: usize| vec!["i32"; count].join(", ");
    let cases: &[(&str, &[String])] = &[
        ("bare", &[]),
        ("start_section_log", &[]),
        ("initialize_main", &[]),
        ("initialize_main_void", &[]),
        ("initialize_and_start", &[]),
        ("start_exit_0", &[]),
        ("marker_none", &["the module has no proxy_abi_version_* export: taken as 0.2.0".into()]),
        (
            "marker_vendor",
            &["ABI marker proxy_abi_version_0_2_200 is a vendor's: taken as 0.2.1".into()],
        ),
        (
            "unknown_imports",
            &[
                unknown("env.proxy_unknown(i64, f64, i32) -> (i32)", "calls answer 12"),
                unknown("env.proxy_unknown_wide() -> (i64)", "calls answer 12"),
                unknown("env.proxy_unknown_silent(f32) -> ()", "calls answer 12"),
                unknown("wasi_snapshot_preview1.unknown_function(i32) -> (i32)", "calls answer 52"),
            ],
        ),
        (
            "grpc_call_10",
            &[
                format!(
                    "import env.proxy_grpc_call({}) -> (i32) has another type than this host's ({}) -> (i32): calls answer 12",
                    i32s(10),
                    i32s(12)
                ),
                format!(
                    "import env.proxy_grpc_stream({}) -> (i32) has another type than this host's ({}) -> (i32): calls answer 12",
                    i32s(7),
                    i32s(9)
                ),
            ],
        ),
    ];
    for (file, warnings) in cases {
        assert_eq!(works(&guest(&format!("{file}.wat")), "filter"), *warnings, "{file}");
    }
}

#[test]
fn a_call_of_another_unknown_env_function_traps() {
    let text = r#"(module
        (import "env" "abort" (func $abort (param i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $abort (i32.const 0)) (i32.const 0)))"#;
    let filter = Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"));
    let import = "env.abort(i32) -> ()";
    let warning = format!("import {import} is not a function of this host: a call of it traps");
    assert_eq!(filter.plugin.warnings(), [warning]);
    let stream = filter.open(&filter.context(""));
    let error = stream.run(Callback::RequestHeaders, b"", false).expect_err("a trap").to_string();
    let cause = format!(
        "proxy_on_request_headers failed: {import} was called, which this host does not have"
    );
    assert!(error.starts_with(&cause), "{error}");
}

#[test]
fn a_stand_in_that_is_called_is_told_of_once() {
    let world = sim_host();
    let text = r#"(module
        (import "env" "proxy_redis_call" (func $call (param i32 i32) (result i32)))
        (import "env" "proxy_not_called" (func $other (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_of_mine" (func $wasi (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $call (i32.const 0) (i32.const 0)))
            (drop (call $call (i32.const 0) (i32.const 0)))
            (drop (call $wasi))
            (i32.const 0)))"#;
    let filter = Filter::new(&world, &wat::parse_str(text).expect("WebAssembly text"));
    let context = filter.context("");
    let called = |name: &str, answer: i32| {
        format!(
            "proxy_on_request_headers: {name} was called, which this host does not have: it did nothing, what the filter \
             handed over is lost, and the call answered {answer}"
        )
    };
    filter.open(&context).request_headers();
    assert_eq!(
        world.warned(),
        [
            called("env.proxy_redis_call(i32, i32) -> (i32)", 12),
            called("wasi_snapshot_preview1.path_of_mine() -> (i32)", 52)
        ]
    );
    filter.open(&context).request_headers();
    assert_eq!(world.warned(), [""; 0]);
}

#[test]
fn filters_of_other_toolchains_work() {
    for (file, root_id) in [
        ("rust_filter_0_1.wasm", "filter"),
        ("as_sdk_0_1.wasm", "add_header"),
        ("zig.wasm", "filter"),
    ] {
        assert_eq!(works(&guest(file), root_id), [""; 0], "{file}");
    }
}

#[test]
fn the_first_marker_decides_what_a_missing_header_is() {
    let filter = Filter::new(&sim_host(), &guest("markers_two.wat"));
    assert_eq!(filter.open(&filter.context("")).whole(), ["add response x-status: 01"]);
    for (file, answer) in
        [("probe_0_1_0.wasm", "0 ''"), ("probe_0_2_0.wasm", "1"), ("probe.wasm", "1")]
    {
        let probe = Probe::of(file, "request_headers: get_header_map_value 0 x-absent");
        probe.open().request_headers();
        assert_eq!(probe.answers(), [answer], "{file}");
    }
}

#[test]
fn a_filter_may_have_no_callback_at_all() {
    let filter = Filter::new(&sim_host(), &guest("no_callbacks.wat"));
    let stream = filter.open(&filter.context("anything"));
    assert_eq!(stream.whole(), [""; 0]);
}

#[test]
fn options_reach_the_guest() {
    let mut options = Options::new("probe");
    options.root_id = "root".into();
    options.vm_id = "vm".into();
    options.vm_config = b"vm_start: get_buffer_bytes 6 0 max".into();
    options.env = vec![("KEY".into(), "a=b".into()), ("EMPTY".into(), String::new())];
    let probe = Probe::with(
        options,
        "configure: get_property plugin_name; configure: get_property plugin_root_id
         configure: get_property plugin_vm_id; configure: environ; configure: get_buffer_bytes 7 0 9
         configure: get_buffer_bytes 6 0 8",
    );
    assert_eq!(
        probe.answers(),
        [
            "0 vm_start: get_buffer_bytes 6 0 max",
            "0 probe",
            "0 root",
            "0 vm",
            "0 2 KEY=a=b|EMPTY=",
            "0 configure",
            "0 vm_start",
        ]
    );
}

#[test]
fn the_memory_limit_holds() {
    let mut options = Options::new("probe");
    options.memory_limit = 1024 * 1024;
    let probe =
        Probe::with(options.clone(), "configure: memory; configure: grow 15; configure: grow 1");
    let answers = probe.answers();
    let pages: usize = answers[0].parse::<usize>().expect("bytes") / 65536;
    assert_eq!(answers, [(pages * 65536).to_string().as_str(), "-1", &pages.to_string()]);

    options.memory_limit = 65536;
    assert_eq!(
        refused_with(&guest("probe.wasm"), options),
        format!(
            "the module wants {} bytes of memory to begin with, and the option memory_limit allows 65536",
            pages * 65536
        )
    );
}

#[test]
fn a_module_can_be_looked_at_before_it_starts() {
    let world = sim_host();
    let mut options = Options::new("filter");
    options.pause_timeout = 5;
    let loaded = module(&world, &guest("start_exit_3.wat"), options).expect("a sound module");
    assert_eq!((loaded.info().name.as_str(), loaded.pause_timeout()), ("filter", 5));
    assert!(Plugin::new(loaded, world.clone()).is_err());
}

#[test]
fn response_headers_are_asked_for_only_when_the_guest_can_see_them() {
    const READS: &str = "i32.const 0 i32.const 0 i32.const 0 i32.const 0 call 0";
    let sees = |text: &str, callback: Callback| {
        let filter = Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"));
        let stream = filter.open(&filter.context(""));
        let wants = |vm: &mut resty_proxy_wasm::vm::Vm| {
            Ok(vm.wants_response_headers(stream.at.id, callback))
        };
        stream.context.with_stream(stream.at, wants).expect("a VM")
    };
    let module = |import: &str, callback: &str, body: &str| {
        let reader =
            format!(r#"(import "env" "{import}" (func (param i32 i32 i32 i32) (result i32)))"#);
        let reader = if import.is_empty() { "" } else { &reader };
        format!(
            r#"(module {reader} (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
                (func (export "{callback}") (param i32 i32 i32) (result i32) {body}))"#
        )
    };
    let (headers, body) = ("proxy_on_response_headers", "proxy_on_response_body");
    for (import, callback, code, in_headers, in_body) in [
        ("", headers, "i32.const 0", false, false),
        ("", headers, "local.get 0", false, false),
        ("", headers, "local.get 1", true, false),
        ("", headers, "local.get 2", true, false),
        ("proxy_get_property", headers, "i32.const 0", false, false),
        ("proxy_get_property", headers, READS, true, false),
        ("proxy_get_property", body, READS, false, true),
        ("", body, "local.get 1", false, false),
    ] {
        let text = module(import, callback, code);
        assert_eq!(sees(&text, Callback::ResponseHeaders), in_headers, "{text}");
        assert_eq!(sees(&text, Callback::ResponseBody), in_body, "{text}");
    }
}

#[test]
fn names_in_a_module_forge_no_lines_of_a_log() {
    let load = |body: &str| {
        let text = format!(r#"(module {body} (memory (export "memory") 1))"#);
        let bytes = wat::parse_str(text).expect("WebAssembly text");
        Filter::load(&sim_host(), &bytes, Options::new("filter"))
    };
    let error = |body: &str| load(body).map(|_| ()).expect_err("an error").to_string();
    assert_eq!(
        error(r#"(func (export "proxy_abi_version_9\n\1b[31m"))"#),
        "the module's ABI marker proxy_abi_version_9 \\u{1b}[31m is not one of 0.1.0, 0.2.0, 0.2.1"
    );
    for body in [
        r#"(import "a\n" "b\r" (func))"#,
        r#"(import "a\n" "b\r" (global i32))"#,
        r#"(func $start (@name "a\nb\rc") unreachable) (start $start)"#,
        r#"(func (export "twice\n")) (func (export "twice\n"))"#,
    ] {
        let text = error(body);
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    let warned =
        load(r#"(import "env" "proxy_\n" (func)) (func (export "proxy_abi_version_0_2_9\n"))"#);
    let filter = warned.expect("a filter");
    assert_eq!(filter.plugin.warnings().len(), 2);
    for text in filter.plugin.warnings() {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

#[test]
fn long_names_in_a_module_are_cut_in_errors_and_warnings() {
    let long = "n".repeat(90_000);
    for body in [
        format!(r#"(import "{long}" "{long}" (func))"#),
        format!(r#"(import "{long}" "{long}" (global i32))"#),
        format!(r#"(import "env" "{long}" (func $f)) (start $f)"#),
        format!(r#"(func $start (@name "{long}") unreachable) (start $start)"#),
        format!(r#"(func (export "{long}")) (func (export "{long}"))"#),
        format!(r#"(func (export "proxy_abi_version_{long}"))"#),
        format!(
            r#"(import "env" "proxy_{long}" (func (param {}) (result i32)))
               (func (export "proxy_abi_version_9"))"#,
            "i32 ".repeat(1000)
        ),
    ] {
        let text = format!(r#"(module {body} (memory (export "memory") 1))"#);
        let error = refused(&wat::parse_str(text).expect("WebAssembly text"));
        assert!(error.len() < 4096, "{}", error.len());
    }
    let text = format!(
        r#"(module (import "env" "proxy_{long}" (func (param {}) (result i32))) (memory (export "memory") 1))"#,
        "i32 ".repeat(1000)
    );
    let filter = Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"));
    assert!(filter.plugin.warnings().iter().all(|text| text.len() < 4096));
}

#[test]
fn traces_show_names_as_they_are_and_demangle_what_is_mangled() {
    let text = r#"(module (memory (export "memory") 1)
        (func $f unreachable)
        (func $_ZN3foo3barEi (call $f))
        (func $i (call $_ZN3foo3barEi))
        (start $i))"#;
    let error = refused(&wat::parse_str(text).expect("WebAssembly text"));
    let frames = "(in <unknown>!f < <unknown>!foo::bar(int) < <unknown>!i)";
    assert!(error.ends_with(frames), "{error}");
}
