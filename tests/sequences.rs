//! Callbacks that are called in one entry of WebAssembly are what they are one by one: the same ones, in the same order, with
//! the same limits, and what the guest does in each has the same effect.

use crate::world::{Probe, Request};
use resty_proxy_wasm::abi::Callback;
use resty_proxy_wasm::ports::{Phase, Stores as _};

/// What a guest does in one callback that the next one could depend on.
const SCRIPTS: [&str; 22] = [
    "*: ids",
    "*: args",
    "request_headers,response_headers: add_header_map_value 2 a b; *: ids",
    "create: set_property own.path kept; *: get_property own.path; delete: get_property own.path",
    // Headers of the response are there from their callback on.
    "create,response_headers,done,delete: get_header_map_value 2 x-of-upstream",
    "create,request_headers: get_header_map_value 0 :path",
    "create: replace_header_map_value 0 x-new 1; request_headers: get_header_map_value 0 x-new",
    // Answers and waiting.
    "create: send_local_response 403 '' no '' -1; *: ids",
    "request_headers: send_local_response 403 '' no '' -1; *: ids",
    "create: continue_stream 0; request_headers: pause; *: ids",
    "request_headers: pause; done: continue_stream 0; log,delete: ids",
    "create: close_stream 0; *: ids",
    // The context that works.
    "create: set_effective_context root; request_headers,response_headers: get_property plugin_name; *: ids",
    "done: set_effective_context root; log: get_property own.path; delete: ids",
    // Ends of the VM.
    "create: trap; *: ids",
    "request_headers,response_headers: trap; *: ids",
    "done: trap; *: ids",
    "log: trap; *: ids",
    "delete: trap; *: ids",
    "create: exit 3; *: ids",
    "log: exit 0; *: ids",
    // Calls that nothing waits for any more.
    "create,log: http_call localhost:1 ':method=GET|:path=/|:authority=a' '' '' 100; *: ids",
];

/// All that can be seen of a stream's life that begins with an event, in one entry or one by one.
fn life(script: &str, callback: Callback, at_once: bool) -> Vec<String> {
    let probe = Probe::new(script);
    let world = &probe.filter.host;
    let phase = match callback {
        Callback::RequestHeaders => Phase::Request,
        _ => Phase::ResponseHeaders,
    };
    let request = world.add(Request::default());
    world.with(request, |r| (r.phase, r.status) = (phase, 200));
    let mut seen = probe.said();
    let (stream, answer) = if at_once {
        probe.filter.begin(&probe.context, request, callback)
    } else {
        match probe.filter.try_open(&probe.context, request) {
            Err(error) => (None, Err(error)),
            Ok(stream) => {
                let answer = match callback {
                    Callback::RequestHeaders => stream.run(callback, b"", false),
                    _ => stream.try_response_headers(&[("x-of-upstream", "1")]),
                };
                (Some(stream), answer)
            }
        }
    };
    seen.extend(probe.said());
    seen.push(format!("{answer:?}"));
    if let Some(stream) = stream {
        seen.push(format!("end {:?}", stream.end()));
    }
    seen.extend(probe.said());
    // In the VM of before, or in the next one.
    match probe.filter.try_open(&probe.context, world.add(Request::default())) {
        Ok(left) => seen.push(format!("id {} {:?}", left.at.id, left.end())),
        Err(error) => seen.push(format!("{error:?}")),
    }
    seen.push(format!("{:?}", probe.filter.drop_context(&probe.context)));
    seen.extend(probe.said());
    seen.extend(probe.warned());
    let metrics = world.shared().expect("shared memory").metrics().expect("metrics");
    let callbacks = metrics.iter().filter(|series| series.name == "proxy_wasm_callbacks_total");
    seen.extend(callbacks.map(|series| format!("{:?} {:?}", series.labels, series.value)));
    seen
}

#[test]
fn callbacks_in_one_entry_are_what_they_are_one_by_one() {
    for script in SCRIPTS {
        for callback in [Callback::RequestHeaders, Callback::ResponseHeaders] {
            let (together, apart) = (life(script, callback, true), life(script, callback, false));
            assert!(together.len() > 5, "{script}: {together:?}");
            assert_eq!(together, apart, "{script} from {callback} on");
        }
    }
}
