"""The connection that listens.

It listens first and reads the table then, so that no change is missed; of those that were heard of around
the reading, some are in what was read. Where they end is told by a notification of our own, on a channel
nobody else has: PostgreSQL keeps one queue for all, in the order of the commits, so what comes after ours was
committed after the reading.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import final

import trio
from attrs import frozen

from meshnode.errors import ComponentUnavailable
from meshnode_postgresql._connection import Connection, Refused
from meshnode_postgresql._pool import Pool
from meshnode_postgresql.configuration._items import Change, Items, parse, unseen
from meshnode_postgresql.configuration._rows import read

__all__ = ["Feed", "Fresh", "News"]

_MOST = 10_000
"""Changes that may be heard of while the table is read."""

_BEAT = 20.0
"""Seconds after which a server that says nothing is asked whether it lives."""


@final
@frozen
class Fresh:
    """What was there when the connection began to listen, and what has changed since."""

    items: Items
    after: Sequence[Change]


News = Fresh | Change | trio.Event | None
"""What goes to the watch. An event: set it, so that the feed knows that all before it has been told."""


@final
class Feed:
    """For one watch. `mark` is the channel that nobody else has."""

    def __init__(self, pool: Pool, table: str, channel: str, keys: Sequence[str], mark: str) -> None:
        self._pool = pool
        self._table = table
        # Dapr's component writes the name without quotes, so that the server folds it.
        self._channels = {channel, channel.lower(), mark}
        self._keys = frozenset(keys)
        self._mark = mark

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[tuple[Connection, Fresh]]:
        """Raises `ComponentError`."""
        connection = await self._pool.connect()
        try:
            with trio.move_on_after(self._pool.limit) as scope:
                fresh = await self._begin(connection)
            if scope.cancelled_caught:
                raise self._pool.late()
            yield connection, fresh
        except Refused as refused:
            raise self._pool.error(refused) from refused
        finally:
            connection.close()

    async def _begin(self, connection: Connection) -> Fresh:
        names = ['"' + name.replace('"', '""') + '"' for name in sorted(self._channels)]
        await connection.simple("; ".join([f"LISTEN {name}" for name in names]))
        items = await read(connection, self._table, sorted(self._keys))
        await connection.run("SELECT pg_notify($1, '')", [self._mark.encode()])
        heard: list[Change] = []
        while True:
            channel, payload = await connection.notification()
            if channel == self._mark:
                return Fresh(items, unseen(items, heard))
            if (change := self._change(payload)) is not None:
                heard.append(change)
            if len(heard) > _MOST:
                raise ComponentUnavailable(f"{self._table} changes faster than it can be read")

    async def forward(self, connection: Connection, send: trio.MemorySendChannel[News]) -> None:
        """Until there is no more room: the connection is then of no more use, for some were left out."""
        while True:
            with trio.move_on_after(_BEAT) as scope:
                _, payload = await connection.notification()
            if scope.cancelled_caught:
                await self._ask(connection)
                continue
            change = self._change(payload)
            try:
                if change is not None:
                    send.send_nowait(change)
            except trio.WouldBlock:
                return

    async def _ask(self, connection: Connection) -> None:
        with trio.move_on_after(self._pool.limit):
            await connection.simple("SELECT 1")
            return
        raise ComponentUnavailable(f"{self._pool.name} says nothing any more")

    def _change(self, payload: str) -> Change | None:
        change = parse(payload)
        return change if change is not None and (not self._keys or change.key in self._keys) else None
