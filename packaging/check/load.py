#!/usr/bin/env python3
"""Sends requests to http://127.0.0.1:PORT/t, each by a new connection, until its standard input ends.

Each must be answered with the filter's header. Prints how many there were, and fails when one was not.
"""

import socket
import sys
import threading

PORT = int(sys.argv[1])
REQUEST = b"GET /t HTTP/1.0\r\nHost: localhost\r\n\r\n"
stop = threading.Event()
lock = threading.Lock()
answered, failures = 0, []


def ask():
    with socket.create_connection(("127.0.0.1", PORT), timeout=30) as connection:
        connection.sendall(REQUEST)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    if not answer.startswith(b"HTTP/1.1 200 ") or b"\r\nhello: add_header\r\n" not in answer:
        raise ValueError(answer)


def run():
    global answered
    while not stop.is_set():
        try:
            ask()
            with lock:
                answered += 1
        except Exception as error:
            failures.append(repr(error))


threads = [threading.Thread(target=run) for _ in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(f"{answered} requests answered, {len(failures)} failed")
if failures or answered == 0:
    sys.exit("\n".join(failures[:5]) or "no request was answered")
