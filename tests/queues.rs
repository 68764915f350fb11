//! Shared queues: messages in order, bounded, and one listener that is notified of each.

use crate::world::{Filter, Probe, SimHost, guest, shared, sim_host};
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::limits;
use resty_proxy_wasm::ports::{Clock, Listening, Stores};
use resty_proxy_wasm::shm::Shared;
use resty_proxy_wasm::store::{Refusal, Value, exposition};
use resty_proxy_wasm::vm::{Options, Work};
use std::sync::Arc;

#[test]
fn what_guests_see() {
    let probe = Probe::new(
        "request_headers: resolve_shared_queue '' jobs
         request_headers: register_shared_queue jobs; request_headers: register_shared_queue more
         request_headers: register_shared_queue jobs; request_headers: resolve_shared_queue '' jobs
         request_headers: resolve_shared_queue other jobs
         request_headers: dequeue_shared_queue 1; request_headers: enqueue_shared_queue 1 one
         request_headers: enqueue_shared_queue 1 ''; request_headers: enqueue_shared_queue 2 two
         request_headers: dequeue_shared_queue 1; request_headers: dequeue_shared_queue 1
         request_headers: dequeue_shared_queue 1; request_headers: dequeue_shared_queue 2
         request_headers: enqueue_shared_queue 3 x; request_headers: dequeue_shared_queue 0",
    );
    probe.open().request_headers();
    assert_eq!(
        probe.answers().join(", "),
        "1, 0 1, 0 2, 0 1, 0 1, 1, 7, 0, 0, 0, 0 one, 0 '', 7, 0 two, 1, 1"
    );
}

#[test]
fn order_and_bounds() {
    let shared = Shared::new(16 << 20, |_| ()).expect("memory");
    let id = shared.queue(b"vm", b"q").expect("room");
    assert_eq!(shared.queue(b"v", b"mq"), Ok(id + 1));
    assert_eq!(shared.find_queue(b"vm", b"q"), Ok(Some(id)));
    let most = limits::QUEUE_MESSAGES;
    for n in 0..most {
        assert_eq!(shared.enqueue(id, &n.to_le_bytes()), Ok(Some(0)));
    }
    assert_eq!(shared.enqueue(id, b"x"), Err(Refusal::TooMany));
    let mut out = Vec::new();
    for n in 0..most {
        assert_eq!(shared.dequeue(id, &mut out), Ok(Some(true)));
        assert_eq!(out, n.to_le_bytes());
    }
    assert_eq!(shared.dequeue(id, &mut out), Ok(Some(false)));
    let large = vec![0; limits::SHARED_VALUE + 1];
    assert_eq!(shared.enqueue(id, &large), Err(Refusal::TooLarge));
    let names = (0..limits::QUEUE_NAMES - 2).map(|n| shared.queue(b"vm", &n.to_le_bytes()));
    assert!(names.into_iter().all(|made| made.is_ok()));
    assert_eq!(shared.queue(b"vm", b"one more"), Err(Refusal::TooMany));
    shared.verify().expect("all in order");
}

