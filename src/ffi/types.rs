//! Plain types of the C ABI.
#![allow(non_camel_case_types, reason = "these are the names that C and Lua see")]

use std::ffi::c_char;

use crate::snapshot::HeaderMap;

/// Continue.
pub const RPW_CONTINUE: i32 = 0;
/// The guest holds the request: wait by `rpw_stream_wait`, then `rpw_stream_resume`.
pub const RPW_PAUSE: i32 = 1;
/// The effects hold a local response.
pub const RPW_RESPOND: i32 = 2;
/// End the request without a response.
pub const RPW_CLOSE: i32 = 3;
/// Nothing ran yet: call again with the response's headers.
pub const RPW_NEED_RESPONSE_HEADERS: i32 = 4;
/// Nothing ran yet: the filter may call functions of Lua, so call again from Lua that LuaJIT has not compiled.
pub const RPW_NEED_INTERPRETER: i32 = 5;
/// Failed; the text says why.
pub const RPW_ERROR: i32 = -1;
/// There is no HTTP request here (a timer, for example).
pub const RPW_BAD_REQUEST: i32 = -2;
/// Failed: the filter holds a body that is larger than it may be; the text says how large.
pub const RPW_TOO_LARGE: i32 = -3;
/// Of a response's body: nothing more of it may go out, and the client must see that it is incomplete; the text says why.
pub const RPW_CUT: i32 = -4;
/// A file cannot be read.
pub const RPW_UNREADABLE: i32 = -5;

/// `proxy_on_request_headers`
pub const RPW_REQUEST_HEADERS: i32 = 1;
/// `proxy_on_request_body`
pub const RPW_REQUEST_BODY: i32 = 2;
/// `proxy_on_response_headers`
pub const RPW_RESPONSE_HEADERS: i32 = 3;
/// `proxy_on_response_body`
pub const RPW_RESPONSE_BODY: i32 = 4;

/// Pass the body chunk on as it is.
pub const RPW_BODY_UNCHANGED: i32 = 0;
/// Pass the outcome's body on in its place.
pub const RPW_BODY_REPLACE: i32 = 1;
/// Pass nothing on.
pub const RPW_BODY_HOLD: i32 = 2;
/// Of a piecewise request body: pass on what was held and the chunk, as they came. The outcome's body is just that.
pub const RPW_BODY_PASS: i32 = 3;

/// With `RPW_ERROR` of a response body: what the filter held is gone with its VM.
pub const RPW_BODY_LOST: i32 = 4;

/// Request header `name` gets `value` and no other.
pub const RPW_SET_REQUEST_HEADER: i32 = 1;
/// One more request header line.
pub const RPW_ADD_REQUEST_HEADER: i32 = 2;
/// Every request header of that name goes.
pub const RPW_REMOVE_REQUEST_HEADER: i32 = 3;
/// Response header `name` gets `value` and no other.
pub const RPW_SET_RESPONSE_HEADER: i32 = 4;
/// One more response header line.
pub const RPW_ADD_RESPONSE_HEADER: i32 = 5;
/// Every response header of that name goes. `number` is 1 in this effect and the five before it where ngx_lua's functions
/// would do something else; see `rpw_header_line_add`.
pub const RPW_REMOVE_RESPONSE_HEADER: i32 = 6;
/// The request method is `value`; when `number` is 1, by `rpw_request_method`.
pub const RPW_SET_METHOD: i32 = 7;
/// The request's path is `name` (decoded); the request line has `value`, in which the query begins at `number` (0: there
/// is none) and ends before a `#`.
pub const RPW_SET_PATH: i32 = 8;
/// The response status is `number`.
pub const RPW_SET_STATUS: i32 = 9;
/// A local response of status `number` and body `value`; when `name` is not empty the body comes from the
/// body events instead.
pub const RPW_LOCAL_RESPONSE: i32 = 10;
/// A header of that local response.
pub const RPW_LOCAL_RESPONSE_HEADER: i32 = 11;

