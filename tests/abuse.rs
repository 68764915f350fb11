//! What a filter might try to have the host hold, or do, without end. What one call may ask for is in `caps`.

use crate::world::{Answer, BY_HOST, Filter, Probe, Request, Stream, sim_host};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::event::Action;
use resty_proxy_wasm::guest::Output;
use resty_proxy_wasm::limits;

fn filter(text: &str) -> Filter {
    Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"))
}

/// The same line `times` times.
fn repeated(line: &str, times: usize) -> String {
    format!("{line}\n").repeat(times)
}

#[test]
fn log_lines_of_one_callback() {
    let line = format!("request_headers: log 4 \\R{{{}}}x", limits::LOG_LINE);
    let lines = limits::LOG_BYTES / limits::LOG_LINE;
    let probe = Probe::new(&repeated(&line, lines + 10));
    let stream = probe.open();
    for _ in 0..2 {
        stream.request_headers();
        let said = probe.filter.host.said_at();
        let long = said.iter().filter(|line| line.starts_with("Error x")).count();
        assert!((lines - 10..lines).contains(&long), "{long} of {lines}: its answers count, too");
        assert_eq!(
            probe.warned(),
            [
                "proxy_on_request_headers: the filter logs more in one callback than the host writes: \
              the rest is dropped"
            ],
            "in each callback anew"
        );
    }
}

#[test]
fn warnings_of_one_callback() {
    let refused = "remove_header_map_value 0 :path";
    let text = format!(
        r#"(module
        (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) ":path")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
            (loop $more ;; {refused}
                (drop (call $remove (i32.const 0) (i32.const 0) (i32.const 5)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $n) (i32.const 100000))))
            (i32.const 0)))"#
    );
    let filter = filter(&text);
    filter.open(&filter.context("")).request_headers();
    let warned = filter.host.warned();
    assert!(warned.len() < 10_000, "{}", warned.len());
    assert!(warned.last().is_some_and(|last| last.ends_with("the rest is dropped")));
}

#[test]
fn names_in_warnings() {
    let probe = Probe::new(
        "request_headers: add_header_map_value 0 '\\R{100000} x' 1; request_headers: add_header_map_value 0 'a b' 1",
    );
    probe.open().request_headers();
    assert_eq!(probe.answers(), ["2", "2"]);
    let warned = probe.warned();
    assert!(warned[0].len() < 300, "{}", warned[0]);
    assert!(warned[1].contains("header \"a b\" is refused"), "{}", warned[1]);
}

#[test]
fn properties_of_many_streams() {
    let room = limits::PROPERTY_BYTES - "a.b".len();
    let probe = Probe::new(&format!("create: set_property a.b \\R{{{room}}}x"));
    let most = limits::ALL_PROPERTY_BYTES / (limits::PROPERTY_BYTES + 64);
    let mut streams: Vec<Stream> = (0..=most).map(|_| probe.open()).collect();
    let mut answers = probe.answers();
    assert_eq!(answers.pop().as_deref(), Some("10"));
    assert_eq!(answers, vec!["0"; most]);
    let warning =
        "proxy_on_context_create: a filter kept more properties than the host holds for it";
    assert_eq!(probe.warned(), [warning]);

    streams.pop().expect("a stream").end().expect("an end");
    streams.pop().expect("a stream").end().expect("an end");
    let _again = probe.open();
    assert_eq!(probe.answers(), ["0"], "what has ended holds nothing");
    for stream in streams {
        stream.end().expect("an end");
    }
}

#[test]
fn bodies_of_many_streams() {
    type Body = fn(&Stream, &[u8], bool) -> Answer;
    let directions: [(Body, Callback); 2] = [
        (Stream::response_body, Callback::ResponseBody),
        (Stream::request_body, Callback::RequestBody),
    ];
    for (body, callback) in directions {
        let probe = Probe::new("request_body,response_body: pause");
        let (one, two) = (probe.open(), probe.open());
        let held = || {
            let held = one.context.with_stream(one.at, |vm| Ok(vm.state().contexts.held));
            held.expect("a VM")
        };
        body(&one, b"hello", false);
        assert_eq!(held(), 5);
        body(&one, b"hello", false);
        body(&two, b"hello", false);
        assert_eq!(held(), 15);
        one.end().expect("an end");
        assert_eq!(held(), 5);
        two.end().expect("an end");
        assert_eq!(held(), 0);

        // As if other streams held nearly all.
        let stream = probe.open();
        let others = |bytes: usize| {
            let set = stream.context.with_stream(stream.at, |vm| {
                vm.state_mut().contexts.held = bytes;
                Ok(())
            });
            set.expect("a VM");
        };
        others(limits::HELD_BODIES - 4);
        let four = body(&stream, b"four", false).body;
        assert_ne!(four, Output::Replace(b"four".to_vec()));
        let error = stream.run(callback, b"!", false).expect_err("no room");
        assert!(error.to_string().ends_with("it is more than 268435456 bytes"), "{error}");
        let left = stream.context.with_stream(stream.at, |vm| Ok(vm.state().contexts.held));
        assert_eq!(left, Ok(limits::HELD_BODIES - 4), "what it held is let go");
        others(0);
    }
}

