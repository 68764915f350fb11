//! Headers by their names: the first one is asked for in the host, the others are looked up in WebAssembly of the host's own
//! (`host/src/vm/shim/look_up.rs`) until something changes. A filter cannot tell one from the other.

use crate::world::{BY_HOST, Filter, Probe, Request, allocator, sim_host};
use resty_proxy_wasm::vm::Options;

/// A script that asks for these headers of a map in `callback`.
fn asks(callback: &str, map: u32, names: &[String]) -> String {
    let ask = |name| format!("{callback}: get_header_map_value {map} {name}\n");
    names.iter().map(ask).collect()
}

/// What it answers, when these are the headers.
fn expected(headers: &[(String, String)], names: &[String]) -> Vec<String> {
    let find = |name: &String| headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    names
        .iter()
        .map(|name| match find(name) {
            None => "1".into(),
            Some((_, value)) if value.is_empty() => "0 ''".into(),
            Some((_, value)) => format!("0 {value}"),
        })
        .collect()
}

/// Headers whose names and values have all lengths up to 40, and of which some differ in one character.
fn all_lengths() -> Vec<(String, String)> {
    let letters: String = ('a'..='z').cycle().take(40).collect();
    let mut headers = Vec::new();
    for length in 1..=40 {
        let name = &letters[..length];
        let value = letters[40 - length..].to_uppercase();
        headers.push((name.to_string(), value[..length - 1].to_string()));
        for at in [0, length / 2, length - 1] {
            let mut other = name.to_string();
            other.replace_range(at..=at, "-");
            headers.push((other, format!("{length}-{at}")));
        }
    }
    headers
}

#[test]
fn names_and_values_of_all_lengths_are_found() {
    let headers = all_lengths();
    let mut names: Vec<String> = headers.iter().map(|(name, _)| name.clone()).collect();
    for (name, _) in &headers {
        let half = name.len() / 2;
        names.push(name.to_uppercase());
        names.push(name[..half].to_uppercase() + &name[half..]);
        names.push(format!("{}_{}", &name[..half], &name[half + 1..]));
        names.push(format!("{name}x"));
    }
    let lent: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let probe = Probe::new(&asks("response_headers", 2, &names));
    // From the second stream on, all are looked up from the beginning.
    for _ in 0..3 {
        let stream = probe.open();
        stream.response_headers(&lent);
        assert_eq!(probe.answers(), expected(&headers, &names));
    }
    let request = || lent.iter().fold(Request::default(), |r, (name, value)| r.header(name, value));
    let probe = Probe::new(&asks("request_headers", 0, &names));
    for _ in 0..3 {
        probe.open_for(request()).request_headers();
        assert_eq!(probe.answers(), expected(&headers, &names));
    }
}

/// Names that share ends and lengths, repeats in other cases, values of up to 80 bytes.
#[test]
fn names_that_are_alike_are_told_from_one_another() {
    let mut random = 1u32;
    let mut below = |limit: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % limit
    };
    for _ in 0..40 {
        let mut name = || {
            let middle: String =
                (0..below(4) * 5).map(|_| ["a", "b", "-"][below(3) as usize]).collect();
            let name = ["x-", "x-forwarded-", "a"][below(3) as usize].to_string() + &middle;
            let name = name + ["-for", "-proto-end", ""][below(3) as usize];
            if below(8) == 0 { name.to_uppercase() } else { name }
        };
        let names: Vec<String> = (0..60).map(|_| name()).collect();
        let headers: Vec<(String, String)> =
            names[..30].iter().map(|name| (name.clone(), "v".repeat(below(80) as usize))).collect();
        let lent: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let probe = Probe::new(&asks("response_headers", 2, &names));
        for _ in 0..2 {
            probe.open().response_headers(&lent);
            assert_eq!(probe.answers(), expected(&headers, &names), "{headers:?}");
        }
    }
}

