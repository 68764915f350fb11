//! Headers that nginx or ngx_lua treat in a way of their own: those that nginx has a field for, names with underscores,
//! empty values, content types. What a filter reads back is what is sent.

use super::local_response::headers;
use super::ops::{Ops, contexts, expect, script};
use super::support::{Curl, Nginx, Outcome, Probe, Running, Upstream};

/// Every header of nginx's table of request headers (`ngx_http_headers_in`) that a filter can add.
const REQUEST: [&str; 26] = [
    "if-modified-since",
    "if-unmodified-since",
    "if-match",
    "if-none-match",
    "user-agent",
    "referer",
    "content-range",
    "content-type",
    "range",
    "if-range",
    "te",
    "expect",
    "upgrade",
    "accept-encoding",
    "via",
    "authorization",
    "keep-alive",
    "x-forwarded-for",
    "x-real-ip",
    "accept",
    "accept-language",
    "depth",
    "destination",
    "overwrite",
    "date",
    "cookie",
];

/// Every header of nginx's tables of response headers that a filter can add.
const RESPONSE: [&str; 20] = [
    "server",
    "date",
    "content-encoding",
    "location",
    "refresh",
    "last-modified",
    "content-range",
    "accept-ranges",
    "www-authenticate",
    "proxy-authenticate",
    "expires",
    "e-tag",
    "etag",
    "cache-control",
    "link",
    "content-type",
    "set-cookie",
    "vary",
    "p3p",
    "x-plain",
];

/// Those that nginx does not pass on to an upstream unless it is told to.
const KEPT_BACK: [&str; 4] = ["te", "expect", "upgrade", "keep-alive"];

/// Runs ops on the request's headers. Returns what the upstream got of each header.
fn on_request(sent: &[(&str, &str)], ops: Ops<'_>) -> impl Fn(&str) -> Vec<String> {
    let sink = Upstream::sink();
    let run = Probe::new(&script("request_headers", ops))
        .content(&format!("proxy_pass {};", sink.url()))
        .request("GET", |request| {
            sent.iter().fold(request, |request, (name, value)| request.header(name, value))
        });
    expect(&run.nginx, "request_headers", ops);
    let incoming = sink.take();
    move |name| {
        let all = incoming.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        all.map(|(_, value)| value.clone()).collect()
    }
}

#[test]
fn every_request_header_is_added_to_what_the_client_sent() {
    let sent: Vec<(&str, String)> = REQUEST
        .iter()
        .filter(|name| **name != "expect")
        .map(|name| (*name, format!("\"client-{name}\"")))
        .collect();
    let sent: Vec<(&str, &str)> =
        sent.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let adds: Vec<String> = REQUEST
        .iter()
        .flat_map(|name| ["", "2"].map(|n| format!("add_header_map_value 0 {name} filter{n}")))
        .collect();
    let mut ops: Vec<(&str, &str)> = adds.iter().map(|op| (op.as_str(), "0")).collect();
    ops.push(("get_header_map_value 0 via", "0 \"client-via\""));
    let got = on_request(&sent, &ops);
    for name in REQUEST {
        if KEPT_BACK.contains(&name) {
            continue;
        }
        assert_eq!(got(name), [&format!("\"client-{name}\""), "filter", "filter2"], "{name}");
    }
}

/// What nginx says from 1.31 on of upstreams that send a header twice which it keeps once.
const REPEATED: &str = "upstream sent duplicate header line";

/// One nginx for many scripts: `/?c=N` runs that of index N. All ops must be OK.
fn cases(callback: &str, scripts: &[Vec<String>], upstream: &str) -> Running {
    let names: Vec<String> = (0..scripts.len()).map(|index| format!("c{index}")).collect();
    let scripts: Vec<String> = scripts
        .iter()
        .map(|ops| ops.iter().map(|op| format!("{callback}: {op}\n")).collect())
        .collect();
    let of_all: Vec<(&str, &str, &str)> = names
        .iter()
        .zip(&scripts)
        .map(|(name, script)| ("probe", name.as_str(), script.as_str()))
        .collect();
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &of_all))
        .server(
            &r#"
            location / {
                access_by_lua_block { call("on_http_request_headers", _G["c" .. ngx.var.arg_c]) }
                header_filter_by_lua_block { call("on_http_response_headers", _G["c" .. ngx.var.arg_c]) }
                proxy_pass_header Server;
                proxy_pass_header Date;
                proxy_pass URL;
            }
            "#
            .replace("URL", upstream),
        )
        .start();
    nginx.may_log(REPEATED);
    nginx
}