#[test]
fn what_a_response_grows_by_over_its_chunks() {
    const PIECE: usize = 50 << 20;
    let text = format!(
        r#"(module
        (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 801)
        (func (export "proxy_abi_version_0_2_1"))
        (func $grow (param $buffer i32) (result i32)
            (i32.store8 (i32.const 0) (i32.add (i32.const 48)
                (call $set (local.get $buffer) (i32.const -1) (i32.const 0) (i32.const 16) (i32.const {PIECE}))))
            (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
            (i32.const 0))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (call $grow (i32.const 0)))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (call $grow (i32.const 1))))"#
    );
    for body in [Stream::request_body, Stream::response_body] {
        let filter = filter(&text);
        let stream = filter.open(&filter.context(""));
        let answers: Vec<String> = (0..4)
            .flat_map(|_| {
                body(&stream, b"x", false);
                filter.host.said()
            })
            .collect();
        // 48 + 10 is a colon.
        assert_eq!(answers, ["0", "0", ":", ":"], "two pieces fit");
        assert_eq!(filter.host.warned().len(), 2);
    }
}

#[test]
fn reading_properties() {
    let reads = limits::VARIABLE_BYTES / (1 << 20);
    let script = repeated("request_headers: get_property big", reads + 2);
    let probe = Probe::new(&format!("{script}request_headers: get_property plugin_name"));
    probe.open_for(Request::default().property("big", vec![b'x'; 1 << 20])).request_headers();
    let answers: Vec<String> =
        probe.answers().iter().map(|a| a.split(' ').next().expect("a status").into()).collect();
    assert_eq!(answers[..reads], vec!["0"; reads]);
    assert_eq!(
        answers[reads..],
        ["10", "10", "0"],
        "what the host need not be asked for is still there"
    );
    assert_eq!(
        probe.warned(),
        [
            "proxy_on_request_headers: a filter read and set more of the properties of one request than the host keeps"
        ]
    );
    probe.open().request_headers();
    assert_eq!(probe.answers()[0], "1", "another stream has its own");
}

#[test]
fn setting_properties() {
    // Each costs a little more than its value.
    let sets = limits::VARIABLE_BYTES / (1 << 20) - 1;
    let script = repeated("request_headers: set_property big \\R{1048576}x", sets + 1);
    let probe = Probe::new(&script);
    probe.open_for(Request::default().writable("big", "")).request_headers();
    let mut answers = probe.answers();
    assert_eq!(answers.pop().as_deref(), Some("10"));
    assert_eq!(answers, vec!["0"; sets]);
    assert_eq!(probe.warned().len(), 1);
}

#[test]
fn paths_of_properties() {
    let long = limits::PROPERTY_PATH + 1;
    let probe = Probe::new(&format!(
        "request_headers: set_property \\R{{{long}}}x 1; request_headers: get_property \\R{{{long}}}x
         request_headers: set_property \\R{{{}}}x 1",
        limits::PROPERTY_PATH
    ));
    probe.open().request_headers();
    assert_eq!(probe.answers(), ["10", "1", "0"]);
    assert_eq!(
        probe.warned(),
        ["proxy_on_request_headers: a property's path is longer than the host keeps"]
    );
}

#[test]
fn streams_that_are_resumed_again_and_again() {
    let text = r#"(module
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
            (loop $more
                (drop (call $continue (i32.const 0)))
                (drop (call $close (i32.const 0)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $n) (i32.const 100000))))
            (i32.const 0)))"#;
    let filter = filter(text);
    let stream = filter.open(&filter.context(""));
    assert_eq!(stream.request_headers().action, Action::Close);
    let kept = stream.context.with_stream(stream.at, |vm| Ok(vm.state().call.resumed.capacity()));
    assert!(kept.expect("a VM") < 100);
}

#[test]
fn replaced_headers_without_effect() {
    let size = limits::HEADER_MAP_BYTES / 3;
    let line = format!("request_headers: replace_header_map_value 0 connection \\R{{{size}}}x");
    let probe = Probe::new(&repeated(&line, 100));
    let stream = probe.open();
    assert_eq!(stream.request_headers().effects, [""; 0]);
    assert_eq!(probe.answers(), vec!["0"; 100]);
}

