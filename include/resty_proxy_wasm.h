#ifndef RESTY_PROXY_WASM_H
#define RESTY_PROXY_WASM_H

/* Generated from src/ffi by ./build.sh generate: do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The number of this C ABI, made from all of its declarations and constants. The Lua module refuses a library of another
 * number.
 */
#define RPW_ABI 1860627172

/**
 * Continue.
 */
#define RPW_CONTINUE 0

/**
 * The guest holds the request: wait by `rpw_stream_wait`, then `rpw_stream_resume`.
 */
#define RPW_PAUSE 1

/**
 * The effects hold a local response.
 */
#define RPW_RESPOND 2

/**
 * End the request without a response.
 */
#define RPW_CLOSE 3

/**
 * Nothing ran yet: call again with the response's headers.
 */
#define RPW_NEED_RESPONSE_HEADERS 4

/**
 * Nothing ran yet: the filter may call functions of Lua, so call again from Lua that LuaJIT has not compiled.
 */
#define RPW_NEED_INTERPRETER 5

/**
 * Failed; the text says why.
 */
#define RPW_ERROR -1

/**
 * There is no HTTP request here (a timer, for example).
 */
#define RPW_BAD_REQUEST -2

/**
 * Failed: the filter holds a body that is larger than it may be; the text says how large.
 */
#define RPW_TOO_LARGE -3

/**
 * Of a response's body: nothing more of it may go out, and the client must see that it is incomplete; the text says why.
 */
#define RPW_CUT -4

/**
 * A file cannot be read.
 */
#define RPW_UNREADABLE -5

/**
 * `proxy_on_request_headers`
 */
#define RPW_REQUEST_HEADERS 1

/**
 * `proxy_on_request_body`
 */
#define RPW_REQUEST_BODY 2

/**
 * `proxy_on_response_headers`
 */
#define RPW_RESPONSE_HEADERS 3

/**
 * `proxy_on_response_body`
 */
#define RPW_RESPONSE_BODY 4

/**
 * Pass the body chunk on as it is.
 */
#define RPW_BODY_UNCHANGED 0

/**
 * Pass the outcome's body on in its place.
 */
#define RPW_BODY_REPLACE 1

/**
 * Pass nothing on.
 */
#define RPW_BODY_HOLD 2

/**
 * Of a piecewise request body: pass on what was held and the chunk, as they came. The outcome's body is just that.
 */
#define RPW_BODY_PASS 3

/**
 * With `RPW_ERROR` of a response body: what the filter held is gone with its VM.
 */
#define RPW_BODY_LOST 4

/**
 * Request header `name` gets `value` and no other.
 */
#define RPW_SET_REQUEST_HEADER 1

/**
 * One more request header line.
 */
#define RPW_ADD_REQUEST_HEADER 2

/**
 * Every request header of that name goes.
 */
#define RPW_REMOVE_REQUEST_HEADER 3

/**
 * Response header `name` gets `value` and no other.
 */
#define RPW_SET_RESPONSE_HEADER 4

/**
 * One more response header line.
 */
#define RPW_ADD_RESPONSE_HEADER 5

/**
 * Every response header of that name goes. `number` is 1 in this effect and the five before it where ngx_lua's functions
 * would do something else; see `rpw_header_line_add`.
 */
#define RPW_REMOVE_RESPONSE_HEADER 6

/**
 * The request method is `value`; when `number` is 1, by `rpw_request_method`.
 */
#define RPW_SET_METHOD 7

/**
 * The request's path is `name` (decoded); the request line has `value`, in which the query begins at `number` (0: there
 * is none) and ends before a `#`.
 */
#define RPW_SET_PATH 8

/**
 * The response status is `number`.
 */
#define RPW_SET_STATUS 9

/**
 * A local response of status `number` and body `value`; when `name` is not empty the body comes from the
 * body events instead.
 */
#define RPW_LOCAL_RESPONSE 10

/**
 * A header of that local response.
 */
#define RPW_LOCAL_RESPONSE_HEADER 11

/**
 * `rpw_header_line_add`: to the headers of the request.
 */
#define RPW_HEADERS_OF_REQUEST 0

/**
 * `rpw_header_line_add`: to those of the response.
 */
#define RPW_HEADERS_OF_RESPONSE 1

/**
 * `rpw_header_line_add`: nginx has a field for that header; set it by ngx_lua.
 */
#define RPW_LINE_FIELD 1

/**
 * The functions for header lines: this nginx keeps them in a way that the library does not know.
 */
#define RPW_LINE_UNKNOWN -1

/**
 * `rpw_context_traits`: the filter has `proxy_on_request_body`.
 */
#define RPW_TAKES_REQUEST_BODY 1

/**
 * `rpw_context_traits`: a request continues without this filter where it fails.
 */
#define RPW_FAILS_OPEN 2

/**
 * `rpw_context_traits`: the filter has `proxy_on_response_body`.
 */
#define RPW_TAKES_RESPONSE_BODY 4

/**
 * `rpw_context_traits`: the filter was loaded as one that rewrites bodies.
 */
#define RPW_REWRITES_BODIES 8

/**
 * `rpw_work_next`: make the call that is described.
 */
#define RPW_WORK_START 1

/**
 * `rpw_work_next`: give up the call of that id and close its connection.
 */
#define RPW_WORK_STOP 2

/**
 * `rpw_work_next`: nothing to do for `wait_ms`, or until the semaphore is posted.
 */
#define RPW_WORK_WAIT 3

/**
 * `rpw_work_next`: run the function that is described, then `rpw_foreign_end`.
 */
#define RPW_WORK_RUN 4

/**
 * `rpw_work_next`: begin to listen, by `rpw_listen_begin`.
 */
#define RPW_WORK_LISTEN 5

/**
 * A connection for gRPC is to be made: `id`, `host`, `port`, `tls`.
 */
#define RPW_WORK_CONNECT 6

/**
 * A connection for gRPC has something to do: `id`.
 */
#define RPW_WORK_WAKE 7

/**
 * `rpw_work_next`: jobs have had their share of the time. Sleep for `wait_ms`, by a timer of nginx that counts from now, and
 * ask again; 0 for a caller that runs no callbacks: the one that does looks itself.
 */
#define RPW_WORK_REST 8

/**
 * `rpw_work_next`: see to it that this is called again when the process is to end.
 */
#define RPW_WORK_WATCH 9

/**
 * `rpw_work_next`: a plugin was replaced by another worker, see `rpw_plan_next`.
 */
#define RPW_WORK_FOLLOW 10

/**
 * `rpw_work_next`: a connection to a Redis server has something to do, or is to be made: `id`, `host`, `port`, `tls`,
 * `server_name`.
 */
#define RPW_WORK_REDIS 11

/**
 * Connections for gRPC.
 */
#define RPW_CONNECTION_GRPC 1

/**
 * Connections to Redis servers.
 */
#define RPW_CONNECTION_REDIS 2

/**
 * `rpw_call_advance`: receive more.
 */
#define RPW_CALL_RECEIVE 1

/**
 * `rpw_call_advance`: the response is whole, or will never be.
 */
#define RPW_CALL_DONE 2

/**
 * `rpw_call_advance`: nothing waits for this call any more.
 */
#define RPW_CALL_GONE 3

/**
 * `rpw_shared_get`, `rpw_shared_delete`: there is no such entry.
 */
#define RPW_MISSING 1

