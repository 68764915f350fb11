//! Every cap of the host in one place, each with the abuse that it stops.
//!
//! Sizes are bytes unless the name says otherwise.

/// A serialized header map that a guest hands over, and the most that a header map may grow to.
/// Stops a guest from making nginx hold megabytes of header lines.
pub const HEADER_MAP_BYTES: usize = 1024 * 1024;

/// Pairs in one header map. Stops quadratic work on maps of many tiny headers.
pub const HEADER_MAP_PAIRS: usize = 1024;

/// What a warning shows of a header's name.
pub const SHOWN_NAME: usize = 256;

/// One log line; the rest is cut off and the cut is shown. nginx itself cuts at about 2 KiB, so this
/// only bounds the work before that.
pub const LOG_LINE: usize = 8 * 1024;

/// A line that a guest writes to stdout or stderr without ever ending it.
pub const STDIO_LINE: usize = 8 * 1024;

/// Entries of one `fd_write`. Stops a guest from making one call walk the whole memory.
pub const STDIO_IOVECS: u32 = 1024;

/// Bytes that one `fd_write` takes; the guest is told how many, and writes the rest again. Its entries may all be the
/// guest's whole memory, and nothing stops the host in the middle of them.
pub const STDIO_BYTES: usize = 128 * 1024;

/// Body bytes held for a guest that answers Pause. Past it the chunk is passed on as it is, with a
/// warning. Stops a filter from keeping a whole download in the worker.
pub const HELD_BODY: usize = 16 * 1024 * 1024;

/// The body that one `proxy_set_buffer_bytes` may leave behind. Stops a filter from growing a body without
/// end.
pub const BODY: usize = 128 * 1024 * 1024;

/// Body and details of a local response.
pub const LOCAL_RESPONSE: usize = 16 * 1024 * 1024;

/// Properties that a guest keeps on one context. Stops a filter from using the host as its heap.
pub const PROPERTIES: usize = 256;
/// Paths and values of those properties together.
pub const PROPERTY_BYTES: usize = 256 * 1024;

/// Values that one stream gives to nginx variables, together. nginx keeps each until the request ends.
pub const VARIABLE_BYTES: usize = 1024 * 1024;

/// Effects (header operations) that one stream may have waiting to be applied. Stops a loop that adds
/// headers.
pub const EFFECTS: usize = 16 * 1024;
/// Names and values of those effects together.
pub const EFFECT_BYTES: usize = 32 * 1024 * 1024;

/// Timed waits named in one `poll_oneoff`: more than any runtime asks for.
pub const POLL_SUBSCRIPTIONS: u32 = 1024;

/// Bytes that one `random_get` may ask for, so that it cannot hold the worker.
pub const RANDOM_BYTES: u32 = 1024 * 1024;

/// Stack of a guest. Regex tables of Go filters overflow 64 KiB; nginx's own stack has 8 MiB.
pub const GUEST_STACK: usize = 1024 * 1024;

/// Default of the `memory_limit` option: linear memory of one VM.
pub const DEFAULT_MEMORY: u64 = 256 * 1024 * 1024;
/// The largest `memory_limit`: what a 32-bit guest can address.
pub const MAX_MEMORY: u64 = 4 * 1024 * 1024 * 1024;

/// Elements of one guest table. Stops `table.grow` from eating what `memory_limit` refuses.
pub const TABLE_ELEMENTS: usize = 1024 * 1024;

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