/// Long names that differ at their ends only: some hundred of them are compared, and of a thousand nginx would be busy for
/// seconds.
#[test]
fn maps_in_place_of_others() {
    let set = |pairs: std::ops::Range<usize>, length: usize| {
        let map: Vec<String> = pairs.map(|n| format!("\\R{{{length}}}x{n:04}=")).collect();
        format!("response_headers: set_header_map_pairs 2 {}\n", map.join("|"))
    };
    let probe = Probe::new(&(set(0..300, 24) + &set(2000..2300, 24)));
    let effects = probe.open().response_headers(&[("x-old", "1")]).effects;
    assert_eq!(probe.answers(), ["0", "0"]);
    assert_eq!(effects.len(), 1 + 3 * 300);
    assert_eq!(effects[0], "remove response x-old");
    assert!(effects[1].starts_with("set response xxx"), "{}", effects[1]);

    let probe = Probe::new(&set(0..limits::HEADER_MAP_PAIRS, 100));
    assert_eq!(probe.open().response_headers(&[]).effects, [""; 0], "nothing of it is done");
    assert_eq!(probe.answers(), ["10"]);
    assert_eq!(
        probe.warned(),
        [
            "proxy_on_response_headers: a filter asked for more header changes in one callback than the host holds"
        ]
    );
}

#[test]
fn details_and_messages_of_local_responses() {
    let probe = Probe::new(&format!(
        "request_headers: send_local_response 403 \\R{{{}}}d '' '' -1; response_headers: get_property response.code_details",
        limits::DETAILS + 1
    ));
    let stream = probe.open();
    stream.request_headers();
    stream.response_headers(&[]);
    let kept = stream.context.with_stream(stream.at, |vm| {
        Ok(vm.state().contexts.streams.get(&stream.at.id).expect("it").response_details.len())
    });
    assert_eq!(kept, Ok(limits::DETAILS));
    assert_eq!(probe.answers()[0], "0");

    let probe = Probe::new(&format!(
        "request_headers: send_local_response 403 '' \\R{{{}}}% '' -1",
        limits::GRPC_MESSAGE + 1
    ));
    let request = Request::default().header("content-type", "application/grpc");
    let effects = probe.open_for(request).request_headers().effects;
    let message = effects.iter().find_map(|e| e.strip_prefix("answer grpc-message: "));
    assert_eq!(message.map(str::len), Some(3 * limits::GRPC_MESSAGE));
}

#[test]
fn local_responses_with_too_many_headers() {
    let size = limits::COMPARED_BYTES / 128 + 1;
    let probe =
        Probe::new(&format!("request_headers: send_local_response 200 '' x \\R{{{size}}}n=v -1"));
    let answer = probe.open().request_headers();
    assert_eq!((answer.action, answer.effects), (Action::Respond, vec!["answer 200 [] x".into()]));
    assert_eq!(probe.answers(), ["0"]);
    assert_eq!(probe.warned().len(), 1);
}

#[test]
fn allocators_that_ask_for_more_while_they_make_room() {
    for besides in ["", BY_HOST] {
        let text = r#"(module
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (global $deepest (mut i32) (i32.const 0))
        (global $depth (mut i32) (i32.const 0))
        (data (i32.const 0) "plugin_name")
        (func $ask (drop (call $get (i32.const 0) (i32.const 11) (i32.const 64) (i32.const 68))))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32)
            (global.set $depth (i32.add (global.get $depth) (i32.const 1)))
            (if (i32.gt_u (global.get $depth) (global.get $deepest))
                (then (global.set $deepest (global.get $depth))))
            (call $ask)
            (global.set $depth (i32.sub (global.get $depth) (i32.const 1)))
            (i32.const 1024))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (call $ask)
            (i32.store8 (i32.const 128) (i32.add (i32.const 48) (global.get $deepest)))
            (drop (call $log (i32.const 2) (i32.const 128) (i32.const 1)))
            (i32.const 0)))"#;
        let filter = filter(&text.replace("(data", &format!("{besides} (data")));
        filter.open(&filter.context("")).request_headers();
        assert_eq!(filter.host.said(), [limits::HANDOVERS.to_string()], "{besides}");
        assert_eq!(filter.host.warned().len(), 1, "{besides}");
    }
}

