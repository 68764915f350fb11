//! `chain:content()` while the server still sends: by the order of events, and not by time.

use super::content::{CALL, filters};
use super::ops::wait_for_lines;
use super::support::{Nginx, Running, poll};
use super::vendor_stream::{Client, Pieces};
use std::io::Write as _;

/// nginx with a chain of filters of these scripts, before a server that the test plays.
fn streamed(scripts: &[&str], options: &str, pieces: &Pieces) -> Running {
    let filters = filters(scripts, options);
    Nginx::new()
        .guest("probe_0_2_100")
        .http(&format!(
            r#"
            lua_socket_log_errors off;
            {filters}
            "#
        ))
        .server(&format!(
            r#"location / {{
                access_by_lua_block {{ chain:access() }}
                content_by_lua_block {{ chain:content("127.0.0.1:{}") }}
            }}"#,
            pieces.port()
        ))
        .start()
}

/// By the order of events, and not by time: the server sends the next piece only when the client has seen the last one.
#[test]
fn each_piece_reaches_the_client_before_the_next_is_sent() {
    for head in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
    {
        let pieces = Pieces::new();
        let nginx =
            streamed(&["# nothing", "response_body: get_buffer_bytes 1 0 max"], "", &pieces);
        let mut client = Client::ask(&nginx);
        let mut upstream = pieces.accept_with(head);
        let chunked = head.contains("chunked");
        for number in 0..5 {
            let piece = format!("data: {number}\n\n");
            let sent = if chunked {
                format!("{:x};x=y\r\n{piece}\r\n", piece.len())
            } else {
                piece.clone()
            };
            upstream.write_all(sent.as_bytes()).expect("written");
            assert!(client.sees(&piece), "{number}: {:?}", client.text());
        }
        if chunked {
            upstream.write_all(b"0\r\nX-Trailer: a\r\n\r\n").expect("written");
        }
        drop(upstream);
        assert!(client.ends(), "{:?}", client.text());
    }
}

/// As the filters do that check what a model streams: they hold, ask, and send what was found good.
#[test]
fn a_stream_is_checked_and_continues() {
    let script = format!(
        "response_body@more: return 3
         response_body@more: inject_encoded_data_to_filter_chain checked 0
         response_body@eos: {CALL}
         response_body@eos: pause
         http_call_response: set_effective_context caller
         http_call_response: inject_encoded_data_to_filter_chain ' end' 1"
    );
    let pieces = Pieces::new();
    let nginx = streamed(&[&script], "", &pieces);
    let mut client = Client::ask(&nginx);
    let mut upstream = pieces.accept();
    upstream.write_all(b"one").expect("written");
    assert!(client.sees("\r\n\r\nchecked"), "{:?}", client.text());
    upstream.write_all(b"two").expect("written");
    assert!(client.sees("checkedchecked"), "{:?}", client.text());
    drop(upstream);
    assert!(client.sees("checkedchecked end"), "{:?}", client.text());
}

/// The answer of the call comes between two pieces, before anything was sent.
#[test]
fn pieces_that_come_between_those_of_the_server() {
    let script = format!(
        "response_body@first: {CALL}
         response_body@more: return 3
         http_call_response: set_effective_context caller
         http_call_response: inject_encoded_data_to_filter_chain checked 0"
    );
    let pieces = Pieces::new();
    let nginx = streamed(&[&script], "", &pieces);
    let mut client = Client::ask(&nginx);
    let mut upstream = pieces.accept();
    upstream.write_all(b"one").expect("written");
    wait_for_lines(&nginx, "f0", 4);
    upstream.write_all(b"two").expect("written");
    assert!(client.sees("\r\n\r\nchecked"), "{:?}", client.text());
}

#[test]
fn no_more_is_in_memory_than_filters_hold() {
    let pieces = Pieces::new();
    let nginx = streamed(&["response_body: get_buffer_status 1"], "body_limit = 1000", &pieces);
    let worker = nginx.worker_pids()[0];
    let piece = vec![b'x'; 1024 * 1024];
    let mut before = 0;
    for round in 0..2 {
        let mut connection = nginx.connect();
        connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut upstream = pieces.accept();
        std::thread::scope(|scope| {
            let read = scope.spawn(|| connection.read_to_end().len());
            for _ in 0..[4, 64][round] {
                upstream.write_all(&piece).expect("written");
            }
            drop(upstream);
            assert!(read.join().expect("a client") > [4, 64][round] * piece.len());
        });
        if round == 0 {
            before = nginx.peak_rss_kib(worker);
        }
    }
    let grown = nginx.peak_rss_kib(worker).saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 64 MiB");
}

