-- Generated from src/ffi by ./build.sh generate: do not edit.
local ffi = require("ffi")

ffi.cdef([[
typedef struct rpw_context_t rpw_context_t;
typedef struct rpw_loading_t rpw_loading_t;
typedef struct rpw_plugin_t rpw_plugin_t;
typedef struct rpw_error_t {
    char *data;
    size_t capacity;
    size_t length;
} rpw_error_t;
typedef struct rpw_io_t {
    const char *data;
    size_t length;
    int32_t reusable;
    uint32_t rest_ms;
} rpw_io_t;
typedef struct rpw_result_t {
    const char *data;
    size_t length;
} rpw_result_t;
typedef int32_t (*rpw_caller_t)(const char*, size_t, const char*, size_t, struct rpw_result_t*);
typedef struct rpw_pair_t {
    int32_t name_length;
    const char *name;
    int32_t value_length;
    const char *value;
} rpw_pair_t;
typedef struct rpw_bucket_t {
    double le;
    uint64_t count;
} rpw_bucket_t;
typedef struct rpw_metric_t {
    const char *name;
    size_t name_length;
    const char *kind;
    size_t kind_length;
    const struct rpw_pair_t *labels;
    size_t labels_length;
    double value;
    const struct rpw_bucket_t *buckets;
    size_t buckets_length;
} rpw_metric_t;
typedef struct rpw_presence_t {
    const char *name;
    size_t name_length;
    const char *error;
    size_t error_length;
    uint32_t pid;
    uint32_t version;
    int32_t failing;
    uint8_t digest[32];
    double since;
    double contexts;
    double streams;
    double memory;
    double memory_limit;
    double traps;
    double loading;
    double loading_since;
    uint32_t loading_stage;
    uint32_t loading_compiled;
    uint32_t loading_functions;
    double error_at;
} rpw_presence_t;
typedef struct rpw_options_t {
    const char *vm_config;
    size_t vm_config_length;
    const char *root_id;
    size_t root_id_length;
    const char *vm_id;
    size_t vm_id_length;
    const struct rpw_pair_t *env;
    size_t env_length;
    uint64_t memory_limit;
    uint32_t time_limit;
    uint32_t start_time_limit;
    uint32_t pause_timeout;
    uint64_t body_limit;
    int32_t fail_open;
    int32_t body;
    const struct rpw_pair_t *calls;
    size_t calls_length;
    int32_t calls_hold;
} rpw_options_t;
typedef struct rpw_plan_t {
    struct rpw_plugin_t *plugin;
    const char *name;
    size_t name_length;
    const char *path;
    size_t path_length;
    const char *options;
    size_t options_length;
    uint8_t digest[32];
    uint32_t number;
} rpw_plan_t;
typedef struct rpw_flags_t {
    uint64_t words[26];
} rpw_flags_t;
typedef struct rpw_nginx_t {
    void *(*cleanup_add)(void*, size_t);
    int (*raw_log)(void*, int, const uint8_t*, size_t);
    int (*log_level)(void*);
    int (*var_get)(void*,
                   const uint8_t*,
                   size_t,
                   uint8_t*,
                   int,
                   const uint8_t**,
                   size_t*,
                   const char**);
    int (*var_set)(void*,
                   const uint8_t*,
                   size_t,
                   uint8_t*,
                   const uint8_t*,
                   size_t,
                   uint8_t*,
                   size_t*);
    int (*headers_count)(void*, int, int*);
    int (*headers)(void*, struct rpw_pair_t*, int, int);
    int (*phase)(void*, const char**);
    int (*headers_sent)(void*);
    int (*response_status)(void*);
    int (*semaphore_post)(void*, int);
    int (*response_header)(void*, const uint8_t*, size_t, uint8_t*, void*, int, const char**);
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
    void *(*get_variable)(void*, const void*, size_t);
    void *(*list_push)(void*);
    void *(*palloc)(void*, size_t);
    int (*worker_exiting)(void);
    const void *core_module;
} rpw_nginx_t;
typedef struct rpw_value_t {
    const char *data;
    size_t length;
    uint32_t cas;
} rpw_value_t;
typedef struct rpw_event_t {
    int32_t callback;
    int32_t end_of_stream;
    int32_t interpreted;
    int32_t piecewise;
    int32_t calls_hold;
    int32_t waits;
    const char *body;
    size_t body_length;
    const struct rpw_pair_t *headers;
    size_t headers_length;
} rpw_event_t;
typedef struct rpw_effect_t {
    int32_t kind;
    int32_t number;
    const char *name;
    size_t name_length;
    const char *value;
    size_t value_length;
} rpw_effect_t;
typedef struct rpw_outcome_t {
    const struct rpw_effect_t *effects;
    size_t effects_length;
    int32_t body_action;
    int32_t awaits_call;
    int32_t expects_body;
    int32_t rewrites_body;
    int32_t ends;
    int32_t still_holds;
    const char *body;
    size_t body_length;
} rpw_outcome_t;
typedef struct rpw_version_t {
    struct rpw_result_t version;
    struct rpw_result_t commit;
    struct rpw_result_t wasmtime;
    struct rpw_result_t target;
} rpw_version_t;
typedef struct rpw_work_t {
    uint32_t id;
    uint32_t timeout_ms;
    uint32_t wait_ms;
    int32_t over;
    int32_t port;
    int32_t tls;
    int32_t judged;
    const char *host;
    size_t host_length;
    const char *pool;
    size_t pool_length;
    const char *server_name;
    size_t server_name_length;
    const char *function;
    size_t function_length;
    const char *arguments;
    size_t arguments_length;
} rpw_work_t;
int32_t rpw_abi(void);
int32_t rpw_foreign_begin(uint32_t id);
int32_t rpw_foreign_end(uint32_t id,
                        int32_t ok,
                        int32_t yielded,
                        const char *result,
                        size_t result_length,
                        struct rpw_error_t *error);
int32_t rpw_cache_dir(const char *path,
                      size_t path_length,
                      struct rpw_error_t *error);
int32_t rpw_compile_threads(uint32_t threads);
int32_t rpw_compile_memory(uint64_t bytes);
int32_t rpw_call_advance(uint32_t id,
                         const char *data,
                         size_t data_length,
                         int32_t eof,
                         struct rpw_io_t *io,
                         struct rpw_error_t *error);
int32_t rpw_call_permits(uint32_t id,
                         int32_t grpc,
                         const char *address,
                         size_t address_length,
                         struct rpw_error_t *error);
int32_t rpw_call_restart(uint32_t id);
int32_t rpw_call_connected(uint32_t id, int32_t kept, struct rpw_error_t *error);
int32_t rpw_call_kept(uint32_t id);
int32_t rpw_call_end(uint32_t id,
                     const char *word,
                     size_t word_length,
                     const char *details,
                     size_t details_length,
                     struct rpw_error_t *error);
int32_t rpw_connection_connected(int32_t protocol, uint32_t id, struct rpw_error_t *error);
int32_t rpw_connection_receive(int32_t protocol,
                               uint32_t id,
                               const char *data,
                               size_t data_length,
                               int32_t eof,
                               struct rpw_io_t *io,
                               struct rpw_error_t *error);
int32_t rpw_connection_next(int32_t protocol,
                            uint32_t id,
                            int32_t ready,
                            struct rpw_io_t *io,
                            uint32_t *wait_ms,
                            struct rpw_error_t *error);
int32_t rpw_connection_failed(int32_t protocol,
                              uint32_t id,
                              const char *word,
                              size_t word_length,
                              const char *details,
                              size_t details_length,
                              struct rpw_error_t *error);
int32_t rpw_connection_end_soon(int32_t protocol, struct rpw_error_t *error);
int32_t rpw_context_new(const struct rpw_plugin_t *plugin,
                        const char *configuration,
                        size_t configuration_length,
                        int32_t interpreted,
                        struct rpw_context_t **context,
                        struct rpw_error_t *error);
int32_t rpw_context_traits(const struct rpw_context_t *context);
void rpw_context_free(struct rpw_context_t *context);
int32_t rpw_foreign_function(const char *name,
                             size_t name_length,
                             int32_t later,
                             struct rpw_error_t *error);
int32_t rpw_foreign_caller(rpw_caller_t caller);
int32_t rpw_response_line_remove(void *request, const char *name, size_t name_length);
int32_t rpw_response_line_clear(void *request);
int32_t rpw_response_line_blank(void *request, const char *name, size_t name_length);
int32_t rpw_header_line_add(void *request,
                            int32_t of,
                            const struct rpw_pair_t *line,
                            int32_t always);
int32_t rpw_request_line_count(void *request, const char *name, size_t name_length);
int32_t rpw_response_charset_forget(void *request);
int32_t rpw_listen_begin(char *hello,
                         struct rpw_error_t *error);
int32_t rpw_listen_end(struct rpw_error_t *error);
int32_t rpw_listen_received(void);
int32_t rpw_listen_wake(void);
int32_t rpw_listen_failed(const char *reason, size_t reason_length);
int32_t rpw_loading_begin(const char *name,
                          size_t name_length,
                          const char *path,
                          size_t path_length,
                          struct rpw_loading_t **loading,
                          struct rpw_error_t *error);
int32_t rpw_loading_state(const struct rpw_loading_t *loading,
                          struct rpw_error_t *error);
void rpw_loading_free(struct rpw_loading_t *loading);
int32_t rpw_metrics(const struct rpw_metric_t **list,
                    size_t *count,
                    struct rpw_error_t *error);
int32_t rpw_prometheus(const char **text, size_t *length, struct rpw_error_t *error);
int32_t rpw_presences(const struct rpw_presence_t **list,
                      size_t *count,
                      struct rpw_error_t *error);
int32_t rpw_sha256(const char *text, size_t length, char *digest);
int32_t rpw_plugin_load(const char *name,
                        size_t name_length,
                        const char *code,
                        size_t code_length,
                        const struct rpw_options_t *options,
                        struct rpw_plugin_t **plugin,
                        struct rpw_error_t *error);
int32_t rpw_plugin_start(const struct rpw_loading_t *loading,
                         const char *name,
                         size_t name_length,
                         const struct rpw_options_t *options,
                         struct rpw_plugin_t **plugin,
                         struct rpw_error_t *error);
int32_t rpw_plugin_name(const struct rpw_plugin_t *plugin, const char **name, size_t *length);
void rpw_plugin_free(struct rpw_plugin_t *plugin);
const int32_t *rpw_replacements(void);
int32_t rpw_plugin_replace(const struct rpw_plugin_t *plugin,
                           const struct rpw_loading_t *loading,
                           const struct rpw_options_t *options,
                           uint64_t lua_vm,
                           const char *path,
                           size_t path_length,
                           const char *words,
                           size_t words_length,
                           struct rpw_error_t *error);
int32_t rpw_plan_next(uint64_t lua_vm,
                      struct rpw_plan_t *plan,
                      struct rpw_error_t *error);
int32_t rpw_plugin_follow(const struct rpw_plugin_t *plugin,
                          const struct rpw_loading_t *loading,
                          const struct rpw_options_t *options,
                          uint32_t number,
                          const uint8_t *digest,
                          struct rpw_error_t *error);
int32_t rpw_request_flags(void *request,
                          struct rpw_flags_t *flags,
                          struct rpw_error_t *error);
int32_t rpw_request_target(void *request,
                           const struct rpw_flags_t *before,
                           const struct rpw_flags_t *after,
                           const char *target,
                           size_t target_length,
                           struct rpw_error_t *error);
int32_t rpw_request_method(void *request,
                           const char *name,
                           size_t name_length,
                           struct rpw_error_t *error);
int32_t rpw_udp_peer(int32_t port,
                     char *text,
                     size_t capacity,
                     struct rpw_error_t *error);
void rpw_semaphore_gone(void *semaphore);
int32_t rpw_setup(const struct rpw_nginx_t *functions,
                  struct rpw_error_t *error);
uint64_t rpw_lua_vm(void);
int32_t rpw_shared_memory(uint64_t size,
                          struct rpw_error_t *error);
int32_t rpw_shared_eviction(int32_t evicts,
                            struct rpw_error_t *error);
int32_t rpw_shared_get(const char *vm_id,
                       size_t vm_id_length,
                       const char *key,
                       size_t key_length,
                       struct rpw_value_t *value,
                       struct rpw_error_t *error);
int32_t rpw_shared_set(const char *vm_id,
                       size_t vm_id_length,
                       const char *key,
                       size_t key_length,
                       const char *value,
                       size_t value_length,
                       uint32_t *cas,
                       struct rpw_error_t *error);
int32_t rpw_shared_delete(const char *vm_id,
                          size_t vm_id_length,
                          const char *key,
                          size_t key_length,
                          struct rpw_error_t *error);
int32_t rpw_shared_keys(const char *vm_id,
                        size_t vm_id_length,
                        uint64_t most,
                        const struct rpw_pair_t **list,
                        size_t *count,
                        struct rpw_error_t *error);
int32_t rpw_stream_run(const struct rpw_context_t *context,
                       void *request,
                       const struct rpw_event_t *event,
                       struct rpw_outcome_t *outcome,
                       struct rpw_error_t *error);
int32_t rpw_stream_wait(const struct rpw_context_t *context,
                        void *request,
                        void *semaphore,
                        uint32_t *timeout_ms,
                        struct rpw_error_t *error);
int32_t rpw_stream_resume(const struct rpw_context_t *context,
                          void *request,
                          void *semaphore,
                          struct rpw_outcome_t *outcome,
                          struct rpw_error_t *error);
int32_t rpw_stream_skip(const struct rpw_context_t *context,
                        void *request,
                        int32_t drops_body,
                        const char *reason,
                        size_t reason_length,
                        struct rpw_error_t *error);
int32_t rpw_stream_leave_out(const struct rpw_context_t *context,
                             void *request,
                             int32_t started_too,
                             struct rpw_error_t *error);
int32_t rpw_trust(const char *pem,
                  size_t pem_length,
                  int32_t http,
                  struct rpw_error_t *error);
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
int32_t rpw_upstreams(const struct rpw_pair_t *list,
                      size_t length,
                      int32_t asks_lua,
                      struct rpw_error_t *error);
int32_t rpw_call_rules(const struct rpw_pair_t *list,
                       size_t length,
                       struct rpw_error_t *error);
void rpw_version(struct rpw_version_t *version);
const int32_t *rpw_work_waits(void);
int32_t rpw_work_listen(void *semaphore);
int32_t rpw_work_next(int32_t turn,
                      struct rpw_work_t *work,
                      struct rpw_error_t *error);
int32_t rpw_init_worker(struct rpw_error_t *error);
]])

