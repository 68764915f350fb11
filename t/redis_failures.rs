//! Redis servers that are gone, come late, refuse, or say what no server should.

use super::redis::{answers, last, run, serving};
use super::support::redis::{Redis, answering};
use super::support::{free_port, poll};

#[test]
fn a_server_that_is_gone_fails_calls_and_comes_back() {
    let mut redis = Redis::start(&[]);
    let nginx = serving(&format!("{} '' '' 5000", redis.upstream()), &[&["INCR", "a"]]);
    nginx.expect_log("Redis call to 127.0.0.1");
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(last(&nginx, "get_buffer"), "_bytes 9 0 max -> 0 :1\\x0d\\x0a");
    redis.kill();
    // The connection that is lost may still be taken for one.
    let refused = poll(|| {
        assert_eq!(nginx.get("/").status, 200);
        let status = last(&nginx, "get_status");
        (status == " -> 0 11 connect").then_some(())
    });
    assert!(refused.is_some(), "{}", last(&nginx, "get_status"));
    assert!(last(&nginx, "args").ends_with("status=1 size=0"), "{}", last(&nginx, "args"));
    assert_eq!(last(&nginx, "get_buffer"), "_bytes 9 0 max -> 1");
    redis.restart();
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(last(&nginx, "get_buffer"), "_bytes 9 0 max -> 0 :1\\x0d\\x0a");
}

#[test]
fn a_call_under_way_fails_when_the_server_dies() {
    let mut redis = Redis::start(&[]);
    let nginx = serving(&format!("{} '' '' 30000", redis.upstream()), &[&["BLPOP", "list", "0"]]);
    nginx.expect_log("Redis call to 127.0.0.1");
    let mut client = nginx.connect();
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let blocked =
        poll(|| redis.ask(&["INFO", "clients"]).contains("blocked_clients:1").then_some(()));
    assert!(blocked.is_some(), "the call never came");
    redis.kill();
    assert_eq!(client.response().status, 200);
    assert_eq!(last(&nginx, "get_status"), " -> 0 11 closed");
}

#[test]
fn a_deadline_fails_its_call_and_the_next_one_gets_a_new_connection() {
    let redis = Redis::start(&[]);
    let upstream = format!("{} '' '' 300", redis.upstream());
    let nginx = serving(&upstream, &[&["BLPOP", "list", "0"]]);
    nginx.expect_log("Redis call to 127.0.0.1");
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(last(&nginx, "get_status"), " -> 0 11 timeout");
    redis.ask(&["RPUSH", "list", "late", "next"]);
    // The first connection was closed with its call, so nothing takes "late" for it.
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(last(&nginx, "get_status"), " -> 0 0 ''");
}

/// What a filter begins with needs no server yet, and each new connection says again who asks for what.
#[test]
fn a_server_that_comes_later() {
    let mut redis = Redis::start(&["--requirepass", "secret"]);
    redis.kill();
    let upstream = format!("{}?db=3 '' secret 5000", redis.upstream());
    let nginx = serving(&upstream, &[&["CLIENT", "INFO"]]);
    nginx.expect_log("Redis call to 127.0.0.1");
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(last(&nginx, "get_status"), " -> 0 11 connect");
    let lines = nginx.guest_log("probe");
    let init = lines.iter().find(|line| line.starts_with("configure redis_init"));
    assert!(init.is_some_and(|line| line.ends_with(" -> 0")), "{lines:#?}");
    for _ in 0..2 {
        redis.restart();
        // The connection that is lost may still be taken for one.
        let answered = poll(|| {
            assert_eq!(nginx.get("/").status, 200);
            (last(&nginx, "get_status") == " -> 0 0 ''").then_some(())
        });
        assert!(answered.is_some(), "{}", last(&nginx, "get_status"));
        let info = last(&nginx, "get_buffer");
        assert!(info.contains(" db=3 ") && info.contains(" user=default "), "{info}");
    }
}

