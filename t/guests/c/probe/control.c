// Ops that call no Proxy-Wasm function: what the callback answers, ways to misbehave, and WASI.
#include "probe.h"

#define WASI(name) IMPORT("wasi_snapshot_preview1", #name) i32 name
WASI(fd_write)(i32 fd, i32 buffers, i32 count, i32 written);
WASI(fd_prestat_get)(i32 fd, i32 prestat);
WASI(path_open)
(i32 fd, i32 flags, i32 path, i32 size, i32 open_flags, i64 rights, i64 inherited, i32 fd_flags, i32 opened);
WASI(environ_sizes_get)(i32 count, i32 bytes);
WASI(environ_get)(i32 pointers, i32 bytes);
WASI(args_sizes_get)(i32 count, i32 bytes);
WASI(clock_time_get)(i32 clock, i64 precision, i32 time);
WASI(random_get)(i32 buffer, i32 size);
WASI(poll_oneoff)(i32 subscriptions, i32 events, i32 count, i32 happened);
WASI(sched_yield)(void);
IMPORT("wasi_snapshot_preview1", "proc_exit") _Noreturn void proc_exit(i32 code);

// ---- Log lines of control ops ----

static void log_number(const struct frame *frame, const struct line *line, i64 value) {
  begin_line(frame, line);
  put_number(value);
  flush_line(LOG_INFO);
}

static void log_numbers(const struct frame *frame, const struct line *line, i64 a, i64 b) {
  begin_line(frame, line);
  put_number(a);
  put_char(' ');
  put_number(b);
  flush_line(LOG_INFO);
}

// An op that does not come back says that it was reached.
static void log_start(const struct frame *frame, const struct line *line) {
  begin_line(frame, line);
  put_text("...");
  flush_line(LOG_INFO);
}

// ---- The callback ----

static void op_return(struct frame *frame, const struct line *line) {
  frame->result = (i32)word_number(frame, word_at(line, 1));
  log_number(frame, line, frame->result);
}

static void op_pause(struct frame *frame, const struct line *line) {
  frame->result = 1;
  log_number(frame, line, frame->result);
}

static void op_args(struct frame *frame, const struct line *line) {
  begin_line(frame, line);
  for (u32 i = 0; i < frame->count; i++) {
    if (i > 0) put_char(' ');
    put_text(frame->names[i]);
    put_char('=');
    put_number(frame->arguments[i]);
  }
  flush_line(LOG_INFO);
}

static void op_ids(struct frame *frame, const struct line *line) {
  begin_line(frame, line);
  put_text("id=");
  put_number(frame->context);
  put_text(" root=");
  put_number(frame->root);
  flush_line(LOG_INFO);
}

static void op_memory(struct frame *frame, const struct line *line) {
  log_number(frame, line, memory_bytes());
}

// ---- Misbehaviour ----

static void op_trap(struct frame *frame, const struct line *line) {
  log_start(frame, line);
  __builtin_trap();
}

static void op_loop(struct frame *frame, const struct line *line) {
  log_start(frame, line);
  for (;;) __asm__ volatile("");
}

static void op_loop_host(struct frame *frame, const struct line *line) {
  log_start(frame, line);
  for (;;) {
    u64 now;
    proxy_get_current_time_nanoseconds(address(&now));
  }
}

__attribute__((noinline)) static u32 recurse(u32 depth) {
  // Without the barriers this is compiled to a loop.
  __asm__ volatile("" : "+r"(depth));
  u32 below = depth == UINT32_MAX ? 0 : recurse(depth + 1);
  __asm__ volatile("" : "+r"(below));
  return below + depth;
}

static void op_recurse(struct frame *frame, const struct line *line) {
  log_start(frame, line);
  log_number(frame, line, recurse(0));
}

static void op_exit(struct frame *frame, const struct line *line) {
  log_start(frame, line);
  proc_exit((i32)word_number(frame, word_at(line, 1)));
}

