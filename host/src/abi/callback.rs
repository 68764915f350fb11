//! The callbacks that a guest may export.

use std::fmt;

macro_rules! callbacks {
    ($($(#[$meta:meta])* $variant:ident = $name:literal, $support:literal;)*) => {
        /// A callback of the ABI, or one of the functions that start a module.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Callback { $($(#[$meta])* #[doc = concat!("`", $name, "`")] $variant),* }

        impl Callback {
            /// Every callback, in the order of the specification.
            pub const ALL: &'static [Callback] = &[$(Callback::$variant),*];

            /// The name under which a guest exports it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// When this host calls it, for the tables of the documentation.
            pub fn support(self) -> &'static str {
                match self { $(Self::$variant => $support),* }
            }
        }
    };
}

callbacks! {
    /// Instantiation with its start section, `_initialize`, `main`, `_start`.
    Start = "_initialize", "when the module is loaded, and again in each worker; then `main`. Without it: `_start`";
    MemoryAllocate = "proxy_on_memory_allocate", "to hand a value over; without it `malloc`";
    ContextCreate = "proxy_on_context_create", "for each plugin context and each stream";
    VmStart = "proxy_on_vm_start", "for each new plugin context";
    Configure = "proxy_on_configure", "by `on_configure`";
    RequestHeaders = "proxy_on_request_headers", "by `on_http_request_headers`";
    RequestBody = "proxy_on_request_body", "by `on_http_request_body`";
    RequestTrailers = "proxy_on_request_trailers", "not called: the host shows no request trailers";
    ResponseHeaders = "proxy_on_response_headers", "by `on_http_response_headers`";
    ResponseBody = "proxy_on_response_body", "by `on_http_response_body`";
    ResponseTrailers = "proxy_on_response_trailers", "at the end of a body event, when there are trailers: see [Trailers](semantics.md#trailers)";
    Done = "proxy_on_done", "when the request ends; for a plugin context when its owner dropped it";
    Log = "proxy_on_log", "after `proxy_on_done` of a stream";
    Delete = "proxy_on_delete", "last";
    Tick = "proxy_on_tick", "every `proxy_set_tick_period_milliseconds`, in each worker";
    QueueReady = "proxy_on_queue_ready", "for each message in a queue, in the plugin context and the worker that registered it last";
    HttpCallResponse = "proxy_on_http_call_response", "when a call has its response, or has failed";
    GrpcInitialMetadata = "proxy_on_grpc_receive_initial_metadata", "for a gRPC stream, when the server's metadata comes";
    GrpcReceive = "proxy_on_grpc_receive", "for each message of a gRPC stream, and for the response of a call that succeeds";
    GrpcTrailingMetadata = "proxy_on_grpc_receive_trailing_metadata", "for a gRPC stream, before its end";
    GrpcClose = "proxy_on_grpc_close", "at the end of a gRPC stream, and when a call fails";
    RedisCallResponse = "proxy_on_redis_call_response", "when a Redis call has its answers, or has failed";
    ForeignFunction = "proxy_on_foreign_function", "with the result of an asynchronous foreign function";
}

impl Callback {
    /// Whether it tells of the end of a call that the guest made.
    pub fn answers_call(self) -> bool {
        use Callback::{
            ForeignFunction, GrpcClose, GrpcReceive, HttpCallResponse, RedisCallResponse,
        };
        matches!(
            self,
            HttpCallResponse | RedisCallResponse | ForeignFunction | GrpcReceive | GrpcClose
        )
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
