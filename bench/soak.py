"""The client and the judge of bench/soak.sh: PORT MASTER ERROR_LOG (soak MINUTES | loop SECONDS)."""

import collections
import http.client
import os
import random
import re
import signal
import statistics
import sys
import threading
import time

PORT, MASTER, ERROR_LOG = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
MODE, AMOUNT = sys.argv[4], float(sys.argv[5])

# In seconds. A request to a worker that is killed fails at once; a stopwatch on another core may be late.
KILL_WINDOW = 2.0
TIMEOUT = 30.0
SETTLE = 3.0

stop = threading.Event()
quiet = threading.Event()  # no more reloads and kills
lock = threading.Lock()
counts = collections.Counter()
failures = []
killed = {}  # pid: when


def fail(text):
    with lock:
        failures.append(text)


def count(name):
    with lock:
        counts[name] += 1


# What good locations must answer: method, path, headers, body, and what is checked.


def is_as(response, body):
    return response.status == 200 and response.getheader("hello") == "add_header" and body in (b"as", b"as-new")


def is_rust_new(response, body):
    return response.status == 200 and response.getheader("x-added") == "anew" and body == b"rust-new"


def is_rust(response, body):
    return (
        response.status == 200
        and response.getheader("x-added") == "by rust"
        and response.getheader("x-rust-path") == "/rust"
        and (response.getheader("x-seen") or "").isdigit()
        and body == b"HELLO" * 1000
    )


def is_denied(response, body):
    return (
        response.status == 403
        and response.getheader("x-denied-by") == "rust_filter"
        and body == b"denied: soak\n"
    )


def is_headers(response, body):
    return (
        response.status == 200
        and response.getheader("x-probe") == "two"
        and response.getheader("x-seen") == "one"
        and response.getheader("x-saw-gone") is None
        and body == b"begin-echo-end"
    )


GOOD = [
    ("GET", "/plain", {}, None, lambda response, body: response.status == 200 and body == b"plain"),
    ("GET", "/as", {}, None, is_as),
    ("GET", "/rust-new", {}, None, is_rust_new),
    ("POST", "/rust", {"x-upper": "1"}, b"hello" * 1000, is_rust),
    ("GET", "/rust", {"x-deny": "soak"}, None, is_denied),
    ("GET", "/headers", {"x-gone": "1"}, None, is_headers),
    ("GET", "/pause", {}, None, lambda response, body: response.status == 200 and body == b"gone on"),
]

# The AssemblyScript SDK keeps some 430 bytes of each plugin context for ever (and 33 of each stream), in the filter's own
# memory. So this one is not asked for when it is measured whether a worker grows.
GROWING = [("GET", "/as-new", {}, None, is_as)]

# What bad locations must answer, all with status 200.
LIMIT = "failed: time limit of 50 ms passed"
BAD = {
    "trap": "unreachable",
    "loop": LIMIT,
    "loop_host": LIMIT,
    "loop_end": "ok",
    "recurse": "call stack exhausted",
    "exit": "exit code 3",
    "eat": "unreachable",
    "hog": LIMIT,
    "panic": "unreachable",
    "refusing": "the filter refused its configuration",
}


def connect():
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT)
    connection.connect()
    return connection


def ask(connection, method, path, headers, body):
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    return response, response.read()


def was_killed(since):
    with lock:
        return any(when > since - KILL_WINDOW for when in killed.values())


