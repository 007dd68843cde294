"""The benchmark's application on grpclib (asyncio): a baseline."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, final

from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

from _bench.answers import fixed_answers
from _bench.requests import ECHO

__all__ = ["serve"]


def serve(size: int, port: int, announce: Callable[[int], None]) -> None:
    """Serve until terminated."""
    asyncio.run(_serve(fixed_answers(size), port, announce))


async def _serve(answers: dict[str, bytes], port: int, announce: Callable[[int], None]) -> None:
    server = Server([_Service(answers)], codec=_RawCodec())
    await server.start("127.0.0.1", port)
    listening: Any = server._server
    announce(int(listening.sockets[0].getsockname()[1]))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    server.close()


class _RawCodec(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


@final
class _Service:
    def __init__(self, answers: dict[str, bytes]) -> None:
        self._answers = answers

    async def _echo(self, stream: Stream[bytes, bytes]) -> None:
        await stream.send_message(await stream.recv_message() or b"")

    async def _fixed(self, answer: bytes, stream: Stream[bytes, bytes]) -> None:
        await stream.recv_message()
        await stream.send_message(answer)

    def __mapping__(self) -> dict[str, Handler]:
        methods: dict[str, Any] = {ECHO: self._echo}
        methods |= {path: partial(self._fixed, answer) for path, answer in self._answers.items()}
        return {
            path: Handler(method, Cardinality.UNARY_UNARY, bytes, bytes) for path, method in methods.items()
        }
