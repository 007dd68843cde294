"""A broker in another process."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, final

import trio

from meshnode.errors import BulkPublishError, ComponentError, ComponentUnavailable, PubSubError
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
from meshnode.pluggable.client.connection import Connection, Session, kept
from meshnode.pluggable.client.errors import translated
from meshnode.pluggable.client.initialising import Properties, initialise
from meshnode.pluggable.client.pulling import DEFAULT_LIMIT, Pull, opened
from meshnode.pluggable.names import GATHERED, MAX_IN_FLIGHT, PUBSUB, TTL
from meshnode.wire.dapr.proto.components import v1 as components

__all__ = ["PluggableBroker", "open_broker"]

_KNOWN = {feature.value: feature for feature in PubSubFeature}
_PULL = f"/{PUBSUB}/PullMessages"


@final
class PluggableBroker:
    """A `PubSub`."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.features: frozenset[PubSubFeature] = frozenset()
        self._attentive = False
        self._name = name

    async def begin(self, properties: Mapping[str, str], session: Session) -> None:
        types = (components.PubSubInitRequest, components.PubSubInitResponse)
        self._attentive = await initialise(session, PUBSUB, *types, properties)
        with translated(ComponentError):
            reply = await session.stub(components.PubSubStub).features(components.FeaturesRequest())
        self.features = frozenset(_KNOWN[name] for name in reply.features if name in _KNOWN)

    async def publish(self, request: PublishRequest) -> None:
        message = components.PublishRequest(
            data=request.data,
            pubsub_name=self._name,
            topic=request.topic,
            metadata=_metadata(request),
            content_type=request.content_type,
        )
        with translated(PubSubError):
            await self.connection.stub(components.PubSubStub).publish(message)

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        if PubSubFeature.BULK_PUBSUB in self.features:
            await self._publish_together(requests)
        else:
            await self._publish_in_turn(requests)

    async def _publish_together(self, requests: Sequence[PublishRequest]) -> None:
        if not requests:
            return
        entries = [
            components.BulkMessageEntry(
                entry_id=str(at), event=one.data, content_type=one.content_type, metadata=_metadata(one)
            )
            for at, one in enumerate(requests)
        ]
        message = components.BulkPublishRequest(
            entries=entries, pubsub_name=self._name, topic=requests[0].topic
        )
        with translated(PubSubError):
            reply = await self.connection.stub(components.PubSubStub).bulk_publish(message)
        failures: dict[int, Exception] = {
            int(entry.entry_id): PubSubError(entry.error)
            for entry in reply.failed_entries
            if entry.entry_id.isdecimal() and int(entry.entry_id) < len(requests)
        }
        if failures:
            raise BulkPublishError(failures)
        if reply.failed_entries:
            raise PubSubError(f"some messages were not taken: {reply.failed_entries[0].error}")

    async def _publish_in_turn(self, requests: Sequence[PublishRequest]) -> None:
        failures: dict[int, Exception] = {}
        for at, one in enumerate(requests):
            try:
                await self.publish(one)
            except ComponentUnavailable as error:
                if len(failures) == at:
                    raise  # none has been taken
                failures[at] = error
            except PubSubError as error:
                failures[at] = error
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
        types = (components.PullMessagesRequest, components.PullMessagesResponse)
        limit = request.max_in_flight or DEFAULT_LIMIT
        positions = count(1)
        async with opened(self.connection.session, _PULL, *types, PubSubError) as pull:
            first = components.PullMessagesRequest(topic=_topic(request))
            await pull.begin(first, self._attentive, self.ping)
            async with open_deliveries(limit=limit, stop=stop) as deliveries:
                task_status.started()

                def start(message: Any) -> None:
                    deliveries.start(partial(_handle, pull, message, next(positions), deliver))

                await pull.messages(deliveries, stop, start)

    async def ping(self) -> None:
        with translated(ComponentUnavailable):
            await self.connection.stub(components.PubSubStub).ping(components.PingRequest())


@asynccontextmanager
async def open_broker(
    path: Path, services: frozenset[str], properties: Properties, context: DriverContext
) -> AsyncIterator[PluggableBroker]:
    broker = PluggableBroker(Connection(path, context), context.component)
    async with kept(broker.connection, partial(broker.begin, properties.passed_on)):
        yield broker


async def _handle(
    pull: Pull, message: components.PullMessagesResponse, position: int, deliver: Deliver
) -> None:
    event = Message(message.topic_name, message.data, message.content_type, message.metadata, position)
    outcome = await deliver(event)
    answer = components.PullMessagesRequest(ack_message_id=message.id)
    if outcome is not Outcome.ACK:
        answer.ack_error = components.AckMessageError(message="the event was not processed")
    await pull.acknowledge(answer)


def _topic(request: SubscribeRequest) -> components.Topic:
    metadata = dict(request.metadata)
    if request.max_in_flight is not None:
        metadata[MAX_IN_FLIGHT] = str(request.max_in_flight)
    if request.gathered:
        metadata[GATHERED] = "true"
    return components.Topic(name=request.topic, metadata=metadata)


def _metadata(request: PublishRequest) -> dict[str, str]:
    ttl = {} if request.ttl is None else {TTL: str(math.ceil(request.ttl))}
    return {**request.metadata, **ttl}
