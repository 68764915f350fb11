//! Header maps: what a filter reads, what it changes, and the effects that come of it.

use crate::world::probe::request_headers;
use crate::world::{Filter, Probe, Request, Stream, guest, sim_host};
use resty_proxy_wasm::abi::{Attribute, Callback};
use resty_proxy_wasm::limits;
use resty_proxy_wasm::ports::Phase;

/// The effects of operations on request headers (map 0) in `proxy_on_request_headers`, and their answers.
fn edit_request(request: Request, ops: &[&str]) -> (Vec<String>, Vec<String>) {
    let probe = Probe::new(&lines("request_headers", ops));
    let effects = probe.open_for(request).request_headers().effects;
    (effects, probe.answers())
}

/// The same for response headers (map 2).
fn edit_response(headers: &[(&str, &str)], ops: &[&str]) -> (Vec<String>, Vec<String>) {
    let probe = Probe::new(&lines("response_headers", ops));
    let effects = probe.open().response_headers(headers).effects;
    (effects, probe.answers())
}

fn lines(callback: &str, ops: &[&str]) -> String {
    ops.iter().map(|op| format!("{callback}: {op}\n")).collect()
}

fn ok(count: usize) -> Vec<String> {
    vec!["0".into(); count]
}

fn accepting() -> Request {
    Request::default().header("Accept", "a").header("X-One", "1").header("accept", "b")
}

#[test]
fn request_headers_read_in_order_with_pseudo_headers_first() {
    let answers = request_headers(
        accepting().attribute(Attribute::RequestPath, "/a?b=c"),
        "get_header_map_pairs 0
         get_header_map_size 0
         get_header_map_value 0 ACCEPT
         get_header_map_value 0 x-absent
         get_header_map_value 0 :path
         get_header_map_value 0 :method
         get_header_map_value 0 :scheme
         get_header_map_value 0 :authority
         get_header_map_value 0 Host
         get_header_map_value 0 ''",
    );
    assert_eq!(
        answers,
        [
            "0 :method=GET|:scheme=http|:authority=example.com|:path=/a?b=c|accept=a|x-one=1|accept=b",
            "0 73",
            "0 a",
            "1",
            "0 /a?b=c",
            "0 GET",
            "0 http",
            "0 example.com",
            "0 example.com",
            "1",
        ]
    );
}

#[test]
fn response_headers_are_those_of_the_snapshot() {
    let probe = Probe::new(
        "response_headers,log: get_header_map_pairs 2
         response_headers: get_header_map_value 2 :status; request_headers: get_header_map_pairs 2
         request_headers: get_header_map_value 2 a",
    );
    let stream = probe.open();
    stream.host.with(stream.request, |r| r.status = 404);
    stream.request_headers();
    stream.response_headers(&[("A", "1"), ("a", "2"), ("B", "")]);
    stream.end().expect("an end");
    let map = "0 :status=404|a=1|a=2|b=";
    assert_eq!(probe.answers(), ["0 ''", "1", map, "0 404", map]);
}

#[test]
fn maps_that_nginx_does_not_show_are_empty_and_cannot_be_written() {
    for map in [1, 3, 4, 5, 6, 7] {
        let answers = request_headers(
            Request::default(),
            &format!(
                "get_header_map_pairs {map}\nget_header_map_size {map}\nget_header_map_value {map} a
                 add_header_map_value {map} a b\nremove_header_map_value {map} a\nset_header_map_pairs {map} a=b"
            ),
        );
        assert_eq!(answers, ["0 ''", "0 0", "1", "2", "2", "2"], "map {map}");
    }
    let answers = request_headers(
        Request::default(),
        "get_header_map_pairs 8\nget_header_map_size 99\nget_header_map_value -1 a\nset_header_map_pairs 8 a=b
         replace_header_map_value 8 a b",
    );
    assert_eq!(answers, ["2", "2", "2", "2", "2"]);
}

