//! Buffers: reading and writing bodies, and the configurations.

use super::ops::{Ops, check, check_with, expect, script};
use super::support::{Outcome, Probe};

/// Runs ops in on_request_body of a request with a body; the answer shows the request as it continued.
fn on_request_body(body: &str, ops: Ops<'_>) -> Outcome {
    let run =
        Probe::new(&script("request_body", ops)).request("POST", |request| request.body(body));
    expect(&run.nginx, "request_body", ops);
    assert_eq!(run.failures(), [""; 0]);
    run
}

/// Runs ops in on_response_body of an answer that comes in one piece.
fn on_response_body(body: &str, ops: Ops<'_>) -> Outcome {
    let script = "response_headers: remove_header_map_value 2 content-length\n".to_string()
        + &script("response_body", ops);
    let run = Probe::new(&script)
        .content("try_files /body =404;")
        .nginx(|nginx| nginx.file("html/body", body))
        .run();
    expect(&run.nginx, "response_body", ops);
    assert_eq!(run.failures(), [""; 0]);
    run
}

/// Every rule of proxy_get_buffer_bytes, for a buffer that holds `hello`.
fn reads(buffer: u32) -> Vec<(String, &'static str)> {
    let rules = [
        ("0 max", "0 hello"),
        ("0 5", "0 hello"),
        ("0 3", "0 hel"),
        ("1 3", "0 ell"),
        ("4 1", "0 o"),
        // More than there is.
        ("0 6", "0 hello"),
        ("3 100", "0 lo"),
        ("0 0", "0 ''"),
        // At the end, and past it.
        ("5 0", "0 ''"),
        ("5 10", "0 ''"),
        ("6 0", "0 ''"),
        ("6 10", "0 ''"),
        ("max 0", "0 ''"),
        ("0x80000000 0x7fffffff", "0 ''"),
        // A sum past 32 bits.
        ("1 max", "2"),
        ("5 max", "2"),
        ("2 0xfffffffe", "2"),
        ("1 0xfffffffe", "0 ello"),
    ];
    let rules =
        rules.iter().map(|(op, answer)| (format!("get_buffer_bytes {buffer} {op}"), *answer));
    rules.collect()
}

fn ops<A: AsRef<str>>(list: &[(String, A)]) -> Vec<(&str, &str)> {
    list.iter().map(|(op, answer)| (op.as_str(), answer.as_ref())).collect()
}

#[test]
fn reading_the_request_body() {
    on_request_body("hello", &ops(&reads(0)));
}

#[test]
fn reading_the_response_body() {
    on_response_body("hello", &ops(&reads(1)));
}

#[test]
fn all_bytes_are_read_as_they_are() {
    on_request_body(
        "\0\r\n\u{7f}\u{ff}",
        &[
            ("get_buffer_status 0", "0 6 0"),
            ("get_buffer_bytes 0 0 max", r"0 \x00\x0d\x0a\x7f\xc3\xbf"),
        ],
    );
}

/// Every rule of proxy_set_buffer_bytes, one after the other, on a buffer that holds `hello` at first.
fn writes(buffer: u32) -> Vec<(String, String)> {
    let rules = [
        // (0, 0) puts in front.
        ("0 0 X", "Xhello"),
        ("0 0 ''", "Xhello"),
        // (0, as much as there is, or more) replaces all.
        ("0 6 abc", "abc"),
        ("0 100 hello", "hello"),
        ("0 max hi", "hi"),
        ("0 2 ''", "''"),
        // Nothing is there: in front, all, and behind are one.
        ("0 0 a", "a"),
        ("0 max ''", "''"),
        ("0 5 b", "b"),
        ("0 max ''", "''"),
        ("7 7 hello", "hello"),
        // (as much as there is, or more, any) appends.
        ("5 0 !", "hello!"),
        ("6 1 ?", "hello!?"),
        ("100 3 .", "hello!?."),
        ("max max .", "hello!?.."),
        ("9 0 ''", "hello!?.."),
        // (start, size) inside replaces that range, by more or by less.
        ("5 4 ''", "hello"),
        ("1 3 ipp", "hippo"),
        ("1 3 e", "heo"),
        ("1 1 ell", "hello"),
        ("1 0 --", "h--ello"),
        ("1 2 ''", "hello"),
        ("0 1 J", "Jello"),
        ("0 4 x", "xo"),
        ("0 1 hell", "hello"),
        // A range that reaches past the end, also by an overflow.
        ("3 100 p", "help"),
        ("3 max lo", "hello"),
        ("1 0xffffffff i", "hi"),
    ];
    let mut list = Vec::new();
    for (op, content) in rules {
        list.push((format!("set_buffer_bytes {buffer} {op}"), "0".into()));
        list.push((format!("get_buffer_bytes {buffer} 0 max"), format!("0 {content}")));
    }
    list.push((format!("get_buffer_status {buffer}"), "0 2 0".into()));
    list
}

