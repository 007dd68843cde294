"""`wire.Test` (see `peers/service_rules.py`) on our server, and running that server in a test."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, final

import trio
from peers.service_rules import METHODS, SERVICE, Wish, spread, wish_of

from meshnode.transport import Cardinality, GRPCError, Handler, Server, Status, open_listeners

SHAPES = {
    "uu": Cardinality.UNARY_UNARY,
    "us": Cardinality.UNARY_STREAM,
    "su": Cardinality.STREAM_UNARY,
    "ss": Cardinality.STREAM_STREAM,
}


@final
class Raw(bytes):
    """A message that is only bytes, with the two operations that our transport needs."""

    __slots__ = ()

    @classmethod
    def parse(cls, data: bytes) -> Raw:
        return cls(data)


@final
class Echo:
    """The service; `stats` counts its hanging calls, the events say that one hangs and that one ended."""

    def __init__(
        self, compression: str | None = None, on_call: Callable[[Any], None] = lambda stream: None
    ) -> None:
        self._compression = compression
        self._on_call = on_call
        self.stats: Counter[str] = Counter()
        self.hanging = trio.Event()
        self.ended = trio.Event()

    async def _begin(self, stream: Any) -> Wish:
        self._on_call(stream)
        wish = wish_of(stream.metadata.items())
        if self._compression:
            stream.compress_with(self._compression)
        if wish.initial:
            await stream.send_initial_metadata(metadata=wish.initial)
        return wish

    async def _end(self, stream: Any, wish: Wish) -> None:
        if wish.fail and not wish.trailing:
            raise GRPCError(Status(wish.fail), wish.message, wish.details)
        if wish.fail or wish.trailing:
            await stream.send_trailing_metadata(
                status=Status(wish.fail),
                status_message=wish.message or None,
                status_details=wish.details,
                metadata=wish.trailing,
            )

    async def echo(self, stream: Any) -> None:
        wish = await self._begin(stream)
        request = await stream.recv_message()
        if not wish.fail:
            await stream.send_message(request)
        await self._end(stream, wish)

    async def collect(self, stream: Any) -> None:
        wish = await self._begin(stream)
        joined = b"".join([request async for request in stream])
        if not wish.fail:
            await stream.send_message(joined)
        await self._end(stream, wish)

    async def spread(self, stream: Any) -> None:
        wish = await self._begin(stream)
        for message in spread(await stream.recv_message(), wish):
            await stream.send_message(message)
        await self._end(stream, wish)

    async def chat(self, stream: Any) -> None:
        wish = await self._begin(stream)
        async for request in stream:
            await stream.send_message(request)
        await self._end(stream, wish)

    async def hang(self, stream: Any) -> None:
        await stream.send_initial_metadata()
        self.stats["hanging"] += 1
        self.hanging.set()
        try:
            await trio.sleep_forever()
        finally:
            self.stats["ended"] += 1
            self.ended.set()

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/{SERVICE}/{name}": Handler(getattr(self, name.lower()), SHAPES[shape], Raw, Raw)
            for name, shape in METHODS.items()
        }


@asynccontextmanager
async def serving(
    service: Echo, *, address: str = "127.0.0.1:0", ssl: Any = None, **options: Any
) -> AsyncIterator[tuple[str, Server]]:
    """Our server with the service on a free port; gives its target. Cancelled at the end."""
    server = Server([service], **options)
    listeners = await open_listeners(address, ssl=ssl)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        yield listeners[0].address, server
        nursery.cancel_scope.cancel()