/**
 * `rpw_shared_set`: the entry has another version.
 */
#define RPW_MISMATCH 2

/**
 * A plugin context. When its plugin is replaced, another takes its place for the requests that come.
 */
typedef struct rpw_context_t rpw_context_t;

/**
 * A wait for a module.
 */
typedef struct rpw_loading_t rpw_loading_t;

/**
 * A loaded plugin. When it is replaced, another takes its place.
 */
typedef struct rpw_plugin_t rpw_plugin_t;

/**
 * Where an error's text goes. The caller owns the buffer; text that does not fit is cut.
 */
typedef struct rpw_error_t {
    /**
     * The buffer.
     */
    char *data;
    /**
     * Its size in bytes.
     */
    size_t capacity;
    /**
     * Out: bytes written.
     */
    size_t length;
} rpw_error_t;

/**
 * What a call's connection must send.
 */
typedef struct rpw_io_t {
    /**
     * The bytes.
     */
    const char *data;
    /**
     * How many.
     */
    size_t length;
    /**
     * 1 when the connection may serve another call.
     */
    int32_t reusable;
    /**
     * Milliseconds to sleep before more is received; 0 as a rule.
     */
    uint32_t rest_ms;
} rpw_io_t;

/**
 * What a function of Lua answers. Lent until the next call.
 */
typedef struct rpw_result_t {
    /**
     * The result.
     */
    const char *data;
    /**
     * Its bytes.
     */
    size_t length;
} rpw_result_t;

/**
 * Calls a function of Lua: its name, its arguments, both lent, and where to put its result. 0, or not 0 when it failed.
 *
 * It never raises an error and never yields.
 */
typedef int32_t (*rpw_caller_t)(const char*, size_t, const char*, size_t, struct rpw_result_t*);

/**
 * A name and a value, laid out like ngx_lua's `ngx_http_lua_ffi_table_elt_t`.
 */
typedef struct rpw_pair_t {
    /**
     * Bytes of the name.
     */
    int32_t name_length;
    /**
     * The name.
     */
    const char *name;
    /**
     * Bytes of the value.
     */
    int32_t value_length;
    /**
     * The value.
     */
    const char *value;
} rpw_pair_t;

/**
 * A bucket of a histogram.
 */
typedef struct rpw_bucket_t {
    /**
     * Values up to this one.
     */
    double le;
    /**
     * How many there were.
     */
    uint64_t count;
} rpw_bucket_t;

/**
 * A metric.
 */
typedef struct rpw_metric_t {
    /**
     * As its filter named it.
     */
    const char *name;
    /**
     * Its bytes.
     */
    size_t name_length;
    /**
     * "counter", "gauge" or "histogram".
     */
    const char *kind;
    /**
     * Its bytes.
     */
    size_t kind_length;
    /**
     * Its labels.
     */
    const struct rpw_pair_t *labels;
    /**
     * How many.
     */
    size_t labels_length;
    /**
     * What it shows; the sum of a histogram's values.
     */
    double value;
    /**
     * The buckets of a histogram; the end of the last one is infinite, and its count that of all values.
     */
    const struct rpw_bucket_t *buckets;
    /**
     * How many.
     */
    size_t buckets_length;
} rpw_metric_t;

/**
 * A plugin as one process has it. Times are seconds of Unix time, 0 for never.
 */
typedef struct rpw_presence_t {
    /**
     * The plugin's name.
     */
    const char *name;
    size_t name_length;
    /**
     * The last thing that went wrong.
     */
    const char *error;
    size_t error_length;
    /**
     * The process.
     */
    uint32_t pid;
    /**
     * The number of the plan that brought its module; 0 for the module that was loaded.
     */
    uint32_t version;
    /**
     * 1 when something went wrong since its VM started.
     */
    int32_t failing;
    /**
     * SHA-256 of the module.
     */
    uint8_t digest[32];
    /**
     * When its VM started.
     */
    double since;
    /**
     * Plugin contexts that are alive.
     */
    double contexts;
    /**
     * Streams that are alive.
     */
    double streams;
    /**
     * Bytes of memory that its VMs have.
     */
    double memory;
    /**
     * Bytes that one of them may have.
     */
    double memory_limit;
    /**
     * VMs that were lost.
     */
    double traps;
    /**
     * Loads in the background that are under way.
     */
    double loading;
    /**
     * Since when.
     */
    double loading_since;
    /**
     * What the last of them is at: 0 for queued, 1 reading, 2 waiting, 3 compiling, 4 finishing.
     */
    uint32_t loading_stage;
    /**
     * How many functions are compiled.
     */
    uint32_t loading_compiled;
    /**
     * Of how many; 0 before that is known.
     */
    uint32_t loading_functions;
    /**
     * When the last thing went wrong.
     */
    double error_at;
} rpw_presence_t;

/**
 * What `rpw_plugin_load` is told besides the module. Every string is copied.
 */
typedef struct rpw_options_t {
    /**
     * The VM configuration.
     */
    const char *vm_config;
    /**
     * Its bytes.
     */
    size_t vm_config_length;
    /**
     * The root that SDKs look up.
     */
    const char *root_id;
    /**
     * Its bytes.
     */
    size_t root_id_length;
    /**
     * Who shares data with whom.
     */
    const char *vm_id;
    /**
     * Its bytes.
     */
    size_t vm_id_length;
    /**
     * Environment variables of the guest.
     */
    const struct rpw_pair_t *env;
    /**
     * How many.
     */
    size_t env_length;
    /**
     * Bytes of linear memory.
     */
    uint64_t memory_limit;
    /**
     * Milliseconds that one callback may run.
     */
    uint32_t time_limit;
    /**
     * Milliseconds that the start code, `proxy_on_vm_start` and `proxy_on_configure` may run.
     */
    uint32_t start_time_limit;
    /**
     * Milliseconds that a paused request waits.
     */
    uint32_t pause_timeout;
    /**
     * Bytes of one body that may be held.
     */
    uint64_t body_limit;
    /**
     * 1 when a request continues without this filter where it fails, 0 when it must not.
     */
    int32_t fail_open;
    /**
     * 1 when the filter rewrites bodies.
     */
    int32_t body;
    /**
     * What the filter may call, as `rpw_call_rules` takes it.
     */
    const struct rpw_pair_t *calls;
    /**
     * How many; 0 leaves it to `rpw_call_rules`.
     */
    size_t calls_length;
    /**
     * 1 when requests wait for the calls that this filter dispatches, 0 when not, -1 when events say.
     */
    int32_t calls_hold;
} rpw_options_t;

/**
 * What a plugin is to be replaced with.
 */
typedef struct rpw_plan_t {
    /**
     * The plugin.
     */
    struct rpw_plugin_t *plugin;
    /**
     * Its name.
     */
    const char *name;
    size_t name_length;
    /**
     * The file of the module.
     */
    const char *path;
    size_t path_length;
    /**
     * Options, in Lua's words.
     */
    const char *options;
    size_t options_length;
    /**
     * The module's SHA-256.
     */
    uint8_t digest[32];
    /**
     * Counts plans.
     */
    uint32_t number;
} rpw_plan_t;

/**
 * Words that may hold the flag, at one time.
 */
typedef struct rpw_flags_t {
    /**
     * All zero when they were not found.
     */
    uint64_t words[26];
} rpw_flags_t;

