// The ops that call one host function each, as the table in hostcalls.def says.
#include "probe.h"

enum { MAX_PARAMETERS = 12 };

#define ARGUMENTS_0
#define ARGUMENTS_1 a[0]
#define ARGUMENTS_2 ARGUMENTS_1, a[1]
#define ARGUMENTS_3 ARGUMENTS_2, a[2]
#define ARGUMENTS_4 ARGUMENTS_3, a[3]
#define ARGUMENTS_5 ARGUMENTS_4, a[4]
#define ARGUMENTS_6 ARGUMENTS_5, a[5]
#define ARGUMENTS_7 ARGUMENTS_6, a[6]
#define ARGUMENTS_8 ARGUMENTS_7, a[7]
#define ARGUMENTS_9 ARGUMENTS_8, a[8]
#define ARGUMENTS_10 ARGUMENTS_9, a[9]
#define ARGUMENTS_12 ARGUMENTS_10, a[10], a[11]

#define HOST(name, arity, signature) \
  static i32 call_##name(const i32 *a) { return (void)a, proxy_##name(ARGUMENTS_##arity); }
#define HOST64(name, signature) \
  static i32 call_##name(const i32 *a) { return proxy_##name(a[0], (i64)((u64)(u32)a[2] << 32 | (u32)a[1])); }
#define ALIAS(op, name, signature)
#include "hostcalls.def"
#undef HOST
#undef HOST64
#undef ALIAS

struct op {
  const char *name, *signature;
  i32 (*call)(const i32 *);
};

static const struct op ops[] = {
#define HOST(name, arity, signature) {#name, signature, call_##name},
#define HOST64(name, signature) {#name, signature, call_##name},
#define ALIAS(op, name, signature) {#op, signature, call_##name},
#include "hostcalls.def"
};

static const struct op *find_op(struct span name) {
  for (u32 i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
    if (span_is(name, ops[i].name)) return &ops[i];
  }
  return NULL;
}

// ---- Numbers of a script ----

enum { MAX_VARIABLES = 32, VARIABLE_NAME = 24, MAX_CALLS = 256 };

static struct {
  u8 name[VARIABLE_NAME];
  u32 length;
  i64 value;
} variables[MAX_VARIABLES];

// Which context dispatched which call, the latest ones.
static struct {
  u32 token, context;
} calls[MAX_CALLS];
static u32 next_call;

static i64 *variable(struct span name) {
  if (name.len == 0 || name.len > VARIABLE_NAME) return NULL;
  for (u32 i = 0; i < MAX_VARIABLES; i++) {
    if (variables[i].length == 0) {
      __builtin_memcpy(variables[i].name, name.ptr, name.len);
      variables[i].length = name.len;
    }
    u32 same = 0;
    while (same < name.len && variables[i].name[same] == name.ptr[same]) same++;
    if (variables[i].length == name.len && same == name.len) return &variables[i].value;
  }
  return NULL;
}

static u32 caller(const struct frame *frame) {
  u32 token = (u32)frame_argument(frame, "token");
  for (u32 i = 0; i < MAX_CALLS; i++) {
    if (calls[i].token == token && token != 0) return calls[i].context;
  }
  return 0;
}

static void remember_call(u32 token, u32 context) {
  calls[next_call % MAX_CALLS].token = token;
  calls[next_call++ % MAX_CALLS].context = context;
}

i64 word_number(const struct frame *frame, struct span word) {
  i64 value = 0;
  if (word.len > 1 && word.ptr[0] == '$') {
    const i64 *stored = variable((struct span){word.ptr + 1, word.len - 1});
    return stored == NULL ? 0 : *stored;
  }
  if (span_is(word, "self")) return frame->context;
  if (span_is(word, "root")) return frame->root;
  if (span_is(word, "caller")) return caller(frame);
  if (span_is(word, "max")) return 0xffffffff;
  return parse_number(word, &value) ? value : 0;
}

// ---- Calls ----

struct output {
  u32 a, b;  // (pointer, length), or a number of 32 or 64 bits
};

struct call {
  const struct op *op;
  i32 arguments[MAX_PARAMETERS];
  // What each parameter is: 'v' a value, 'i' a pointer to input with its length behind it, 'o' a pointer to output.
  char kinds[MAX_PARAMETERS];
  u32 count;
  struct output outputs[2];
  struct span target;  // the variable that a first number goes to
};

static void push(struct call *call, char kind, i32 value) {
  call->kinds[call->count] = kind;
  call->arguments[call->count++] = value;
}

static void push_bytes(struct call *call, struct span bytes) {
  push(call, 'i', address(bytes.ptr));
  push(call, 'v', (i32)bytes.len);
}

