"""A subscription that keeps account of what it is given, for the checks of pub/sub and of input bindings."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, Protocol, TypeVar, final

import trio

from meshnode.interfaces import Outcome
from meshnode.testing.conformance._check import expect, within

__all__ = ["Begin", "Gate", "Reader", "acknowledge", "expect_same", "reading"]


class Item(Protocol):
    """What is delivered."""

    @property
    def data(self) -> bytes: ...


T = TypeVar("T", bound=Item)
Begin = Callable[..., Awaitable[None]]
"""Takes a function that delivers and the event to stop, and `task_status`."""


async def acknowledge(_item: object) -> Outcome:
    return Outcome.ACK


@final
class Gate:
    """An answer that comes, `ACK`, when the gate is opened."""

    def __init__(self) -> None:
        self._opened = trio.Event()

    def open(self) -> None:
        self._opened.set()

    async def __call__(self, _item: object) -> Outcome:
        await self._opened.wait()
        return Outcome.ACK


@final
class Reader(Generic[T]):
    """One subscription, and account of what it was given."""

    def __init__(self, answer: Callable[[T], Awaitable[Outcome]], patience: float) -> None:
        self._answer = answer
        self._patience = patience
        self._stop = trio.Event()
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._news = trio.Event()
        self.messages: list[T] = []
        """Every delivery, redeliveries included, in the order in which they began."""
        self.finished: list[bytes] = []
        """The data of those that were answered with `ACK`."""
        self.under_way = 0
        self.most_under_way = 0

    @property
    def received(self) -> list[bytes]:
        return [message.data for message in self.messages]

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def run(self, begin: Begin, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            with self._scope:
                await begin(self._deliver, self._stop, task_status=task_status)
                expect(self._stop.is_set(), "subscribe returned though it was not stopped")
        finally:
            self._ended.set()

    async def _deliver(self, message: T) -> Outcome:
        expect(not self._ended.is_set(), "deliver was called after the subscription had ended")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.messages.append(message)
        self._tell()
        try:
            outcome = await self._answer(message)
            if outcome is Outcome.ACK:
                self.finished.append(message.data)
            return outcome
        finally:
            self.under_way -= 1
            self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Returns when what the account says makes the condition true."""
        with within(self._patience, f"{what}: it did not happen"):
            while not condition():
                await self._news.wait()

    async def has(self, count: int) -> None:
        """Until that many deliveries have begun."""
        await self.until(lambda: len(self.messages) >= count, f"delivery of {count} messages")

    async def has_finished(self, count: int) -> None:
        await self.until(lambda: len(self.finished) >= count, f"{count} messages to be finished")

    def stop(self) -> None:
        self._stop.set()

    async def ended(self) -> None:
        with within(self._patience, "the subscription did not end"):
            await self._ended.wait()

    async def cancel(self) -> None:
        self._scope.cancel()
        await self.ended()
        expect(self._scope.cancelled_caught, "subscribe swallowed its cancellation")

    def expect_once(self, wanted: Sequence[bytes], why: str) -> None:
        """Exactly these were delivered, each once, in any order."""
        expect_same(self.received, wanted, why)


def expect_same(received: Sequence[bytes], wanted: Sequence[bytes], why: str) -> None:
    """Each as often as wanted, in any order."""
    got, due = Counter(received), Counter(wanted)
    missing, extra = list((due - got).elements()), list((got - due).elements())
    expect(got == due, f"{why}: missing {_short(missing)}, not expected {_short(extra)}")


def _short(items: Sequence[bytes]) -> str:
    shown = ", ".join([repr(item[:40]) for item in items[:8]])
    return f"{len(items)} ({shown})" if items else "none"


@asynccontextmanager
async def reading(
    begin: Begin, answer: Callable[[Any], Awaitable[Outcome]], patience: float
) -> AsyncIterator[Reader[Any]]:
    """A subscription that has started; stopped, and waited for, on the way out."""
    reader: Reader[Any] = Reader(answer, patience)
    async with trio.open_nursery() as nursery:
        with within(patience, "the subscription did not report that it had started"):
            await nursery.start(reader.run, begin)
        yield reader
        reader.stop()
        await reader.ended()