/**
 * Functions of nginx and ngx_lua, each named as there. All are required.
 *
 * Sources: nginx `src/http/ngx_http_{request,variables}.c`; ngx_lua `src/ngx_http_lua_{variable,log,headers,phase,
 * misc,semaphore,
 * worker}.c`.
 */
typedef struct rpw_nginx_t {
    /**
     * `ngx_http_cleanup_add`
     */
    void *(*cleanup_add)(void*, size_t);
    /**
     * `ngx_http_lua_ffi_raw_log`
     */
    int (*raw_log)(void*, int, const uint8_t*, size_t);
    /**
     * `ngx_http_lua_ffi_errlog_get_sys_filter_level`
     */
    int (*log_level)(void*);
    /**
     * `ngx_http_lua_ffi_var_get`
     */
    int (*var_get)(void*,
                   const uint8_t*,
                   size_t,
                   uint8_t*,
                   int,
                   const uint8_t**,
                   size_t*,
                   const char**);
    /**
     * `ngx_http_lua_ffi_var_set`
     */
    int (*var_set)(void*,
                   const uint8_t*,
                   size_t,
                   uint8_t*,
                   const uint8_t*,
                   size_t,
                   uint8_t*,
                   size_t*);
    /**
     * `ngx_http_lua_ffi_req_get_headers_count`
     */
    int (*headers_count)(void*, int, int*);
    /**
     * `ngx_http_lua_ffi_req_get_headers`
     */
    int (*headers)(void*, struct rpw_pair_t*, int, int);
    /**
     * `ngx_http_lua_ffi_get_phase`
     */
    int (*phase)(void*, const char**);
    /**
     * `ngx_http_lua_ffi_headers_sent`
     */
    int (*headers_sent)(void*);
    /**
     * `ngx_http_lua_ffi_get_resp_status`
     */
    int (*response_status)(void*);
    /**
     * `ngx_http_lua_ffi_sema_post`
     */
    int (*semaphore_post)(void*, int);
    /**
     * `ngx_http_lua_ffi_get_resp_header`
     */
    int (*response_header)(void*, const uint8_t*, size_t, uint8_t*, void*, int, const char**);
    /**
     * `ngx_http_lua_ffi_set_resp_header`
     */
    int (*set_response_header)(void*,
                               const uint8_t*,
                               size_t,
                               int,
                               const uint8_t*,
                               size_t,
                               void*,
                               size_t,
                               int,
                               const char**);
    /**
     * `ngx_http_get_variable`
     */
    void *(*get_variable)(void*, const void*, size_t);
    /**
     * `ngx_list_push`
     */
    void *(*list_push)(void*);
    /**
     * `ngx_palloc`
     */
    void *(*palloc)(void*, size_t);
    /**
     * `ngx_http_lua_ffi_worker_exiting`
     */
    int (*worker_exiting)(void);
    /**
     * `ngx_http_core_module`
     */
    const void *core_module;
} rpw_nginx_t;

/**
 * A value of shared data.
 */
typedef struct rpw_value_t {
    /**
     * Its bytes.
     */
    const char *data;
    /**
     * How many.
     */
    size_t length;
    /**
     * Its version, never 0.
     */
    uint32_t cas;
} rpw_value_t;

/**
 * An event of a request.
 */
typedef struct rpw_event_t {
    /**
     * One of `RPW_REQUEST_HEADERS` to `RPW_RESPONSE_BODY`.
     */
    int32_t callback;
    /**
     * 1 with the last chunk of a body.
     */
    int32_t end_of_stream;
    /**
     * 1 when LuaJIT cannot have compiled the call.
     */
    int32_t interpreted;
    /**
     * 1 when the caller takes each piece of a request body as its outcome says. With 0 the last piece's outcome has the
     * whole body, when anything of it was changed.
     */
    int32_t piecewise;
    /**
     * 1 when a request waits for the calls that its callbacks dispatch, unless the options of its filter say otherwise.
     */
    int32_t calls_hold;
    /**
     * 1 when nothing of the response was sent, and the caller waits with it as long as the guest does.
     */
    int32_t waits;
    /**
     * The chunk of a body event. Lent for the call.
     */
    const char *body;
    /**
     * Its bytes.
     */
    size_t body_length;
    /**
     * The response's headers, or NULL while they were not asked for. Lent for the call.
     */
    const struct rpw_pair_t *headers;
    /**
     * How many.
     */
    size_t headers_length;
} rpw_event_t;

/**
 * Something that nginx must do, one of `RPW_SET_REQUEST_HEADER` to `RPW_LOCAL_RESPONSE_HEADER`.
 */
typedef struct rpw_effect_t {
    /**
     * What.
     */
    int32_t kind;
    /**
     * A number, where the kind has one.
     */
    int32_t number;
    /**
     * A name, where the kind has one.
     */
    const char *name;
    /**
     * Its bytes.
     */
    size_t name_length;
    /**
     * A value, where the kind has one.
     */
    const char *value;
    /**
     * Its bytes.
     */
    size_t value_length;
} rpw_effect_t;

/**
 * What came of an event.
 */
typedef struct rpw_outcome_t {
    /**
     * The effects, to be done in order.
     */
    const struct rpw_effect_t *effects;
    /**
     * How many.
     */
    size_t effects_length;
    /**
     * One of `RPW_BODY_UNCHANGED`, `RPW_BODY_REPLACE`, `RPW_BODY_HOLD`, `RPW_BODY_PASS`. With `RPW_ERROR` of a response body
     * what is passed on when the response does: `RPW_BODY_UNCHANGED`, `RPW_BODY_REPLACE`, `RPW_BODY_LOST`.
     */
    int32_t body_action;
    /**
     * With `RPW_PAUSE`: 1 when the guest waits for a call of its own.
     */
    int32_t awaits_call;
    /**
     * With `RPW_PAUSE` on the request's headers: 1 when a body was announced, or may come.
     */
    int32_t expects_body;
    /**
     * Of the response's headers: 1 when the body may come to have another size.
     */
    int32_t rewrites_body;
    /**
     * Of the response's body: 1 when it ends with what is passed on of this chunk.
     */
    int32_t ends;
    /**
     * Of the response's body: 1 when some of it is held, whatever is passed on of this chunk.
     */
    int32_t still_holds;
    /**
     * The new body, for `RPW_BODY_REPLACE` and `RPW_BODY_PASS`.
     */
    const char *body;
    /**
     * Its bytes.
     */
    size_t body_length;
} rpw_outcome_t;

/**
 * What a build of the library is made of. All texts live as long as the process.
 */
typedef struct rpw_version_t {
    /**
     * The release, `0.2.0` say.
     */
    struct rpw_result_t version;
    /**
     * The commit that a release was built from, else `unknown`.
     */
    struct rpw_result_t commit;
    /**
     * The version of wasmtime in it.
     */
    struct rpw_result_t wasmtime;
    /**
     * What it was built for, `aarch64-unknown-linux-gnu` say.
     */
    struct rpw_result_t target;
} rpw_version_t;

/**
 * What to do for filters; which fields count, the answer of `rpw_work_next` says.
 */
