"""A gRPC server and client for t/grpc.rs, on messages of plain bytes.

peer.py server SOCKET [KEY CERTIFICATE [CLIENTS]]
                            serves, see serving.py
peer.py client TARGET CALL [NAME=VALUE...]
                            makes a call with this metadata; prints lines "message TEXT", "initial NAME=VALUE",
                            "trailing NAME=VALUE" and at last "status CODE DETAILS"

Calls: echo (one message, one back), fail (NOT_FOUND, "not here"), stream (three messages back), chat (each message back
before the next is sent), large (4 MiB and back), meta (the call's metadata back, as a message and as metadata), slow (an
answer after ten seconds), sum (how many messages and bytes a stream had), never (reads nothing and answers nothing),
gzip (a compressed answer), wait (the message back after a release), release (waits for as many calls of wait as its message
says and has them answered), cancelled (how often slow was cancelled).
"""

import sys
import threading

import grpc
from serving import OPTIONS, serve


def echo(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata([("x-initial", "1"), ("x-seen", metadata.get("x-filter", "none"))])
    context.set_trailing_metadata([("x-trailing", "2")])
    return b"echo " + request


def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "not here")


def stream(request, context):
    for i in range(3):
        yield b"%s %d" % (request, i)
    context.set_trailing_metadata([("x-trailing", "2")])


def chat(requests, context):
    for request in requests:
        yield b"re " + request


def meta(request, context):
    pairs = [(name, value) for name, value in context.invocation_metadata() if name.startswith("k")]
    context.send_initial_metadata(pairs)
    context.set_trailing_metadata(pairs)
    return repr(pairs).encode()


CANCELLED = []


def slow(request, context):
    over = threading.Event()

    def end():
        if not over.is_set():
            CANCELLED.append(1)
        over.set()

    context.add_callback(end)
    over.wait(10)
    over.set()
    return b"late"


class Waiting:
    """Calls that are answered when there are enough of them. Each takes a thread of the server's."""

    def __init__(self):
        self.arrived = threading.Condition()
        self.count = 0
        self.released = threading.Event()


WAITING = Waiting()


def wait(request, context):
    with WAITING.arrived:
        WAITING.count += 1
        WAITING.arrived.notify_all()
    WAITING.released.wait(60)
    return request


def release(request, context):
    with WAITING.arrived:
        WAITING.arrived.wait_for(lambda: WAITING.count >= int(request), 60)
    WAITING.released.set()
    return b"released"


def cancelled(request, context):
    return b"%d" % len(CANCELLED)


def count(requests, context):
    sizes = [len(request) for request in requests]
    return b"%d %d" % (len(sizes), sum(sizes))


def never(requests, context):
    threading.Event().wait(10)
    yield b"late"


def compressed(request, context):
    context.set_compression(grpc.Compression.Gzip)
    return b"x" * 10000


def add(server):
    handlers = {
        "echo": grpc.unary_unary_rpc_method_handler(echo),
        "fail": grpc.unary_unary_rpc_method_handler(fail),
        "large": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
        "meta": grpc.unary_unary_rpc_method_handler(meta),
        "slow": grpc.unary_unary_rpc_method_handler(slow),
        "cancelled": grpc.unary_unary_rpc_method_handler(cancelled),
        "wait": grpc.unary_unary_rpc_method_handler(wait),
        "release": grpc.unary_unary_rpc_method_handler(release),
        "gzip": grpc.unary_unary_rpc_method_handler(compressed),
        "sum": grpc.stream_unary_rpc_method_handler(count),
        "never": grpc.stream_stream_rpc_method_handler(never),
        "stream": grpc.unary_stream_rpc_method_handler(stream),
        "chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Peer", handlers),))


def say(kind, metadata):
    for name, value in metadata or ():
        print(kind, f"{name}={value}")


class Turns:
    """Messages, each sent once the answer to the one before has come."""

    def __init__(self, count):
        self.turns = [threading.Event() for _ in range(count)]
        self.turns[0].set()

    def messages(self):
        for i, turn in enumerate(self.turns):
            turn.wait(20)
            yield b"%d" % i

    def next(self, i):
        if i + 1 < len(self.turns):
            self.turns[i + 1].set()


def call(target, name, metadata):
    path = "/t.Peer/" + name
    with grpc.insecure_channel(target, options=OPTIONS) as channel:
        try:
            if name == "stream":
                answer = channel.unary_stream(path)(b"hello", metadata=metadata, timeout=20)
                for message in answer:
                    print("message", message.decode())
            elif name == "chat":
                turns = Turns(3)
                answer = channel.stream_stream(path)(turns.messages(), metadata=metadata, timeout=20)
                for i, message in enumerate(answer):
                    print("message", message.decode())
                    turns.next(i)
            else:
                request = b"x" * 4194304 if name == "large" else b"hello"
                message, answer = channel.unary_unary(path).with_call(request, metadata=metadata, timeout=20)
                if message is None:
                    print("no message")
                else:
                    print("message", len(message) if name == "large" else message.decode())
        except grpc.RpcError as error:
            answer = error
        say("initial", answer.initial_metadata())
        say("trailing", answer.trailing_metadata())
        print("status", answer.code().name, answer.details())


if sys.argv[1] == "server":
    serve(sys.argv[2], sys.argv[3:], add)
else:
    call(sys.argv[2], sys.argv[3], [tuple(pair.split("=", 1)) for pair in sys.argv[4:]])
