//! Redis calls against Debian's redis-server.

use super::support::redis::{Redis, query};
use super::support::{Outcome, Probe, Running, poll};

/// What each script ends with: the request continues when its call is answered.
const END: &str = "
    redis_call_response: args
    redis_call_response: get_buffer_bytes 9 0 max
    redis_call_response: get_status
    redis_call_response: set_effective_context caller
    redis_call_response: continue_stream 0
";

/// A request that waits for a call of a filter that began with `upstream`, whose words are name, user, password, timeout.
pub(crate) fn script(upstream: &str, commands: &[&[&str]]) -> String {
    let (full, words) = upstream.split_once(' ').expect("words");
    let name = full.split('?').next().unwrap_or_default();
    format!(
        "configure: redis_init '{full}' {words}
         request_headers: redis_call '{name}' {}
         request_headers: pause
         {END}",
        query(commands)
    )
}

pub(crate) fn prepare(probe: Probe) -> Probe {
    probe.nginx(|nginx| nginx.http("lua_socket_log_errors off;"))
}

pub(crate) fn run(upstream: &str, commands: &[&[&str]]) -> Outcome {
    prepare(Probe::new(&script(upstream, commands))).run()
}

/// The arguments of the callback, the bytes that came, and the code and text of the status.
pub(crate) fn answers(run: &Outcome) -> Vec<String> {
    let lines = run.of("redis_call_response");
    lines
        .into_iter()
        .filter(|line| !line.starts_with("set_eff") && !line.starts_with("continue"))
        .collect()
}

#[test]
fn an_answer_comes_as_the_server_wrote_it() {
    let redis = Redis::start(&[]);
    let upstream = format!("{} '' '' 5000", redis.upstream());
    let run = run(&upstream, &[&["SET", "a", "hello"]]);
    assert_eq!(run.response.status, 200);
    assert_eq!(
        answers(&run),
        [
            "args -> token=1 status=0 size=5",
            "get_buffer_bytes 9 0 max -> 0 +OK\\x0d\\x0a",
            "get_status -> 0 0 ''",
        ]
    );
    assert_eq!(redis.ask(&["GET", "a"]), "hello");
}

#[test]
fn several_commands_are_answered_as_one() {
    let redis = Redis::start(&[]);
    let commands: &[&[&str]] = &[
        &["SET", "a", "1"],
        &["INCR", "a"],
        &["MULTI"],
        &["GET", "a"],
        &["EXEC"],
        &["NO", "SUCH"],
    ];
    let run = run(&format!("{} '' '' 5000", redis.upstream()), commands);
    let bytes = &answers(&run)[1];
    let expected = "get_buffer_bytes 9 0 max -> 0 +OK\\x0d\\x0a:2\\x0d\\x0a+OK\\x0d\\x0a+QUEUED\\x0d\\x0a\
                    *1\\x0d\\x0a$1\\x0d\\x0a2\\x0d\\x0a-ERR unknown command";
    assert!(bytes.starts_with(expected), "{bytes}");
}

#[test]
fn answers_of_resp3() {
    let redis = Redis::start(&[]);
    let commands: &[&[&str]] =
        &[&["HELLO", "3"], &["HSET", "h", "f", "v"], &["HGETALL", "h"], &["GET", "none"]];
    let run = run(&format!("{} '' '' 5000", redis.upstream()), commands);
    let bytes = &answers(&run)[1];
    let end = ":1\\x0d\\x0a%1\\x0d\\x0a$1\\x0d\\x0af\\x0d\\x0a$1\\x0d\\x0av\\x0d\\x0a_\\x0d\\x0a";
    assert!(bytes.contains("-> 0 %7") && bytes.ends_with(end), "{bytes}");
}

#[test]
fn password_user_and_database() {
    let redis = Redis::start(&["--requirepass", "secret"]);
    let commands: &[&[&str]] = &[&["CLIENT", "SETNAME", "filter"], &["SET", "a", "1"]];
    let found =
        run(&format!("{}?db=3&buffer_flush_timeout=3 '' secret 5000", redis.upstream()), commands);
    assert_eq!(answers(&found)[1], "get_buffer_bytes 9 0 max -> 0 +OK\\x0d\\x0a+OK\\x0d\\x0a");
    // The same with the user's name, which Redis has had since version 6.
    let commands: &[&[&str]] = &[&["GET", "a"]];
    let found = run(&format!("{}?db=3 default secret 5000", redis.upstream()), commands);
    assert_eq!(answers(&found)[1], "get_buffer_bytes 9 0 max -> 0 $1\\x0d\\x0a1\\x0d\\x0a");
    let found = run(&format!("{} default secret 5000", redis.upstream()), commands);
    assert_eq!(answers(&found)[1], "get_buffer_bytes 9 0 max -> 0 $-1\\x0d\\x0a");
}

