//! The client of gRPC over bytes in memory, with servers that are written frame by frame: good ones and hostile ones.

use crate::grpc_pool::{HEAD, World, frames, message, response, settings};
use crate::h2_frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, SETTINGS, WINDOW_UPDATE, block, frame,
};
use resty_proxy_wasm::callout::Upstream;
use resty_proxy_wasm::grpc::{Code, Message, Wait};
use resty_proxy_wasm::limits;

const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

#[test]
fn a_call_however_its_response_is_cut() {
    let bytes = response(1, "re", "0");
    for at in 0..bytes.len() {
        let mut world = World::default();
        world.call();
        let connection = world.connected(None);
        let sent = frames(&world.sent(connection));
        let of_call: Vec<_> = sent.iter().filter(|frame| frame.2 == 1).collect();
        assert_eq!(of_call, [&(HEADERS, END_HEADERS, 1), &(DATA, END_STREAM, 1)]);
        world.receive(connection, &bytes[..at]);
        assert_eq!(world.told(), [""; 0], "{at}");
        world.receive(connection, &bytes[at..]);
        assert_eq!(world.told(), ["1 message re over"], "{at}");
    }
}

#[test]
fn responses_that_are_none() {
    let head = |pairs: &[(&str, &str)], end| frame(HEADERS, END_HEADERS | end, 1, &block(pairs));
    let good = head(HEAD, 0);
    let trailers = |status| head(&[("grpc-status", status)], END_STREAM);
    for (bytes, expected) in [
        (head(&[(":status", "200"), ("grpc-status", "7")], END_STREAM), "PERMISSION_DENIED"),
        (head(&[(":status", "503")], 0), "UNAVAILABLE"),
        (head(&[(":status", "404")], END_STREAM), "UNIMPLEMENTED"),
        (head(&[(":status", "503"), ("grpc-status", "5")], END_STREAM), "NOT_FOUND"),
        (head(&[(":status", "200"), ("content-type", "text/html")], 0), "UNKNOWN"),
        ([good.clone(), trailers("0")].concat(), "INTERNAL"),
        ([good.clone(), frame(DATA, END_STREAM, 1, &message(b"a"))].concat(), "UNKNOWN"),
        ([good.clone(), frame(DATA, END_STREAM, 1, b"\0\0")].concat(), "INTERNAL"),
        (
            [good.clone(), frame(DATA, 0, 1, &[message(b"a"), message(b"b")].concat())].concat(),
            "INTERNAL",
        ),
        (frame(RST_STREAM, 0, 1, &8u32.to_be_bytes()), "CANCELLED"),
        (frame(RST_STREAM, 0, 1, &11u32.to_be_bytes()), "RESOURCE_EXHAUSTED"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(2000), "INTERNAL"),
    ] {
        assert_eq!(World::answered(&bytes), [format!("1 close {expected} over")]);
    }
}

#[test]
fn a_stream_both_ways() {
    let mut world = World::default();
    let id = world.begin(None, None);
    let send = |world: &mut World, text: &[u8], end| {
        let message = Message::new(&world.held, text);
        world.pool.send(id, message, end);
    };
    send(&mut world, b"early", false);
    let connection = world.connected(None);
    let of_stream = |world: &mut World| {
        frames(&world.sent(connection)).into_iter().filter(|f| f.2 == 1).collect::<Vec<_>>()
    };
    assert_eq!(of_stream(&mut world), [(HEADERS, END_HEADERS, 1), (DATA, 0, 1)]);
    world.receive(connection, &frame(HEADERS, END_HEADERS, 1, &block(HEAD)));
    world.receive(connection, &frame(DATA, 0, 1, &[message(b"a"), message(b"")].concat()));
    assert_eq!(world.told(), ["1 initial 2", "1 message a", "1 message "]);
    send(&mut world, b"late", true);
    assert_eq!(of_stream(&mut world), [(DATA, END_STREAM, 1)]);
    let end = block(&[("grpc-status", "9"), ("k", "v")]);
    world.receive(connection, &frame(HEADERS, END_HEADERS | END_STREAM, 1, &end));
    assert_eq!(world.told(), ["1 trailing 2", "1 close FAILED_PRECONDITION over"]);
}

