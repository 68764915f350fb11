//! Header maps: changing them, as the guest, the upstream and the client see it.

use super::local_response::headers;
use super::ops::{Ops, check, check_with, contexts, echoed, expect, of, phases, script};
use super::support::{Nginx, Outcome, Probe, Response, Upstream};

/// The values of a header that reached the upstream.
fn upstream<'a>(body: &'a str, name: &str) -> Vec<&'a str> {
    let headers = echoed(body).1.into_iter();
    let of_name = headers.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    of_name.map(|(_, value)| value).collect()
}

/// Runs ops on the request headers of `METHOD /` with some headers.
fn on_request(method: &str, headers: &[(&str, &str)], ops: Ops<'_>) -> Outcome {
    let run = Probe::new(&script("request_headers", ops)).request(method, |request| {
        headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    });
    expect(&run.nginx, "request_headers", ops);
    assert_eq!(run.response.status, 200);
    run
}

#[test]
fn request_headers_are_added_replaced_and_removed() {
    let ops = [
        ("add_header_map_value 0 X-New a", "0"),
        ("add_header_map_value 0 x-new b", "0"),
        ("add_header_map_value 0 x-two 3", "0"),
        ("replace_header_map_value 0 x-Replaced new", "0"),
        ("replace_header_map_value 0 x-replaced-new ''", "0"),
        ("remove_header_map_value 0 X-GONE", "0"),
        ("remove_header_map_value 0 x-never-there", "0"),
        ("get_header_map_value 0 x-new", "0 a"),
        (
            "get_header_map_pairs 0",
            "0 :method=GET|:scheme=http|:authority=localhost|:path=/|x-two=1|x-replaced=new|x-two=2\
             |connection=close|x-new=a|x-new=b|x-two=3|x-replaced-new=",
        ),
    ];
    let headers = [
        ("x-two", "1"),
        ("x-gone", "1"),
        ("x-replaced", "1"),
        ("x-two", "2"),
        ("x-gone", "2"),
        ("x-replaced", "2"),
    ];
    let text = on_request("GET", &headers, &ops).response.text();
    assert_eq!(upstream(&text, "x-new"), ["a", "b"]);
    assert_eq!(upstream(&text, "x-two"), ["1", "2", "3"]);
    assert_eq!(upstream(&text, "x-replaced"), ["new"]);
    assert_eq!(upstream(&text, "x-replaced-new"), [""]);
    assert_eq!(upstream(&text, "x-gone"), [""; 0]);
}

#[test]
fn all_request_headers_are_set() {
    let ops = [
        ("set_header_map_pairs 0 x-b=1|:path=/set?x|x-a=1|x-b=2", "0"),
        (
            "get_header_map_pairs 0",
            "0 :method=GET|:scheme=http|:authority=localhost|:path=/set?x|x-b=1|x-a=1|x-b=2",
        ),
        ("get_header_map_size 0", "0 63"),
    ];
    let headers = [("x-a", "old"), ("x-b", "old"), ("x-gone", "1"), ("x-gone", "2")];
    let text = on_request("GET", &headers, &ops).response.text();
    assert_eq!(echoed(&text).0, "GET /set?x HTTP/1.0");
    assert_eq!(upstream(&text, "x-a"), ["1"]);
    assert_eq!(upstream(&text, "x-b"), ["1", "2"]);
    assert_eq!(upstream(&text, "x-gone"), [""; 0]);
}

#[test]
fn all_request_headers_are_set_to_none() {
    for map in
        ["set_header_map_pairs 0 ''", r"set_header_map_raw 0 \0", r"set_header_map_raw 0 \0\0\0\0"]
    {
        let ops = [
            (map, "0"),
            ("get_header_map_pairs 0", "0 :method=GET|:scheme=http|:authority=localhost|:path=/"),
        ];
        let text = on_request("GET", &[("x-gone", "1")], &ops).response.text();
        assert_eq!(echoed(&text).1, [("Host", "localhost"), ("Connection", "close")]);
    }
}

#[test]
fn path_and_query_take_effect() {
    for path in [
        "/",
        "/new?a=%20b&&c",
        "/no-query?",
        "/a%20b%25%3f%23c",
        "/caf%C3%A9?%C3%A9",
        "/caf\u{e9}",
        "/a?b?c#d",
        "/a#b?c",
        "//double/../up",
        "/projects/group%2Frepo",
        "/%61%2e%2F%41",
        "/a%0d%0ab?%0d%0a",
        "/\"<>^`{|}~!$&'()*+,:@[]",
    ] {
        let escaped: String = path.bytes().map(|byte| format!(r"\x{byte:02x}")).collect();
        for write in [
            format!("replace_header_map_value 0 :path {escaped}"),
            format!("add_header_map_value 0 :path {escaped}"),
            format!("set_header_map_pairs 0 :path={escaped}"),
        ] {
            let text = on_request("GET", &[], &[(write.as_str(), "0")]).response.text();
            assert_eq!(echoed(&text).0, format!("GET {path} HTTP/1.0"));
        }
    }
}

