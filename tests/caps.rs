//! The caps of `limits.rs`, each from both sides.

use crate::world::{Filter, Probe, Request, sim_host};
use resty_proxy_wasm::abi::LogLevel;
use resty_proxy_wasm::effect::{EffectKind, Effects, Full};
use resty_proxy_wasm::event::Action;
use resty_proxy_wasm::limits;

/// The answers to lines of a script for request headers.
fn answers(script: &str) -> (Vec<String>, Vec<String>) {
    let probe = Probe::new(script);
    probe.open().request_headers();
    (probe.answers(), probe.warned())
}

#[test]
fn calls_by_time() {
    for (asked, given) in [
        (0, limits::CALL_MS),
        (1, 1),
        (limits::CALL_MS, limits::CALL_MS),
        (limits::CALL_MS + 1, limits::CALL_MS),
        (i32::MAX as u32, limits::CALL_MS),
    ] {
        let probe = Probe::new(&format!("request_headers: http_call up '' '' '' {asked}"));
        let stream = probe.open();
        stream.request_headers();
        let calls = probe.context.with_stream(stream.at, |vm| Ok(vm.state_mut().calls.take()));
        assert_eq!(calls.expect("a VM").http[0].timeout_ms, given, "{asked}");
    }
}

#[test]
fn properties_by_count() {
    let most = limits::PROPERTIES;
    let mut script: String =
        (0..most + 2).map(|n| format!("request_headers: set_property kept.{n} x\n")).collect();
    script += "request_headers: set_property kept.7 y\n";
    let (answers, warnings) = answers(&script);
    assert_eq!(answers[..most], vec!["0"; most]);
    assert_eq!(answers[most..], ["10", "10", "0"], "a known one still changes");
    assert_eq!(
        warnings,
        ["proxy_on_request_headers: a filter kept more properties than the host holds for it"]
    );
}

#[test]
fn properties_by_bytes() {
    let room = limits::PROPERTY_BYTES - "a.a".len() - "a.b".len();
    let (answers, warnings) = answers(&format!(
        "request_headers: set_property a.b ''
         request_headers: set_property a.a \\R{{{}}}x
         request_headers: set_property a.a \\R{{{room}}}x
         request_headers: set_property a.b 1
         request_headers: set_property a.a ''
         request_headers: set_property a.b 1",
        room + 1
    ));
    assert_eq!(answers, ["0", "10", "0", "10", "0", "0"]);
    assert_eq!(warnings.len(), 1);
}

#[test]
fn effects_by_count_and_bytes() {
    let mut effects = Effects::default();
    for _ in 0..limits::EFFECTS {
        assert_eq!(effects.push(EffectKind::SetStatus, 200, b"", b""), Ok(()));
    }
    assert_eq!(effects.push(EffectKind::SetStatus, 200, b"", b""), Err(Full));
    effects.clear();
    let value = vec![0; limits::EFFECT_BYTES - 1];
    assert_eq!(effects.push(EffectKind::SetRequestHeader, 0, b"", &value), Ok(()));
    assert_eq!(effects.push(EffectKind::SetRequestHeader, 0, b"a", b"b"), Err(Full));
    assert_eq!(effects.push(EffectKind::SetRequestHeader, 0, b"a", b""), Ok(()));
    let body = vec![0; limits::LOCAL_RESPONSE];
    assert_eq!(effects.push(EffectKind::LocalResponse, 200, b"", &body), Ok(()), "apart");
    assert_eq!(effects.iter().len(), 3);
    effects.clear();
    let name = vec![b'a'; limits::COMPARED_BYTES / 128];
    assert_eq!(effects.push(EffectKind::SetPath, 0, &name, b""), Ok(()), "it is no name");
    assert_eq!(effects.push(EffectKind::AddResponseHeader, 0, &name, b""), Ok(()), "not searched");
    assert_eq!(effects.push(EffectKind::RemoveResponseHeader, 0, &name, b""), Err(Full));
    assert_eq!(effects.push(EffectKind::RemoveResponseHeader, 0, &name[2000..], b""), Ok(()));
    let mut taken = Effects::default();
    effects.take_into(&mut taken);
    assert_eq!((effects.iter().len(), taken.iter().len()), (0, 3));
    assert_eq!(
        effects.push(EffectKind::RemoveResponseHeader, 0, &name[..2000], b""),
        Err(Full),
        "it goes on counting"
    );
}

