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
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import TypeVar, final

import trio

__all__ = ["Deliveries", "open_deliveries"]

T = TypeVar("T")
Handle = Callable[[], Awaitable[object]]


@final
class Deliveries:
    """Made by `open_deliveries`. For the one task that takes from the broker."""

    def __init__(self, start_soon: Callable[..., None], limit: int, stop: trio.Event) -> None:
        self._start_soon = start_soon
        self._limit = limit
        self._stop = stop
        self._under_way = 0
        self._freed = trio.Event()
        self._queues: dict[Hashable, deque[Handle]] = {}

    @property
    def under_way(self) -> int:
        """Deliveries begun and not ended, those that wait for their key included."""
        return self._under_way

    async def room(self) -> int:
        """How many deliveries may be begun now, at least 1; 0 once the subscription is to stop."""
        while not self._stop.is_set():
            if self._under_way < self._limit:
                await trio.lowlevel.checkpoint()
                return self._limit - self._under_way
            self._freed = trio.Event()
            await self.unless_stopped(self._freed.wait)
        return 0

    async def unless_stopped(self, wait: Callable[[], Awaitable[T]]) -> T | None:
        """The result of `wait`, or None where the stop came first; `wait` is cancelled then.

        It must lose nothing when it is cancelled.
        """
        result: T | None = None
        error: Exception | None = None
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._stop.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                result = await wait()
            except Exception as raised:  # out of the nursery it would come in a group
                error = raised
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error
        return result

    def start(self, handle: Handle, key: Hashable = None) -> None:
        """Begin a delivery, or queue it behind those of its key. `handle` reports its own failures: one
        that raises ends the subscription.
        """
        self._under_way += 1
        if key is None:
            self._start_soon(self._run, handle)
        elif key in self._queues:
            self._queues[key].append(handle)
        else:
            self._queues[key] = deque([handle])
            self._start_soon(self._run_key, key)

    async def _run(self, handle: Handle) -> None:
        try:
            await handle()
        finally:
            self._under_way -= 1
            self._freed.set()

    async def _run_key(self, key: Hashable) -> None:
        queue = self._queues[key]
        while queue:
            await self._run(queue.popleft())
        del self._queues[key]


@asynccontextmanager
async def open_deliveries(*, limit: int, stop: trio.Event) -> AsyncIterator[Deliveries]:
    """See the module. `limit` is the number of deliveries that may be under way at once, at least 1."""
    async with trio.open_nursery() as nursery:
        yield Deliveries(nursery.start_soon, max(1, limit), stop)