static void prepare(struct call *call, const struct op *op, const struct frame *frame, const struct line *line,
                    u32 index) {
  struct output *output = call->outputs;
  *call = (struct call){.op = op};
  for (const char *kind = op->signature; *kind != 0; kind++) {
    bool is_input = *kind >= 'a' || *kind == 'I';
    struct span word = is_input ? word_at(line, index++) : (struct span){0};
    i64 number;
    switch (*kind) {
      case 'i':
        push(call, 'v', (i32)word_number(frame, word));
        break;
      case 'I':
        number = word_number(frame, word);
        push(call, 'v', (i32)number);
        push(call, 'v', (i32)(number >> 32));
        break;
      case 's':
        push_bytes(call, word_bytes(word));
        break;
      case 'p':
        push_bytes(call, word_path(word));
        break;
      case 'm':
        push_bytes(call, word_map(word));
        break;
      case 'W':
      case 'Q':
      case 'T':
        push(call, 'o', address(output++));
        break;
      default:
        push(call, 'o', address(&output->a));
        push(call, 'o', address(&output++->b));
    }
  }
  struct span last = word_at(line, index);
  if (last.len > 1 && last.ptr[0] == '>') call->target = (struct span){last.ptr + 1, last.len - 1};
}

static void put_integer(struct span bytes) {
  u64 value = 0;
  for (u32 i = 0; i < bytes.len && i < 8; i++) value |= (u64)bytes.ptr[i] << 8 * i;
  if (bytes.len == 8) {
    put_number((i64)value);
  } else {
    put_text("not 8 bytes: ");
    put_value(bytes);
  }
}

static void put_boolean(struct span bytes) {
  if (bytes.len == 1 && bytes.ptr[0] <= 1) {
    put_text(bytes.ptr[0] == 1 ? "true" : "false");
  } else {
    put_text("not a boolean: ");
    put_value(bytes);
  }
}

static void put_clock(u64 nanoseconds) {
  // Between the years 2020 and 2100.
  bool plausible = nanoseconds > 1577836800000000000 && nanoseconds < 4102444800000000000;
  put_text(plausible ? "ok" : "implausible");
}

static void store(struct call *call, i64 value) {
  i64 *target = variable(call->target);
  if (target != NULL) *target = value;
  call->target.len = 0;
}

static void put_outputs(struct call *call) {
  const struct output *output = call->outputs;
  for (const char *kind = call->op->signature; *kind != 0; kind++) {
    if (*kind >= 'a' || *kind == 'I') continue;
    struct span bytes = {(const u8 *)(uintptr_t)output->a, output->b};
    i64 wide = (i64)((u64)output->b << 32 | output->a);
    output++;
    put_char(' ');
    switch (*kind) {
      case 'W':
      case 'Q':
        put_number(*kind == 'W' ? (i64)(u32)wide : wide);
        store(call, *kind == 'W' ? (i64)(u32)wide : wide);
        break;
      case 'T':
        put_clock((u64)wide);
        break;
      case 'R':
        put_value(bytes);
        break;
      case 'M':
        put_map(bytes);
        break;
      case 'N':
        put_integer(bytes);
        break;
      case 'B':
        put_boolean(bytes);
        break;
    }
  }
}

static bool dispatches(const struct op *op) {
#if ABI >= 21
  if (op->call == call_redis_call) return true;
#endif
  return op->call == call_http_call || op->call == call_grpc_call || op->call == call_grpc_stream;
}

static void run_plainly(struct call *call, const struct frame *frame, const struct line *line) {
  i32 status = call->op->call(call->arguments);
  if (status == STATUS_OK && dispatches(call->op)) remember_call(call->outputs[0].a, frame->context);
  begin_line(frame, line);
  put_number(status);
  if (status == STATUS_OK) put_outputs(call);
  flush_line(LOG_INFO);
}

// ---- Pointers that are none ----

static void run_bad_pointer(const struct call *call, const struct frame *frame, const char *prefix, u32 index,
                            i32 pointer, i32 length, const char *note) {
  i32 arguments[MAX_PARAMETERS];
  __builtin_memcpy(arguments, call->arguments, sizeof(arguments));
  arguments[index] = pointer;
  if (call->kinds[index] == 'i') arguments[index + 1] = length;
  i32 status = call->op->call(arguments);
  put_text(frame->callback);
  put_char(' ');
  put_text(prefix);
  put_char(' ');
  put_text(call->op->name);
  put_text(" arg ");
  put_number(index);
  put_text(" -> ");
  put_number(status);
  put_text(note);
  flush_line(LOG_INFO);
}

static void run_out_of_bounds(const struct call *call, const struct frame *frame) {
  for (u32 i = 0; i < call->count; i++) {
    if (call->kinds[i] == 'v') continue;
    run_bad_pointer(call, frame, "oob", i, (i32)0xfffffff0, 0x20, " far");
    // The first byte is inside.
    run_bad_pointer(call, frame, "oob", i, (i32)(memory_bytes() - 1), 2, " end");
  }
}

static void run_null(const struct call *call, const struct frame *frame) {
  for (u32 i = 0; i < call->count; i++) {
    if (call->kinds[i] != 'v') run_bad_pointer(call, frame, "null", i, 0, 0, "");
  }
}

bool run_host_op(struct frame *frame, const struct line *line, bool dry_run) {
  bool oob = span_is(word_at(line, 0), "oob"), null = span_is(word_at(line, 0), "null");
  u32 index = oob || null ? 1 : 0;
  const struct op *op = find_op(word_at(line, index));
  if (op == NULL || dry_run) return op != NULL;

  struct call call;
  prepare(&call, op, frame, line, index + 1);
  if (oob) {
    run_out_of_bounds(&call, frame);
  } else if (null) {
    run_null(&call, frame);
  } else {
    run_plainly(&call, frame, line);
  }
  return true;
}