class Client:
    """Asks for one thing after the other. Some connections are kept alive, as far as nginx lets them."""

    def __init__(self, kept_alive):
        self.kept_alive = kept_alive
        self.connection = None

    def ask(self, method, path, headers, body):
        for attempt in range(4):
            began = time.monotonic()
            fresh = self.connection is None
            try:
                if fresh:
                    self.connection = connect()
                close = {} if self.kept_alive else {"connection": "close"}
                answer = ask(self.connection, method, path, {**headers, **close}, body)
            except (OSError, http.client.HTTPException) as error:
                self.drop()
                # nginx may close a connection that is idle at any time, above all when it is reloaded.
                if not fresh and isinstance(error, (http.client.RemoteDisconnected, ConnectionError)):
                    count("closed while idle")
                elif was_killed(began):
                    count("sent again after a kill")
                else:
                    raise
                continue
            if not self.kept_alive or answer[0].will_close:
                self.drop()
            # The upstream is the same nginx: the worker that was killed may have been at the other end.
            if answer[0].status == 502 and was_killed(began):
                count("sent again after a kill")
                continue
            return answer
        raise ConnectionError("four attempts failed")

    def drop(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None


def check_good(client, request):
    method, path, headers, body, is_right = request
    try:
        response, answer = client.ask(method, path, headers, body)
    except (OSError, http.client.HTTPException) as error:
        count("good failed")
        fail(f"{method} {path}: {error!r}")
        return
    if is_right(response, answer):
        count(f"good {method} {path}")
    else:
        count("good failed")
        fail(f"{method} {path}: {response.status} {response.getheaders()} {answer[:200]!r}")


def good_client(number):
    choice, client = random.Random(f"good {SEED} {number}"), Client(kept_alive=number % 2 == 0)
    while not stop.is_set():
        requests = GOOD if quiet.is_set() else GOOD + GROWING
        check_good(client, choice.choice(requests))


def bad_client(number):
    choice, client = random.Random(f"bad {SEED} {number}"), Client(kept_alive=number % 2 == 0)
    while not stop.is_set():
        name = choice.choice(list(BAD))
        try:
            response, answer = client.ask("GET", f"/bad/{name}", {}, None)
        except (OSError, http.client.HTTPException) as error:
            fail(f"/bad/{name}: {error!r}")
            continue
        count(f"bad {name}")
        text = answer.decode(errors="replace")
        # The VM of this filter may have been lost to another request's end.
        if response.status != 200 or (BAD[name] not in text and "next try in" not in text):
            fail(f"/bad/{name}: {response.status} {text[:300]}")
        stop.wait(choice.uniform(0, 0.1))


def workers():
    """Those that serve, without those that an earlier configuration has left to finish."""
    with open(f"/proc/{MASTER}/task/{MASTER}/children") as children:
        pids = [int(pid) for pid in children.read().split()]
    return [pid for pid in pids if title(pid) == "nginx: worker process"]


def title(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as line:
            return line.read().rstrip("\0")
    except OSError:
        return ""


def reload_and_kill(until, choice):
    while not stop.wait(choice.uniform(2, 8)) and time.monotonic() < until:
        if choice.random() < 0.5:
            os.kill(MASTER, signal.SIGHUP)
            count("reloads")
            continue
        pids = workers()
        if pids:
            victim = choice.choice(pids)
            with lock:
                killed[victim] = time.monotonic()
            try:
                os.kill(victim, signal.SIGKILL)
                count("workers killed")
            except ProcessLookupError:
                pass
            # Also the requests that were sent a moment later.
            time.sleep(0.1)
            with lock:
                killed[victim] = time.monotonic()


Sample = collections.namedtuple("Sample", "when pid rss threads descriptors")


def sample(pid):
    try:
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        return Sample(time.monotonic(), pid, int(fields["VmRSS"].split()[0]), int(fields["Threads"]), descriptors)
    except (OSError, KeyError):
        return None


def growth(name, samples, start, end):
    """Compares the second tenth of a time with its last, and says whether anything grew for good."""
    tenth = (end - start) / 10
    early = [s for s in samples if start + tenth <= s.when < start + 2 * tenth]
    late = [s for s in samples if s.when >= end - tenth]
    if not early or not late:
        fail(f"{name}: it was not there all the time")
        return
    middle = {}
    for field in ("rss", "threads", "descriptors"):
        middle[field] = [statistics.median(getattr(s, field) for s in part) for part in (early, late)]
    print(
        f"{name:<24}{middle['rss'][0]:>12.0f}{middle['rss'][1]:>12.0f}"
        f"{middle['rss'][1] / middle['rss'][0] * 100 - 100:>+8.1f}%"
        f"{middle['threads'][0]:>6.0f} →{middle['threads'][1]:>3.0f}"
        f"{middle['descriptors'][0]:>6.0f} →{middle['descriptors'][1]:>3.0f}"
    )
    # An allocator's own ups and downs are a few MiB.
    if middle["rss"][1] > middle["rss"][0] * 1.05 + 4096:
        fail(f"{name}: resident memory grew from {middle['rss'][0]:.0f} to {middle['rss'][1]:.0f} KiB")
    if middle["threads"][1] > middle["threads"][0] + 1:
        fail(f"{name}: threads grew")
    if middle["descriptors"][1] > middle["descriptors"][0] + 4:
        fail(f"{name}: descriptors grew")


def judge_log():
    with open(ERROR_LOG, errors="replace") as log:
        for line in log:
            ended = re.search(r"worker process (\d+) exited (on signal \d+|with fatal code \d+|with code [1-9]\d*)", line)
            if ended and int(ended[1]) not in killed:
                fail(f"a worker ended that was not killed: {line.strip()}")
            elif "wasm log " in line:
                continue  # a filter's own words
            elif re.search(r"\[(emerg|crit)\]|panicked|bug of the host", line):
                fail(line.strip()[:500])


def soak(seconds):
    start = time.monotonic()
    half, end = start + seconds / 2, start + seconds
    threads = [threading.Thread(target=good_client, args=(n,)) for n in range(6)]
    threads += [threading.Thread(target=bad_client, args=(n,)) for n in range(4)]
    threads.append(threading.Thread(target=reload_and_kill, args=(half, random.Random(f"kill {SEED}"))))
    for thread in threads:
        thread.start()
    masters, lives = [], collections.defaultdict(list)
    settled = None
    while time.monotonic() < end:
        masters.append(sample(MASTER))
        for pid in workers():
            lives[pid].append(sample(pid))
        if time.monotonic() > half:
            quiet.set()
        # The last reload may have been a moment ago.
        if settled is None and time.monotonic() > half + SETTLE:
            settled = time.monotonic()
        time.sleep(0.5)
    pids = workers()
    stop.set()
    for thread in threads:
        thread.join()

    print(f"{'process':<24}{'KiB early':>12}{'KiB late':>12}{'growth':>9}{'threads':>10}{'descriptors':>12}")
    growth("master", [s for s in masters if s], start, end)
    for pid in pids:
        growth(f"worker {pid}, half", [s for s in lives[pid] if s and s.when > settled], settled, end)
    if len(pids) != 2:
        fail(f"there are {len(pids)} workers")
    print(f"{'workers that lived':<24}{len(lives):>12}")


def on_workers():
    """Two workers, and connections to each."""
    found = collections.defaultdict(list)
    while len(found) < 2 or min(map(len, found.values())) < 4:
        connection = connect()
        response, _ = ask(connection, "GET", "/plain", {}, None)
        found[response.getheader("x-worker")].append(connection)
    return list(found.values())


def loop(seconds):
    until = time.monotonic() + seconds
    looping, other = on_workers()
    took = collections.defaultdict(list)

    def pinned(name, connection, requests):
        while time.monotonic() < until:
            for method, path, headers, body, is_right in requests:
                began = time.monotonic()
                try:
                    response, answer = ask(connection, method, path, headers, body)
                except (OSError, http.client.HTTPException) as error:
                    fail(f"{name}: {path}: {error!r}")
                    return
                took[name].append(time.monotonic() - began)
                if not is_right(response, answer):
                    fail(f"{name}: {path}: {response.status} {answer[:200]!r}")
                if response.will_close:
                    connection.connect()

    is_stopped = lambda response, body: response.status == 200 and LIMIT.encode() in body
    threads = [("looping", looping[0], [("GET", "/bad/loop", {}, None, is_stopped)])]
    threads += [("same worker", connection, GOOD) for connection in looping[1:3]]
    threads += [("other worker", connection, GOOD) for connection in other[:3]]
    threads = [threading.Thread(target=pinned, args=thread) for thread in threads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{'requests':<16}{'number':>10}{'median ms':>12}{'p99 ms':>12}{'longest ms':>12}")
    for name in ("looping", "same worker", "other worker"):
        times = sorted(took[name])
        part = [statistics.median(times), times[len(times) * 99 // 100], times[-1]]
        print(f"{name:<16}{len(times):>10}" + "".join(f"{1000 * t:>12.1f}" for t in part))


SEED = os.environ.get("SEED", str(time.time_ns()))
print(f"seed {SEED}")
if MODE == "soak":
    soak(AMOUNT * 60)
else:
    loop(AMOUNT)
judge_log()
for name, number in sorted(counts.items()):
    print(f"{name:<36}{number:>12}")
print(f"{'failures':<36}{len(failures):>12}")
for text in failures[:20]:
    print("FAILED:", text)
sys.exit(1 if failures else 0)
