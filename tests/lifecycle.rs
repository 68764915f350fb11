//! Plugin contexts and streams: which callbacks come, in which order, with which ids.

use crate::world::{Filter, Probe, Request, guest, sim_host};
use resty_proxy_wasm::abi::{Attribute, Callback};
use resty_proxy_wasm::error::Error;
use resty_proxy_wasm::vm::{Context, SpareContexts};
use std::rc::Rc;

/// `CALLBACK id=N root=N` of every callback.
const IDS: &str = "*: ids";

/// Those lines, shorter.
fn ids(probe: &Probe) -> Vec<String> {
    probe.said().into_iter().map(|line| line.replace("ids -> ", "")).collect()
}

#[test]
fn a_whole_life() {
    let probe = Probe::new(IDS);
    assert_eq!(ids(&probe), ["vm_start id=1 root=1", "configure id=1 root=1"]);
    let stream = probe.open();
    stream.request_headers();
    stream.request_body(b"a", true);
    stream.response_headers(&[]);
    stream.response_body(b"b", true);
    stream.end().expect("an end");
    assert_eq!(
        ids(&probe),
        [
            "create id=2 root=1",
            "request_headers id=2 root=1",
            "request_body id=2 root=1",
            "response_headers id=2 root=1",
            "response_body id=2 root=1",
            "done id=2 root=1",
            "log id=2 root=1",
            "delete id=2 root=1",
        ]
    );
    probe.filter.drop_context(&probe.context).expect("an end");
    assert_eq!(ids(&probe), ["root_done id=1 root=1", "root_delete id=1 root=1"]);
}

#[test]
fn ids_are_never_used_again_and_shared_by_roots_and_streams() {
    let probe = Probe::new("create: ids; configure: ids");
    let first = probe.open();
    let other = probe.filter.context("create: ids; configure: ids");
    let second = probe.filter.open(&other);
    first.end().expect("an end");
    let third = probe.open();
    assert_eq!(
        ids(&probe),
        [
            "configure id=1 root=1",
            "create id=2 root=1",
            "configure id=3 root=3",
            "create id=4 root=3",
            "create id=5 root=1",
        ]
    );
    assert_eq!([first.at.id, second.at.id, third.at.id], [2, 4, 5]);
}

#[test]
fn a_plugin_context_in_the_memory_of_another_is_a_new_one() {
    let probe = Probe::new(IDS);
    let spare = SpareContexts::default();
    let make =
        || Context::new_in(&spare, &probe.filter.plugin, IDS.as_bytes()).expect("a plugin context");
    let first = make();
    let at = Rc::as_ptr(&first);
    first.drop_by_owner().expect("an end");
    spare.keep(first.clone());
    spare.keep(first);
    let second = make();
    assert_eq!(Rc::as_ptr(&second), at, "memory that nothing has any more serves again");
    probe.filter.open(&second).end().expect("an end");
    second.drop_by_owner().expect("an end");
    assert_eq!(
        ids(&probe),
        [
            "vm_start id=1 root=1",
            "configure id=1 root=1",
            "vm_start id=2 root=2",
            "configure id=2 root=2",
            "root_done id=2 root=2",
            "root_delete id=2 root=2",
            "vm_start id=3 root=3",
            "configure id=3 root=3",
            "create id=4 root=3",
            "done id=4 root=3",
            "log id=4 root=3",
            "delete id=4 root=3",
            "root_done id=3 root=3",
            "root_delete id=3 root=3",
        ]
    );
    spare.keep(second);
    let plugin = Rc::downgrade(&probe.filter.plugin);
    drop(probe);
    assert!(plugin.upgrade().is_none(), "spare memory keeps no plugin");
}

#[test]
fn each_new_plugin_context_is_told_of_the_vm_start() {
    let probe = Probe::new("vm_start: ids; configure: args");
    let script = "vm_start: ids; vm_start: args; configure: args";
    probe.filter.context(script);
    assert_eq!(
        probe.said(),
        [
            "vm_start ids -> id=1 root=1".to_string(),
            "configure args -> size=30".into(),
            "vm_start ids -> id=2 root=2".into(),
            "vm_start args -> size=0".into(),
            format!("configure args -> size={}", script.len()),
        ]
    );
}

#[test]
fn a_filter_that_refuses_is_deleted() {
    for (file, callback) in
        [("vm_start_false.wat", Callback::VmStart), ("configure_false.wat", Callback::Configure)]
    {
        let filter = Filter::new(&sim_host(), &guest(file));
        let error = filter.configure("x").err().expect("a refusal");
        assert_eq!(error, Error::Refused(callback));
        assert_eq!(
            error.to_string(),
            format!("{callback} returned false: the filter refused its configuration")
        );
    }
    let probe = Probe::new("");
    assert_eq!(
        probe.filter.configure("*: ids\nconfigure: return 0").err(),
        Some(Error::Refused(Callback::Configure))
    );
    assert_eq!(
        ids(&probe),
        [
            "vm_start id=2 root=2",
            "configure id=2 root=2",
            "configure return 0 -> 0",
            "root_delete id=2 root=2"
        ]
    );
    assert_eq!(probe.open().at.id, 3, "the VM lives on");
}