fn all_ok(nginx: Running) {
    nginx.stop();
    let refused: Vec<String> =
        nginx.guest_log("probe").into_iter().filter(|line| !line.ends_with(" -> 0")).collect();
    assert_eq!(refused, [""; 0]);
}

#[test]
fn every_request_header_is_added_set_and_removed() {
    let steps_and_wanted: [(&[&str], &[&str]); 8] = [
        (&["add b", "add c"], &["b", "c"]),
        (&["add b", "add c", "replace d"], &["d"]),
        (&["add b", "add c", "replace d", "add c"], &["d", "c"]),
        (&["add b", "add c", "remove"], &[]),
        (&["add b", "remove", "add c"], &["c"]),
        (&["replace ''"], &[""]),
        (&["add b", "replace ''", "add c"], &["", "c"]),
        (&["add b", "add ''"], &["b", ""]),
    ];
    let mut scripts = Vec::new();
    let mut wanted = Vec::new();
    for name in REQUEST.iter().filter(|name| !KEPT_BACK.contains(name)) {
        for (steps, values) in &steps_and_wanted {
            scripts.push(steps.iter().map(|step| op(0, name, step)).collect());
            wanted.push((name, steps, values));
        }
    }
    let sink = Upstream::sink();
    let nginx = cases("request_headers", &scripts, &sink.url());
    for (index, (name, steps, values)) in wanted.into_iter().enumerate() {
        nginx.get(&format!("/?c={index}"));
        let got = sink.take().headers;
        let got = got.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let got: Vec<&str> = got.map(|(_, value)| value.as_str()).collect();
        assert_eq!(got, *values, "{name} {steps:?}");
    }
    all_ok(nginx);
}

/// `add VALUE`, `replace VALUE` or `remove` of a header as an op of the probe.
fn op(map: u32, name: &str, step: &str) -> String {
    let (what, value) = step.split_once(' ').unwrap_or((step, ""));
    format!("{what}_header_map_value {map} {name} {value}").trim_end().into()
}

#[test]
fn lines_that_the_client_repeats_are_replaced_and_removed() {
    let sent =
        [("via", "1"), ("Via", "2"), ("user-agent", "1"), ("user-agent", "2"), ("referer", "1")];
    let ops = [
        ("replace_header_map_value 0 via 3", "0"),
        ("remove_header_map_value 0 user-agent", "0"),
        ("add_header_map_value 0 referer 2", "0"),
    ];
    let got = on_request(&sent, &ops);
    assert_eq!(
        (got("via"), got("user-agent"), got("referer")),
        (vec!["3".into()], vec![], vec!["1".into(), "2".into()])
    );

    let set = [("set_header_map_pairs 0 via=a|x-a=1|VIA=b|user-agent=|referer=c", "0")];
    let got = on_request(&sent, &set);
    assert_eq!(
        (got("via"), got("user-agent"), got("referer")),
        (vec!["a".into(), "b".into()], vec!["".into()], vec!["c".into()])
    );
}

#[test]
fn a_request_without_a_list_of_headers_changes_nothing_for_others() {
    let sink = Upstream::sink();
    let run = Probe::new("request_headers: add_header_map_value 0 via filter")
        .content(&format!("proxy_pass {};", sink.url()))
        .start();
    // The first request of the worker shows where the lists are, and one of HTTP/0.9 has none.
    for _ in 0..2 {
        run.raw("GET /t\r\n");
        sink.take();
        run.request("GET", "/t").header("via", "client").send();
        let got = sink.take().headers;
        let got = got.iter().filter(|(name, _)| name.eq_ignore_ascii_case("via"));
        let got: Vec<&str> = got.map(|(_, value)| value.as_str()).collect();
        assert_eq!(got, ["client", "filter"]);
    }
}

/// An upstream that answers with these header lines.
fn answering(lines: &str) -> Upstream {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\nhi");
    Upstream::start(move |_, out| out.write_all(head.as_bytes()))
}

/// Runs ops on the headers of such an answer.
pub(crate) fn on_response(lines: &str, directives: &str, ops: Ops<'_>) -> Outcome {
    let upstream = answering(lines);
    let run = Probe::new(&script("response_headers", ops))
        .content(&format!(
            "{directives}\nproxy_pass_header Server; proxy_pass_header Date;\nproxy_pass {};",
            upstream.url()
        ))
        .run();
    expect(&run.nginx, "response_headers", ops);
    run
}