#[test]
fn effects_of_a_guest_that_never_stops() {
    let text = format!(
        r#"(module
        (import "env" "proxy_add_header_map_value" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (local $n i32)
            (loop $more
                (if (call $set (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 1) (i32.const 1))
                    (then (return (i32.const 0))))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $n) (i32.const {}))))
            unreachable)
        (data (i32.const 0) "ab"))"#,
        limits::EFFECTS + 1
    );
    let filter = Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"));
    let stream = filter.open(&filter.context(""));
    assert_eq!(stream.response_headers(&[]).effects.len(), limits::EFFECTS);
    assert_eq!(
        filter.host.warned(),
        [
            "proxy_on_response_headers: a filter asked for more header changes in one callback than the host holds"
        ]
    );
    assert_eq!(stream.response_headers(&[]).effects.len(), limits::EFFECTS, "room again");
    assert_eq!(filter.host.warned(), [""; 0], "once is enough");
}

/// Why an event of a body fails.
const TOO_MUCH: &str =
    "proxy_on_response_headers: a filter makes more of a header map than the host holds";

#[test]
fn header_maps_by_pairs() {
    let most = limits::HEADER_MAP_PAIRS;
    let add = "response_headers: add_header_map_value 2 one more\n";
    let probe = Probe::new(&format!(
        "response_headers: set_header_map_pairs 2 *{}; response_headers: set_header_map_pairs 2 *{most}\n{add}{add}{add}{add}
         response_headers: replace_header_map_value 2 one less; response_headers: add_header_map_value 2 one more",
        most + 1
    ));
    probe.open().response_headers(&[]);
    assert_eq!(
        probe.answers(),
        ["2", "0", "0", "0", "0", "10", "0", "0"],
        "more are refused whole; pseudo headers (one here, four at the most) are not counted"
    );
    assert_eq!(probe.warned(), [TOO_MUCH]);
}

#[test]
fn header_maps_by_bytes() {
    let size = limits::HEADER_MAP_BYTES;
    let probe = Probe::new(&format!(
        "response_headers: add_header_map_value 2 a \\R{{{}}}x; response_headers: get_header_map_size 2
         response_headers: add_header_map_value 2 b \\R{{{}}}x; response_headers: get_header_map_size 2
         response_headers: set_header_map_pairs 2 a=\\R{{{size}}}x",
        size / 2,
        size / 2 + 1
    ));
    let effects = probe.open().response_headers(&[]).effects;
    assert_eq!(effects.len(), 1);
    let before = size / 2 + ":status200a".len();
    assert_eq!(
        probe.answers(),
        ["0".to_string(), format!("0 {before}"), "10".into(), format!("0 {before}"), "2".into()]
    );
    assert_eq!(probe.warned(), [TOO_MUCH]);
}

#[test]
fn log_lines() {
    let probe = Probe::new(&format!("request_headers: log 4 \\R{{{}}}x", limits::LOG_LINE + 1));
    probe.open().request_headers();
    let lines = probe.filter.host.said_at();
    let cut = lines.iter().find(|line| line.starts_with("Error ")).expect("the line");
    assert_eq!(*cut, format!("Error {} [cut]", "x".repeat(limits::LOG_LINE)));
}

#[test]
fn lines_of_stdout_that_never_end() {
    let probe = Probe::new(&format!(
        "request_headers: stdout \\R{{{}}}x; request_headers: stdout yy; request_headers: stdout z\\n\\n",
        limits::STDIO_LINE - 1
    ));
    probe.open().request_headers();
    let said: Vec<String> =
        probe.said().into_iter().filter(|line| !line.contains(" -> ")).collect();
    assert_eq!(said, [format!("{}y", "x".repeat(limits::STDIO_LINE - 1)), "z".into()]);
}

#[test]
fn local_responses() {
    let size = limits::LOCAL_RESPONSE;
    let text = |body: usize| {
        format!(
            r#"(module
            (import "env" "proxy_send_local_response"
                (func $send (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (memory (export "memory") 300)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (i32.store8 (i32.const 0) (i32.add (i32.const 48)
                    (call $send (i32.const 200) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const {body})
                        (i32.const 0) (i32.const 0) (i32.const -1))))
                (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
                (i32.const 0)))"#
        )
    };
    for (body, sent) in [(size, size), (size + 1, 0)] {
        let filter =
            Filter::new(&sim_host(), &wat::parse_str(text(body)).expect("WebAssembly text"));
        let answer = filter.open(&filter.context("")).request_headers();
        assert_eq!(answer.action, Action::Respond);
        // A NUL is shown as \x00.
        assert_eq!(answer.effects[0].len(), "answer 200 [] ".len() + 4 * sent);
        assert_eq!(filter.host.said(), ["0"]);
        assert_eq!(filter.host.warned().len(), usize::from(sent == 0));
    }
}

#[test]
fn random_bytes_and_polls() {
    let (random, polls) = (limits::RANDOM_BYTES, limits::POLL_SUBSCRIPTIONS);
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 40)
        (func (export "proxy_abi_version_0_2_1"))
        (func $expect (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then unreachable)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $expect (call $random (i32.const 0) (i32.const {random})) (i32.const 0))
            (call $expect (call $random (i32.const 0) (i32.const {random_more})) (i32.const 28))
            (call $expect (call $poll (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) (i32.const 28))
            (call $expect (call $poll (i32.const 0) (i32.const 0) (i32.const {polls}) (i32.const 0)) (i32.const 0))
            (call $expect (call $poll (i32.const 0) (i32.const 0) (i32.const {polls_more}) (i32.const 0))
                (i32.const 28))
            (memory.fill (i32.const 0) (i32.const 0) (i32.const 65536))
            (call $expect (call $write (i32.const 1) (i32.const 0) (i32.const {iovecs}) (i32.const 0)) (i32.const 0))
            (call $expect (call $write (i32.const 1) (i32.const 0) (i32.const {iovecs_more}) (i32.const 0))
                (i32.const 28))
            (i32.const 0)))"#,
        random_more = random + 1,
        polls_more = polls + 1,
        iovecs = limits::STDIO_IOVECS,
        iovecs_more = limits::STDIO_IOVECS + 1,
    );
    let filter = Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"));
    assert_eq!(filter.open(&filter.context("")).request_headers().action, Action::Continue);
}

