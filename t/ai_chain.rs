//! Five filters in one chain before a language model, which does what those of the hub do in the same order: who asks (a
//! header), how often (Redis, which is waited for), what is counted (`ai_log`), what is added to the prompt (the body), and
//! which provider answers (path, host, and pieces of the response in another form). `docs/ai-gateway.md` has the real ones.

use super::support::redis::{Redis, query};
use super::support::{Nginx, Running, poll};
use super::vendor_stream::{Client, Pieces};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

fn chain(redis: &Redis, pieces: &Pieces) -> Running {
    let upstream = "outbound|6379||redis.static";
    let count = query(&[&["INCR", "asked"]]);
    let limit = format!(
        "configure: redis_init {upstream}?buffer_flush_timeout=3 '' '' 5000
         request_headers: redis_call {upstream} {count}
         request_headers: return 4
         redis_call_response: args
         redis_call_response: set_effective_context caller
         redis_call_response: continue_stream 0
         response_body@eos: redis_call {upstream} {}",
        query(&[&["INCR", "answered"]])
    );
    let scripts = [
        ("auth", "request_headers: add_header_map_value 0 x-mse-consumer one"),
        ("limit", limit.as_str()),
        (
            "statistics",
            "request_headers: get_header_map_value 0 x-mse-consumer
             response_body@eos: set_property ai_log '{\"consumer\":\"one\"}'
             response_body: get_buffer_bytes 1 0 max",
        ),
        (
            "prompt",
            "request_headers: remove_header_map_value 0 content-length
             request_headers: pause
             request_body: set_buffer_bytes 0 0 0 'Answer in English. '",
        ),
        (
            "proxy",
            "request_headers: replace_header_map_value 0 :path /v2/generate
             request_headers: replace_header_map_value 0 :authority model.test
             request_headers: pause
             request_body: get_buffer_bytes 0 0 max
             request_body: set_buffer_bytes 0 max 0 '!'
             response_headers: replace_header_map_value 2 content-type text/event-stream
             response_body@more: set_buffer_bytes 1 0 5 'data: '",
        ),
    ];
    let contexts: String = scripts
        .iter()
        .map(|(name, script)| format!("filter('{name}', [==[{script}]==]),\n"))
        .collect();
    Nginx::new()
        .guest("probe_0_2_100")
        .http(&format!(
            r#"
            lua_socket_log_errors off;
            log_format ai escape=none '$status $ai_log';
            init_by_lua_block {{
                local wasm = require("resty.proxy-wasm")
                assert(wasm.setup({{ upstreams = {{ ["{upstream}"] = "redis://127.0.0.1:{}" }} }}))
                local function filter(name, script)
                    local plugin = assert(wasm.load(name, "probe_0_2_100.wasm", {{ calls = {{ allow = {{ "{upstream}" }} }} }}))
                    return assert(wasm.on_configure(plugin, script))
                end
                chain = wasm.new_chain({{ {contexts} }})
            }}
            init_worker_by_lua_block {{ require("resty.proxy-wasm").init_worker() }}
            "#,
            redis.port
        ))
        .server(&format!(
            r#"location /v1/ {{
                set $ai_log "";
                access_log logs/ai.log ai;
                access_by_lua_block {{ chain:access() }}
                header_filter_by_lua_block {{ chain:header_filter() }}
                body_filter_by_lua_block {{ chain:body_filter() }}
                proxy_pass http://127.0.0.1:{};
                proxy_set_header Host $host;
                proxy_set_header Connection close;
                proxy_buffering off;
            }}"#,
            pieces.port()
        ))
        .start()
}

/// The request's body, as it reaches the model.
fn prompt(upstream: &mut TcpStream) -> String {
    let mut body = [0; 23];
    upstream.read_exact(&mut body).expect("a body");
    String::from_utf8_lossy(&body).into_owned()
}

#[test]
fn each_does_its_part_and_pieces_reach_the_client_as_they_come() {
    let (redis, pieces) = (Redis::start(&[]), Pieces::new());
    let nginx = chain(&redis, &pieces);
    let mut client =
        Client::send(&nginx, "POST /v1/chat HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nhi?");
    let (request, mut upstream) =
        pieces.accept_request("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n");
    assert!(request.starts_with("POST /v2/generate HTTP/1.0\r\n"), "{request}");
    assert!(request.contains("\r\nHost: model.test\r\n"), "{request}");
    assert!(request.contains("\r\nx-mse-consumer: one\r\n"), "{request}");
    assert!(request.contains("\r\nContent-Length: 23\r\n"), "{request}");
    assert_eq!(prompt(&mut upstream), "Answer in English. hi?!");
    assert_eq!(redis.ask(&["GET", "asked"]), "1");
    for number in 0..3 {
        let piece = format!("text:{number}\n\n");
        upstream.write_all(piece.as_bytes()).expect("written");
        let seen = format!("data: {number}\n\n");
        assert!(client.sees(&seen), "{number}: {:?}", client.text());
    }
    drop(upstream);
    assert!(client.ends(), "{:?}", client.text());
    assert!(client.text().contains("Content-Type: text/event-stream\r\n"), "{}", client.text());
    // The limit's call at the end holds nothing.
    let answered = poll(|| (redis.ask(&["GET", "answered"]) == "1").then_some(()));
    assert!(answered.is_some(), "the call was not made");
    nginx.stop();
    assert_eq!(
        fs::read_to_string(nginx.path("logs/ai.log")).expect("a log"),
        "200 {\"consumer\":\"one\"}\n"
    );
    let of = |name: &str, what: &str| {
        let lines = nginx.guest_log(name);
        assert!(lines.iter().any(|line| line == what), "{name}: {lines:#?}");
    };
    of("statistics", "request_headers get_header_map_value 0 x-mse-consumer -> 0 one");
    of("statistics", "response_body get_buffer_bytes 1 0 max -> 0 data: 1\\x0a\\x0a");
    of("proxy", "request_body get_buffer_bytes 0 0 max -> 0 Answer in English. hi?");
}

/// The limit is before all that costs something: a request that it does not let pass reaches none of those.
#[test]
fn a_request_that_is_held_reaches_nothing_behind() {
    let (mut redis, pieces) = (Redis::start(&[]), Pieces::new());
    let nginx = chain(&redis, &pieces);
    nginx.expect_log("Redis call to outbound|6379||redis.static failed");
    redis.kill();
    let mut client =
        Client::send(&nginx, "POST /v1/chat HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nhi?");
    // What the filter does without Redis is its business: this one continues.
    let (_, mut upstream) = pieces.accept_request("HTTP/1.0 200 OK\r\n\r\n");
    prompt(&mut upstream);
    upstream.write_all(b"text:a").expect("written");
    assert!(client.sees("data: a"), "{:?}", client.text());
    drop(upstream);
    assert!(client.ends());
    nginx.stop();
    let log = nginx.error_log();
    let at = |what: &str| log.find(what).unwrap_or_else(|| panic!("no {what}: {log}"));
    assert!(at("limit: redis_call_response args") < at("prompt: request_headers"), "{log}");
}
