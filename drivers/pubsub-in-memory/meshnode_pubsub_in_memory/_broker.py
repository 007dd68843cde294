"""Topics and their consumer groups, without I/O: who gets what next.

Of the messages with one partition key at most one is ready or under way, its successors wait for it. So a
group's consumers may run side by side and each key keeps its order, redeliveries included. A consumer that
gathers may have several of a key under way; until they have ended nobody else gets one of that key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import final

import trio
from attrs import define, field

from meshnode.errors import PubSubError, Status
from meshnode.interfaces import Message, PublishRequest

__all__ = ["Consumer", "Entry", "Group", "Topics"]

PARTITION_KEY = "partitionKey"


@final
@define(eq=False)
class Entry:
    """One message in one group. `expires` is a time of the wall clock."""

    message: Message
    key: str
    expires: float | None


@final
@define(eq=False)
class Consumer:
    """One subscription to a group. `gathered`: it may have several messages of one key under way.

    `offers` is a heap of the keys it has messages of, each with the position of its next one; what is out of
    date is passed over.
    """

    gathered: bool = False
    offers: list[tuple[int, str]] = field(factory=list)


@final
@define(eq=False)
class _Key:
    """The messages of one key: how many are under way, whether one is ready for all, and those that wait, in
    order. `owner` is the consumer that has those under way where it gathers: it may have the next ones too.
    """

    under_way: int = 0
    ready: bool = False
    owner: Consumer | None = None
    waiting: deque[Entry] = field(factory=deque)


@final
class Group:
    """The messages that one consumer group has still to acknowledge."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._ready: list[tuple[int, Entry]] = []
        self._keys: dict[str, _Key] = {}
        self._arrival = trio.Event()
        self.size = 0

    def add(self, entry: Entry) -> None:
        self.size += 1
        if not entry.key:
            self._make_ready(entry)
            return
        waiting = self._keys.setdefault(entry.key, _Key()).waiting
        waiting.append(entry)
        if len(waiting) == 1:
            self._offer(entry.key)

    def _make_ready(self, entry: Entry) -> None:
        heappush(self._ready, (entry.message.position, entry))
        self._tell()

    def _offer(self, name: str) -> None:
        """The first of those that wait has become another one, or others may have it now."""
        key = self._keys[name]
        if not key.waiting:
            if not key.under_way and not key.ready:
                del self._keys[name]
        elif not key.under_way and not key.ready:
            key.owner, key.ready = None, True
            self._make_ready(key.waiting.popleft())
        elif key.owner is not None:
            heappush(key.owner.offers, (key.waiting[0].message.position, name))
            self._tell()

    def _tell(self) -> None:
        """Wakes every subscription that waits; those that come too late wait again."""
        self._arrival.set()
        self._arrival = trio.Event()

    async def take(self, consumer: Consumer, most: int) -> list[Entry]:
        """The next messages, when there are any; each must be given to `done` or `put_back`. Cancelled, it
        has taken nothing.
        """
        while True:
            if taken := self._take(consumer, most):
                return taken
            await self._arrival.wait()

    def _take(self, consumer: Consumer, most: int) -> list[Entry]:
        taken: list[Entry] = []
        now = self._wall()
        while len(taken) < most and (entry := self._next(consumer)) is not None:
            if entry.expires is not None and entry.expires <= now:
                self.done(entry)
            else:
                taken.append(entry)
        return taken

    def _next(self, consumer: Consumer) -> Entry | None:
        """The first of what is ready for all and what its keys have for the consumer."""
        offers = consumer.offers
        while offers and not self._stands(consumer, *offers[0]):
            heappop(offers)
        if offers and (not self._ready or offers[0][0] < self._ready[0][0]):
            entry = self._keys[heappop(offers)[1]].waiting.popleft()
        elif self._ready:
            _, entry = heappop(self._ready)
        else:
            return None
        if entry.key:
            key = self._keys[entry.key]
            key.ready = False
            key.under_way += 1
            key.owner = consumer if consumer.gathered else None
            self._offer(entry.key)
        return entry

    def _stands(self, consumer: Consumer, position: int, name: str) -> bool:
        key = self._keys.get(name)
        if key is None or key.owner is not consumer or not key.waiting:
            return False
        return key.waiting[0].message.position == position

    def done(self, entry: Entry) -> None:
        self.size -= 1
        if not entry.key:
            return
        key = self._keys[entry.key]
        key.under_way -= 1
        if not key.under_way:
            self._offer(entry.key)

    def put_back(self, entry: Entry) -> None:
        """To its place among those that wait, which is near the front, so the order of publication stays."""
        if not entry.key:
            self._make_ready(entry)
            return
        key, place = self._keys[entry.key], 0
        while place < len(key.waiting) and key.waiting[place].message.position < entry.message.position:
            place += 1
        key.waiting.insert(place, entry)
        key.under_way -= 1
        if not place or not key.under_way:
            self._offer(entry.key)


@final
class Topics:
    """Every topic's groups. A topic without groups keeps nothing."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Group]] = {}
        self._positions = count(1)

    def group(self, topic: str, name: str, wall: Callable[[], float]) -> Group:
        """The group of that name, made at its first subscription."""
        groups = self._groups.setdefault(topic, {})
        if name not in groups:
            groups[name] = Group(wall)
        return groups[name]

    def publish(self, request: PublishRequest, now: float, most: int) -> None:
        """Into every group or none. Raises RESOURCE_EXHAUSTED where one is full."""
        groups = self._groups.get(request.topic, {})
        for name, group in groups.items():
            if group.size >= most:
                raise PubSubError(
                    f"consumer group {name} has {group.size} messages of topic {request.topic} waiting",
                    status=Status.RESOURCE_EXHAUSTED,
                )
        message = Message(
            request.topic, request.data, request.content_type, request.metadata, next(self._positions)
        )
        expires = None if request.ttl is None else now + request.ttl
        for group in groups.values():
            group.add(Entry(message, request.metadata.get(PARTITION_KEY, ""), expires))
