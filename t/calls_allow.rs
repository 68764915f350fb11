//! What filters may call: the option and the setting `calls`, and how names become addresses.

use super::support::{Nginx, Outcome, Probe, Server, dns};

/// A filter that tells what came of its call.
fn probe(upstream: &str, options: &str) -> Probe {
    Probe::new(&format!(
        "request_headers: http_call {upstream} ':authority=auth.test' '' '' 20000
         http_call_response: get_status
         http_call_response: get_buffer_bytes 4 0 max"
    ))
    .options(options)
    .nginx(|nginx| nginx.http("lua_socket_log_errors off;"))
}

fn server(ip: &str) -> Option<(Server, String)> {
    let server = Server::start(ip, |peer| {
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    })?;
    let port = server.address().rsplit_once(':').expect("a port").1.to_string();
    Some((server, port))
}

pub(crate) fn resolving(probe: Probe, address: [u8; 4]) -> Probe {
    let at = dns(Some(address));
    probe.nginx(|nginx| nginx.http(&format!("resolver {at} ipv6=off;")))
}

fn called(run: &Outcome) {
    assert_eq!(
        run.of("http_call_response"),
        ["get_status -> 0 0 ''", "get_buffer_bytes 4 0 max -> 0 hi"]
    );
}

/// The call was refused at once, and a warning says which.
fn refused(run: &Outcome, target: &str) {
    run.nginx.expect_log(&format!("proxy_http_call: the filter may not call \"{target}\""));
    assert!(run.of("request_headers")[0].ends_with(" -> 2"), "{:?}", run.of("request_headers"));
    assert_eq!(run.of("http_call_response"), [""; 0]);
}

#[test]
fn addresses_and_ports() {
    let Some((_server, port)) = server("127.0.0.1") else { panic!("a server") };
    let other = &format!("allow = {{ '127.0.0.1:{}' }}", port.parse::<u16>().expect("a port") ^ 1);
    for (rules, may) in [
        ("", true),
        ("allow = { '127.0.0.0/8' }", true),
        (&format!("allow = {{ '127.0.0.1:{port}' }}"), true),
        (other, false),
        ("allow = {}", false),
        ("allow = { 'auth.test' }", false),
        ("deny = { '127.0.0.0/8' }", false),
        ("deny = { '*' }", false),
        ("allow = { '*' }, deny = { '::ffff:127.0.0.0/104' }", false),
        ("deny = { '10.0.0.0/8' }", true),
    ] {
        for upstream in [format!("127.0.0.1:{port}"), format!("[::ffff:127.0.0.1]:{port}")] {
            let run = probe(&upstream, &format!("calls = {{ {rules} }}")).run();
            if may { called(&run) } else { refused(&run, &upstream) }
        }
    }
}

#[test]
fn names_are_judged_by_the_address_that_they_were_resolved_to() {
    let Some((server, port)) = server("127.0.0.1") else { panic!("a server") };
    let upstream = format!("rebound.test:{port}");
    for (rules, may) in [
        ("", true),
        ("allow = { '127.0.0.0/8' }", true),
        ("allow = { '*.test' }", true),
        ("allow = { '*.test' }, deny = { '127.0.0.0/8' }", false),
        ("deny = { '127.0.0.0/8' }", false),
        ("allow = { '10.0.0.0/8' }", false),
    ] {
        let options = format!("calls = {{ {rules} }}");
        let run = resolving(probe(&upstream, &options), [127, 0, 0, 1]).run();
        if may {
            called(&run);
            assert!(server.heard().contains("auth.test"), "{rules}");
            continue;
        }
        run.nginx.expect_log(&format!(
            "HTTP call to {upstream} failed: refused (rebound.test is 127.0.0.1, which the filter may not call)"
        ));
        assert_eq!(run.of("http_call_response")[0], "get_status -> 0 11 refused", "{rules}");
    }
    let run = probe(&upstream, "calls = { allow = { 'other.test' } }").run();
    refused(&run, &upstream);
}

#[test]
fn localhost_and_the_names_of_etc_hosts_need_no_resolver() {
    let Some((_server, port)) = server("127.0.0.1") else { panic!("a server") };
    for name in ["localhost", "LocalHost."] {
        called(&probe(&format!("{name}:{port}"), "").run());
        let upstream = format!("{name}:{port}");
        let run = probe(&upstream, "calls = { deny = { '127.0.0.0/8' } }").run();
        run.nginx.expect_log("is 127.0.0.1, which the filter may not call)");
        assert_eq!(run.of("http_call_response")[0], "get_status -> 0 11 refused");
        refused(&probe(&upstream, "calls = { deny = { 'localhost' } }").run(), &upstream);
    }
}