#[test]
fn path_takes_effect_in_the_access_phase_too() {
    let nginx = phases("", "request_headers: replace_header_map_value 0 :path /new?x");
    for path in ["/rewrite?old", "/access?old"] {
        assert_eq!(echoed(&nginx.get(path).text()).0, "GET /new?x HTTP/1.0", "{path}");
    }
}

#[test]
fn method_and_authority_take_effect() {
    let ops = [
        ("replace_header_map_value 0 :method DELETE", "0"),
        ("replace_header_map_value 0 :authority other.example:8080", "0"),
        ("get_header_map_value 0 host", "0 other.example:8080"),
        ("replace_header_map_value 0 Host third.example", "0"),
        ("get_header_map_value 0 :authority", "0 third.example"),
        ("add_header_map_value 0 host last.example", "0"),
        ("add_header_map_value 0 :method PUT", "0"),
        (
            "get_header_map_pairs 0",
            "0 :method=PUT|:scheme=http|:authority=last.example|:path=/|connection=close",
        ),
    ];
    let text = on_request("GET", &[], &ops).response.text();
    let (line, headers) = echoed(&text);
    assert_eq!(line, "PUT / HTTP/1.0");
    assert_eq!(headers, [("Host", "last.example"), ("Connection", "close")]);
}

#[test]
fn a_later_filter_and_a_later_callback_see_what_was_written() {
    let write = "request_headers: replace_header_map_value 0 :scheme https
                 request_headers: replace_header_map_value 0 :path /new%20path?q
                 request_headers: replace_header_map_value 0 :method POST
                 request_headers: replace_header_map_value 0 :authority new.example
                 request_headers: add_header_map_value 0 x-new 1
                 request_headers: remove_header_map_value 0 x-gone
                 response_headers: get_header_map_pairs 0";
    let read = "request_headers: args
                request_headers: get_header_map_pairs 0
                request_headers: get_property ngx.scheme
                log: get_header_map_pairs 0";
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", write), ("probe", "b", read)]))
        .server(
            r#"
            location / {
                rewrite_by_lua_block {
                    call("on_http_request_headers", a)
                    call("on_http_request_headers", b)
                }
                content_by_lua_block { ngx.say("ok") }
                header_filter_by_lua_block { call("on_http_response_headers", a) }
            }
            "#,
        )
        .start();
    nginx.request("GET", "/old").header("x-gone", "1").send();
    let map = "get_header_map_pairs 0 -> 0 :method=POST|:scheme=https|:authority=new.example|:path=/new%20path?q\
               |connection=close|x-new=1";
    assert_eq!(
        of(&nginx, "request_headers")[6..],
        ["args -> num_headers=6 eos=1", map, "get_property ngx.scheme -> 0 http"]
    );
    assert_eq!(of(&nginx, "response_headers"), [map]);
    assert_eq!(of(&nginx, "log"), [map]);
}

#[test]
fn request_headers_change_in_the_body_callback_too() {
    let run = Probe::new(
        "request_body: add_header_map_value 0 x-size 5
         request_body: replace_header_map_value 0 :path /body",
    )
    .request("POST", |request| request.body("hello"));
    assert_eq!(
        run.of("request_body"),
        ["add_header_map_value 0 x-size 5 -> 0", "replace_header_map_value 0 :path /body -> 0"]
    );
    let text = run.response.text();
    assert_eq!(echoed(&text).0, "POST /body HTTP/1.0");
    assert_eq!(upstream(&text, "x-size"), ["5"]);
    assert!(text.ends_with("\r\n\r\nhello"), "{text}");
}

const ANSWER: &str = r#"
content_by_lua_block {
    ngx.header["X-Two"] = { "1", "2" }
    ngx.header["X-Gone"] = { "1", "2" }
    ngx.header["X-Replaced"] = { "1", "2" }
    ngx.header["Content-Type"] = "text/x-old"
    ngx.header["Content-Length"] = 5
    ngx.print("hello")
}
"#;

/// Runs ops on the response headers of [`ANSWER`].
fn on_response(ops: Ops<'_>) -> (Outcome, Response) {
    let run = check_with("response_headers", ops, |probe| probe.content(ANSWER));
    let response = run.response.clone();
    (run, response)
}