/// A node of a cluster whose only other node has all slots.
#[test]
fn a_node_of_a_cluster_tells_where_a_key_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let nodes = format!(
        "{} 127.0.0.1:7000@17000 myself,master - 0 0 1 connected\n\
         {} 127.0.0.1:6381@16381 master - 0 0 2 connected 0-16383\n\
         vars currentEpoch 2 lastVoteEpoch 0\n",
        "1".repeat(40),
        "2".repeat(40)
    );
    std::fs::write(dir.path().join("nodes.conf"), nodes).expect("a file");
    // The other node does not run. It is not given up in the time of a test.
    let bus = free_port().to_string();
    let timeout = ["--cluster-node-timeout", "3600000", "--cluster-port", &bus];
    let redis = Redis::start_in(dir, &[&["--cluster-enabled", "yes"][..], &timeout].concat());
    // For two seconds from its start a node says that the cluster is down.
    let moved = poll(|| redis.ask(&["GET", "a"]).starts_with("MOVED").then_some(()));
    assert!(moved.is_some(), "{}", redis.ask(&["GET", "a"]));
    let run = run(&format!("{} '' '' 5000", redis.upstream()), &[&["GET", "a"]]);
    let said = "-MOVED 15495 127.0.0.1:6381\\x0d\\x0a";
    assert_eq!(answers(&run)[1], format!("get_buffer_bytes 9 0 max -> 0 {said}"));
}

#[test]
fn a_server_that_loads_its_data_says_so_until_it_has() {
    let mut redis = Redis::start(&[
        "--enable-debug-command",
        "local",
        "--loading-process-events-interval-bytes",
        "1024",
        "--rdbcompression",
        "no",
    ]);
    redis.ask(&["DEBUG", "POPULATE", "2000", "key", "2000"]);
    redis.ask(&["SET", "a", "hello"]);
    assert_eq!(redis.ask(&["SAVE"]), "OK");
    let upstream = format!("{} '' '' 30000", redis.upstream());
    let nginx = serving(&upstream, &[&["GET", "a"]]);
    // Each key takes a tenth of a second, and all of them minutes, until it is told to hurry. It answers between keys.
    redis.restart_with(&["--key-load-delay", "100000"]);
    let loads = poll(|| redis.ask(&["PING"]).starts_with("LOADING").then_some(()));
    assert!(loads.is_some(), "{}", redis.ask(&["PING"]));
    assert_eq!(nginx.get("/").status, 200);
    let said = last(&nginx, "get_buffer");
    assert!(said.starts_with("_bytes 9 0 max -> 0 -LOADING "), "{said}");
    redis.ask(&["CONFIG", "SET", "key-load-delay", "0"]);
    let loaded = poll(|| (redis.ask(&["PING"]) == "PONG").then_some(()));
    assert!(loaded.is_some(), "{}", redis.ask(&["PING"]));
    assert_eq!(nginx.get("/").status, 200);
    assert_eq!(last(&nginx, "get_buffer"), "_bytes 9 0 max -> 0 $5\\x0d\\x0ahello\\x0d\\x0a");
}

#[test]
fn servers_that_lie() {
    for (said, closes, status) in [
        (&b"$99999999999\r\n"[..], false, "too large"),
        (b"*99999999\r\n", false, "too large"),
        (b"HTTP/1.1 200 OK\r\n\r\n", false, "protocol"),
        (b"$5\r\nhell", true, "closed"),
        (b"", true, "closed"),
        (b"$3\r\nabcd\r\n", false, "protocol"),
        (b"$5\r\nhell", false, "timeout"),
    ] {
        let port = answering(said, closes);
        let timeout = if status == "timeout" { 300 } else { 30_000 };
        let nginx = serving(&format!("127.0.0.1:{port} '' '' {timeout}"), &[&["GET", "a"]]);
        nginx.expect_log("Redis call to 127.0.0.1");
        assert_eq!(nginx.get("/").status, 200);
        assert_eq!(
            last(&nginx, "get_status"),
            format!(" -> 0 11 {status}"),
            "{}",
            said.escape_ascii()
        );
    }
    // An answer to nothing ends the connection, and the call that it came before was answered.
    let port = answering(b"+OK\r\n+MORE\r\n", false);
    let found = run(&format!("127.0.0.1:{port} '' '' 5000"), &[&["GET", "a"]]);
    assert_eq!(answers(&found)[1], "get_buffer_bytes 9 0 max -> 0 +OK\\x0d\\x0a");
}
