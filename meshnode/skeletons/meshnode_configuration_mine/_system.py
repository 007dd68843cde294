"""Stands in for the client library of the real system. Delete it, and call that library instead.

A server is an object that all share who open the same address. Every call is awaited, as one over a network
is, and raises `ConnectionError` while the server does not answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import trio
from attrs import frozen

__all__ = ["Item", "Server", "Snapshot", "server_at"]


@final
@frozen
class Item:
    value: str
    version: str = ""


@final
@frozen
class Snapshot:
    """Items, and the server's revision at which they were read."""

    revision: int
    items: Mapping[str, Item]


@final
class Server:
    """Items by key, and a revision that rises with each change."""

    def __init__(self) -> None:
        self.answers = True
        self._items: dict[str, Item] = {}
        self._revision = 0
        self._news = trio.Event()

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.answers:
            raise ConnectionError("the server does not answer")

    async def read(self, keys: Sequence[str]) -> Snapshot:
        """The items of these keys, of all where none is named."""
        await self.ping()
        names = [key for key in keys if key in self._items] if keys else list(self._items)
        return Snapshot(self._revision, {key: self._items[key] for key in names})

    async def newer(self, revision: int) -> None:
        """Returns when there is a later one."""
        await self.ping()
        while self._revision <= revision:
            await self._news.wait()
            await self.ping()

    async def put(self, key: str, item: Item) -> None:
        await self.ping()
        self._items[key] = item
        self._changed()

    async def remove(self, key: str) -> None:
        await self.ping()
        self._items.pop(key, None)
        self._changed()

    def _changed(self) -> None:
        self._revision += 1
        self._news.set()
        self._news = trio.Event()


_SERVERS: dict[str, Server] = {}


def server_at(address: str) -> Server:
    """The server of an address. It outlives its connections, as a real one does."""
    return _SERVERS.setdefault(address, Server())
