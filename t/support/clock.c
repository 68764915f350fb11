/* The clock of a test, preloaded into nginx: it stands still until the test moves it, see clock.rs. Only the thread that nginx
 * runs in has it. Others measure the time that guests take, and wait in the kernel, which knows the real clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000
/* How long nginx waits before it looks at the clock again. */
#define LOOK_MS 2

/* The most by which a clock that stands still goes on, a nanosecond each time that it is read. */
#define CREEP 999999

/* clock.rs has the same. */
struct shared {
    /* Where the clocks begin, and how far they have gone on, in nanoseconds. */
    _Atomic int64_t wall, monotonic, passed;
    /* What a worker that waits for events has done all for, and when its next timer is due, or INT64_MAX. */
    _Atomic int64_t settled, next;
    /* How often it found nothing to do. */
    _Atomic int64_t rounds;
};

static struct shared *test;

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("RPW_TEST_CLOCK");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) {
        return;
    }
    void *at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    test = at == MAP_FAILED ? NULL : at;
    close(file);
}

static int steered(void) {
    return test != NULL && syscall(SYS_gettid) == getpid();
}

int clock_gettime(clockid_t id, struct timespec *out) {
    /* Who reads a monotonic clock twice may count on it that time has passed: the runtime of Go does. */
    static int64_t creep;
    int64_t at;
    if (!steered()) {
        return (int)syscall(SYS_clock_gettime, id, out);
    }
    switch (id) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        at = test->wall;
        break;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_BOOTTIME:
        creep += creep < CREEP;
        at = test->monotonic + creep;
        break;
    default:
        return (int)syscall(SYS_clock_gettime, id, out);
    }
    at += test->passed;
    out->tv_sec = at / NANOSECONDS;
    out->tv_nsec = at % NANOSECONDS;
    return 0;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out != NULL) {
        *out = now.tv_sec;
    }
    return now.tv_sec;
}

int epoll_wait(int queue, struct epoll_event *events, int most, int timeout) {
    static int (*real)(int, struct epoll_event *, int, int);
    /* What the clock showed when nginx began its last round. */
    static int64_t began;
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_wait");
    }
    if (!steered() || timeout == 0) {
        return real(queue, events, most, timeout);
    }
    int64_t passed = test->passed;
    for (;;) {
        int count = real(queue, events, most, LOOK_MS);
        if (count == 0) {
            test->settled = began;
            test->next = timeout < 0 ? INT64_MAX : passed + (int64_t)timeout * 1000000;
            atomic_fetch_add(&test->rounds, 1);
        }
        /* Without a timer nginx waits for events only, and takes no answer without one. */
        if (count != 0 || timeout > 0) {
            began = test->passed;
            return count;
        }
        began = test->passed;
    }
}
