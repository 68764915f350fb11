"""A gRPC server for t/scenarios.rs, which says what each call is answered.

Prints "ready PORT", then a line of JSON for each call, and reads a line with the answer to each. It looks at no deadline: what
is late is for the client to say, whose clock a test moves. So it is not made of grpcio, but of HTTP/2 alone.
"""

import base64
import json
import socket
import sys
import threading

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset

# Before a message: whether it is compressed, and its length.
PREFIX = 5

CALLS = {}
LOCK = threading.Lock()


class Connection:
    """A connection of a client, and the calls that come on it."""

    def __init__(self, peer):
        self.peer = peer
        self.machine = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.streams = {}

    def serve(self):
        with LOCK:
            self.machine.initiate_connection()
            self.flush()
        while True:
            data = self.peer.recv(65536)
            if not data:
                return
            with LOCK:
                for event in self.machine.receive_data(data):
                    self.handle(event)
                self.flush()

    def handle(self, event):
        if isinstance(event, RequestReceived):
            self.streams[event.stream_id] = (event.headers, bytearray())
        elif isinstance(event, DataReceived):
            self.machine.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.stream_id in self.streams:
                self.streams[event.stream_id][1].extend(event.data)
        elif isinstance(event, StreamReset):
            self.streams.pop(event.stream_id, None)
        elif isinstance(event, StreamEnded):
            headers, body = self.streams[event.stream_id]
            number = len(CALLS)
            CALLS[number] = (self, event.stream_id)
            call = {
                "id": number,
                "path": dict(headers)[":path"],
                "headers": [pair for pair in headers if not pair[0].startswith(":")],
                "message": base64.b64encode(bytes(body[PREFIX:])).decode(),
            }
            print(json.dumps(call), flush=True)

    def answer(self, stream, answer):
        # A call that the client gave up is not answered.
        if self.streams.pop(stream, None) is None:
            return
        head = [(":status", str(answer["status"])), ("content-type", "application/grpc")]
        self.machine.send_headers(stream, head + [tuple(pair) for pair in answer["headers"]])
        trailers = dict(answer["trailers"])
        if trailers.get("grpc-status", "0") == "0":
            message = base64.b64decode(answer["message"])
            prefix = b"\0" + len(message).to_bytes(4, "big")
            self.machine.send_data(stream, prefix + message)
        trailers.setdefault("grpc-status", "0")
        self.machine.send_headers(stream, list(trailers.items()), end_stream=True)
        self.flush()

    def flush(self):
        try:
            self.peer.sendall(self.machine.data_to_send())
        except OSError:
            # The client is gone, which the next recv tells.
            pass


def accept(listener):
    while True:
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=Connection(peer).serve, daemon=True).start()


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print("ready", listener.getsockname()[1], flush=True)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    for line in sys.stdin:
        answer = json.loads(line)
        with LOCK:
            connection, stream = CALLS[answer["id"]]
            connection.answer(stream, answer)


main()