/// `rpw_header_line_add`: to the headers of the request.
pub const RPW_HEADERS_OF_REQUEST: i32 = 0;
/// `rpw_header_line_add`: to those of the response.
pub const RPW_HEADERS_OF_RESPONSE: i32 = 1;
/// `rpw_header_line_add`: nginx has a field for that header; set it by ngx_lua.
pub const RPW_LINE_FIELD: i32 = 1;
/// The functions for header lines: this nginx keeps them in a way that the library does not know.
pub const RPW_LINE_UNKNOWN: i32 = -1;

/// `rpw_context_traits`: the filter has `proxy_on_request_body`.
pub const RPW_TAKES_REQUEST_BODY: i32 = 1;
/// `rpw_context_traits`: a request continues without this filter where it fails.
pub const RPW_FAILS_OPEN: i32 = 2;
/// `rpw_context_traits`: the filter has `proxy_on_response_body`.
pub const RPW_TAKES_RESPONSE_BODY: i32 = 4;
/// `rpw_context_traits`: the filter was loaded as one that rewrites bodies.
pub const RPW_REWRITES_BODIES: i32 = 8;

/// `rpw_work_next`: make the call that is described.
pub const RPW_WORK_START: i32 = 1;
/// `rpw_work_next`: give up the call of that id and close its connection.
pub const RPW_WORK_STOP: i32 = 2;
/// `rpw_work_next`: nothing to do for `wait_ms`, or until the semaphore is posted.
pub const RPW_WORK_WAIT: i32 = 3;
/// `rpw_work_next`: run the function that is described, then `rpw_foreign_end`.
pub const RPW_WORK_RUN: i32 = 4;

/// `rpw_work_next`: begin to listen, by `rpw_listen_begin`.
pub const RPW_WORK_LISTEN: i32 = 5;
/// A connection for gRPC is to be made: `id`, `host`, `port`, `tls`.
pub const RPW_WORK_CONNECT: i32 = 6;
/// A connection for gRPC has something to do: `id`.
pub const RPW_WORK_WAKE: i32 = 7;
/// `rpw_work_next`: jobs have had their share of the time. Sleep for `wait_ms`, by a timer of nginx that counts from now, and
/// ask again; 0 for a caller that runs no callbacks: the one that does looks itself.
pub const RPW_WORK_REST: i32 = 8;
/// `rpw_work_next`: see to it that this is called again when the process is to end.
pub const RPW_WORK_WATCH: i32 = 9;
/// `rpw_work_next`: a plugin was replaced by another worker, see `rpw_plan_next`.
pub const RPW_WORK_FOLLOW: i32 = 10;
/// `rpw_work_next`: a connection to a Redis server has something to do, or is to be made: `id`, `host`, `port`, `tls`,
/// `server_name`.
pub const RPW_WORK_REDIS: i32 = 11;

/// Connections for gRPC.
pub const RPW_CONNECTION_GRPC: i32 = 1;
/// Connections to Redis servers.
pub const RPW_CONNECTION_REDIS: i32 = 2;

/// `rpw_call_advance`: receive more.
pub const RPW_CALL_RECEIVE: i32 = 1;
/// `rpw_call_advance`: the response is whole, or will never be.
pub const RPW_CALL_DONE: i32 = 2;
/// `rpw_call_advance`: nothing waits for this call any more.
pub const RPW_CALL_GONE: i32 = 3;

/// `rpw_shared_get`, `rpw_shared_delete`: there is no such entry.
pub const RPW_MISSING: i32 = 1;
/// `rpw_shared_set`: the entry has another version.
pub const RPW_MISMATCH: i32 = 2;

/// Where an error's text goes. The caller owns the buffer; text that does not fit is cut.
#[repr(C)]
pub struct rpw_error_t {
    /// The buffer.
    pub data: *mut c_char,
    /// Its size in bytes.
    pub capacity: usize,
    /// Out: bytes written.
    pub length: usize,
}

