//! Every cap of the host in one place, each with the abuse that it stops.
//!
//! Sizes are bytes unless the name says otherwise.

/// A serialized header map that a guest hands over, and the most that a header map may grow to.
/// Stops a guest from making the server hold megabytes of header lines.
pub const HEADER_MAP_BYTES: usize = 1024 * 1024;

/// Pairs in one header map, beside those that came from the client or the upstream. Stops quadratic work on maps of many
/// tiny headers.
pub const HEADER_MAP_PAIRS: usize = 1024;

/// Trailers of one response that are looked for by the names that it announces. Stops an upstream from having the host
/// look for thousands.
pub const TRAILERS: usize = 64;

/// Bytes of a name (of a header, of a function in a module) that a warning or an error repeats; the rest is cut off.
pub const SHOWN_BYTES: usize = 128;
/// Bytes of any other text of a module's that errors repeat.
pub const TEXT_BYTES: usize = 2 * 1024;

/// One log line; the rest is cut off and the cut is shown. Servers may cut earlier (at about 2 KiB);
/// this bounds the work before that.
pub const LOG_LINE: usize = 8 * 1024;

/// Log lines of one callback together, each with 100 bytes on top for what the server writes before and behind it. The rest
/// is dropped, with a warning. Stops a filter from filling the disk and from holding the worker with writing.
pub const LOG_BYTES: usize = 1024 * 1024;

/// A line that a guest writes to stdout or stderr without ever ending it.
pub const STDIO_LINE: usize = 8 * 1024;

/// Entries of one `fd_write`. Stops a guest from making one call walk the whole memory.
pub const STDIO_IOVECS: u32 = 1024;

/// Bytes that one `fd_write` takes; the guest is told how many, and writes the rest again. Its entries may all be the
/// guest's whole memory, and nothing stops the host in the middle of them.
pub const STDIO_BYTES: usize = 128 * 1024;

/// Threads of a worker that load modules in the background at the same time; further modules wait. Stops a loop of `load`
/// from starting thousands. One of them compiles at a time.
pub const LOADING_THREADS: usize = 8;

/// Default of the `body_limit` option and setting: bytes of one body that are held for a filter that answers Pause. Past it
/// the filter fails: the request is answered with 413, the response is cut off. Stops a filter from keeping a whole
/// download in the worker.
pub const HELD_BODY: usize = 16 * 1024 * 1024;
/// The largest `body_limit`.
pub const MAX_HELD_BODY: usize = 128 * 1024 * 1024;

/// Bodies held for all streams of one VM together; past it the filter fails, too, with 503 for a request. Stops a filter
/// from keeping many downloads.
pub const HELD_BODIES: usize = 256 * 1024 * 1024;

/// The body that one `proxy_set_buffer_bytes` may leave behind, with what earlier chunks of that body have grown by.
/// Stops a filter from growing a body without end.
pub const BODY: usize = 128 * 1024 * 1024;

/// The body of a local response. A longer one is left out; the response goes out without it.
pub const LOCAL_RESPONSE: usize = 16 * 1024 * 1024;

/// What is kept of the details of a local response.
pub const DETAILS: usize = 4 * 1024;

/// The `grpc-message` of a local response, before it is encoded; the rest is cut off.
pub const GRPC_MESSAGE: usize = 8 * 1024;

/// Properties that a guest keeps on one context. Stops a filter from using the host as its heap.
pub const PROPERTIES: usize = 256;
/// Paths and values of those properties together.
pub const PROPERTY_BYTES: usize = 256 * 1024;
/// The same of all contexts of one VM together, each property with 64 bytes on top.
pub const ALL_PROPERTY_BYTES: usize = 64 * 1024 * 1024;
/// A property's path. Stops a filter from having the host search for megabytes.
pub const PROPERTY_PATH: usize = 8 * 1024;

/// What one stream may read and set of attributes and properties of the host, each time with 32 bytes on top. The server
/// may keep every value until the request ends. Stops a loop that reads or sets one.
pub const VARIABLE_BYTES: usize = 32 * 1024 * 1024;

