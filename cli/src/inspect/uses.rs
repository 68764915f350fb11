//! What a filter does, by the callbacks that it has and the functions that it imports.

use serde::Serialize;

use super::facts::Facts;

/// What a filter can do. A function that it imports may still never be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Uses {
    pub reads_request_body: bool,
    pub reads_response_body: bool,
    pub writes_bodies: bool,
    pub changes_headers: bool,
    pub answers_requests: bool,
    pub http_calls: bool,
    pub grpc_calls: bool,
    pub shared_data: bool,
    pub shared_queues: bool,
    pub metrics: bool,
    pub ticks: bool,
    pub foreign_functions: bool,
    pub properties: bool,
}

impl Uses {
    /// Looks at exports and imports.
    pub fn of(facts: &Facts) -> Self {
        let calls = |names: &[&str]| names.iter().any(|name| facts.imports("env", name));
        let has = |name| facts.exports_function(name);
        let reads_bodies = calls(&["proxy_get_buffer_bytes", "proxy_get_buffer_status"]);
        let writes = calls(&["proxy_set_buffer_bytes"]);
        Self {
            reads_request_body: has("proxy_on_request_body") && reads_bodies,
            reads_response_body: has("proxy_on_response_body") && reads_bodies,
            writes_bodies: (has("proxy_on_request_body") || has("proxy_on_response_body"))
                && writes,
            changes_headers: calls(&[
                "proxy_add_header_map_value",
                "proxy_replace_header_map_value",
                "proxy_remove_header_map_value",
                "proxy_set_header_map_pairs",
            ]),
            answers_requests: calls(&["proxy_send_local_response"]),
            http_calls: calls(&["proxy_http_call"]),
            grpc_calls: calls(&["proxy_grpc_call", "proxy_grpc_stream"]),
            shared_data: calls(&["proxy_get_shared_data", "proxy_set_shared_data"]),
            shared_queues: calls(&[
                "proxy_register_shared_queue",
                "proxy_enqueue_shared_queue",
                "proxy_dequeue_shared_queue",
            ]),
            metrics: calls(&["proxy_define_metric"]),
            ticks: has("proxy_on_tick") && calls(&["proxy_set_tick_period_milliseconds"]),
            foreign_functions: calls(&["proxy_call_foreign_function"]),
            properties: calls(&["proxy_get_property", "proxy_set_property"]),
        }
    }

    /// Words for what is true.
    pub fn words(&self) -> Vec<&'static str> {
        [
            (self.reads_request_body, "reads request bodies"),
            (self.reads_response_body, "reads response bodies"),
            (self.writes_bodies, "writes bodies"),
            (self.changes_headers, "changes headers"),
            (self.answers_requests, "answers requests itself"),
            (self.http_calls, "makes HTTP calls"),
            (self.grpc_calls, "makes gRPC calls"),
            (self.shared_data, "uses shared data"),
            (self.shared_queues, "uses shared queues"),
            (self.metrics, "counts metrics"),
            (self.ticks, "ticks"),
            (self.foreign_functions, "calls foreign functions"),
            (self.properties, "uses properties"),
        ]
        .into_iter()
        .filter_map(|(is, word)| is.then_some(word))
        .collect()
    }
}