/// A name and a value, laid out like ngx_lua's `ngx_http_lua_ffi_table_elt_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rpw_pair_t {
    /// Bytes of the name.
    pub name_length: i32,
    /// The name.
    pub name: *const c_char,
    /// Bytes of the value.
    pub value_length: i32,
    /// The value.
    pub value: *const c_char,
}

/// What `rpw_plugin_load` is told besides the module. Every string is copied.
#[repr(C)]
pub struct rpw_options_t {
    /// The VM configuration.
    pub vm_config: *const c_char,
    /// Its bytes.
    pub vm_config_length: usize,
    /// The root that SDKs look up.
    pub root_id: *const c_char,
    /// Its bytes.
    pub root_id_length: usize,
    /// Who shares data with whom.
    pub vm_id: *const c_char,
    /// Its bytes.
    pub vm_id_length: usize,
    /// Environment variables of the guest.
    pub env: *const rpw_pair_t,
    /// How many.
    pub env_length: usize,
    /// Bytes of linear memory.
    pub memory_limit: u64,
    /// Milliseconds that one callback may run.
    pub time_limit: u32,
    /// Milliseconds that the start code, `proxy_on_vm_start` and `proxy_on_configure` may run.
    pub start_time_limit: u32,
    /// Milliseconds that a paused request waits.
    pub pause_timeout: u32,
    /// Bytes of one body that may be held.
    pub body_limit: u64,
    /// 1 when a request continues without this filter where it fails, 0 when it must not.
    pub fail_open: i32,
    /// 1 when the filter rewrites bodies.
    pub body: i32,
    /// What the filter may call, as `rpw_call_rules` takes it.
    pub calls: *const rpw_pair_t,
    /// How many; 0 leaves it to `rpw_call_rules`.
    pub calls_length: usize,
    /// 1 when requests wait for the calls that this filter dispatches, 0 when not, -1 when events say.
    pub calls_hold: i32,
}

/// An event of a request.
#[repr(C)]
pub struct rpw_event_t {
    /// One of `RPW_REQUEST_HEADERS` to `RPW_RESPONSE_BODY`.
    pub callback: i32,
    /// 1 with the last chunk of a body.
    pub end_of_stream: i32,
    /// 1 when LuaJIT cannot have compiled the call.
    pub interpreted: i32,
    /// 1 when the caller takes each piece of a request body as its outcome says. With 0 the last piece's outcome has the
    /// whole body, when anything of it was changed.
    pub piecewise: i32,
    /// 1 when a request waits for the calls that its callbacks dispatch, unless the options of its filter say otherwise.
    pub calls_hold: i32,
    /// 1 when nothing of the response was sent, and the caller waits with it as long as the guest does.
    pub waits: i32,
    /// The chunk of a body event. Lent for the call.
    pub body: *const c_char,
    /// Its bytes.
    pub body_length: usize,
    /// The response's headers, or NULL while they were not asked for. Lent for the call.
    pub headers: *const rpw_pair_t,
    /// How many.
    pub headers_length: usize,
}

/// Something that nginx must do, one of `RPW_SET_REQUEST_HEADER` to `RPW_LOCAL_RESPONSE_HEADER`.
#[repr(C)]
pub struct rpw_effect_t {
    /// What.
    pub kind: i32,
    /// A number, where the kind has one.
    pub number: i32,
    /// A name, where the kind has one.
    pub name: *const c_char,
    /// Its bytes.
    pub name_length: usize,
    /// A value, where the kind has one.
    pub value: *const c_char,
    /// Its bytes.
    pub value_length: usize,
}

