//! What is left of a VM whose guest trapped or ended itself: nothing; the next request has a new one.

use super::ops::{contexts, of, phases, wait_for_lines};
use super::support::{Nginx, Probe};

#[test]
fn after_a_trap_the_stream_is_lost_and_the_next_request_has_a_new_vm() {
    for (callback, first) in [
        ("request_headers", "on_http_request_headers"),
        ("request_body", "on_http_request_body"),
        ("response_headers", "on_http_response_headers"),
        ("response_body", "on_http_response_body"),
    ] {
        let nginx = Probe::new(&format!(
            "vm_start,configure,create,done,log,delete: ids
             {callback}: trap"
        ))
        .content("content_by_lua_block { ngx.print('content') }")
        .start();
        let mut lines = Vec::new();
        for _ in 0..2 {
            let response = nginx.request("POST", "/").body("hello").send();
            assert_eq!((response.status, response.text().as_str()), (200, "content"), "{callback}");
            lines.extend([
                "vm_start ids -> id=1 root=1".to_string(),
                "configure ids -> id=1 root=1".into(),
                "create ids -> id=2 root=1".into(),
                format!("{callback} trap -> ..."),
            ]);
        }
        // No done, log or delete.
        assert_eq!(nginx.guest_log("probe"), lines, "{callback}");

        let failures = nginx.log_texts("lua call failed: ");
        let step = |function: &str| format!("{function}: failed to run proxy_{function}: ");
        let trap = format!(
            "proxy_on_{callback} failed: wasm trap: wasm `unreachable` instruction executed"
        );
        assert!(failures[0].starts_with(&(step(first) + &trap)), "{failures:?}");
        let cause = &failures[0][step(first).len()..];
        for failure in &failures[1..failures.len() / 2] {
            let (function, _) = failure.split_once(": ").expect("a function");
            assert_eq!(*failure, format!("{}the filter's VM was lost: {cause}", step(function)));
        }
    }
}

#[test]
fn a_trap_in_an_end_is_logged() {
    for (callback, export, left) in [
        ("done", "proxy_on_done", &[][..]),
        ("log", "proxy_on_log", &["done"]),
        ("delete", "proxy_on_delete", &["done", "log"]),
    ] {
        let nginx = phases("", &format!("configure,done,log,delete: ids; {callback}: trap"));
        nginx.get("/content");
        let trap = format!("wasm plugin \"probe\": {export} failed: wasm trap: ");
        nginx.wait_for_log(&trap);
        nginx.expect_log(&trap);
        let mut lines = vec!["configure ids -> id=1 root=1".to_string()];
        lines.extend(left.iter().map(|callback| format!("{callback} ids -> id=2 root=1")));
        lines.push(format!("{callback} ids -> id=2 root=1"));
        lines.push(format!("{callback} trap -> ..."));
        assert_eq!(nginx.guest_log("probe"), lines, "{callback}");
        nginx.get("/content");
        assert_eq!(nginx.guest_log("probe")[lines.len()], "configure ids -> id=1 root=1");
    }
}

#[test]
fn proc_exit_ends_the_instance() {
    let nginx = phases("", "configure,log: ids; request_headers: exit 3");
    for _ in 0..2 {
        assert_eq!(nginx.get("/access").header("x-went-on"), None);
    }
    let cause =
        "proxy_on_request_headers failed: the filter ended itself with exit code 3 (proc_exit)";
    let failures = nginx.log_texts("lua call failed: on_http_request_headers: ");
    let failure = format!("failed to run proxy_on_http_request_headers: {cause}");
    assert_eq!(failures, [failure.as_str(); 2]);
    assert_eq!(of(&nginx, "configure").len(), 2);
    assert_eq!(of(&nginx, "log"), [""; 0]);
}

#[test]
fn a_trap_is_no_matter_of_other_plugins_or_of_dropped_contexts() {
    let nginx = Nginx::new()
        .guest("probe")
        .http(&contexts(
            "",
            &[
                ("other", "a", "request_headers: trap"),
                ("probe", "b", "configure,create,done: ids"),
            ],
        ))
        .server(
            r#"
            location / {
                access_by_lua_block {
                    local dropped = call("on_configure", plugins.other, "root_done: ids")
                    call("on_http_request_headers", dropped)
                    call("on_http_request_headers", a)
                    call("on_http_request_headers", b)
                    dropped = nil
                    collectgarbage()
                    collectgarbage()
                }
                content_by_lua_block { ngx.print("content") }
            }
            "#,
        )
        .start();
    for _ in 0..2 {
        assert_eq!(nginx.get("/").text(), "content");
    }
    let lines = [
        "configure ids -> id=1 root=1",
        "create ids -> id=2 root=1",
        "done ids -> id=2 root=1",
        "create ids -> id=3 root=1",
        "done ids -> id=3 root=1",
    ];
    assert_eq!(wait_for_lines(&nginx, "probe", lines.len()), lines);
    assert_eq!(nginx.guest_log("other"), ["request_headers trap -> ..."; 2]);
    assert_eq!(nginx.log_texts("lua call failed: ").len(), 2);
}