#[test]
fn a_server_that_refuses_who_asks_is_quoted() {
    let redis = Redis::start(&["--requirepass", "secret"]);
    let upstream = format!("{} '' wrong 5000", redis.upstream());
    let nginx = prepare(Probe::new(&script(&upstream, &[&["GET", "a"]]))).start();
    nginx.expect_log("the server does not accept who asks: WRONGPASS");
    let response = nginx.get("/");
    nginx.stop();
    let run = Outcome { nginx, response };
    assert!(answers(&run)[0].starts_with("args -> token=1 status=0 "), "{:?}", answers(&run));
    assert!(answers(&run)[1].contains("-NOAUTH Authentication required."), "{:?}", answers(&run));
}

#[test]
fn a_password_that_the_server_does_not_want_is_no_failure() {
    let redis = Redis::start(&[]);
    let upstream = format!("{} '' secret 5000", redis.upstream());
    let nginx = prepare(Probe::new(&script(&upstream, &[&["PING"]]))).start();
    nginx.expect_log("the server does not accept who asks: ERR AUTH");
    let response = nginx.get("/");
    nginx.stop();
    assert_eq!(
        answers(&Outcome { nginx, response })[1],
        "get_buffer_bytes 9 0 max -> 0 +PONG\\x0d\\x0a"
    );
}

#[test]
fn names_of_clusters_stand_in_setup() {
    let redis = Redis::start(&[]);
    let name = "outbound|6379||redis.static";
    let upstream =
        format!("{name}?buffer_flush_timeout=3&max_buffer_size_before_flush=1024 '' '' 5000");
    let text = script(&upstream, &[&["PING"]]);
    let setup = format!(
        r#"wasm.setup({{ upstreams = {{ ["{name}"] = "redis://127.0.0.1:{}" }} }})"#,
        redis.port
    );
    let run = prepare(Probe::new(&text)).init(&setup).run();
    assert_eq!(answers(&run)[1], "get_buffer_bytes 9 0 max -> 0 +PONG\\x0d\\x0a");
}

#[test]
fn what_cannot_be_asked_is_refused_at_once() {
    let ping = query(&[&["PING"]]);
    let calls = [
        (
            "redis_init 'outbound|6379||none.static' '' '' 1000",
            "is neither a registered upstream for Redis",
        ),
        ("redis_init http://127.0.0.1:1 '' '' 1000", "is neither a registered upstream for Redis"),
        ("redis_init 127.0.0.1:1?db=x '' '' 1000", "the option db is no number"),
        (
            "redis_call 'outbound|6379||none.static' PING",
            "is neither a registered upstream for Redis",
        ),
        ("redis_call 127.0.0.1:1 'PING\\r\\n'", "the query is no list of commands"),
        ("redis_call 127.0.0.1:1 ''", "the query is no list of commands"),
    ];
    let (mut text, mut expected) = (String::new(), Vec::new());
    for (call, _) in calls {
        let call = call.replace(" PING", &format!(" {ping}"));
        text += &format!("request_headers: {call}\n");
        expected.push(format!("{call} -> 2"));
    }
    for command in [&["subscribe", "a"][..], &["CLIENT", "REPLY", "OFF"], &["MULTI"]] {
        let call = format!("redis_call 127.0.0.1:1 {}", query(&[command]));
        text += &format!("request_headers: {call}\n");
        expected.push(format!("{call} -> 2"));
    }
    let nginx = prepare(Probe::new(&text)).start();
    for (_, warning) in calls {
        nginx.expect_log(warning);
    }
    nginx.expect_log("SUBSCRIBE is refused: other calls share the connection");
    nginx.expect_log("CLIENT is refused");
    nginx.expect_log("MULTI without EXEC is refused");
    let response = nginx.get("/");
    nginx.stop();
    assert_eq!(Outcome { nginx, response }.of("request_headers"), expected);
}

