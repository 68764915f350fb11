//! `proxy-wasm run`.

use super::command::{file, guest, proxy_wasm, temporary};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

fn run(args: &[&str]) -> Value {
    let mut all = vec!["run", "--json"];
    all.extend(args);
    proxy_wasm(&all).ended(0).json()
}

fn header<'a>(message: &'a Value, name: &str) -> Option<&'a str> {
    let lines = message["headers"].as_array().expect("a list");
    let of = |line: &&Value| line[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name));
    lines.iter().find(of)?[1].as_str()
}

const AUTH: &str = "examples/auth/build/release.wasm";

#[test]
fn a_header_is_added() {
    let report = run(&[
        &file("examples/add-header/build/release.wasm"),
        "--root-id",
        "add_header",
        "-c",
        "a text",
    ]);
    assert_eq!(header(&report["response"], "hello"), Some("a text"));
    assert_eq!(report["response"]["first_line"], "200");
    assert_eq!(report["answered_by_filter"], false);
    let steps = report["steps"].as_array().expect("a list");
    let step = steps.iter().find(|step| {
        step["callbacks"].as_array().expect("a list").contains(&"proxy_on_response_headers".into())
    });
    let step = step.unwrap_or_else(|| panic!("{steps:?}"));
    assert_eq!(step["action"], "continue");
    assert_eq!(step["changes"][0], "add response header hello: a text");
    assert!(step["memory_bytes"].as_u64() >= Some(65_536), "{step}");
}

#[test]
fn canned_answers_let_requests_pass_or_not() {
    let (_folder, ok) = temporary("ok", "HTTP/1.1 200 OK\r\nX-User: me\r\n\r\n");
    let report = run(&[
        &file(AUTH),
        "-c",
        "auth /check",
        "-u",
        &format!("auth=@{ok}"),
        "-H",
        "x-user: root",
    ]);
    assert_eq!(header(&report["forwarded"], "x-user"), Some("me"));
    let call = &report["calls"][0];
    assert_eq!(
        (&call["upstream"], &call["method"], &call["path"]),
        (&"auth".into(), &"GET".into(), &"/check".into())
    );
    assert_eq!(call["answer"], "200");

    let (_folder, no) = temporary("no", "HTTP/1.1 403 Forbidden\r\n\r\n");
    let report = run(&[&file(AUTH), "-c", "auth /check", "-u", &format!("auth=@{no}")]);
    assert_eq!(report["response"]["first_line"], "403");
    assert_eq!(report["response"]["body"], "no entry\n");
    assert_eq!((&report["forwarded"], &report["answered_by_filter"]), (&Value::Null, &true.into()));

    let report = run(&[&file(AUTH), "-c", "auth /check"]);
    assert_eq!(report["response"]["first_line"], "503");
    assert!(
        report["calls"][0]["answer"].as_str().expect("a text").contains("nothing is behind auth")
    );
}

#[test]
fn upstreams_are_really_called() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().expect("a connection");
        let (mut got, mut buffer) = (Vec::new(), [0; 1024]);
        while !got.windows(4).any(|window| window == b"\r\n\r\n") {
            let count = peer.read(&mut buffer).expect("a request");
            got.extend_from_slice(&buffer[..count]);
        }
        peer.write_all(b"HTTP/1.1 204 No Content\r\nx-user: they\r\n\r\n").expect("a client");
        String::from_utf8(got).expect("UTF-8")
    });
    let upstream = format!("auth=http://127.0.0.1:{port}");
    let report = run(&[&file(AUTH), "-c", "auth /check", "-u", &upstream, "-p", "/a?b=c"]);
    assert_eq!(header(&report["forwarded"], "x-user"), Some("they"));
    let got = server.join().expect("a server");
    assert!(
        got.starts_with("GET /check HTTP/1.1\r\n") && got.contains("x-original-uri: /a?b=c"),
        "{got}"
    );
}

#[test]
fn bodies_and_chains() {
    let (guard, add) = (
        file("examples/word-guard/build/release.wasm"),
        file("examples/add-header/build/release.wasm"),
    );
    let args = [
        &guard,
        &add,
        "-c",
        "secret",
        "-c",
        "both",
        "--root-id",
        "word_guard",
        "--root-id",
        "add_header",
        "-b",
        "an open word",
        "--response-body",
        "the sec",
        "--response-body",
        "ret word",
    ];
    let report = run(&args);
    assert_eq!(header(&report["response"], "hello"), Some("both"));
    assert_eq!(report["response"]["body"], "the ****** word");
    assert_eq!(header(&report["forwarded"], "x-word-guard"), Some("passed"));
    assert_eq!(report["forwarded"]["body"], "an open word");

    let report = run(&[&guard, "--root-id", "word_guard", "-X", "POST", "-b", "my secret"]);
    assert_eq!(report["response"]["first_line"], "403");
    assert_eq!(report["forwarded"], Value::Null);
}