#[test]
fn tables() {
    let text = |elements: usize| {
        format!(
            r#"(module (memory (export "memory") 1) (table {elements} funcref) (func (export "proxy_abi_version_0_2_1")))"#
        )
    };
    let load = |elements| {
        let bytes = wat::parse_str(text(elements)).expect("WebAssembly text");
        Filter::load(&sim_host(), &bytes, resty_proxy_wasm::vm::Options::new("filter")).map(|_| ())
    };
    assert_eq!(load(limits::TABLE_ELEMENTS), Ok(()));
    let many = |tables: usize| {
        let text = format!(
            r#"(module (memory (export "memory") 1) {} (func (export "proxy_abi_version_0_2_1")))"#,
            "(table 1 funcref)".repeat(tables)
        );
        let bytes = wat::parse_str(text).expect("WebAssembly text");
        let options = resty_proxy_wasm::vm::Options::new("filter");
        Filter::load(&sim_host(), &bytes, options).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(many(limits::TABLES), Ok(()));
    assert_eq!(
        many(limits::TABLES + 1),
        Err("instantiation failed: resource limit exceeded: table count too high at 5".into())
    );
    assert_eq!(
        load(limits::TABLE_ELEMENTS + 1).map_err(|e| e.to_string()),
        Err("instantiation failed: table minimum size of 1048577 elements exceeds table limits"
            .into())
    );
}

#[test]
fn levels_below_the_worlds_are_not_written() {
    let probe = Probe::new(
        "request_headers: log 0 a; request_headers: log 3 b; request_headers: log 5 c; request_headers: log 6 d; request_headers: get_log_level",
    );
    probe.filter.host.set_log_level(LogLevel::Trace);
    probe.open_for(Request::default()).request_headers();
    let all: Vec<String> = probe.filter.host.said_at();
    let by_guest: Vec<&String> = all.iter().filter(|line| !line.contains(" -> ")).collect();
    assert_eq!(by_guest, ["Trace a", "Warn b", "Critical c"]);
    let answers: Vec<&str> =
        all.iter().filter_map(|line| line.split_once(" -> ")).map(|(_, a)| a).collect();
    assert_eq!(answers, ["0", "0", "0", "2", "0 0"]);
    probe.filter.host.set_log_level(LogLevel::Critical);
    probe.open().request_headers();
    assert_eq!(probe.filter.host.said_at(), ["Critical c"]);
}

#[test]
fn one_write_to_stdout() {
    let most = limits::STDIO_BYTES;
    let probe = Probe::new(&format!(
        "request_headers: stdout \\R{{{most}}}x; request_headers: stdout \\R{{{}}}x",
        most + 1
    ));
    probe.open().request_headers();
    let said = probe.said();
    let answers: Vec<&str> =
        said.iter().filter_map(|line| line.split_once(" -> ")).map(|(_, a)| a).collect();
    let taken = format!("0 {most}");
    assert_eq!(answers, [&taken, &taken], "the guest writes the rest again");
}

#[test]
fn values_of_properties() {
    let probe = Probe::new(
        "response_headers: set_property free 'a\\0b'
         response_headers: set_property kept.too 'a\\0b'
         response_headers: get_property free",
    );
    let stream = probe.open_for(Request::default().writable("free", ""));
    stream.response_headers(&[]);
    assert_eq!(probe.answers(), ["2", "0", "0 ''"]);
    assert_eq!(
        probe.warned(),
        ["proxy_on_response_headers: property \"free\" is not set: a value may hold no NUL"]
    );
}

#[test]
fn names_in_warnings() {
    let (answers, warnings) = answers("request_headers: add_header_map_value 0 '\\R{1000}\\n' x");
    assert_eq!(answers, ["2"]);
    assert!(warnings[0].len() < 2 * limits::SHOWN_BYTES + 100, "{}", warnings[0].len());
    let (answers, _) = self::answers("request_headers: add_header_map_value 0 a '\\R{1048576}x'");
    assert_eq!(answers, ["10"], "refused before its bytes are looked at");
}

#[test]
fn what_a_guest_asks_for_again_and_again() {
    let text = r#"(module
        (import "env" "proxy_continue_stream" (func $go_on (param i32) (result i32)))
        (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
            (loop $again
                (drop (call $go_on (i32.const 0)))
                (drop (call $close (i32.const 0)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $n) (i32.const 10000))))
            (i32.const 0)))"#;
    let filter = Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"));
    let stream = filter.open(&filter.context(""));
    assert_eq!(stream.request_headers().action, Action::Close);
    let held = stream.context.with_stream(stream.at, |vm| Ok(vm.state().call.resumed.capacity()));
    assert!(held.expect("a VM") < 100);
}