#[test]
fn commands_that_are_not_listed_are_refused() {
    let redis = Redis::start(&[]);
    let upstream = redis.upstream();
    let (get, set) = (query(&[&["get", "a"]]), query(&[&["GET", "a"], &["SET", "a", "1"]]));
    let text = format!(
        "request_headers: redis_call {upstream} {set}
         request_headers: redis_call {upstream} {get}
         request_headers: pause
         {END}"
    );
    let options = "calls = { allow = { '127.0.0.1' }, redis_commands = { 'GET', 'incr' } }";
    let nginx = prepare(Probe::new(&text)).options(options).start();
    nginx.expect_log("the filter may not call \"redis command SET\"");
    let response = nginx.get("/");
    nginx.stop();
    let run = Outcome { nginx, response };
    assert_eq!(
        run.of("request_headers")[..2],
        [
            format!("redis_call {upstream} {set} -> 2"),
            format!("redis_call {upstream} {get} -> 0 1")
        ]
    );
    assert_eq!(answers(&run)[1], "get_buffer_bytes 9 0 max -> 0 $-1\\x0d\\x0a");
    assert_eq!(redis.ask(&["EXISTS", "a"]), "0");
}

#[test]
fn servers_that_may_not_be_called_are_refused() {
    let upstream = "127.0.0.1:6379";
    let text = format!(
        "request_headers: redis_init {upstream} '' '' 1000
         request_headers: redis_call {upstream} {}",
        query(&[&["PING"]])
    );
    let nginx = prepare(Probe::new(&text)).options("calls = { deny = { '127.0.0.0/8' } }").start();
    nginx.expect_log("the filter may not call \"127.0.0.1:6379\"");
    let response = nginx.get("/");
    nginx.stop();
    let lines = Outcome { nginx, response }.of("request_headers");
    assert!(lines.iter().all(|line| line.ends_with(" -> 2")), "{lines:?}");
}

/// A running filter whose requests each make a call.
pub(crate) fn serving(upstream: &str, commands: &[&[&str]]) -> Running {
    prepare(Probe::new(&script(upstream, commands))).start()
}

pub(crate) fn last(nginx: &Running, op: &str) -> String {
    let lines = nginx.guest_log("probe");
    let line =
        lines.iter().rev().find_map(|line| line.strip_prefix(&format!("redis_call_response {op}")));
    line.unwrap_or_else(|| panic!("no {op}: {lines:#?}")).into()
}

/// Each plugin context is who its own `redis_init` says.
#[test]
fn contexts_ask_as_what_they_began_with() {
    let redis = Redis::start(&[]);
    for user in ["one", "two"] {
        redis.ask(&["ACL", "SETUSER", user, "on", ">secret", "~*", "+@all"]);
    }
    let context = |user: &str| {
        let upstream = format!("{} {user} secret 5000", redis.upstream());
        let script = script(&upstream, &[&["ACL", "WHOAMI"]]);
        format!("assert(wasm.on_configure(plugin, [==[{script}]==]))")
    };
    let nginx = prepare(Probe::new("# nothing"))
        .nginx(|nginx| {
            nginx.http(&format!(
                r#"init_worker_by_lua_block {{
                    local wasm = require("resty.proxy-wasm")
                    wasm.init_worker()
                    local plugin = assert(wasm.load("users", "probe.wasm"))
                    users = {{ one = wasm.new_chain({{ {} }}), two = wasm.new_chain({{ {} }}) }}
                }}"#,
                context("one"),
                context("two")
            ))
            .server("location /as/ { access_by_lua_block { users[ngx.var.uri:sub(5)]:access() } content_by_lua_block { ngx.exit(200) } }")
        })
        .start();
    for user in ["one", "two", "one"] {
        assert_eq!(nginx.get(&format!("/as/{user}")).status, 200);
        let lines = nginx.guest_log("users");
        let answer = lines.iter().rev().find(|line| line.contains("get_buffer_bytes 9"));
        let expected = format!("$3\\x0d\\x0a{user}\\x0d\\x0a");
        assert!(answer.is_some_and(|line| line.ends_with(&expected)), "{user}: {answer:?}");
    }
}

#[test]
fn a_unix_socket() {
    let redis = Redis::start(&[]);
    let run = run(&format!("{} '' '' 5000", redis.socket()), &[&["PING"]]);
    assert_eq!(answers(&run)[1], "get_buffer_bytes 9 0 max -> 0 +PONG\\x0d\\x0a");
}