return {
    RPW_VERSION = "0.2.0",
    RPW_ABI = 1860627172,
    RPW_CONTINUE = 0,
    RPW_PAUSE = 1,
    RPW_RESPOND = 2,
    RPW_CLOSE = 3,
    RPW_NEED_RESPONSE_HEADERS = 4,
    RPW_NEED_INTERPRETER = 5,
    RPW_ERROR = -1,
    RPW_BAD_REQUEST = -2,
    RPW_TOO_LARGE = -3,
    RPW_CUT = -4,
    RPW_UNREADABLE = -5,
    RPW_REQUEST_HEADERS = 1,
    RPW_REQUEST_BODY = 2,
    RPW_RESPONSE_HEADERS = 3,
    RPW_RESPONSE_BODY = 4,
    RPW_BODY_UNCHANGED = 0,
    RPW_BODY_REPLACE = 1,
    RPW_BODY_HOLD = 2,
    RPW_BODY_PASS = 3,
    RPW_BODY_LOST = 4,
    RPW_SET_REQUEST_HEADER = 1,
    RPW_ADD_REQUEST_HEADER = 2,
    RPW_REMOVE_REQUEST_HEADER = 3,
    RPW_SET_RESPONSE_HEADER = 4,
    RPW_ADD_RESPONSE_HEADER = 5,
    RPW_REMOVE_RESPONSE_HEADER = 6,
    RPW_SET_METHOD = 7,
    RPW_SET_PATH = 8,
    RPW_SET_STATUS = 9,
    RPW_LOCAL_RESPONSE = 10,
    RPW_LOCAL_RESPONSE_HEADER = 11,
    RPW_HEADERS_OF_REQUEST = 0,
    RPW_HEADERS_OF_RESPONSE = 1,
    RPW_LINE_FIELD = 1,
    RPW_LINE_UNKNOWN = -1,
    RPW_TAKES_REQUEST_BODY = 1,
    RPW_FAILS_OPEN = 2,
    RPW_TAKES_RESPONSE_BODY = 4,
    RPW_REWRITES_BODIES = 8,
    RPW_WORK_START = 1,
    RPW_WORK_STOP = 2,
    RPW_WORK_WAIT = 3,
    RPW_WORK_RUN = 4,
    RPW_WORK_LISTEN = 5,
    RPW_WORK_CONNECT = 6,
    RPW_WORK_WAKE = 7,
    RPW_WORK_REST = 8,
    RPW_WORK_WATCH = 9,
    RPW_WORK_FOLLOW = 10,
    RPW_WORK_REDIS = 11,
    RPW_CONNECTION_GRPC = 1,
    RPW_CONNECTION_REDIS = 2,
    RPW_CALL_RECEIVE = 1,
    RPW_CALL_DONE = 2,
    RPW_CALL_GONE = 3,
    RPW_MISSING = 1,
    RPW_MISMATCH = 2,
}