#[test]
fn request_edits_are_seen_at_once_and_become_effects() {
    let (effects, answers) = edit_request(
        accepting(),
        &[
            "add_header_map_value 0 X-New 1",
            "replace_header_map_value 0 Accept c",
            "remove_header_map_value 0 x-one",
            "remove_header_map_value 0 absent",
            "get_header_map_pairs 0",
        ],
    );
    assert_eq!(
        effects,
        [
            "add request X-New: 1",
            "set request Accept: c",
            "remove request x-one",
            "remove request absent",
        ]
    );
    assert_eq!(answers[..4], ok(4));
    assert_eq!(
        answers[4],
        "0 :method=GET|:scheme=http|:authority=example.com|:path=/|accept=c|x-new=1"
    );
}

#[test]
fn setting_all_pairs_removes_the_others() {
    let (effects, answers) = edit_request(
        accepting(),
        &["set_header_map_pairs 0 :path=/new|X-One=2|b=1|B=2", "get_header_map_pairs 0"],
    );
    assert_eq!(
        effects,
        [
            "remove request accept",
            "path /new as /new",
            "set request X-One: 2",
            "set request b: 1",
            "add request B: 2",
        ]
    );
    assert_eq!(
        answers,
        ["0", "0 :method=GET|:scheme=http|:authority=example.com|:path=/new|x-one=2|b=1|b=2"]
    );
    let (effects, _) =
        edit_response(&[("a", "1"), ("content-length", "1")], &["set_header_map_pairs 2 b=1"]);
    assert_eq!(
        effects,
        ["remove response a", "remove response content-length", "set response b: 1"]
    );
}

#[test]
fn pseudo_headers_of_the_request_take_effect() {
    let (effects, answers) = edit_request(
        Request::default(),
        &[
            "replace_header_map_value 0 :path /a%20b?c=d%20e",
            "replace_header_map_value 0 :path /x",
            "replace_header_map_value 0 :path /y?",
            "add_header_map_value 0 :method POST",
            "replace_header_map_value 0 :authority other:81",
            "replace_header_map_value 0 Host third",
            "add_header_map_value 0 host fourth",
            "replace_header_map_value 0 :scheme https",
            "get_header_map_pairs 0",
        ],
    );
    assert_eq!(
        effects,
        [
            "path /a b as /a%20b?c=d%20e",
            "path /x as /x",
            "path /y as /y?",
            "method POST",
            "set request Host: other:81",
            "set request Host: third",
            "set request Host: fourth",
        ]
    );
    assert_eq!(answers[..8], ok(8));
    assert_eq!(answers[8], "0 :method=POST|:scheme=https|:authority=fourth|:path=/y?");
}

#[test]
fn written_path_and_scheme_are_seen_by_the_filters_behind() {
    let probe = Probe::new(
        "request_headers: replace_header_map_value 0 :path /n?a=b; request_headers: replace_header_map_value 0 :scheme wss",
    );
    let stream = probe.open();
    stream.request_headers();
    let behind = probe.filter.context(
        "request_headers: get_header_map_value 0 :path; request_headers: get_header_map_value 0 :scheme
         request_headers: get_property request.path; request_headers: get_property request.url_path",
    );
    probe.said();
    probe.filter.try_open(&behind, stream.request).expect("a stream").request_headers();
    assert_eq!(probe.answers(), ["0 /n?a=b", "0 wss", "0 /n?a=b", "0 /n"]);
}

#[test]
fn the_status_of_the_response_can_be_changed() {
    let (effects, answers) = edit_response(
        &[],
        &[
            "replace_header_map_value 2 :status 404",
            "add_header_map_value 2 :status 201",
            "get_header_map_pairs 2",
        ],
    );
    assert_eq!(effects, ["status 404", "status 201"]);
    assert_eq!(answers, ["0", "0", "0 :status=201"]);
}

