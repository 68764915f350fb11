//! Trailers of responses, as far as the world shows them: in a variable for each name.

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
fn announced_trailers_are_told_of() {
    let request = Request::default()
        .variable("upstream_http_trailer", "X-Sum, x-other,X-Sum, bad name")
        .variable("upstream_trailer_x_sum", "1")
        .variable("upstream_trailer_x_silent", "3")
        .variable("sent_trailer_x_other", "2");
    let script = "response_body@eos: get_header_map_value 3 x-sum
                  response_trailers: args
                  response_trailers: get_header_map_pairs 3
                  response_trailers: get_header_map_value 3 X-Sum
                  response_trailers: get_header_map_value 3 x-silent
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
            "0 3",
            "1",
            "0 x-sum=1|x-other=2",
            "2",
            "1",
            "0 1"
        ]
    );
}

#[test]
fn those_of_grpc_are_not_announced() {
    let request = || {
        Request::default()
            .variable("upstream_trailer_grpc_status", "5")
            .variable("upstream_trailer_grpc_message", "not here")
    };
    let script =
        "response_trailers: get_header_map_pairs 3; log: get_property_int response.grpc_status";
    let grpc = request().variable("content_type", "application/grpc+proto");
    assert_eq!(run(script, grpc).answers(), ["0 grpc-status=5|grpc-message=not here", "0 5"]);
    let other = request().variable("content_type", "text/plain");
    assert_eq!(run(script, other).answers(), ["0 5"]);
}

#[test]
fn without_trailers_there_is_no_callback() {
    let script = "response_trailers: args; log: get_header_map_pairs 3; log: get_property_map response.trailers";
    assert_eq!(run(script, Request::default()).answers(), ["0 ''", "0 ''"]);
}

#[test]
fn no_more_trailers_than_the_cap() {
    let names: Vec<String> = (0..limits::TRAILERS + 10).map(|i| format!("x-{i}")).collect();
    let mut request = Request::default().variable("upstream_http_trailer", names.join(","));
    for i in 0..names.len() {
        request = request.variable(&format!("upstream_trailer_x_{i}"), "v");
    }
    let answers = run("response_trailers: args", request).answers();
    assert_eq!(answers, [format!("num_trailers={}", limits::TRAILERS)]);
}
