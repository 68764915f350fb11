//! Trailers of responses, as far as the host knows them.

use crate::world::{Probe, Request};
use resty_proxy_wasm::limits;

fn run(script: &str, request: Request) -> Probe {
    let probe = Probe::new(script);
    let stream = probe.filter.open_for(&probe.context, request);
    stream.response_body(b"hello", false);
    stream.response_body(b"", true);
    stream.end().expect("an end");
    probe
}

#[test]
fn trailers_are_told_of() {
    let request = Request::default().trailer("x-sum", "1").trailer("x-other", "2");
    let script = "response_body@eos: get_header_map_value 3 x-sum
                  response_trailers: args
                  response_trailers: get_header_map_pairs 3
                  response_trailers: get_header_map_value 3 X-Sum
                  response_trailers: get_header_map_value 3 x-none
                  response_trailers: get_property_map response.trailers
                  response_trailers: replace_header_map_value 3 x-sum 2
                  response_trailers: pause
                  log: get_header_map_value 3 x-sum";
    assert_eq!(
        run(script, request).answers(),
        [
            "1",
            "num_trailers=2",
            "0 x-sum=1|x-other=2",
            "0 1",
            "1",
            "0 x-sum=1|x-other=2",
            "2",
            "1",
            "0 1"
        ]
    );
}

#[test]
fn the_status_of_grpc_may_be_a_trailer() {
    let script =
        "response_trailers: get_header_map_pairs 3; log: get_property_int response.grpc_status";
    let request = Request::default().trailer("grpc-status", "5");
    assert_eq!(run(script, request).answers(), ["0 grpc-status=5", "0 5"]);
}

#[test]
fn without_trailers_there_is_no_callback() {
    let script = "response_trailers: args; log: get_header_map_pairs 3; log: get_property_map response.trailers";
    assert_eq!(run(script, Request::default()).answers(), ["0 ''", "0 ''"]);
}

#[test]
fn no_more_trailers_than_the_cap() {
    let mut request = Request::default();
    for i in 0..limits::TRAILERS + 10 {
        request = request.trailer(&format!("x-{i}"), "v");
    }
    let answers = run("response_trailers: args", request).answers();
    assert_eq!(answers, [format!("num_trailers={}", limits::TRAILERS)]);
}
