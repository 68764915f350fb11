// Tries each way out of the sandbox that WASI names, and logs what it got. t/guests/README.md has the lines.
//
// WASI is the name of the module that the functions come from.
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(name)))
#define IMPORT(from, name) __attribute__((import_module(from), import_name(name)))

IMPORT("env", "proxy_log") u32 proxy_log(u32 level, const char *text, u32 size);
IMPORT("env", "proxy_get_buffer_bytes") u32 get_buffer(u32 type, u32 start, u32 max, char **data, u32 *size);

IMPORT(WASI, "environ_sizes_get") u32 environ_sizes_get(u32 *count, u32 *size);
IMPORT(WASI, "environ_get") u32 environ_get(char **array, char *text);
IMPORT(WASI, "args_sizes_get") u32 args_sizes_get(u32 *count, u32 *size);
IMPORT(WASI, "args_get") u32 args_get(char **array, char *text);
IMPORT(WASI, "random_get") u32 random_get(void *to, u32 size);
IMPORT(WASI, "poll_oneoff") u32 poll_oneoff(void *waits, void *events, u32 count, u32 *happened);
IMPORT(WASI, "proc_raise") u32 proc_raise(u32 signal);

#define FD(name, params, args) IMPORT(WASI, #name) u32 name params;
#define PATHS FD
#define SOCKET FD
#include "wasi.def"
#undef FD
#undef PATHS
#undef SOCKET

static char line[8192];
static u32 length;

static void say(const char *text) {
    while (*text && length < sizeof line)
        line[length++] = *text++;
}

static void say_number(u32 number) {
    char digits[11];
    u32 at = sizeof digits - 1;
    digits[at] = 0;
    do
        digits[--at] = '0' + number % 10;
    while (number /= 10);
    say(digits + at);
}

static void end_line(void) {
    proxy_log(2, line, length);
    length = 0;
}

// Answers of one function, a range of descriptors with the same answer in one piece.
static u32 first, last, answer;

static void say_range(void) {
    say(" ");
    say_number(first);
    if (last != first) {
        say("-");
        say_number(last);
    }
    say("=");
    say_number(answer);
}

static void note(u32 fd, u32 errno) {
    if (fd > 0 && errno == answer) {
        last = fd;
        return;
    }
    if (fd > 0)
        say_range();
    first = last = fd;
    answer = errno;
}

// More than nginx has open with one worker and one client.
#define DESCRIPTORS 65
// All that WASI defines.
#define RIGHTS 0x1fffffff

static char buffer[4096];
static u32 result, flags;
static struct {
    void *data;
    u32 size;
} vector[1];

static const char *const paths[] = {"/etc/passwd", "/", ".", "..", "conf/nginx.conf", "../../../../../etc/passwd",
                                    "/proc/self/environ", ""};

static u32 size_of(const char *text) {
    u32 size = 0;
    while (text[size])
        size++;
    return size;
}

#define TRY(name, call)                                                                                                \
    say(name);                                                                                                         \
    for (u32 fd = 0; fd < DESCRIPTORS; fd++) {                                                                         \
        vector[0].data = buffer;                                                                                       \
        vector[0].size = 16;                                                                                           \
        result = 0;                                                                                                    \
        note(fd, call);                                                                                                \
        if (result) {                                                                                                  \
            say(" RESULT ");                                                                                           \
            say_number(result);                                                                                        \
        }                                                                                                              \
    }                                                                                                                  \
    say_range();                                                                                                       \
    end_line();

static void try_files(void) {
#define SOCKET(name, params, args)
#define FD(name, params, args) TRY(#name, name args)
#define PATHS(name, params, args)                                                                                      \
    for (u32 i = 0; i < sizeof paths / sizeof *paths; i++) {                                                           \
        const char *PATH = paths[i];                                                                                   \
        u32 SIZE = size_of(PATH);                                                                                      \
        FD(name, params, args)                                                                                         \
    }
#include "wasi.def"
#undef FD
#undef PATHS
#undef SOCKET
}

static void try_sockets(void) {
#define FD(name, params, args)
#define PATHS FD
#define SOCKET(name, params, args) TRY(#name, name args)
#include "wasi.def"
}

static void say_list(const char *name, u32 (*sizes)(u32 *, u32 *), u32 (*get)(char **, char *)) {
    static char *array[64];
    static char text[4096];
    u32 count = 0, size = 0;
    say(name);
    say(" ");
    say_number(sizes(&count, &size));
    if (count <= 64 && size <= sizeof text) {
        say(" ");
        say_number(get(array, text));
        for (u32 i = 0; i < count; i++) {
            say(" ");
            say(array[i]);
        }
    }
    end_line();
}

static void say_answer(const char *name, u32 errno) {
    say(name);
    say(" ");
    say_number(errno);
    end_line();
}

// Waits for an hour, for descriptor 0 to be read, and for descriptor 6, which in nginx may be the port.
static void try_to_wait(void) {
    // WASI's layout, its small numbers as wide as the gaps behind them.
    static struct {
        u64 data, tag, what, timeout, precision, flags;
    } waits[3] = {{1, 0, 1, 3600000000000ull, 0, 0}, {2, 1, 0, 0, 0, 0}, {3, 1, 6, 0, 0, 0}};
    static char events[3 * 32];
    u32 happened = 99;
    say("poll_oneoff ");
    say_number(poll_oneoff(waits, events, 3, &happened));
    say(" ");
    say_number(happened);
    end_line();
}

#define OUTSIDE ((void *)0xfffffff0)

static u8 answers_to(const char *configuration, u32 size, const char *word) {
    u32 at = 0;
    while (at < size && word[at] && configuration[at] == word[at])
        at++;
    return at == size && !word[at];
}

EXPORT("proxy_on_request_headers") u32 on_request_headers(u32 id, u32 headers, u32 end_of_stream) {
    (void)id, (void)headers, (void)end_of_stream;
    char *what = "";
    u32 size = 0;
    get_buffer(7, 0, 100, &what, &size);
    if (answers_to(what, size, "signal")) {
        say_answer("proc_raise", proc_raise(9));
    } else if (answers_to(what, size, "outside")) {
        say_answer("args_sizes_get", args_sizes_get(OUTSIDE, &result));
    } else if (answers_to(what, size, "sockets")) {
        try_sockets();
    } else {
        say_list("environ", environ_sizes_get, environ_get);
        say_list("args", args_sizes_get, args_get);
        say_answer("random_get 4 GiB", random_get(buffer, 0xffffffff));
        say_answer("random_get outside", random_get(OUTSIDE, 16));
        try_to_wait();
        try_files();
    }
    return 0;
}

EXPORT("proxy_on_memory_allocate") void *allocate(u32 size) {
    static char memory[128];
    return size <= sizeof memory ? memory : 0;
}

EXPORT("proxy_abi_version_0_2_1") void abi_version(void) {}
