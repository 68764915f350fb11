//! Upstreams of calls: each kind of address, TLS, names of `setup`, and servers that misbehave.

use super::support::tls::{self_signed, signed_by, with_files};
use super::support::{Nginx, Outcome, Probe, Server};
use tempfile::TempDir;

/// A filter that lets its request continue when its call is over, with what came of the call as log lines.
fn probe(call: &str) -> Probe {
    Probe::new(&format!(
        "request_headers: {call}
         request_headers: pause
         http_call_response: args
         http_call_response: get_status
         http_call_response: get_buffer_bytes 4 0 max
         http_call_response: get_header_map_pairs 7
         http_call_response: get_header_map_pairs 6
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0"
    ))
    .nginx(|nginx| nginx.http("lua_socket_log_errors off;"))
}

/// What the ops of the call's response answered, in order.
fn answers(run: &Outcome) -> Vec<String> {
    let lines = run.of("http_call_response");
    let value = |line: &String| line.split_once(" -> ").expect("an answer").1.to_string();
    lines.iter().take(4).map(value).collect()
}

fn call(upstream: &str) -> String {
    format!("http_call {upstream} ':path=/|:authority=auth.test' '' '' 20000")
}

fn answered(run: &Outcome, body: &str) {
    assert_eq!(run.response.status, 200);
    assert_eq!(answers(run)[1..3], ["0 0 ''".to_string(), format!("0 {body}")]);
}

#[test]
fn every_kind_of_address_is_called() {
    for ip in ["127.0.0.1", "::1"] {
        // A machine without IPv6 has no such address.
        let Some(server) = Server::start(ip, |peer| {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        }) else {
            assert_eq!(ip, "::1");
            continue;
        };
        let address = server.address();
        for upstream in [address.clone(), format!("http://{address}"), format!("http://{address}/")]
        {
            answered(&probe(&call(&upstream)).run(), "hi");
            assert!(server.heard().contains("host: auth.test\r\n"));
        }
    }
}

/// A server with a certificate of a CA that nginx trusts, and one with a certificate that no CA signed.
fn with_tls(nginx: Nginx, dir: &TempDir) -> Nginx {
    let dir = dir.path();
    self_signed(dir, "ca", "/CN=The tests' CA");
    signed_by(dir, "ca", "server", "auth.test");
    self_signed(dir, "stranger", "/CN=auth.test");
    with_files(nginx, dir).http(
        r#"
        lua_ssl_trusted_certificate ca.pem;
        lua_ssl_verify_depth 2;
        server {
            listen unix:tls.sock ssl;
            ssl_certificate server.pem;
            ssl_certificate_key server.key;
            location / { return 200 "$scheme $ssl_server_name $http_host"; }
        }
        server {
            listen unix:stranger.sock ssl;
            ssl_certificate stranger.pem;
            ssl_certificate_key stranger.key;
            location / { return 200 "never"; }
        }
        "#,
    )
}

#[test]
fn tls_is_verified_by_the_name_of_the_authority() {
    let dir = TempDir::new().expect("a directory");
    let over_tls = |call: &str| probe(call).nginx(|nginx| with_tls(nginx, &dir));

    let socket = "unix:@PREFIX@tls.sock";
    for call in [
        call(&format!("https://{socket}")),
        // The scheme of the call, where the upstream names none.
        format!("http_call {socket} ':scheme=https|:authority=auth.test:443' '' '' 20000"),
    ] {
        let run = over_tls(&call).run();
        assert_eq!(run.response.status, 200);
        assert!(answers(&run)[2].starts_with("0 https auth.test auth.test"), "{:?}", answers(&run));
    }

    for (call, cause) in [
        (
            format!("http_call https://{socket} ':authority=other.test' '' '' 20000"),
            "certificate host mismatch",
        ),
        (call("https://unix:@PREFIX@stranger.sock"), "self-signed certificate"),
        // A server that does not speak it.
        (call("https://unix:@PREFIX@echo.sock"), "handshake failed"),
    ] {
        let run = over_tls(&call).run();
        run.nginx.expect_log("failed: tls (");
        if cause == "handshake failed" {
            // OpenSSL's own words, which nginx logs.
            run.nginx.expect_log("SSL_do_handshake() failed");
        }
        assert!(run.nginx.logged(cause), "{cause}: {}", run.nginx.error_log());
        assert_eq!(run.response.status, 200);
        let said = answers(&run);
        assert_eq!(said[..2], [STOOD_IN[0].1, "0 11 tls"]);
        assert_eq!(said[2], format!("0 {}", STOOD_IN[0].2));
    }
}