typedef struct rpw_work_t {
    /**
     * The call.
     */
    uint32_t id;
    /**
     * Milliseconds that the whole call may take.
     */
    uint32_t timeout_ms;
    /**
     * Milliseconds to wait before asking again.
     */
    uint32_t wait_ms;
    /**
     * 1 when the process ends and nothing is left to do in it.
     */
    int32_t over;
    /**
     * The port, 0 for a unix socket.
     */
    int32_t port;
    /**
     * 1 when TLS is spoken; 2 when the library speaks it, see `rpw_call_connected`. For gRPC it always does.
     */
    int32_t tls;
    /**
     * 1 when the host is a name whose address `rpw_call_permits` must judge before a connection is made.
     */
    int32_t judged;
    /**
     * What to connect to, as nginx's cosockets take it.
     */
    const char *host;
    /**
     * Its bytes.
     */
    size_t host_length;
    /**
     * The pool of connections that may serve this call.
     */
    const char *pool;
    /**
     * Its bytes.
     */
    size_t pool_length;
    /**
     * The name that the certificate must have.
     */
    const char *server_name;
    /**
     * Its bytes.
     */
    size_t server_name_length;
    /**
     * The function to be run. Copy it: the next call of the library may let go of it, and of its arguments.
     */
    const char *function;
    /**
     * Its bytes.
     */
    size_t function_length;
    /**
     * Its arguments.
     */
    const char *arguments;
    /**
     * Their bytes.
     */
    size_t arguments_length;
} rpw_work_t;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Returns `RPW_ABI` as the library was built with.
 */
int32_t rpw_abi(void);

/**
 * A function that was handed out is called now.
 *
 * # Returns
 * `RPW_CONTINUE`.
 */
int32_t rpw_foreign_begin(uint32_t id);

/**
 * Ends a function that was run: hands its guest the result.
 *
 * # Arguments
 * `ok`: 1, or 0 when it failed. `yielded`: 1 when nginx did something else meanwhile, so that its time does not count.
 * `result` is copied.
 * # Returns
 * `RPW_CONTINUE`; `RPW_ERROR` when the guest failed.
 * # Safety
 * `result` has the given length.
 */
int32_t rpw_foreign_end(uint32_t id,
                        int32_t ok,
                        int32_t yielded,
                        const char *result,
                        size_t result_length,
                        struct rpw_error_t *error);

/**
 * Keeps compiled modules in a folder from now on, until `rpw_setup` is called for another Lua VM.
 *
 * The folder is made (mode 0755) when it is not there; its parent must be. A process reads entries that its own user
 * or root wrote, and writes into a folder of its own user.
 *
 * # Arguments
 * `path` is absolute, holds no NUL and is copied.
 * # Returns
 * `RPW_CONTINUE`.
 * # Errors
 * `RPW_ERROR` when the folder cannot be made or opened, is a symbolic link or no folder, belongs to another user than
 * the effective one and root, or can be written to by group or others. Then no folder is used.
 * # Safety
 * `path` has the given length.
 */
int32_t rpw_cache_dir(const char *path,
                      size_t path_length,
                      struct rpw_error_t *error);

/**
 * Compiles in the background on that many threads from now on, until `rpw_setup` is called for another Lua VM.
 *
 * # Arguments
 * `threads`: 0 for the default, half as many as there are cores.
 * # Returns
 * `RPW_CONTINUE`.
 */
int32_t rpw_compile_threads(uint32_t threads);

/**
 * Ends compiles during which the memory of the process grows by more bytes, from now on, until `rpw_setup` is called for
 * another Lua VM.
 *
 * # Arguments
 * `bytes`: 0 for no cap.
 * # Returns
 * `RPW_CONTINUE`.
 */
int32_t rpw_compile_memory(uint64_t bytes);

/**
 * Takes what a call's connection received, and gives what must be sent.
 *
 * # Arguments
 * `eof`: 1 when nothing more will be received. At first nothing is received.
 * # Returns
 * `RPW_CALL_RECEIVE`, `RPW_CALL_DONE` (then `rpw_call_end`), both with what must be sent first in `*io`, good until the
 * next call of this function for that id; `RPW_CALL_GONE` when nothing waits for the call any more; `RPW_ERROR`.
 * # Safety
 * `data` has the given length; the others are valid.
 */
int32_t rpw_call_advance(uint32_t id,
                         const char *data,
                         size_t data_length,
                         int32_t eof,
                         struct rpw_io_t *io,
                         struct rpw_error_t *error);

/**
 * Judges the address of the upstream of a call, or of a connection for gRPC, see `rpw_work_t`. One that is gone is refused.
 *
 * # Arguments
 * `grpc`: 1 for a connection.
 * # Returns
 * 1 when the call may be made to it, 0 when not; `RPW_ERROR` when it is no address.
 * # Safety
 * `address` has the given length.
 */
int32_t rpw_call_permits(uint32_t id,
                         int32_t grpc,
                         const char *address,
                         size_t address_length,
                         struct rpw_error_t *error);

/**
 * Begins a call again on another connection: the one that it was sent on had been closed meanwhile.
 *
 * # Returns
 * `RPW_CONTINUE`.
 */
int32_t rpw_call_restart(uint32_t id);

/**
 * A call over which the library speaks TLS has its connection.
 *
 * # Arguments
 * `kept`: 1 for a connection that was kept, in the pool that `rpw_work_next` named.
 * # Returns
 * `RPW_CONTINUE`.
 * # Errors
 * `RPW_ERROR` when TLS cannot begin: no certificate can have that name.
 * # Safety
 * `error` is NULL or valid.
 */
int32_t rpw_call_connected(uint32_t id, int32_t kept, struct rpw_error_t *error);

/**
 * The connection of such a call was kept for others; to be called before `rpw_call_end`.
 *
 * # Returns
 * `RPW_CONTINUE`.
 */
int32_t rpw_call_kept(uint32_t id);

/**
 * Ends a call: tells its guest what came of it.
 *
 * # Arguments
 * `word`: empty, or what failed outside of HTTP: "resolver", "connect", "tls", "timeout", "closed". `details`: more about
 * it, for the error log.
 * # Returns
 * `RPW_CONTINUE`; `RPW_ERROR` when the guest failed.
 * # Safety
 * The strings have the given lengths.
 */
int32_t rpw_call_end(uint32_t id,
                     const char *word,
                     size_t word_length,
                     const char *details,
                     size_t details_length,
                     struct rpw_error_t *error);

/**
 * Says that a connection is there.
 *
 * # Arguments
 * `protocol`: `RPW_CONNECTION_GRPC` or `RPW_CONNECTION_REDIS`.
 * # Returns
 * `RPW_CONTINUE`; then `rpw_connection_next`.
 * # Errors
 * `RPW_ERROR` when guests cannot be told what came of it.
 * # Safety
 * `error` is NULL or valid.
 */
int32_t rpw_connection_connected(int32_t protocol, uint32_t id, struct rpw_error_t *error);

/**
 * Takes what a connection received, and tells guests of it.
 *
 * # Arguments
 * `protocol`: as for `rpw_connection_connected`. `eof`: 1 when nothing more will be received.
 * # Returns
 * `RPW_CONTINUE`, with the milliseconds to sleep before more is received in `io->rest_ms`; `RPW_WORK_STOP` when the
 * connection is to be closed.
 * # Errors
 * `RPW_ERROR` when guests cannot be told.
 * # Safety
 * `data` has the given length; `io` and `error` are valid.
 */
int32_t rpw_connection_receive(int32_t protocol,
                               uint32_t id,
                               const char *data,
                               size_t data_length,
                               int32_t eof,
                               struct rpw_io_t *io,
                               struct rpw_error_t *error);