#[test]
fn what_changes_is_seen_at_once() {
    let probe = Probe::new(
        "response_headers: get_header_map_value 2 x-one; response_headers: get_header_map_value 2 x-one
         response_headers: get_header_map_value 2 x-two; response_headers: add_header_map_value 2 x-two 2
         response_headers: get_header_map_value 2 x-two; response_headers: get_header_map_value 2 x-two
         response_headers: replace_header_map_value 2 x-one 11; response_headers: get_header_map_value 2 x-one
         response_headers: get_header_map_value 2 x-one; response_headers: remove_header_map_value 2 x-one
         response_headers: get_header_map_value 2 x-one; response_headers: get_header_map_value 2 x-one
         response_headers: set_header_map_pairs 2 x-three=3; response_headers: get_header_map_value 2 x-three
         response_headers: get_header_map_value 2 x-two; response_headers: get_header_map_value 2 x-two
         response_body: get_header_map_value 2 x-three; response_body: get_header_map_value 2 x-three
         response_body: get_header_map_value 0 x-three; response_body: get_header_map_value 2 x-three",
    );
    for _ in 0..2 {
        let stream = probe.open();
        stream.response_headers(&[("X-One", "1")]);
        stream.response_body(b"", true);
        let of_headers = [
            "0 1", "0 1", "1", "0", "0 2", "0 2", "0", "0 11", "0 11", "0", "1", "1", "0", "0 3",
            "1", "1",
        ];
        assert_eq!(probe.answers(), [&of_headers[..], &["0 3", "0 3", "1", "0 3"]].concat());
    }
}

#[test]
fn each_context_sees_its_own_headers() {
    let ask = "get_header_map_value 0 x-of";
    let probe = Probe::new(&format!(
        "request_headers: {ask}; request_headers: {ask}; request_headers: {ask}
         request_headers: set_effective_context 2; request_headers: {ask}; request_headers: {ask}
         request_headers: {ask}; request_headers: set_effective_context 1; request_headers: {ask}
         request_headers: {ask}"
    ));
    let first = probe.open_for(Request::default().header("X-Of", "first"));
    assert_eq!(first.at.id, 2);
    let second = probe.open_for(Request::default().header("X-Of", "second"));
    for (stream, own) in [(&second, "0 second"), (&first, "0 first"), (&second, "0 second")] {
        stream.request_headers();
        let others = ["0 first", "0 first", "0 first", "0", "1", "1"];
        assert_eq!(probe.answers(), [&[own, own, own, "0"][..], &others].concat());
    }
}

#[test]
fn the_host_is_a_name_for_the_authority_and_an_old_filter_reads_nothing_as_empty() {
    let names = ["host", "x-absent", ":authority", "host", "Host", "x-absent"].map(String::from);
    for (file, absent) in [("probe.wasm", "1"), ("probe_0_1_0.wasm", "0 ''")] {
        let probe = Probe::of(file, &asks("request_headers", 0, &names));
        for _ in 0..2 {
            probe.open().request_headers();
            let authority = "0 example.com";
            let answers = [authority, absent, authority, authority, authority, absent];
            assert_eq!(probe.answers(), answers, "{file}");
        }
    }
}

#[test]
fn headers_without_number_or_end_are_looked_up_in_the_host() {
    for (count, size) in [(257, 1), (1000, 20), (70, 1000)] {
        let headers: Vec<(String, String)> =
            (0..count).map(|n| (format!("x-{n}"), "v".repeat(size))).collect();
        let asked = [0, count / 2, count - 1, count].repeat(2);
        let names: Vec<String> = asked.iter().map(|n| format!("x-{n}")).collect();
        let probe = Probe::new(&asks("response_headers", 2, &names));
        for _ in 0..2 {
            let lent: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            probe.open().response_headers(&lent);
            let expected = expected(&headers, &names);
            assert!(probe.answers() == expected, "{count} of {size}");
        }
    }
}

/// What a filter may have besides.
const NOTHING: &str = "";
/// Its code runs before the host knows its memory.
const START: &str = r#"(func $start (drop (call $get (i32.const -1) (i32.const 0) (i32.const 5) (i32.const 64) (i32.const 68)))
    (drop (call $get (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 64) (i32.const 68)))) (start $start)"#;

