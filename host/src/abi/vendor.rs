//! What a vendor's superset of the ABI, 0.2.100, adds besides functions, as data for the documentation.

/// Foreign functions of the host itself. A function of Lua by the same name comes before.
pub static FOREIGN_FUNCTIONS: &[(&str, &str)] = &[
    ("get_log_level", "the least severe level that is written, 4 bytes in little endian"),
    (
        "inject_encoded_data_to_filter_chain_on_header",
        "in `proxy_on_response_headers`: a message of protobuf, {1: body, 2: end of stream}; with 2 the body takes the \
         place of the response's, else it comes before that",
    ),
    ("compress", "zlib's compress; [limited](limits.md)"),
    ("uncompress", "zlib's uncompress; limited likewise"),
    ("clear_route_cache", "nothing: the server has none"),
    ("set_global_max_requests_per_io_cycle", "nothing: the server decides that itself"),
    ("expr_create", "NOT_FOUND and a warning, as the other `expr_*`"),
    ("declare_property", "NOT_FOUND and a warning"),
    ("set_envoy_filter_state", "NOT_FOUND and a warning"),
];

/// Properties that do something when a filter with a marker of 0.2.2 or later sets them, and are kept as others are.
pub static COMMANDS: &[(&str, &str)] = &[
    (
        "set_decoder_buffer_limit",
        "decimal: bytes of this request's body that may be held, instead of `body_limit`, up to 128 MiB",
    ),
    ("set_encoder_buffer_limit", "the same for the response's body"),
    (
        "wasm_need_rebuild",
        "`true`: a new VM takes the place of this one when no stream and no call is left in it",
    ),
    ("clear_route_cache", "nothing: the server has none"),
    (
        "trace_span_tag.NAME",
        "`$trace_span_tag_NAME` is set, where a `set` makes that variable; other characters than letters and digits \
         become `_`. Also without such a marker",
    ),
    (
        "ai_log",
        "`$ai_log` is set, where a `set` makes that variable, as with any property of one segment",
    ),
];