#[test]
fn what_would_split_or_break_a_message_is_refused() {
    let bad = [
        "add_header_map_value 0 '' x",
        "add_header_map_value 0 'a b' x",
        "add_header_map_value 0 a: x",
        "add_header_map_value 0 a\\r x",
        "add_header_map_value 0 a x\\r\\nSet-Cookie:\\x20y",
        "replace_header_map_value 0 a x\\n",
        "replace_header_map_value 0 a x\\0",
        "set_header_map_pairs 0 good=1|a=x\\n",
        "replace_header_map_value 0 :path ''",
        "replace_header_map_value 0 :path no-slash",
        "replace_header_map_value 0 :path '/a b'",
        "replace_header_map_value 0 :path /a\\r\\n",
        "replace_header_map_value 0 :path /a/../..",
        "replace_header_map_value 0 :path /%00",
        "replace_header_map_value 0 :method get",
        "replace_header_map_value 0 :method 'GET x'",
        "replace_header_map_value 0 :method CONNECT",
        "replace_header_map_value 0 :authority ''",
        "replace_header_map_value 0 :authority a\\n",
        "replace_header_map_value 0 :scheme 1",
        "replace_header_map_value 0 :status 200",
        "replace_header_map_value 0 :unknown x",
        "replace_header_map_value 0 : x",
    ];
    let probe = Probe::new(&lines("request_headers", &bad));
    let effects = probe.open().request_headers().effects;
    assert_eq!(effects, [""; 0]);
    assert_eq!(probe.answers(), vec!["2"; bad.len()]);
    let warnings = probe.warned();
    assert_eq!(warnings.len(), bad.len());
    assert_eq!(
        warnings[4],
        "proxy_on_request_headers: header \"a\" is refused: its name or value is not allowed"
    );
    let bad = ["", "20", "99", "199", "2000", "+20", "abc", "20a", " 20"];
    let ops: Vec<String> =
        bad.iter().map(|v| format!("replace_header_map_value 2 :status '{v}'")).collect();
    let ops: Vec<&str> = ops.iter().map(String::as_str).collect();
    let probe = Probe::new(&lines("response_headers", &ops));
    assert_eq!(probe.open().response_headers(&[]).effects, [""; 0]);
    assert_eq!(probe.answers(), vec!["2"; bad.len()]);
    assert_eq!(probe.warned().len(), bad.len());
}

#[test]
fn pseudo_headers_cannot_be_removed() {
    let ops = [
        "remove_header_map_value 0 :path",
        "remove_header_map_value 0 Host",
        "remove_header_map_value 0 'a b'",
    ];
    let probe = Probe::new(&lines("request_headers", &ops));
    assert_eq!(probe.open().request_headers().effects, [""; 0]);
    assert_eq!(probe.answers(), ["2", "2", "2"]);
    let warning = "proxy_on_request_headers: a pseudo header cannot be removed";
    assert_eq!(probe.warned(), [warning, warning]);
}

#[test]
fn framing_is_left_to_nginx() {
    let framing =
        [("content-length", "1"), ("transfer-encoding", "chunked"), ("connection", "close")];
    let mut ops = Vec::new();
    for (name, value) in framing {
        ops.push(format!("add_header_map_value 0 {name} {value}"));
        ops.push(format!("get_header_map_value 0 {name}"));
        ops.push(format!("remove_header_map_value 0 {name}"));
    }
    let ops: Vec<&str> = ops.iter().map(String::as_str).collect();
    let (effects, answers) = edit_request(Request::default(), &ops);
    assert_eq!(effects, [""; 0], "a request's framing cannot be changed");
    assert_eq!(answers, ["0", "0 1", "0", "0", "0 chunked", "0", "0", "0 close", "0"]);

    let one = [("content-length", "1")];
    let (same, changed) = (
        "replace_header_map_value 2 Content-Length 1",
        "replace_header_map_value 2 Content-Length 2",
    );
    let gone = ["remove response Content-Length".to_string()];
    assert_eq!(edit_response(&one, &[same]).0, [""; 0]);
    assert_eq!(edit_response(&one, &[changed]).0, gone);
    assert_eq!(edit_response(&one, &["remove_header_map_value 2 Content-Length"]).0, gone);
    assert_eq!(edit_response(&[], &["add_header_map_value 2 Connection close"]).0, [""; 0]);
    assert_eq!(edit_response(&[], &["remove_header_map_value 2 Transfer-Encoding"]).0, [""; 0]);
}

