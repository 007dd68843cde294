"""A subscription: the messages of a `Reader` delivered, on trio's side.

Partitions side by side, and of each of them as many messages as it lets begin. A failed message keeps its
place among the deliveries while it pauses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from logging import Logger
from typing import final

import trio
from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]

from meshnode.errors import ComponentError
from meshnode.interfaces import Deliveries, Outcome, open_deliveries
from meshnode_kafka._errors import TROUBLE, on_asyncio, translated
from meshnode_kafka._options import Options
from meshnode_kafka._partition import Entry, Partition
from meshnode_kafka._reader import Reader

__all__ = ["Handle", "Subscription"]

Handle = Callable[[ConsumerRecord, int], Awaitable[Outcome]]
"""Takes a record, and its position among all that the subscription began."""


@final
class Subscription:
    """`kind` is the error for what will not pass by itself."""

    def __init__(
        self, reader: Reader, handle: Handle, options: Options, *, log: Logger, kind: type[ComponentError]
    ) -> None:
        self._reader = reader
        self._handle = handle
        self._options = options
        self._log = log
        self._kind = kind

    async def run(self, stop: trio.Event, *, limit: int | None, task_status: trio.TaskStatus[None]) -> None:
        """As `PubSub.subscribe`."""
        errors: list[Exception] = []
        async with trio.open_nursery() as nursery:
            # Ends after the deliveries: they are what it commits. Its own end is bounded.
            reading = trio.CancelScope(shield=True)
            nursery.start_soon(self._read, reading, nursery.cancel_scope, errors)
            try:
                await self._deliver(stop, limit or self._options.channel_buffer_size, task_status)
            except Exception as error:  # out of the nursery it would come in a group
                errors.append(error)
            finally:
                reading.cancel()
        if errors:
            raise errors[0]

    async def _read(
        self, reading: trio.CancelScope, all_of_it: trio.CancelScope, errors: list[Exception]
    ) -> None:
        try:
            with reading:
                await on_asyncio(self._reader.run)
        except TROUBLE as error:
            errors.append(translated(error, self._options.brokers, self._kind))
            all_of_it.cancel()

    async def _deliver(self, stop: trio.Event, limit: int, task_status: trio.TaskStatus[None]) -> None:
        async with open_deliveries(limit=limit, stop=stop) as deliveries:
            await deliveries.unless_stopped(self._reader.settled.wait)
            task_status.started()
            while await deliveries.room():
                await deliveries.unless_stopped(self._reader.arrival)
                taken = None if stop.is_set() else self._reader.take()
                if taken is not None:
                    deliveries.start(partial(self._deliver_one, deliveries, *taken))

    async def _deliver_one(self, deliveries: Deliveries, partition: Partition, entry: Entry) -> None:
        outcome: Outcome | None = None
        scope = trio.CancelScope()
        partition.scopes.add(scope)
        try:
            with scope:
                outcome = await self._handle(entry.record, entry.position)
            if outcome is Outcome.ACK:
                partition.finish(entry)
            elif outcome is Outcome.RETRY:
                await self._failed(deliveries, partition, entry)
        finally:
            partition.scopes.discard(scope)
            self._reader.release(partition, entry)

    async def _failed(self, deliveries: Deliveries, partition: Partition, entry: Entry) -> None:
        entry.attempts += 1
        if self._options.gives_up(entry.attempts):
            record = entry.record
            place = f"{record.topic}/{record.partition}/{record.offset}"
            self._log.warning("kafka: message %s is given up: it was not processed", place)
            partition.finish(entry)
            return
        with trio.move_on_after(self._options.pause(entry.attempts)):
            await deliveries.unless_stopped(partition.gone.wait)
