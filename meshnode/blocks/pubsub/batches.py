"""Bulk subscriptions: messages that arrive one by one go to the application together.

A driver's deliveries wait here side by side. A batch leaves when it is full or its first message has waited
long enough, one batch at a time and sorted as the subscription received its messages; what arrives meanwhile
makes the next one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import final

import trio

from meshnode.blocks.keeping import first_of
from meshnode.interfaces import Message, Outcome

__all__ = ["DEFAULT_AWAIT_MS", "DEFAULT_COUNT", "Batches"]

DEFAULT_COUNT = 100
DEFAULT_AWAIT_MS = 1000

DeliverTogether = Callable[[Sequence[Message]], Awaitable[Sequence[Outcome]]]


@final
class _Waiting:
    """One message whose delivery waits for its outcome; None in the end where there is none."""

    __slots__ = ("done", "message", "outcome", "since")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.outcome = Outcome.RETRY
        self.done = trio.Event()
        self.since = trio.current_time()


@final
class Batches:
    """`run` must be running for `deliver` to return. `most` is a batch's size, `patience` seconds."""

    def __init__(
        self, deliver_together: DeliverTogether, *, most: int, patience: float, stop: trio.Event
    ) -> None:
        self._deliver_together = deliver_together
        self._most = most
        self._patience = patience
        self._stop = stop
        self._waiting: list[_Waiting] = []
        self._arrival = trio.Event()

    async def deliver(self, message: Message) -> Outcome:
        """Wait for the batch that takes the message; cancelled before that, the message is in none."""
        one = _Waiting(message)
        self._waiting.append(one)
        self._arrival.set()
        try:
            await one.done.wait()
        except trio.Cancelled:
            if one in self._waiting:
                self._waiting.remove(one)
            raise
        return one.outcome

    async def run(self) -> None:
        """Make and deliver batches until cancelled."""
        while True:
            await self._until(1)
            if not self._stop.is_set():
                first = min(one.since for one in self._waiting)
                with trio.move_on_at(first + self._patience):
                    await first_of(partial(self._until, self._most), self._stop.wait)
            batch = self._take()
            if not batch:
                continue
            outcomes = await self._deliver_together([one.message for one in batch])
            for one, outcome in zip(batch, outcomes, strict=True):
                one.outcome = outcome
                one.done.set()

    async def _until(self, count: int) -> None:
        while len(self._waiting) < count:
            self._arrival = trio.Event()
            await self._arrival.wait()

    def _take(self) -> list[_Waiting]:
        self._waiting.sort(key=lambda one: one.message.position)
        batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        return batch
