"""The benchmark's application on grpcio, asyncio and threads: baselines."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import grpc
import grpc.aio

from _bench.answers import fixed_answers
from _bench.requests import ECHO

__all__ = ["serve"]

_THREADS = 16


def serve(kind: str, size: int, port: int, announce: Callable[[int], None]) -> None:
    """Serve until terminated."""
    answers = fixed_answers(size)
    if kind == "grpcio":
        asyncio.run(_serve_asyncio(answers, port, announce))
        return
    # Threads inherit the mask, so the signal stays for `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = grpc.server(ThreadPoolExecutor(_THREADS), handlers=[_Service(answers, _Threads)])
    announce(server.add_insecure_port(f"127.0.0.1:{port}"))
    server.start()
    signal.sigwait({signal.SIGTERM})
    server.stop(None).wait()


async def _serve_asyncio(answers: dict[str, bytes], port: int, announce: Callable[[int], None]) -> None:
    server = grpc.aio.server(handlers=[_Service(answers, _Asyncio)])
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    announce(bound)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(None)


class _Threads:
    @staticmethod
    def echo(request: bytes, context: Any) -> bytes:
        return request

    @staticmethod
    def fixed(answer: bytes) -> Callable[[bytes, Any], bytes]:
        return lambda request, context: answer


class _Asyncio:
    @staticmethod
    async def echo(request: bytes, context: Any) -> bytes:
        return request

    @staticmethod
    def fixed(answer: bytes) -> Callable[[bytes, Any], Any]:
        async def method(request: bytes, context: Any) -> bytes:
            return answer

        return method


@final
class _Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Any method there is an answer for; messages stay bytes."""

    def __init__(self, answers: dict[str, bytes], flavour: type[_Threads | _Asyncio]) -> None:
        self._methods = {ECHO: grpc.unary_unary_rpc_method_handler(flavour.echo)}
        for path, answer in answers.items():
            self._methods[path] = grpc.unary_unary_rpc_method_handler(flavour.fixed(answer))

    def service(self, handler_call_details: Any) -> Any:
        return self._methods.get(handler_call_details.method)