#[test]
fn unknown_imports_without_end() {
    let imports: String = (0..limits::LOAD_WARNINGS + 9)
        .map(|n| format!(r#"(import "env" "proxy_new_{n}" (func (result i32)))"#))
        .collect();
    let filter = filter(&format!(
        r#"(module {imports} (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")))"#
    ));
    let warnings = filter.plugin.warnings();
    assert_eq!(warnings.len(), limits::LOAD_WARNINGS + 1);
    assert_eq!(
        warnings.last().map(String::as_str),
        Some("9 more imports are not functions of this host")
    );
}

#[test]
fn memory_and_tables_grow_to_their_limits_and_no_further() {
    let text = r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (table $t 1 funcref)
        (func (export "proxy_abi_version_0_2_1"))
        (func $say (param i32) (i32.store (i32.const 0) (local.get 0))
            (drop (call $log (i32.const 2) (i32.const 0) (i32.const 4))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
            (loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
            (memory.fill (i32.const 0) (i32.const 65) (i32.mul (memory.size) (i32.const 65536)))
            (drop (call $log (i32.const 2) (i32.const 0) (memory.size)))
            (drop (call $log (i32.const 2) (i32.const 0) (i32.div_u (table.size $t) (i32.const 1000))))
            (i32.const 0)))"#;
    let mut options = resty_proxy_wasm::vm::Options::new("filter");
    options.memory_limit = 3 << 20;
    let bytes = wat::parse_str(text).expect("WebAssembly text");
    let filter = Filter::load(&sim_host(), &bytes, options).expect("a filter");
    filter.open(&filter.context("")).request_headers();
    let said: Vec<usize> = filter.host.said().iter().map(String::len).collect();
    assert_eq!(said, [(3 << 20) / 65536, limits::TABLE_ELEMENTS / 1000], "pages and thousands");
}

/// Host functions keep where the memory is: they must see each page from the moment that it is there.
#[test]
fn memory_that_grows_between_host_functions_and_while_one_runs() {
    let text = r#"(module
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 8) "plugin_name")
        (func (export "proxy_abi_version_0_2_1"))
        (func $end (result i32) (i32.mul (memory.size) (i32.const 65536)))
        (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
            (drop (memory.grow (i32.const 1)))
            (i32.sub (call $end) (local.get $size)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (loop $more
                ;; Up to the end of the memory and one byte behind it.
                (i32.store8 (i32.sub (call $end) (i32.const 1)) (i32.const 65))
                (drop (call $log (i32.const 2) (i32.sub (call $end) (i32.const 1)) (i32.const 1)))
                (if (i32.ne (call $log (i32.const 2) (call $end) (i32.const 1)) (i32.const 6)) (then unreachable))
                ;; Into a page that is there only when the value is handed over, and when there is no more, not at all.
                (if (i32.eqz (call $get (i32.const 8) (i32.const 11) (i32.const 0) (i32.const 4)))
                    (then (drop (call $log (i32.const 2) (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
                (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
            (i32.const 0)))"#;
    let mut options = resty_proxy_wasm::vm::Options::new("filter");
    options.memory_limit = 1 << 20;
    let bytes = wat::parse_str(text).expect("WebAssembly text");
    let filter = Filter::load(&sim_host(), &bytes, options).expect("a filter");
    filter.open(&filter.context("")).request_headers();
    assert_eq!(filter.host.said(), ["A", "filter"].repeat(8), "sixteen pages, two at a time");
}

#[test]
fn calls_without_end() {
    let told = "proxy_on_request_headers: a filter has more calls under way, or larger ones, than the host makes for it";
    // A little less than a MiB: headers and trailers count, too.
    let (size, each) = ((1 << 20) - 64, 8);
    let call = format!("request_headers: http_call up '' \\R{{{size}}}x '' 1000");
    let probe = Probe::new(&repeated(&call, each));
    let streams: Vec<Stream> =
        (0..(limits::CALL_REQUEST_BODIES >> 20) / each).map(|_| probe.open()).collect();
    for stream in &streams {
        stream.request_headers();
        assert!(probe.answers().iter().all(|answer| answer.starts_with("0 ")));
    }
    probe.open().request_headers();
    assert_eq!(probe.answers(), ["10"; 8]);
    assert_eq!(probe.warned(), [told]);
    streams[0].end().expect("an end");
    assert_eq!(probe.warned(), vec!["HTTP call to up dropped: its stream ended"; each]);
    probe.open().request_headers();
    assert!(probe.answers().iter().all(|answer| answer.starts_with("0 ")), "there is room again");

    let probe = Probe::new(&repeated("request_headers: http_call up '' '' '' 1000", 256));
    for _ in 0..limits::CALLS / 256 {
        probe.open().request_headers();
        assert!(probe.answers().iter().all(|answer| answer.starts_with("0 ")));
    }
    probe.open().request_headers();
    assert!(probe.answers().iter().all(|answer| answer == "10"));
    assert_eq!(probe.warned(), [told]);

    let most = limits::DROPPED_CALLS;
    let probe = Probe::new(&repeated("request_headers: http_call up '' '' '' 1000", most + 3));
    let stream = probe.open();
    stream.request_headers();
    stream.end().expect("an end");
    let lines = probe.warned();
    assert_eq!(lines.len(), most + 1);
    assert_eq!(lines[most], "3 more calls dropped: its stream ended");
}