#[test]
fn every_response_header_is_added_set_and_removed() {
    // How many lines the upstream sends, what the filter does, what the client gets.
    let steps_and_wanted: [(usize, &[&str], &[&str]); 13] = [
        (1, &["add \"b\""], &["\"a\"", "\"b\""]),
        (0, &["add \"b\"", "add \"b\""], &["\"b\"", "\"b\""]),
        (1, &["add \"b\"", "replace c"], &["c"]),
        (1, &["add \"b\"", "remove"], &[]),
        (2, &["replace c"], &["c"]),
        (2, &["remove"], &[]),
        (2, &["remove", "add \"b\""], &["\"b\""]),
        (1, &["replace ''"], &[""]),
        (0, &["replace ''"], &[""]),
        (1, &["add ''"], &["\"a\"", ""]),
        (1, &["replace ''", "add \"b\""], &["", "\"b\""]),
        (1, &["replace ''", "replace c"], &["c"]),
        (1, &["replace ''", "remove"], &[]),
    ];
    let mut scripts = Vec::new();
    let mut wanted = Vec::new();
    for name in RESPONSE {
        for (lines, steps, values) in &steps_and_wanted {
            // nginx itself takes one content type of an upstream.
            if name != "content-type" || *lines < 2 {
                scripts.push(steps.iter().map(|step| op(2, name, step)).collect());
                wanted.push((name, *lines, steps, values));
            }
        }
    }
    let heads: Vec<String> = wanted
        .iter()
        .map(|(name, lines, ..)| {
            let lines = format!("{name}: \"a\"\r\n").repeat(*lines);
            format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\nhi")
        })
        .collect();
    let upstream = Upstream::start(move |request, out| {
        let index: usize =
            request.target.strip_prefix("/?c=").and_then(|n| n.parse().ok()).expect("c=N");
        out.write_all(heads[index].as_bytes())
    });
    let nginx = cases("response_headers", &scripts, &upstream.url());
    let mut wrong = Vec::new();
    for (index, (name, lines, steps, values)) in wanted.into_iter().enumerate() {
        let got = nginx.get(&format!("/?c={index}"));
        let got = got.header_all(name);
        if got != *values {
            wrong.push(format!("{name} {lines} {steps:?}: {got:?}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
    all_ok(nginx);
}

#[test]
fn names_with_underscores_are_what_they_are() {
    for directives in ["", "lua_transform_underscores_in_response_headers off;"] {
        let run = on_response(
            "X_Internal_Token: secret\r\nX-Internal-Token: kept\r\nx_internal_token: two\r\nContent_Type: odd\r\n",
            directives,
            &[
                ("get_header_map_value 2 x_internal_token", "0 secret"),
                ("remove_header_map_value 2 X_INTERNAL_TOKEN", "0"),
                ("remove_header_map_value 2 content_type", "0"),
                ("add_header_map_value 2 x_added 1", "0"),
                ("add_header_map_value 2 X_Added 2", "0"),
                ("replace_header_map_value 2 x_set 1", "0"),
                ("replace_header_map_value 2 X_Set 2", "0"),
                ("replace_header_map_value 2 x_empty ''", "0"),
                ("add_header_map_value 2 etag_ 1", "0"),
                ("get_header_map_value 2 x_internal_token", "1"),
                ("get_header_map_value 2 x-internal-token", "0 kept"),
                ("get_header_map_value 2 x-added", "1"),
            ],
        );
        let mut sent = headers(&run.response);
        sent.sort_unstable();
        assert_eq!(
            sent,
            [
                ("Content-Length", "2"),
                ("Content-Type", "text/plain"),
                ("X-Internal-Token", "kept"),
                ("X_Added", "2"),
                ("X_Set", "2"),
                ("etag_", "1"),
                ("x_added", "1"),
                ("x_empty", ""),
            ]
            .into_iter()
            .filter(|(name, _)| *name != "Content-Type"
                || run.response.header("content-type").is_some())
            .collect::<Vec<_>>(),
            "{directives}"
        );

        let run = on_response(
            "X_Internal_Token: secret\r\nX-A: 1\r\n",
            directives,
            &[("set_header_map_pairs 2 a_b=1|A_B=2|c-d=|content-type=a/b", "0")],
        );
        let mut sent = headers(&run.response);
        sent.retain(|(name, _)| !["Content-Length", "Transfer-Encoding"].contains(name));
        sent.sort_unstable();
        assert_eq!(sent, [("A_B", "2"), ("Content-Type", "a/b"), ("a_b", "1"), ("c-d", "")]);
    }
}

/// A server whose answers come from an upstream with these header lines. `/plain` calls the filter itself, `/chain` by a
/// chain. It also speaks HTTP/2.
fn both_ways(lines: &str, script: &str, check: impl Fn(&dyn Fn(&str) -> Vec<String>, &str)) {
    let upstream = answering(lines);
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", script)]))
        .http2()
        .server(
            &r#"
            location /plain {
                access_by_lua_block { call("on_http_request_headers", a) }
                header_filter_by_lua_block { call("on_http_response_headers", a) }
                body_filter_by_lua_block { call("on_http_response_body", a) }
                proxy_pass URL;
            }
            location /chain {
                access_by_lua_block {
                    require("resty.proxy-wasm").new_chain({ a }):access()
                }
                header_filter_by_lua_block { require("resty.proxy-wasm").new_chain({ a }):header_filter() }
                body_filter_by_lua_block { require("resty.proxy-wasm").new_chain({ a }):body_filter() }
                proxy_pass URL;
            }
            "#
            .replace("URL", &upstream.url()),
        )
        .start();
    nginx.may_log(REPEATED);
    for path in ["/plain", "/chain"] {
        let response = nginx.get(path);
        check(&|name| response.header_all(name).into_iter().map(Into::into).collect(), path);
        let answer = Curl::http2(&nginx).get(path);
        let all = |name: &str| -> Vec<String> {
            let of_name = answer.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
            of_name.map(|(_, value)| value.clone()).collect()
        };
        check(&all, path);
    }
}

#[test]
fn over_http2_and_in_chains() {
    both_ways(
        "X_Internal_Token: secret\r\nETag: \"a\"\r\nContent-Type: text/html; charset=utf-8\r\n",
        "response_headers: remove_header_map_value 2 x_internal_token
         response_headers: add_header_map_value 2 etag \"b\"
         response_headers: add_header_map_value 2 x_new 1
         response_headers: replace_header_map_value 2 x-empty ''
         response_headers: replace_header_map_value 2 expires ''
         response_headers: replace_header_map_value 2 content-type image/png",
        |all, path| {
            assert_eq!(all("x_internal_token"), [""; 0], "{path}");
            assert_eq!(all("etag"), ["\"a\"", "\"b\""], "{path}");
            assert_eq!(all("x_new"), ["1"], "{path}");
            assert_eq!(
                (all("x-empty"), all("expires")),
                (vec!["".into()], vec!["".into()]),
                "{path}"
            );
            assert_eq!(all("content-type"), ["image/png"], "{path}");
        },
    );
}

#[test]
fn beside_local_responses() {
    for callback in ["request_headers", "response_headers"] {
        both_ways(
            "X_Internal_Token: secret\r\nETag: \"a\"\r\nETag: \"b\"\r\nX-Other: 1\r\nContent-Type: text/html; charset=utf-8\r\n",
            &format!(
                "{callback}: send_local_response 403 '' no x_why=1|X_Why=2|etag=\"c\"|etag=\"d\"|server=a|server=b|x-empty=|te=1|expires= -1"
            ),
            |all, path| {
                let path = format!("{callback} {path}");
                assert_eq!(all("x_internal_token"), [""; 0], "{path}");
                assert_eq!(all("x-other"), [""; 0], "{path}");
                assert_eq!(all("x_why"), ["1", "2"], "{path}");
                assert_eq!(all("etag"), ["\"c\"", "\"d\""], "{path}");
                assert_eq!(all("server"), ["a", "b"], "{path}");
                assert_eq!(
                    (all("x-empty"), all("expires")),
                    (vec!["".into()], vec!["".into()]),
                    "{path}"
                );
                assert_eq!(all("content-type"), ["text/plain"], "{path}");
            },
        );
    }
    both_ways(
        "Content-Type: text/html; charset=utf-8\r\n",
        "response_headers: send_local_response 403 '' no content-type=image/png -1",
        |all, path| assert_eq!(all("content-type"), ["image/png"], "{path}"),
    );
}

#[test]
fn what_nginx_sets_for_an_upstream_takes_the_place_of_every_line() {
    let content = "proxy_pass http://unix:echo.sock; proxy_set_header Connection close;
                   proxy_set_header X-Real-IP nginx; proxy_set_header Via ''; proxy_set_header X-A nginx;";
    let script = ["x-real-ip", "via", "x-a"]
        .map(|name| format!("request_headers: add_header_map_value 0 {name} filter\n").repeat(2));
    let run = Probe::new(&script.concat()).content(content).run();
    let text = run.response.text().to_lowercase();
    assert!(!text.contains("filter") && !text.contains("via:"), "{text}");
    assert_eq!(text.matches("x-real-ip: nginx\r\n").count(), 1, "{text}");
    assert_eq!(text.matches("x-a: nginx\r\n").count(), 1, "{text}");
}
