"""`bindings.kafka`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import trio
from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]

from meshnode.errors import BindingError, ComponentUnavailable, InvalidArgument
from meshnode.interfaces import (
    BindingEvent,
    BindingRequest,
    BindingResult,
    DriverContext,
    Outcome,
    Receive,
)
from meshnode_kafka._client import Clients
from meshnode_kafka._errors import on_asyncio, translated
from meshnode_kafka._options import BindingOptions
from meshnode_kafka._publisher import Publisher
from meshnode_kafka._reader import Reader
from meshnode_kafka._records import Codec
from meshnode_kafka._subscription import Subscription

__all__ = ["KafkaBinding"]


@final
class KafkaBinding:
    """An `OutputBinding` and an `InputBinding`."""

    def __init__(
        self, options: BindingOptions, context: DriverContext, clients: Clients, publisher: Publisher
    ) -> None:
        self._options = options
        self._context = context
        self._clients = clients
        self._publisher = publisher
        self._codec = Codec(options)

    @property
    def operations(self) -> Sequence[str]:
        return ("create",)

    async def invoke(self, request: BindingRequest) -> BindingResult:
        if request.operation != "create":
            raise InvalidArgument(f"bindings.kafka has no operation {request.operation!r}; it has create")
        if not self._options.publish_topic:
            raise BindingError("the component's metadata has no publishTopic")
        record = self._codec.record(self._options.publish_topic, request.data, request.metadata)
        (error,) = await on_asyncio(self._publisher.publish, [record])
        if error is not None:
            raise translated(error, self._options.brokers, BindingError) from error
        return BindingResult()

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        options, log = self._options, self._context.log
        if not options.topic_names:
            # As with Dapr, an output binding needs no direction to be one.
            task_status.started()
            await stop.wait()
            return

        async def handle(record: ConsumerRecord, _position: int) -> Outcome:
            return await receive(BindingEvent(self._codec.data(record), self._codec.metadata(record)))

        group = options.consumer_group or options.consumer_id or self._context.app_id
        reader = Reader(
            lambda: self._clients.consumer(group),
            options.topic_names,
            most=options.channel_buffer_size,
            reach=1,
            from_newest=options.from_newest,
            grace=options.session_timeout.total_seconds(),
            log=log,
        )
        subscription = Subscription(reader, handle, options, log=log, kind=BindingError)
        await subscription.run(stop, limit=None, task_status=task_status)

    async def ping(self) -> None:
        if not await on_asyncio(self._publisher.ping):
            raise ComponentUnavailable(f"kafka at {self._options.brokers}: no broker answers")
