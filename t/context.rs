//! Contexts: when they come and go, and which one a host function works on.

use super::ops::{check, contexts, wait_for, wait_for_lines};
use super::support::{Nginx, Probe, Running};

#[test]
fn a_life_in_order() {
    let nginx = Probe::new(
        "vm_start,configure,create,request_headers,request_body,response_headers,done,log,delete: ids
         response_body@first: ids",
    )
    .content("content_by_lua_block { ngx.print('content') }")
    .start();
    nginx.request("POST", "/").body("hello").send();
    let mut expected =
        vec!["vm_start ids -> id=1 root=1".to_string(), "configure ids -> id=1 root=1".into()];
    let stream = |id: u32| {
        [
            "create",
            "request_headers",
            "request_body",
            "response_headers",
            "response_body",
            "done",
            "log",
            "delete",
        ]
        .map(|callback| format!("{callback} ids -> id={id} root=1"))
    };
    expected.extend(stream(2));
    assert_eq!(wait_for_lines(&nginx, "probe", expected.len()), expected);
    // The next request is another stream of the same root.
    nginx.request("POST", "/").body("hello").send();
    expected.extend(stream(3));
    assert_eq!(wait_for_lines(&nginx, "probe", expected.len()), expected);
}

#[test]
fn requests_of_one_connection_are_streams_of_their_own() {
    let nginx = Probe::new("create,delete: ids").start();
    let request = nginx.request("GET", "/");
    let mut connection = nginx.connect();
    for _ in 0..3 {
        assert_eq!(connection.request(&request).status, 200);
    }
    drop(connection);
    let lines: Vec<String> = [2, 3, 4]
        .iter()
        .flat_map(|id| {
            ["create", "delete"].map(|callback| format!("{callback} ids -> id={id} root=1"))
        })
        .collect();
    assert_eq!(wait_for_lines(&nginx, "probe", 6), lines);
}

#[test]
fn each_plugin_context_has_its_own_stream_of_a_request() {
    let script = "configure,create,request_headers,response_headers,done: ids
                  request_headers: get_property plugin_name
                  request_headers: get_buffer_bytes 7 0 7";
    let [a, b, c] = ["#conf a", "#conf b", "#conf c"].map(|start| format!("{start}\n{script}"));
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("one", "a", &a), ("one", "b", &b), ("two", "c", &c)]))
        .server(
            r#"
            location / {
                access_by_lua_block {
                    call("on_http_request_headers", a)
                    call("on_http_request_headers", b)
                    call("on_http_request_headers", c)
                }
                content_by_lua_block { ngx.print("content") }
                header_filter_by_lua_block {
                    call("on_http_response_headers", c)
                    call("on_http_response_headers", b)
                    call("on_http_response_headers", a)
                }
            }
            "#,
        )
        .start();
    nginx.get("/");
    let life = |root: u32, stream: u32, conf: &str, plugin: &str| {
        [
            format!("configure ids -> id={root} root={root}"),
            format!("create ids -> id={stream} root={root}"),
            format!("request_headers ids -> id={stream} root={root}"),
            format!("request_headers get_property plugin_name -> 0 {plugin}"),
            format!("request_headers get_buffer_bytes 7 0 7 -> 0 {conf}"),
        ]
    };
    let rest = |callback: &str, root: u32, stream: u32| {
        format!("{callback} ids -> id={stream} root={root}")
    };
    let mut one = life(1, 2, "#conf a", "one").to_vec();
    one.extend(life(3, 4, "#conf b", "one"));
    one.push(rest("response_headers", 3, 4));
    one.push(rest("response_headers", 1, 2));
    one.push(rest("done", 1, 2));
    one.push(rest("done", 3, 4));
    assert_eq!(wait_for_lines(&nginx, "one", one.len()), one);
    let mut two = life(1, 2, "#conf c", "two").to_vec();
    two.push(rest("response_headers", 1, 2));
    two.push(rest("done", 1, 2));
    assert_eq!(wait_for_lines(&nginx, "two", two.len()), two);
}