#[test]
fn a_stream_that_is_cancelled_is_reset_and_silent() {
    let mut world = World::default();
    let id = world.begin(None, None);
    let connection = world.connected(None);
    world.sent(connection);
    world.pool.cancel(id, world.now);
    assert!(frames(&world.sent(connection)).contains(&(RST_STREAM, 0, 1)));
    world.receive(connection, &response(1, "a", "0"));
    assert_eq!(world.told(), [""; 0]);
}

#[test]
fn a_server_that_takes_nothing_holds_back_its_stream_only() {
    let mut world = World::default();
    let id = world.begin(None, None);
    let connection = world.connected(None);
    let large = Message::new(&world.held, &[0; 100_000]);
    world.pool.send(id, large, false);
    let size = |world: &mut World| world.sent(connection).len();
    let first = size(&mut world);
    assert!((65_535..66_500).contains(&first), "the window's worth: {first}");
    // The connection's window is used up, too; it grows, and the stream's does not.
    world.receive(connection, &frame(WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes()));
    assert_eq!(size(&mut world), 0);
    world.call();
    assert_ne!(size(&mut world), 0);
    world.receive(connection, &response(3, "b", "0"));
    assert_eq!(world.told(), ["2 message b over"]);
    world.receive(connection, &frame(WINDOW_UPDATE, 0, 1, &1_000_000u32.to_be_bytes()));
    assert!(size(&mut world) > 34_000);
}

#[test]
fn deadlines_and_lost_connections() {
    let mut world = World::default();
    world.begin(Some(b""), Some(100));
    world.call();
    let connection = world.connected(None);
    let mut out = Vec::new();
    let wait = world.pool.next(connection, Some(&mut out), world.now);
    assert_eq!(wait, Wait::Until(100_000_000));
    world.now = 100_000_000;
    world.pool.expire(connection, world.now);
    assert_eq!(world.told(), ["1 close DEADLINE_EXCEEDED over"]);
    assert!(frames(&world.sent(connection)).contains(&(RST_STREAM, 0, 1)));
    world.pool.receive(connection, b"", true, world.now);
    assert_eq!(world.told(), ["2 close UNAVAILABLE over"]);
    assert_eq!(world.pool.next(connection, None, world.now), Wait::Close);
}

#[test]
fn a_server_that_is_quiet_for_long_is_asked_whether_it_is_there() {
    let mut world = World::default();
    world.begin(None, None);
    let connection = world.connected(None);
    world.sent(connection);
    let next = |world: &mut World| world.pool.next(connection, None, world.now);
    let Wait::Until(at) = next(&mut world) else { panic!("too early") };
    world.now = at;
    let sent = world.sent(connection);
    assert_eq!(frames(&sent), [(PING, 0, 0)]);
    world.receive(connection, &frame(PING, 1, 0, &sent[9..]));
    let Wait::Until(at) = next(&mut world) else { panic!("too early") };
    world.now = at;
    assert!(frames(&world.sent(connection)).contains(&(PING, 0, 0)));
    let Wait::Until(at) = next(&mut world) else { panic!("too early") };
    world.now = at;
    assert_eq!(next(&mut world), Wait::Close);
    assert_eq!(world.told(), ["1 trailing 0", "1 close UNAVAILABLE over"]);
}

