"""Deliveries side by side: what every driver's subscription needs around its broker.

    async with open_deliveries(limit=10, stop=stop) as deliveries:
        task_status.started()
        while room := await deliveries.room():
            for item in await deliveries.unless_stopped(partial(take, room)) or ():
                deliveries.start(partial(handle, item), key=item.partition)

`room` is the back-pressure: nothing is taken from the broker that could not be begun at once. Deliveries of
one key follow one another; the others run side by side. Leaving the block waits for those under way;
cancelling it cancels them, and what each has to give back is its own `finally`'s business (shielded, with a
deadline, where that awaits).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar, final

import trio

__all__ = ["Deliveries", "open_deliveries"]

T = TypeVar("T")
Handle = Callable[[], Awaitable[object]]


@final
class Deliveries:
    """Made by `open_deliveries`. `room` and `start` are for the one task that takes from the broker."""

    def __init__(self, start_soon: Callable[..., None], limit: int, stop: trio.Event) -> None:
        self._start_soon = start_soon
        self._limit = limit
        self._stop = stop
        self._under_way = 0
        self._freed = trio.Event()
        self._waits: set[trio.CancelScope] = set()
        self._queues: dict[Hashable, deque[tuple[Handle, Handle]]] = {}
        self._beginning: deque[Handle] = deque()

    @property
    def under_way(self) -> int:
        """Deliveries begun and not ended, those that wait for their key included."""
        return self._under_way

    async def room(self) -> int:
        """How many deliveries may be begun now, at least 1; 0 once the subscription is to stop."""
        await trio.lowlevel.checkpoint()
        while not self._stop.is_set():
            if self._under_way < self._limit:
                return self._limit - self._under_way
            self._freed = trio.Event()
            await self.unless_stopped(self._freed.wait)
        return 0

    async def unless_stopped(self, wait: Callable[[], Awaitable[T]]) -> T | None:
        """The result of `wait`, or None where the stop came first; `wait` is cancelled then.

        It must lose nothing when it is cancelled. What it has returned is never lost: nothing is awaited
        after it.
        """
        if self._stop.is_set():
            await trio.lowlevel.checkpoint()
            return None
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                return await wait()
            finally:
                self._waits.discard(scope)
        return None

    async def watch(self, scope: trio.CancelScope) -> None:
        """`open_deliveries` runs this: it ends what `unless_stopped` waits for when the stop comes."""
        with scope:
            await self._stop.wait()
            for wait in self._waits:
                wait.cancel()

    def start(self, handle: Handle, key: Hashable = None, unbegun: Handle | None = None) -> None:
        """Begin a delivery, or queue it behind those of its key. `handle` reports its own failures: one
        that raises ends the subscription.

        Every `handle` begins, even if only to be cancelled at its first checkpoint, so its `finally` can be
        relied on to give back. Those that are begun together begin in their order. Where the stop came before
        its turn, `unbegun` takes its place, if given.
        """
        self._under_way += 1
        if key is None:
            self._begin(partial(self._run, handle))
        elif key in self._queues:
            self._queues[key].append((handle, unbegun or handle))
        else:
            self._queues[key] = deque([(handle, handle)])
            self._begin(partial(self._run_key, key))

    def _begin(self, run: Handle) -> None:
        """Whichever task trio lets run first, it takes the first that waits."""
        self._beginning.append(run)
        self._start_soon(self._begin_next)

    async def _begin_next(self) -> None:
        await self._beginning.popleft()()

    async def _run(self, handle: Handle) -> None:
        try:
            await handle()
        finally:
            self._under_way -= 1
            self._freed.set()

    async def _run_key(self, key: Hashable) -> None:
        queue = self._queues[key]
        try:
            while queue:
                handle, unbegun = queue.popleft()
                await self._run(unbegun if self._stop.is_set() else handle)
        finally:
            del self._queues[key]
            for handle, _ in queue:  # only when the subscription ends: they are cancelled as they begin
                self._start_soon(self._run, handle)


@asynccontextmanager
async def open_deliveries(*, limit: int, stop: trio.Event) -> AsyncIterator[Deliveries]:
    """See the module. `limit` is the number of deliveries that may be under way at once, at least 1.

    An error of the block or of a delivery comes out as itself, not in a group; of several, the first.
    """
    watcher = trio.CancelScope()
    try:
        async with trio.open_nursery() as nursery:
            deliveries = Deliveries(nursery.start_soon, max(1, limit), stop)
            nursery.start_soon(deliveries.watch, watcher)
            try:
                yield deliveries
            finally:
                watcher.cancel()
    except BaseExceptionGroup as group:
        error = next(_leaves(group))
        raise error from error.__cause__


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Its errors, cancellations last."""
    cancelled, rest = group.split(trio.Cancelled)
    for part in (rest, cancelled):
        for error in part.exceptions if part is not None else ():
            if isinstance(error, BaseExceptionGroup):
                yield from _leaves(error)
            else:
                yield error
