//! The configuration of examples/word-guard, as it stands there.

use super::support::{Nginx, Running, lua_paths, preamble, root};
use std::fs;

fn example() -> Running {
    let conf = fs::read_to_string(root().join("examples/word-guard/nginx.conf")).expect("a file");
    let (_, rest) = conf.split_once("events {}").expect("the events");
    let mut rest = rest.replace("127.0.0.1:8080", "127.0.0.1:PORT");
    rest = rest.replace("listen 127.0.0.1:8081", "listen unix:upstream.sock");
    rest = rest.replace("http://127.0.0.1:8081", "http://unix:upstream.sock");
    rest = rest.replace("target/demo/", "tmp/");
    for (directive, value) in lua_paths() {
        let line = rest.lines().find(|line| line.contains(directive)).expect("a path").to_string();
        rest = rest.replace(&line, &format!("{directive} \"{value}\";"));
    }
    let filter = |name: &str| {
        fs::read(root().join("examples").join(name).join("build/release.wasm")).expect("a filter")
    };
    Nginx::new()
        .file("examples/word-guard/build/release.wasm", filter("word-guard"))
        .file("examples/add-header/build/release.wasm", filter("add-header"))
        .whole(&format!(
            "{}daemon off;\npid logs/nginx.pid;\nerror_log logs/error.log info;\nevents {{}}{rest}",
            preamble()
        ))
        .start()
}

#[test]
fn chains_of_routes() {
    let nginx = example();
    let post = |path: &str, body: &str| {
        let response = nginx.request("POST", path).body(body).send();
        (response.status, response.header("hello").map(String::from), response.text())
    };
    let answer = |guard: &str, got: &str| format!("word guard: {guard}\ngot {got}\n");
    let hello = || Some("chain".to_string());
    assert_eq!(
        post("/api", "hello"),
        (200, hello(), answer("passed", "hello, and here is a ******"))
    );
    // The greeting is behind the guard: it never saw the request, and adds nothing to the answer.
    assert_eq!(post("/api", "a secret"), (403, None, "not with that word\n".into()));
    assert_eq!(post("/strict", "hello").0, 403);
    assert_eq!(
        post("/strict", "Hi"),
        (200, hello(), "word guard: pass*d\ngot Hi, and h*r* is a s*cr*t\n".into())
    );
    assert_eq!(
        post("/plain", "a secret"),
        (200, hello(), answer("none", "a secret, and here is a secret"))
    );
    let get = nginx.get("/api");
    assert_eq!((get.status, get.header("content-length")), (200, None));
    assert_eq!(get.text(), answer("none", "nothing, and here is a ******"));
}
