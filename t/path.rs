//! The path that a filter writes is one that a client could have sent: nginx decides the same about both.

use super::ops::{contexts, expect, script};
use super::support::{Nginx, Probe, Running, root};
use std::fs;

/// What nginx makes of a path: `$uri` and `$args`, or nothing when it refuses it.
type Reading = Option<Vec<u8>>;

const SHOW: &str = r#"content_by_lua_block { ngx.print(ngx.var.uri, "\n", ngx.var.args or "") }"#;

/// A server that shows what it made of a client's path, and at `/filter?n=N` of the path that a filter wrote.
fn server(merge_slashes: &str, paths: &[Vec<u8>]) -> Running {
    let scripts: String = paths
        .iter()
        .map(|path| {
            let text: String = path.iter().map(|byte| format!(r"\x{byte:02x}")).collect();
            format!("request_headers: replace_header_map_value 0 :path '{text}'\n")
        })
        .collect();
    Nginx::new()
        .guest("probe")
        .file("scripts", scripts)
        .log_level("error")
        .http(
            r#"
            init_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                local plugin = assert(wasm.load("probe", "probe.wasm"))
                filters = {}
                for line in io.lines("scripts") do
                    filters[#filters + 1] = assert(wasm.on_configure(plugin, line))
                end
                tell = wasm.on_http_request_headers
            }
            "#,
        )
        .server(&format!(
            "merge_slashes {merge_slashes};
            location / {{ {SHOW} }}
            location = /filter {{
                rewrite_by_lua_block {{ assert(tell(filters[tonumber(ngx.var.arg_n)])) }}
                {SHOW}
            }}"
        ))
        .start()
}

fn of_client(nginx: &Running, path: &[u8]) -> Reading {
    let request = [b"GET ".as_slice(), path, b" HTTP/1.0\r\nHost: localhost\r\n\r\n"].concat();
    let mut connection = nginx.connect();
    connection.write(&request);
    let answer = connection.answer_to("GET").expect("an answer");
    match answer.status {
        200 => Some(answer.body),
        400 => None,
        other => panic!("{}: {other}", path.escape_ascii()),
    }
}

fn of_filter(nginx: &Running, number: usize) -> Reading {
    let query = format!("n={number}");
    let reading = nginx.get(&format!("/filter?{query}")).body;
    (reading != format!("/filter\n{query}").as_bytes()).then_some(reading)
}

fn compare(merge_slashes: &str, paths: &[Vec<u8>]) {
    let nginx = server(merge_slashes, paths);
    let (mut taken, mut refused) = (0, 0);
    for (index, path) in paths.iter().enumerate() {
        let of_client = of_client(&nginx, path);
        if of_client.is_some() {
            taken += 1
        } else {
            refused += 1
        }
        assert_eq!(
            of_filter(&nginx, index + 1),
            of_client,
            "{} with merge_slashes {merge_slashes}",
            path.escape_ascii()
        );
    }
    assert!(taken > 10 && refused > 10, "{taken} {refused}");
}