/// What came of an event.
#[repr(C)]
pub struct rpw_outcome_t {
    /// The effects, to be done in order.
    pub effects: *const rpw_effect_t,
    /// How many.
    pub effects_length: usize,
    /// One of `RPW_BODY_UNCHANGED`, `RPW_BODY_REPLACE`, `RPW_BODY_HOLD`, `RPW_BODY_PASS`. With `RPW_ERROR` of a response body
    /// what is passed on when the response does: `RPW_BODY_UNCHANGED`, `RPW_BODY_REPLACE`, `RPW_BODY_LOST`.
    pub body_action: i32,
    /// With `RPW_PAUSE`: 1 when the guest waits for a call of its own.
    pub awaits_call: i32,
    /// With `RPW_PAUSE` on the request's headers: 1 when a body was announced, or may come.
    pub expects_body: i32,
    /// Of the response's headers: 1 when the body may come to have another size.
    pub rewrites_body: i32,
    /// Of the response's body: 1 when it ends with what is passed on of this chunk.
    pub ends: i32,
    /// Of the response's body: 1 when some of it is held, whatever is passed on of this chunk.
    pub still_holds: i32,
    /// The new body, for `RPW_BODY_REPLACE` and `RPW_BODY_PASS`.
    pub body: *const c_char,
    /// Its bytes.
    pub body_length: usize,
}

/// What to do for filters; which fields count, the answer of `rpw_work_next` says.
#[repr(C)]
pub struct rpw_work_t {
    /// The call.
    pub id: u32,
    /// Milliseconds that the whole call may take.
    pub timeout_ms: u32,
    /// Milliseconds to wait before asking again.
    pub wait_ms: u32,
    /// 1 when the process ends and nothing is left to do in it.
    pub over: i32,
    /// The port, 0 for a unix socket.
    pub port: i32,
    /// 1 when TLS is spoken; 2 when the library speaks it, see `rpw_call_connected`. For gRPC it always does.
    pub tls: i32,
    /// 1 when the host is a name whose address `rpw_call_permits` must judge before a connection is made.
    pub judged: i32,
    /// What to connect to, as nginx's cosockets take it.
    pub host: *const c_char,
    /// Its bytes.
    pub host_length: usize,
    /// The pool of connections that may serve this call.
    pub pool: *const c_char,
    /// Its bytes.
    pub pool_length: usize,
    /// The name that the certificate must have.
    pub server_name: *const c_char,
    /// Its bytes.
    pub server_name_length: usize,
    /// The function to be run. Copy it: the next call of the library may let go of it, and of its arguments.
    pub function: *const c_char,
    /// Its bytes.
    pub function_length: usize,
    /// Its arguments.
    pub arguments: *const c_char,
    /// Their bytes.
    pub arguments_length: usize,
}

/// What a call's connection must send.
#[repr(C)]
pub struct rpw_io_t {
    /// The bytes.
    pub data: *const c_char,
    /// How many.
    pub length: usize,
    /// 1 when the connection may serve another call.
    pub reusable: i32,
    /// Milliseconds to sleep before more is received; 0 as a rule.
    pub rest_ms: u32,
}

/// A value of shared data.
#[repr(C)]
pub struct rpw_value_t {
    /// Its bytes.
    pub data: *const c_char,
    /// How many.
    pub length: usize,
    /// Its version, never 0.
    pub cas: u32,
}

/// A metric.
#[repr(C)]
pub struct rpw_metric_t {
    /// As its filter named it.
    pub name: *const c_char,
    /// Its bytes.
    pub name_length: usize,
    /// "counter", "gauge" or "histogram".
    pub kind: *const c_char,
    /// Its bytes.
    pub kind_length: usize,
    /// Its labels.
    pub labels: *const rpw_pair_t,
    /// How many.
    pub labels_length: usize,
    /// What it shows; the sum of a histogram's values.
    pub value: f64,
    /// The buckets of a histogram; the end of the last one is infinite, and its count that of all values.
    pub buckets: *const rpw_bucket_t,
    /// How many.
    pub buckets_length: usize,
}

/// A bucket of a histogram.
#[repr(C)]
pub struct rpw_bucket_t {
    /// Values up to this one.
    pub le: f64,
    /// How many there were.
    pub count: u64,
}

/// Writes an error's text, when the caller gave room for one.
pub(super) fn write_error(error: *mut rpw_error_t, text: &str) {
    if error.is_null() {
        return;
    }
    // SAFETY: the caller lends a valid struct whose data has room for `capacity` bytes.
    unsafe {
        let error = &mut *error;
        let length = text.len().min(error.capacity);
        if !error.data.is_null() {
            std::ptr::copy_nonoverlapping(text.as_ptr(), error.data.cast(), length);
            error.length = length;
        }
    }
}

