"""The broker: from meshnode's calls to the system's, and from its errors to meshnode's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import final

import trio
from meshnode.errors import BulkPublishError, ComponentUnavailable, PubSubError, Status
from meshnode.interfaces import (
    Deliver,
    DriverContext,
    Message,
    Outcome,
    PublishRequest,
    PubSubFeature,
    SubscribeRequest,
    open_deliveries,
)

from meshnode_pubsub_mine._options import Options
from meshnode_pubsub_mine._system import Consumer, Full, Server, Stored

__all__ = ["Broker"]

_ACKNOWLEDGING_SECONDS = 2.0


@final
class Broker:
    """A `PubSub`."""

    def __init__(self, server: Server, options: Options, context: DriverContext) -> None:
        self._server = server
        self._options = options
        self._group = options.consumer_id or context.app_id

    @property
    def features(self) -> frozenset[PubSubFeature]:
        """`MESSAGE_TTL` would say that the system itself drops what has expired; so the node does."""
        return frozenset({PubSubFeature.BULK_PUBSUB})

    async def publish(self, request: PublishRequest) -> None:
        with _translated():
            await self._server.publish(request.topic, request.data, request.content_type, request.metadata)

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        """One after another; a system that takes several at once is given all here."""
        failures: dict[int, Exception] = {}
        for position, request in enumerate(requests):
            try:
                await self.publish(request)
            except PubSubError as error:
                failures[position] = error
            except ComponentUnavailable as error:
                if position == 0:
                    raise  # none has been taken
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
        """Leaving `consuming`, however that happens, gives back at once what is not acknowledged."""
        with _translated():
            await self._server.declare(request.topic, self._group)
        limit = request.max_in_flight or self._options.concurrency
        numbers = count(1)
        with self._server.consuming(request.topic, self._group) as consumer:
            async with open_deliveries(limit=limit, stop=stop) as deliveries:
                task_status.started()
                while room := await deliveries.room():
                    for stored in await deliveries.unless_stopped(partial(_take, consumer, room)) or ():
                        message = _message(request.topic, stored, next(numbers))
                        deliveries.start(partial(self._handle, consumer, stored, message, deliver, stop))

    async def _handle(
        self, consumer: Consumer, stored: Stored, message: Message, deliver: Deliver, stop: trio.Event
    ) -> None:
        if await deliver(message) is Outcome.ACK:
            # What was processed is not to come again because the subscription ends just now.
            with trio.move_on_after(_ACKNOWLEDGING_SECONDS, shield=True), _translated():
                await consumer.acknowledge(stored)
            return
        # It keeps its place among the deliveries: a consumer that fails everything is not fed faster.
        with trio.move_on_after(self._options.redeliver_interval.total_seconds()):
            await stop.wait()
        with _translated():
            await consumer.give_back(stored)

    async def ping(self) -> None:
        with _translated():
            await self._server.ping()


async def _take(consumer: Consumer, most: int) -> list[Stored]:
    with _translated():
        return await consumer.take(most)


def _message(topic: str, stored: Stored, position: int) -> Message:
    return Message(topic, stored.data, stored.content_type, stored.metadata, position)


@contextmanager
def _translated() -> Iterator[None]:
    """What the system's library raises becomes one of meshnode's errors here."""
    try:
        yield
    except OSError as error:
        raise ComponentUnavailable(str(error)) from error
    except Full as error:
        raise PubSubError(str(error), status=Status.RESOURCE_EXHAUSTED) from error