/// A filter that asks for headers with these parameters (map, key, its size, where to write) and logs what it is told.
fn filter(besides: &str, allocate: &str, asks: &str) -> Filter {
    let allocator = allocator(allocate);
    let text = format!(
        r#"(module $filter
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "x-onex-two")
        (data (i32.const 65526) "x-one")
        (func (export "proxy_abi_version_0_2_1"))
        {allocator}
        {besides}
        (func $show (param $key i32) (param $size i32) (param $to i32) (local $status i32)
            (local.set $status (call $get (i32.const 0) (local.get $key) (local.get $size)
                (local.get $to) (i32.add (local.get $to) (i32.const 4))))
            (if (local.get $status)
                (then
                    (i32.store8 (i32.const 80) (i32.add (i32.const 48) (local.get $status)))
                    (drop (call $log (i32.const 2) (i32.const 80) (i32.const 1))))
                (else
                    (drop (call $log (i32.const 2)
                        (i32.load (local.get $to)) (i32.load offset=4 (local.get $to)))))))
        (func $one (call $show (i32.const 0) (i32.const 5) (i32.const 64)))
        (func $two (call $show (i32.const 5) (i32.const 5) (i32.const 64)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (global.set $free (i32.const 1024))
            {asks}
            (i32.const 0)))"#
    );
    let bytes = wat::parse_str(text).expect("WebAssembly text");
    Filter::load(&sim_host(), &bytes, Options::new("filter")).expect("a filter")
}

fn said(besides: &str, allocate: &str, asks: &str) -> Vec<String> {
    let filter = filter(besides, allocate, asks);
    let context = filter.context("");
    let mut all = Vec::new();
    for _ in 0..3 {
        let request = Request::default().header("X-One", "first").header("X-Two", "second value");
        filter.open_for(&context, request).request_headers();
        all.extend(filter.host.said());
    }
    assert_eq!(filter.host.warned(), [""; 0]);
    all
}

#[test]
fn bad_addresses_are_refused_as_the_host_refuses_them() {
    let one = |key: i64, size: i64, to: i64| {
        format!("(call $show (i32.const {key}) (i32.const {size}) (i32.const {to}))")
    };
    let mut asks = "(call $one) (call $one) (call $one)".to_string();
    for (key, size, to) in [
        (0, 5, 65528),
        (0, 5, 65529),
        (0, 5, 65532),
        (0, 5, 65533),
        (0, 5, -4),
        (0, 5, -8),
        (65526, 5, 64),
        (65531, 5, 64),
        (65532, 5, 64),
        (-1, 5, 64),
        (0, -1, 64),
        (5, 0, 64),
        (0, 4, 64),
        (0, 10, 64),
    ] {
        asks += &one(key, size, to);
        asks += "(call $one)";
    }
    let by_host = said(BY_HOST, "", &asks);
    assert_eq!(said(NOTHING, "", &asks), by_host);
    assert_eq!(said(START, "", &asks), by_host);
    assert_eq!(by_host.len(), 3 * (3 + 28));
    assert!(by_host.iter().all(|line| ["first", "6", "1"].contains(&line.as_str())), "{by_host:?}");
    assert!(by_host.iter().filter(|line| *line == "6").count() >= 15, "{by_host:?}");
}

