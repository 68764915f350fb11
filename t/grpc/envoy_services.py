"""Services of Envoy's API for t/grpc_examples.rs, with Envoy's own messages.

envoy_services.py server SOCKET [KEY CERTIFICATE [CLIENTS]]     see serving.py

Authorization lets requests through that have "authorization: good", adds what it was told of them as x-told, takes that header
away, and has the client get x-checked. Others get 401. "broken" is an error of the service.

RateLimitService lets two requests of each descriptor through, then tells of a window that ends in 29.5 seconds.
"""

import sys
import threading
from collections import Counter

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc
from serving import serve


def option(name, value):
    return base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value))


class Authorization(external_auth_pb2_grpc.AuthorizationServicer):
    def Check(self, request, context):
        attributes = request.attributes
        http = attributes.request.http
        wanted = http.headers.get("authorization")
        if wanted == "broken":
            context.abort(grpc.StatusCode.INTERNAL, "caf\u00e9 is closed")
        answer = external_auth_pb2.CheckResponse()
        if wanted == "good":
            source = attributes.source.address.socket_address.address
            port = attributes.destination.address.socket_address.port_value
            told = f"{http.method} {http.path} {http.host} {http.scheme} {http.protocol} {http.size} {source} {port > 0}"
            answer.ok_response.headers.append(option("x-told", told))
            answer.ok_response.headers_to_remove.append("authorization")
            answer.ok_response.response_headers_to_add.append(option("x-checked", "yes"))
        else:
            answer.status.code = grpc.StatusCode.UNAUTHENTICATED.value[0]
            answer.denied_response.status.code = 401
            answer.denied_response.headers.append(option("www-authenticate", "Bearer"))
            answer.denied_response.body = "who are you?\n"
        return answer


class RateLimit(rls_pb2_grpc.RateLimitServiceServicer):
    MOST = 2

    def __init__(self):
        self.lock = threading.Lock()
        self.counts = Counter()

    def ShouldRateLimit(self, request, context):
        (descriptor,) = request.descriptors
        key = (request.domain, *((entry.key, entry.value) for entry in descriptor.entries))
        with self.lock:
            self.counts[key] += 1
            left = self.MOST - self.counts[key]
        code = rls_pb2.RateLimitResponse.OK if left >= 0 else rls_pb2.RateLimitResponse.OVER_LIMIT
        answer = rls_pb2.RateLimitResponse(overall_code=code)
        status = answer.statuses.add(code=code, limit_remaining=max(left, 0))
        status.duration_until_reset.FromMilliseconds(29500)
        answer.response_headers_to_add.add(key="x-ratelimit-remaining", value=str(max(left, 0)))
        answer.request_headers_to_add.add(key="x-counted", value=repr(key))
        return answer


def add(server):
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(Authorization(), server)
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(RateLimit(), server)


assert sys.argv[1] == "server", sys.argv
serve(sys.argv[2], sys.argv[3:], add)