#[test]
fn writing_the_request_body() {
    let run = on_request_body("hello", &ops(&writes(0)));
    let text = run.response.text();
    assert!(text.contains("\r\nContent-Length: 2\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nhi"), "{text}");
}

#[test]
fn writing_the_response_body() {
    assert_eq!(on_response_body("hello", &ops(&writes(1))).response.text(), "hi");
}

#[test]
fn a_long_value_is_not_cut() {
    let run = on_request_body(
        "hello",
        &[
            (r"set_buffer_bytes 0 0 1 '\R{300000}x'", "0"),
            ("get_buffer_status 0", "0 300004 0"),
            (r"set_buffer_bytes 0 300000 0 '\R{5}y'", "0"),
            ("get_buffer_bytes 0 299998 12", "0 xxyyyyyello"),
        ],
    );
    let expected = "x".repeat(300_000) + "yyyyyello";
    assert!(run.response.text().ends_with(&format!("\r\n\r\n{expected}")));
}

#[test]
fn pointers_may_be_null_when_there_is_nothing() {
    on_request_body(
        "hello",
        &[("set_buffer_bytes 0 0 max ''", "0"), ("get_buffer_bytes 0 0 max", "0 ''")],
    );
    let run = Probe::new(
        "request_body: null set_buffer_bytes 0 0 max x; request_body: get_buffer_bytes 0 0 max",
    )
    .request("POST", |request| request.body("hello"));
    assert_eq!(
        run.of("request_body"),
        ["null set_buffer_bytes arg 3 -> 0", "get_buffer_bytes 0 0 max -> 0 ''"]
    );
}

/// A buffer that is not there cannot be read (1) or written (2).
fn absent(buffers: &[u32]) -> Vec<(String, &'static str)> {
    let mut list = Vec::new();
    for buffer in buffers {
        list.push((format!("get_buffer_bytes {buffer} 0 max"), "1"));
        list.push((format!("get_buffer_bytes {buffer} 1 2"), "1"));
        list.push((format!("get_buffer_status {buffer}"), "1"));
        list.push((format!("set_buffer_bytes {buffer} 0 max x"), "2"));
    }
    list
}

#[test]
fn bodies_are_there_in_their_callbacks_only() {
    let rows: [(&str, &[u32]); 8] = [
        ("create", &[0, 1]),
        ("request_headers", &[0, 1]),
        ("request_body", &[1]),
        ("response_headers", &[0, 1]),
        ("response_body@eos", &[0]),
        ("done", &[0, 1]),
        ("log", &[0, 1]),
        ("delete", &[0, 1]),
    ];
    let tables = rows.map(|(when, buffers)| (when, absent(buffers)));
    let text: String = tables.iter().map(|(when, list)| script(when, &ops(list))).collect();
    let run = Probe::new(&text).request("POST", |request| request.body("hello"));
    for (when, list) in &tables {
        expect(&run.nginx, when.trim_end_matches("@eos"), &ops(list));
    }
    assert!(run.response.text().ends_with("\r\n\r\nhello"));
}

