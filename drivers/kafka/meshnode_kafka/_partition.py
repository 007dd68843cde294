"""One partition while it is ours: what was taken of it, and how far it is done. No I/O.

Its messages are delivered one after another: the first in `waiting` stays there until it is acknowledged or
given up. So what may be committed is always everything before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import final

import trio
from aiokafka.structs import ConsumerRecord, TopicPartition  # type: ignore[import-untyped]

__all__ = ["Partition"]


@final
class Partition:
    """`settled`: its position is committed or known to be, so it may be read. `gone`: it is ours no more.

    `attempts` counts the deliveries of its first message. `scope` is the delivery under way; `idle` is set
    while there is none.
    """

    def __init__(self, name: TopicPartition) -> None:
        self.name = name
        self.waiting: deque[ConsumerRecord] = deque()
        self.attempts = 0
        self.settled = False
        self.gone = trio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.scope: trio.CancelScope | None = None
        self.committed: int | None = None
        self.done: int | None = None
        """Offset of the first message that is not done."""

    def add(self, records: Iterable[ConsumerRecord]) -> None:
        if not self.gone.is_set():
            self.waiting.extend(records)

    def finish(self) -> None:
        """Its first message is done."""
        record = self.waiting.popleft()
        self.attempts = 0
        self.done = record.offset + 1

    def uncommitted(self) -> int | None:
        """What to commit; None when there is nothing new."""
        return self.done if self.done != self.committed else None

    def give_up(self) -> None:
        """It is ours no more. A delivery under way may go on until its scope is cancelled."""
        self.gone.set()
        under_way = not self.idle.is_set()
        while len(self.waiting) > under_way:
            self.waiting.pop()
