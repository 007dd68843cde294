"""The benchmark's application on meshnode's transport, typed and raw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final

import trio

from _bench.answers import fixed_answers
from _bench.requests import ECHO, frame
from meshnode.transport import (
    Cardinality,
    GRPCError,
    Handler,
    HeaderBlock,
    RawCall,
    Server,
    Status,
    Stream,
    open_listeners,
    rules,
)

__all__ = ["serve"]

# Header blocks keep their encoded form; plain pairs would be encoded for each call.
_HEADERS = HeaderBlock(rules.RESPONSE_HEADERS)
_TRAILERS = HeaderBlock(rules.OK_TRAILERS)


def serve(kind: str, size: int, port: int, announce: Callable[[int], None]) -> None:
    """Serve until terminated."""
    answers = fixed_answers(size)
    if kind == "raw":
        frames = {path.encode(): frame(message) for path, message in answers.items()}
        server = Server(fallback=partial(_raw, frames))
    else:
        server = Server([_Typed(answers)])
    trio.run(_serve, server, port, announce)


async def _serve(server: Server, port: int, announce: Callable[[int], None]) -> None:
    listeners = await open_listeners(f"127.0.0.1:{port}")
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        announce(int(listeners[0].address.rpartition(":")[2]))


async def _raw(frames: dict[bytes, bytes], call: RawCall) -> None:
    message = await call.receive_frame()
    path = call.headers.get(b":path") or b""
    if path != ECHO.encode():
        message = frames.get(path)
        if message is None:
            raise GRPCError(Status.UNIMPLEMENTED, "not a method of the benchmark's application")
    await call.respond(_HEADERS, message, _TRAILERS)


class _Bytes:
    """Messages that stay bytes."""

    @classmethod
    def parse(cls, data: bytes) -> bytes:
        return data


@final
class _Typed:
    """Handlers as betterproto2 generates them, without the messages."""

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
            path: Handler(method, Cardinality.UNARY_UNARY, _Bytes, _Bytes) for path, method in methods.items()
        }