#[test]
fn a_filter_can_write_what_a_client_can_send() {
    let mut paths: Vec<Vec<u8>> = [
        "/",
        "/a",
        "/a/",
        "/a?",
        "/a?b",
        "/a?b?c",
        "/a#b",
        "/a?b#c",
        "/a#b?c",
        "/?",
        "/#",
        "/%3f?%3f",
        "/.",
        "/./",
        "/..",
        "/../",
        "/a/.",
        "/a/..",
        "/a/./b",
        "/a/../b",
        "/a/../../b",
        "/a/b/../../..",
        "/a/..?b",
        "/a/.?b",
        "/..?a",
        "/.#a",
        "/a/..#b",
        "/...",
        "/.a",
        "/..a",
        "/a../b",
        "//",
        "//a",
        "/a//b",
        "//..",
        "//../a",
        "/a//../b",
        "/a//../../b",
        "/.//a",
        "/..//a",
        "/../../../../etc/passwd",
        "/a/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%2e%2e%2fetc%2fpasswd",
        "/.%2e/etc/passwd",
        "/%2E./etc/passwd",
        "/a%2f..%2f..%2fetc/passwd",
        "/%252e%252e/etc/passwd",
        "/..%5c..%5cetc",
        "/..\\..\\etc",
        "/a/%2e%2e",
        "/a/%2e",
        "/%2e",
        "/a%2fb",
        "/a%2Fb",
        "//%2f/a",
        "/%2f%2f",
        "/a%20b",
        "/a+b",
        "/a%2bb",
        "/caf%C3%A9",
        "/caf\u{e9}",
        "/a%00",
        "/%00",
        "/a%00/../b",
        "/a?%00",
        "/a%0ab",
        "/a%0d%0ab",
        "/a%7f",
        "/a%01b",
        "/%ff",
        "/%",
        "/%a",
        "/%zz",
        "/%2",
        "/%2g",
        "/%g2",
        "/a?%",
        "/a?%zz",
        "/a#%",
        "/%%",
        "/%25",
        "/%2525",
        "/%23",
        "/a b",
        "/a\tb",
        "/a\x0bb",
        "/a\x01",
        "/a\x7f",
        "/a?b\x7f",
        "/a#b\x01",
        "/a?b c",
        "a",
        "*",
        "?a",
        "#a",
        ".",
        "../a",
        "%2fa",
        "\\a",
        "/\"<>^`{|}",
        "/~!$&'()*,;=:@[]",
        "/a;b=c/..",
        "/a:b",
    ]
    .iter()
    .map(|path| path.as_bytes().to_vec())
    .collect();
    paths.push(b"/a\0b".to_vec());
    paths.push(b"/caf\xe9\xff?\x80".to_vec());
    paths.push([b"/".as_slice(), &b"../".repeat(100)].concat());
    paths.push([&b"/a".repeat(100)[..], &b"/..".repeat(100)].concat());
    paths.push([&b"/a".repeat(100)[..], &b"/%2e%2E".repeat(101)].concat());
    for merge_slashes in ["on", "off"] {
        compare(merge_slashes, &paths);
    }
}

#[test]
fn nginx_and_the_host_agree_about_any_path() {
    const PARTS: [&[u8]; 16] = [
        b"/", b"/", b"//", b".", b"..", b"/..", b"/../", b"%2e", b"%2F", b"%25", b"%3f", b"a",
        b"?", b"#", b"%4", b"+",
    ];
    // A generator of numbers that are the same in each run (Knuth, MMIX).
    let mut state: u64 = 20;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let paths: Vec<Vec<u8>> = (0..400)
        .map(|_| {
            let mut path = b"/".to_vec();
            (0..next() % 9).for_each(|_| path.extend_from_slice(PARTS[next() % PARTS.len()]));
            path
        })
        .collect();
    for merge_slashes in ["on", "off"] {
        compare(merge_slashes, &paths);
    }
}

/// The op runs in a location that serves files; nothing but the files below its root may come out. Each answer is that
/// of a request for `start.txt`.
fn on_files(op: &str, status: &str) -> (u16, String) {
    let ops = [(op, status)];
    let nginx = Probe::new(&script("request_headers", &ops))
        .content("root html;")
        .nginx(|nginx| {
            nginx
                .file("html/start.txt", "the start")
                .file("html/inside.txt", "inside")
                .file("html/a%2fb.txt", "an escape")
                .file("outside.txt", "outside")
        })
        .start();
    let response = nginx.get("/start.txt");
    expect(&nginx, "request_headers", &ops);
    if status != "0" {
        nginx.expect_log("wasm plugin \"probe\": proxy_on_request_headers: ");
    }
    (response.status, response.text())
}

#[test]
fn no_path_leads_out_of_the_root() {
    for path in [
        "/../outside.txt",
        "/./../outside.txt",
        "//../outside.txt",
        "/%2e%2e/outside.txt",
        "/%2e%2e%2foutside.txt",
        "/a/..%2f../outside.txt",
        "/inside.txt/../../outside.txt",
        "/../../../../../../../../etc/passwd",
    ] {
        for write in [
            format!("replace_header_map_value 0 :path {path}"),
            format!("add_header_map_value 0 :path {path}"),
            format!("set_header_map_pairs 0 :path={path}"),
        ] {
            let answer = on_files(&write, "2");
            assert_eq!(answer, (200, "the start".into()), "{write}");
        }
    }
}

#[test]
fn a_path_is_resolved_before_a_file_is_looked_for() {
    for (path, answer) in [
        ("/inside.txt", "inside"),
        ("/a/../inside.txt", "inside"),
        ("/%69nside.txt?x", "inside"),
        ("//inside.txt#y", "inside"),
        ("/a%252fb.txt", "an escape"),
    ] {
        let write = format!("replace_header_map_value 0 :path {path}");
        assert_eq!(on_files(&write, "0"), (200, answer.into()), "{path}");
    }
}

