"""`bindings.mqtt3`: events from a topic, and messages to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

import trio

from meshnode.errors import InvalidArgument
from meshnode.interfaces import BindingEvent, BindingRequest, BindingResult, Outcome, Receive
from meshnode_mqtt._consume import Terms, consume
from meshnode_mqtt._held import Held
from meshnode_mqtt._options import BindingOptions
from meshnode_mqtt._publisher import Publisher
from meshnode_mqtt._pubsub import DEFAULT_LIMIT, truth
from meshnode_mqtt._session import Session
from meshnode_mqtt._topics import check_topic

__all__ = ["MqttBinding"]

_QOS = 1


@final
class MqttBinding:
    """An `InputBinding` and an `OutputBinding`."""

    def __init__(self, options: BindingOptions, publisher: Publisher, session: Session) -> None:
        self._options = options
        self._publisher = publisher
        self._session = session

    @property
    def operations(self) -> Sequence[str]:
        return ("create",)

    async def invoke(self, request: BindingRequest) -> BindingResult:
        if request.operation != "create":
            raise InvalidArgument(f"operation {request.operation!r} is not create")
        topic = request.metadata.get("topic") or self._options.topic
        if wrong := check_topic(topic):
            raise InvalidArgument(wrong)
        retain = self._options.retain
        if given := request.metadata.get("retain"):
            retain = truth("retain", given)
        try:
            await self._publisher.publish(topic, request.data, qos=_QOS, retain=retain)
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
        return BindingResult()

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        options = self._options
        terms = Terms(
            topic=options.topic,
            qos=_QOS,
            limit=DEFAULT_LIMIT,
            interval=options.redeliver_interval.total_seconds(),
            retries=options.back_off_max_retries,
        )
        await consume(self._session, terms, partial(_offer, receive), stop, task_status)


async def _offer(receive: Receive, held: Held) -> Outcome:
    return await receive(BindingEvent(held.packet.data, {"topic": held.packet.topic}))
