//! Local responses, and the end of a request by its filter.

use crate::world::{Answer, Probe, Request};
use resty_proxy_wasm::event::Action;
use resty_proxy_wasm::guest::Output;

fn respond(effects: &[&str]) -> Answer {
    let effects = effects.iter().map(|e| e.to_string()).collect();
    Answer { action: Action::Respond, body: Output::Unchanged, effects }
}

fn pass() -> Answer {
    Answer { action: Action::Continue, body: Output::Unchanged, effects: Vec::new() }
}

const SEND: &str = "send_local_response 403 'no way' denied\\n x-a=1|x-a=2 -1";

#[test]
fn in_place_of_the_upstream() {
    let probe = Probe::new(&format!(
        "request_headers: {SEND}; *: args; log: get_property response.code_details"
    ));
    let stream = probe.open();
    assert_eq!(
        stream.request_headers(),
        respond(&["answer 403 [] denied\\n", "answer x-a: 1", "answer x-a: 2"])
    );
    probe.said();
    assert_eq!(stream.request_headers(), pass(), "no more request callbacks");
    assert_eq!(stream.request_body(b"x", true), pass());
    assert_eq!(probe.said(), [""; 0]);
    stream.host.with(stream.request, |r| r.status = 403);
    assert_eq!(stream.response_headers(&[]), pass(), "the filter sees its own response");
    stream.end().expect("an end");
    assert_eq!(
        probe.said(),
        [
            "response_headers args -> num_headers=1 eos=0",
            "done args -> ",
            "log args -> ",
            "log get_property response.code_details -> 0 no way",
            "delete args -> ",
        ]
    );
}

#[test]
fn from_every_callback_before_the_headers_are_sent() {
    let wanted = respond(&["answer 403 [] denied\\n", "answer x-a: 1", "answer x-a: 2"]);
    let probe = Probe::new(&format!("request_body: {SEND}"));
    assert_eq!(probe.open().request_body(b"x", true), wanted);
    let probe = Probe::new(&format!("create: {SEND}; request_headers: args"));
    let stream = probe.open();
    assert_eq!(stream.request_headers(), wanted);
    assert_eq!(stream.request_headers(), pass());
    assert_eq!(probe.answers(), ["0"], "no request callback ran");
}

#[test]
fn from_response_headers_its_body_comes_out_of_the_body_filter() {
    let probe = Probe::new(&format!("response_headers: {SEND}; response_body: args"));
    let stream = probe.open();
    assert_eq!(
        stream.response_headers(&[("content-length", "5")]),
        respond(&["answer 403 [direct] denied\\n", "answer x-a: 1", "answer x-a: 2"])
    );
    probe.said();
    assert_eq!(stream.response_body(b"hel", false).body, Output::Replace(b"denied\n".to_vec()));
    assert_eq!(stream.response_body(b"lo", true).body, Output::Hold);
    assert_eq!(probe.said(), [""; 0], "the body is not the filter's to see");
}

#[test]
fn what_is_refused_leaves_the_request_alone() {
    let cases = [
        "send_local_response 99 '' '' '' -1",
        "send_local_response 199 '' '' '' -1",
        "send_local_response 1000 '' '' '' -1",
        "send_local_response -1 '' '' '' -1",
    ];
    let script: String = cases.iter().map(|op| format!("request_headers: {op}\n")).collect();
    let probe = Probe::new(&script);
    assert_eq!(probe.open().request_headers(), pass());
    assert_eq!(probe.answers(), vec!["2"; cases.len()]);
    let warning = "proxy_on_request_headers: a local response is refused: its status is not one from 200 to 999";
    assert_eq!(probe.warned(), [warning; 4]);
    let probe = Probe::new("request_headers: send_local_response 200 '' '' '' -1");
    assert_eq!(probe.open().request_headers(), respond(&["answer 200 [] "]));
    for status in [204, 205, 304] {
        let op = format!("request_headers: send_local_response {status} '' body '' -1");
        let answer = format!("answer {status} [] ");
        assert_eq!(Probe::new(&op).open().request_headers(), respond(&[&answer]));
    }
    let probe = Probe::new("request_headers: send_local_response 999 '' '' '' -1");
    assert_eq!(probe.open().request_headers(), respond(&["answer 999 [] "]));
}

