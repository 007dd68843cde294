"""Waking the subscriptions that may have something to take.

A subscription fetches its topic's bell, looks into the database, and only when there is nothing waits for
the bell: one that rings in between is not missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import trio

__all__ = ["Bells"]


@final
class Bells:
    """One bell for each topic that somebody listens to."""

    def __init__(self) -> None:
        self._bells: dict[str, trio.Event] = {}
        self._listeners: Counter[str] = Counter()
        self._somebody = trio.Event()

    @contextmanager
    def listening(self, topic: str) -> Iterator[None]:
        self._listeners[topic] += 1
        self._bells.setdefault(topic, trio.Event())
        self._somebody.set()
        try:
            yield
        finally:
            self._listeners[topic] -= 1
            if not self._listeners[topic]:
                del self._listeners[topic], self._bells[topic]
            if not self._listeners:
                self._somebody = trio.Event()

    async def somebody_listens(self) -> None:
        await self._somebody.wait()

    def bell(self, topic: str) -> trio.Event:
        """Set at the next ring."""
        return self._bells[topic]

    def ring(self, topic: str) -> None:
        bell = self._bells.get(topic)
        if bell is not None:
            self._bells[topic] = trio.Event()
            bell.set()

    def ring_all(self) -> None:
        for topic in tuple(self._bells):
            self.ring(topic)
