//! Addresses outside the memory, maps that are none, numbers that name nothing, allocators that lie.

use crate::world::{Probe, Request, Stream};
use resty_proxy_wasm::event::Action;

/// An example call of each host function that takes an address, by the words of the probe.
const CALLS: &[&str] = &[
    "log 2 text",
    "get_log_level",
    "get_current_time_nanoseconds",
    "get_buffer_bytes 7 0 9",
    "get_buffer_status 7",
    "set_buffer_bytes 0 0 0 x",
    "get_header_map_size 0",
    "get_header_map_pairs 0",
    "set_header_map_pairs 0 a=b",
    "get_header_map_value 0 :path",
    "add_header_map_value 0 a b",
    "replace_header_map_value 0 a b",
    "remove_header_map_value 0 a",
    "send_local_response 200 why body a=b -1",
    "http_call up a=b body c=d 1000",
    "grpc_call up service method a=b message 1000",
    "grpc_stream up service method a=b",
    "grpc_send 1 message 0",
    "get_status",
    "get_shared_data key",
    "set_shared_data key value 0",
    "register_shared_queue name",
    "resolve_shared_queue vm name",
    "enqueue_shared_queue 1 data",
    "dequeue_shared_queue 1",
    "define_metric 0 name",
    "get_metric 1",
    "get_property request.path",
    "set_property a.b c",
    "call_foreign_function name args",
];

fn run(script: &str, callback: fn(&Stream)) -> (Probe, Vec<String>) {
    let probe = Probe::new(script);
    let stream = probe.open_for(Request::default().header("a", "1"));
    callback(&stream);
    let said = probe.said();
    (probe, said)
}

fn in_headers(script: &str) -> (Probe, Vec<String>) {
    run(script, |stream| {
        stream.request_headers();
    })
}

#[test]
fn addresses_outside_the_memory_are_answered_by_6() {
    for call in CALLS {
        let (probe, said) = run(&format!("request_body: oob {call}"), |stream| {
            stream.request_body(b"body", true);
        });
        assert!(said.len() >= 2 && said.len() % 2 == 0, "{call}: {said:?}");
        for line in said {
            let (_, answer) = line.split_once(" -> ").expect("an answer");
            assert!(answer == "6 far" || answer == "6 end", "{line}");
        }
        probe.warned();
    }
}

#[test]
fn functions_of_the_first_abi_too() {
    let probe = Probe::of("probe_0_1_0.wasm", "request_headers: oob get_configuration");
    probe.open().request_headers();
    assert_eq!(probe.answers(), ["6 far", "6 end", "6 far", "6 end"]);
}

#[test]
fn nothing_happens_when_an_address_is_wrong() {
    let (probe, _) = in_headers(
        "request_headers: oob send_local_response 200 why body a=b -1
         request_headers: oob add_header_map_value 0 a b; request_headers: oob set_property a.b c",
    );
    let stream = probe.open();
    let answer = stream.request_headers();
    assert_eq!((answer.action, answer.effects), (Action::Continue, Vec::new()));
}

#[test]
fn address_0_is_an_address() {
    let (_, said) = in_headers(
        "request_headers: null log 2 x; request_headers: null get_header_map_value 0 a
         request_headers: null set_property a.b c; request_headers: null get_log_level",
    );
    for line in said {
        let Some((call, status)) = line.split_once(" -> ") else { continue };
        // No header has an empty name.
        let wanted = if call.ends_with("get_header_map_value arg 1") { "1" } else { "0" };
        assert_eq!(status, wanted, "{line}");
    }
}

#[test]
fn maps_that_are_none_are_refused_whole() {
    let (len1, nul) = ("\\x01\\0\\0\\0", "\\0");
    let cases = [
        // Cut off within the count, the lengths, the data.
        "\\x01".to_string(),
        "\\0\\0".into(),
        len1.into(),
        format!("{len1}{len1}"),
        format!("{len1}{len1}{len1}"),
        format!("{len1}{len1}{len1}a{nul}"),
        format!("{len1}{len1}{len1}a{nul}b"),
        // No NUL, a NUL in the wrong place, more than there should be.
        format!("{len1}{len1}{len1}axb{nul}"),
        format!("{len1}{len1}{len1}a{nul}bx"),
        format!("{len1}{len1}{len1}a{nul}b{nul}{nul}"),
        format!("{nul}{nul}{nul}{nul}{nul}"),
        // Counts and lengths that are out of all proportion.
        "\\xff\\xff\\xff\\xff".into(),
        "\\xff\\xff\\xff\\x7f\\0\\0\\0\\0".into(),
        format!("{len1}\\xff\\xff\\xff\\xff{len1}a{nul}b{nul}"),
        format!("{len1}{len1}\\xff\\xff\\xff\\xffa{nul}b{nul}"),
        format!("{len1}\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xffa{nul}b{nul}"),
    ];
    for case in &cases {
        let script = format!(
            "request_headers: set_header_map_raw 0 {case}
             request_headers: http_call_raw up {case} '' '' 1000; request_headers: http_call_raw up '' '' {case} 1000
             request_headers: get_header_map_pairs 0
             request_headers: send_local_response_raw 403 '' '' {case} -1"
        );
        let probe = Probe::new(&script);
        let answer = probe.open_for(Request::default().header("a", "1")).request_headers();
        assert_eq!(answer.effects, ["answer 403 [] "], "{case}");
        assert_eq!(
            probe.answers(),
            ["2", "2", "2", "0 :method=GET|:scheme=http|:authority=example.com|:path=/|a=1", "0"],
            "{case}"
        );
        let warning = "a local response is sent without its headers, which are malformed";
        assert_eq!(probe.warned(), [format!("proxy_on_request_headers: {warning}")], "{case}");
    }
}

