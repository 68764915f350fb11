//! Answers of Redis servers, as another implementation of the protocol reads them, and calls of guests.

use std::sync::Arc;

use crate::world::Probe;
use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp3::decode::complete::decode_range;
use resty_proxy_wasm::callout::{FailureKind, Upstream};
use resty_proxy_wasm::limits;
use resty_proxy_wasm::redis::{Action, Broken, Call, Found, Options, Pool, Query, Scanner, Target};

fn line(kind: char, text: impl std::fmt::Display) -> Vec<u8> {
    format!("{kind}{text}\r\n").into_bytes()
}

fn string(kind: char, bytes: &[u8]) -> Vec<u8> {
    [&line(kind, bytes.len())[..], bytes, b"\r\n"].concat()
}

fn aggregate(kind: char, count: usize, elements: &[Vec<u8>]) -> Vec<u8> {
    [line(kind, count), elements.concat()].concat()
}

/// Answers as servers write them.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let text = "[ -~]{0,20}";
    let leaf = prop_oneof![
        text.prop_map(|text| line('+', text)),
        text.prop_map(|text| line('-', format!("ERR {text}"))),
        any::<i64>().prop_map(|number| line(':', number)),
        vec(any::<u8>(), 0..40).prop_map(|bytes| string('$', &bytes)),
        Just(line('_', "")),
        any::<bool>().prop_map(|value| line('#', if value { 't' } else { 'f' })),
        (-1e6..1e6).prop_map(|number| line(',', number)),
        "[1-9][0-9]{0,40}".prop_map(|digits| line('(', digits)),
        text.prop_map(|text| string('=', format!("txt:{text}").as_bytes())),
        text.prop_map(|text| string('!', format!("ERR {text}").as_bytes())),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(|all| aggregate('*', all.len(), &all)),
            // Keys that differ, or another implementation would count them as one.
            vec(inner, 0..8).prop_map(|values| {
                let keyed = values.iter().enumerate();
                let all: Vec<_> = keyed
                    .map(|(at, value)| [line('+', format!("key{at}")), value.clone()].concat())
                    .collect();
                aggregate('%', all.len(), &all)
            }),
        ]
    })
}

