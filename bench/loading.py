#!/usr/bin/env python3
"""Measures answers of an nginx while it loads a module; see bench/loading.sh. loading.py PORT MODULE"""
import http.client
import sys
import threading
import time

PORT = int(sys.argv[1])


def get(connection, path):
    connection.request("GET", path)
    return connection.getresponse().read().decode().strip()


def connect():
    return http.client.HTTPConnection("127.0.0.1", PORT, timeout=600)


class Clients:
    """Two connections that ask one question after the other."""

    def __enter__(self):
        self.over = False
        self.times = []
        self.threads = [threading.Thread(target=self.ask) for _ in range(2)]
        for thread in self.threads:
            thread.start()
        return self

    def ask(self):
        connection = connect()
        while not self.over:
            began = time.perf_counter()
            assert get(connection, "/t") == "answer"
            self.times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.0005)

    def __exit__(self, *_):
        self.over = True
        for thread in self.threads:
            thread.join()


def show(name, clients, stalls, took):
    stall, busy = stalls.split()
    times = sorted(clients.times)
    at = [times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.99, 0.999)]
    print(f"{name:<12} {took:>8} {len(times):>8} {at[0]:>8.2f} {at[1]:>8.2f} {at[2]:>8.2f} {times[-1]:>8.2f} {stall:>10} {busy:>8}")


print(f"{'':<12} {'load s':>8} {'answers':>8} {'p50 ms':>8} {'p99':>8} {'p99.9':>8} {'longest':>8} {'stall ms':>10} {'busy ms':>8}")
get(connect(), "/stall")
with Clients() as alone:
    time.sleep(5)
show("nothing", alone, get(connect(), "/stall"), "")
for name, path in ("background", "/load"), ("plain", "/load?plain=1"):
    if name == "plain":
        # The module of before must not be found in memory.
        with open(sys.argv[2], "ab") as module:
            module.write(b"\0\2\1x")
    get(connect(), "/stall")
    with Clients() as clients:
        took = get(connect(), path)
    show(name, clients, get(connect(), "/stall"), took)
