"""Taking from a stream, over one connection: what is new, what was given back, what is due, what is orphaned.

Orphans are entries that the server has given us, of which the answer did not arrive: the connection broke.
Every connection begins by looking for them. Everything here that is taken is pending for our consumer from
that moment, so losing an answer loses nothing: it is found again, or given back at the end.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import Any, final

import trio

from meshnode.interfaces import DriverContext
from meshnode_redis._client import Client
from meshnode_redis._private import Private
from meshnode_redis._script import Arguments
from meshnode_redis.pubsub import _scripts
from meshnode_redis.pubsub._entries import Entry, read_claimed, read_stream
from meshnode_redis.pubsub._group import Group
from meshnode_redis.pubsub._options import Options

__all__ = ["LONGEST_BLOCK", "Feed"]

LONGEST_BLOCK = 1.0
"""Seconds that a read waits at the server: so often what others have given back is looked for."""

_PAGE = 100


@final
class Feed:
    """`known` has the ids of what is under way: it is not an orphan. Errors are the node's.

    `take` is for one task, and loses nothing when it is cancelled.
    """

    def __init__(
        self,
        client: Client,
        private: Private,
        group: Group,
        options: Options,
        context: DriverContext,
        known: Container[bytes],
    ) -> None:
        self._client = client
        self._private = private
        self._group = group
        self._options = options
        self._context = context
        self._known = known
        self._orphans_after: bytes | None = b"0"
        now = trio.current_time()
        self._look_at = now
        self._sweep_at = now if options.redelivers else math.inf
        self._sweep_from = b"-"
        self._new_ones_turn = False
        self.answers = 0

    async def take(self, room: int) -> list[Entry]:
        """The next entries to deliver, at most `room`; perhaps none, after a while."""
        if self._options.queue_depth:
            room = min(room, self._options.queue_depth)
        if self._orphans_after is not None:
            return await self._take_orphans(self._orphans_after, room)
        now = trio.current_time()
        if now >= self._look_at:
            self._look_at = now + LONGEST_BLOCK
            if found := await self._take_returned(room):
                return found
        # In turns: however much is due, what is new comes too.
        if now >= self._sweep_at and not self._new_ones_turn:
            self._new_ones_turn = True
            if found := await self._sweep(room):
                return found
        self._new_ones_turn = False
        return await self._take_new(room)

    async def _take_new(self, room: int) -> list[Entry]:
        wait = min(self._look_at, self._sweep_at) - trio.current_time()
        block: Arguments = ("BLOCK", min(round(wait * 1000), 1000)) if wait >= 0.001 else ()
        return read_stream(await self._read(room, ">", *block))

    async def _take_orphans(self, after: bytes, room: int) -> list[Entry]:
        page = read_stream(await self._read(_PAGE, after))
        orphans = await self._sort(page)
        if len(orphans) > room:
            orphans = orphans[:room]
            self._orphans_after = orphans[-1].id
        else:
            self._orphans_after = page[-1].id if page else None
        return orphans

    async def _read(self, count: int, after: bytes | str, *block: bytes | str | int) -> Any:
        group = self._group
        who = ("XREADGROUP", "GROUP", group.name, group.consumer, "COUNT", count)
        return await self._ask((*who, *block, "STREAMS", group.topic, after))

    async def _take_returned(self, room: int) -> list[Entry]:
        group, most = self._group, min(room, _PAGE)
        found = await self._ask(_scripts.take_returned(group.topic, group.name, group.consumer, most))
        if not found:
            return []
        if len(found[1]) == most:
            self._look_at = trio.current_time()
        return await self._sort(read_claimed(found))

    async def _sweep(self, room: int) -> list[Entry]:
        """A step of looking through all that is pending for what is due."""
        group, most = self._group, min(room, _PAGE)
        who = (group.topic, group.name, group.consumer)
        found = await self._ask(_scripts.sweep(*who, self._options.due_after, self._sweep_from, most))
        self._sweep_from = found[0] or b"-"
        if not found[0]:
            self._sweep_at = trio.current_time() + self._options.redelivery
        return await self._sort(read_claimed(found))

    async def _sort(self, entries: Iterable[Entry]) -> list[Entry]:
        """Without those that are under way already, and those that were deleted while they were pending:
        nobody can deliver them any more.
        """
        good = []
        for entry in entries:
            if entry.id in self._known:
                continue
            if entry.fields is not None:
                good.append(entry)
                continue
            await self._ask(("XACK", self._group.topic, self._group.name, entry.id))
            self._context.log.warning(
                "%s: topic %s: entry %s was trimmed or deleted before it was acknowledged",
                self._context.component,
                self._group.topic,
                entry.id.decode(),
            )
        return good

    async def _ask(self, arguments: Arguments) -> Any:
        reply = await self._private.ask(arguments)
        if isinstance(reply, Exception):
            raise self._client.error(reply)
        self.answers += 1
        return reply