#[test]
fn variables_that_lead_to_files_cannot_be_set() {
    for name in [
        "uri",
        "document_uri",
        "request_uri",
        "document_root",
        "realpath_root",
        "request_filename",
        "query_string",
        "request",
        "host",
        "URI",
        "Document_Root",
    ] {
        let write = format!("set_property ngx.{name} /etc/passwd");
        assert_eq!(on_files(&write, "10"), (200, "the start".into()), "{name}");
    }
}

#[test]
fn a_query_is_one_that_a_client_can_send() {
    let script = r"
        request_headers: set_property ngx.args 'a b'
        request_headers: set_property args a\x01
        request_headers: set_property ngx.ARGS a\x23b
        request_headers: set_property ngx.args 'a HTTP/1.1\r\nX: y'
        request_headers: set_property ngx.args a=%zz&\xff?
    ";
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts("", &[("probe", "a", script)]))
        .server(&format!(
            "location / {{ rewrite_by_lua_block {{ call('on_http_request_headers', a) }} {SHOW} }}"
        ))
        .start();
    assert_eq!(nginx.get("/t?old").body, b"/t\na=%zz&\xff?");
    let answers: Vec<String> = nginx
        .guest_log("probe")
        .iter()
        .map(|line| line.rsplit(" -> ").next().unwrap_or_default().to_string())
        .collect();
    assert_eq!(answers, ["2", "2", "2", "2", "0"]);
    nginx.expect_log("a query may hold no white space, control character or #");
    nginx.expect_log("a value may hold no CR, LF or NUL");
}

/// The example of `docs/semantics.md`, with `/private/` closed to everyone.
fn example(path: &str) -> Running {
    let docs = fs::read_to_string(root().join("docs/semantics.md")).expect("the docs");
    let section = docs.split("\n## Paths\n").nth(1).expect("the section");
    let block = section.split("```nginx\n").nth(1).expect("an example").split("```").next();
    let script = format!("request_headers: replace_header_map_value 0 :path {path}");
    Nginx::new()
        .guest("probe")
        .file("html/private/secret.txt", "a secret")
        .file("html/public/a%2fb.txt", "public")
        .http(&contexts("", &[("probe", "filter", &script)]))
        .http("init_worker_by_lua_block { wasm = require('resty.proxy-wasm') }\n")
        .server("location /private/ { deny all; }\nlocation /public/ { }\n")
        .server(block.expect("an end"))
        .start()
}

#[test]
fn the_example_looks_for_the_location_again() {
    let nginx = example("/private/secret.txt");
    assert_eq!(nginx.get("/").status, 403);
    nginx.expect_log("access forbidden by rule");
    let nginx = example("/public/a%252fb.txt?x");
    assert_eq!(nginx.get("/").text(), "public");
}

#[test]
fn a_path_stays_in_its_location() {
    let nginx = Nginx::new()
        .guest("probe")
        .file("html/private/secret.txt", "not for clients, but for this location")
        .http(&contexts(
            "",
            &[(
                "probe",
                "a",
                "request_headers: replace_header_map_value 0 :path /private/secret.txt",
            )],
        ))
        .server(
            "location /private/ { deny all; }
            location / { rewrite_by_lua_block { call('on_http_request_headers', a) } }",
        )
        .start();
    assert_eq!(nginx.get("/").text(), "not for clients, but for this location");
}

