"""Topics and their consumer groups, without I/O: who gets what next.

Of the messages with one partition key at most one is in `_ready` or under way; its successors wait in
`_held`. So a group's consumers may run side by side and each key keeps its order, redeliveries included.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import final

import trio
from attrs import define

from meshnode.errors import PubSubError, Status
from meshnode.interfaces import Message, PublishRequest

__all__ = ["Entry", "Group", "Topics"]

PARTITION_KEY = "partitionKey"


@final
@define(eq=False)
class Entry:
    """One message in one group. `expires` is a time of the wall clock."""

    message: Message
    key: str
    expires: float | None


@final
class Group:
    """The messages that one consumer group has still to acknowledge."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._ready: deque[Entry] = deque()
        self._held: dict[str, deque[Entry]] = {}
        self._arrival = trio.Event()
        self.size = 0

    def add(self, entry: Entry) -> None:
        self.size += 1
        waiting = self._held.get(entry.key) if entry.key else None
        if waiting is not None:
            waiting.append(entry)
            return
        if entry.key:
            self._held[entry.key] = deque()
        self._ready.append(entry)
        self._tell()

    def _tell(self) -> None:
        """Wakes every subscription that waits; those that come too late wait again."""
        self._arrival.set()
        self._arrival = trio.Event()

    async def take(self, most: int) -> list[Entry]:
        """The next messages, when there are any; each must be given to `done` or `put_back`. Cancelled, it
        has taken nothing.
        """
        while True:
            if taken := self._take(most):
                return taken
            await self._arrival.wait()

    def _take(self, most: int) -> list[Entry]:
        taken: list[Entry] = []
        now = self._wall()
        while self._ready and len(taken) < most:
            entry = self._ready.popleft()
            if entry.expires is not None and entry.expires <= now:
                self.done(entry)
            else:
                taken.append(entry)
        return taken

    def done(self, entry: Entry) -> None:
        self.size -= 1
        if not entry.key:
            return
        waiting = self._held[entry.key]
        if waiting:
            self._ready.append(waiting.popleft())
            self._tell()
        else:
            del self._held[entry.key]

    def put_back(self, entry: Entry) -> None:
        """To its place among those that wait, which is near the front, so the order of publication stays."""
        place = 0
        while place < len(self._ready) and self._ready[place].message.position < entry.message.position:
            place += 1
        self._ready.insert(place, entry)
        self._tell()


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
