"""Hand-made servers for our channel to meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, final

import hpack
import pytest
import trio
from wire_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    frame,
)

from meshnode.transport import Backoff, Channel, GRPCError, open_channel

CALL = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/wire.Test/Echo"),
    (b":authority", b"test"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
]
EMPTY = b"\0\0\0\0\0"
QUICK = Backoff(initial=0.01, maximum=0.02)


def block(*pairs: tuple[str, str]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(pairs)


RESPONSE = block((":status", "200"), ("content-type", "application/grpc"))
OK = block(("grpc-status", "0"))


def answer(stream: int, message: bytes = EMPTY) -> bytes:
    return (
        frame(HEADERS, END_HEADERS, stream, RESPONSE)
        + frame(DATA, 0, stream, message)
        + frame(HEADERS, END_HEADERS | END_STREAM, stream, OK)
    )


@final
class Impostor:
    """The server's end of one connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._data = b""

    async def send(self, *parts: bytes) -> None:
        await self.stream.send_all(b"".join(parts))

    async def greet(self, settings: bytes = b"") -> None:
        """Take the client's preface, say SETTINGS."""
        await self._want(len(PREFACE))
        assert self._data.startswith(PREFACE)
        self._data = self._data[len(PREFACE) :]
        await self.send(frame(SETTINGS, 0, 0, settings))

    async def _want(self, size: int) -> None:
        while len(self._data) < size:
            more = await self.stream.receive_some()
            if not more:
                raise EOFError
            self._data += more

    async def frame(self) -> tuple[int, int, int, bytes]:
        """The next frame from the client; EOFError at the end."""
        await self._want(9)
        size = int.from_bytes(self._data[:3], "big")
        await self._want(9 + size)
        head, payload, self._data = self._data[:9], self._data[9 : 9 + size], self._data[9 + size :]
        return head[3], head[4], int.from_bytes(head[5:], "big"), payload

    async def until(self, kind: int) -> tuple[int, bytes]:
        """Read up to a frame of this kind; its stream and payload."""
        while True:
            seen, flags, stream, payload = await self.frame()
            if seen == kind and not (kind in (SETTINGS, PING) and flags & ACK):
                return stream, payload

    async def request(self) -> int:
        """Read up to the end of a request; its stream."""
        while True:
            kind, flags, stream, _ = await self.frame()
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                return stream

    async def until_gone(self) -> int | None:
        """Read until the client hangs up; the code of its GOAWAY."""
        code = None
        try:
            while True:
                kind, _, _, payload = await self.frame()
                if kind == GOAWAY:
                    code = int.from_bytes(payload[4:8], "big")
        except (EOFError, trio.BrokenResourceError):
            return code


Script = Callable[[Impostor], Awaitable[Any]]


@asynccontextmanager
async def impostors(*scripts: Script, **options: Any) -> AsyncIterator[Channel]:
    """A channel whose connections meet these scripts one after another; the last serves all that follow."""
    left = list(scripts)

    async def serve(stream: trio.SocketStream) -> None:
        script = left.pop(0) if len(left) > 1 else left[0]
        try:
            await script(Impostor(stream))
            await stream.send_eof()
            while await stream.receive_some():
                pass
        except (EOFError, trio.BrokenResourceError):
            pass

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), serve, 0)
        port = listeners[0].socket.getsockname()[1]
        async with open_channel(f"127.0.0.1:{port}", **{"backoff": QUICK, **options}) as channel:
            yield channel
        nursery.cancel_scope.cancel()


async def good(server: Impostor) -> None:
    """Answers every call."""
    await server.greet()
    while True:
        await server.send(answer(await server.request()))


async def succeeds(channel: Channel) -> None:
    """A call on this channel works, if not at once."""
    with trio.fail_after(10):
        await channel.wait_ready()
        response = await channel.unary_raw(CALL, EMPTY)
    assert response.trailers.get(b"grpc-status") == b"0"


async def fails(channel: Channel) -> GRPCError:
    with trio.fail_after(10), pytest.raises(GRPCError) as error:
        await channel.unary_raw(CALL, EMPTY)
    return error.value
