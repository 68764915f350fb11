//! The harness itself: that it sees what it must not overlook.

use super::support::{Nginx, poll};
use std::fs;
use std::panic::catch_unwind;
use std::sync::OnceLock;

#[test]
#[should_panic(expected = "unexpected")]
fn a_warning_fails_a_test() {
    let nginx = Nginx::new()
        .server(r#"location /t { content_by_lua_block { ngx.log(ngx.WARN, "careful") } }"#)
        .start();
    nginx.get("/t");
}

#[test]
#[should_panic(expected = "never logged: careful")]
fn an_expected_warning_must_come() {
    let nginx = Nginx::new().start();
    nginx.expect_log("careful");
}

#[test]
#[should_panic(expected = "exited on signal")]
fn a_crash_fails_a_test() {
    let nginx = Nginx::new()
        .server(
            r#"location /t { content_by_lua_block { require("ffi").cast("int *", 8)[0] = 1 } }"#,
        )
        .start();
    assert!(nginx.request("GET", "/t").try_send().is_err());
    nginx.wait_for_log("exited on signal");
}

#[test]
fn a_refused_configuration_is_told() {
    let log = Nginx::new().http(r#"init_by_lua_block { error("no way") }"#).start_fails();
    assert!(log.contains("no way"), "{log}");
}

#[test]
fn a_daemon_reloads_and_ends() {
    let nginx = Nginx::new()
        .daemon(true)
        .workers(2)
        .server(r#"location /t { return 200 "here"; }"#)
        .start();
    let before = nginx.worker_pids();
    nginx.reload();
    let after = nginx.worker_pids();
    assert_eq!((before.len(), after.len()), (2, 2));
    assert!(before.iter().all(|pid| !after.contains(pid)));
    assert_eq!(nginx.get("/t").text(), "here");
}

#[test]
fn answers_are_shown_as_sent() {
    let nginx = Nginx::new()
        .server(
            r#"
            location /repeats {
                return 200 "body";
                header_filter_by_lua_block { ngx.header["X-Two"] = { "a", "b" } }
            }
            location /chunks {
                content_by_lua_block {
                    ngx.say("a")
                    ngx.flush(true)
                    ngx.say("b")
                }
            }
            location /body {
                content_by_lua_block {
                    ngx.req.read_body()
                    ngx.print(ngx.req.get_body_data())
                }
            }
            "#,
        )
        .start();
    let response = nginx.get("/repeats");
    assert_eq!(response.header_all("x-two"), ["a", "b"]);
    assert!(response.headers.contains(&("X-Two".into(), "b".into())));
    assert_eq!(nginx.get("/chunks").text(), "a\nb\n");
    assert_eq!(nginx.request("GET", "/repeats").http10().send().text(), "body");
    assert_eq!(nginx.request("HEAD", "/repeats").send().text(), "");
    assert_eq!(nginx.request("POST", "/body").chunks(&["ab", "cd"]).send().text(), "abcd");

    let request = nginx.request("GET", "/repeats");
    let mut connection = nginx.connect();
    for _ in 0..2 {
        assert_eq!(connection.request(&request).text(), "body");
    }
    assert!(nginx.raw("nonsense\r\n\r\n").starts_with(b"HTTP/1.1 400 "));
}

#[test]
fn a_failed_test_leaves_no_process() {
    let dir = OnceLock::new();
    let failed = catch_unwind(|| {
        let nginx = Nginx::new().workers(2).start();
        dir.set(nginx.path("")).expect("a name");
        panic!("a test fails");
    });
    assert!(failed.is_err());
    let dir = dir.get().expect("a name").trim_end_matches('/');
    let one_left = || {
        fs::read_dir("/proc").expect("/proc").any(|entry| {
            let cwd = entry.and_then(|entry| fs::read_link(entry.path().join("cwd")));
            cwd.is_ok_and(|cwd| cwd.to_string_lossy().starts_with(dir))
        })
    };
    assert!(poll(|| (!one_left()).then_some(())).is_some(), "a process in {dir}");
}
