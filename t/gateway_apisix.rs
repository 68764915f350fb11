//! What Apache APISIX's own tests of its filters (`t/wasm/*.t`, 3.18) ask of the host. Each test here names those that it
//! repeats: the gateway of `gateway/gateway.lua` calls as APISIX's `wasm.lua` does, and a script does what the filter does.
//! What is left out asks APISIX alone: schemas, its administration, its configuration file. Two of its tests expect ids of
//! contexts to be given again (`route.t`, 9 and 11); here they count up, as `docs/gateways.md` says.

use super::support::{Nginx, Response, Running, Upstream, root};
use std::fs;

/// `routes`: a location each, which goes through filters in this order: plugin and script.
fn gateway(phase: &str, routes: &[(&str, &[(&str, String)])]) -> Running {
    let lua = fs::read(root().join("t/gateway/gateway.lua")).expect("a file");
    let (mut init, mut locations) = (String::new(), String::new());
    for (route, filters) in routes {
        let list: String = filters
            .iter()
            .map(|(name, script)| {
                init += &format!("load('{name}')\n");
                format!("{{ name = '{name}', conf = [==[{script}]==] }},")
            })
            .collect();
        init += &format!("gateway.set_route('{route}', {{ {list} }})\n");
        locations += &format!(
            "location /{route} {{
                set $wasm_process_req_body '';
                set $wasm_process_resp_body '';
                {phase}_by_lua_block {{ gateway.access('{route}') }}
                header_filter_by_lua_block {{ gateway.header_filter() }}
                body_filter_by_lua_block {{ gateway.body_filter() }}
                proxy_pass http://unix:upstream.sock;
            }}\n"
        );
    }
    Nginx::new()
        .guest("probe")
        .file("lua/gateway.lua", lua)
        .http(&format!(
            r#"
            init_by_lua_block {{
                package.path = ngx.config.prefix() .. "lua/?.lua;" .. package.path
                gateway = require("gateway")
                local loaded = {{}}
                local function load(name)
                    if not loaded[name] then
                        loaded[name] = true
                        gateway.load(name, "probe.wasm")
                    end
                end
                {init}
            }}
            server {{
                listen unix:upstream.sock;
                location / {{
                    content_by_lua_block {{
                        ngx.req.read_body()
                        ngx.header["X-Seen"] = ngx.req.get_headers()["x-user-id"]
                        ngx.say("hello world")
                    }}
                }}
            }}"#
        ))
        .server(&locations)
        .start()
}

/// What a plugin logged in a callback, without the callback's name.
fn lines(nginx: &Running, plugin: &str, callback: &str) -> Vec<String> {
    let all = nginx.guest_log(plugin);
    all.iter().filter_map(|line| Some(line.strip_prefix(callback)?.trim_start().into())).collect()
}

/// `fault-injection.t`, 2, 4, 6, 8 and 10.
#[test]
fn a_filter_answers_with_and_without_a_body() {
    let answer = |body: &str| format!("request_headers: send_local_response 401 '' {body} '' -1");
    for phase in ["access", "rewrite"] {
        let nginx = gateway(
            phase,
            &[
                ("body", &[("fault", answer(r"HIT\n"))]),
                ("none", &[("fault", answer("''"))]),
                ("pass", &[("fault", "request_headers: ids".into())]),
            ],
        );
        let body = nginx.get("/body");
        assert_eq!((body.status, body.text().as_str()), (401, "HIT\n"));
        let none = nginx.get("/none");
        assert_eq!(none.status, 401);
        assert!(none.text().contains("<title>401 Authorization Required</title>"));
        let pass = nginx.get("/pass");
        assert_eq!((pass.status, pass.text().as_str()), (200, "hello world\n"));
    }
}