#[test]
fn bad_headers_are_left_out() {
    let not_allowed = "headers that are not allowed or too many: ";
    let malformed = "its headers, which are malformed";
    for (send, effects, left_out) in [
        ("403 '' no :status=200|:path=/|:x=1|a=1 -1", &["answer a: 1"][..], String::new()),
        ("403 '' no 'a b=1|a=1|''=x' -1", &["answer a: 1"], format!("{not_allowed}\"a b\", \"\"")),
        (
            r"403 '' no a=1\r\nx|b=\0|c=\n|d=1 -1",
            &["answer d: 1"],
            format!(r#"{not_allowed}"a", "b", "c""#),
        ),
        (
            r"403 '' no 1\x20=|2\x20=|3\x20=|4\x20=|5\x20=|6\x20=|7\x20=|8\x20=|9\x20=|0\x20= -1",
            &[],
            format!(r#"{not_allowed}"1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "8 ", 2 more"#),
        ),
    ] {
        let probe = Probe::new(&format!("request_headers: send_local_response {send}"));
        let mut wanted = vec!["answer 403 [] no"];
        wanted.extend(effects);
        assert_eq!(probe.open().request_headers(), respond(&wanted), "{send}");
        assert_eq!(probe.answers(), ["0"], "{send}");
        let warning = (!left_out.is_empty()).then(|| {
            format!("proxy_on_request_headers: a local response is sent without {left_out}")
        });
        assert_eq!(probe.warned(), Vec::from_iter(warning), "{send}");
    }
    let probe = Probe::new("request_headers: send_local_response_raw 403 '' no \\x01 -1");
    assert_eq!(probe.open().request_headers(), respond(&["answer 403 [] no"]));
    let warning = format!("proxy_on_request_headers: a local response is sent without {malformed}");
    assert_eq!(probe.warned(), [warning]);
}

#[test]
fn one_with_too_many_headers_has_the_first() {
    let probe = Probe::new("request_headers: send_local_response 403 '' no *1030 -1");
    let effects = probe.open().request_headers().effects;
    assert_eq!(effects.len(), 1 + 1024);
    assert_eq!(probe.answers(), ["0"]);
    assert_eq!(
        probe.warned(),
        [
            "proxy_on_request_headers: a local response is sent without headers that are not allowed or too many: 6 more"
        ]
    );
    let probe =
        Probe::new(r"request_headers: send_local_response 403 '' no a=1|big=\R{1048577}v|b=2 -1");
    let answer = probe.open().request_headers();
    assert_eq!(answer, respond(&["answer 403 [] no", "answer a: 1", "answer b: 2"]));
    assert_eq!(probe.warned().len(), 1);
}

#[test]
fn it_goes_out_after_more_changes_than_the_host_holds() {
    let adds = "request_headers: replace_header_map_value 0 a b\n".repeat(4100);
    let probe = Probe::new(&format!("{adds}request_headers: {SEND}"));
    assert_eq!(
        probe.open().request_headers(),
        respond(&["answer 403 [] denied\\n", "answer x-a: 1", "answer x-a: 2"])
    );
    assert_eq!(probe.answers().last().map(String::as_str), Some("0"));
    assert_eq!(probe.warned().len(), 1, "of the changes");
}

#[test]
fn only_one_and_only_in_time() {
    let probe = Probe::new(&format!("request_headers: {SEND}; request_headers: {SEND}"));
    assert_eq!(probe.open().request_headers().effects.len(), 3);
    assert_eq!(probe.answers(), ["0", "2"]);
    assert_eq!(
        probe.warned(),
        ["proxy_on_request_headers: a second local response on one stream is refused"]
    );

    let probe = Probe::new(&format!("log: {SEND}"));
    let stream = probe.open();
    assert_eq!(stream.response_body(b"x", true), pass());
    stream.end().expect("an end");
    assert_eq!(probe.answers(), ["2"]);
    assert_eq!(
        probe.warned(),
        ["proxy_on_log: a local response came too late: the response headers were sent"]
    );

    let probe = Probe::new(&format!("configure: {SEND}"));
    assert_eq!(probe.answers(), ["2"]);
    assert_eq!(
        probe.warned(),
        ["proxy_on_configure: a local response needs a stream, and the effective context is none"]
    );
}

#[test]
fn edits_before_and_after_it_keep_their_order() {
    let probe = Probe::new(
        "request_headers: add_header_map_value 0 a 1; request_headers: send_local_response 200 '' '' '' -1
         request_headers: add_header_map_value 0 b 2",
    );
    let answer = probe.open().request_headers();
    assert_eq!(answer, respond(&["add request a: 1", "answer 200 [] ", "add request b: 2"]));
}

#[test]
fn grpc_requests_get_grpc_errors() {
    let answer = |content_type: &str, send: &str| {
        let probe = Probe::new(&format!("request_headers: send_local_response {send}"));
        let request = Request::default().header("content-type", content_type);
        probe.open_for(request).request_headers().effects
    };
    let grpc = |status: &str, message: &str| {
        let mut wanted = vec![
            "answer 200 [] ".to_string(),
            "answer content-type: application/grpc".into(),
            format!("answer grpc-status: {status}"),
        ];
        if !message.is_empty() {
            wanted.push(format!("answer grpc-message: {message}"));
        }
        wanted
    };
    for (code, status) in [
        (200, 0),
        (400, 13),
        (401, 16),
        (403, 7),
        (404, 12),
        (429, 14),
        (503, 14),
        (500, 2),
        (302, 2),
    ] {
        let send = format!("{code} '' '' '' -1");
        assert_eq!(answer("application/grpc", &send), grpc(&status.to_string(), ""), "{code}");
    }
    assert_eq!(answer("application/grpc+proto", "403 '' '' '' 5"), grpc("5", ""));
    assert_eq!(answer("application/grpc;a=b", "403 '' '' '' 17"), grpc("7", ""));
    assert_eq!(answer("application/grpc", "403 why '' '' 16"), grpc("16", "why"));
    assert_eq!(
        answer("application/grpc", "403 why 'a%b\\n' content-type=x 16"),
        grpc("16", "a%25b%0A")
    );
    let mut wanted = grpc("7", "why");
    wanted.insert(1, "answer a: 1".into());
    assert_eq!(
        answer("application/grpc", "403 why '' grpc-status=0|Grpc-Message=OK|:status=200|a=1 -1"),
        wanted
    );
    for other in ["application/grpc-web", "application/json", "APPLICATION/GRPCX"] {
        assert_eq!(answer(other, "403 '' body '' 5"), ["answer 403 [] body"], "{other}");
    }
}

#[test]
fn closing_comes_before_everything() {
    let probe = Probe::new(
        "request_headers: send_local_response 200 '' '' '' -1; request_headers: close_stream 0",
    );
    assert_eq!(probe.open().request_headers().action, Action::Close);
    for script in [
        "request_headers: close_stream 0",
        "request_headers: close_stream 1",
        "request_headers: pause; request_headers: close_stream 0",
    ] {
        assert_eq!(Probe::new(script).open().request_headers().action, Action::Close, "{script}");
    }
    let probe = Probe::new("response_body: close_stream 1");
    assert_eq!(probe.open().response_body(b"x", false).action, Action::Close);
    let probe = Probe::new(
        "request_headers: close_stream 2; request_headers: close_stream 3; request_headers: close_stream 4
         configure: close_stream 0",
    );
    assert_eq!(probe.open().request_headers(), pass());
    assert_eq!(probe.answers(), ["0", "0", "0", "2"]);
}