/// Effects (header operations) that one stream may have waiting to be applied. Stops a loop that adds
/// headers.
pub const EFFECTS: usize = 4 * 1024;
/// Names and values of those effects together.
pub const EFFECT_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of header names that the server may have to compare for one stream: each name that is set or removed with every
/// header set before, and with 128 more. It takes the worker's time and not the filter's: 0.1 s for names made to be
/// slow.
pub const COMPARED_BYTES: usize = 16 * 1024 * 1024;

/// Values on their way to a guest whose allocator asks for another one meanwhile. Stops a filter from stacking them up.
pub const HANDOVERS: usize = 8;

/// The longest that one call may take: the `timeout` 0, which Envoy takes for no limit, and what is longer. Stops a filter
/// from keeping connections, and a worker that is to end, for days.
pub const CALL_MS: u32 = 3_600_000;
/// Body of the response to a call that a guest makes. Past it the call fails.
pub const CALL_BODY: usize = 16 * 1024 * 1024;
/// Status line and headers of such a response.
pub const CALL_HEAD: usize = 512 * 1024;
/// What has come of the bodies of all such responses in one worker. Past it the call that receives more fails.
pub const CALL_BODIES: usize = 256 * 1024 * 1024;
/// Bodies, headers and trailers of the calls that one VM has under way.
pub const CALL_REQUEST_BODIES: usize = 64 * 1024 * 1024;
/// A message of a gRPC call or stream, in either direction, after it was decompressed. Past it the call fails.
pub const CALL_MESSAGE: usize = 16 * 1024 * 1024;
/// Connections of one worker to one upstream of gRPC calls. Calls that none of them has room for wait.
pub const GRPC_CONNECTIONS: usize = 16;
/// Connections of one worker for gRPC calls. Past it idle ones are closed, and then calls fail. Each is one of the 256 timers
/// that may run at once in OpenResty by default (`lua_max_running_timers`).
pub const GRPC_WORKER_CONNECTIONS: usize = 128;
/// Connections of one worker to Redis servers. A call that would need another one fails.
pub const REDIS_CONNECTIONS: usize = 256;
/// Redis servers that one plugin context may begin with, by `proxy_redis_init`.
pub const REDIS_UPSTREAMS: usize = 64;
/// The name, and the password, by which a filter asks a Redis server.
pub const REDIS_CREDENTIAL: usize = 16 * 1024;
/// Calls that one VM may have under way. Stops a filter from taking all of a worker's connections.
pub const CALLS: usize = 4096;

/// The name of an upstream, and the authority of a call. Stops a filter from having the host search and show megabytes.
pub const UPSTREAM_NAME: usize = 4 * 1024;
/// Names of upstreams that `setup`'s function answered for and that are kept for where Lua cannot be called.
pub const ANSWERED_UPSTREAMS: usize = 1024;
/// The name of a foreign function.
pub const FOREIGN_NAME: usize = 4 * 1024;
/// The arguments of a foreign function.
pub const FOREIGN_ARGUMENTS: usize = 16 * 1024 * 1024;
/// What the foreign functions `compress` and `uncompress` take and make. They take the worker's time and not the filter's: 0.1 s.
pub const COMPRESSED: usize = 2 * 1024 * 1024;
/// Targets that a filter may not call and that a warning names; the rest is one more. Stops a filter from filling the log.
pub const REFUSED_TARGETS: usize = 64;

/// Lines of the log about calls that one stream leaves behind; the rest is counted.
pub const DROPPED_CALLS: usize = 16;

/// Guests that may be entered from inside each other, by foreign functions that run filters. Each takes up to
/// [`GUEST_STACK`] of the worker's stack, and the share of the embedder.
pub const NESTED_ENTRIES: usize = 4;

/// Timed waits named in one `poll_oneoff`: more than any runtime asks for.
pub const POLL_SUBSCRIPTIONS: u32 = 1024;

/// Bytes that one `random_get` may ask for, so that it cannot hold the worker.
pub const RANDOM_BYTES: u32 = 1024 * 1024;

/// Bytes that one call of another function of WASI may have the host read (a path, a list of buffers).
pub const WASI_BYTES: usize = 64 * 1024;