#[test]
fn a_subrequest_is_a_stream_of_its_own() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts(
            "",
            &[
                (
                    "probe",
                    "a",
                    "create,request_headers,response_headers,log: ids; log: get_property ngx.uri",
                ),
                ("other", "b", "request_headers: send_local_response 403 '' denied '' -1"),
            ],
        ))
        .server(
            r#"
            rewrite_by_lua_block { call("on_http_request_headers", a) }
            header_filter_by_lua_block { call("on_http_response_headers", a) }
            location /main {
                content_by_lua_block {
                    local first, second = ngx.location.capture_multi({ { "/sub" }, { "/denied" } })
                    ngx.say(first.status, " ", first.body, " ", second.status, " ", second.body)
                }
            }
            location /sub { content_by_lua_block { ngx.print("sub") } }
            location /denied {
                rewrite_by_lua_block { call("on_http_request_headers", b) }
                header_filter_by_lua_block { return }
                content_by_lua_block { ngx.print("not denied") }
            }
            "#,
        )
        .start();
    assert_eq!(nginx.get("/main").text(), "200 sub 403 denied\n");
    let lines = [
        "create ids -> id=2 root=1",
        "request_headers ids -> id=2 root=1",
        "create ids -> id=3 root=1",
        "request_headers ids -> id=3 root=1",
        "response_headers ids -> id=3 root=1",
        "response_headers ids -> id=2 root=1",
    ];
    let all = wait_for_lines(&nginx, "probe", lines.len() + 4);
    assert_eq!(all[..lines.len()], lines);
    // Which of them ends first is nginx's choice.
    let mut ends: Vec<&[String]> = all[lines.len()..].chunks(2).collect();
    ends.sort();
    let end = |id: u32, uri: &str| {
        [format!("log ids -> id={id} root=1"), format!("log get_property ngx.uri -> 0 {uri}")]
    };
    assert_eq!(ends, [end(2, "/main"), end(3, "/sub")]);
}

#[test]
fn an_internal_redirect_stays_the_same_stream() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", "create,request_headers,response_headers,done: ids")]))
        .server(
            r#"
            access_by_lua_block { call("on_http_request_headers", a) }
            header_filter_by_lua_block { call("on_http_response_headers", a) }
            location /exec { content_by_lua_block { ngx.exec("/target") } }
            location /named { content_by_lua_block { ngx.exec("@target") } }
            location /error {
                error_page 404 /target;
                content_by_lua_block { ngx.exit(404) }
            }
            location /rewrite { try_files /none /target; }
            location /target { content_by_lua_block { ngx.print("target") } }
            location @target { content_by_lua_block { ngx.print("target") } }
            "#,
        )
        .start();
    let mut expected = Vec::new();
    for (id, path) in (2..).zip(["/exec", "/named", "/error", "/rewrite"]) {
        assert_eq!(nginx.get(path).text(), "target", "{path}");
        // nginx enters the access phase once before and once behind the redirect; try_files comes before content.
        for callback in ["create", "request_headers", "request_headers", "response_headers", "done"]
        {
            expected.push(format!("{callback} ids -> id={id} root=1"));
        }
        assert_eq!(wait_for_lines(&nginx, "probe", expected.len()), expected, "{path}");
    }
}

/// A server in which `/drop` makes a plugin context, uses it under `?use`, and drops it; `/other` tells filter `a` of a
/// request.
fn dropping(dropped: &str, a: &str) -> Running {
    let make = format!(
        r#"
        location /drop {{
            content_by_lua_block {{
                local ctx = call("on_configure", plugins.probe, [==[{dropped}]==])
                if ngx.var.args == "use" then
                    call("on_http_request_headers", ctx)
                end
                ctx = nil
                collectgarbage()
                collectgarbage()
                ngx.say("dropped")
            }}
        }}
        "#
    );
    Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", a)]))
        .server(&make)
        .server(
            r#"
            location /other {
                access_by_lua_block { call("on_http_request_headers", a) }
                content_by_lua_block { ngx.say("other") }
            }
            "#,
        )
        .start()
}

#[test]
fn a_dropped_plugin_context_ends_with_the_next_call() {
    let nginx = dropping("configure,root_done,root_log,root_delete: ids", "configure,create: ids");
    nginx.get("/drop");
    nginx.get("/other");
    let expected = [
        "configure ids -> id=1 root=1",
        "root_done ids -> id=1 root=1",
        "root_delete ids -> id=1 root=1",
        "configure ids -> id=2 root=2",
        "create ids -> id=3 root=2",
    ];
    assert_eq!(nginx.guest_log("probe"), expected);
}

#[test]
fn a_dropped_plugin_context_outlives_its_streams() {
    let nginx =
        dropping("configure,create,done,log,delete,root_done,root_delete: ids", "create: ids");
    assert_eq!(nginx.get("/drop?use").text(), "dropped\n");
    let expected = [
        "configure ids -> id=1 root=1",
        "create ids -> id=2 root=1",
        "done ids -> id=2 root=1",
        "log ids -> id=2 root=1",
        "delete ids -> id=2 root=1",
        "root_done ids -> id=1 root=1",
        "root_delete ids -> id=1 root=1",
    ];
    nginx.get("/other");
    assert_eq!(nginx.guest_log("probe")[..expected.len()], expected);
}

#[test]
fn a_root_that_is_not_done_lives_until_it_says_so() {
    let nginx = dropping(
        "root_done: return 0
         root_delete: ids",
        "request_headers: done
         request_headers: set_effective_context 1
         request_headers: done
         request_headers: done
         done: set_effective_context 1",
    );
    nginx.get("/drop");
    nginx.get("/other");
    let expected = [
        "root_done return 0 -> 0",
        "request_headers done -> 1",
        "request_headers set_effective_context 1 -> 0",
        "request_headers done -> 0",
        "request_headers done -> 1",
        "root_delete ids -> id=1 root=1",
        "done set_effective_context 1 -> 2",
    ];
    assert_eq!(wait_for_lines(&nginx, "probe", expected.len()), expected);
}