#[test]
fn more_calls_than_connections_have_room_for() {
    let mut world = World::default();
    world.call();
    let first = world.connected(Some(1));
    // Until its settings come, a connection is asked to take all.
    assert!(!world.sent(first).is_empty());
    for _ in 0..2 * limits::GRPC_CONNECTIONS {
        world.call();
        for connection in world.connects() {
            world.pool.connected(connection, None, world.now);
            world.receive(connection, &settings(Some(1)));
        }
    }
    let told = world.told();
    assert_eq!(told, [""; 0]);
    world.call();
    assert_eq!(world.connects(), [0; 0], "no more connections");
    // One that ends makes room for one that waits.
    world.receive(first, &response(1, "a", "0"));
    assert_eq!(world.told(), ["1 message a over"]);
    let sent = frames(&world.sent(first));
    assert!(sent.contains(&(HEADERS, END_HEADERS, 3)), "{sent:?}");
}

#[test]
fn a_server_that_goes_away_is_replaced() {
    let mut world = World::default();
    world.call();
    let first = world.connected(None);
    world.sent(first);
    let last = [1u32.to_be_bytes(), 0u32.to_be_bytes()].concat();
    world.receive(first, &frame(GOAWAY, 0, 0, &last));
    world.call();
    let second = world.connects();
    assert_eq!(second.len(), 1);
    // The call that it took continues to its end.
    world.receive(first, &response(1, "a", "0"));
    assert_eq!(world.told(), ["1 message a over"]);
    assert_eq!(world.pool.next(first, None, world.now), Wait::Close);
}

#[test]
fn calls_that_a_server_has_not_looked_at_are_begun_once_more() {
    // By GOAWAY: the first call is done, the second was not looked at.
    let mut world = World::default();
    world.call();
    world.call();
    let first = world.connected(None);
    world.sent(first);
    let last = [1u32.to_be_bytes(), 0u32.to_be_bytes()].concat();
    world.receive(first, &frame(GOAWAY, 0, 0, &last));
    world.receive(first, &response(1, "a", "0"));
    assert_eq!(world.told(), ["1 message a over"]);
    let second = world.connected(None);
    assert_ne!(second, first);
    assert!(frames(&world.sent(second)).contains(&(DATA, END_STREAM, 1)));
    world.receive(second, &response(1, "b", "0"));
    assert_eq!(world.told(), ["2 message b over"]);

    // By a reset, on the same connection; not more than once.
    let mut world = World::default();
    world.call();
    let connection = world.connected(None);
    world.sent(connection);
    world.receive(connection, &frame(RST_STREAM, 0, 1, &7u32.to_be_bytes()));
    assert_eq!(world.told(), [""; 0]);
    let sent = frames(&world.sent(connection));
    assert!(sent.contains(&(HEADERS, END_HEADERS, 3)), "{sent:?}");
    assert!(sent.contains(&(DATA, END_STREAM, 3)), "{sent:?}");
    world.receive(connection, &frame(RST_STREAM, 0, 3, &7u32.to_be_bytes()));
    assert_eq!(world.told(), ["1 close UNAVAILABLE over"]);
}