#[test]
fn shared_data_ticks_and_properties() {
    let limit = file("examples/rate-limit/build/release.wasm");
    let report = run(&[&limit, "-c", "1 60", "--property", "source.address=192.0.2.7:1000"]);
    let data = report["shared_data"].as_object().expect("a map");
    assert!(data.contains_key("rate-limit 192.0.2.7"), "{data:?}");

    let (_folder, rules) = temporary("rules", "/private\n");
    let remote = file("examples/remote-config/build/release.wasm");
    let upstream = format!("config=@{rules}");
    let report = run(&[&remote, "-c", "config /rules 30", "-u", &upstream, "--wait", "61000"]);
    assert_eq!(report["calls"].as_array().expect("a list").len(), 3, "{}", report["calls"]);
}

#[test]
fn the_text_shows_what_changed() {
    let said = proxy_wasm(&[
        "run",
        &file("examples/add-header/build/release.wasm"),
        "--root-id",
        "add_header",
    ])
    .ended(0)
    .out;
    for part in ["proxy_on_response_headers → continue", "+ hello: world!", "\nrequest\n    GET /"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn filters_that_fail() {
    let wat = r#"(module (memory (export "memory") 1)
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable))"#;
    let (_folder, name) = temporary("trap.wasm", wat::parse_str(wat).expect("a module"));
    let report = proxy_wasm(&["run", "--json", &name]).ended(1).json();
    assert_eq!(report["response"]["first_line"], "503");
    assert!(report["failed"][0].as_str().expect("a text").contains("unreachable"), "{report}");
    let report = proxy_wasm(&["run", "--json", "--fail-open", &name]).ended(1).json();
    assert_eq!(report["response"]["first_line"], "200");

    let refused = proxy_wasm(&["run", "--json", &file(AUTH), "-c", "nonsense"]).ended(1).json();
    assert!(refused["failed"][0].as_str().expect("a text").contains("refused its configuration"));
    let lines = refused["steps"].to_string();
    assert!(lines.contains("the configuration must be: UPSTREAM /PATH"), "{lines}");
}

#[test]
fn bad_arguments() {
    let probe = guest("probe");
    for (args, cause) in [
        (vec!["-H", "no colon"], "Name: value"),
        (vec!["-X", "get"], "--method get"),
        (vec!["-p", "x"], "--path x"),
        (vec!["-b", "@/no/file"], "/no/file: No such file"),
        (vec!["-c", "a", "-c", "b"], "--config is given 2 times"),
        (vec!["-u", "auth"], "NAME=VALUE"),
        (vec!["-u", "auth=ftp://x"], "neither http://HOST:PORT nor @FILE"),
        (vec!["--property", "request.method=GET"], "cannot be given"),
        (vec!["--response-status", "99"], "99"),
        (vec!["--memory-limit", "1"], "65536"),
        (vec!["--time-limit", "0"], "--time-limit"),
    ] {
        let mut all = vec!["run", &probe];
        all.extend(&args);
        let answer = proxy_wasm(&all).ended(2);
        assert!(answer.err.contains(cause), "{args:?}: {}", answer.err);
        all.push("--json");
        let error = proxy_wasm(&all).ended(2).json()["error"].to_string();
        assert!(error.len() > 2, "{args:?}");
    }
}

#[test]
fn what_is_no_module_is_bad_input_to_each_command() {
    let (_folder, text) = temporary("a.wasm", "hello");
    let (_other, whole) = temporary("b.wasm", fs::read(guest("zig")).expect("a guest"));
    let (cache, _) = temporary("c", "");
    let cache = cache.path().to_string_lossy().into_owned();
    for args in [
        vec!["inspect", &text],
        vec!["run", &whole, &text],
        vec!["bench", &text],
        vec!["bench", &whole, "--vs", &text],
        vec!["serve", &text, "--respond", "x", "--listen", "127.0.0.1:0"],
        vec!["compile", &text, "--cache-dir", &cache],
        vec!["push", &text, "oci://127.0.0.1:1/a:1"],
    ] {
        let answer = proxy_wasm(&args).ended(2);
        let expected = format!("{text}: not a WebAssembly module");
        assert!(answer.err.contains(&expected), "{args:?}: {}", answer.err);
    }
}