/// A server whose filter reads the path, behind each way in which nginx comes to another path, and one whose filter
/// writes one.
fn ways() -> Running {
    const READ: &str = "request_headers,log: get_header_map_value 0 :path
        request_headers: get_property request.path; request_headers: get_property request.url_path";
    const WRITE: &str = "request_headers: replace_header_map_value 0 :path /written%2Fpath?q=%zz";
    Nginx::new()
        .guest("probe")
        .echo()
        .http(&contexts("", &[("probe", "a", READ), ("writer", "w", WRITE)]))
        .server(
            r#"
            location / {
                rewrite_by_lua_block { call("on_http_request_headers", a) }
                content_by_lua_block { ngx.exit(204) }
            }
            location = /main { content_by_lua_block { ngx.print(ngx.location.capture("/sub b?x=1").status) } }
            location = /auth { auth_request /check; content_by_lua_block { ngx.exit(204) } }
            location = /exec { rewrite_by_lua_block { ngx.exec("/there%2Fb", "z=1") } }
            location = /error { error_page 403 /denied; deny all; }
            location = /last { rewrite ^ /after?v=1 last; }
            location = /named { try_files /none @named; }
            location @named {
                rewrite_by_lua_block { call("on_http_request_headers", a) }
                content_by_lua_block { ngx.exit(204) }
            }
            location = /args {
                rewrite_by_lua_block {
                    ngx.req.set_uri_args("new=1")
                    call("on_http_request_headers", a)
                }
                content_by_lua_block { ngx.exit(204) }
            }
            location = /writes {
                rewrite_by_lua_block {
                    local jump = ngx.var.arg_jump
                    call("on_http_request_headers", w)
                    call("on_http_request_headers", a)
                    if jump then
                        ngx.exec("/behind")
                    end
                }
                log_by_lua_block { ngx.log(ngx.NOTICE, "logged target: ", ngx.var.request_uri) }
                proxy_pass http://unix:echo.sock;
            }
            location /with-uri/ {
                rewrite_by_lua_block { call("on_http_request_headers", w) }
                proxy_pass http://unix:echo.sock:/base/;
            }
            location /with-variable/ {
                rewrite_by_lua_block { call("on_http_request_headers", w) }
                proxy_pass http://unix:echo.sock:$request_uri;
            }
            "#,
        )
        .start()
}

/// What the filter read of a request: `:path`, `request.path` and `request.url_path`.
fn read(nginx: &Running, path: &str) -> Vec<String> {
    let before = nginx.guest_log("probe").len();
    nginx.get(path);
    let lines = super::ops::wait_for_lines(nginx, "probe", before + 4);
    let answer = |line: &String| line.rsplit(" -> ").next().unwrap_or_default().to_string();
    let mut answers: Vec<String> = lines[before..].iter().map(answer).collect();
    assert_eq!(answers.pop(), answers.first().cloned(), "{path}: the log reads another path");
    answers
}

#[test]
fn a_filter_reads_the_path_that_its_request_has() {
    let nginx = ways();
    for (path, seen) in [
        ("/%61/../b%2Fc?d=%zz", ["/%61/../b%2Fc?d=%zz", "/%61/../b%2Fc"]),
        ("/a?", ["/a?", "/a"]),
        ("/main?ignored", ["/sub%20b?x=1", "/sub%20b"]),
        ("/auth?ignored", ["/check", "/check"]),
        ("/exec?ignored", ["/there/b?z=1", "/there/b"]),
        ("/error?ignored", ["/denied", "/denied"]),
        ("/last?w", ["/after?v=1&w", "/after"]),
        ("/named?n=%41", ["/named?n=%41", "/named"]),
        ("/args?old", ["/args?new=1", "/args"]),
    ] {
        let [whole, url] = seen.map(|text| format!("0 {text}"));
        assert_eq!(read(&nginx, path), [whole.clone(), whole, url], "{path}");
    }
    nginx.expect_log("access forbidden by rule");
}

#[test]
fn what_a_filter_wrote_is_not_the_path_of_where_nginx_went_then() {
    let nginx = ways();
    nginx.get("/writes?jump=1");
    let lines = super::ops::wait_for_lines(&nginx, "probe", 7);
    let paths: Vec<_> =
        lines.iter().filter(|line| line.contains("request_headers get_header")).collect();
    // The second location has the filter, too.
    let ends: Vec<_> = paths.iter().map(|line| line.rsplit(" -> ").next()).collect();
    assert_eq!(ends, [Some("0 /written%2Fpath?q=%zz"), Some("0 /behind")], "{lines:?}");
}

#[test]
fn an_upstream_gets_the_bytes_that_a_filter_wrote() {
    let nginx = ways();
    for (path, line) in [
        ("/writes", "GET /written%2Fpath?q=%zz HTTP/1.0"),
        ("/with-variable/", "GET /written%2Fpath?q=%zz HTTP/1.0"),
        // nginx leaves its own URI part out, and encodes the path again.
        ("/with-uri/", "GET /written/path?q=%zz HTTP/1.0"),
    ] {
        assert_eq!(super::ops::echoed(&nginx.get(path).text()).0, line, "{path}");
    }
    assert_eq!(nginx.log_texts("logged target: "), ["/writes"]);
}