#[test]
fn names_of_setup_stand_for_addresses() {
    let dir = TempDir::new().expect("a directory");
    let setup = r#"
        local sock = "unix:" .. ngx.config.prefix()
        assert(wasm.setup({ upstreams = { auth = "https://" .. sock .. "tls.sock", ["a b"] = sock .. "echo.sock" } }))
    "#;
    let run = probe(&call("auth")).init(setup).nginx(|nginx| with_tls(nginx, &dir)).run();
    answered(&run, "https auth.test auth.test");

    let run = probe(&call("'a b'")).init(setup).nginx(|nginx| with_tls(nginx, &dir)).run();
    assert!(answers(&run)[2].starts_with("0 GET / HTTP/1.1"), "{:?}", answers(&run));

    // The names of a configuration end with it.
    let run = Probe::new(&format!("request_headers: {}", call("'a b'"))).run();
    run.nginx.expect_log("\"a b\" is neither a registered upstream nor the name of a host");
}

#[test]
fn names_of_setup_survive_a_reload_that_brings_them_again() {
    let setup = r#"assert(wasm.setup({ upstreams = { ["the echo"] = "unix:" .. ngx.config.prefix() .. "echo.sock" } }))"#;
    let nginx = probe(&call("'the echo'")).init(setup).start();
    for _ in 0..3 {
        assert_eq!(nginx.get("/").status, 200);
        nginx.reload();
    }
    let answered =
        nginx.guest_log("probe").iter().filter(|l| l.contains("-> 0 GET / HTTP/1.1")).count();
    assert_eq!(answered, 3);
}

#[test]
fn bad_upstreams_of_setup_are_refused() {
    for (value, cause) in [
        (
            r#""auth""#,
            r"(upstreams must be a table of addresses, or of tables with an address, by names, and a function at 1 or none)",
        ),
        (
            r"{ print, print }",
            r"(upstreams must be a table of addresses, or of tables with an address, by names, and a function at 1 or none)",
        ),
        (
            r"{ 'auth' }",
            r"(upstreams must be a table of addresses, or of tables with an address, by names, and a function at 1 or none)",
        ),
        (
            r"{ auth = 1 }",
            r"(upstreams must be a table of addresses, or of tables with an address, by names, and a function at 1 or none)",
        ),
        (
            r#"{ auth = "ftp://a" }"#,
            "(upstream \"auth\": \"ftp://a\" is not host, host:port or unix:/path, with http://, https://, \
             grpc://, grpcs://, redis:// or rediss:// in front or not)",
        ),
        (
            r#"{ auth = "http://a/b" }"#,
            "(upstream \"auth\": \"http://a/b\" is not host, host:port or unix:/path, with http://, https://, \
             grpc://, grpcs://, redis:// or rediss:// in front or not)",
        ),
    ] {
        let init = format!(
            r#"
            init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                said = select(2, pcall(wasm.setup, {{ upstreams = {value} }}))
            }}
            "#
        );
        let nginx = Nginx::new()
            .http(&init)
            .server("location / { content_by_lua_block { ngx.print(said) } }")
            .start();
        let said = nginx.get("/").text();
        assert_eq!(said, format!("bad argument #1 to 'setup' {cause}"));
    }
}

#[test]
fn trailers_go_both_ways() {
    let server = Server::start("127.0.0.1", |peer| {
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n");
        peer.send("2\r\nhi\r\n");
        peer.send("0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n");
        peer.stall();
    })
    .expect("a server");
    let upstream = server.address();
    let run = probe(&format!("http_call {upstream} :method=POST body x-end=1 20000")).run();
    let said = answers(&run);
    assert_eq!(said[0], "token=1 headers=2 body_size=2 trailers=2");
    assert_eq!(said[2..], ["0 hi", "0 x-sum=7|x-more=8"]);
    let heard = server.heard();
    assert!(heard.contains("transfer-encoding: chunked\r\n"), "{heard}");
    assert!(heard.contains("trailer: x-end\r\n"), "{heard}");
    assert!(heard.ends_with("\r\n4\r\nbody\r\n0\r\nx-end: 1\r\n\r\n"), "{heard}");
}

