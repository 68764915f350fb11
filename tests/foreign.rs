//! Functions of the embedder: those that run inside the guest's call, and those that run afterwards.

use crate::world::Probe;
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::vm::Work;

fn work(probe: &Probe) -> Work {
    probe.filter.plugin.work()
}

#[test]
fn a_function_answers_inside_the_call() {
    let probe = Probe::new(
        "request_headers: call_foreign_function reverse abc
         request_headers: call_foreign_function reverse ''
         request_headers: call_foreign_function nobody x
         request_headers: call_foreign_function fails x
         request_headers: call_foreign_function nowhere x",
    );
    probe.open().request_headers();
    assert_eq!(probe.answers(), ["0 cba", "0 ''", "1", "10", "10"]);
    let warned = probe.warned();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("a foreign function cannot run here"), "{warned:?}");
}

#[test]
fn a_function_that_runs_later_answers_on_the_plugin_context() {
    let probe = Probe::new(
        "request_headers: call_foreign_function later one
         request_headers: call_foreign_function later two
         foreign: args
         foreign: get_buffer_bytes 8 0 max
         foreign: get_status",
    );
    let stream = probe.open();
    stream.request_headers();
    // The ids, in little endian.
    assert_eq!(probe.answers(), [r"0 \x01\x00\x00\x00", r"0 \x02\x00\x00\x00"]);
    let mut asked = work(&probe).foreign;
    let told: Vec<_> = asked.iter().map(|(_, call)| (&*call.name, &*call.arguments)).collect();
    assert_eq!(told, [(&b"later"[..], &b"one"[..]), (b"later", b"two")]);

    // Answered in another order; the second one failed.
    let (second, _) = asked.pop().expect("two");
    let (first, _) = asked.pop().expect("one");
    probe.filter.plugin.foreign_result(second, Vec::new(), false).expect("an answer");
    assert_eq!(probe.answers(), ["id=2 size=0", "0 ''", "0 10 failed"]);
    probe.filter.plugin.foreign_result(first, b"done".to_vec(), true).expect("an answer");
    assert_eq!(probe.answers(), ["id=1 size=4", "0 done", "0 0 ''"]);
    // Once and no more.
    probe.filter.plugin.foreign_result(first, b"done".to_vec(), true).expect("nothing");
    assert_eq!(probe.answers(), [""; 0]);
    assert!(work(&probe).foreign.is_empty());
}

#[test]
fn a_function_runs_after_its_stream_has_ended_and_its_result_is_dropped() {
    let probe = Probe::new(
        "request_headers: call_foreign_function later stream
         log: call_foreign_function later log
         foreign: get_buffer_bytes 8 0 max",
    );
    let stream = probe.open();
    stream.request_headers();
    stream.end().expect("an end");
    probe.said();
    let asked = work(&probe).foreign;
    assert_eq!(asked.len(), 2);
    for (of, call) in asked {
        probe.filter.plugin.foreign_result(of, call.arguments, true).expect("an answer");
    }
    // What was asked for in on_log is the plugin context's to hear of.
    assert_eq!(probe.answers(), ["0 log"]);
}

#[test]
fn results_of_a_vm_that_is_gone_are_dropped() {
    let probe = Probe::new(
        "request_headers@first: call_foreign_function later x
         request_headers@again: trap",
    );
    let stream = probe.open();
    stream.request_headers();
    let (of, _) = work(&probe).foreign.pop().expect("one");
    stream.run(Callback::RequestHeaders, b"", false).expect_err("a trap");
    probe.filter.plugin.foreign_result(of, b"x".to_vec(), true).expect("nothing");
}

#[test]
fn a_process_that_is_to_end_has_no_calls_that_follow_one_another() {
    let probe = Probe::new(
        "request_headers: call_foreign_function later one; request_headers: call_foreign_function later two
         done: call_foreign_function later last
         foreign: call_foreign_function later next; foreign: http_call up '' '' '' 1000",
    );
    let (waits, stream) = (probe.open(), probe.open());
    stream.request_headers();
    probe.filter.host.end();
    let answer = |call| {
        probe.filter.plugin.foreign_result(call, Vec::new(), true).expect("an answer");
        let asked = work(&probe);
        (asked.foreign.iter().map(|(of, _)| *of).collect::<Vec<_>>(), asked.calls.len())
    };
    let mut calls: Vec<_> = work(&probe).foreign.into_iter().map(|(of, _)| of).collect();
    // A request is left that might want it.
    let (next, http) = answer(calls.remove(0));
    assert_eq!((next.len(), http), (1, 1));
    drop((waits.end(), stream.end()));
    calls.extend(next);
    // What streams asked for at their end is still done.
    calls.extend(work(&probe).foreign.into_iter().map(|(of, _)| of));
    assert_eq!(calls.len(), 4);
    for call in calls {
        assert_eq!(answer(call), (Vec::new(), 0));
    }
    let said = probe.answers();
    assert!(said.iter().all(|line| line.starts_with('0')), "a guest hears of nothing: {said:?}");
}
