//! The function of `setup{ upstreams }` that knows names which the table does not list.

use super::support::redis::{Redis, query};
use super::support::{Outcome, Probe, Running};

/// A probe, and a location that tells which names the function was asked for.
fn probe(script: &str, upstreams: &str) -> Probe {
    let setup = format!(
        r#"
        asked = {{}}
        local echo = "unix:" .. ngx.config.prefix() .. "echo.sock"
        assert(wasm.setup({{ upstreams = {upstreams} }}))
        "#
    );
    Probe::new(script).init(&setup).nginx(|nginx| {
        nginx.http("lua_socket_log_errors off;").server(
            r#"location /asked { content_by_lua_block { ngx.print(table.concat(asked, " ")) } }"#,
        )
    })
}

const ECHO: &str = r#"{
    listed = echo,
    function(name)
        asked[#asked + 1] = name
        return name == "the echo" and echo or nil
    end,
}"#;

fn statuses(nginx: &Running, callback: &str) -> Vec<String> {
    let lines = nginx.guest_log("probe");
    let of_callback = lines.iter().filter_map(|line| line.strip_prefix(callback));
    of_callback
        .filter_map(|line| line.split_once(" -> "))
        .map(|(_, answer)| answer.chars().take(1).collect())
        .collect()
}

#[test]
fn it_is_asked_for_names_that_are_not_listed() {
    let nginx = probe(
        "request_headers: http_call listed '' '' '' 5000
         request_headers: http_call 'the echo' '' '' '' 5000
         request_headers: http_call 'no name' '' '' '' 5000",
        ECHO,
    )
    .options("calls_hold = true")
    .start();
    nginx.expect_log("\"no name\" is neither a registered upstream nor the name of a host");
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(nginx.get("/asked").text(), "the echo no name");
    assert_eq!(statuses(&nginx, "request_headers http_call"), ["0", "0", "2"]);
}

#[test]
fn it_knows_redis_servers() {
    let redis = Redis::start(&[]);
    let upstreams = format!(
        r#"{{
            function(name)
                local port = name:match("^outbound|(%d+)||redis%.static$")
                return port and "redis://127.0.0.1:{}"
            end,
        }}"#,
        redis.port
    );
    let run = probe(
        &format!(
            "configure: redis_init 'outbound|6379||redis.static?db=1' '' '' 5000
             request_headers: redis_call 'outbound|6379||redis.static' {}
             request_headers: redis_call 'outbound|6379||other.static' {}
             request_headers: pause
             redis_call_response: get_buffer_bytes 9 0 max
             redis_call_response: set_effective_context caller
             redis_call_response: continue_stream 0",
            query(&[&["PING"]]),
            query(&[&["PING"]])
        ),
        &upstreams,
    )
    .start();
    run.expect_log("neither a registered upstream for Redis nor the name of a host");
    let response = run.get("/");
    run.stop();
    let run = Outcome { nginx: run, response };
    assert_eq!(run.of("redis_call_response")[0], "get_buffer_bytes 9 0 max -> 0 +PONG\\x0d\\x0a");
}

/// Lua is not below proxy_on_log. A name that the function answered for before is known there.
#[test]
fn where_it_cannot_be_asked_its_last_answer_counts() {
    let nginx = probe(
        "request_headers: http_call 'the echo' '' '' '' 5000
         log: redis_init 'the echo' '' '' 1000
         log: redis_init 'another echo' '' '' 1000",
        ECHO,
    )
    .options("calls_hold = true")
    .start();
    nginx.expect_log(
        "\"another echo\" is neither a registered upstream for Redis nor the name of a host",
    );
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(nginx.get("/asked").text(), "the echo");
    nginx.stop();
    assert_eq!(statuses(&nginx, "log redis_init"), ["0", "2"]);
}

#[test]
fn what_it_does_wrong_is_logged_and_the_call_refused() {
    let nginx = probe(
        "request_headers: http_call 'the error' '' '' '' 5000
         request_headers: http_call 'a number' '' '' '' 5000
         request_headers: http_call 'no address' '' '' '' 5000",
        r#"{
            function(name)
                if name == "the error" then error("out of order") end
                return name == "a number" and 12 or "ftp://somewhere"
            end,
        }"#,
    )
    .start();
    nginx.expect_log("the function of upstreams: ");
    nginx.expect_log("is neither a registered upstream nor the name of a host");
    assert_eq!(nginx.get("/").status, 200);
    for cause in [
        "out of order",
        "returned a number (a string or nil expected)",
        "upstream \"no address\": \"ftp://somewhere\" is not host, host:port or unix:/path",
    ] {
        assert!(nginx.logged(cause), "{cause}: {}", nginx.error_log());
    }
    assert_eq!(statuses(&nginx, "request_headers http_call"), ["2", "2", "2"]);
}

/// Past the limit an answer counts where it was given, and nothing is kept of it.
#[test]
fn answers_are_kept_for_so_many_names() {
    const KEPT: usize = 1024;
    let call = |at: usize| format!("'the echo {at}'");
    // A plugin context begins with fewer Redis servers, but each name is looked for.
    let calls: String = (0..=KEPT)
        .map(|at| format!("request_headers: redis_init {} '' '' 1000\n", call(at)))
        .collect();
    let nginx = probe(
        &format!(
            "{calls}
             log: redis_init {} '' '' 1000
             log: redis_init {} '' '' 1000",
            call(0),
            call(KEPT)
        ),
        r#"{ function(name) return name:find("^the echo", 1) and echo or nil end }"#,
    )
    .start();
    nginx.expect_log("begins with more Redis servers than the host keeps for it");
    nginx.expect_log("is neither a registered upstream for Redis nor the name of a host");
    assert_eq!(nginx.get("/").status, 200);
    nginx.stop();
    let log = statuses(&nginx, "log redis_init");
    assert_eq!(log, ["0", "2"]);
}

/// What is no host is a name that the function may know.
#[test]
fn rules_name_what_it_knows() {
    let script = "request_headers: http_call 'the echo' '' '' '' 5000
                  request_headers: http_call 'the other' '' '' '' 5000";
    let upstreams = "{ function(name) return name:find('^the') and echo or nil end }";
    let refused = |name: &str| format!("the filter may not call \"{name}\"");
    for (rules, name, statuses_of) in [
        ("allow = { 'the echo' }", "the other", ["0", "2"]),
        ("deny = { 'the echo' }", "the echo", ["2", "0"]),
    ] {
        let nginx = probe(script, upstreams)
            .options(&format!("calls = {{ {rules} }}, calls_hold = true"))
            .start();
        nginx.expect_log(&refused(name));
        assert_eq!(nginx.get("/").status, 200);
        assert_eq!(statuses(&nginx, "request_headers http_call"), statuses_of, "{rules}");
    }
}