/// Of ten requests with a hundred calls each, behind one that waits: the connection takes the next ones without waiting.
#[test]
fn a_thousand_calls_under_way() {
    let redis = Redis::start(&[]);
    let upstream = redis.upstream();
    let call = format!("request_headers: redis_call {upstream} {}\n", query(&[&["INCR", "a"]]));
    let text = format!(
        "configure: redis_init {upstream} '' '' 60000
         request_headers: redis_call {upstream} {}
         {}request_headers: log 2 asked
         request_headers: pause",
        query(&[&["BLPOP", "gate", "0"]]),
        call.repeat(100)
    );
    // The calls hold the request until the last of them is answered.
    let nginx = prepare(Probe::new(&text)).options("calls_hold = true").start();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..10).map(|_| scope.spawn(|| nginx.get("/").status)).collect();
        let asked = || nginx.guest_log("probe").iter().filter(|line| *line == "asked").count();
        assert!(poll(|| (asked() == 10).then_some(())).is_some(), "{} requests", asked());
        // They all share one connection; the other is that which asks.
        let info = redis.ask(&["INFO", "clients"]);
        assert!(info.contains("connected_clients:2\r"), "{info}");
        for _ in 0..10 {
            redis.ask(&["RPUSH", "gate", "open"]);
        }
        for client in clients {
            assert_eq!(client.join().expect("a client"), 200);
        }
    });
    assert_eq!(redis.ask(&["GET", "a"]), "1000");
}

#[test]
fn a_reload_waits_for_the_answer() {
    let redis = Redis::start(&[]);
    let nginx = serving(&format!("{} '' '' 30000", redis.upstream()), &[&["BLPOP", "list", "0"]]);
    let mut client = nginx.connect();
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let blocked =
        poll(|| redis.ask(&["INFO", "clients"]).contains("blocked_clients:1").then_some(()));
    assert!(blocked.is_some(), "the call never came");
    nginx.reload();
    redis.ask(&["RPUSH", "list", "value"]);
    assert_eq!(client.response().status, 200);
    assert!(last(&nginx, "get_buffer").ends_with("value\\x0d\\x0a"));
    // The old worker goes with its connection.
    nginx.wait_for_old_workers();
}

#[test]
fn calls_are_counted() {
    let redis = Redis::start(&[]);
    let nginx = prepare(Probe::new(&script(&format!("{} '' '' 5000", redis.upstream()), &[&["PING"]])))
        .nginx(|nginx| {
            nginx.server(
                r#"location /metrics { content_by_lua_block { ngx.print(require("resty.proxy-wasm").prometheus()) } }"#,
            )
        })
        .start();
    nginx.get("/");
    let text = nginx.get("/metrics").text();
    assert!(text.contains(r#"proxy_wasm_calls_total{plugin="probe",kind="redis"} 1"#), "{text}");
    assert!(
        text.contains(r#"proxy_wasm_failed_calls_total{plugin="probe",kind="redis"} 0"#),
        "{text}"
    );
}

#[test]
fn calls_without_end_leave_the_worker_to_requests() {
    let redis = Redis::start(&[]);
    let upstream = redis.upstream();
    let ping = query(&[&["PING"]]);
    let calls = format!("request_headers@first: redis_call {upstream} {ping}\n").repeat(50);
    let text = format!(
        "configure: redis_init {upstream} '' '' 30000
         tick@first: redis_call {upstream} {ping}
         configure: set_tick_period_milliseconds 10
         {calls}
         redis_call_response: redis_call {upstream} {ping}"
    );
    // A request that waits for its calls would wait for ever.
    let nginx = prepare(Probe::new(&text))
        .options("calls_hold = false")
        .nginx(|nginx| nginx.log_level("notice"))
        .start();
    for _ in 0..20 {
        assert_eq!(nginx.get("/").status, 200);
    }
}

#[test]
fn memory_stays_as_it_is() {
    let redis = Redis::start(&[]);
    let upstream = redis.upstream();
    let call = format!("request_headers: redis_call {upstream} {}\n", query(&[&["INCR", "a"]]));
    let text = format!(
        "configure: redis_init {upstream} '' '' 30000
         {}request_headers: pause",
        call.repeat(100)
    );
    let nginx = prepare(Probe::new(&text))
        .options("calls_hold = true")
        .nginx(|nginx| nginx.log_level("notice"))
        .start();
    let worker = nginx.worker_pids()[0];
    let many = || (0..100).for_each(|_| assert_eq!(nginx.get("/").status, 200));
    many();
    let before = nginx.rss_kib(worker);
    (0..4).for_each(|_| many());
    let grown = nginx.rss_kib(worker).saturating_sub(before);
    // 40,000 calls: 32 bytes of each that stayed would be 1,250 KiB.
    assert!(grown < 1024, "{grown} KiB after {before} KiB");
    assert_eq!(redis.ask(&["GET", "a"]), "50000");
}