/// A request through a filter that asks a service for each and answers Continue; `verdict` is what it does with the answer.
fn authorized(authorization: &str, verdict: &[&str]) -> (Response, Running, Upstream) {
    let service = Upstream::start(|request, out| {
        let (status, user) = match request.header("authorization") {
            Some("111") => ("200 OK", ""),
            Some("222") => ("200 OK", "X-User-ID: i-am-an-user\r\n"),
            Some("333") => ("401 Unauthorized", "X-User-ID: i-am-an-user\r\n"),
            _ => ("403 Forbidden", ""),
        };
        write!(out, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n{user}\r\n")
    });
    let host = service.url().trim_start_matches("http://").to_string();
    let verdict: String = verdict.iter().map(|op| format!("http_call_response: {op}\n")).collect();
    let script = format!(
        "request_headers: get_header_map_value 0 :method
         request_headers: get_header_map_value 0 :path
         request_headers: get_header_map_value 0 :scheme
         request_headers: get_header_map_value 0 host
         request_headers: get_property remote_addr
         request_headers: get_header_map_value 0 Authorization
         request_headers: http_call {host} ':scheme=http|host={host}|:path=/auth|X-Forwarded-Proto=http|\
X-Forwarded-Method=GET|X-Forwarded-Host=localhost|X-Forwarded-Uri=/hello|X-Forwarded-For=127.0.0.1|\
Authorization={authorization}' '' '' 3000
         http_call_response: set_effective_context caller
         {verdict}"
    );
    let nginx = gateway("access", &[("hello", &[("auth", script)])]);
    let response = nginx
        .request("GET", "/hello")
        .header("Authorization", authorization)
        .header("X-Forwarded-Host", "apisix.apache.org")
        .send();
    assert_eq!(
        lines(&nginx, "auth", "request_headers get_")[..],
        [
            "header_map_value 0 :method -> 0 GET",
            "header_map_value 0 :path -> 0 /hello",
            "header_map_value 0 :scheme -> 0 http",
            "header_map_value 0 host -> 0 localhost",
            "property remote_addr -> 0 127.0.0.1",
            &format!("header_map_value 0 Authorization -> 0 {authorization}"),
        ]
    );
    (response, nginx, service)
}

/// `forward-auth.t`, 2 to 7.
#[test]
fn a_request_waits_for_its_authorization() {
    let status = "get_header_map_value 6 :status";
    let keep = "replace_header_map_value 0 x-user-id i-am-an-user";
    let deny = "send_local_response 403 '' '' '' -1";
    let deny_told = "send_local_response 403 '' '' x-user-id=i-am-an-user -1";
    for (authorization, verdict, code, wanted, seen, told) in [
        ("111", &[status][..], "200", 200, None, None),
        ("222", &[status, keep], "200", 200, Some("i-am-an-user"), None),
        ("222", &[status], "200", 200, None, None),
        ("333", &[status, deny_told], "401", 403, None, Some("i-am-an-user")),
        ("333", &[status, deny], "401", 403, None, None),
        ("444", &[status, deny], "403", 403, None, None),
    ] {
        let (response, nginx, service) = authorized(authorization, verdict);
        assert_eq!(response.status, wanted, "{authorization}");
        assert_eq!(response.header("x-seen"), seen, "{authorization}");
        assert_eq!(response.header("x-user-id"), told, "{authorization}");
        let answers = lines(&nginx, "auth", "http_call_response");
        assert!(answers.contains(&format!("{status} -> 0 {code}")), "{answers:?}");
        let call = service.take();
        assert_eq!(call.target, "/auth");
        for (name, value) in [
            ("authorization", authorization),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-host", "localhost"),
            ("x-forwarded-uri", "/hello"),
            ("x-forwarded-for", "127.0.0.1"),
        ] {
            assert_eq!(call.header(name), Some(value), "{name}");
        }
    }
}

const SHOW_IDS: &str = "request_headers: ids";

/// `route.t`, 6 and 7; `global-rule.t`, 2 and 4.
#[test]
fn filters_run_in_their_order_and_each_configuration_has_its_context() {
    for phase in ["access", "rewrite"] {
        let show = || SHOW_IDS.to_string();
        let nginx = gateway(
            phase,
            &[
                ("two", &[("log", show()), ("log2", show())]),
                ("three", &[("log", show()), ("log2", show()), ("log2", show())]),
            ],
        );
        assert_eq!(nginx.get("/two").status, 200);
        for plugin in ["log", "log2"] {
            assert_eq!(lines(&nginx, plugin, "request_headers ids ->"), ["id=2 root=1"]);
        }
        let log = nginx.error_log();
        let at = |plugin: &str| log.find(&format!("wasm log {plugin}: request_headers ids"));
        assert!(at("log") < at("log2"), "{phase}");
        // One plugin with the configurations of a global rule and of the route: two streams of one request.
        assert_eq!(nginx.get("/three").status, 200);
        let ids = lines(&nginx, "log2", "request_headers ids ->");
        assert_eq!(ids.len(), 3);
        assert_eq!(ids[1..], ["id=5 root=3", "id=6 root=4"]);
    }
}

/// `route.t`, 9 and 11, but for the numbers of streams.
#[test]
fn each_route_of_a_service_has_a_context_of_its_own() {
    let show = || SHOW_IDS.to_string();
    let nginx = gateway("access", &[("foo", &[("log", show())]), ("bar", &[("log", show())])]);
    for path in ["/foo", "/bar", "/foo", "/bar"] {
        assert_eq!(nginx.get(path).status, 200);
    }
    let ids = lines(&nginx, "log", "request_headers ids ->");
    let roots: Vec<&str> =
        ids.iter().filter_map(|line| Some(line.split_once("root=")?.1)).collect();
    assert_eq!(roots, ["1", "3", "1", "3"]);
}

/// `request-body.t`, 2, 3, 5, 7 and 9.
#[test]
fn a_filter_that_asks_for_the_request_body_reads_a_part_of_it() {
    let read = "request_body: get_buffer_bytes 0 1 3";
    let asks = format!("request_headers: set_property wasm_process_req_body true\n{read}");
    let nginx = gateway(
        "access",
        &[
            ("asks", &[("first", asks.clone())]),
            ("quiet", &[("second", read.into())]),
            ("both", &[("third", asks), ("fourth", read.into())]),
        ],
    );
    for path in ["/asks", "/quiet", "/both"] {
        assert_eq!(nginx.request("POST", path).body("hello").send().status, 200);
    }
    // The Go SDK takes an address of 0 for "not found".
    assert_eq!(nginx.request("POST", "/asks").send().status, 200);
    let got = |plugin: &str| lines(&nginx, plugin, "request_body get_buffer_bytes 0 1 3 ->");
    assert_eq!(got("first"), ["0 ell", "0 ''"]);
    assert_eq!(got("second"), [""; 0]);
    assert_eq!(got("third"), ["0 ell"]);
    assert_eq!(got("fourth"), [""; 0]);
}

/// `response-rewrite.t`, 2, 4 and 6.
#[test]
fn a_filter_that_asks_for_the_response_body_reads_it() {
    let header = "response_headers: replace_header_map_value 2 x-wasm apisix";
    let read = "response_body@more: get_buffer_bytes 1 0 max";
    let asks = format!("response_headers: set_property wasm_process_resp_body true\n{read}");
    let nginx = gateway(
        "access",
        &[
            ("header", &[("first", header.into())]),
            ("body", &[("second", asks.clone())]),
            ("both", &[("third", asks), ("fourth", format!("{header}\n{read}"))]),
        ],
    );
    assert_eq!(nginx.get("/header").header("x-wasm"), Some("apisix"));
    assert_eq!(nginx.get("/body").text(), "hello world\n");
    let both = nginx.get("/both");
    assert_eq!((both.header("x-wasm"), both.text().as_str()), (Some("apisix"), "hello world\n"));
    let got = |plugin: &str| lines(&nginx, plugin, "response_body get_buffer_bytes 1 0 max ->");
    assert_eq!(got("second"), [r"0 hello world\x0a"]);
    assert_eq!(got("third"), [r"0 hello world\x0a"]);
    assert_eq!(got("fourth"), [""; 0]);
}
