//! Properties: the whole list with its types, nginx's variables, and what guests keep.

use super::ops::{Ops, check, check_with, expect, of, script};
use super::support::{Outcome, Probe};
use resty_proxy_wasm::abi::PROPERTIES;
use std::time::{SystemTime, UNIX_EPOCH};

/// A request as it is on the wire.
const REQUEST: &str = "POST /a%20b/c?x=1&y=%2F HTTP/1.1\r\n\
    Host: example.test:8080\r\n\
    Connection: close\r\n\
    X-Repeat: one\r\n\
    x-repeat: two\r\n\
    Referer: http://from.test/\r\n\
    User-Agent: prober/1\r\n\
    X-Request-ID: r-17\r\n\
    Content-Length: 5\r\n\
    \r\n\
    hello";

/// The values in a request's first callback.
const OF_REQUEST: Ops<'static> = &[
    ("get_property request.path", "0 /a%20b/c?x=1&y=%2F"),
    ("get_property request.url_path", "0 /a%20b/c"),
    ("get_property request.host", "0 example.test:8080"),
    ("get_property request.scheme", "0 http"),
    ("get_property request.method", "0 POST"),
    ("get_property request.referer", "0 http://from.test/"),
    ("get_property request.useragent", "0 prober/1"),
    ("get_property request.id", "0 r-17"),
    ("get_property request.protocol", "0 HTTP/1.1"),
    ("get_property request.query", "0 x=1&y=%2F"),
    ("get_property_int request.size", "0 5"),
    ("get_property request.headers.x-repeat", "0 one"),
    ("get_property request.headers.USER-AGENT", "0 prober/1"),
    ("get_property request.headers.host", "0 example.test:8080"),
    ("get_property request.headers.:method", "0 POST"),
    ("get_property request.headers.missing", "1"),
    (
        "get_property_map request.headers",
        "0 :method=POST|:scheme=http|:authority=example.test:8080|:path=/a%20b/c?x=1&y=%2F|connection=close\
         |x-repeat=one|x-repeat=two|referer=http://from.test/|user-agent=prober/1|x-request-id=r-17|content-length=5",
    ),
    ("get_property destination.address", "0 127.0.0.1:PORT"),
    ("get_property_int destination.port", "0 PORT"),
    ("get_property_bool connection.mtls", "0 false"),
    ("get_property plugin_name", "0 probe"),
    ("get_property plugin_root_id", "0 of the root"),
    ("get_property plugin_vm_id", "0 of the vm"),
    ("get_property node", "0 node-1"),
    ("get_property cluster_name", "0 cluster-1"),
    ("get_property route_name", "0 route-1"),
    ("get_property_int listener_direction", "0 1"),
    ("get_property xds.node", "0 node-1"),
    ("get_property xds.cluster_name", "0 cluster-1"),
    ("get_property xds.route_name", "0 route-1"),
    ("get_property_int xds.listener_direction", "0 1"),
    // nginx has nothing of the kind.
    ("get_property connection.subject_local_certificate", "1"),
    ("get_property connection.termination_details", "1"),
    ("get_property upstream.tls_version", "1"),
    ("get_property upstream.local_address", "1"),
    ("get_property upstream.transport_failure_reason", "1"),
    // Not without TLS.
    ("get_property connection.requested_server_name", "1"),
    ("get_property connection.tls_version", "1"),
    ("get_property connection.subject_peer_certificate", "1"),
    ("get_property connection.sha256_peer_certificate_digest", "1"),
    // There is no response yet, and no upstream.
    ("get_property response.code", "1"),
    ("get_property response.headers", "1"),
    ("get_property response.headers.x-a", "1"),
    ("get_property response.grpc_status", "1"),
    ("get_property upstream.address", "1"),
    ("get_property upstream.port", "1"),
];

/// The values when all is over.
const OF_RESPONSE: Ops<'static> = &[
    ("get_property request.path", "0 /a%20b/c?x=1&y=%2F"),
    ("get_property request.headers.x-repeat", "0 one"),
    ("get_property_int request.total_size", "0 REQUEST"),
    ("get_property_int response.code", "0 201"),
    ("get_property response.code_details", "0 via_upstream"),
    ("get_property_int response.flags", "0 0"),
    ("get_property_int response.grpc_status", "0 7"),
    ("get_property response.headers.x-a", "0 1"),
    ("get_property response.headers.X-A", "0 1"),
    ("get_property response.headers.:status", "0 201"),
    ("get_property response.headers.missing", "1"),
    ("get_property_map response.trailers", "0 ''"),
    ("get_property_int response.size", "0 BODY"),
    ("get_property_int response.total_size", "0 RESPONSE"),
    ("get_property upstream.address", "0 127.0.0.1:PORT"),
    ("get_property_int upstream.port", "0 PORT"),
];

