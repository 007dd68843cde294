"""A server and a channel joined by memory streams, and a peer that says what a test tells it to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, final

import hpack
import trio
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame
from trio.testing import memory_stream_pair

from meshnode.transport import Cardinality, Channel, Handler, Server, open_channel

UNARY = Cardinality.UNARY_UNARY
UPLOAD = Cardinality.STREAM_UNARY
DOWNLOAD = Cardinality.UNARY_STREAM
CHAT = Cardinality.STREAM_STREAM
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/test.Service/Echo"),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]


@final
class Raw(bytes):
    """A message that is only bytes."""

    __slots__ = ()

    @classmethod
    def parse(cls, data: bytes) -> Raw:
        return cls(data)


@final
class Service:
    """Handlers by method name; `echo` is there without asking."""

    def __init__(self, **methods: tuple[Callable[[Any], Awaitable[None]], Cardinality]) -> None:
        self._methods = {"Echo": (echo, UNARY), **methods}

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/test.Service/{name}": Handler(func, cardinality, Raw, Raw)
            for name, (func, cardinality) in self._methods.items()
        }


async def echo(stream: Any) -> None:
    message = await stream.recv_message()
    await stream.send_message(message)


@asynccontextmanager
async def connected(server: Server, **options: Any) -> AsyncIterator[Channel]:
    """A channel to the server; every dial makes a new connection in memory."""
    async with trio.open_nursery() as nursery:

        async def dial() -> trio.abc.Stream:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(server.serve_connection, theirs)
            return ours

        async with open_channel(dial, **options) as channel:
            yield channel
        nursery.cancel_scope.cancel()


def request(channel: Channel, method: str, cardinality: Cardinality = UNARY, **options: Any) -> Any:
    return channel.request(f"/test.Service/{method}", cardinality, Raw, Raw, **options)


async def unary(channel: Channel, method: str, message: bytes = b"", **options: Any) -> Any:
    """What a generated stub does for a unary call."""
    async with request(channel, method, **options) as stream:
        await stream.send_message(Raw(message), end=True)
        return await stream.recv_message()


@final
class Ended(Exception):
    """The other side has closed the connection."""


@final
class Peer:
    """One end of a connection, speaking frames through hyperframe and hpack rather than through our code."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self._data = b""

    async def send(self, *frames: Frame | bytes) -> None:
        await self.stream.send_all(
            b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
        )

    def headers(self, stream: int, pairs: list[tuple[str, str]], *flags: str) -> HeadersFrame:
        frame = HeadersFrame(stream, self.encoder.encode(pairs))
        frame.flags |= {"END_HEADERS", *flags}
        return frame

    @staticmethod
    def message(stream: int, payload: bytes, *flags: str) -> DataFrame:
        frame = DataFrame(stream, b"\0" + len(payload).to_bytes(4, "big") + payload)
        frame.flags |= set(flags)
        return frame

    async def greet(self, *, client: bool, **settings: int) -> None:
        """Say the preface or take it, and exchange SETTINGS."""
        frame = SettingsFrame(
            0, settings={getattr(SettingsFrame, key): value for key, value in settings.items()}
        )
        await self.send(PREFACE if client else b"", frame)
        if not client:
            while len(self._data) < len(PREFACE):
                self._data += await self.stream.receive_some()
            assert self._data.startswith(PREFACE)
            self._data = self._data[len(PREFACE) :]

    async def frame(self) -> Frame | None:
        """The next frame, SETTINGS and WINDOW_UPDATE included; None at the end of the stream."""
        while len(self._data) < 9 or len(self._data) < 9 + int.from_bytes(self._data[:3], "big"):
            data = await self.stream.receive_some()
            if not data:
                return None
            self._data += data
        frame, length = Frame.parse_frame_header(memoryview(self._data[:9]))
        frame.parse_body(memoryview(self._data[9 : 9 + length]))
        self._data = self._data[9 + length :]
        return frame

    async def expect(self, kind: type[Frame], stream: int | None = None) -> Any:
        """The next frame of a kind, past any others."""
        while (frame := await self.frame()) is not None:
            if isinstance(frame, kind) and stream in (None, frame.stream_id):
                return frame
        raise Ended(f"the connection ended without {kind.__name__}")


@asynccontextmanager
async def attacked(server: Server, **settings: int) -> AsyncIterator[Peer]:
    """A peer connected to the server as its client, greeted."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        peer = Peer(ours)
        await peer.greet(client=True, **settings)
        yield peer
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def scripted(
    script: Callable[[Peer], Awaitable[None]], settings: dict[str, int] | None = None, **options: Any
) -> AsyncIterator[Channel]:
    """A channel whose connections are served by a script, one run of it for each."""
    async with trio.open_nursery() as nursery:

        async def serve(peer: Peer) -> None:
            await peer.greet(client=False, **(settings or {}))
            with suppress(Ended):
                await script(peer)

        async def dial() -> trio.abc.Stream:
            ours, theirs = memory_stream_pair()
            nursery.start_soon(serve, Peer(theirs))
            return ours

        async with open_channel(dial, **options) as channel:
            yield channel
        nursery.cancel_scope.cancel()