/**
 * Says what a connection must send, and when to ask again.
 *
 * # Arguments
 * `protocol`: as for `rpw_connection_connected`. `ready`: 1 when all that was to be sent before is, so that there may be more.
 * # Returns
 * `RPW_WORK_WAIT`: send what is in `*io`, good until the next call of this function, after the rest that it says, then wait for
 * `*wait_ms` or until `rpw_work_next` names the connection. `RPW_WORK_STOP`: send that and close the connection.
 * # Errors
 * `RPW_ERROR` when guests cannot be told of calls whose time is over.
 * # Safety
 * `io`, `wait_ms` and `error` are valid.
 */
int32_t rpw_connection_next(int32_t protocol,
                            uint32_t id,
                            int32_t ready,
                            struct rpw_io_t *io,
                            uint32_t *wait_ms,
                            struct rpw_error_t *error);

/**
 * Says that a connection was not made, or broke.
 *
 * # Arguments
 * `protocol`: as for `rpw_connection_connected`. `word`: "resolver", "connect", "tls", "timeout" or "closed". `details`: more
 * about it.
 * # Returns
 * `RPW_CONTINUE`.
 * # Errors
 * `RPW_ERROR` when guests cannot be told.
 * # Safety
 * The strings have the given lengths; `error` is NULL or valid.
 */
int32_t rpw_connection_failed(int32_t protocol,
                              uint32_t id,
                              const char *word,
                              size_t word_length,
                              const char *details,
                              size_t details_length,
                              struct rpw_error_t *error);

/**
 * Says that the worker is to end: its connections close as soon as they have no calls.
 *
 * # Arguments
 * `protocol`: as for `rpw_connection_connected`.
 * # Returns
 * `RPW_CONTINUE`; then `rpw_work_next` says which to look at.
 * # Safety
 * `error` is NULL or valid.
 */
int32_t rpw_connection_end_soon(int32_t protocol, struct rpw_error_t *error);

/**
 * Makes a plugin context: proxy_on_context_create, proxy_on_vm_start, proxy_on_configure.
 *
 * # Arguments
 * `interpreted`: 1 when LuaJIT cannot have compiled the call.
 * # Returns
 * `RPW_CONTINUE` and the handle in `*context`, to be freed by `rpw_context_free`; `RPW_NEED_INTERPRETER` before anything
 * ran; else `RPW_ERROR`.
 * # Safety
 * `plugin` is a live handle, `configuration` has the given length (it is copied), `context` is valid.
 */
int32_t rpw_context_new(const struct rpw_plugin_t *plugin,
                        const char *configuration,
                        size_t configuration_length,
                        int32_t interpreted,
                        struct rpw_context_t **context,
                        struct rpw_error_t *error);

/**
 * What the users of a plugin context must know of its filter.
 *
 * # Returns
 * A sum of `RPW_TAKES_REQUEST_BODY`, `RPW_FAILS_OPEN`, `RPW_TAKES_RESPONSE_BODY` and `RPW_REWRITES_BODIES`;
 * `RPW_ERROR` for NULL.
 * # Safety
 * `context` is NULL or a live handle.
 */
int32_t rpw_context_traits(const struct rpw_context_t *context);

/**
 * Gives a plugin context back. It ends at the next call into the library, once its last stream has ended.
 *
 * # Safety
 * `context` is NULL or a handle of `rpw_context_new` that was not freed.
 */
void rpw_context_free(struct rpw_context_t *context);

/**
 * Names a function that guests may call, until `rpw_setup` is called for another Lua VM.
 *
 * # Arguments
 * `name` is copied. `later`: 0 when it is run inside the guest's call, by the caller of `rpw_foreign_caller`; 1 when it is
 * run afterwards, by `RPW_WORK_RUN`.
 * # Returns
 * `RPW_CONTINUE`.
 * # Errors
 * `RPW_ERROR` when there is a function of that name.
 * # Safety
 * `name` has the given length.
 */
int32_t rpw_foreign_function(const char *name,
                             size_t name_length,
                             int32_t later,
                             struct rpw_error_t *error);

/**
 * Says what calls the functions that run inside a guest's call.
 *
 * # Returns
 * `RPW_CONTINUE`.
 * # Safety
 * `caller` is NULL, or lives until this is called again, or `rpw_setup`.
 */
int32_t rpw_foreign_caller(rpw_caller_t caller);

/**
 * Takes every line of a response header away.
 *
 * # Returns
 * How many there were; `RPW_LINE_UNKNOWN`.
 * # Safety
 * `request` is the running `ngx_http_request_t`, `name` has its length.
 */
int32_t rpw_response_line_remove(void *request, const char *name, size_t name_length);

/**
 * Takes every line of the response away.
 *
 * # Returns
 * How many there were; `RPW_LINE_UNKNOWN`.
 * # Safety
 * `request` is the running `ngx_http_request_t`.
 */
int32_t rpw_response_line_clear(void *request);

/**
 * Gives the lines of a response header an empty value.
 *
 * # Returns
 * How many there are; `RPW_LINE_UNKNOWN`.
 * # Safety
 * As `rpw_response_line_remove`.
 */
int32_t rpw_response_line_blank(void *request, const char *name, size_t name_length);

/**
 * Adds a line to headers.
 *
 * # Arguments
 * `of`: `RPW_HEADERS_OF_REQUEST` or `RPW_HEADERS_OF_RESPONSE`. `always`: 0 to add nothing where nginx has a field for that
 * header and no line is there yet.
 * # Returns
 * 0; `RPW_LINE_FIELD` when nothing was added; `RPW_LINE_UNKNOWN`.
 * # Safety
 * As `rpw_response_line_remove`; `line` is valid.
 */
int32_t rpw_header_line_add(void *request,
                            int32_t of,
                            const struct rpw_pair_t *line,
                            int32_t always);

/**
 * Counts the lines of a request header.
 *
 * # Returns
 * Their number; `RPW_LINE_UNKNOWN`.
 * # Safety
 * As `rpw_response_line_remove`.
 */
int32_t rpw_request_line_count(void *request, const char *name, size_t name_length);

/**
 * Has nginx send the content type as it was set last, without the charset of the one before.
 *
 * # Returns
 * 0; `RPW_LINE_UNKNOWN`.
 * # Safety
 * `request` is the running `ngx_http_request_t`.
 */
int32_t rpw_response_charset_forget(void *request);

/**
 * Begins to listen: says what a datagram cosocket must connect to, and what it must send first.
 *
 * # Arguments
 * `hello`: room for 8 bytes, which are to be sent as one datagram; then comes `rpw_listen_end`.
 * # Returns
 * The number of a descriptor: the cosocket connects to `unix:/proc/self/fd/NUMBER`. `RPW_ERROR` when there is none.
 * # Safety
 * `hello` has room for 8 bytes, `error` is NULL or valid.
 */
int32_t rpw_listen_begin(char *hello,
                         struct rpw_error_t *error);

/**
 * The hello was sent: from now on the cosocket receives a datagram whenever `rpw_listen_received` is to be called.
 *
 * # Returns
 * `RPW_CONTINUE`; `RPW_ERROR` when it cannot be reached.
 * # Safety
 * `error` is NULL or valid.
 */
int32_t rpw_listen_end(struct rpw_error_t *error);

/**
 * A datagram was received: messages may have come, so there is work.
 *
 * # Returns
 * `RPW_CONTINUE`.
 */
int32_t rpw_listen_received(void);