#[test]
fn metrics_tell_what_waits_and_what_came() {
    let shared = Shared::new(16 << 20, |_| ()).expect("memory");
    // Names that are alike as far as labels go, and one that is no text.
    let long = |last| [&[b'x'; limits::QUEUE_LABEL_BYTES][..], last].concat();
    for name in [b"jobs".to_vec(), long(b"1"), long(b"2"), b"\xff\"".to_vec()] {
        let id = shared.queue(b"vm", &name).expect("room");
        for _ in 0..3 {
            shared.enqueue(id, b"message").expect("room");
        }
        shared.dequeue(id, &mut Vec::new()).expect("the lock");
    }
    let all = shared.metrics().expect("the lock");
    let of = |name: &str| -> Vec<_> {
        let such = all.iter().filter(|series| series.name == name);
        such.map(|series| (series.labels.clone(), series.value.clone())).collect()
    };
    let names = ["jobs".to_owned(), "x".repeat(256), "x".repeat(256), "\u{fffd}\"".to_owned()];
    let expected = |number| -> Vec<_> {
        let rows = names.iter().enumerate().map(|(at, name)| {
            let id = (at + 1).to_string();
            let labels = vec![("id", id), ("queue", name.clone()), ("vm_id", "vm".to_owned())];
            (labels, Value::Number(number))
        });
        rows.collect()
    };
    assert_eq!(of("proxy_wasm_queue_messages"), expected(2));
    assert_eq!(of("proxy_wasm_queue_messages_total"), expected(3));
    let text = exposition(&all);
    assert!(text.contains(r#"proxy_wasm_queue_messages{id="1",queue="jobs",vm_id="vm"} 2"#));
}

#[test]
fn a_guest_that_fills_a_queue_is_warned_once() {
    let lines: String =
        (0..80).map(|_| "request_headers: enqueue_shared_queue 1 \\R{10000}x\n").collect();
    let probe = Probe::new(&format!("configure: register_shared_queue q\n{lines}"));
    probe.open().request_headers();
    let answers = probe.answers();
    assert!(answers.iter().filter(|answer| *answer == "10").count() > 20, "{answers:?}");
    assert_eq!(probe.warned().len(), 1);
}

fn load(world: &Arc<SimHost>, name: &str) -> Filter {
    let options = Options { vm_id: "vm".into(), ..Options::new(name) };
    Filter::load(world, &guest("probe.wasm"), options).expect("the probe")
}

fn work(filter: &Filter) -> Work {
    let work = filter.plugin.work();
    assert!(work.errors.is_empty(), "{:?}", work.errors);
    work
}

const LISTENS: &str =
    "configure: register_shared_queue q; queue_ready: args; queue_ready: dequeue_shared_queue 1";

#[test]
fn the_last_one_to_register_is_notified_of_each_message() {
    let world = sim_host();
    let (a, b) = (load(&world, "a"), load(&world, "b"));
    let _listens = a.context(LISTENS);
    let sends = b.context("request_headers: enqueue_shared_queue 1 m");
    world.said();
    let send = || {
        b.open(&sends).request_headers();
        let said = world.said();
        assert_eq!(said, ["request_headers enqueue_shared_queue 1 m -> 0"]);
        world.listeners_woken()
    };
    assert_eq!(send(), [0], "nobody listens until somebody is asked for work");
    assert!(world.work_waits());
    work(&a);
    let received = ["queue_ready args -> queue=1", "queue_ready dequeue_shared_queue 1 -> 0 m"];
    assert_eq!(world.said(), received, "what waited before");
    assert_eq!((send(), send()), (vec![7], vec![7]));
    work(&a);
    assert_eq!(world.said(), [received, received].concat());
    work(&a);
    work(&b);
    assert_eq!(world.said(), [""; 0]);

    let _listens_too = b.context(LISTENS);
    world.said();
    work(&b);
    send();
    work(&a);
    assert_eq!(world.said(), [""; 0], "it moved on");
    work(&b);
    assert_eq!(world.said(), received);
    // Taken by somebody else meanwhile.
    send();
    let mut out = Vec::new();
    let shared = world.shared().expect("memory");
    assert_eq!(shared.dequeue(1, &mut out), Ok(Some(true)));
    work(&b);
    assert_eq!(world.said(), [""; 0]);
}

#[test]
fn who_cannot_be_reached_looks_now_and_then() {
    let world = sim_host();
    let filter = load(&world, "a");
    world.set_listening(Listening::NotYet);
    let _context = filter.context(LISTENS);
    world.said();
    let asked = work(&filter);
    assert!(asked.wants_to_listen && asked.next.is_none());
    world.set_listening(Listening::Polls);
    let polls = work(&filter);
    assert_eq!(polls.next, Some(world.monotonic_clock() + 50_000_000));
    assert!(!polls.wants_to_listen);
    assert_eq!(world.shared().expect("memory").enqueue(1, b"m"), Ok(Some(0)));
    work(&filter);
    assert_eq!(world.said().len(), 2);
}

#[test]
fn many_messages_are_told_of_in_turns() {
    let world = sim_host();
    let filter = load(&world, "a");
    let _context = filter.context(LISTENS);
    let shared = world.shared().expect("memory");
    for _ in 0..limits::QUEUE_CALLS + 1 {
        shared.enqueue(1, b"m").expect("room");
    }
    world.said();
    assert_eq!(work(&filter).next, Some(world.monotonic_clock() + 1_000_000));
    assert_eq!(world.said().len() as u32, 2 * limits::QUEUE_CALLS);
    assert_eq!(work(&filter).next, None);
    assert_eq!(world.said().len(), 2);
}

#[test]
fn a_listener_whose_vm_is_lost_listens_in_the_next_one() {
    let world = sim_host();
    let filter = load(&world, "a");
    let _context = filter.context("configure: register_shared_queue q; queue_ready: trap");
    let shared = world.shared().expect("memory");
    work(&filter);
    for _ in 0..3 {
        shared.enqueue(1, b"m").expect("room");
        let work = filter.plugin.work();
        assert!(matches!(work.errors[..], [Error::Trap { .. }]), "{:?}", work.errors);
    }
    // They were not taken out.
    assert_eq!(shared.dequeue(1, &mut Vec::new()), Ok(Some(true)));
}

#[test]
fn a_hello_finds_its_worker_whichever_process_receives_it() {
    let shared = shared();
    let mut received = vec![(5, 50), (6, 60)].into_iter();
    assert_eq!(shared.address_of(6, || received.next()), Ok(Some(60)));
    assert_eq!(shared.address_of(5, || None), Ok(Some(50)), "another process received it");
    assert_eq!(shared.address_of(5, || None), Ok(None), "only once");
}
