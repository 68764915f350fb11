#!/usr/bin/env python3
"""Writes a filter of about N MiB to standard output: bench/module.py N

It answers with the header `hello: world!`. Behind that are as many functions as it takes, of the kind that compilers make
of C: loops, branches, memory accesses, calls, some 300 bytes each, no two alike. The same N gives the same bytes.
"""
import random
import sys

I32 = 0x7F
HEADER = b"hello", b"world!"
# i32 operations on two numbers that cannot trap: add, sub, mul, and, or, xor, shifts, comparisons.
OPERATIONS = [0x6A, 0x6B, 0x6C, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76, 0x46, 0x47, 0x48, 0x4A]
LOCALS = 8


def unsigned(number):
    out = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        if not number:
            return bytes(out + bytes([byte]))
        out.append(byte | 0x80)


def signed(number):
    out = bytearray()
    while True:
        byte, number = number & 0x7F, number >> 7
        if number in (0, -1) and (number < 0) == bool(byte & 0x40):
            return bytes(out + bytes([byte]))
        out.append(byte | 0x80)


def constant(number):
    return b"\x41" + signed(number)


def section(number, content):
    return bytes([number]) + unsigned(len(content)) + content


def vector(items):
    return unsigned(len(items)) + b"".join(items)


def text(value):
    return unsigned(len(value)) + value


def expression(rng, depth):
    kind = rng.random()
    if depth == 0 or kind < 0.2:
        if rng.random() < 0.6:
            return b"\x20" + unsigned(rng.randrange(LOCALS))
        return constant(rng.randrange(-(1 << 20), 1 << 20))
    if kind < 0.35:
        # i32.load, its address masked to the first page.
        return expression(rng, depth - 1) + constant(0xFFF0) + b"\x71\x28\x02" + unsigned(rng.randrange(0, 64, 4))
    return expression(rng, depth - 1) + expression(rng, depth - 1) + bytes([rng.choice(OPERATIONS)])


def statement(rng, depth, callees):
    kind = rng.random()
    if kind < 0.45 or depth == 0:
        return expression(rng, 3) + b"\x21" + unsigned(rng.randrange(LOCALS))
    if kind < 0.6:
        return (expression(rng, 2) + constant(0xFFF0) + b"\x71" + expression(rng, 2) + b"\x36\x02"
                + unsigned(rng.randrange(0, 64, 4)))
    if kind < 0.75 and callees:
        return (expression(rng, 2) + expression(rng, 1) + b"\x10" + unsigned(rng.choice(callees)) + b"\x21"
                + unsigned(rng.randrange(LOCALS)))
    inner = b"".join(statement(rng, depth - 1, callees) for _ in range(2))
    if kind < 0.9:
        return expression(rng, 2) + b"\x04\x40" + inner + b"\x0b"
    # A loop that ends when the last local has counted down.
    last = unsigned(LOCALS)
    count = b"\x20" + last + constant(1) + b"\x6b\x22" + last
    return constant(16) + b"\x21" + last + b"\x03\x40" + inner + count + b"\x0d\x00\x0b"


def function(rng, callees):
    body = b"".join(statement(rng, 2, callees) for _ in range(10))
    # Locals beside the two parameters; the last one counts.
    code = unsigned(1) + unsigned(LOCALS - 1) + bytes([I32]) + body + b"\x20\x02\x0b"
    return unsigned(len(code)) + code


def module(size):
    rng = random.Random(1)
    types = [
        b"\x60" + vector([bytes([I32])] * 5) + vector([bytes([I32])]),
        b"\x60" + vector([bytes([I32])] * 3) + vector([bytes([I32])]),
        b"\x60" + vector([bytes([I32])] * 2) + vector([bytes([I32])]),
        b"\x60" + vector([]) + vector([]),
    ]
    name, value = HEADER
    header = b"".join(map(constant, [2, 0, len(name), len(name), len(value)]))
    callback = b"\x00" + header + b"\x10\x00\x1a" + constant(0) + b"\x0b"
    # Functions 0: the import, 1: the callback, 2: the marker.
    bodies, kinds, total = [text(callback), text(b"\x00\x0b")], [1, 3], 0
    while total < size:
        index = len(bodies) + 1
        callees = rng.sample(range(3, index), min(4, index - 3))
        bodies.append(function(rng, callees))
        kinds.append(2)
        total += len(bodies[-1]) + 1
    exports = [
        text(b"memory") + b"\x02\x00",
        text(b"proxy_on_response_headers") + b"\x00" + unsigned(1),
        text(b"proxy_abi_version_0_2_1") + b"\x00" + unsigned(2),
        text(b"work") + b"\x00" + unsigned(len(bodies)),
    ]
    imported = text(b"env") + text(b"proxy_add_header_map_value") + b"\x00\x00"
    return b"\0asm\x01\0\0\0" + b"".join([
        section(1, vector(types)),
        section(2, vector([imported])),
        section(3, vector([unsigned(kind) for kind in kinds])),
        section(5, vector([b"\x00\x10"])),
        section(7, vector(exports)),
        section(10, vector(bodies)),
        section(11, vector([b"\x00" + constant(0) + b"\x0b" + text(name + value)])),
    ])


sys.stdout.buffer.write(module(int(float(sys.argv[1]) * 1024 * 1024)))