/**
 * Has the cosocket receive a datagram, so that its light thread wakes.
 *
 * # Returns
 * 1 when that failed, and must be tried again; else 0.
 */
int32_t rpw_listen_wake(void);

/**
 * There is no cosocket, or none any more: from now on the queues are polled.
 *
 * # Arguments
 * `reason`: for the error log.
 * # Returns
 * `RPW_CONTINUE`.
 * # Safety
 * `reason` has the given length.
 */
int32_t rpw_listen_failed(const char *reason, size_t reason_length);

/**
 * Begins to load a module in the background.
 *
 * # Arguments
 * `name` is that of the plugin to be. `path` is copied.
 * # Returns
 * `RPW_CONTINUE` and the handle in `*loading`, to be freed by `rpw_loading_free`; `RPW_ERROR`.
 * # Safety
 * All pointers are valid for the call, strings have the given lengths.
 */
int32_t rpw_loading_begin(const char *name,
                          size_t name_length,
                          const char *path,
                          size_t path_length,
                          struct rpw_loading_t **loading,
                          struct rpw_error_t *error);

/**
 * Says whether a module is loaded.
 *
 * # Returns
 * `RPW_CONTINUE` when it is, `RPW_PAUSE` while it is not; `RPW_UNREADABLE` when the file cannot be read, and `RPW_ERROR`.
 * # Safety
 * `loading` is NULL or a live handle, `error` NULL or valid.
 */
int32_t rpw_loading_state(const struct rpw_loading_t *loading,
                          struct rpw_error_t *error);

/**
 * Gives up waiting. A module that nothing waits for is not begun; one that is begun is finished, and kept where a
 * `cache_dir` is set.
 *
 * # Safety
 * `loading` is NULL or a handle of `rpw_loading_begin` that was not freed.
 */
void rpw_loading_free(struct rpw_loading_t *loading);

/**
 * Lists all metrics: those of filters and those of the host.
 *
 * # Returns
 * `RPW_CONTINUE` with the metrics in `*list`, good until the next call of this function; `RPW_ERROR`.
 * # Safety
 * `list` and `count` are valid, `error` NULL or valid.
 */
int32_t rpw_metrics(const struct rpw_metric_t **list,
                    size_t *count,
                    struct rpw_error_t *error);

/**
 * Shows all metrics in Prometheus' text format.
 *
 * # Returns
 * `RPW_CONTINUE` with the text in `*text`, good until the next call of this function; `RPW_ERROR`.
 * # Safety
 * `text` and `length` are valid, `error` NULL or valid.
 */
int32_t rpw_prometheus(const char **text, size_t *length, struct rpw_error_t *error);

/**
 * Lists the plugins of all processes.
 *
 * # Returns
 * `RPW_CONTINUE` with one for each plugin and process in `*list`, by name, good until the next call of this function;
 * `RPW_ERROR`.
 * # Safety
 * `list` and `count` are valid, `error` NULL or valid.
 */
int32_t rpw_presences(const struct rpw_presence_t **list,
                      size_t *count,
                      struct rpw_error_t *error);

/**
 * SHA-256 of a text.
 *
 * # Returns
 * `RPW_CONTINUE` with 32 bytes in `*digest`.
 * # Safety
 * `text` has the given length, `digest` has room for 32 bytes.
 */
int32_t rpw_sha256(const char *text, size_t length, char *digest);

/**
 * Compiles a module, unless the cache has it compiled, and starts it once.
 *
 * # Arguments
 * `name` and `code` are copied; `options` is required.
 * # Returns
 * `RPW_CONTINUE` and the handle in `*plugin`, to be freed by `rpw_plugin_free`; else `RPW_ERROR`.
 * # Safety
 * All pointers are valid for the call, strings have the given lengths.
 */
int32_t rpw_plugin_load(const char *name,
                        size_t name_length,
                        const char *code,
                        size_t code_length,
                        const struct rpw_options_t *options,
                        struct rpw_plugin_t **plugin,
                        struct rpw_error_t *error);

/**
 * Starts a plugin of a module that was loaded in the background.
 *
 * # Arguments
 * `loading` is one whose state is `RPW_CONTINUE`; `name` is copied; `options` is required.
 * # Returns
 * As `rpw_plugin_load`.
 * # Safety
 * All pointers are valid for the call, strings have the given lengths.
 */
int32_t rpw_plugin_start(const struct rpw_loading_t *loading,
                         const char *name,
                         size_t name_length,
                         const struct rpw_options_t *options,
                         struct rpw_plugin_t **plugin,
                         struct rpw_error_t *error);

/**
 * Tells the name of a plugin, good as long as its handle lives.
 *
 * # Returns
 * `RPW_CONTINUE`; `RPW_ERROR` for NULL.
 * # Safety
 * `plugin` is NULL or a live handle, the others are valid.
 */
int32_t rpw_plugin_name(const struct rpw_plugin_t *plugin, const char **name, size_t *length);

/**
 * Gives a plugin back. Its plugin contexts keep what they need of it.
 *
 * # Safety
 * `plugin` is NULL or a handle of `rpw_plugin_load` that was not freed.
 */
void rpw_plugin_free(struct rpw_plugin_t *plugin);

/**
 * Tells where to look whether plugins were replaced: a number that changes with each replacement in this process.
 *
 * # Returns
 * An address that stays good for the life of the process.
 */
const int32_t *rpw_replacements(void);

/**
 * Replaces the module of a plugin in this process, and has the other workers follow.
 *
 * # Arguments
 * `loading` is one whose state is `RPW_CONTINUE`. `options`: NULL for those of before. `lua_vm`: what
 * `rpw_lua_vm` said when the Lua VM began. `path` and `words` are for the other workers: the file, and the options in
 * whatever words Lua reads them in.
 * # Returns
 * `RPW_CONTINUE`; `RPW_ERROR` when the module does not start or refuses a configuration, or when the other workers cannot be
 * told: then everything is as before.
 * # Safety
 * `plugin` and `loading` are live handles, strings have the given lengths.
 */
int32_t rpw_plugin_replace(const struct rpw_plugin_t *plugin,
                           const struct rpw_loading_t *loading,
                           const struct rpw_options_t *options,
                           uint64_t lua_vm,
                           const char *path,
                           size_t path_length,
                           const char *words,
                           size_t words_length,
                           struct rpw_error_t *error);

/**
 * The next plan that this process has not followed.
 *
 * # Arguments
 * `lua_vm`: what `rpw_lua_vm` said when the Lua VM began. Plans of another one are over: a reload has brought a new
 * configuration.
 * # Returns
 * `RPW_CONTINUE` with the plan in `*plan`, whose strings are good until the next call of this function, and whose plugin
 * is to be freed by `rpw_plugin_free`; `RPW_MISSING` when there is none; `RPW_ERROR`.
 * # Safety
 * `plan` is valid, `error` NULL or valid.
 */
int32_t rpw_plan_next(uint64_t lua_vm,
                      struct rpw_plan_t *plan,
                      struct rpw_error_t *error);

/**
 * Replaces the module of a plugin in this process, by a plan of another worker.
 *
 * # Arguments
 * `loading` is one whose state is `RPW_CONTINUE`. `options`: NULL for those of before. `number` and `digest`, 32 bytes, are
 * those of the plan.
 * # Returns
 * `RPW_CONTINUE`; `RPW_MISSING` when the plugin was replaced by a later plan while the module was loaded; `RPW_ERROR`
 * when the module is another one, does not start or refuses a configuration: then everything is as before.
 * # Safety
 * `plugin` and `loading` are live handles, the strings of `options` have the given lengths, `digest` has 32 bytes.
 */
