//! What goes wrong: traps, exits, faults of the host, calls from inside a call, forks.

use crate::world::{Filter, Probe, Request, Stream, guest, sim_host};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::event::Event;
use resty_proxy_wasm::guest::Output;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

fn run(stream: &Stream, callback: Callback) -> Result<(), String> {
    stream.run(callback, b"", false).map(|_| ()).map_err(|error| error.to_string())
}

fn fails(stream: &Stream, callback: Callback) -> String {
    run(stream, callback).expect_err("a failure")
}

const TRAP: &str =
    "proxy_on_request_headers failed: wasm trap: wasm `unreachable` instruction executed";

/// The error without the guest's backtrace.
fn cause(error: &str) -> &str {
    error.split(" (in ").next().unwrap_or(error)
}

#[test]
fn after_a_trap_the_streams_are_lost_and_the_next_one_has_a_new_vm() {
    let probe = Probe::new("request_headers@first: trap; *: ids");
    let (one, two) = (probe.open(), probe.open());
    assert_eq!(two.at.id, 3);
    probe.said();
    assert_eq!(cause(&fails(&one, Callback::RequestHeaders)), TRAP);
    for stream in [&one, &two] {
        let lost = fails(stream, Callback::ResponseHeaders);
        assert_eq!(cause(&lost), format!("the filter's VM was lost: {TRAP}"));
    }
    assert_eq!((one.end(), two.end()), (Ok(()), Ok(())), "what is gone has ended");
    assert_eq!(probe.said()[..1], ["request_headers trap -> ..."], "nothing was called any more");

    let three = probe.open();
    assert_eq!(three.at.id, 2, "a new VM counts from 1");
    assert_eq!(
        probe.answers(),
        ["id=1 root=1", "id=1 root=1", "id=2 root=1"],
        "vm_start, configure, create"
    );
    let lost = fails(&two, Callback::ResponseHeaders);
    assert_eq!(cause(&lost), format!("the filter's VM was lost: {TRAP}"), "ids are not mixed up");
    assert_eq!(two.end(), Ok(()));
    assert_eq!(run(&three, Callback::ResponseHeaders), Ok(()));
}

#[test]
fn every_way_to_die() {
    for (op, what) in [
        ("trap", "wasm trap: wasm `unreachable` instruction executed"),
        ("recurse", "wasm trap: call stack exhausted"),
        ("exit 0", "the filter ended itself with exit code 0 (proc_exit)"),
        ("exit 7", "the filter ended itself with exit code 7 (proc_exit)"),
    ] {
        let probe = Probe::new(&format!("request_headers: {op}"));
        let error = fails(&probe.open(), Callback::RequestHeaders);
        assert_eq!(cause(&error), format!("proxy_on_request_headers failed: {what}"), "{op}");
        assert!(
            probe
                .filter
                .try_open(&probe.context, probe.filter.host.add(Request::default()))
                .is_ok()
        );
    }
}

#[test]
fn a_trap_of_the_allocator_is_the_callers() {
    let probe =
        Probe::new("request_headers: allocator trap; request_headers: get_property plugin_name");
    let error = fails(&probe.open(), Callback::RequestHeaders);
    assert_eq!(cause(&error), TRAP);
}

#[test]
fn a_trap_names_its_callback_and_where_it_was() {
    for callback in [
        Callback::RequestHeaders,
        Callback::RequestBody,
        Callback::ResponseHeaders,
        Callback::ResponseBody,
    ] {
        let text = format!(
            r#"(module $filter (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
                (type $t (func (param i32) (result i32)))
                (table funcref (elem $divide))
                (func $divide (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0)))
                (func $callback (export "{callback}") (param i32 i32 i32) (result i32)
                    (call_indirect (type $t) (i32.const 0) (i32.const 0))))"#
        );
        let filter = Filter::new(&sim_host(), &wat::parse_str(text).expect("WebAssembly text"));
        assert_eq!(
            fails(&filter.open(&filter.context("")), callback),
            format!(
                "{callback} failed: wasm trap: integer divide by zero (in filter!divide < filter!callback)"
            )
        );
    }
}