/// What a filter is told of in place of a response whose head never came, as Envoy 1.40 does: the status, the numbers, and
/// the body. Of one whose head had come it is told nothing.
const STOOD_IN: [(&str, &str, &str); 4] = [
    (
        "503",
        "token=1 headers=3 body_size=98 trailers=0",
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
    ),
    (
        "503",
        "token=1 headers=3 body_size=95 trailers=0",
        "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
    ),
    ("504", "token=1 headers=3 body_size=24 trailers=0", "upstream request timeout"),
    (
        "502",
        "token=1 headers=3 body_size=87 trailers=0",
        "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
    ),
];
const CLOSED: Option<usize> = Some(1);
const TIMEOUT: Option<usize> = Some(2);
const PROTOCOL: Option<usize> = Some(3);

#[test]
fn servers_that_misbehave() {
    type Answer = fn(&mut super::support::Peer);
    let misbehaviours: [(&str, u32, Answer, &str, Option<usize>); 10] = [
        ("never answers", 200, |peer| peer.stall(), "timeout", TIMEOUT),
        (
            "stops in the head",
            200,
            |peer| {
                peer.send("HTTP/1.1 200 OK\r\nContent-");
                peer.stall();
            },
            "timeout",
            TIMEOUT,
        ),
        (
            "stops in the body",
            200,
            |peer| {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi");
                peer.stall();
            },
            "timeout",
            None,
        ),
        ("closes at once", 20_000, |_| {}, "closed", CLOSED),
        (
            "closes in the head",
            20_000,
            |peer| peer.send("HTTP/1.1 200 OK\r\nCont"),
            "closed",
            PROTOCOL,
        ),
        (
            "sends too large a body",
            20_000,
            |peer| {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n");
                for _ in 0..20 {
                    peer.send("a".repeat(1_000_000));
                }
                peer.stall();
            },
            "too large",
            None,
        ),
        (
            "closes in the body",
            20_000,
            |peer| peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"),
            "closed",
            None,
        ),
        (
            "speaks something else",
            20_000,
            |peer| {
                peer.send("220 mail.test ESMTP\r\n");
                peer.stall();
            },
            "protocol",
            PROTOCOL,
        ),
        (
            "sends a bad chunk",
            20_000,
            |peer| {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
                peer.stall();
            },
            "protocol",
            None,
        ),
        (
            "sends headers without end",
            20_000,
            |peer| {
                peer.send("HTTP/1.1 200 OK\r\n");
                for _ in 0..20_000 {
                    peer.send(format!("X-A: {}\r\n", "a".repeat(100)));
                }
                peer.stall();
            },
            "too large",
            PROTOCOL,
        ),
    ];
    for (what, timeout, answer, word, stood_in) in misbehaviours {
        let server = Server::start("127.0.0.1", answer).expect("a server");
        let run = probe(&format!("http_call {} '' '' '' {timeout}", server.address())).run();
        run.nginx.expect_log(&format!("HTTP call to {} failed: {word}", server.address()));
        assert_eq!(run.response.status, 200, "{what}");
        let said = answers(&run);
        assert_eq!(said[1], format!("0 11 {word}"), "{what}");
        let Some(stood_in) = stood_in else {
            assert_eq!(said[0], "token=1 headers=0 body_size=0 trailers=0", "{what}");
            assert_eq!(said[2..], ["1", "0 ''"], "{what}");
            continue;
        };
        let (status, numbers, body) = STOOD_IN[stood_in];
        assert_eq!(said[0], numbers, "{what}");
        assert_eq!(said[2..], [format!("0 {body}"), "0 ''".into()], "{what}");
        let pairs =
            format!(":status={status}|content-length={}|content-type=text/plain", body.len());
        assert_eq!(run.of("http_call_response")[4], format!("get_header_map_pairs 6 -> 0 {pairs}"));
    }
}
