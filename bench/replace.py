#!/usr/bin/env python3
"""Replaces a filter under load; see bench/replace.sh. replace.py PORT FOLDER MASTER WORKERS REPLACEMENTS"""
import http.client
import os
import re
import signal
import sys
import threading
import time

PORT, FOLDER, MASTER, WORKERS, REPLACEMENTS = int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
VALUES = {"first!", "second"}
# Modules that cannot take the place of another, and what is said of them.
BAD = {"refuses": "returned false", "traps": "failed: "}


class Connection:
    """Asks one question after the other; a worker that was killed may take the connection with it."""

    def __init__(self):
        self.lost = 0
        self.made = None

    def get(self, path):
        end = time.monotonic() + 60
        while True:
            try:
                self.made = self.made or http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
                self.made.request("GET", path)
                answer = self.made.getresponse()
                return answer.status, answer.getheader("hello"), answer.read().decode()
            except (OSError, http.client.HTTPException):
                if time.monotonic() > end:
                    raise
                self.made = None
                self.lost += 1


class Client(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.connection, self.times, self.failed, self.over = Connection(), [], 0, False

    def run(self):
        while not self.over:
            began = time.perf_counter()
            status, hello, body = self.connection.get("/t")
            self.times.append((time.perf_counter() - began) * 1000)
            if status != 200 or hello not in VALUES or body != "answer":
                self.failed += 1


def workers():
    with open(f"/proc/{MASTER}/task/{MASTER}/children") as file:
        return [int(pid) for pid in file.read().split()]


def kib():
    with open(f"/proc/{oldest}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])


def kill_the_youngest():
    """The oldest worker lives through all replacements, so its memory can be compared."""
    while len(pids := workers()) < WORKERS:
        time.sleep(0.001)
    assert pids[0] == oldest
    os.kill(pids[-1], signal.SIGKILL)


control = Connection()
control.get("/t")
control.lost = 0
oldest = workers()[0]
clients = [Client() for _ in range(4)]
for client in clients:
    client.start()
replaced = refused = killed = 0
early = late = None
for number in range(REPLACEMENTS):
    by = ("second", "first")[number % 2]
    if number % 10 == 9:
        by = ("refuses", "traps")[number // 10 % 2]
    if WORKERS > 1 and number % 10 == 4:
        kill_the_youngest()
        killed += 1
    _, _, told = control.get("/replace?by=" + by)
    if told == "replaced":
        replaced += 1
    elif by in BAD and BAD[by] in told:
        refused += 1
    else:
        sys.exit(f"replacement {number} by {by}: {told}")
    if number + 1 in (REPLACEMENTS // 10, REPLACEMENTS):
        early, late = late, kib()
for client in clients:
    client.over = True
for client in clients:
    client.join()
times = sorted(time for client in clients for time in client.times)
failed = sum(client.failed for client in clients)
lost = sum(client.connection.lost for client in clients)
print(f"{WORKERS} worker{'s' if WORKERS > 1 else ''}: {replaced} replacements, {refused} refused or not started, {killed} workers killed")
print(f"  {len(times)} requests, {failed} failed, {lost} connections lost, longest {times[-1]:.1f} ms, "
      f"median {times[len(times) // 2]:.2f} ms")
if early:
    print(f"  memory of the oldest worker (RSS): {early} KiB after {REPLACEMENTS // 10} replacements, {late} KiB after all")
# All workers follow within a second.
if WORKERS > 1:
    _, _, told = control.get("/replace?by=second")
    end, seen = time.monotonic() + 1, set()
    while time.monotonic() < end:
        seen = {Connection().get("/t")[1] for _ in range(40)}
        if seen == {"second"}:
            break
    print(f"  all workers have the last module: {'yes' if seen == {'second'} and told == 'replaced' else 'NO'}")
if failed or (WORKERS == 1 and lost):
    sys.exit(1)