#[test]
fn headers_of_one_connection_are_not_sent() {
    for name in ["keep-alive", "Proxy-Connection"] {
        let ops = [
            format!("add_header_map_value 2 {name} one"),
            format!("get_header_map_value 2 {name}"),
            format!("set_header_map_pairs 2 {name}=two"),
            format!("get_header_map_value 2 {name}"),
        ];
        let ops: Vec<&str> = ops.iter().map(String::as_str).collect();
        // What the upstream sent goes, too.
        let lower = name.to_lowercase();
        let gone = [format!("remove response {name}")];
        assert_eq!(
            edit_response(&[], &ops),
            (
                [gone.clone(), gone.clone()].concat(),
                ["0", "0 one", "0", "0 two"].map(Into::into).to_vec()
            )
        );
        let removed = edit_response(
            &[(lower.as_str(), "1")],
            &[&format!("remove_header_map_value 2 {name}")],
        );
        assert_eq!(removed.0, gone);
        let request = Request::default().header(&lower, "1");
        let ops = [ops[0].replace(" 2 ", " 0 "), format!("replace_header_map_value 0 {name} two")];
        let ops: Vec<&str> = ops.iter().map(String::as_str).collect();
        let gone = format!("remove request {name}");
        assert_eq!(edit_request(request, &ops).0, [gone.clone(), gone]);
    }
    // Whether these are sent depends on the client's version of HTTP.
    let set = edit_response(&[], &["add_header_map_value 2 upgrade h2c"]).0;
    assert_eq!(set, ["add response upgrade: h2c"]);
}

/// The answer to a change of that map in that callback, and what the host says of it.
fn late(map: u32, callback: Callback, phase: Phase, sent: bool) -> (String, Vec<String>) {
    let probe = Probe::new(&format!(
        "{}: add_header_map_value {map} a b",
        callback.name().replace("proxy_on_", "")
    ));
    let stream = probe.open();
    stream.host.with(stream.request, |r| (r.phase, r.headers_sent) = (phase, sent));
    stream.run(callback, b"x", true).expect("an answer");
    (probe.answers().remove(0), probe.warned())
}

#[test]
fn headers_change_only_while_it_makes_sense() {
    use Callback::{RequestBody, RequestHeaders, ResponseBody, ResponseHeaders};
    let too_late = "a change of the request headers came too late: the request has gone on";
    let wrong_time = "a change of the response headers came too early or too late";
    for (map, callback, phase, sent, refused) in [
        (0, RequestHeaders, Phase::Request, false, None),
        (0, RequestBody, Phase::Request, false, None),
        (0, RequestHeaders, Phase::Request, true, Some(too_late)),
        (0, RequestHeaders, Phase::ResponseHeaders, false, Some(too_late)),
        (0, RequestHeaders, Phase::Log, false, Some(too_late)),
        (0, ResponseHeaders, Phase::ResponseHeaders, false, Some(too_late)),
        (0, ResponseBody, Phase::ResponseBody, true, Some(too_late)),
        (2, RequestHeaders, Phase::Request, false, Some(wrong_time)),
        (2, ResponseHeaders, Phase::ResponseHeaders, false, None),
        (2, ResponseHeaders, Phase::Request, false, None),
        (2, ResponseHeaders, Phase::ResponseHeaders, true, Some(wrong_time)),
        (2, ResponseBody, Phase::ResponseBody, true, Some(wrong_time)),
    ] {
        let wanted = match refused {
            None => ("0".to_string(), Vec::new()),
            Some(text) => ("2".to_string(), vec![format!("{callback}: {text}")]),
        };
        assert_eq!(late(map, callback, phase, sent), wanted, "{map} {callback} {phase:?} {sent}");
    }
    let probe = Probe::new("configure: add_header_map_value 0 a b");
    assert_eq!(probe.answers(), ["2"]);
    assert_eq!(
        probe.warned(),
        [
            "proxy_on_configure: there are no headers to change: the effective context is not a stream"
        ]
    );
}

