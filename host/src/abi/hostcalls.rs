//! The table of host functions. The linker, the documentation's tables and the tests all read it.

/// How far a host function goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what the specification says.
    Full,
    /// It is linked and answers a status that SDKs survive; the text says which.
    Answers(&'static str),
}

/// A host function of module `env`.
#[derive(Clone, Copy, Debug)]
pub struct HostFunction {
    /// Its import name.
    pub name: &'static str,
    /// Its parameters, by name and type.
    pub params: &'static [(&'static str, &'static str)],
    /// The versions of the ABI that have it.
    pub versions: &'static str,
    /// How far it goes.
    pub support: Support,
}

impl HostFunction {
    /// Whether it can hand over a value, for which the guest has to make room.
    pub fn hands_over(&self) -> bool {
        self.params.iter().any(|(name, _)| *name == "return_data")
    }
}

/// Runs a macro over `family::function(parameters) "versions" support;` for each host function.
macro_rules! for_each_hostcall {
    ($run:ident) => {
        $run! {
            log::proxy_log(level: u32, message: u32, message_size: u32) "all" Full;
            log::proxy_get_log_level(return_level: u32) "0.2.1" Full;
            time::proxy_get_current_time_nanoseconds(return_time: u32) "all" Full;
            timer::proxy_set_tick_period_milliseconds(period: u32) "all" Full;
            buffer::proxy_get_buffer_bytes(buffer: u32, start: u32, max_size: u32, return_data: u32, return_size: u32) "all" Full;
            buffer::proxy_get_buffer_status(buffer: u32, return_size: u32, return_flags: u32) "all" Full;
            buffer::proxy_set_buffer_bytes(buffer: u32, start: u32, size: u32, data: u32, data_size: u32) "all" Full;
            headers::proxy_get_header_map_size(map: u32, return_size: u32) "all" Full;
            headers::proxy_get_header_map_pairs(map: u32, return_data: u32, return_size: u32) "all" Full;
            headers::proxy_set_header_map_pairs(map: u32, data: u32, size: u32) "all" Full;
            headers::proxy_get_header_map_value(map: u32, key: u32, key_size: u32, return_data: u32, return_size: u32) "all" Full;
            headers::proxy_add_header_map_value(map: u32, key: u32, key_size: u32, value: u32, value_size: u32) "all" Full;
            headers::proxy_replace_header_map_value(map: u32, key: u32, key_size: u32, value: u32, value_size: u32) "all" Full;
            headers::proxy_remove_header_map_value(map: u32, key: u32, key_size: u32) "all" Full;
            response::proxy_continue_stream(stream: u32) "0.2" Full;
            response::proxy_close_stream(stream: u32) "0.2" Full;
            response::proxy_continue_request() "0.1.0" Full;
            response::proxy_continue_response() "0.1.0" Full;
            response::proxy_clear_route_cache() "0.1.0" Full;
            buffer::proxy_get_configuration(return_data: u32, return_size: u32) "0.1.0" Full;
            response::proxy_send_local_response(status: u32, details: u32, details_size: u32, body: u32, body_size: u32, headers: u32, headers_size: u32, grpc_status: u32) "all" Full;
            dispatch::proxy_http_call(upstream: u32, upstream_size: u32, headers: u32, headers_size: u32, body: u32, body_size: u32, trailers: u32, trailers_size: u32, timeout_ms: u32, return_token: u32) "all" Full;
            grpc::proxy_grpc_call(upstream: u32, upstream_size: u32, service: u32, service_size: u32, method: u32, method_size: u32, metadata: u32, metadata_size: u32, message: u32, message_size: u32, timeout_ms: u32, return_id: u32) "all" Full;
            grpc::proxy_grpc_stream(upstream: u32, upstream_size: u32, service: u32, service_size: u32, method: u32, method_size: u32, metadata: u32, metadata_size: u32, return_id: u32) "all" Full;
            grpc::proxy_grpc_send(id: u32, message: u32, message_size: u32, end_of_stream: u32) "all" Full;
            grpc::proxy_grpc_cancel(id: u32) "all" Full;
            grpc::proxy_grpc_close(id: u32) "all" Full;
            redis::proxy_redis_init(upstream: u32, upstream_size: u32, username: u32, username_size: u32, password: u32, password_size: u32, timeout_ms: u32) "0.2.100" Full;
            redis::proxy_redis_call(upstream: u32, upstream_size: u32, query: u32, query_size: u32, return_token: u32) "0.2.100" Full;
            inject::proxy_inject_encoded_data_to_filter_chain(body: u32, body_size: u32, end_stream: u32) "0.2.100" Full;
            hosts::proxy_get_upstream_hosts(return_data: u32, return_size: u32) "0.2.100" Full;
            hosts::proxy_set_upstream_override_host(address: u32, address_size: u32) "0.2.100" Full;
            dispatch::proxy_get_status(return_code: u32, return_data: u32, return_size: u32) "0.2" Full;
            shared_data::proxy_get_shared_data(key: u32, key_size: u32, return_data: u32, return_size: u32, return_cas: u32) "all" Full;
            shared_data::proxy_set_shared_data(key: u32, key_size: u32, value: u32, value_size: u32, cas: u32) "all" Full;
            queue::proxy_register_shared_queue(name: u32, name_size: u32, return_id: u32) "all" Full;
            queue::proxy_resolve_shared_queue(vm_id: u32, vm_id_size: u32, name: u32, name_size: u32, return_id: u32) "all" Full;
            queue::proxy_enqueue_shared_queue(id: u32, data: u32, data_size: u32) "all" Full;
            queue::proxy_dequeue_shared_queue(id: u32, return_data: u32, return_size: u32) "all" Full;
            metric::proxy_define_metric(kind: u32, name: u32, name_size: u32, return_id: u32) "all" Full;
            metric::proxy_increment_metric(id: u32, delta: i64) "all" Full;
            metric::proxy_record_metric(id: u32, value: i64) "all" Full;
            metric::proxy_get_metric(id: u32, return_value: u32) "all" Full;
            property::proxy_get_property(path: u32, path_size: u32, return_data: u32, return_size: u32) "all" Full;
            property::proxy_set_property(path: u32, path_size: u32, value: u32, value_size: u32) "all" Full;
            foreign::proxy_call_foreign_function(name: u32, name_size: u32, args: u32, args_size: u32, return_data: u32, return_size: u32) "0.2" Full;
            context::proxy_set_effective_context(id: u32) "all" Full;
            context::proxy_done() "all" Full;
        }
    };
}
pub(crate) use for_each_hostcall;

macro_rules! table {
    ($($family:ident::$name:ident($($param:ident: $ty:ident),*) $versions:literal $support:ident $(($answer:literal))?;)*) => {
        /// Every Proxy-Wasm function of module `env`, in the order of the documentation.
        pub static HOST_FUNCTIONS: &[HostFunction] = &[
            $(HostFunction {
                name: stringify!($name),
                params: &[$((stringify!($param), stringify!($ty))),*],
                versions: $versions,
                support: Support::$support $(($answer))?,
            }),*
        ];
    };
}
for_each_hostcall!(table);

/// WASI functions that do something, with what a guest gets from them. Every other name of
/// `wasi_snapshot_preview1` and `wasi_unstable` is linked and finds no file, no socket and no argument.
pub static WASI_FUNCTIONS: &[(&str, &str)] = &[
    ("fd_write", "1 is logged at info, 2 at error, a line at a time; others EBADF"),
    ("environ_sizes_get", "the plugin's own `env`"),
    ("environ_get", "the plugin's own `env`"),
    ("clock_time_get", "real time and monotonic time"),
    ("random_get", "randomness of the operating system"),
    ("poll_oneoff", "success at once, no events waited for"),
    ("sched_yield", "success"),
    ("proc_exit", "ends the instance"),
];