#[test]
fn bodies_are_not_there_without_a_stream() {
    let list = absent(&[0, 1]);
    check("configure", &ops(&list));
    let text = "request_body: set_effective_context root\n".to_string()
        + &script("request_body", &ops(&list));
    let run = Probe::new(&text).request("POST", |request| request.body("hello"));
    let mut with_switch = vec![("set_effective_context root", "0")];
    with_switch.extend(ops(&list));
    expect(&run.nginx, "request_body", &with_switch);
}

#[test]
fn other_buffers_are_not_there() {
    let list = absent(&[2, 3, 4, 5, 8]);
    for callback in ["request_headers", "response_headers", "response_body@eos", "log"] {
        let run = Probe::new(&script(callback, &ops(&list))).run();
        expect(&run.nginx, callback.trim_end_matches("@eos"), &ops(&list));
    }
}

#[test]
fn unknown_buffers_are_bad_arguments() {
    let mut list = Vec::new();
    for buffer in ["10", "100", "max"] {
        list.push((format!("get_buffer_bytes {buffer} 0 max"), "2"));
        list.push((format!("get_buffer_status {buffer}"), "2"));
        list.push((format!("set_buffer_bytes {buffer} 0 0 x"), "2"));
    }
    for callback in ["configure", "request_headers", "done"] {
        check(callback, &ops(&list));
    }
    on_request_body("hello", &ops(&list));
}

#[test]
fn configurations_cannot_be_written() {
    let ops = &[("set_buffer_bytes 6 0 max x", "2"), ("set_buffer_bytes 7 0 max x", "2")];
    check("configure", ops);
    on_request_body("hello", ops);
}

const EVERY_CALLBACK: &[&str] = &[
    "vm_start",
    "configure",
    "create",
    "request_headers",
    "request_body",
    "response_headers",
    "response_body",
    "done",
    "log",
    "delete",
];

#[test]
fn configurations_are_readable_in_every_callback() {
    let script = "*: get_buffer_bytes 6 0 max; *: get_buffer_bytes 7 3 14; *: get_buffer_status 7";
    let run = Probe::new(script)
        .options(r##"vm_config = "# of the VM""##)
        .request("POST", |request| request.body("hello"));
    for callback in EVERY_CALLBACK {
        let lines = run.of(callback);
        assert!(!lines.is_empty(), "{callback}");
        for (i, line) in lines.iter().enumerate() {
            let expected = match i % 3 {
                0 => "get_buffer_bytes 6 0 max -> 0 # of the VM".into(),
                1 => "get_buffer_bytes 7 3 14 -> 0 get_buffer_byt".into(),
                _ => format!("get_buffer_status 7 -> 0 {} 0", script.len()),
            };
            assert_eq!(*line, expected, "{callback}");
        }
    }
}

#[test]
fn a_configuration_that_was_not_given_is_empty() {
    check(
        "request_headers",
        &[("get_buffer_bytes 6 0 max", "0 ''"), ("get_buffer_status 6", "0 0 0")],
    );
    // The probe's own configuration is the script, which this one takes from the VM's.
    let ops = &[("get_buffer_bytes 7 0 max", "0 ''"), ("get_buffer_status 7", "0 0 0")];
    let run = Probe::new("")
        .options("vm_config = 'vm_start: get_buffer_bytes 7 0 max; vm_start: get_buffer_status 7'")
        .run();
    expect(&run.nginx, "vm_start", ops);
}

#[test]
fn abi_0_1_0_asks_for_its_configuration() {
    let options = "vm_config = 'vm_start: get_configuration'";
    let run = check_with(
        "configure",
        &[("get_configuration", "0 configure: get_configuration\\x0a")],
        |probe| probe.guest("probe_0_1_0").options(options),
    );
    expect(&run.nginx, "vm_start", &[("get_configuration", "0 vm_start: get_configuration")]);
    for callback in ["request_headers", "response_headers", "done", "log"] {
        let answer = format!("0 {callback}: get_configuration\\x0a");
        check_with(callback, &[("get_configuration", &answer)], |probe| probe.guest("probe_0_1_0"));
    }
}