#[test]
fn a_trap_at_the_end_ends_the_vm_too() {
    for (name, callback) in
        [("done", Callback::Done), ("log", Callback::Log), ("delete", Callback::Delete)]
    {
        let probe = Probe::new(&format!("{name}: trap; delete: ids"));
        let (one, two) = (probe.open(), probe.open());
        let error = one.end().expect_err("a trap").to_string();
        assert!(error.starts_with(&format!("{callback} failed: ")), "{error}");
        assert!(fails(&two, Callback::RequestHeaders).starts_with("the filter's VM was lost: "));
        assert_eq!(probe.open().at.id, 2);
    }
    let probe = Probe::new("root_done: trap");
    let error = probe.filter.drop_context(&probe.context).expect_err("a trap").to_string();
    assert!(error.starts_with("proxy_on_done failed: "), "{error}");
    assert_eq!(probe.filter.drop_context(&probe.context), Ok(()));
}

#[test]
fn a_trap_while_a_stream_is_made() {
    let probe = Probe::new("create: trap");
    let request = probe.filter.host.add(Request::default());
    for _ in 0..2 {
        let error =
            probe.filter.try_open(&probe.context, request).err().expect("a trap").to_string();
        assert!(error.starts_with("proxy_on_context_create failed: "), "{error}");
    }
    let other = probe.filter.context("");
    assert_eq!(probe.filter.open(&other).at.id, 2, "the root is 1: nothing is left of the others");
}

#[test]
fn a_trap_while_configuring() {
    let probe = Probe::new("");
    for script in ["configure: trap", "vm_start: trap"] {
        let error = probe.filter.configure(script).err().expect("a trap").to_string();
        assert!(error.contains(" failed: wasm trap: "), "{error}");
    }
    let stream = probe.open();
    assert_eq!(
        run(&stream, Callback::RequestHeaders),
        Ok(()),
        "contexts that were sound still are"
    );
}

#[test]
fn who_waits_is_woken_to_learn_that_the_vm_is_gone() {
    let probe = Probe::new("request_headers: pause");
    let stream = probe.open();
    stream.request_headers();
    stream.wait(77);
    let other = probe.filter.context("request_headers: trap");
    fails(&probe.filter.open(&other), Callback::RequestHeaders);
    assert_eq!(probe.filter.host.woken(), [77]);
    let error = stream.resumed().expect_err("a lost stream").to_string();
    assert_eq!(cause(&error), format!("the filter's VM was lost: {TRAP}"));
}

#[test]
fn last_words_are_logged() {
    let probe = Probe::new(
        "request_headers: stdout out; request_headers: stderr err; request_headers: trap",
    );
    fails(&probe.open(), Callback::RequestHeaders);
    let said = probe.filter.host.said_at();
    assert_eq!(said[said.len() - 2..], ["Info out", "Error err"]);
}

#[test]
fn nothing_enters_a_guest_that_runs() {
    let probe = Probe::new("create,request_headers,done: ids");
    let (outer, inner) = (probe.open(), probe.open());
    probe.said();
    let busy = Error::Busy("probe".into());
    assert_eq!(
        busy.to_string(),
        "probe is running: a filter cannot be entered from inside one of its own callbacks"
    );
    let context = &probe.context;
    let request = probe.filter.host.add(Request::default());
    let result = context.with_stream(outer.at, |vm| {
        assert!(probe.filter.plugin.is_busy());
        assert_eq!(inner.run(Callback::RequestHeaders, b"", false), Err(busy.clone()));
        assert_eq!(context.start_stream(request, false).err(), Some(busy.clone()));
        assert_eq!(context.end_stream(inner.at), Err(busy.clone()));
        assert_eq!(probe.filter.drop_context(context), Err(busy.clone()));
        assert_eq!(probe.filter.configure("").err(), Some(busy.clone()));
        let event = Event {
            callback: Callback::RequestHeaders,
            end_of_stream: false,
            piecewise: false,
            calls_hold: false,
            waits: false,
            body: &[],
        };
        vm.run(outer.at.id, event)
    });
    assert!(result.is_ok());
    assert!(!probe.filter.plugin.is_busy());
    assert_eq!(probe.answers(), ["id=2 root=1"], "none of them reached the guest");
    assert_eq!(
        inner.run(Callback::RequestHeaders, b"", false).map(|a| a.body),
        Ok(Output::Unchanged)
    );
}

