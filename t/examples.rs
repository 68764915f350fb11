//! The filters of `examples/` that ask other services.

use super::support::{Nginx, Running, poll, root};

fn example(nginx: Nginx, name: &str) -> Nginx {
    let module = root().join("examples").join(name).join("build/release.wasm");
    nginx.file("release.wasm", std::fs::read(module).expect("the module"))
}

/// A filter with its service, an nginx of its own that runs `answer`, in front of a server that says which user came. The
/// filter may ask until its nginx has ended, so the service is to be dropped after it: it comes first.
fn guarded(name: &str, configuration: &str, answer: &str) -> (Running, Running) {
    let service = Nginx::new()
        .http(&format!(
            r#"
            lua_shared_dict said 1m;
            server {{
                listen unix:service.sock;
                location / {{ content_by_lua_block {{ {answer} }} }}
            }}
            "#
        ))
        .server(r#"location /say { content_by_lua_block { ngx.shared.said:set("rules", ngx.var.arg_rules) } }"#)
        .start();
    let socket = service.path("service.sock");
    let nginx = example(Nginx::new(), name)
        .http(&format!(
            r#"
            lua_socket_log_errors off;
            init_by_lua_block {{
                wasm = require("resty.proxy-wasm")
                assert(wasm.setup({{ upstreams = {{ service = "unix:{socket}" }} }}))
                local plugin = assert(wasm.load("it", "release.wasm"))
                chain = wasm.new_chain({{ assert(wasm.on_configure(plugin, "service {configuration}")) }})
            }}
            init_worker_by_lua_block {{ assert(wasm.init_worker()) }}
            "#
        ))
        .server(
            r#"
            location / {
                access_by_lua_block { chain:access() }
                header_filter_by_lua_block { chain:header_filter() }
                body_filter_by_lua_block { chain:body_filter() }
                content_by_lua_block { ngx.print("user ", ngx.req.get_headers()["x-user"]) }
            }
            "#,
        )
        .start();
    (service, nginx)
}

#[test]
fn auth_passes_requests_that_its_service_allows() {
    let (_service, nginx) = guarded(
        "auth",
        "/check",
        r#"
        local headers = ngx.req.get_headers()
        if headers.authorization == "Bearer good" then
            ngx.header["x-user"] = headers["x-original-method"] .. " " .. headers["x-original-uri"] .. " " .. ngx.var.uri
        elseif headers.authorization == "Bearer odd" then
            ngx.exit(500)
        elseif headers.authorization == "Bearer cut" then
            ngx.exit(444)
        else
            ngx.header["www-authenticate"] = "Bearer"
            ngx.exit(401)
        end
        "#,
    );
    nginx.expect_log("HTTP call to service failed: closed");
    let ask = |authorization: &str| {
        let request = nginx.request("GET", "/page?a=b").header("authorization", authorization);
        request.header("x-user", "root").send()
    };
    for _ in 0..3 {
        assert_eq!(ask("Bearer good").text(), "user GET /page?a=b /check");
        let refused = ask("Bearer bad");
        assert_eq!((refused.status, refused.text().as_str()), (401, "no entry\n"));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        assert_eq!(ask("Bearer odd").status, 503);
        assert_eq!(ask("Bearer cut").status, 503);
    }
}

#[test]
fn remote_config_follows_its_service() {
    let (service, nginx) = guarded(
        "remote-config",
        "/closed-paths 0.05",
        r#"
        local rules = ngx.shared.said:get("rules")
        if not rules then ngx.exit(500) end
        if rules == "cut" then ngx.exit(444) end
        local tag = '"' .. rules .. '"'
        if ngx.req.get_headers()["if-none-match"] == tag then
            ngx.log(ngx.NOTICE, "unchanged ", rules)
            ngx.exit(304)
        end
        ngx.header.etag = tag
        ngx.print((rules:gsub(",", "\n")))
        "#,
    );
    nginx.expect_log("no rules: status 500; those of before stay");
    nginx.wait_for_log("no rules: status 500");
    assert_eq!(nginx.get("/a").status, 200);
    for (rules, closed, open) in [("/a,/b", "/a/x?y", "/c"), ("/c", "/c", "/a")] {
        service.get(&format!("/say?rules={rules}"));
        let follows = poll(|| (nginx.get(closed).status == 403).then_some(()));
        assert!(follows.is_some(), "{rules}");
        assert_eq!(nginx.get(open).status, 200);
        service.wait_for_log(&format!("unchanged {rules}"));
    }
    // A service that fails changes nothing.
    nginx.expect_log("HTTP call to service failed: ");
    service.get("/say?rules=cut");
    nginx.wait_for_log("HTTP call to service failed: closed");
    // What a call that was closed is told as.
    nginx.expect_log("no rules: status 503; those of before stay");
    nginx.wait_for_log("no rules: status 503");
    assert_eq!(nginx.get("/c").status, 403);
}

#[test]
fn wrong_configurations_are_refused() {
    for (name, told) in [
        ("auth", "the configuration must be: UPSTREAM /PATH"),
        ("remote-config", "the configuration must be: UPSTREAM /PATH SECONDS"),
    ] {
        let nginx = example(Nginx::new(), name)
            .http(
                r#"
                init_by_lua_block {
                    wasm = require("resty.proxy-wasm")
                    plugin = assert(wasm.load("it", "release.wasm"))
                }
                "#,
            )
            .server(
                r#"location / { content_by_lua_block { ngx.print(select(2, wasm.on_configure(plugin, "nothing"))) } }"#,
            )
            .start();
        nginx.expect_log(told);
        let answer = nginx.get("/").text();
        assert!(answer.starts_with("failed to run proxy_on_configure: "), "{answer}");
    }
}