#[test]
fn response_headers_are_added_replaced_and_removed() {
    let (_run, response) = on_response(&[
        ("add_header_map_value 2 X-New a", "0"),
        ("add_header_map_value 2 x-new b", "0"),
        ("add_header_map_value 2 x-two 3", "0"),
        ("add_header_map_value 2 set-cookie c=1", "0"),
        ("add_header_map_value 2 set-cookie c=2", "0"),
        ("replace_header_map_value 2 X-Replaced new", "0"),
        ("replace_header_map_value 2 content-type text/x-new", "0"),
        ("replace_header_map_value 2 server guest", "0"),
        ("remove_header_map_value 2 x-gone", "0"),
        ("remove_header_map_value 2 x-never-there", "0"),
        ("get_header_map_value 2 x-new", "0 a"),
        ("get_header_map_value 2 x-replaced", "0 new"),
        ("get_header_map_value 2 x-gone", "1"),
        ("get_header_map_value 2 content-type", "0 text/x-new"),
    ]);
    assert_eq!(response.header_all("x-new"), ["a", "b"]);
    assert_eq!(response.header_all("x-two"), ["1", "2", "3"]);
    assert_eq!(response.header_all("set-cookie"), ["c=1", "c=2"]);
    assert_eq!(response.header_all("x-replaced"), ["new"]);
    assert_eq!(response.header_all("content-type"), ["text/x-new"]);
    assert_eq!(response.header_all("server"), ["guest"]);
    assert_eq!(response.header_all("x-gone"), [""; 0]);
    assert_eq!(response.header_all("content-length"), ["5"]);
    assert_eq!(response.text(), "hello");
}

#[test]
fn all_response_headers_are_set() {
    let (run, response) = on_response(&[
        ("set_header_map_pairs 2 x-b=1|:status=418|x-two=a|x-b=2|x-two=b", "0"),
        ("get_header_map_pairs 2", "0 :status=418|x-b=1|x-two=a|x-b=2|x-two=b"),
    ]);
    assert_eq!(response.status, 418);
    let mut names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_by_key(|name| name.to_lowercase());
    assert_eq!(
        names,
        ["Connection", "Date", "Server", "Transfer-Encoding", "x-b", "x-b", "x-two", "x-two"]
    );
    assert_eq!(response.header_all("x-b"), ["1", "2"]);
    assert_eq!(response.header_all("x-two"), ["a", "b"]);
    assert_eq!(response.text(), "hello");
    drop(run);
}

#[test]
fn status_takes_effect() {
    for (status, reason) in [
        ("404", "Not Found"),
        ("200", "OK"),
        ("599", ""),
        ("600", ""),
        ("999", ""),
        ("201", "Created"),
    ] {
        let write = format!("replace_header_map_value 2 :status {status}");
        let answer = format!("0 {status}");
        let (_run, response) = on_response(&[
            (write.as_str(), "0"),
            ("get_header_map_value 2 :status", answer.as_str()),
        ]);
        assert_eq!(response.status.to_string(), status);
        assert_eq!(response.reason, reason);
        assert_eq!(response.text(), "hello");
    }
}

#[test]
fn headers_have_the_order_that_the_filter_gave() {
    const PAIRS: &str = "z-1=a|x-b=1|set-cookie=1|a-2=b|set-cookie=2|x-a=2|m-3=c|z-1=d";
    const ADDED: [&str; 4] = ["z-1 a", "a-2 b", "m-3 c", "a-2 d"];
    let add = |map: u32| ADDED.map(|pair| format!("add_header_map_value {map} {pair}"));
    let lines = |callback: &str, ops: &[String]| -> String {
        ops.iter().map(|op| format!("{callback}: {op}\n")).collect()
    };
    let pairs = |map: u32| [format!("set_header_map_pairs {map} {PAIRS}")];
    let answer = [format!("send_local_response 403 '' no {PAIRS} -1")];
    let shown = |headers: Vec<(&str, &str)>| -> String {
        let ours = |name: &str| name.contains('-') && name != "Content-Length";
        let kept = headers.into_iter().filter(|(name, _)| ours(name));
        let kept = kept.filter(|(name, _)| !["Content-Type", "Transfer-Encoding"].contains(name));
        let kept: Vec<String> =
            kept.map(|(name, value)| format!("{}={value}", name.to_lowercase())).collect();
        kept.join("|")
    };
    let added = "x-a=old|x-b=old|z-1=a|a-2=b|m-3=c|a-2=d";
    for (script, of_request, of_response) in [
        (lines("request_headers", &add(0)), Some(added), None),
        (lines("response_headers", &add(2)), None, Some(added)),
        (lines("request_headers", &pairs(0)), Some(PAIRS), None),
        (lines("response_headers", &pairs(2)), None, Some(PAIRS)),
        (lines("request_headers", &answer), None, Some(PAIRS)),
        (lines("response_headers", &answer), None, Some(PAIRS)),
    ] {
        let upstream = Upstream::start(|_, out| {
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: old\r\nX-B: old\r\n\r\nhi")
        });
        let run = Probe::new(&script)
            .content(&format!("proxy_pass {};", upstream.url()))
            .request("GET", |request| request.header("X-A", "old").header("X-B", "old"));
        if let Some(wanted) = of_request {
            let got = upstream.take().headers;
            let got = got.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(shown(got), wanted, "{script}");
        }
        if let Some(wanted) = of_response {
            assert_eq!(shown(headers(&run.response)), wanted, "{script}");
        }
    }
}