#[test]
fn a_filter_that_only_writes_reads_nothing() {
    let filter = Filter::new(&sim_host(), &guest("bare.wat"));
    let stream: Stream = filter.open(&filter.context(""));
    let effects = stream.response_headers(&[("a", "1")]).effects;
    assert_eq!(effects, ["add response hello: world!"]);
    let loaded = |vm: &mut resty_proxy_wasm::vm::Vm| {
        Ok(vm.state().contexts.streams.get(&stream.at.id).expect("it").response_headers_loaded)
    };
    assert_eq!(stream.context.with_stream(stream.at, loaded), Ok(false));
}

#[test]
fn request_headers_are_read_again_in_each_callback() {
    let probe = Probe::new("request_headers,log: get_header_map_value 0 a");
    let stream = probe.open_for(Request::default().header("a", "1"));
    stream.request_headers();
    stream.host.with(stream.request, |r| r.headers[0].1 = b"2".to_vec());
    stream.end().expect("an end");
    assert_eq!(probe.answers(), ["0 1", "0 2"]);
}

/// A client decides how many headers there are, and what is in them: whatever a filter does with them is no error.
#[test]
fn what_a_client_sent_is_no_reason_to_refuse_a_filter() {
    let names: Vec<String> = (0..3000).map(|index| format!("h{index}")).collect();
    let request = || {
        let request =
            names.iter().fold(Request::default(), |request, name| request.header(name, "v"));
        request.header("x-control", "\x01").header("x(y", "no token")
    };
    let all: String = names.iter().map(|name| format!("{name}=v|")).collect();
    let all = all + "x-control=\\x01|x(y=no token";
    let (effects, answers) = edit_request(request(), &[&format!("set_header_map_pairs 0 '{all}'")]);
    assert_eq!((effects, answers), (vec![], ok(1)), "nothing is changed");
    let (effects, answers) = edit_request(
        request(),
        &[
            "get_header_map_value 0 h0",
            "add_header_map_value 0 x-a 1",
            "replace_header_map_value 0 x-b 1",
            "remove_header_map_value 0 h7",
            &format!("set_header_map_pairs 0 '{}|x-c=1'", all.replacen("h8=v", "h8=w", 1)),
        ],
    );
    assert_eq!(answers, ["0 v", "0", "0", "0", "0"]);
    assert_eq!(
        effects,
        [
            "add request x-a: 1",
            "set request x-b: 1",
            "remove request h7",
            "remove request x-a",
            "remove request x-b",
            "set request h7: v",
            "set request h8: w",
            "set request x-c: 1",
        ],
        "there is no room to move what stands behind h7"
    );
}

#[test]
fn a_filter_adds_to_what_was_given_as_much_as_to_nothing() {
    let add = "add_header_map_value 0 x-a 1";
    let most = limits::HEADER_MAP_PAIRS;
    for given in [0, 2000] {
        let names = (0..given).map(|index| format!("h{index}"));
        let request = names.fold(Request::default(), |request, name| request.header(&name, "v"));
        let probe = Probe::new(&lines("request_headers", &vec![add; most + 1]));
        probe.open_for(request).request_headers();
        let answers = probe.answers();
        assert_eq!(probe.warned().len(), 1);
        let taken = answers.iter().filter(|answer| *answer == "0").count();
        assert_eq!((taken, answers[most].as_str()), (most, "10"), "{given}");
    }
}
