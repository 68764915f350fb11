// The exports of the filter: contexts, and the script that each callback runs.
#include "probe.h"

#define EXPORT(name) __attribute__((export_name(#name)))

#if ABI == 10
EXPORT(proxy_abi_version_0_1_0) void abi_marker(void) {}
#elif ABI == 2100
EXPORT(proxy_abi_version_0_2_100) void abi_marker(void) {}
#elif ABI == 20
EXPORT(proxy_abi_version_0_2_0) void abi_marker(void) {}
#else
EXPORT(proxy_abi_version_0_2_1) void abi_marker(void) {}
#endif

// ---- Contexts ----

struct context {
  struct context *next;
  u32 id, root;
  u64 seen;             // a bit for each callback that has run, by its `callback_index`
  struct span script;   // of a root
};

static struct context *contexts;
static bool initialized;

static struct context *find_context(u32 id) {
  struct context *context = contexts;
  while (context != NULL && context->id != id) context = context->next;
  return context;
}

static void add_context(u32 id, u32 root) {
  struct context *context = allocate(sizeof(*context));
  if (context == NULL) __builtin_trap();
  *context = (struct context){.next = contexts, .id = id, .root = root};
  contexts = context;
}

static void remove_context(u32 id) {
  for (struct context **link = &contexts; *link != NULL; link = &(*link)->next) {
    if ((*link)->id != id) continue;
    struct context *context = *link;
    *link = context->next;
    release((void *)context->script.ptr);
    release(context);
    return;
  }
}

static struct span configuration(i32 buffer) {
  struct span text = {0};
#if ABI == 10
  (void)buffer;
  i32 status = proxy_get_configuration(address(&text.ptr), address(&text.len));
#else
  i32 status = proxy_get_buffer_bytes(buffer, 0, -1, address(&text.ptr), address(&text.len));
#endif
  if (status != STATUS_OK) text.len = 0;
  return text;
}

// False when it is not a script.
static bool load_script(struct context *root) {
  struct span text = configuration(BUFFER_PLUGIN_CONFIGURATION);
  release((void *)root->script.ptr);
  root->script = (struct span){0};
  if (text.len == 0) return true;
  u8 *copy = allocate(text.len);
  if (copy == NULL) __builtin_trap();
  __builtin_memcpy(copy, text.ptr, text.len);
  root->script = (struct span){copy, text.len};
  return check_script(root->script);
}

// ---- Running a callback ----

static void complain(const char *text) {
  put_text("probe: ");
  put_text(text);
  flush_line(LOG_ERROR);
}

static struct frame start(const char *callback, u32 id) {
  struct frame frame = {.callback = callback, .context = id};
  struct context *context = find_context(id);
  if (!initialized) complain("_initialize was not called");
  if (context == NULL) {
    complain("callback on a context that does not exist");
    return frame;
  }
  u64 bit = (u64)1 << callback_index(span_of(callback));
  frame.root = context->root;
  frame.first = (context->seen & bit) == 0;
  context->seen |= bit;
  return frame;
}

static void argument(struct frame *frame, const char *name, i32 value) {
  frame->names[frame->count] = name;
  frame->arguments[frame->count++] = value;
}

static i32 finish(const struct frame *frame) {
  allocator_mode = ALLOCATOR_OK;
  release_scratch();
  return frame->result;
}

static i32 run(struct frame *frame) {
  const struct context *root = find_context(frame->root);
  if (root != NULL) run_script(root->script, frame);
  return finish(frame);
}

// ---- The VM and roots ----

EXPORT(_initialize) void initialize(void) {
  initialized = true;
}

EXPORT(proxy_on_context_create) void on_context_create(u32 id, u32 parent) {
  if (find_context(id) != NULL) complain("context created twice");
  add_context(id, parent == 0 ? id : parent);
  struct frame frame = start("create", id);
  argument(&frame, "parent", (i32)parent);
  run(&frame);
}

// The plugin's script is not there yet on every host; lines for this callback may stand in either configuration.
EXPORT(proxy_on_vm_start) i32 on_vm_start(u32 root, i32 size) {
  struct frame frame = start("vm_start", root);
  frame.result = 1;
  argument(&frame, "size", size);
  run_script(configuration(BUFFER_VM_CONFIGURATION), &frame);
#if ABI >= 20
  run_script(configuration(BUFFER_PLUGIN_CONFIGURATION), &frame);
#endif
  return finish(&frame);
}

EXPORT(proxy_on_configure) i32 on_configure(u32 root, i32 size) {
  struct frame frame = start("configure", root);
  struct context *context = find_context(root);
  frame.result = 1;
  argument(&frame, "size", size);
  if (context != NULL && !load_script(context)) {
    frame.result = 0;
    return finish(&frame);
  }
  return run(&frame);
}

EXPORT(proxy_on_tick) void on_tick(u32 root) {
  struct frame frame = start("tick", root);
  run(&frame);
}

EXPORT(proxy_on_queue_ready) void on_queue_ready(u32 root, i32 queue) {
  struct frame frame = start("queue_ready", root);
  argument(&frame, "queue", queue);
  run(&frame);
}

#if ABI >= 20
EXPORT(proxy_on_foreign_function) void on_foreign_function(u32 root, i32 id, i32 size) {
  struct frame frame = start("foreign", root);
  argument(&frame, "id", id);
  argument(&frame, "size", size);
  run(&frame);
}
#endif

// ---- HTTP streams ----

static i32 run_headers(const char *callback, u32 id, i32 count, i32 end_of_stream) {
  struct frame frame = start(callback, id);
  argument(&frame, "num_headers", count);
  if (ABI >= 20) argument(&frame, "eos", end_of_stream);
  return run(&frame);
}

