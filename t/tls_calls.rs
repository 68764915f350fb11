//! TLS that the library speaks for HTTP calls: `trusted_certificate` of setup, and tables of `upstreams`.

use super::support::tls::{self_signed, signed_by, with_files};
use super::support::{Nginx, Outcome, Probe};
use std::io::{Read as _, Write as _};
use tempfile::TempDir;

/// Servers whose certificates a CA has signed that nginx itself does not trust. One asks for a certificate.
fn servers(nginx: Nginx, dir: &TempDir) -> Nginx {
    let dir = dir.path();
    self_signed(dir, "ca", "/CN=The tests' CA");
    signed_by(dir, "ca", "server", "auth.test");
    signed_by(dir, "ca", "client", "client.test");
    self_signed(dir, "stranger", "/CN=auth.test");
    let server = |socket: &str, name: &str, more: &str| {
        format!(
            r#"server {{
                listen unix:{socket}.sock ssl;
                ssl_certificate {name}.pem;
                ssl_certificate_key {name}.key;
                {more}
                location / {{
                    return 200 "$ssl_server_name $http_host $ssl_client_s_dn $connection_requests";
                }}
                location /large {{ content_by_lua_block {{ ngx.print(string.rep("x", 1000000)) }} }}
            }}"#
        )
    };
    with_files(nginx, dir)
        .http("lua_socket_log_errors off;")
        .http(&server("tls", "server", ""))
        .http(&server("stranger", "stranger", ""))
        .http(&server("asks", "server", "ssl_client_certificate ca.pem; ssl_verify_client on;"))
}

/// A request whose filter makes these calls, one after the other. `setup` may name `CONF`, nginx's folder.
fn calling(setup: &str, upstream: &str, path: &str, times: usize) -> (Outcome, Vec<String>) {
    let dir = TempDir::new().expect("a directory");
    let call = format!("http_call {upstream} ':path={path}|:authority=auth.test' '' '' 20000");
    let more =
        if times > 1 { format!("http_call_response@first: {call}\n") } else { String::new() };
    let turn = if times > 1 { "@again" } else { "" };
    let init = setup.replace("CONF", r#"" .. ngx.config.prefix() .. "conf"#);
    let run = Probe::new(&format!(
        "request_headers: {call}
         request_headers: pause
         http_call_response: get_status
         http_call_response: get_buffer_bytes 4 0 80
         {more}
         http_call_response{turn}: set_effective_context caller
         http_call_response{turn}: continue_stream 0"
    ))
    .init(&init)
    .nginx(|nginx| servers(nginx, &dir))
    .run();
    assert_eq!(run.response.status, 200);
    let lines = run.of("http_call_response");
    let bodies = lines.iter().filter_map(|line| line.strip_prefix("get_buffer_bytes 4 0 80 -> 0 "));
    let bodies = bodies.map(Into::into).collect();
    (run, bodies)
}

const SOCKET: &str = "https://unix:@PREFIX@";

#[test]
fn a_trusted_certificate_of_setup_counts_for_calls() {
    let setup = r#"assert(wasm.setup({ trusted_certificate = "CONF/ca.pem" }))"#;
    let (_, bodies) = calling(setup, &format!("{SOCKET}tls.sock"), "/", 2);
    // The second call is sent on the same connection.
    assert_eq!(bodies, ["auth.test auth.test  1", "auth.test auth.test  2"]);
    let (run, bodies) = calling(setup, &format!("{SOCKET}tls.sock"), "/large", 1);
    assert_eq!(bodies, ["x".repeat(80)]);
    assert_eq!(run.of("http_call_response")[0], "get_status -> 0 0 ''");
}

/// How a call failed, by the error log.
fn failed(run: &Outcome) -> String {
    run.nginx.expect_log("failed: tls (");
    assert_eq!(run.of("http_call_response")[0], "get_status -> 0 11 tls");
    let log = run.nginx.error_log();
    let at = log.find("failed: tls (").expect("a warning");
    log[at..].split_once('\n').expect("a line").0.into()
}

#[test]
fn upstreams_have_certificates_of_their_own() {
    let table = |socket: &str, more: &str| {
        format!(
            r#"assert(wasm.setup({{ upstreams = {{ auth = {{
                address = "https://unix:" .. ngx.config.prefix() .. "{socket}.sock", {more}
            }} }} }}))"#
        )
    };
    let ca = r#"trusted_certificate = "CONF/ca.pem""#;
    let own = r#"certificate = "CONF/client.pem", certificate_key = "CONF/client.key""#;
    for (setup, expected) in [
        (table("tls", ca), "auth.test auth.test  1"),
        (table("asks", &format!("{ca}, {own}")), "auth.test auth.test CN=client.test 1"),
        (table("stranger", "verify = false"), "auth.test auth.test  1"),
        (table("asks", &format!("verify = false, {own}")), "auth.test auth.test CN=client.test 1"),
    ] {
        let (_, bodies) = calling(&setup, "auth", "/", 1);
        assert_eq!(bodies, [expected], "{setup}");
    }
    // Without a certificate: the server says so in HTTP.
    let (_, bodies) = calling(&table("asks", ca), "auth", "/", 1);
    assert!(bodies[0].contains("400"), "{bodies:?}");
    // Certificates that are not signed by it.
    for (setup, cause) in
        [(table("stranger", ca), "certificate"), (table("tls", own), "UnknownIssuer")]
    {
        let (run, _) = calling(&setup, "auth", "/", 1);
        let line = failed(&run);
        assert!(line.contains(cause), "{line}");
    }
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let dir = TempDir::new().expect("a directory");
    let run = Probe::new(
        "request_headers: http_call https://unix:@PREFIX@tls.sock ':authority=other.test' '' '' 20000
         request_headers: pause
         http_call_response: get_status
         http_call_response: set_effective_context caller
         http_call_response: continue_stream 0",
    )
    .init(r#"assert(wasm.setup({ trusted_certificate = ngx.config.prefix() .. "conf/ca.pem" }))"#)
    .nginx(|nginx| servers(nginx, &dir))
    .run();
    let line = failed(&run);
    assert!(line.contains("not valid for name"), "{line}");
}