static void op_grow(struct frame *frame, const struct line *line) {
  u32 pages = (u32)word_number(frame, word_at(line, 1));
  log_number(frame, line, (i32)__builtin_wasm_memory_grow(0, pages));
}

static void op_allocator(struct frame *frame, const struct line *line) {
  static const char *const modes[] = {"ok", "zero", "oob", "trap", "grow", "nested"};
  begin_line(frame, line);
  put_text("set");
  flush_line(LOG_INFO);
  for (u32 i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
    if (span_is(word_at(line, 1), modes[i])) allocator_mode = (enum allocator_mode)i;
  }
}

// ---- WASI ----

static i32 bad_pointer(void) {
  return (i32)(memory_bytes() - 1);
}

static i32 write_to(i32 fd, struct span text, u32 *written) {
  struct span buffers[1] = {text};
  *written = 0;
  return fd_write(fd, address(buffers), 1, address(written));
}

static void write_and_log(const struct frame *frame, const struct line *line, i32 fd, struct span text) {
  u32 written;
  i32 error = write_to(fd, text, &written);
  log_numbers(frame, line, error, written);
}

static void op_stdout(struct frame *frame, const struct line *line) {
  write_and_log(frame, line, 1, word_bytes(word_at(line, 1)));
}

static void op_stderr(struct frame *frame, const struct line *line) {
  write_and_log(frame, line, 2, word_bytes(word_at(line, 1)));
}

static void op_fdwrite(struct frame *frame, const struct line *line) {
  write_and_log(frame, line, (i32)word_number(frame, word_at(line, 1)), word_bytes(word_at(line, 2)));
}

// What can be wrong with fd_write, in turn: the list, a buffer of the list, the count written, a list without an end.
static void op_fdwrite_oob(struct frame *frame, const struct line *line) {
  struct span good = {(const u8 *)"text\n", 5};
  struct span bad = {(const u8 *)(uintptr_t)bad_pointer(), 2};
  u32 written;
  i32 list = fd_write(1, bad_pointer(), 1, address(&written));
  i32 buffer = fd_write(1, address(&bad), 1, address(&written));
  i32 count = fd_write(1, address(&good), 1, bad_pointer());
  i32 endless = fd_write(1, (i32)(memory_bytes() - sizeof(good)), -1, address(&written));
  begin_line(frame, line);
  put_number(list);
  put_char(' ');
  put_number(buffer);
  put_char(' ');
  put_number(count);
  put_char(' ');
  put_number(endless);
  flush_line(LOG_INFO);
}

static void op_wasi_oob(struct frame *frame, const struct line *line) {
  struct span name = word_at(line, 1);
  u32 ignored;
  i32 error = -1;
  if (span_is(name, "clock")) error = clock_time_get(0, 0, bad_pointer());
  if (span_is(name, "random")) error = random_get(bad_pointer(), 2);
  if (span_is(name, "environ_sizes")) error = environ_sizes_get(bad_pointer(), address(&ignored));
  if (span_is(name, "environ")) error = environ_get(bad_pointer(), bad_pointer());
  if (span_is(name, "args")) error = args_sizes_get(bad_pointer(), address(&ignored));
  if (span_is(name, "poll")) error = poll_oneoff(bad_pointer(), bad_pointer(), 1, address(&ignored));
  if (span_is(name, "prestat")) error = fd_prestat_get(3, bad_pointer());
  log_number(frame, line, error);
}

static void op_environ(struct frame *frame, const struct line *line) {
  u32 count = 0, bytes = 0;
  i32 error = environ_sizes_get(address(&count), address(&bytes));
  const u8 **pointers = scratch(4 * count + 4);
  u8 *text = scratch(bytes + 1);
  if (error == 0 && pointers != NULL && text != NULL) error = environ_get(address(pointers), address(text));
  begin_line(frame, line);
  put_number(error);
  put_char(' ');
  put_number(count);
  for (u32 i = 0; error == 0 && i < count; i++) {
    struct span entry = {pointers[i], 0};
    while (entry.ptr[entry.len] != 0) entry.len++;
    put_char(i == 0 ? ' ' : '|');
    put_value(entry);
  }
  flush_line(LOG_INFO);
}