#[test]
fn a_plugin_context_ends_with_its_last_stream() {
    let probe = Probe::new("root_done,root_delete,done: ids");
    let (first, second) = (probe.open(), probe.open());
    probe.filter.drop_context(&probe.context).expect("nothing to end yet");
    first.end().expect("an end");
    assert_eq!(ids(&probe), ["done id=2 root=1"]);
    second.end().expect("an end");
    assert_eq!(
        ids(&probe),
        ["done id=3 root=1", "root_done id=1 root=1", "root_delete id=1 root=1"]
    );
    probe.filter.drop_context(&probe.context).expect("nothing left");
    assert_eq!(ids(&probe), [""; 0]);
}

#[test]
fn a_root_that_is_not_done_lives_until_it_says_so() {
    let probe = Probe::new("root_done: return 0; root_delete: ids");
    probe.filter.drop_context(&probe.context).expect("an end");
    let other = probe.filter.context(
        "request_headers: set_effective_context 1; request_headers: done; request_headers: done
         response_headers: set_effective_context 1",
    );
    let stream = probe.filter.open(&other);
    stream.request_headers();
    assert_eq!(
        probe.said(),
        [
            "root_done return 0 -> 0",
            "request_headers set_effective_context 1 -> 0",
            "request_headers done -> 0",
            "request_headers done -> 1",
            "root_delete ids -> id=1 root=1",
        ]
    );
    stream.response_headers(&[]);
    assert_eq!(probe.answers(), ["2"], "the context is gone");
}

#[test]
fn nothing_waits_for_a_stream_that_is_not_done() {
    let probe = Probe::new("done: return 0; done: done; log: ids; delete: ids");
    probe.open().end().expect("an end");
    assert_eq!(
        probe.said(),
        [
            "done return 0 -> 0",
            "done done -> 1",
            "log ids -> id=2 root=1",
            "delete ids -> id=2 root=1"
        ]
    );
}

#[test]
fn contexts_of_one_plugin_keep_to_themselves() {
    let probe = Probe::new("response_headers: add_header_map_value 2 hello one");
    let two = probe.filter.context("response_headers: add_header_map_value 2 hello two");
    assert_eq!(probe.open().whole(), ["add response hello: one"]);
    assert_eq!(probe.filter.open(&two).whole(), ["add response hello: two"]);
}

#[test]
fn callbacks_are_told_how_much_there_is() {
    let probe = Probe::new("*: args");
    let request = Request::default().header("a", "1").header("content-length", "5");
    let stream = probe.open_for(request);
    stream.request_headers();
    stream.request_body(b"he", false);
    stream.request_body(b"llo", true);
    stream.response_headers(&[("b", "2"), ("b", "3")]);
    stream.response_body(b"", true);
    let told: Vec<String> = probe.said().into_iter().filter(|l| l.starts_with("re")).collect();
    assert_eq!(
        told,
        [
            "request_headers args -> num_headers=6 eos=0",
            "request_body args -> size=2 eos=0",
            "request_body args -> size=3 eos=1",
            "response_headers args -> num_headers=3 eos=0",
            "response_body args -> size=0 eos=1",
        ]
    );
}

#[test]
fn a_response_without_a_body_ends_with_its_headers() {
    let script = "request_headers,response_headers: args";
    for (method, status, length, told) in [
        ("GET", 200, "5", "num_headers=2 eos=0"),
        ("GET", 200, "0", "num_headers=2 eos=1"),
        ("GET", 204, "", "num_headers=2 eos=1"),
        ("GET", 304, "5", "num_headers=2 eos=1"),
        ("HEAD", 200, "5", "num_headers=2 eos=1"),
    ] {
        let probe = Probe::new(script);
        let stream = probe.open_for(Request::default().attribute(Attribute::RequestMethod, method));
        stream.host.with(stream.request, |r| r.status = status);
        stream.request_headers();
        stream.response_headers(&[("content-length", length)]);
        assert_eq!(probe.answers(), ["num_headers=4 eos=1", told], "{method} {status} {length}");
    }
}

#[test]
fn header_callbacks_of_the_first_abi_have_two_parameters() {
    let probe = Probe::of("probe_0_1_0.wasm", "request_headers,response_headers: args");
    probe.open().whole();
    assert_eq!(probe.answers(), ["num_headers=4", "num_headers=1"]);
}

#[test]
fn an_event_that_is_none_is_refused() {
    let probe = Probe::new("");
    let error = probe.open().run(Callback::Log, b"", false).expect_err("no event");
    assert_eq!(error.to_string(), "proxy_on_log is no event of a request");
}

#[test]
fn the_effective_context_lasts_for_one_call() {
    let probe = Probe::new(
        "request_headers: set_effective_context root; request_headers: get_property request.path
         request_headers: set_effective_context self; request_headers: get_property request.path
         request_headers: set_effective_context 99; request_headers: set_effective_context root
         response_headers: get_property request.path",
    );
    let stream = probe.open();
    stream.request_headers();
    stream.response_headers(&[]);
    assert_eq!(probe.answers(), ["0", "1", "0", "0 /", "2", "0", "0 /"]);
}

#[test]
fn a_filter_may_work_on_another_stream() {
    let probe = Probe::new("request_headers@first: get_property who");
    let one = probe.open_for(Request::default().property("who", "one"));
    let other = probe.filter.context(&format!(
        "request_headers: set_effective_context {}; request_headers: get_property who",
        one.at.id
    ));
    let two = probe.filter.open_for(&other, Request::default().property("who", "two"));
    two.request_headers();
    assert_eq!(probe.answers(), ["0", "0 one"]);
}