#[test]
fn three_ways_to_say_that_a_map_is_empty() {
    for empty in ["''", "\\0", "\\0\\0\\0\\0"] {
        let probe = Probe::new(&format!(
            "request_headers: set_header_map_raw 0 {empty}; request_headers: get_header_map_raw 1
             request_headers: get_header_map_pairs 0"
        ));
        let effects = probe.open_for(Request::default().header("a", "1")).request_headers().effects;
        assert_eq!(effects, ["remove request a"], "{empty}");
        assert_eq!(
            probe.answers(),
            ["0", "0 ''", "0 :method=GET|:scheme=http|:authority=example.com|:path=/"]
        );
    }
}

#[test]
fn allocators_that_lie() {
    let get = "request_headers: get_property plugin_name";
    for (mode, answers) in [
        ("ok", ["set", "0 probe"]),
        ("zero", ["set", "10"]),
        ("oob", ["set", "6"]),
        ("grow", ["set", "0 probe"]),
        ("nested", ["set", "0 probe"]),
    ] {
        let (probe, _) = in_headers("");
        let context = probe.filter.context(&format!("request_headers: allocator {mode}\n{get}"));
        probe.filter.open(&context).request_headers();
        let said: Vec<String> = probe.answers();
        assert_eq!(said[..1], answers[..1], "{mode}");
        assert_eq!(said[said.len() - 1], answers[1], "{mode}: {said:?}");
    }
    let (_, said) = in_headers(
        "request_headers: allocator zero; request_headers: get_header_map_pairs 1
         request_headers: get_header_map_value 1 a; request_headers: get_buffer_bytes 7 max 1",
    );
    assert_eq!(
        said[1..].iter().map(|l| l.split_once(" -> ").expect("an answer").1).collect::<Vec<_>>(),
        ["0 ''", "1", "0 ''"],
        "an empty value needs no memory"
    );
}

#[test]
fn numbers_that_name_nothing() {
    let (probe, said) = in_headers(
        "request_headers: set_effective_context 0; request_headers: set_effective_context max
         request_headers: grpc_send 7 x 0; request_headers: grpc_cancel 7; request_headers: grpc_close 7
         request_headers: enqueue_shared_queue 7 x; request_headers: dequeue_shared_queue 7
         request_headers: define_metric 3 x; request_headers: increment_metric 7 1
         request_headers: record_metric 7 1; request_headers: get_metric 7
         request_headers: call_foreign_function nobody x; request_headers: get_shared_data nobody
         request_headers: resolve_shared_queue '' nobody; request_headers: done
         request_headers: http_call '' '' '' '' 1000; request_headers: http_call up '' '' '' -1",
    );
    let answers: Vec<&str> =
        said.iter().map(|l| l.split_once(" -> ").expect("an answer").1).collect();
    assert_eq!(
        answers,
        ["2", "2", "1", "1", "1", "1", "1", "2", "1", "1", "1", "1", "1", "1", "1", "2", "2"]
    );
    let unnamed = "proxy_on_request_headers: proxy_http_call: \"\" is neither a registered upstream nor the name of a host";
    assert_eq!(probe.warned(), [unnamed]);
}

#[test]
fn metadata_of_grpc_calls_counts_until_they_end() {
    let probe = Probe::new("request_headers: grpc_stream up s m 'k=\\R{1000000}x'");
    let open = |_| {
        let stream = probe.open();
        stream.request_headers();
        stream
    };
    let streams: Vec<_> = (0..70).map(open).collect();
    assert_eq!(streams.len(), 70);
    let answers = probe.answers();
    let most = resty_proxy_wasm::limits::CALL_REQUEST_BODIES / 1_000_000;
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("0 ")).count(), most);
    assert_eq!(answers.last().map(|answer| &**answer), Some("10"));
    assert_eq!(probe.warned().len(), 1);
}

#[test]
fn grpc_answers_so_that_no_sdk_panics() {
    let probe = Probe::new(
        "request_headers: grpc_call 'no host' s m '' x max
         request_headers: grpc_stream up s 'm m' ''
         request_headers: grpc_stream up s m te=x
         request_headers: get_status
         request_headers: grpc_stream up s m ''
         request_headers: grpc_send 1 a 1
         request_headers: grpc_send 1 b 0
         request_headers: grpc_close 1
         request_headers: grpc_cancel 1
         request_headers: grpc_cancel 1
         request_headers: grpc_send 1 c 0
         request_headers: grpc_call up s m '' x 1000
         request_headers: grpc_send 2 x 0
         request_headers: grpc_close 2
         request_headers: grpc_close 2
         request_headers: grpc_send 3 x 0",
    );
    probe.open().request_headers();
    assert_eq!(
        probe.answers(),
        ["4", "4", "4", "0 0 ''", "0 1", "0", "2", "0", "0", "1", "2", "0 2", "2", "0", "1", "1"]
    );
    assert_eq!(probe.warned().len(), 3);
}

#[test]
fn wasi_answers_errors_and_never_traps() {
    let (_, said) = in_headers(
        "request_headers: fdwrite_oob; request_headers: wasi_oob clock; request_headers: wasi_oob random
         request_headers: wasi_oob environ_sizes; request_headers: wasi_oob poll; request_headers: fdwrite 0 x
         request_headers: fdwrite 3 x; request_headers: poll; request_headers: yield; request_headers: clock
         request_headers: prestat 3",
    );
    let answers: Vec<&str> =
        said.iter().map(|l| l.split_once(" -> ").expect("an answer").1).collect();
    assert_eq!(
        answers,
        ["21 21 21 28", "21", "21", "21", "21", "8 0", "8 0", "0 0", "0", "0 ok", "8"]
    );
}