#[test]
fn allocators_may_do_what_they_like() {
    let asks = "(call $one) (call $two) (call $one) (call $two) (call $one)";
    let grows = "(drop (memory.grow (i32.const 1)))
        (global.set $free (i32.mul (i32.const 65536) (i32.sub (memory.size) (i32.const 1))))";
    let once = |what: &str| {
        format!(
            "(if (i32.eqz (i32.load (i32.const 96))) (then (i32.store (i32.const 96) (i32.const 1))
                {what} (i32.store (i32.const 96) (i32.const 0))))"
        )
    };
    for allocate in [
        "",
        grows,
        // Not in the memory, and not at all.
        "(global.set $free (i32.const 65530))",
        "(global.set $free (i32.const 0)) (local.set $size (i32.const 0))",
        // It asks for values itself, or changes headers.
        &once("(call $two) (call $one) (call $two)"),
        &once(
            "(drop (call $add (i32.const 0) (i32.const 5) (i32.const 5) (i32.const 0) (i32.const 5)))",
        ),
        &once(
            "(drop (call $add (i32.const 0) (i32.const 5) (i32.const 5) (i32.const 0) (i32.const 5)))
             (call $one) (call $one) (call $one)",
        ),
    ] {
        let by_host = said(BY_HOST, allocate, asks);
        assert_eq!(said(NOTHING, allocate, asks), by_host, "{allocate}");
        assert_eq!(said(START, allocate, asks), by_host, "{allocate}");
    }
}

#[test]
fn an_allocator_that_asks_without_end_is_stopped() {
    for besides in [NOTHING, START, BY_HOST] {
        let filter = filter(besides, "(call $one)", "(call $one)");
        let context = filter.context("");
        for _ in 0..3 {
            let request = Request::default().header("X-One", "first");
            filter.open_for(&context, request).request_headers();
        }
        let said = filter.host.said();
        assert!(said.iter().any(|line| line == ":"), "{said:?}");
        assert_eq!(filter.host.warned().len(), 1);
    }
}

#[test]
fn the_memory_of_the_headers_is_not_the_filters() {
    let full = "(func $start (call $is_full)) (start $start)";
    let grows = "(func $start (drop (memory.grow (i32.const 1))) (call $is_full)) (start $start)";
    for (pages, start) in [(1, ""), (1, full), (0, grows)] {
        let text = format!(
            r#"(module
            (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") {pages})
            (func $is_full (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)))
            {start}
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                (call $is_full)
                (i32.const 0)))"#
        );
        let bytes = wat::parse_str(text).expect("WebAssembly text");
        let options = Options { memory_limit: 65536, ..Options::new("filter") };
        let filter = Filter::load(&sim_host(), &bytes, options).expect("one page is enough");
        filter.open(&filter.context("")).request_headers();
    }
}

/// It is a part of the module that runs, but not of the one that was loaded.
#[test]
fn a_filter_cannot_name_the_memory_of_the_headers() {
    for code in ["i32.load 1", "memory.size 1"] {
        let address = if code.starts_with("i32") { "(i32.const 0)" } else { "" };
        let text = format!(
            r#"(module
            (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
            (func (export "proxy_on_tick") (param i32) (drop ({code} {address}))))"#
        );
        let bytes = wat::parse_str(text).expect("WebAssembly text");
        let loaded = Filter::load(&sim_host(), &bytes, Options::new("filter"));
        let error = loaded.map(|_| ()).expect_err(code).to_string();
        assert!(error.contains("unknown memory 1"), "{error}");
    }
}

/// Nothing of a filter's own memory is taken for it.
#[test]
fn a_memory_of_the_same_name_is_the_filters() {
    let bytes = wat::parse_str(
        r#"(module
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") (export "headers of the host") 1)
        (data (i32.const 16) "x-one")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 60000))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $n i32)
            (loop $again
                (if (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 64) (i32.const 68))
                    (then unreachable))
                (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 5))))
            (if (i64.ne (i64.load (i32.const 0)) (i64.const 0)) (then unreachable))
            (if (i64.ne (i64.load (i32.const 24)) (i64.const 0)) (then unreachable))
            (i32.const 0)))"#,
    )
    .expect("WebAssembly text");
    let filter = Filter::load(&sim_host(), &bytes, Options::new("filter")).expect("a filter");
    let context = filter.context("");
    for _ in 0..3 {
        let request = Request::default().header("X-One", "first");
        filter.open_for(&context, request).request_headers();
    }
    assert_eq!(filter.host.warned(), [""; 0]);
}