#[test]
fn a_map_of_the_largest_size() {
    let ops = [
        // One was given.
        (r"set_header_map_pairs 0 *1025", "0"),
        ("get_header_map_size 0", "0 2096"),
        ("add_header_map_value 0 a 1", "10"),
        ("get_header_map_value 0 a", "1"),
        ("replace_header_map_value 0 k 1", "0"),
        (r"add_header_map_value 0 big \R{1048576}v", "10"),
        (r"replace_header_map_value 0 big \R{1048576}v", "10"),
        ("get_header_map_value 0 big", "1"),
    ];
    let run = check("request_headers", &ops);
    assert_eq!(upstream(&run.response.text(), "k"), ["1"]);
    run.nginx.expect_log("a filter makes more of a header map than the host holds");

    // nginx itself takes no more than a thousand headers of a client, and so of the echo server's.
    let run = check("request_headers", &[("set_header_map_pairs 0 *990", "0")]);
    assert_eq!(upstream(&run.response.text(), "k"), ["v"; 990]);
}

#[test]
fn framing_of_a_request_is_nginx_business() {
    let ops = [
        ("replace_header_map_value 0 content-length 2", "0"),
        ("get_header_map_value 0 content-length", "0 2"),
        ("add_header_map_value 0 transfer-encoding chunked", "0"),
        ("get_header_map_value 0 transfer-encoding", "0 chunked"),
        ("replace_header_map_value 0 connection upgrade", "0"),
        ("get_header_map_value 0 connection", "0 upgrade"),
        ("add_header_map_value 0 content-length 3", "0"),
        (
            "get_header_map_pairs 0",
            "0 :method=POST|:scheme=http|:authority=localhost|:path=/|connection=upgrade\
             |content-length=3|transfer-encoding=chunked",
        ),
    ];
    let removed = [
        ("remove_header_map_value 0 content-length", "0"),
        ("remove_header_map_value 0 connection", "0"),
        ("get_header_map_value 0 content-length", "1"),
        ("get_header_map_value 0 connection", "1"),
    ];
    let set = [("set_header_map_pairs 0 content-length=99|x-a=1", "0")];
    for ops in [&ops[..], &removed, &set] {
        let run = Probe::new(&script("request_headers", ops)).request("POST", |r| r.body("hello"));
        expect(&run.nginx, "request_headers", ops);
        let text = run.response.text();
        assert_eq!(upstream(&text, "content-length"), ["5"]);
        assert_eq!(upstream(&text, "transfer-encoding"), [""; 0]);
        assert_eq!(upstream(&text, "connection"), ["close"]);
        assert!(text.ends_with("\r\n\r\nhello"), "{text}");
    }
}

#[test]
fn a_content_length_that_a_filter_changes_is_taken_away() {
    for ops in [
        [
            ("replace_header_map_value 2 content-length 2", "0"),
            ("get_header_map_value 2 content-length", "0 2"),
        ],
        [
            ("add_header_map_value 2 Content-Length 99", "0"),
            ("get_header_map_value 2 content-length", "0 99"),
        ],
        [
            ("replace_header_map_value 2 content-length ''", "0"),
            ("get_header_map_value 2 content-length", "0 ''"),
        ],
        [
            ("remove_header_map_value 2 content-length", "0"),
            ("get_header_map_value 2 content-length", "1"),
        ],
    ] {
        let (_run, response) = on_response(&ops);
        assert_eq!(response.header_all("content-length"), [""; 0], "{ops:?}");
        assert_eq!(response.header_all("transfer-encoding"), ["chunked"], "{ops:?}");
        assert_eq!(response.text(), "hello", "{ops:?}");
    }
}

#[test]
fn framing_of_a_response_is_nginx_business() {
    let (_run, response) = on_response(&[
        ("replace_header_map_value 2 content-length 5", "0"),
        ("add_header_map_value 2 transfer-encoding gzip", "0"),
        ("get_header_map_value 2 transfer-encoding", "0 gzip"),
        ("replace_header_map_value 2 connection keep-alive", "0"),
        ("get_header_map_value 2 connection", "0 keep-alive"),
        ("remove_header_map_value 2 connection", "0"),
        ("get_header_map_value 2 connection", "1"),
    ]);
    assert_eq!(response.header_all("content-length"), ["5"]);
    assert_eq!(response.header_all("transfer-encoding"), [""; 0]);
    assert_eq!(response.header_all("connection"), ["close"]);
    assert_eq!(response.text(), "hello");
}
