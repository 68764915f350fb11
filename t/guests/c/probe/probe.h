// What the parts of the probe share.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// 10, 20 or 21: the ABI version that this build speaks.
#ifndef ABI
#define ABI 21
#endif

typedef uint8_t u8;
typedef int32_t i32;
typedef uint32_t u32;
typedef int64_t i64;
typedef uint64_t u64;

enum { STATUS_OK = 0, LOG_INFO = 2, LOG_ERROR = 4, BUFFER_VM_CONFIGURATION = 6, BUFFER_PLUGIN_CONFIGURATION = 7 };

// ---- Host functions ----

#define PARAMS_0 void
#define PARAMS_1 i32
#define PARAMS_2 PARAMS_1, i32
#define PARAMS_3 PARAMS_2, i32
#define PARAMS_4 PARAMS_3, i32
#define PARAMS_5 PARAMS_4, i32
#define PARAMS_6 PARAMS_5, i32
#define PARAMS_7 PARAMS_6, i32
#define PARAMS_8 PARAMS_7, i32
#define PARAMS_9 PARAMS_8, i32
#define PARAMS_10 PARAMS_9, i32
#define PARAMS_12 PARAMS_10, i32, i32

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define HOST(name, arity, signature) IMPORT("env", "proxy_" #name) i32 proxy_##name(PARAMS_##arity);
#define HOST64(name, signature) IMPORT("env", "proxy_" #name) i32 proxy_##name(i32, i64);
#define ALIAS(op, name, signature)
#include "hostcalls.def"
#undef HOST
#undef HOST64
#undef ALIAS

static inline i32 address(const void *pointer) {
  return (i32)(uintptr_t)pointer;
}

// ---- memory.c ----

// Blocks that live until `release`; NULL when the memory cannot grow.
void *allocate(u32 size);
void release(void *pointer);

// Blocks that live until the running callback ends.
void *scratch(u32 size);
void release_scratch(void);

u32 memory_bytes(void);

// How proxy_on_memory_allocate behaves until the running callback ends.
enum allocator_mode { ALLOCATOR_OK, ALLOCATOR_ZERO, ALLOCATOR_OOB, ALLOCATOR_TRAP, ALLOCATOR_GROW, ALLOCATOR_NESTED };
extern enum allocator_mode allocator_mode;

// ---- text.c ----

struct span {
  const u8 *ptr;
  u32 len;
};

bool span_is(struct span text, const char *word);

// One log line is built at a time.
void put_char(char c);
void put_text(const char *text);
void put_span(struct span text);
void put_number(i64 value);
void put_hex(u64 value, u32 digits);
// Printable characters as they are, others as \xNN, '' when empty; only a summary of what is long.
void put_value(struct span value);
void put_map(struct span map);
void flush_line(i32 level);

// Meaning of a script word; the result is scratch memory.
struct span word_bytes(struct span word);
struct span word_path(struct span word);
struct span word_map(struct span word);
// False when the word is no number.
bool parse_number(struct span word, i64 *value);

// ---- lines.c ----

enum { MAX_WORDS = 12, MAX_ARGUMENTS = 5 };

// One line of a script: `CALLBACK[,CALLBACK…][@CONDITION]: OP ARG ARG …`
struct line {
  struct span callbacks, condition;
  struct span words[MAX_WORDS];
  u32 count;
  struct span arguments;  // the text after OP
};

struct frame;

// Takes the next line off the script; false at its end. A line that cannot be one has count 0.
bool next_line(struct span *script, struct line *line);
// What is before `end`, which is taken off with it; all of the text without one.
struct span take_until(struct span *text, char end);
// The word of that number, OP being 0; empty when there are fewer.
struct span word_at(const struct line *line, u32 index);
// `CALLBACK OP ARGS -> `: the beginning of each op's log line.
void begin_line(const struct frame *frame, const struct line *line);

// ---- script.c ----

// Runs the lines of the script that are for this callback.
void run_script(struct span script, struct frame *frame);
// False, and an error log line, when a line names no callback or no op.
bool check_script(struct span script);

// ---- frame.c ----

// What an op can know of the callback that it runs in.
struct frame {
  const char *callback;
  u32 context, root;
  bool first;  // the first call of this callback in this context
  i32 result;
  u32 count;
  const char *names[MAX_ARGUMENTS];
  i32 arguments[MAX_ARGUMENTS];
};

struct span span_of(const char *text);
// The number of the callback of that name, from 0 on; the number of all callbacks when there is none.
u32 callback_index(struct span name);
// Also for `*`, which is all of them.
bool callback_exists(struct span name);
// The value of the callback's own parameter of that name, 0 when there is none.
i32 frame_argument(const struct frame *frame, const char *name);

// ---- variables and numbers of a script: ops.c ----

i64 word_number(const struct frame *frame, struct span word);

// ---- ops.c, control.c ----

typedef void op_function(struct frame *frame, const struct line *line);

bool run_host_op(struct frame *frame, const struct line *line, bool dry_run);
bool run_control_op(struct frame *frame, const struct line *line, bool dry_run);
