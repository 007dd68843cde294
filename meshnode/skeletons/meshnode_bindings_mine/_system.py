"""Stands in for the client library of the real system. Delete it, and call that library instead.

A server is an object that all share who open the same address. Every call is awaited, as one over a network
is, and raises `ConnectionError` while the server does not answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import final

import trio
from attrs import frozen

__all__ = ["Consumer", "Full", "Server", "Stored", "server_at"]

_MOST = 100_000
"""What a queue holds."""


class Full(Exception):
    """A queue takes no more."""


@final
@frozen
class Stored:
    """One message in one queue."""

    number: int
    data: bytes
    metadata: Mapping[str, str]


@final
class _Queue:
    """Messages that nobody has acknowledged and that are with no consumer."""

    def __init__(self) -> None:
        self.waiting: deque[Stored] = deque()
        self._news = trio.Event()

    async def arrival(self) -> None:
        await self._news.wait()

    def tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


@final
class Consumer:
    """One consumer of a queue, and the messages it has taken and not acknowledged."""

    def __init__(self, server: Server, queue: _Queue) -> None:
        self._server = server
        self._queue = queue
        self._taken: dict[int, Stored] = {}

    async def take(self, most: int) -> list[Stored]:
        """The next messages, as soon as there are any. Cancelled, it has taken none."""
        await self._server.ping()
        while not self._queue.waiting:
            await self._queue.arrival()
            await self._server.ping()
        waiting = self._queue.waiting
        found = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        self._taken.update((one.number, one) for one in found)
        return found

    async def acknowledge(self, message: Stored) -> None:
        await self._server.ping()
        self._taken.pop(message.number, None)

    async def give_back(self, message: Stored) -> None:
        await self._server.ping()
        if self._taken.pop(message.number, None) is not None:
            self._queue.waiting.append(message)
            self._queue.tell()

    def leave(self) -> None:
        """What a server does when the connection ends: what was taken is for others, in its old order."""
        self._queue.waiting.extendleft(reversed(self._taken.values()))
        self._taken.clear()
        self._queue.tell()


@final
class Server:
    """One queue, of which every message goes to one consumer."""

    def __init__(self) -> None:
        self.answers = True
        self._numbers = count(1)
        self._queue = _Queue()

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.answers:
            raise ConnectionError("the server does not answer")

    async def put(self, data: bytes, metadata: Mapping[str, str]) -> int:
        """The number that the message got. Raises `Full`."""
        await self.ping()
        if len(self._queue.waiting) >= _MOST:
            raise Full("the queue takes no more")
        message = Stored(next(self._numbers), data, metadata)
        self._queue.waiting.append(message)
        self._queue.tell()
        return message.number

    @contextmanager
    def consuming(self) -> Iterator[Consumer]:
        consumer = Consumer(self, self._queue)
        try:
            yield consumer
        finally:
            consumer.leave()


_SERVERS: dict[str, Server] = {}


def server_at(address: str) -> Server:
    """The server of an address. It outlives its connections, as a real one does."""
    return _SERVERS.setdefault(address, Server())