#[test]
fn sockets_are_called_where_that_is_allowed() {
    let echo = "unix:@PREFIX@echo.sock";
    for (rules, may) in [
        ("", false),
        ("allow = { '*' }", false),
        ("allow = { 'unix:*' }", true),
        ("allow = { 'unix:' .. ngx.config.prefix() .. '*' }", true),
        ("allow = { 'unix:' .. ngx.config.prefix() .. 'echo.sock' }", true),
        ("allow = { 'unix:/run/*' }", false),
        ("allow = { 'unix:*' }, deny = { 'unix:' .. ngx.config.prefix() .. 'echo.sock' }", false),
    ] {
        let run = probe(echo, &format!("calls = {{ {rules} }}")).run();
        if may {
            assert_eq!(run.of("http_call_response")[0], "get_status -> 0 0 ''", "{rules}");
        } else {
            refused(&run, &format!("unix:{}", run.nginx.path("echo.sock")));
        }
    }
    let run = probe(&echo.replace("echo.sock", "./echo.sock"), "").run();
    refused(&run, &format!("unix:{}", run.nginx.path("./echo.sock")));
}

#[test]
fn setup_decides_for_filters_without_rules_of_their_own() {
    let Some((_server, port)) = server("127.0.0.1") else { panic!("a server") };
    let tcp = format!("127.0.0.1:{port}");
    let setup = "assert(wasm.setup({ upstreams = { auth = 'unix:' .. ngx.config.prefix() .. 'echo.sock' }, calls = RULES }))";
    for (rules, options, upstream, may) in [
        ("{ deny = { '127.0.0.0/8' } }", "calls = select(2, 1)", tcp.as_str(), false),
        ("{ deny = { '127.0.0.0/8' } }", "calls = { allow = { '*' } }", &tcp, true),
        ("{ allow = {} }", "calls = select(2, 1)", "auth", true),
        ("{ deny = { 'auth' } }", "calls = select(2, 1)", "auth", false),
        ("nil", "calls = { allow = {} }", "auth", false),
        ("nil", "calls = { allow = { 'auth' } }", "auth", true),
        ("nil", "calls = { deny = { '*' } }", "auth", false),
    ] {
        let run = probe(upstream, options).init(&setup.replace("RULES", rules)).run();
        if may {
            assert_eq!(
                run.of("http_call_response")[0],
                "get_status -> 0 0 ''",
                "{rules} {options}"
            );
        } else {
            refused(&run, upstream);
        }
    }
}

#[test]
fn one_warning_for_each_target() {
    let nginx = probe("192.0.2.1", "calls = { allow = {} }").start();
    nginx.expect_log("may not call \"192.0.2.1:80\"");
    for _ in 0..3 {
        nginx.get("/");
    }
    assert_eq!(nginx.error_log().matches("may not call \"192.0.2.1:80\"").count(), 1);
}

#[test]
fn wrong_rules_are_refused() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(
            r#"init_by_lua_block {
                local wasm = require("resty.proxy-wasm")
                said = {}
                for _, value in ipairs({ "x", { "x" }, { permit = {} }, { allow = "x" }, { deny = { 1 } }, { deny = { "" } },
                    { allow = { "http://a" } } }) do
                    said[#said + 1] = select(2, pcall(wasm.setup, { calls = value }))
                    said[#said + 1] = select(2, wasm.load("probe", "probe.wasm", { calls = value }))
                end
            }"#,
        )
        .server(r#"location / { content_by_lua_block { ngx.print(table.concat(said, "\n")) } }"#)
        .start();
    let said = nginx.get("/").text();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 14, "{said}");
    let wanted = "must be a table of allow, deny and redis_commands, which are lists of strings";
    for pair in lines[..12].chunks(2) {
        assert_eq!(pair[0], format!("bad argument #1 to 'setup' (calls {wanted})"));
        assert_eq!(pair[1], format!("failed to load wasm plugin: option \"calls\" {wanted}"));
    }
    for line in &lines[12..] {
        assert!(line.contains("calls: \"http://a\" is not a host, *.host, "), "{line}");
    }
}