int32_t rpw_plugin_follow(const struct rpw_plugin_t *plugin,
                          const struct rpw_loading_t *loading,
                          const struct rpw_options_t *options,
                          uint32_t number,
                          const uint8_t *digest,
                          struct rpw_error_t *error);

/**
 * Reads the words that may hold the flag. Called before and after `ngx.req.set_uri_args`, which clears it.
 *
 * # Returns
 * `RPW_CONTINUE` with the words in `*flags`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
 * # Safety
 * `request` is NULL or the running `ngx_http_request_t`; `flags` is valid.
 */
int32_t rpw_request_flags(void *request,
                          struct rpw_flags_t *flags,
                          struct rpw_error_t *error);

/**
 * Has nginx pass a target on as it is, after `ngx.req.set_uri_args` and `ngx.req.set_uri` have set what it means. A
 * request that had no target of a client's any more (nginx redirected it, or made it) has none afterwards either.
 *
 * # Returns
 * `RPW_CONTINUE`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
 * # Safety
 * As [`rpw_request_flags`]; `target` has that length.
 */
int32_t rpw_request_target(void *request,
                           const struct rpw_flags_t *before,
                           const struct rpw_flags_t *after,
                           const char *target,
                           size_t target_length,
                           struct rpw_error_t *error);

/**
 * Passes a method on under its name. Whether the response has a body stays as the client asked.
 *
 * # Returns
 * `RPW_CONTINUE`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
 * # Safety
 * `request` is NULL or the running `ngx_http_request_t`; `name` has that length.
 */
int32_t rpw_request_method(void *request,
                           const char *name,
                           size_t name_length,
                           struct rpw_error_t *error);

/**
 * Writes the address that the process's UDP socket with that remote port is connected to.
 *
 * # Returns
 * The bytes written to `text`: an IPv4 address, or an IPv6 address in brackets; `RPW_CONTINUE` (0) when there is no such
 * socket, or more than one; `RPW_ERROR`.
 * # Safety
 * `text` has room for `capacity` bytes.
 */
int32_t rpw_udp_peer(int32_t port,
                     char *text,
                     size_t capacity,
                     struct rpw_error_t *error);

/**
 * Says that a semaphore which the library may know is about to be freed.
 *
 * # Returns
 * Nothing.
 * # Safety
 * None: the pointer is only compared.
 */
void rpw_semaphore_gone(void *semaphore);

/**
 * Takes the functions of nginx over. To be called once for each Lua VM: a reload brings a new one, which begins
 * without a folder for compiled modules and without names of upstreams and of foreign functions.
 *
 * # Returns
 * `RPW_CONTINUE`, or `RPW_ERROR` when a function is missing.
 * # Safety
 * `functions` is valid for the call and its members are what their names say.
 */
int32_t rpw_setup(const struct rpw_nginx_t *functions,
                  struct rpw_error_t *error);

/**
 * Tells Lua VMs apart: those of one nginx since its start, by which plans of another configuration are known.
 *
 * # Returns
 * The number of the Lua VM that has called `rpw_setup` last.
 */
uint64_t rpw_lua_vm(void);

/**
 * Makes what workers share. To be called in the master before it forks; what is made later belongs to one worker.
 *
 * What another Lua VM of this process made, before a reload, stays, with a warning when its size is another one.
 *
 * # Arguments
 * `size`: bytes, or 0 for what is there or the default.
 * # Returns
 * `RPW_CONTINUE`.
 * # Errors
 * `RPW_ERROR` when the system has no such memory.
 * # Safety
 * `error` is NULL or valid. Nothing that is shared was used since this Lua VM began.
 */
int32_t rpw_shared_memory(uint64_t size,
                          struct rpw_error_t *error);

/**
 * Says whether the entry of shared data that was not used for the longest time gives way to a new one (1), or whether
 * that one is refused (0).
 *
 * # Returns
 * `RPW_CONTINUE`; `RPW_ERROR`.
 * # Safety
 * `error` is NULL or valid.
 */
int32_t rpw_shared_eviction(int32_t evicts,
                            struct rpw_error_t *error);

/**
 * Reads an entry of shared data.
 *
 * # Returns
 * `RPW_CONTINUE` with the value in `*value`, good until the next call of this function; `RPW_MISSING`; `RPW_ERROR`.
 * # Safety
 * The strings have the given lengths, `value` is valid, `error` NULL or valid.
 */
int32_t rpw_shared_get(const char *vm_id,
                       size_t vm_id_length,
                       const char *key,
                       size_t key_length,
                       struct rpw_value_t *value,
                       struct rpw_error_t *error);

/**
 * Sets an entry of shared data.
 *
 * # Arguments
 * `cas`: 0, or the version that an entry which is there must have. Out: its new version.
 * # Returns
 * `RPW_CONTINUE`; `RPW_MISMATCH` when the entry has another version; `RPW_ERROR`.
 * # Safety
 * The strings have the given lengths, `cas` is valid, `error` NULL or valid.
 */
int32_t rpw_shared_set(const char *vm_id,
                       size_t vm_id_length,
                       const char *key,
                       size_t key_length,
                       const char *value,
                       size_t value_length,
                       uint32_t *cas,
                       struct rpw_error_t *error);

/**
 * Takes an entry of shared data out.
 *
 * # Returns
 * `RPW_CONTINUE`; `RPW_MISSING` when it was not there; `RPW_ERROR`.
 * # Safety
 * The strings have the given lengths, `error` is NULL or valid.
 */
int32_t rpw_shared_delete(const char *vm_id,
                          size_t vm_id_length,
                          const char *key,
                          size_t key_length,
                          struct rpw_error_t *error);

/**
 * Lists the keys of shared data.
 *
 * # Arguments
 * `most`: how many at most, 0 for all of them.
 * # Returns
 * `RPW_CONTINUE` with the keys as names in `*list`, in no order, good until the next call of this function; `RPW_ERROR`.
 * # Safety
 * `vm_id` has the given length, `list` and `count` are valid, `error` NULL or valid.
 */
int32_t rpw_shared_keys(const char *vm_id,
                        size_t vm_id_length,
                        uint64_t most,
                        const struct rpw_pair_t **list,
                        size_t *count,
                        struct rpw_error_t *error);

/**
 * Tells a filter of an event of a request; the stream starts with its first event.
 *
 * # Returns
 * What nginx must do: `RPW_CONTINUE`, `RPW_PAUSE`, `RPW_RESPOND` or `RPW_CLOSE`, with the effects in
 * `*outcome`; `RPW_NEED_RESPONSE_HEADERS` or `RPW_NEED_INTERPRETER` before anything ran; `RPW_BAD_REQUEST`; `RPW_ERROR`.
 * # Safety
 * `context` is a live handle, `request` NULL or the running `ngx_http_request_t`, the others valid.
 */
int32_t rpw_stream_run(const struct rpw_context_t *context,
                       void *request,
                       const struct rpw_event_t *event,
                       struct rpw_outcome_t *outcome,
                       struct rpw_error_t *error);

/**
 * Says whom to wake when the pause of a stream ends.
 *
 * # Returns
 * `RPW_PAUSE` with the milliseconds to wait in `*timeout_ms`; `RPW_CONTINUE` when the pause has ended
 * already; `RPW_ERROR`.
 * # Safety
 * `semaphore` is an `ngx_http_lua_sema_t`, and `rpw_semaphore_gone` is called before it is freed; else as
 * `rpw_stream_run`.
 */