/// Properties whose value the tests below work out.
const ELSEWHERE: &[&str] = &[
    "request.time",
    "request.duration",
    "source.address",
    "source.port",
    "connection.id",
    // t/vendor.rs
    "plugin_vm_memory",
    "x_request_id",
];

const VARIABLES: &str = r#"
    set $node node-1;
    set $cluster_name cluster-1;
    set $route_name route-1;
    location /upstream {
        add_header X-A 1;
        add_header grpc-status 7;
        return 201 "a body";
    }"#;

/// An upstream that is reached over TCP: the server itself.
const OVER_TCP: &str = "proxy_pass http://127.0.0.1:$server_port/upstream;";

#[test]
fn every_property_has_its_value_and_type() {
    let text = script("request_headers", OF_REQUEST) + &script("log", OF_RESPONSE);
    let nginx = Probe::new(&text)
        .options("root_id = 'of the root', vm_id = 'of the vm'")
        .content(OVER_TCP)
        .nginx(|nginx| nginx.server(VARIABLES))
        .start();
    let answer = nginx.raw(REQUEST);
    nginx.stop();

    let port = nginx.port().to_string();
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    let numbers = [
        ("PORT", port),
        ("REQUEST", REQUEST.len().to_string()),
        ("RESPONSE", answer.len().to_string()),
        ("BODY", (answer.len() - head).to_string()),
    ];
    for (callback, ops) in [("request_headers", OF_REQUEST), ("log", OF_RESPONSE)] {
        let expected = ops.iter().map(|(op, value)| {
            let value = numbers
                .iter()
                .fold(value.to_string(), |value, (name, number)| value.replace(name, number));
            format!("{op} -> {value}")
        });
        assert_eq!(of(&nginx, callback), expected.collect::<Vec<_>>());
    }
}

#[test]
fn no_property_is_left_out() {
    let tested: Vec<&str> = [OF_REQUEST, OF_RESPONSE]
        .concat()
        .iter()
        .filter_map(|(op, _)| op.split(' ').nth(1))
        .chain(ELSEWHERE.iter().copied())
        .collect();
    for property in PROPERTIES {
        assert!(tested.contains(&property.path), "{} has no test", property.path);
    }
}

/// The number that a script's line logged.
fn number(run: &Outcome, callback: &str, op: &str) -> i128 {
    let lines = run.of(callback);
    let line = lines.iter().find_map(|line| line.strip_prefix(op)?.strip_prefix(" -> 0 "));
    line.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{lines:?}"))
}

#[test]
fn times_are_nanoseconds() {
    let now = || {
        i128::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_nanos())
            .expect("small")
    };
    let before = now();
    let run = Probe::new(
        "request_headers,log: get_property_int request.time
         request_headers,log: get_property_int request.duration",
    )
    .content("content_by_lua_block { ngx.sleep(0.2) ngx.say('late') }")
    .run();
    let after = now();

    const MS: i128 = 1_000_000;
    let (time, duration) = ("get_property_int request.time", "get_property_int request.duration");
    let start = number(&run, "request_headers", time);
    // nginx's own clock stands still between two turns of its loop.
    assert!((before - 100 * MS..after).contains(&start), "{before} {start} {after}");
    assert!((start - number(&run, "log", time)).abs() <= MS);
    let late = number(&run, "log", duration);
    // Its timers and its time are read from two clocks, each in whole milliseconds.
    assert!((190 * MS..=after - before + 100 * MS).contains(&late), "{late}");
    assert!((0..late).contains(&number(&run, "request_headers", duration)));
}