static void op_wasi_args(struct frame *frame, const struct line *line) {
  u32 count = 0, bytes = 0;
  i32 error = args_sizes_get(address(&count), address(&bytes));
  log_numbers(frame, line, error, count);
}

static void op_random(struct frame *frame, const struct line *line) {
  u8 bytes[16];
  i32 error = random_get(address(bytes), sizeof(bytes));
  begin_line(frame, line);
  put_number(error);
  put_char(' ');
  for (u32 i = 0; i < sizeof(bytes); i++) put_hex(bytes[i], 2);
  flush_line(LOG_INFO);
}

static void op_clock(struct frame *frame, const struct line *line) {
  u64 wall = 0, host = 0, before = 0, after = 0;
  i32 error = clock_time_get(0, 1, address(&wall));
  if (error == 0) error = clock_time_get(1, 1, address(&before));
  if (error == 0) error = clock_time_get(1, 1, address(&after));
  proxy_get_current_time_nanoseconds(address(&host));
  u64 apart = wall < host ? host - wall : wall - host;
  begin_line(frame, line);
  put_number(error);
  put_text(apart < 10000000000 && after >= before && before > 0 ? " ok" : " implausible");
  flush_line(LOG_INFO);
}

// Waits ten seconds for a clock, where the host lets it.
static void op_poll(struct frame *frame, const struct line *line) {
  static struct {
    u64 userdata;
    u8 kind;
    u32 clock;
    u64 timeout, precision;
    uint16_t flags;
  } subscription = {.userdata = 7, .clock = 1, .timeout = 10000000000};
  u64 event[4];
  u32 happened = 0;
  i32 error = poll_oneoff(address(&subscription), address(event), 1, address(&happened));
  log_numbers(frame, line, error, happened);
}

static void op_yield(struct frame *frame, const struct line *line) {
  log_number(frame, line, sched_yield());
}

static void op_prestat(struct frame *frame, const struct line *line) {
  u64 prestat;
  log_number(frame, line, fd_prestat_get((i32)word_number(frame, word_at(line, 1)), address(&prestat)));
}

static void op_open(struct frame *frame, const struct line *line) {
  struct span path = word_bytes(word_at(line, 1));
  u32 opened;
  log_number(frame, line, path_open(3, 0, address(path.ptr), (i32)path.len, 0, -1, -1, 0, address(&opened)));
}

// ---- The table ----

static const struct {
  const char *name;
  op_function *run;
} ops[] = {
    {"return", op_return},
    {"pause", op_pause},
    {"args", op_args},
    {"ids", op_ids},
    {"memory", op_memory},
    {"trap", op_trap},
    {"loop", op_loop},
    {"loop_host", op_loop_host},
    {"recurse", op_recurse},
    {"exit", op_exit},
    {"grow", op_grow},
    {"allocator", op_allocator},
    {"stdout", op_stdout},
    {"stderr", op_stderr},
    {"fdwrite", op_fdwrite},
    {"fdwrite_oob", op_fdwrite_oob},
    {"wasi_oob", op_wasi_oob},
    {"environ", op_environ},
    {"wasi_args", op_wasi_args},
    {"random", op_random},
    {"clock", op_clock},
    {"poll", op_poll},
    {"yield", op_yield},
    {"prestat", op_prestat},
    {"open", op_open},
};

bool run_control_op(struct frame *frame, const struct line *line, bool dry_run) {
  for (u32 i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
    if (!span_is(word_at(line, 0), ops[i].name)) continue;
    if (!dry_run) ops[i].run(frame, line);
    return true;
  }
  return false;
}
