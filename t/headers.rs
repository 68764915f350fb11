//! Header maps: reading them.

use super::ops::{check, check_with, contexts, expect, of, script};
use super::support::{Nginx, Probe, Response};

#[test]
fn request_headers_in_order_with_pseudo_headers_first() {
    let ops = [
        ("args", "num_headers=9 eos=1"),
        (
            "get_header_map_pairs 0",
            "0 :method=GET|:scheme=http|:authority=Example.com:81|:path=/a%20b/..?x=%41&y\
             |x-two=1|accept=*/*|x-empty=|x-two=A b|connection=close",
        ),
        ("get_header_map_size 0", "0 112"),
        ("get_header_map_value 0 :method", "0 GET"),
        ("get_header_map_value 0 :scheme", "0 http"),
        ("get_header_map_value 0 :authority", "0 Example.com:81"),
        ("get_header_map_value 0 :path", "0 /a%20b/..?x=%41&y"),
        ("get_header_map_value 0 host", "0 Example.com:81"),
        ("get_header_map_value 0 HOST", "0 Example.com:81"),
        ("get_header_map_value 0 x-two", "0 1"),
        ("get_header_map_value 0 X-TWO", "0 1"),
        ("get_header_map_value 0 x-empty", "0 ''"),
        ("get_header_map_value 0 x-missing", "1"),
        ("get_header_map_value 0 ''", "1"),
        ("get_header_map_value 0 :status", "1"),
        (r"get_header_map_value 0 x-two\0", "1"),
    ];
    let nginx = Probe::new(&script("request_headers", &ops)).start();
    nginx
        .request("GET", "/a%20b/..?x=%41&y")
        .header("X-Two", "1")
        .header("HOST", "Example.com:81")
        .header("Accept", "*/*")
        .header("X-Empty", "")
        .header("X-Two", "A b")
        .send();
    expect(&nginx, "request_headers", &ops);
}

#[test]
fn request_arguments_are_those_of_the_request() {
    let nginx =
        Probe::new("request_headers: args; request_headers: get_header_map_pairs 0").start();
    nginx.raw("GET /old HTTP/1.0\r\n\r\n");
    nginx.request("GET", "http://localhost/absolute?x").send();
    nginx.request("POST", "/").body("").send();
    nginx.request("POST", "/").body("a").send();
    nginx.request("POST", "/").chunks(&["a", "b"]).send();
    nginx.request("OPTIONS", "/").header("X-A", "\u{e9}\t").send();
    let expected = [
        "args -> num_headers=3 eos=1",
        "get_header_map_pairs 0 -> 0 :method=GET|:scheme=http|:path=/old",
        "args -> num_headers=5 eos=1",
        "get_header_map_pairs 0 -> 0 :method=GET|:scheme=http|:authority=localhost|:path=/absolute?x|connection=close",
        "args -> num_headers=6 eos=1",
        "get_header_map_pairs 0 -> 0 :method=POST|:scheme=http|:authority=localhost|:path=/|connection=close|content-length=0",
        "args -> num_headers=6 eos=0",
        "get_header_map_pairs 0 -> 0 :method=POST|:scheme=http|:authority=localhost|:path=/|connection=close|content-length=1",
        "args -> num_headers=6 eos=0",
        "get_header_map_pairs 0 -> 0 :method=POST|:scheme=http|:authority=localhost|:path=/|connection=close|transfer-encoding=chunked",
        "args -> num_headers=6 eos=1",
        r"get_header_map_pairs 0 -> 0 :method=OPTIONS|:scheme=http|:authority=localhost|:path=/|x-a=\xc3\xa9\x09|connection=close",
    ];
    assert_eq!(of(&nginx, "request_headers"), expected);
}

#[test]
fn many_request_headers() {
    let nginx =
        Probe::new("request_headers: args; request_headers: get_header_map_value 0 x-199").start();
    let mut request = nginx.request("GET", "/");
    for i in 0..200 {
        request = request.header(&format!("X-{i}"), &i.to_string());
    }
    assert_eq!(request.send().status, 200);
    assert_eq!(
        of(&nginx, "request_headers"),
        ["args -> num_headers=205 eos=1", "get_header_map_value 0 x-199 -> 0 199"]
    );
}

