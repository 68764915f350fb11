"""What the gRPC servers of the tests have in common."""

import sys
from concurrent import futures

import grpc

OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # The authority of a unix socket is not one that nginx takes.
    ("grpc.default_authority", "localhost"),
]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def serve(socket, files, add):
    """Serves at a socket what `add` adds to the server, until standard input ends; prints "ready" and the port.

    SOCKET is a path, or an address with a port, of which 0 is a free one.

    With TLS when files are given: key, certificate, and the certificates that those of clients must be signed by.
    """
    server = grpc.server(futures.ThreadPoolExecutor(1100), options=OPTIONS)
    add(server)
    address = "unix:" + socket if socket.startswith("/") else socket
    if files:
        pair, clients = (read(files[0]), read(files[1])), [read(path) for path in files[2:]]
        credentials = grpc.ssl_server_credentials([pair], clients[0] if clients else None, bool(clients))
        port = server.add_secure_port(address, credentials)
    else:
        port = server.add_insecure_port(address)
    server.start()
    print("ready", port, flush=True)
    sys.stdin.read()
    server.stop(0)
