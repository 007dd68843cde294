"""The broker as a component."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import final

import trio
from attrs import frozen

from meshnode.errors import BulkPublishError, ConfigError, Problem, PubSubError
from meshnode.interfaces import (
    Deliver,
    DriverContext,
    Outcome,
    PublishRequest,
    PubSubFeature,
    SubscribeRequest,
    open_deliveries,
    option,
)
from meshnode_pubsub_in_memory._broker import Consumer, Entry, Group, Topics

__all__ = ["MemoryPubSub", "Options"]

_FEATURES = frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB})


@final
@frozen
class Options:
    """Metadata of `pubsub.in-memory`."""

    consumer_id: str = option("consumerID", "Name of the consumer group; the app id if empty.", default="")
    concurrency: int = option("concurrency", "Deliveries side by side, per subscription.", default=10)
    redeliver_interval: timedelta = option(
        "redeliverInterval", "Pause before a message is delivered again.", default=timedelta(seconds=1)
    )
    max_queued: int = option("maxQueued", "Messages that a consumer group may have waiting.", default=100_000)

    def __attrs_post_init__(self) -> None:
        numbers = (("concurrency", self.concurrency), ("maxQueued", self.max_queued))
        problems = [Problem("must be at least 1", field=name) for name, value in numbers if value < 1]
        if self.redeliver_interval < timedelta(0):
            problems.append(Problem("must not be negative", field="redeliverInterval"))
        if problems:
            raise ConfigError(problems)


@final
class MemoryPubSub:
    """A `PubSub` over `Topics`, its own or shared."""

    def __init__(self, options: Options, context: DriverContext, topics: Topics) -> None:
        self._options = options
        self._context = context
        self._topics = topics

    @property
    def features(self) -> frozenset[PubSubFeature]:
        return _FEATURES

    async def publish(self, request: PublishRequest) -> None:
        await trio.lowlevel.checkpoint()
        self._topics.publish(request, self._context.wall(), self._options.max_queued)

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        await trio.lowlevel.checkpoint()
        failures: dict[int, Exception] = {}
        for position, request in enumerate(requests):
            try:
                self._topics.publish(request, self._context.wall(), self._options.max_queued)
            except PubSubError as error:
                failures[position] = error
        if failures:
            raise BulkPublishError(failures)

    async def subscribe(
        self,
        request: SubscribeRequest,
        deliver: Deliver,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        name = self._options.consumer_id or self._context.app_id
        group = self._topics.group(request.topic, name, self._context.wall)
        consumer = Consumer(request.gathered)
        limit = request.max_in_flight or self._options.concurrency
        async with open_deliveries(limit=limit, stop=stop) as deliveries:
            task_status.started()
            while room := await deliveries.room():
                for entry in await deliveries.unless_stopped(partial(group.take, consumer, room)) or ():
                    deliveries.start(partial(self._handle, group, entry, deliver, stop))

    async def _handle(self, group: Group, entry: Entry, deliver: Deliver, stop: trio.Event) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await deliver(entry.message)
        finally:
            if outcome is Outcome.ACK:
                group.done(entry)
            elif outcome is None:
                group.put_back(entry)
        if outcome is Outcome.RETRY:
            await self._put_back_later(group, entry, stop)

    async def _put_back_later(self, group: Group, entry: Entry, stop: trio.Event) -> None:
        """Keeps its place among the deliveries: a consumer that fails everything is not fed faster."""
        try:
            with trio.move_on_after(self._options.redeliver_interval.total_seconds()):
                await stop.wait()
        finally:
            group.put_back(entry)

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