/// Stack of a guest. Regex tables of Go filters overflow 64 KiB; the stack of a process has 8 MiB.
pub const GUEST_STACK: usize = 1024 * 1024;
/// The smallest stack of a guest. It has less than [`GUEST_STACK`] where the process may not have [`NESTED_ENTRIES`] of them;
/// with less than this no filter is loaded.
pub const MIN_GUEST_STACK: usize = 64 * 1024;

/// Default of the `memory_limit` option: linear memory of one VM.
pub const DEFAULT_MEMORY: u64 = 256 * 1024 * 1024;
/// The largest `memory_limit`: what a 32-bit guest can address.
pub const MAX_MEMORY: u64 = 4 * 1024 * 1024 * 1024;

/// Elements of one guest table. Stops `table.grow` from eating what `memory_limit` refuses.
pub const TABLE_ELEMENTS: usize = 1024 * 1024;
/// Tables of one guest; compilers make one.
pub const TABLES: usize = 4;

/// Warnings about one module when it is loaded; the rest is counted. Stops a module of a million unknown imports.
pub const LOAD_WARNINGS: usize = 64;

/// Default of the `time_limit` option: one callback.
pub const DEFAULT_TIME_MS: u32 = 1000;
/// Default of the `start_time_limit` option: start code and configuring.
pub const DEFAULT_START_TIME_MS: u32 = 30_000;
/// Milliseconds before a VM or a plugin context that failed to start is tried again; each failure doubles
/// them. Stops a broken filter from taking the worker with starting it in every request.
pub const RETRY_MS: u64 = 100;
/// The longest such wait.
pub const RETRY_MAX_MS: u64 = 30_000;

/// Default of the `pause_timeout` option: how long a paused request waits.
pub const DEFAULT_PAUSE_MS: u32 = 60_000;

/// Default of the `shared_memory` setting: what workers share.
pub const DEFAULT_SHARED_MEMORY: usize = 16 * 1024 * 1024;
/// The smallest `shared_memory`.
pub const MIN_SHARED_MEMORY: usize = 256 * 1024;
/// The largest `shared_memory`: links in it reach that far.
pub const MAX_SHARED_MEMORY: usize = 32 * 1024 * 1024 * 1024;
/// A key of shared data, or the name of a queue or a metric. Stops a filter from having all workers wait while the
/// host compares megabytes.
pub const SHARED_KEY: usize = 4 * 1024;
/// A value of shared data, or a message in a queue. All workers wait while one is copied.
pub const SHARED_VALUE: usize = 1024 * 1024;
/// Entries that may give way to one that is set, with `eviction = "lru"`. Past it that one is refused: all workers wait
/// meanwhile.
pub const SHARED_EVICTIONS: usize = 4096;
/// Names of queues. They are never taken back.
pub const QUEUE_NAMES: usize = 1024;
/// Messages in one queue. Stops a filter from filling what workers share with what no filter takes.
pub const QUEUE_MESSAGES: u32 = 65536;
/// Calls of `proxy_on_queue_ready` in a row before the worker does other things.
pub const QUEUE_CALLS: u32 = 64;
/// Milliseconds that jobs outside of requests (ticks, messages, answers of calls) take of a worker before it serves
/// requests, for as long as the jobs took. Stops jobs that bring more jobs from keeping the worker.
pub const JOBS_MS: u64 = 5;
/// Milliseconds that a plugin context has from its `proxy_on_done` on, in a worker that ends. Stops a filter from keeping the
/// worker.
pub const END_MS: u64 = 5000;
/// Metrics that one plugin may define. They are never taken back.
pub const METRIC_NAMES: u64 = 1024;
/// Processes that use the shared memory at the same time: the master, and workers, old and new ones together. Others are
/// refused.
pub const SHARED_PROCESSES: usize = 2048;

/// Upstreams whose calls are counted each for itself, for all plugins together; further ones are counted as one. Stops a filter
/// that calls names without end from filling the shared memory.
pub const COUNTED_UPSTREAM_NAMES: usize = 256;
/// Bytes of an upstream's name that its calls are counted under; the rest is cut off.
pub const COUNTED_UPSTREAM_BYTES: usize = 256;
/// Bytes of a queue's name, and of its `vm_id`, that its metrics show; the rest is cut off.
pub const QUEUE_LABEL_BYTES: usize = 256;