#[test]
fn a_stream_that_was_refused_sends_its_messages_once_more() {
    for (size, again) in [(10, true), (300 * 1024, false)] {
        let mut world = World::default();
        let id = world.begin(None, None);
        let connection = world.connected(None);
        let large = frame(WINDOW_UPDATE, 0, 0, &10_000_000u32.to_be_bytes());
        world.receive(connection, &large);
        world.receive(connection, &frame(WINDOW_UPDATE, 0, 1, &10_000_000u32.to_be_bytes()));
        for end in [false, true] {
            let message = Message::new(&world.held, &vec![0; size]);
            world.pool.send(id, message, end);
        }
        world.sent(connection);
        world.receive(connection, &frame(RST_STREAM, 0, 1, &7u32.to_be_bytes()));
        if again {
            let sent = frames(&world.sent(connection));
            let of_stream: Vec<_> = sent.iter().filter(|frame| frame.2 == 3).collect();
            assert_eq!(
                of_stream,
                [&(HEADERS, END_HEADERS, 3), &(DATA, 0, 3), &(DATA, END_STREAM, 3)]
            );
            world.receive(connection, &response(3, "a", "0"));
        }
        let expected: &[&str] = if again {
            &["1 initial 2", "1 message a", "1 trailing 1", "1 close OK over"]
        } else {
            &["1 trailing 0", "1 close UNAVAILABLE over"]
        };
        let told: Vec<_> = world.told().into_iter().filter(|l| l != "1 initial 0").collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn a_stream_reads_on_when_its_guest_was_told() {
    let mut world = World::default();
    let id = world.begin(None, None);
    world.call();
    let connection = world.connected(None);
    world.sent(connection);
    // The server knows how large our windows are.
    world.receive(connection, &frame(SETTINGS, 1, 0, &[]));
    world.receive(connection, &frame(HEADERS, END_HEADERS, 1, &block(HEAD)));
    const SIZE: usize = 10_000;
    let mut sent = 0;
    for _ in 0..100 {
        world.receive(connection, &frame(DATA, 0, 1, &message(&[0; SIZE])));
        sent += 1;
    }
    let messages = |world: &mut World| -> Vec<_> {
        world.told().into_iter().filter(|line| line.contains("message")).collect()
    };
    let mut told = messages(&mut world);
    assert!((6..9).contains(&told.len()), "{told:?}");
    // No window is given back meanwhile, and other calls continue.
    let windows = |world: &mut World| {
        let sent = frames(&world.sent(connection));
        sent.into_iter().filter(|frame| frame.0 == WINDOW_UPDATE && frame.2 == 1).count()
    };
    windows(&mut world);
    assert_eq!(windows(&mut world), 0);
    world.receive(connection, &response(3, "b", "0"));
    assert_eq!(world.told(), ["2 message b over"]);
    while sent > 0 {
        assert_ne!(told.len(), 0, "{sent} were not told");
        for _ in told {
            world.pool.told(id, SIZE);
            sent -= 1;
        }
        windows(&mut world);
        told = messages(&mut world);
    }
}

#[test]
fn connections_to_many_upstreams() {
    let mut world = World::default();
    let begin = |world: &mut World, host: usize| {
        world.calls += 1;
        let name = format!("a{host}:1");
        let mut opening = world.opening(Some(b"a"), None);
        opening.upstream = Upstream::parse(name.as_bytes(), false).expect("an upstream");
        world.pool.open(world.calls, opening, world.now);
    };
    for host in 0..limits::GRPC_WORKER_CONNECTIONS {
        begin(&mut world, host);
    }
    assert_eq!(world.connects().len(), limits::GRPC_WORKER_CONNECTIONS);
    assert_eq!(world.told(), [""; 0]);
    begin(&mut world, 1000);
    assert_eq!(world.told(), [format!("{} close UNAVAILABLE over", world.calls)]);
    // One that has nothing to do makes room.
    world.pool.connected(1, None, world.now);
    world.receive(1, &settings(None));
    world.sent(1);
    world.receive(1, &response(1, "a", "0"));
    assert_eq!(world.told(), ["1 message a over"]);
    begin(&mut world, 1000);
    assert_eq!(world.told(), [""; 0]);
    assert_eq!(world.connects().len(), 1);
    assert_eq!(world.pool.next(1, None, world.now), Wait::Close);
}

#[test]
fn connections_without_calls_are_closed() {
    let mut world = World::default();
    world.call();
    let connection = world.connected(None);
    world.sent(connection);
    world.receive(connection, &response(1, "a", "0"));
    let Wait::Until(at) = world.pool.next(connection, None, world.now) else { panic!("too early") };
    assert!(at > world.now);
    world.now = at;
    assert_eq!(world.pool.next(connection, None, world.now), Wait::Close);

    world.call();
    let connection = world.connected(None);
    world.sent(connection);
    world.pool.end_soon();
    assert!(matches!(world.pool.next(connection, None, world.now), Wait::Until(_)));
    world.receive(connection, &response(1, "a", "0"));
    assert_eq!(world.pool.next(connection, None, world.now), Wait::Close);
}

#[test]
fn messages_that_are_too_large() {
    let mut world = World::default();
    assert!(Message::new(&world.held, &vec![0; limits::CALL_MESSAGE + 1]).is_none());
    let mut many = Vec::new();
    while let Some(message) = Message::new(&world.held, &vec![0; limits::CALL_MESSAGE]) {
        many.push(message);
    }
    assert_eq!(many.len(), limits::CALL_REQUEST_BODIES / limits::CALL_MESSAGE - 1);
    drop(many);
    world.call();
    let connection = world.connected(None);
    world.receive(connection, &frame(HEADERS, END_HEADERS, 1, &block(HEAD)));
    let size = limits::CALL_MESSAGE as u32 + 1;
    world.receive(connection, &frame(DATA, 0, 1, &[&[0][..], &size.to_be_bytes()].concat()));
    assert_eq!(world.told(), ["1 close RESOURCE_EXHAUSTED over"]);
}

#[test]
fn headers_without_end() {
    let many = block(&[("name", &"v".repeat(100))]).repeat(140);
    let mut bytes = frame(HEADERS, 0, 1, &block(HEAD));
    for _ in 0..100 {
        bytes.extend(frame(CONTINUATION, 0, 1, &many));
    }
    bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    let told = World::answered(&bytes);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("1 close "), "{told:?}");
    let pairs: Vec<_> = (0..1100).map(|_| ("a", "")).collect();
    let bytes = frame(HEADERS, END_HEADERS, 1, &block(&[HEAD, &pairs].concat()));
    assert_eq!(World::answered(&bytes), ["1 close RESOURCE_EXHAUSTED over"]);
}

#[test]
fn continuations_without_end() {
    let mut world = World::default();
    world.call();
    let connection = world.connected(None);
    world.receive(connection, &frame(HEADERS, 0, 1, &block(HEAD)));
    for _ in 0..10_000 {
        world.receive(connection, &frame(CONTINUATION, 0, 1, &[]));
    }
    let told = world.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(world.pool.next(connection, None, world.now), Wait::Close);
}

#[test]
fn resets_without_end() {
    let mut world = World::default();
    for turn in 0..2_000u32 {
        world.call();
        let connects = world.connects();
        for connection in &connects {
            world.pool.connected(*connection, None, world.now);
            world.receive(*connection, &settings(None));
        }
        let connection = 1;
        world.sent(connection);
        world.receive(connection, &frame(RST_STREAM, 0, turn * 2 + 1, &8u32.to_be_bytes()));
        assert_eq!(world.told(), [format!("{} close CANCELLED over", turn + 1)]);
    }
}

#[test]
fn pings_without_end() {
    let mut world = World::default();
    world.call();
    let connection = world.connected(None);
    world.sent(connection);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(1000);
    // They are answered while it takes the answers.
    for _ in 0..200 {
        world.receive(connection, &pings);
        assert_eq!(world.sent(connection).len(), pings.len());
    }
    // When it does not, nothing piles up.
    for _ in 0..200 {
        world.receive(connection, &pings);
    }
    assert_eq!(world.told(), ["1 close INTERNAL over"]);
    assert_eq!(world.pool.next(connection, None, world.now), Wait::Close);
}

#[test]
fn windows_that_overflow() {
    let mut bytes = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes());
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes()));
    assert_eq!(World::answered(&bytes), ["1 close INTERNAL over"]);
    let bytes = frame(WINDOW_UPDATE, 0, 0, &[0; 4]);
    assert_eq!(World::answered(&bytes), ["1 close INTERNAL over"]);
}

#[test]
fn empty_frames_without_end() {
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(HEAD));
    bytes.extend(frame(DATA, 0, 1, &[]).repeat(100_000));
    let told = World::answered(&bytes);
    assert!(told.len() <= 1, "{told:?}");
}

#[test]
fn codes_are_shown_by_their_names() {
    assert_eq!(Code::DeadlineExceeded.to_string(), "DEADLINE_EXCEEDED");
}
