"""`pubsub.rabbitmq`: a topic is an exchange, a consumer group's share of it is a queue `consumerID-topic`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import trio
from aiormq.abc import DeliveredMessage

from meshnode.errors import (
    BulkPublishError,
    ComponentError,
    ComponentUnavailable,
    PubSubError,
    Status,
)
from meshnode.interfaces import (
    Deliver,
    DriverContext,
    Message,
    Outcome,
    PublishRequest,
    PubSubFeature,
    SubscribeRequest,
)
from meshnode_rabbitmq._link import TROUBLE, Link, on_asyncio, translated
from meshnode_rabbitmq._properties import message_metadata, pubsub_properties
from meshnode_rabbitmq._publisher import Publication, Publisher
from meshnode_rabbitmq._pubsub_options import PubSubOptions
from meshnode_rabbitmq._subscription import Manner, Source, follow
from meshnode_rabbitmq._topology import queue_name, subscription, topic_exchange

__all__ = ["RabbitPubSub"]

_MOST_PREFETCHED = 65535
_FEATURES = frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB})


@final
class RabbitPubSub:
    """A `PubSub`. Publishing and consuming have a connection each: a broker that is short of memory stops
    reading from those that publish, and acknowledgements must not wait with them.
    """

    def __init__(
        self,
        options: PubSubOptions,
        context: DriverContext,
        publisher: Publisher,
        publishing: Link,
        consuming: Link,
    ) -> None:
        self._options = options
        self._context = context
        self._publisher = publisher
        self._publishing = publishing
        self._consuming = consuming

    @property
    def features(self) -> frozenset[PubSubFeature]:
        return _FEATURES

    async def publish(self, request: PublishRequest) -> None:
        await self._publisher.publish(self._publication(request))

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        failures: dict[int, Exception] = {}
        sound: dict[int, Publication] = {}
        for position, request in enumerate(requests):
            try:
                sound[position] = self._publication(request)
            except PubSubError as error:
                failures[position] = error
        errors: Sequence[ComponentError | None]
        try:
            errors = await self._publisher.publish_all(list(sound.values()))
        except ComponentUnavailable as error:
            if not failures:
                raise
            errors = [error] * len(sound)
        failures |= {at: error for at, error in zip(sound, errors, strict=True) if error is not None}
        if failures:
            raise BulkPublishError(dict(sorted(failures.items())))

    def _publication(self, request: PublishRequest) -> Publication:
        default = self._options.ttl_in_seconds
        ttl = default.total_seconds() if request.ttl is None and default is not None else request.ttl
        publication = Publication(
            request.topic,
            request.metadata.get("routingKey", ""),
            request.data,
            pubsub_properties(
                request.metadata,
                content_type=request.content_type,
                ttl=ttl,
                delivery_mode=self._options.delivery_mode,
            ),
            needs=topic_exchange(self._options, request.topic),
        )
        try:
            publication.check()
        except ValueError as error:
            text = f"a message for topic {request.topic} {error}"
            raise PubSubError(text, status=Status.INVALID_ARGUMENT) from error
        return publication

    async def subscribe(
        self,
        request: SubscribeRequest,
        deliver: Deliver,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        options = self._options
        limit = options.limit(request.max_in_flight)
        manner = Manner(
            limit,
            options.redeliver_interval.total_seconds(),
            requeues=options.requeues,
            accepts_failed=options.auto_ack,
        )

        async def handle(message: DeliveredMessage) -> Outcome:
            return await deliver(self._message(request.topic, message))

        source = self._source(request, min(options.prefetch_count or limit, _MOST_PREFETCHED))
        await follow(self._consuming, source, manner, handle, stop, PubSubError, task_status)

    def _source(self, request: SubscribeRequest, prefetch: int) -> Source:
        queue = queue_name(self._options, self._context.app_id, request.topic, request.metadata)
        try:
            parts = subscription(self._options, request.topic, queue, request.metadata)
        except ValueError as error:
            text = f"the subscription to {request.topic} has impossible metadata: {error}"
            raise PubSubError(text, status=Status.INVALID_ARGUMENT) from error
        return Source(queue, parts, prefetch)

    def _message(self, topic: str, message: DeliveredMessage) -> Message:
        return Message(
            topic,
            message.body,
            message.header.properties.content_type or "",
            message_metadata(message) if self._options.properties_to_metadata else {},
            # Rises with every message that the channel brings.
            position=message.delivery_tag or 0,
        )

    async def ping(self) -> None:
        try:
            await on_asyncio(self._publishing.ping)
        except TROUBLE as error:
            raise translated(self._publishing.address, error, PubSubError) from error