static i32 run_data(const char *callback, u32 id, i32 size, i32 end_of_stream) {
  struct frame frame = start(callback, id);
  argument(&frame, "size", size);
  argument(&frame, "eos", end_of_stream);
  return run(&frame);
}

static i32 run_trailers(const char *callback, u32 id, i32 count) {
  struct frame frame = start(callback, id);
  argument(&frame, "num_trailers", count);
  return run(&frame);
}

#if ABI >= 20
EXPORT(proxy_on_request_headers) i32 on_request_headers(u32 id, i32 count, i32 end_of_stream) {
  return run_headers("request_headers", id, count, end_of_stream);
}

EXPORT(proxy_on_response_headers) i32 on_response_headers(u32 id, i32 count, i32 end_of_stream) {
  return run_headers("response_headers", id, count, end_of_stream);
}
#else
EXPORT(proxy_on_request_headers) i32 on_request_headers(u32 id, i32 count) {
  return run_headers("request_headers", id, count, 0);
}

EXPORT(proxy_on_response_headers) i32 on_response_headers(u32 id, i32 count) {
  return run_headers("response_headers", id, count, 0);
}
#endif

EXPORT(proxy_on_request_body) i32 on_request_body(u32 id, i32 size, i32 end_of_stream) {
  return run_data("request_body", id, size, end_of_stream);
}

EXPORT(proxy_on_response_body) i32 on_response_body(u32 id, i32 size, i32 end_of_stream) {
  return run_data("response_body", id, size, end_of_stream);
}

EXPORT(proxy_on_request_trailers) i32 on_request_trailers(u32 id, i32 count) {
  return run_trailers("request_trailers", id, count);
}

EXPORT(proxy_on_response_trailers) i32 on_response_trailers(u32 id, i32 count) {
  return run_trailers("response_trailers", id, count);
}

// ---- The end of a context ----

// Streams and roots end in the same callbacks; a script tells them apart by name.
static struct frame start_end(u32 id, const char *stream_callback, const char *root_callback) {
  const struct context *context = find_context(id);
  bool is_root = context != NULL && context->root == id;
  return start(is_root ? root_callback : stream_callback, id);
}

EXPORT(proxy_on_done) i32 on_done(u32 id) {
  struct frame frame = start_end(id, "done", "root_done");
  frame.result = 1;
  return run(&frame);
}

EXPORT(proxy_on_log) void on_log(u32 id) {
  struct frame frame = start_end(id, "log", "root_log");
  run(&frame);
}

EXPORT(proxy_on_delete) void on_delete(u32 id) {
  struct frame frame = start_end(id, "delete", "root_delete");
  run(&frame);
  remove_context(id);
}

// ---- Calls that the filter made ----

EXPORT(proxy_on_http_call_response)
void on_http_call_response(u32 root, i32 token, i32 headers, i32 body_size, i32 trailers) {
  struct frame frame = start("http_call_response", root);
  argument(&frame, "token", token);
  argument(&frame, "headers", headers);
  argument(&frame, "body_size", body_size);
  argument(&frame, "trailers", trailers);
  run(&frame);
}

static void run_grpc(const char *callback, u32 root, i32 token, const char *name, i32 value) {
  struct frame frame = start(callback, root);
  argument(&frame, "token", token);
  argument(&frame, name, value);
  run(&frame);
}

EXPORT(proxy_on_grpc_receive_initial_metadata) void on_grpc_initial(u32 root, i32 token, i32 count) {
  run_grpc("grpc_initial", root, token, "headers", count);
}

EXPORT(proxy_on_grpc_receive) void on_grpc_receive(u32 root, i32 token, i32 size) {
  run_grpc("grpc_receive", root, token, "size", size);
}

EXPORT(proxy_on_grpc_receive_trailing_metadata) void on_grpc_trailing(u32 root, i32 token, i32 count) {
  run_grpc("grpc_trailing", root, token, "trailers", count);
}

EXPORT(proxy_on_grpc_close) void on_grpc_close(u32 root, i32 token, i32 status) {
  run_grpc("grpc_close", root, token, "status", status);
}

EXPORT(proxy_on_redis_call_response) void on_redis_call_response(u32 root, i32 token, i32 status, i32 size) {
  struct frame frame = start("redis_call_response", root);
  argument(&frame, "token", token);
  argument(&frame, "status", status);
  argument(&frame, "size", size);
  run(&frame);
}

// ---- TCP streams ----

EXPORT(proxy_on_new_connection) i32 on_new_connection(u32 id) {
  struct frame frame = start("new_connection", id);
  return run(&frame);
}

EXPORT(proxy_on_downstream_data) i32 on_downstream_data(u32 id, i32 size, i32 end_of_stream) {
  return run_data("downstream_data", id, size, end_of_stream);
}

EXPORT(proxy_on_upstream_data) i32 on_upstream_data(u32 id, i32 size, i32 end_of_stream) {
  return run_data("upstream_data", id, size, end_of_stream);
}

static void run_connection_close(const char *callback, u32 id, i32 peer) {
  struct frame frame = start(callback, id);
  argument(&frame, "peer", peer);
  run(&frame);
}

EXPORT(proxy_on_downstream_connection_close) void on_downstream_close(u32 id, i32 peer) {
  run_connection_close("downstream_close", id, peer);
}

EXPORT(proxy_on_upstream_connection_close) void on_upstream_close(u32 id, i32 peer) {
  run_connection_close("upstream_close", id, peer);
}