#[test]
fn done_counts_only_where_it_is_waited_for() {
    let ops = [("done", "1"), ("set_effective_context root", "0"), ("done", "1")];
    for callback in ["request_headers", "response_headers", "done", "log", "delete"] {
        let run = check(callback, &ops);
        assert_eq!(run.response.status, 200);
    }
    // The answer of a stream's proxy_on_done is not waited for.
    let nginx = Probe::new("done: return 0; log,delete: ids").start();
    nginx.get("/");
    let lines = ["done return 0 -> 0", "log ids -> id=2 root=1", "delete ids -> id=2 root=1"];
    assert_eq!(wait_for_lines(&nginx, "probe", lines.len()), lines);
}

#[test]
fn the_effective_context_lasts_for_one_call() {
    let run = check(
        "request_headers",
        &[
            ("set_effective_context 0", "2"),
            ("set_effective_context 99", "2"),
            ("set_effective_context max", "2"),
            ("get_header_map_value 0 :path", "0 /"),
            ("set_effective_context root", "0"),
            ("get_header_map_value 0 :path", "1"),
            ("get_header_map_pairs 0", "0 ''"),
            ("get_property request.path", "1"),
            ("get_property plugin_name", "0 probe"),
            ("set_property a.b kept", "0"),
            ("set_effective_context self", "0"),
            ("get_header_map_value 0 :path", "0 /"),
            ("get_property a.b", "1"),
            ("set_effective_context root", "0"),
            ("get_property a.b", "0 kept"),
        ],
    );
    assert_eq!(run.response.status, 200);

    let run = Probe::new(
        "request_headers: set_effective_context root
         response_headers: get_header_map_value 0 :path",
    )
    .run();
    assert_eq!(run.of("response_headers"), ["get_header_map_value 0 :path -> 0 /"]);
}

#[test]
fn the_effective_context_in_a_root() {
    let run = check(
        "configure",
        &[
            ("set_effective_context self", "0"),
            ("set_effective_context 1", "0"),
            ("set_effective_context 2", "2"),
            ("get_header_map_value 0 :path", "1"),
        ],
    );
    assert_eq!(run.failures(), [""; 0]);
}

#[test]
fn variables_are_final_in_on_log() {
    let script = "log: get_property ngx.status
                  log: get_property ngx.bytes_sent
                  log: get_property_int response.code
                  log: get_property_int response.total_size
                  log: get_header_map_value 2 x-answer
                  log: get_header_map_value 0 :path";
    let nginx = Probe::new(script)
        .content("content_by_lua_block { ngx.status = 404 ngx.header['x-answer'] = 42 ngx.print(('x'):rep(1000)) }")
        .start();
    let answer = nginx.raw("GET /path?x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let size = answer.len();
    let expected = [
        "get_property ngx.status -> 0 404".to_string(),
        format!("get_property ngx.bytes_sent -> 0 {size}"),
        "get_property_int response.code -> 0 404".into(),
        format!("get_property_int response.total_size -> 0 {size}"),
        "get_header_map_value 2 x-answer -> 0 42".into(),
        "get_header_map_value 0 :path -> 0 /path?x".into(),
    ];
    assert_eq!(wait_for(&nginx, "log", expected.len()), expected);
}

#[test]
fn in_the_log_phase_a_stream_ends_at_once() {
    let script = "create,request_headers,response_headers,done,log,delete: ids
                  response_headers: get_header_map_value 2 :status
                  response_headers: add_header_map_value 2 x-a 1";
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", script)]))
        .server(
            r#"
            location / {
                content_by_lua_block { ngx.print("content") }
                log_by_lua_block {
                    call("on_http_request_headers", a)
                    call("on_http_response_headers", a)
                }
            }
            "#,
        )
        .start();
    assert_eq!(nginx.get("/").status, 200);
    let life = |id: u32, middle: &[&str]| {
        let line = |callback: &str| format!("{callback} ids -> id={id} root=1");
        let mut lines = vec![line("create")];
        lines.extend(middle.iter().map(|line| line.replace("ID", &id.to_string())));
        lines.extend([line("done"), line("log"), line("delete")]);
        lines
    };
    let mut expected = life(2, &["request_headers ids -> id=ID root=1"]);
    expected.extend(life(
        3,
        &[
            "response_headers ids -> id=ID root=1",
            "response_headers get_header_map_value 2 :status -> 0 200",
            "response_headers add_header_map_value 2 x-a 1 -> 2",
        ],
    ));
    assert_eq!(wait_for_lines(&nginx, "probe", expected.len()), expected);
    assert_eq!(nginx.log_texts("lua call failed: "), [""; 0]);
    nginx.expect_log("a change of the response headers came too early or too late");
}