/// Feeds bytes in pieces of these sizes, and returns what comes out and what was read before.
fn scan(bytes: &[u8], sizes: &[usize]) -> Result<Option<(Found, usize)>, Broken> {
    let (mut scanner, mut end) = (Scanner::default(), 0);
    let mut sizes = sizes.iter().cycle();
    while end < bytes.len() {
        end = bytes.len().min(end + sizes.next().copied().unwrap_or(1));
        if let Some(found) = scanner.scan(&bytes[..end])? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

proptest! {
    #[test]
    fn answers_end_where_another_implementation_says(
        answer in answer(),
        behind in vec(any::<u8>(), 0..10),
        sizes in vec(1..50usize, 1..5),
    ) {
        let bytes = [&answer[..], &behind].concat();
        let (_, length) = decode_range(&bytes).expect("an answer").expect("a whole one");
        prop_assert_eq!(length, answer.len());
        prop_assert_eq!(scan(&bytes, &sizes), Ok(Some((Found::Answer, length))));
        prop_assert_eq!(scan(&answer[..answer.len() - 1], &sizes), Ok(None));
    }

    #[test]
    fn whatever_comes_is_read_the_same_in_pieces(bytes in vec(prop_oneof![
        "[-+:$*%~|>_#,(!=.;?0-9]".prop_map(String::into_bytes),
        Just(b"\r\n".to_vec()),
        Just(b"a".to_vec()),
    ], 0..40), sizes in vec(1..9usize, 1..5)) {
        let bytes = bytes.concat();
        prop_assert_eq!(scan(&bytes, &sizes), scan(&bytes, &[bytes.len().max(1)]));
    }
}

/// What a server announces is believed only as far as it sends it, and nothing recurses.
#[test]
fn servers_that_announce_much() {
    let deep = "*1\r\n".repeat(1_000_000);
    for answer in ["$99999999999\r\n", "*99999999999\r\n", "%9000000\r\n", deep.as_str()] {
        assert_eq!(scan(answer.as_bytes(), &[1000]), Err(Broken::TooLarge));
    }
    // Each byte is looked at once: this takes minutes where reading begins again for each piece.
    let long = format!("*400000\r\n{}", "$1\r\na\r\n".repeat(400_000));
    let (mut scanner, mut last) = (Scanner::default(), Ok(None));
    for end in 0..=long.len() {
        last = scanner.scan(&long.as_bytes()[..end]);
    }
    assert_eq!(last, Ok(Some((Found::Answer, long.len()))));
}

#[test]
fn a_filter_begins_with_so_many_servers() {
    let most = limits::REDIS_UPSTREAMS;
    let script: String = (0..=most)
        .map(|at| format!("request_headers: redis_init host{at}:1 '' '' 1000\n"))
        .collect();
    // One that it began with before takes no more room.
    let probe = Probe::new(&format!("{script} request_headers: redis_init host0:1 '' pw 1000"));
    probe.open().request_headers();
    let answers = probe.answers();
    assert!(answers[..most].iter().all(|answer| answer == "0"), "{answers:?}");
    assert_eq!(answers[most..], ["10", "0"]);
    assert_eq!(probe.warned().len(), 1);
}

#[test]
fn names_and_passwords_of_users_have_a_limit() {
    let most = limits::REDIS_CREDENTIAL;
    let probe = Probe::new(&format!(
        "request_headers: redis_init host:1 \\R{{{most}}}u \\R{{{most}}}p 1000
         request_headers: redis_init host:1 \\R{{{over}}}u '' 1000
         request_headers: redis_init host:1 '' \\R{{{over}}}p 1000",
        over = most + 1,
    ));
    probe.open().request_headers();
    assert_eq!(probe.answers(), ["0", "2", "2"]);
    assert_eq!(probe.warned().len(), 2);
}

/// Servers that the pool has no connection for fail their calls, and those that it has connections for continue.
#[test]
fn a_worker_makes_so_many_connections() {
    let upstream = |at: usize| Upstream::parse(format!("10.0.0.1:{}", at + 1).as_bytes(), false);
    let call = |at: usize| Call {
        token: 1,
        target: Arc::new(Target {
            name: format!("server{at}"),
            upstream: upstream(at).expect("an address"),
            options: Options::default(),
            timeout_ms: 1000,
        }),
        query: Query { bytes: b"*1\r\n$4\r\nPING\r\n".to_vec(), answers: 1 },
        timeout_ms: 1000,
    };
    let mut pool = Pool::default();
    for at in 0..limits::REDIS_CONNECTIONS {
        pool.call("owner", 0, call(at), 0);
    }
    assert!(pool.take_event().is_none());
    pool.call("owner", 0, call(limits::REDIS_CONNECTIONS), 0);
    let (event, ..) = pool.take_event().expect("a failure");
    assert_eq!(event.result.expect_err("no connection").kind, FailureKind::Connect);
    // One that is there takes another call.
    pool.call("owner", 0, call(0), 0);
    assert!(pool.take_event().is_none());
}

#[test]
fn compressing_has_a_limit_on_both_sides() {
    let most = limits::COMPRESSED;
    // zlib's header, and blocks of 65,535 bytes as they are: more than the limit when they are put together.
    let blocks = "\\x00\\xff\\xff\\x00\\x00\\R{65535}a".repeat(most / 65535 + 1);
    let probe = Probe::new(&format!(
        "request_headers: call_foreign_function compress \\R{{{most}}}a
         request_headers: call_foreign_function compress \\R{{{}}}a
         request_headers: call_foreign_function uncompress \\x78\\x01{blocks}",
        most + 1,
    ));
    probe.open().request_headers();
    let answers = probe.answers();
    assert!(answers[0].starts_with("0 <2056 bytes"), "{answers:?}");
    assert_eq!(answers[1..], ["3", "3"]);
    assert_eq!(probe.warned().len(), 1);
}

fn pinged(pool: &mut Pool<&'static str>) -> u32 {
    let call = Call {
        token: 1,
        target: Arc::new(Target {
            name: "server".into(),
            upstream: Upstream::parse(b"10.0.0.1:1", false).expect("an address"),
            options: Options::default(),
            timeout_ms: 1000,
        }),
        query: Query { bytes: b"*1\r\n$4\r\nPING\r\n".to_vec(), answers: 1 },
        timeout_ms: 1000,
    };
    pool.call("owner", 0, call, 0)
}

/// A stream that ends before there is a connection, say: what it wanted to be written is written.
#[test]
fn a_call_that_is_given_up_before_there_is_a_connection_is_sent() {
    let mut pool = Pool::default();
    let (first, second) = (pinged(&mut pool), pinged(&mut pool));
    let Action(connection) = pool.take_action().expect("a connection to make");
    pool.cancel(first);
    pool.connected(connection, None);
    let mut out = Vec::new();
    pool.next(connection, &mut out, 0);
    assert_eq!(out, b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n");
    // Each answer goes to its call, and no call is told of the first.
    pool.receive(connection, b"+ONE\r\n+TWO\r\n", false, 0);
    let (event, ..) = pool.take_event().expect("an answer");
    assert_eq!((event.id, event.result.expect("bytes")), (second, b"+TWO\r\n".to_vec()));
    assert!(pool.take_event().is_none());
}

#[test]
fn so_many_calls_that_are_given_up_wait_for_a_connection() {
    let mut pool = Pool::default();
    for _ in 0..limits::CALLS + 10 {
        let id = pinged(&mut pool);
        pool.cancel(id);
    }
    let Action(connection) = pool.take_action().expect("a connection to make");
    pool.connected(connection, None);
    let mut out = Vec::new();
    pool.next(connection, &mut out, 0);
    assert_eq!(out.len(), limits::CALLS * b"*1\r\n$4\r\nPING\r\n".len());
}