int32_t rpw_stream_wait(const struct rpw_context_t *context,
                        void *request,
                        void *semaphore,
                        uint32_t *timeout_ms,
                        struct rpw_error_t *error);

/**
 * Takes what came of a pause, after the semaphore was posted or its time was over.
 *
 * # Arguments
 * `semaphore`: that of `rpw_stream_wait`, which is posted no more.
 * # Returns
 * As `rpw_stream_run`; `RPW_PAUSE` when the pause has not ended.
 * # Safety
 * As `rpw_stream_run`.
 */
int32_t rpw_stream_resume(const struct rpw_context_t *context,
                          void *request,
                          void *semaphore,
                          struct rpw_outcome_t *outcome,
                          struct rpw_error_t *error);

/**
 * Takes a filter that failed out of a request: from now on its events answer `RPW_CONTINUE` and run nothing. Its
 * stream ends.
 *
 * # Arguments
 * `drops_body`: 1 when nothing of the response's body may go out, else 0. `reason`: why, for the error log.
 * # Returns
 * `RPW_CONTINUE`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
 * # Safety
 * `context` is a live handle, `request` NULL or the running `ngx_http_request_t`, `reason` has its length.
 */
int32_t rpw_stream_skip(const struct rpw_context_t *context,
                        void *request,
                        int32_t drops_body,
                        const char *reason,
                        size_t reason_length,
                        struct rpw_error_t *error);

/**
 * Takes a filter out of a request in which another one has answered: from now on its events answer `RPW_CONTINUE` and
 * run nothing. Its stream, when it has one, ends with the request.
 *
 * # Arguments
 * `started_too`: 0 when a filter that was told of the request is to be told of the response, too; then only one that has
 * no stream is taken out.
 * # Returns
 * `RPW_CONTINUE`; `RPW_BAD_REQUEST`; `RPW_ERROR`.
 * # Safety
 * `context` is a live handle, `request` NULL or the running `ngx_http_request_t`.
 */
int32_t rpw_stream_leave_out(const struct rpw_context_t *context,
                             void *request,
                             int32_t started_too,
                             struct rpw_error_t *error);

/**
 * Trusts these certificates from now on, until `rpw_setup` is called for another Lua VM.
 *
 * # Arguments
 * `pem`: certificates as text; what they are signed by is not looked at. `http`: 1 when they count for HTTP calls, too, over
 * which the library speaks TLS from then on; 0 for gRPC alone.
 * # Returns
 * `RPW_CONTINUE`.
 * # Errors
 * `RPW_ERROR` when there is none among them. Then those of before stay.
 * # Safety
 * `pem` has the given length; `error` is NULL or valid.
 */
int32_t rpw_trust(const char *pem,
                  size_t pem_length,
                  int32_t http,
                  struct rpw_error_t *error);

/**
 * Says how TLS is spoken with an upstream that `rpw_upstreams` gave a name to.
 *
 * # Arguments
 * `trusted`: certificates as text that its own must be signed by; empty for those of `rpw_trust`. `certificate` and `key`:
 * what is shown to it, as text; empty for nothing. `verify`: 0 to take any certificate.
 * # Returns
 * `RPW_CONTINUE`.
 * # Errors
 * `RPW_ERROR` when there is no such upstream, when its address has no TLS, and when the texts are not what they should be.
 * # Safety
 * The strings have the given lengths; `error` is NULL or valid.
 */
int32_t rpw_upstream_tls(const char *name,
                         size_t name_length,
                         const char *trusted,
                         size_t trusted_length,
                         const char *certificate,
                         size_t certificate_length,
                         const char *key,
                         size_t key_length,
                         int32_t verify,
                         struct rpw_error_t *error);

/**
 * Gives upstreams names that filters may call them by, in place of those of before, until `rpw_setup` is called for
 * another Lua VM.
 *
 * # Arguments
 * `asks_lua`: 1 when the function of Lua whose name is empty knows others, see `rpw_foreign_caller`. `list`: names, and as
 * values what `proxy_http_call` takes: `host`, `host:port`, an IP address or `unix:/path`, with `http://`, `https://`,
 * `grpc://` or `grpcs://` in front or not; for a Redis server `redis://` or `rediss://`. Every string is copied.
 * # Returns
 * `RPW_CONTINUE`.
 * # Errors
 * `RPW_ERROR` names the first that is no address. Then those of before stay.
 * # Safety
 * `list` has that many pairs.
 */
int32_t rpw_upstreams(const struct rpw_pair_t *list,
                      size_t length,
                      int32_t asks_lua,
                      struct rpw_error_t *error);

/**
 * Says what filters may call that are loaded from now on and have no rules of their own.
 *
 * # Arguments
 * `list`: entries, each with the name `allow` or `deny`, and commands of Redis, each with the name `redis_commands`. An empty
 * `allow`, or an empty command, is no entry, and says that nothing is allowed but what other entries say.
 * # Returns
 * `RPW_CONTINUE`.
 * # Errors
 * `RPW_ERROR` names the first that is no entry. Then those of before stay.
 * # Safety
 * `list` has that many pairs.
 */
int32_t rpw_call_rules(const struct rpw_pair_t *list,
                       size_t length,
                       struct rpw_error_t *error);

/**
 * Tells what the library was built from.
 *
 * # Safety
 * `version` points to a place for one `rpw_version_t`.
 */
void rpw_version(struct rpw_version_t *version);

/**
 * Tells where to look whether there is work: not 0 when `rpw_work_next` should be called.
 *
 * # Returns
 * An address that stays good for the life of the process.
 */
const int32_t *rpw_work_waits(void);

/**
 * Says whom to wake when work comes.
 *
 * # Returns
 * `RPW_CONTINUE`.
 * # Safety
 * `semaphore` is NULL, or an `ngx_http_lua_sema_t`, and `rpw_semaphore_gone` is called before it is freed.
 */
int32_t rpw_work_listen(void *semaphore);

/**
 * Says what is to be done next outside of requests.
 *
 * # Arguments
 * `turn`: 0 to take calls and functions only; 1 to run what is due of ticks, queues and answers, too; 2 for the same, after
 * `RPW_WORK_REST`, or after another wait, when a timer of nginx has ended it.
 * # Returns
 * `RPW_WORK_START` (make a call), `RPW_WORK_STOP` (give a call up), `RPW_WORK_RUN` (run a function), `RPW_WORK_LISTEN` (see
 * `rpw_listen_begin`), `RPW_WORK_FOLLOW`, `RPW_WORK_WATCH`, `RPW_WORK_REST`, `RPW_WORK_WAIT`, with the details in `*work`, whose
 * strings are good until the call of that id ends; `RPW_ERROR`.
 * # Safety
 * `work` and `error` are valid.
 */
int32_t rpw_work_next(int32_t turn,
                      struct rpw_work_t *work,
                      struct rpw_error_t *error);

/**
 * To be called when a worker starts: makes the VMs and plugin contexts of the master again in this process.
 *
 * # Returns
 * `RPW_CONTINUE`. What fails is in the error log.
 * # Safety
 * `error` is NULL or valid.
 */
int32_t rpw_init_worker(struct rpw_error_t *error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* RESTY_PROXY_WASM_H */