#[test]
fn addresses_are_those_of_the_connection() {
    let run = Probe::new(
        "response_headers: get_property source.address
         response_headers: get_property_int source.port
         response_headers: get_property_int connection.id",
    )
    .nginx(|nginx| {
        nginx.server(r#"add_header X-Source "$remote_addr:$remote_port $remote_port $connection";"#)
    })
    .run();
    let source: Vec<&str> = run.response.header("x-source").expect("a header").split(' ').collect();
    expect(
        &run.nginx,
        "response_headers",
        &[
            ("get_property source.address", &format!("0 {}", source[0])),
            ("get_property_int source.port", &format!("0 {}", source[1])),
            ("get_property_int connection.id", &format!("0 {}", source[2])),
        ],
    );
}

#[test]
fn what_stands_in_for_a_name_that_was_not_given() {
    let run = Probe::new(
        "response_headers: get_property request.id
         response_headers: get_property node
         response_headers: get_property cluster_name
         response_headers: get_property route_name
         response_headers: get_property plugin_root_id
         response_headers: get_property plugin_vm_id
         response_headers: get_property_int request.size
         response_headers: get_property request.query
         response_headers: get_property request.referer
         response_headers: get_property upstream.address
         response_headers: get_property upstream.port",
    )
    .nginx(|nginx| nginx.server("add_header X-Id $request_id; add_header X-Node $hostname;"))
    .run();
    let header = |name| format!("0 {}", run.response.header(name).expect("a header"));
    expect(
        &run.nginx,
        "response_headers",
        &[
            ("get_property request.id", &header("x-id")),
            ("get_property node", &header("x-node")),
            ("get_property cluster_name", "1"),
            ("get_property route_name", "1"),
            ("get_property plugin_root_id", "0 probe"),
            ("get_property plugin_vm_id", "0 ''"),
            ("get_property_int request.size", "0 0"),
            ("get_property request.query", "1"),
            ("get_property request.referer", "1"),
            ("get_property upstream.address", "0 unix:echo.sock"),
            ("get_property upstream.port", "1"),
        ],
    );
}

#[test]
fn the_protocol_is_spelled_as_in_the_specification() {
    let run = Probe::new("request_headers: get_property request.protocol")
        .request("GET", |request| request.http10());
    expect(&run.nginx, "request_headers", &[("get_property request.protocol", "0 HTTP/1.0")]);
}

#[test]
fn code_details_tell_who_answered() {
    let details = "get_property response.code_details";
    let run = Probe::new(&format!("response_headers: {details}"))
        .content("content_by_lua_block { ngx.say('here') }")
        .run();
    expect(&run.nginx, "response_headers", &[(details, "0 direct_response")]);
    let run = Probe::new(&format!(
        "request_headers: send_local_response 403 'not you' '' '' -1\nlog: {details}"
    ))
    .run();
    expect(&run.nginx, "log", &[(details, "0 not you")]);
}

#[test]
fn the_response_map_is_that_of_the_response() {
    let run = Probe::new(
        "response_headers: get_property_map response.headers
         response_headers: replace_header_map_value 2 x-a 2
         response_headers: get_property response.headers.x-a",
    )
    .content(
        "content_by_lua_block { ngx.header.x_a = 1 ngx.header.content_length = 2 ngx.print('ok') }",
    )
    .run();
    let lines = run.of("response_headers");
    let map = lines[0].strip_prefix("get_property_map response.headers -> 0 ").expect("a map");
    let mut pairs: Vec<&str> = map.split('|').collect();
    assert_eq!(pairs[0], ":status=200");
    // ngx.resp.get_headers has no order.
    pairs.sort_unstable();
    assert_eq!(
        pairs,
        [":status=200", "connection=close", "content-length=2", "content-type=text/plain", "x-a=1"]
    );
    assert_eq!(lines[2], "get_property response.headers.x-a -> 0 2");
}

#[test]
fn paths_name_variables_of_nginx() {
    let run = check_with(
        "request_headers",
        &[
            ("get_property ngx.uri", "0 /"),
            ("get_property uri", "0 /"),
            ("get_property ngx.host", "0 localhost"),
            ("get_property host", "0 localhost"),
            ("get_property ngx.request_method", "0 GET"),
            ("get_property ngx.http_host", "0 localhost"),
            ("get_property http_host", "0 localhost"),
            ("get_property ngx.arg_missing", "1"),
            ("get_property ngx.mine", "0 of nginx"),
            ("get_property mine", "0 of nginx"),
            ("get_property ngx.empty", "0 ''"),
            ("get_property ngx.from_map", "0 mapped"),
            ("get_property ngx.HOST", "0 localhost"),
            // No variable has such a name.
            ("get_property ngx.unheard_of", "1"),
            ("get_property unheard_of", "1"),
            ("get_property ngx", "1"),
            ("get_property ngx.", "1"),
            ("get_property ngx.uri.more", "1"),
            ("get_property other.uri", "1"),
            (r"get_property_raw 'a b'", "1"),
            (r"get_property_raw '\xff\xfe'", "1"),
            (r"get_property_raw ''", "1"),
            (r"get_property_raw '\0'", "1"),
            (r"get_property_raw '\0\0\0'", "1"),
            (r"get_property_raw 'ngx\0\R{3000}x'", "1"),
            // One NUL at the end is tolerated.
            (r"get_property_raw 'request\0method\0'", "0 GET"),
            (r"get_property_raw 'uri\0'", "0 /"),
            (r"get_property_raw 'request\0method\0\0'", "1"),
            ("get_property request.unheard_of", "1"),
            ("get_property request", "0 GET / HTTP/1.1"),
        ],
        |probe| {
            probe.nginx(|nginx| {
                nginx
                    .http("map $uri $from_map { default mapped; }")
                    .server("set $mine 'of nginx'; set $empty '';")
            })
        },
    );
    assert_eq!(run.failures(), [""; 0]);
}

#[test]
fn writable_variables_are_set() {
    let run = check_with(
        "request_headers",
        &[
            ("set_property ngx.mine new", "0"),
            ("get_property ngx.mine", "0 new"),
            ("get_property mine", "0 new"),
            ("set_property other 'one segment'", "0"),
            ("get_property ngx.other", "0 one segment"),
            ("set_property ngx.empty ''", "0"),
            ("get_property ngx.empty", "0 ''"),
            ("set_property ngx.args z=9", "0"),
            ("get_property request.query", "0 z=9"),
        ],
        |probe| {
            probe.nginx(|nginx| {
                nginx.server(
                    r#"
                    set $mine old;
                    set $other old;
                    set $empty full;
                    add_header X-Seen "$mine, $other, [$empty], $args";
                    "#,
                )
            })
        },
    );
    assert_eq!(run.response.header("x-seen"), Some("new, one segment, [], z=9"));
}

#[test]
fn read_only_variables_are_not_set() {
    let run = check(
        "request_headers",
        &[
            ("set_property ngx.uri /other", "10"),
            ("set_property host other", "10"),
            ("set_property ngx.request_method PUT", "10"),
            ("get_property ngx.uri", "0 /"),
            ("get_property host", "0 localhost"),
        ],
    );
    for name in ["uri", "host", "request_method"] {
        run.nginx.expect_log(&format!(
            r#"wasm plugin "probe": proxy_on_request_headers: nginx variable "{name}" cannot be set"#
        ));
    }
}

#[test]
fn other_paths_are_kept_for_the_stream() {
    let kept: Ops<'_> = &[
        ("get_property mine.a.b", "0 value"),
        ("get_property ngx.unheard_of", "0 kept"),
        ("get_property single", "0 word"),
        (r"get_property_raw 'odd \xff'", r"0 \x00\x01"),
        ("get_property mine.empty", "0 ''"),
        ("get_property request.path", "0 /mine"),
    ];
    let missing: Vec<(&str, &str)> = kept[..5].iter().map(|(op, _)| (*op, "1")).collect();
    let set: Ops<'_> = &[
        ("set_property mine.a.b first", "0"),
        ("set_property mine.a.b value", "0"),
        ("set_property ngx.unheard_of kept", "0"),
        ("set_property single word", "0"),
        (r"set_property_raw 'odd \xff' '\0\x01'", "0"),
        ("set_property mine.empty ''", "0"),
        ("set_property request.path /mine", "0"),
    ];
    let text = script("request_headers", &missing)
        + &script("request_headers", set)
        + &script("request_headers,response_headers,log", kept);
    let nginx = Probe::new(&text).start();
    // The second request must not see what the first one kept.
    for _ in 0..2 {
        assert_eq!(nginx.get("/").status, 200);
    }
    nginx.stop();
    let twice = |ops: &[(&str, &str)]| -> Vec<String> {
        let lines: Vec<String> =
            ops.iter().map(|(op, answer)| format!("{op} -> {answer}")).collect();
        [lines.clone(), lines].concat()
    };
    assert_eq!(of(&nginx, "request_headers"), twice(&[&missing, set, kept].concat()));
    assert_eq!(of(&nginx, "response_headers"), twice(kept));
    assert_eq!(of(&nginx, "log"), twice(kept));
}