/// The server is not read any further, or this one would never end.
#[test]
fn what_a_filter_holds_has_a_limit() {
    for (scripts, sent, status) in [
        (&["response_body: pause"][..], false, "HTTP/1.1 503 "),
        // The first piece was sent, so all that is left is to cut the response off.
        (&["response_body: pause", "response_body: get_buffer_status 1"], false, "HTTP/1.1 503 "),
        (
            &["response_body@more: inject_encoded_data_to_filter_chain first 0
               response_body: return 2"],
            true,
            "HTTP/1.1 200 ",
        ),
    ] {
        let pieces = Pieces::new();
        let nginx = streamed(scripts, "body_limit = 100000", &pieces);
        nginx
            .expect_log("holds the response body, and it is larger than body_limit (100000 bytes)");
        if sent {
            nginx.expect_log("the response is cut off: a filter failed");
        }
        let mut connection = nginx.connect();
        connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut upstream = pieces.accept();
        let piece = vec![b'x'; 10_000];
        let stopped = poll(|| upstream.write_all(&piece).is_err().then_some(()));
        assert!(stopped.is_some(), "nginx reads on");
        let answer = String::from_utf8_lossy(&connection.read_to_end()).into_owned();
        assert!(answer.starts_with(status), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n") || !sent, "{answer}");
    }
}

#[test]
fn what_a_filter_held_is_sent_when_it_fails_open() {
    for (end, failure) in [
        (
            format!("response_body@eos: {CALL}\nresponse_body@eos: pause"),
            "nothing let it go on within 100 ms",
        ),
        ("response_body@eos: trap".into(), "wasm trap"),
    ] {
        let script = format!("response_body@more: pause\n{end}");
        let pieces = Pieces::new();
        let nginx = streamed(&[&script], "fail = 'open', pause_timeout = 100", &pieces);
        nginx.expect_log("failed to run proxy_on_http_response_body: ");
        let mut client = Client::ask(&nginx);
        let mut upstream = pieces.accept();
        for piece in ["one ", "two ", "three"] {
            upstream.write_all(piece.as_bytes()).expect("written");
            std::thread::yield_now();
        }
        drop(upstream);
        assert!(client.sees("\r\n\r\none two three"), "{failure}: {:?}", client.text());
    }
}

#[test]
fn a_filter_ends_the_response_before_the_server_does() {
    let script = "response_body@first: inject_encoded_data_to_filter_chain 'the answer' 1
                  response_body: return 3";
    let pieces = Pieces::new();
    let nginx = streamed(&["response_body: get_buffer_bytes 1 0 max", script], "", &pieces);
    let mut connection = nginx.connect();
    connection.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = pieces.accept();
    upstream.write_all(b"event one").expect("written");
    assert_eq!(connection.response().text(), "the answer");
    let stopped = poll(|| upstream.write_all(b"event").is_err().then_some(()));
    assert!(stopped.is_some(), "nginx reads on");
}

#[test]
fn servers_that_answer_what_is_no_http() {
    for (head, why) in [
        ("SSH-2.0\r\n\r\n", "the response has no status"),
        ("HTTP/1.1 20\r\n\r\n", "the response has no status"),
        ("HTTP/1.1 200 OK\r\na b: c\r\n\r\n", "the response has a bad header"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "the response has a bad header"),
        ("HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", "the response has a bad header"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "that is not known"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "a bad content-length",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "a bad content-length"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "the server switches the protocol"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "the response has a bad chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
            "the response has a bad chunk",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "it ended too early (closed)"),
    ] {
        let pieces = Pieces::new();
        let nginx = streamed(&["# nothing"], "", &pieces);
        nginx.expect_log(why);
        let mut connection = nginx.connect();
        connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        drop(pieces.accept_with(head));
        assert_eq!(connection.response().status, 502, "{head:?}");
    }
    // Without end.
    let pieces = Pieces::new();
    let nginx = streamed(&["# nothing"], "", &pieces);
    nginx.expect_log("a line or a head is too long");
    let mut connection = nginx.connect();
    connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut upstream = pieces.accept_with("HTTP/1.1 200 OK\r\nA: ");
    let piece = vec![b'x'; 10_000];
    let stopped = poll(|| upstream.write_all(&piece).is_err().then_some(()));
    assert!(stopped.is_some(), "nginx reads on");
    assert_eq!(connection.response().status, 502);
    // Before the response there may be others.
    let pieces = Pieces::new();
    let nginx = streamed(&["# nothing"], "", &pieces);
    let mut connection = nginx.connect();
    connection.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    drop(
        pieces
            .accept_with("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    );
    assert_eq!(connection.response().status, 204);
}