/// The pairs of a header map's log line; the order of names in a response is nginx's own, that of repeats is kept.
fn pairs(line: &str) -> Vec<&str> {
    let (_, map) = line.split_once("-> 0 ").expect("a map");
    let mut pairs: Vec<&str> = map.split('|').collect();
    assert!(pairs[0].starts_with(":status="), "{line}");
    pairs.sort_by_key(|pair| pair.split('=').next());
    pairs
}

#[test]
fn response_headers_with_status_first() {
    let ops = [
        ("args", "num_headers=7 eos=0"),
        ("get_header_map_size 2", "0 95"),
        ("get_header_map_value 2 :status", "0 201"),
        ("get_header_map_value 2 x-two", "0 1"),
        ("get_header_map_value 2 SET-COOKIE", "0 a=1"),
        ("get_header_map_value 2 x-missing", "1"),
        ("get_header_map_value 2 :path", "1"),
        // What the request was is still there.
        ("get_header_map_value 0 :path", "0 /"),
        ("get_header_map_value 0 host", "0 localhost"),
        ("get_header_map_pairs 2", ""),
    ];
    let run = Probe::new(&script("response_headers", &ops))
        .content(
            r#"
            content_by_lua_block {
                ngx.status = 201
                ngx.header["X-Two"] = "1"
                ngx.header["Set-Cookie"] = { "a=1", "b=2" }
                ngx.header["Content-Type"] = "text/x-test"
                ngx.header["Content-Length"] = 2
                ngx.print("ok")
            }
            "#,
        )
        .run();
    let mut lines = run.of("response_headers");
    let map = lines.pop().expect("lines");
    let expected = [
        ":status=201",
        "connection=close",
        "content-length=2",
        "content-type=text/x-test",
        "set-cookie=a=1",
        "set-cookie=b=2",
        "x-two=1",
    ];
    assert_eq!(pairs(&map), expected);
    let expected = ops[..ops.len() - 1].iter();
    let expected: Vec<String> = expected.map(|(op, answer)| format!("{op} -> {answer}")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn a_hundred_response_headers() {
    let run = Probe::new(
        "response_headers: get_header_map_value 2 x-1
         response_headers: get_header_map_value 2 x-99
         response_headers: add_header_map_value 2 x-100 more",
    )
    .content(
        r#"
        content_by_lua_block {
            for i = 0, 99 do
                ngx.header["X-" .. i] = tostring(i)
            end
            ngx.say("ok")
        }
        "#,
    )
    .run();
    let expected = [
        "get_header_map_value 2 x-1 -> 0 1",
        "get_header_map_value 2 x-99 -> 0 99",
        "add_header_map_value 2 x-100 more -> 0",
    ];
    assert_eq!(run.of("response_headers"), expected);
    for i in 0..100 {
        let value = i.to_string();
        assert_eq!(run.response.header_all(&format!("x-{i}")), [value.as_str()]);
    }
    assert_eq!(run.response.header_all("x-100"), ["more"]);
}

#[test]
fn abi_0_1_0_reads_a_missing_header_as_empty() {
    let ops = [
        ("args", "num_headers=5"),
        ("get_header_map_value 0 :path", "0 /"),
        ("get_header_map_value 0 x-missing", "0 ''"),
        ("get_header_map_value 1 x-missing", "1"),
        ("get_header_map_value 2 x-missing", "1"),
        ("get_header_map_value 8 x-missing", "2"),
    ];
    check_with("request_headers", &ops, |probe| probe.guest("probe_0_1_0"));
    let ops =
        [("get_header_map_value 2 :status", "0 200"), ("get_header_map_value 2 x-missing", "0 ''")];
    check_with("response_headers", &ops, |probe| probe.guest("probe_0_1_0"));
}

#[test]
fn abi_0_2_0_reads_a_missing_header_as_missing() {
    let ops = [
        ("args", "num_headers=5 eos=1"),
        ("get_header_map_value 0 :path", "0 /"),
        ("get_header_map_value 0 x-missing", "1"),
    ];
    check_with("request_headers", &ops, |probe| probe.guest("probe_0_2_0"));
}

#[test]
fn maps_that_are_not_there() {
    let empty: [&str; 6] = ["1", "3", "4", "5", "6", "7"];
    for callback in ["request_headers", "response_headers", "response_body", "log", "configure"] {
        let ops: Vec<(String, &str)> = empty
            .iter()
            .flat_map(|map| {
                [
                    (format!("get_header_map_pairs {map}"), "0 ''"),
                    (format!("get_header_map_size {map}"), "0 0"),
                    (format!("get_header_map_value {map} a"), "1"),
                ]
            })
            .chain(["8", "9", "-1", "max", "0x80000000"].iter().flat_map(|map| {
                [
                    (format!("get_header_map_pairs {map}"), "2"),
                    (format!("get_header_map_size {map}"), "2"),
                    (format!("get_header_map_value {map} a"), "2"),
                    (format!("set_header_map_pairs {map} a=1"), "2"),
                    (format!("add_header_map_value {map} a 1"), "2"),
                    (format!("replace_header_map_value {map} a 1"), "2"),
                    (format!("remove_header_map_value {map} a"), "2"),
                ]
            }))
            .collect();
        let ops: Vec<(&str, &str)> =
            ops.iter().map(|(op, answer)| (op.as_str(), *answer)).collect();
        let run = Probe::new(&script(&format!("{callback}@first"), &ops)).run();
        expect(&run.nginx, callback, &ops);
    }
}

#[test]
fn maps_of_the_request_and_the_response_have_their_time() {
    let script = [
        "configure",
        "create",
        "request_headers",
        "response_headers",
        "response_body",
        "done",
        "log",
    ]
    .map(|callback| {
        format!(
            "{callback}: get_header_map_value 0 :path
                 {callback}: get_header_map_value 2 :status
                 {callback}: get_header_map_value 2 content-type\n"
        )
    })
    .concat();
    let run = Probe::new(&script)
        .content("default_type text/x-test; content_by_lua_block { ngx.print('ok') }")
        .run();
    let status = |callback: &str, op: &str| {
        let lines = run.of(callback);
        let line = lines.iter().rfind(|line| line.starts_with(op)).expect("a line").clone();
        line.split_once(" -> ").expect("an answer").1.to_owned()
    };
    for callback in
        ["create", "request_headers", "response_headers", "response_body", "done", "log"]
    {
        assert_eq!(status(callback, "get_header_map_value 0 :path"), "0 /", "{callback}");
    }
    assert_eq!(status("configure", "get_header_map_value 0 :path"), "1");
    for callback in ["configure", "create", "request_headers"] {
        assert_eq!(status(callback, "get_header_map_value 2 :status"), "1", "{callback}");
    }
    for callback in ["response_headers", "response_body", "done", "log"] {
        assert_eq!(status(callback, "get_header_map_value 2 :status"), "0 200", "{callback}");
        assert_eq!(
            status(callback, "get_header_map_value 2 content-type"),
            "0 text/x-test",
            "{callback}"
        );
    }
}

#[test]
fn pointers_outside_the_memory() {
    for (callback, map) in [("request_headers", 0), ("response_headers", 2)] {
        let ops = [
            (format!("get_header_map_pairs {map}"), vec![1, 2]),
            (format!("get_header_map_size {map}"), vec![1]),
            (format!("get_header_map_value {map} host"), vec![1, 3, 4]),
            (format!("set_header_map_pairs {map} a=1"), vec![1]),
            (format!("add_header_map_value {map} a 1"), vec![1, 3]),
            (format!("replace_header_map_value {map} a 1"), vec![1, 3]),
            (format!("remove_header_map_value {map} a"), vec![1]),
        ];
        let script: String = ops.iter().map(|(op, _)| format!("{callback}: oob {op}\n")).collect();
        let run = Probe::new(&script).run();
        let expected: Vec<String> = ops
            .iter()
            .flat_map(|(op, pointers)| {
                let name = op.split(' ').next().expect("a name");
                pointers.iter().flat_map(move |i| {
                    ["far", "end"].map(|note| format!("oob {name} arg {i} -> 6 {note}"))
                })
            })
            .collect();
        assert_eq!(run.of(callback), expected);
        assert_eq!(run.response.header("a"), None);
        assert!(!run.response.text().contains("\r\na: "), "{}", run.response.text());
    }
}

#[test]
fn an_allocator_that_fails_while_a_map_is_read() {
    let ops = [
        ("allocator zero", "set"),
        ("get_header_map_pairs 0", "10"),
        ("get_header_map_value 0 :path", "10"),
        ("get_header_map_value 0 x-missing", "1"),
        ("get_header_map_pairs 1", "0 ''"),
        ("allocator oob", "set"),
        ("get_header_map_pairs 0", "6"),
        ("get_header_map_value 0 :path", "6"),
        ("allocator grow", "set"),
        ("get_header_map_value 0 :path", "0 /"),
        ("allocator nested", "set"),
        ("get_header_map_value 0 :method", "0 GET"),
    ];
    check("request_headers", &ops);
}

/// A response without the headers that differ from one to the next.
fn shape(response: &Response) -> (u16, Vec<(&str, &str)>, String) {
    let headers = response.headers.iter();
    let headers = headers
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| *name != "Date");
    (response.status, headers.collect(), response.text())
}

#[test]
fn looking_at_a_response_leaves_its_shape() {
    let look = "response_headers: get_header_map_pairs 2
                response_headers: get_header_map_value 2 content-type
                response_body: get_buffer_bytes 1 0 max";
    let file = "root html; etag on;";
    let cases = [
        ("return 204;", "GET", None),
        ("return 304;", "GET", None),
        ("return 200;", "GET", None),
        ("return 200 body;", "HEAD", None),
        ("return 301 /elsewhere;", "GET", None),
        ("return 404;", "GET", None),
        ("content_by_lua_block { ngx.exit(204) }", "GET", None),
        ("content_by_lua_block { ngx.status = 304; ngx.exit(304) }", "GET", None),
        ("content_by_lua_block { ngx.header['Content-Length'] = 0 }", "GET", None),
        (
            "content_by_lua_block { ngx.header['Content-Type'] = 'text/x-test'; ngx.say('body') }",
            "HEAD",
            None,
        ),
        ("default_type ''; content_by_lua_block { ngx.say('body') }", "GET", None),
        (file, "GET", None),
        (file, "HEAD", None),
        (file, "GET", Some(("If-None-Match", "*"))),
        (file, "GET", Some(("Range", "bytes=1-2"))),
    ];
    let filter = "header_filter_by_lua_block { call('on_http_response_headers', a) }
                  body_filter_by_lua_block { call('on_http_response_body', a) }";
    let locations = cases.iter().enumerate().map(|(i, (content, ..))| {
        let content = format!("{content} rewrite ^ /page break;");
        format!("location /plain/{i}/ {{ {content} }} location /{i}/ {{ {content} {filter} }}\n")
    });
    let nginx = Nginx::new()
        .guest("probe")
        .file("html/page", "a page")
        .http(&contexts("", &[("probe", "a", look)]))
        .server(&locations.collect::<String>())
        .start();
    for (i, (content, method, condition)) in cases.iter().enumerate() {
        let send = |path: &str| {
            let request = nginx.request(method, path);
            condition
                .iter()
                .fold(request, |request, (name, value)| request.header(name, value))
                .send()
        };
        let (filtered, plain) = (send(&format!("/{i}/")), send(&format!("/plain/{i}/")));
        assert_eq!(shape(&filtered), shape(&plain), "{method} {content} {condition:?}");
        assert_eq!(of(&nginx, "response_headers").len(), 2 * (i + 1), "{content}");
    }
}

#[test]
fn a_filter_is_told_of_responses_without_a_body() {
    for (method, content, expected) in [
        ("GET", "return 204;", "eos=1"),
        ("GET", "return 304;", "eos=1"),
        ("HEAD", "return 200 body;", "eos=1"),
        ("GET", "content_by_lua_block { ngx.header['Content-Length'] = 0 }", "eos=1"),
        ("GET", "return 200 body;", "eos=0"),
        ("GET", "content_by_lua_block { ngx.say('body') }", "eos=0"),
    ] {
        let run = Probe::new("response_headers: args; response_headers: get_header_map_pairs 2")
            .content(content)
            .request(method, |request| request);
        let lines = run.of("response_headers");
        let count = pairs(&lines[1]).len();
        assert_eq!(
            lines[0],
            format!("args -> num_headers={count} {expected}"),
            "{method} {content}"
        );
    }
}