/// Nothing of a call may go to a server before TLS has agreed, and an answer that is cut must not look whole.
#[test]
fn a_server_that_does_not_speak_tls_gets_nothing() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("plain.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut heard = [0; 1024];
        let size = stream.read(&mut heard).expect("bytes");
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhi").expect("an answer");
        // Until it is closed.
        let mut heard = heard[..size].to_vec();
        stream.read_to_end(&mut heard).expect("bytes");
        heard
    });
    let setup = r#"assert(wasm.setup({ trusted_certificate = "CONF/ca.pem" }))"#;
    let (run, _) = calling(setup, &format!("https://unix:{}", path.display()), "/secret", 1);
    failed(&run);
    let heard = heard.join().expect("a server");
    assert_eq!(heard[0], 22, "a handshake");
    assert!(!heard.windows(7).any(|part| part == b"/secret"));
}

#[test]
fn wrong_tables_of_upstreams() {
    let run = Probe::new("")
        .init(
            r#"
            local function raises(upstream, cause)
                local ok, err = pcall(wasm.setup, { upstreams = { a = upstream } })
                assert(not ok and err:find(cause, 1, true), err)
            end
            raises({}, "address is missing")
            raises({ address = 1 }, "address must be a string")
            raises({ address = "https://a", other = 1 }, 'unknown key "other"')
            raises({ address = "https://a", certificate = "/a" }, "belong together")
            raises({ address = "https://a", trusted_certificate = "a" }, "must be an absolute path")
            raises({ address = "a b" }, "is not host, host:port or unix:/path")
            raises(1, "a table of addresses")
            local function fails(upstream, cause)
                local ok, err = wasm.setup({ upstreams = { a = upstream } })
                assert(not ok and err:find("failed to set upstreams: upstream \"a\": ", 1, true), err)
                assert(err:find(cause, 1, true), err)
            end
            local none = ngx.config.prefix() .. "none.pem"
            local empty = ngx.config.prefix() .. "conf/nginx.conf"
            fails({ address = "https://a", trusted_certificate = none }, "No such file")
            fails({ address = "https://a", trusted_certificate = empty }, "it holds no certificate")
            fails({ address = "https://a", verify = false, certificate = empty, certificate_key = empty }, "certificate")
            fails({ address = "http://a", verify = false }, "its address has no TLS")
            "#,
        )
        .run();
    assert_eq!(run.response.status, 200);
}