#[test]
fn another_plugin_may_run_at_the_same_time() {
    let world = sim_host();
    let [one, two] = [0, 1].map(|_| Filter::new(&world, &guest("bare.wat")));
    let (one_context, two_context) = (one.context(""), two.context(""));
    let (outer, inner) = (one.open(&one_context), two.open(&two_context));
    let result =
        outer.context.with_stream(outer.at, |_| inner.run(Callback::RequestHeaders, b"", false));
    assert!(result.is_ok());
}

#[test]
fn a_forked_process_makes_its_own_vm() {
    let probe = Probe::new("vm_start,configure,create,done,log,delete: ids; request_headers: ids");
    let before = probe.open();
    assert_eq!(probe.answers().len(), 3);
    probe.filter.fork();
    let after = probe.open();
    assert_eq!(
        probe.said(),
        [
            "vm_start ids -> id=1 root=1",
            "configure ids -> id=1 root=1",
            "create ids -> id=2 root=1",
        ]
    );
    assert_eq!(before.at.id, after.at.id);
    assert_ne!(before.at, after.at);
    assert_eq!(
        fails(&before, Callback::RequestHeaders),
        "the filter's VM was lost: it belonged to another process"
    );
    assert_eq!(before.end(), Ok(()));
    assert_eq!(probe.said(), [""; 0], "the parent's stream is not the child's to end");
    assert_eq!(run(&after, Callback::RequestHeaders), Ok(()));
    assert_eq!(after.end(), Ok(()));
    assert_eq!(probe.said().len(), 4);
}

#[test]
fn a_context_that_is_refused_after_a_fork_says_so_each_time() {
    let probe = Probe::new("");
    let context = probe.filter.context("request_headers: trap");
    fails(&probe.filter.open(&context), Callback::RequestHeaders);
    probe.filter.fork();
    let request = probe.filter.host.add(Request::default());
    assert!(probe.filter.try_open(&context, request).is_ok());
}

/// Runs a request whose filter asks for what breaks the host.
fn broken(probe: &Probe) -> Stream {
    let context = probe.filter.context("request_headers: get_property broken");
    let stream = probe.filter.open_for(&context, Request::default());
    let panic = catch_unwind(AssertUnwindSafe(|| stream.run(Callback::RequestHeaders, b"", false)));
    assert!(panic.is_err());
    stream
}

#[test]
fn a_fault_of_the_host_ends_the_vm_and_nothing_else() {
    const LOST: &str =
        "the filter's VM was lost: the host panicked inside a call; this is a bug of the host";
    let probe = Probe::new("request_headers: pause");
    let waiting = probe.open();
    waiting.request_headers();
    waiting.wait(4);
    let other = Filter::new(&probe.filter.host, &guest("bare.wat"));
    let unharmed = other.open(&other.context(""));

    let stream = broken(&probe);
    assert!(!probe.filter.plugin.is_busy());
    assert_eq!(probe.filter.host.woken(), [4]);
    assert_eq!(fails(&stream, Callback::RequestHeaders), LOST);
    assert_eq!(waiting.resumed().expect_err("a lost stream").to_string(), LOST);
    assert_eq!((stream.end(), waiting.end()), (Ok(()), Ok(())));
    assert_eq!(run(&unharmed, Callback::RequestHeaders), Ok(()));

    let again = probe.open();
    assert_eq!(again.at.id, 2);
    assert_eq!(fails(&stream, Callback::RequestHeaders), LOST, "still the first cause");
    assert_eq!(run(&again, Callback::RequestHeaders), Ok(()));
}

#[test]
fn plugins_outlive_their_handles() {
    let probe = Probe::new("done: ids");
    let stream = probe.open();
    let Probe { filter, context } = probe;
    let world = Arc::clone(&filter.host);
    drop(filter);
    drop(context);
    assert_eq!(run(&stream, Callback::RequestHeaders), Ok(()));
    assert_eq!(stream.end(), Ok(()));
    assert_eq!(world.said(), ["done ids -> id=2 root=1"]);
}
