"""The application of both sidecars in the mesh tests, in the test's own process: Dapr's callback for
InvokeService, and a service of plain bytes in all four cardinalities.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import appcallback_pb2_grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status  # type: ignore[import-untyped]

__all__ = ["BIG", "SERVICE", "MeshApp", "mesh_app"]

SERVICE = "test.Mesh"
BIG = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def refusal(code: grpc.StatusCode) -> status_pb2.Status:
    reason = error_details_pb2.ErrorInfo(reason="REFUSED", domain="test", metadata={"shop": "closed"})
    detail: Any = any_pb2.Any()  # type: ignore[attr-defined]
    detail.Pack(reason)
    return status_pb2.Status(
        code=code.value[0], message="the application refuses: 50 % off", details=[detail]
    )


class MeshApp(appcallback_pb2_grpc.AppCallbackServicer):
    """`cancelled` is released when a call that waits finds its caller gone."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.seen: list[tuple[tuple[str, str | bytes], ...]] = []
        self.content_type = ""
        self.methods: list[str] = []
        self._waiting: list[threading.Event] = []

    def OnInvoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.seen.append(tuple(context.invocation_metadata()))
        self.content_type = request.content_type
        self.methods.append(request.method)
        if request.method == "wait":
            self._wait(context)
        if request.method.startswith("refuse-"):
            context.abort_with_status(
                rpc_status.to_status(refusal(grpc.StatusCode[request.method.removeprefix("refuse-")]))
            )
        context.send_initial_metadata((("seen-note", self.last("note")), ("answer-bin", b"\x00\xff")))
        context.set_trailing_metadata((("after", "all"),))
        kind = "application/x-answer" if request.method == "echo" else ""
        extension = request.http_extension
        data: Any = any_pb2.Any(value=request.data.value or extension.querystring.encode())  # type: ignore[attr-defined]
        return common_pb2.InvokeResponse(data=data, content_type=kind)

    def last(self, key: str) -> str:
        return ",".join(str(value) for name, value in self.seen[-1] if name == key)

    def _wait(self, context: grpc.ServicerContext) -> None:
        gone = threading.Event()
        self._waiting.append(gone)
        if not context.add_callback(gone.set):
            gone.set()  # it was over before it began here
        self.entered.release()
        gone.wait(60)
        if not context.is_active():
            self.cancelled.release()

    def let_go(self) -> None:
        """Ends the calls that wait, where their caller's sidecar has not."""
        while self._waiting:
            self._waiting.pop().set()

    def unary(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self._begin(context)
        if request == b"wait":
            self._wait(context)
        if request == b"refuse":
            context.abort_with_status(rpc_status.to_status(refusal(grpc.StatusCode.FAILED_PRECONDITION)))
        return request

    def _begin(self, context: grpc.ServicerContext) -> None:
        self.seen.append(tuple(context.invocation_metadata()))
        context.send_initial_metadata((("first", self.last("note")), ("first-bin", b"\x01\xfe")))
        context.set_trailing_metadata((("last", "word"), ("last-bin", b"\x02\xfd")))

    def client(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._begin(context)
        return b"+".join(requests)

    def server(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin(context)
        if request == b"wait":
            yield b"0"
            self._wait(context)
            return
        for number in range(int(request)):
            yield str(number).encode()
            if number == 3 and request == b"5":
                context.abort_with_status(rpc_status.to_status(refusal(grpc.StatusCode.DATA_LOSS)))

    def both(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._begin(context)
        for request in requests:
            yield request.upper()


@contextmanager
def mesh_app() -> Iterator[tuple[MeshApp, int]]:
    """The application and its port, until the context is left."""
    app = MeshApp()
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0), *BIG])
        appcallback_pb2_grpc.add_AppCallbackServicer_to_server(app, server)  # type: ignore[no-untyped-call]
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(app.unary),
            "Client": grpc.stream_unary_rpc_method_handler(app.client),
            "Server": grpc.unary_stream_rpc_method_handler(app.server),
            "Both": grpc.stream_stream_rpc_method_handler(app.both),
        }
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield app, port
        finally:
            server.stop(grace=None).wait()
