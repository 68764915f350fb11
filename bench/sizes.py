"""The measurement of bench/sizes.sh: sizes.py PORT PROCESS."""

import http.client
import re
import socket
import statistics
import sys

port, process = int(sys.argv[1]), sys.argv[2]

PLUGINS = 1000
CONTEXTS = 10000
REQUESTS = 200


def anonymous(status):
    return int(re.search(r"^RssAnon:\s+(\d+) kB", status, re.M)[1]) * 1024


def memory():
    with open(f"/proc/{process}/status") as status:
        return anonymous(status.read())


def cpu_time():
    with open(f"/proc/{process}/schedstat") as schedstat:
        return int(schedstat.read().split()[0])


connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)


def get(path):
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    if response.status != 200:
        sys.exit(f"{path} answered {response.status}")
    return body


def show(what, count, size):
    print(f"{what:<28}{size / count / 1024:>10.2f} KiB   ({count:,} of them)")


def time_request():
    """Microseconds of a request of a filter."""
    count = 10000
    get("/filter")
    times = []
    for _ in range(3):
        before = cpu_time()
        for _ in range(count):
            get("/filter")
        times.append((cpu_time() - before) / count / 1000)
    return sorted(times)[1]


def grown(path):
    before = memory()
    get(path)
    return memory() - before


sockets = []


def open_requests(path, count):
    """Sends so many requests that are not answered, and says how much more is allocated with them."""
    before = int(get("/allocated"))
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port))
        one.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        sockets.append(one)
    while int(get("/waiting")) < len(sockets):
        pass
    return int(get("/allocated")) - before


few = time_request()
# Once before, so that what is made once does not count.
get("/plugins?n=20")
show("plugin, with its VM", PLUGINS, grown(f"/plugins?n={PLUGINS}"))
get("/contexts?n=100")
show("plugin context", CONTEXTS, grown(f"/contexts?n={CONTEXTS}"))
before = memory()
show("stream", CONTEXTS, anonymous(get(f"/streams?n={CONTEXTS}")) - before)
many = time_request()
# All stay open. The first ones do not count, for what is made once. Tables grow now and then, so the rounds differ.
rounds = [open_requests("/pause", REQUESTS) - open_requests("/sleep", REQUESTS) for _ in range(8)]
held = statistics.median(rounds[1:])
for one in sockets:
    one.close()
show("paused request", REQUESTS, held)
print(f"{'CPU time of a request':<28}{few:>10.2f} µs    with one context")
print(f"{'':<28}{many:>10.2f} µs    with {PLUGINS:,} plugins and {CONTEXTS:,} contexts in the worker")
