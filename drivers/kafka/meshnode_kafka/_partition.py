"""One partition while it is ours: what was taken of it, and how far it is done. No I/O.

`reach` says how many of its messages may be open, counted from the first that is not done. With 1 they are
delivered one after another, and a message that fails keeps its place until it is done. With more they are
begun in their order and end as they may. What may be committed is everything before the first that is not
done; the bound is also on what is done behind it and would come again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import final

import trio
from aiokafka.structs import ConsumerRecord, TopicPartition  # type: ignore[import-untyped]

__all__ = ["Entry", "Partition"]


@final
class Entry:
    """A message of a partition. `attempts` counts its deliveries that failed; `position` is the place among
    all that the subscription began, and 0 before that.
    """

    __slots__ = ("attempts", "done", "position", "record")

    def __init__(self, record: ConsumerRecord) -> None:
        self.record = record
        self.attempts = 0
        self.position = 0
        self.done = False


@final
class Partition:
    """`settled`: its position is committed or known to be, so it may be read. `gone`: it is ours no more.

    `waiting` has what is to be delivered next, in order. `scopes` are the deliveries under way; `idle` is set
    while there are none.
    """

    def __init__(self, name: TopicPartition, reach: int) -> None:
        self.name = name
        self.waiting: deque[Entry] = deque()
        self.settled = False
        self.gone = trio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.scopes: set[trio.CancelScope] = set()
        self.committed: int | None = None
        self.done: int | None = None
        """Offset of the first message that is not done."""
        self._reach = reach
        self._open: deque[Entry] = deque()
        self._under_way = 0

    def add(self, records: Iterable[ConsumerRecord]) -> None:
        if not self.gone.is_set():
            self.waiting.extend(Entry(record) for record in records)

    @property
    def may_begin(self) -> bool:
        """One that comes again is among the open ones already."""
        return bool(self.waiting) and (self.waiting[0].position > 0 or len(self._open) < self._reach)

    def begin(self, position: int) -> Entry:
        """The next message, to be given to `end`. One that comes again keeps the position it had."""
        entry = self.waiting.popleft()
        if not entry.position:
            entry.position = position
            self._open.append(entry)
        self._under_way += 1
        self.idle.clear()
        return entry

    def finish(self, entry: Entry) -> None:
        """It is done."""
        entry.done = True
        while self._open and self._open[0].done:
            self.done = self._open.popleft().record.offset + 1

    def end(self, entry: Entry) -> None:
        """Its delivery has ended. Unless it is done it waits again, before its successors."""
        self._under_way -= 1
        if not self._under_way:
            self.idle.set()
        if entry.done or self.gone.is_set():
            return
        place = 0
        while place < len(self.waiting) and self.waiting[place].record.offset < entry.record.offset:
            place += 1
        self.waiting.insert(place, entry)

    def uncommitted(self) -> int | None:
        """What to commit; None when there is nothing new."""
        return self.done if self.done != self.committed else None

    def give_up(self) -> None:
        """It is ours no more. Deliveries under way may go on until they are cancelled."""
        self.gone.set()
        self.waiting.clear()

    def cancel(self) -> None:
        for scope in self.scopes:
            scope.cancel()