/// What a plugin context may read when there is no request, and what it keeps.
const OUTSIDE: Ops<'static> = &[
    ("get_property plugin_root_id", "0 probe"),
    ("get_property plugin_name", "0 probe"),
    ("get_property plugin_vm_id", "0 ''"),
    ("get_property_int listener_direction", "0 1"),
    ("get_property request.path", "1"),
    ("get_property request.headers", "1"),
    ("get_property request.headers.host", "1"),
    ("get_property request.time", "1"),
    ("get_property request.size", "1"),
    ("get_property response.code", "1"),
    ("get_property response.trailers", "1"),
    ("get_property source.address", "1"),
    ("get_property connection.id", "1"),
    ("get_property connection.mtls", "1"),
    ("get_property ngx.host", "1"),
    ("get_property host", "1"),
    ("get_property unheard_of", "1"),
    ("set_property mine.a kept", "0"),
    ("get_property mine.a", "0 kept"),
    ("set_property ngx.host kept", "0"),
    ("get_property ngx.host", "0 kept"),
];

#[test]
fn outside_a_request() {
    check("configure", OUTSIDE);
    let run = Probe::new("")
        .options(&format!("vm_config = [==[{}]==]", script("vm_start", OUTSIDE)))
        .run();
    expect(&run.nginx, "vm_start", OUTSIDE);
}

#[test]
fn abi_0_1_0_has_the_same_properties() {
    check_with(
        "request_headers",
        &[
            ("get_property request.path", "0 /"),
            ("get_property missing", "1"),
            ("set_property mine.a kept", "0"),
            ("get_property mine.a", "0 kept"),
        ],
        |probe| probe.guest("probe_0_1_0"),
    );
}