/// What a function of Lua answers. Lent until the next call.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
#[repr(C)]
pub struct rpw_result_t {
    /// The result.
    pub data: *const c_char,
    /// Its bytes.
    pub length: usize,
}

/// Calls a function of Lua: its name, its arguments, both lent, and where to put its result. 0, or not 0 when it failed.
///
/// It never raises an error and never yields.
#[allow(non_camel_case_types, reason = "the name that C and Lua see")]
pub type rpw_caller_t = Option<
    unsafe extern "C" fn(*const c_char, usize, *const c_char, usize, *mut rpw_result_t) -> i32,
>;

/// Lends bytes to the caller.
pub(super) fn lend(text: &(impl AsRef<[u8]> + ?Sized)) -> (*const c_char, usize) {
    let bytes = text.as_ref();
    (bytes.as_ptr().cast(), bytes.len())
}

/// A string of the caller.
///
/// # Safety
/// `data` is NULL or points to `length` readable bytes that live as long as `'a`.
pub(super) unsafe fn bytes<'a>(data: *const c_char, length: usize) -> &'a [u8] {
    if data.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: as promised by the caller.
    unsafe { std::slice::from_raw_parts(data.cast(), length) }
}

/// An array of the caller.
///
/// # Safety
/// `data` is NULL or points to `length` pairs whose strings are readable; all live as long as `'a`.
pub(super) unsafe fn pairs<'a>(
    data: *const rpw_pair_t,
    length: usize,
) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    let list: &'a [rpw_pair_t] = if data.is_null() {
        &[]
    } else {
        // SAFETY: as promised by the caller.
        unsafe { std::slice::from_raw_parts(data, length) }
    };
    list.iter().map(|pair| {
        let length = |n: i32| usize::try_from(n).unwrap_or(0);
        // SAFETY: as promised by the caller.
        unsafe {
            (
                bytes(pair.name, length(pair.name_length)),
                bytes(pair.value, length(pair.value_length)),
            )
        }
    })
}

/// Appends pairs to a header map.
///
/// # Safety
/// As for [`pairs`], for the time of the call.
pub(super) unsafe fn push_pairs(map: &mut HeaderMap, data: *const rpw_pair_t, length: usize) {
    // SAFETY: as promised by the caller.
    for (name, value) in unsafe { pairs(data, length) } {
        map.push(name, value);
    }
}

/// A plugin as one process has it. Times are seconds of Unix time, 0 for never.
#[repr(C)]
pub struct rpw_presence_t {
    /// The plugin's name.
    pub name: *const c_char,
    pub name_length: usize,
    /// The last thing that went wrong.
    pub error: *const c_char,
    pub error_length: usize,
    /// The process.
    pub pid: u32,
    /// The number of the plan that brought its module; 0 for the module that was loaded.
    pub version: u32,
    /// 1 when something went wrong since its VM started.
    pub failing: i32,
    /// SHA-256 of the module.
    pub digest: [u8; 32],
    /// When its VM started.
    pub since: f64,
    /// Plugin contexts that are alive.
    pub contexts: f64,
    /// Streams that are alive.
    pub streams: f64,
    /// Bytes of memory that its VMs have.
    pub memory: f64,
    /// Bytes that one of them may have.
    pub memory_limit: f64,
    /// VMs that were lost.
    pub traps: f64,
    /// Loads in the background that are under way.
    pub loading: f64,
    /// Since when.
    pub loading_since: f64,
    /// What the last of them is at: 0 for queued, 1 reading, 2 waiting, 3 compiling, 4 finishing.
    pub loading_stage: u32,
    /// How many functions are compiled.
    pub loading_compiled: u32,
    /// Of how many; 0 before that is known.
    pub loading_functions: u32,
    /// When the last thing went wrong.
    pub error_at: f64,
}
