"""An application of grpcio in the test's own process: one method, `/test.Blobs/Unary`, over plain bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

__all__ = ["METHOD", "Gatekeeper", "blob_app", "call"]

METHOD = "/test.Blobs/Unary"


@contextmanager
def blob_app(
    func: Callable[[bytes, grpc.ServicerContext], bytes],
    *,
    credentials: grpc.ServerCredentials | None = None,
    port: int = 0,
) -> Iterator[int]:
    """Serves the method on the port it gives, until the context is left."""
    with ThreadPoolExecutor(8) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        handler = grpc.unary_unary_rpc_method_handler(func)
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("test.Blobs", {"Unary": handler})]
        )
        address = f"127.0.0.1:{port}"
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
        server.start()
        try:
            yield port
        finally:
            server.stop(grace=None).wait()


class Gatekeeper:
    """An application's function that lets each call wait until the gate is opened."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.entered.release()
        context.add_callback(self.gate.set)
        self.gate.wait(60)
        return request


def call(channel: grpc.Channel, data: bytes, *, to: str, timeout: float = 60) -> Any:
    """A proxied call under way, as a future."""
    method = channel.unary_unary(METHOD, _registered_method=False)
    return method.future(data, metadata=[("dapr-app-id", to)], timeout=timeout)