#[test]
fn lists_of_buffers_for_wasi() {
    // Each entry has eight bytes. With room for it, empty buffers are read until the end of the input.
    let most = limits::WASI_BYTES / 8;
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 40)
        (func (export "proxy_abi_version_0_2_1"))
        (func $expect (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then unreachable)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $expect (call $read (i32.const 0) (i32.const 8) (i32.const {most}) (i32.const 0)) (i32.const 0))
            (call $expect (call $read (i32.const 0) (i32.const 8) (i32.const {more}) (i32.const 0)) (i32.const 48))
            (i32.const 0)))"#,
        more = most + 1,
    );
    let filter = Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"));
    assert_eq!(filter.open(&filter.context("")).request_headers().action, Action::Continue);
}

/// One byte more than a cap.
fn over(cap: usize) -> String {
    format!("\\R{{{}}}a", cap + 1)
}

#[test]
fn names_of_upstreams_and_authorities() {
    let long = over(limits::UPSTREAM_NAME);
    let probe = Probe::new(&format!(
        "request_headers: http_call {long} '' '' '' 1000
         request_headers: http_call '\\R{{{}}} a' '' '' '' 1000
         request_headers: http_call up :authority={long} '' '' 1000
         request_headers: http_call up host={long} '' '' 1000",
        limits::UPSTREAM_NAME / 2
    ));
    probe.open().request_headers();
    assert_eq!(probe.answers(), ["2"; 4]);
    let warned = probe.warned();
    assert_eq!(warned.len(), 4, "{warned:?}");
    assert!(warned[0].ends_with("the name of the upstream is too long"), "{warned:?}");
    assert!(warned.iter().all(|text| text.len() < 300), "{warned:?}");
}

#[test]
fn headers_and_trailers_of_calls_count_as_their_bodies_do() {
    const SIZE: usize = 100 * 1024;
    let pair = format!("x=\\R{{{SIZE}}}v");
    let probe = Probe::new(&format!("request_headers: http_call up {pair} '' {pair} 1000"));
    let fit = limits::CALL_REQUEST_BODIES / (2 * SIZE + 2 * "0123456789abcdef".len());
    let streams: Vec<_> = (0..=fit).map(|_| probe.open()).collect();
    for stream in &streams {
        stream.request_headers();
    }
    let answers = probe.answers();
    assert!(answers[..fit].iter().all(|answer| answer.starts_with("0 ")), "{answers:?}");
    assert_eq!(answers[fit..], ["10"]);
    assert_eq!(probe.warned().len(), 1);
}

#[test]
fn names_and_arguments_of_foreign_functions() {
    let most = limits::FOREIGN_ARGUMENTS;
    let probe = Probe::new(&format!(
        "request_headers: call_foreign_function {} ''
         request_headers: call_foreign_function later \\R{{{}}}a
         request_headers: call_foreign_function later \\R{{{most}}}a",
        over(limits::FOREIGN_NAME),
        most + 1,
    ));
    probe.open().request_headers();
    let answers = probe.answers();
    assert_eq!(answers[..2], ["1", "2"]);
    assert!(answers[2].starts_with("0 "), "{answers:?}");
    assert_eq!(probe.warned().len(), 1);
}

#[test]
fn keys_and_names_that_cannot_be_there_are_not_looked_for() {
    let long = over(limits::SHARED_KEY);
    let probe = Probe::new(&format!(
        "request_headers: get_shared_data {long}
         request_headers: set_shared_data {long} v 0
         request_headers: resolve_shared_queue '' {long}
         request_headers: resolve_shared_queue {long} q
         request_headers: register_shared_queue {long}
         request_headers: define_metric 0 {long}"
    ));
    probe.open().request_headers();
    assert_eq!(probe.answers(), ["1", "10", "1", "1", "10", "10"]);
    assert_eq!(probe.warned().len(), 1);
}
