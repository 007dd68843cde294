"""Attacks on our server: a hand-made client, and a well-behaved one that must not notice it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import hpack
import trio
from peers.service_rules import SERVICE
from wire_frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
)
from wire_service import SHAPES, Echo, Raw, serving

from meshnode.transport import Channel, KeepAlive, Limits, Server, open_channel

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", f"/{SERVICE}/Echo"),
    (":authority", "test"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


def request(stream: int, method: str = "Echo", *more: tuple[str, str], end: bool = False) -> bytes:
    headers = [*REQUEST[:2], (":path", f"/{SERVICE}/{method}"), *REQUEST[3:], *more]
    block = hpack.Encoder().encode(headers)
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)


@final
class Attacker:
    """A socket that speaks whatever bytes a test gives it, and reads frames only when asked."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._data = b""
        self._decoder = hpack.Decoder()

    async def send(self, *parts: bytes) -> None:
        await self.stream.send_all(b"".join(parts))

    async def flood(self, data: bytes, times: int) -> None:
        """Send the same bytes many times; the server may hang up in between."""
        try:
            for _ in range(times):
                await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def frame(self) -> tuple[int, int, int, bytes] | None:
        """The next thing the server says; None when it has hung up."""
        while len(self._data) < 9 or len(self._data) < 9 + int.from_bytes(self._data[:3], "big"):
            try:
                more = await self.stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not more:
                return None
            self._data += more
        end = 9 + int.from_bytes(self._data[:3], "big")
        head, payload, self._data = self._data[:9], self._data[9:end], self._data[end:]
        return head[3], head[4], int.from_bytes(head[5:], "big"), payload

    async def goaway(self) -> int | None:
        """Read until the server hangs up; the code of its last GOAWAY, None without one."""
        code = None
        while (said := await self.frame()) is not None:
            if said[0] == GOAWAY:
                code = int.from_bytes(said[3][4:8], "big")
        return code

    async def reset(self, stream: int) -> int:
        """Read until the server resets the stream; the code."""
        while (said := await self.frame()) is not None:
            kind, _, number, payload = said
            if (kind, number) == (RST_STREAM, stream):
                return int.from_bytes(payload, "big")
            assert kind != GOAWAY, payload
        raise AssertionError("the server hung up")

    async def reply(self, stream: int, *, away: bool = False) -> tuple[bytes, dict[str, str]]:
        """Read until the server ends the stream with trailers; its data and trailers."""
        data = b""
        while (said := await self.frame()) is not None:
            kind, flags, number, payload = said
            assert kind != RST_STREAM, payload
            assert kind != GOAWAY or away, payload
            if number == stream and kind == DATA:
                data += payload
            if kind == HEADERS:
                headers = dict(self._decoder.decode(payload))
                if number == stream and flags & END_STREAM:
                    return data, headers
        raise AssertionError("the server hung up")


@final
class Field:
    """A server, a way to attack it, and a witness: a client that must not notice."""

    def __init__(self, target: str, server: Server, witness: Channel) -> None:
        self.target = target
        self.server = server
        self._witness = witness

    @asynccontextmanager
    async def attacker(self, *, greet: bool = True) -> AsyncIterator[Attacker]:
        host, _, port = self.target.rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            attacker = Attacker(stream)
            if greet:
                await attacker.send(PREFACE, frame(SETTINGS, 0, 0))
            yield attacker

    async def witness(self) -> None:
        """The well-behaved client is served."""
        path = f"/{SERVICE}/Echo"
        async with self._witness.request(path, SHAPES["uu"], Raw, Raw) as stream:
            await stream.send_message(Raw(b"hello"), end=True)
            assert await stream.recv_message() == b"hello"

    async def alone(self) -> None:
        """Wait until the server has no connection but the witness's, and nothing to do."""
        with trio.fail_after(20):
            while self.server.connections > 1 or self.server.in_flight:
                await self.witness()


@asynccontextmanager
async def battlefield(
    service: Echo | None = None, keepalive: KeepAlive | None = None, **limits: Any
) -> AsyncIterator[Field]:
    running = serving(service or Echo(), limits=Limits(**limits), keepalive=keepalive)
    async with running as (target, server), open_channel(target) as channel:
        field = Field(target, server, channel)
        await field.witness()
        yield field
        await field.alone()
        await field.witness()
