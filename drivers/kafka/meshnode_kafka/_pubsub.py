"""`pubsub.kafka`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import trio
from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]

from meshnode.errors import (
    BulkPublishError,
    ComponentUnavailable,
    InvalidArgument,
    PubSubError,
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
from meshnode_kafka._client import Clients
from meshnode_kafka._errors import TROUBLE, on_asyncio, translated
from meshnode_kafka._options import Options
from meshnode_kafka._publisher import Publisher
from meshnode_kafka._reader import Reader
from meshnode_kafka._records import Codec, Record, check_schema
from meshnode_kafka._subscription import Subscription

__all__ = ["KafkaPubSub"]

_FEATURES = frozenset({PubSubFeature.BULK_PUBSUB})


@final
class KafkaPubSub:
    """A `PubSub`."""

    def __init__(
        self, options: Options, context: DriverContext, clients: Clients, publisher: Publisher
    ) -> None:
        self._options = options
        self._context = context
        self._clients = clients
        self._publisher = publisher
        self._codec = Codec(options)

    @property
    def features(self) -> frozenset[PubSubFeature]:
        return _FEATURES

    async def publish(self, request: PublishRequest) -> None:
        record = self._codec.record(request.topic, request.data, request.metadata)
        (error,) = await on_asyncio(self._publisher.publish, [record])
        if error is not None:
            raise self._translated(error) from error

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        records: dict[int, Record] = {}
        failures: dict[int, Exception] = {}
        for position, request in enumerate(requests):
            try:
                records[position] = self._codec.record(request.topic, request.data, request.metadata)
            except InvalidArgument as error:
                failures[position] = error
        outcomes = await on_asyncio(self._publisher.publish, list(records.values()))
        for position, outcome in zip(records, outcomes, strict=True):
            if outcome is not None:
                failures[position] = self._translated(outcome)
        lost = [error for error in failures.values() if isinstance(error, ComponentUnavailable)]
        if lost and len(lost) == len(requests):
            raise lost[0]
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
        check_schema(request.metadata)

        async def handle(record: ConsumerRecord, position: int) -> Outcome:
            metadata = self._codec.metadata(record)
            data = self._codec.data(record)
            return await deliver(Message(record.topic, data, "", metadata, position))

        options, log = self._options, self._context.log
        group = options.consumer_group or options.consumer_id or self._context.app_id
        limit = request.max_in_flight or options.channel_buffer_size
        reader = Reader(
            lambda: self._clients.consumer(group),
            [request.topic],
            most=options.channel_buffer_size,
            reach=max(limit, options.channel_buffer_size) if request.gathered else 1,
            from_newest=options.from_newest,
            grace=options.session_timeout.total_seconds(),
            log=log,
        )
        subscription = Subscription(reader, handle, options, log=log, kind=PubSubError)
        await subscription.run(stop, limit=limit, task_status=task_status)

    async def ping(self) -> None:
        if not await on_asyncio(self._publisher.ping):
            raise ComponentUnavailable(f"kafka at {self._options.brokers}: no broker answers")

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, TROUBLE):
            return translated(error, self._options.brokers, PubSubError)
        return error
