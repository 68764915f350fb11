// The callbacks that scripts can name, and what an op can know of the one that it runs in.
#include "probe.h"

static const char *const callback_names[] = {
    "create", "vm_start", "configure", "tick", "queue_ready", "foreign", "http_call_response",
    "request_headers", "request_body", "request_trailers", "response_headers", "response_body", "response_trailers",
    "done", "log", "delete", "root_done", "root_log", "root_delete",
    "grpc_initial", "grpc_receive", "grpc_trailing", "grpc_close",
    "redis_call_response",
    "new_connection", "downstream_data", "upstream_data", "downstream_close", "upstream_close",
};
enum { CALLBACKS = sizeof(callback_names) / sizeof(callback_names[0]) };

u32 callback_index(struct span name) {
  u32 i = 0;
  while (i < CALLBACKS && !span_is(name, callback_names[i])) i++;
  return i;
}

struct span span_of(const char *text) {
  struct span span = {(const u8 *)text, 0};
  while (text[span.len] != 0) span.len++;
  return span;
}

bool callback_exists(struct span name) {
  return span_is(name, "*") || callback_index(name) < CALLBACKS;
}

i32 frame_argument(const struct frame *frame, const char *name) {
  struct span wanted = span_of(name);
  for (u32 i = 0; i < frame->count; i++) {
    if (span_is(wanted, frame->names[i])) return frame->arguments[i];
  }
  return 0;
}
