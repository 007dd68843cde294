"""`pubsub.mqtt3`: the broker as a component."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

import trio

from meshnode.errors import (
    BulkPublishError,
    ComponentUnavailable,
    InvalidArgument,
    MeshError,
)
from meshnode.interfaces import (
    Deliver,
    Message,
    Outcome,
    PublishRequest,
    PubSubFeature,
    SubscribeRequest,
)
from meshnode_mqtt._consume import Terms, consume
from meshnode_mqtt._held import Held
from meshnode_mqtt._options import PubSubOptions
from meshnode_mqtt._publisher import Publisher, Ticket
from meshnode_mqtt._session import Session
from meshnode_mqtt._topics import check_filter, check_topic

__all__ = ["DEFAULT_LIMIT", "MqttPubSub", "truth"]

DEFAULT_LIMIT = 20
"""Deliveries side by side, where nobody says: as many as mosquitto leaves unacknowledged, by default."""

_TRUE, _FALSE = ("1", "t", "true", "y", "yes", "on"), ("0", "f", "false", "n", "no", "off", "")


def truth(name: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise InvalidArgument(f"{name}: {text!r} is neither true nor false")


@final
class MqttPubSub:
    """A `PubSub`: one connection to publish, one for the session."""

    def __init__(self, options: PubSubOptions, publisher: Publisher, session: Session) -> None:
        self._options = options
        self._publisher = publisher
        self._session = session

    @property
    def features(self) -> frozenset[PubSubFeature]:
        return frozenset({PubSubFeature.SUBSCRIBE_WILDCARDS, PubSubFeature.BULK_PUBSUB})

    async def publish(self, request: PublishRequest) -> None:
        await self._publisher.confirmed(await self._send(request))

    async def _send(self, request: PublishRequest) -> Ticket | None:
        if wrong := check_topic(request.topic):
            raise InvalidArgument(wrong)
        retain = self._options.retain
        if given := request.metadata.get("retain"):
            retain = truth("retain", given)
        try:
            return await self._publisher.send(
                request.topic, request.data, qos=self._options.qos, retain=retain
            )
        except ValueError as error:
            raise InvalidArgument(str(error)) from error

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        await trio.lowlevel.checkpoint()
        failures: dict[int, Exception] = {}
        tickets: dict[int, Ticket | None] = {}
        for position, request in enumerate(requests):
            try:
                tickets[position] = await self._send(request)
            except MeshError as error:
                failures[position] = error
        if not tickets and any(isinstance(error, ComponentUnavailable) for error in failures.values()):
            raise ComponentUnavailable(str(failures[0]))
        for position, ticket in tickets.items():
            try:
                await self._publisher.confirmed(ticket)
            except ComponentUnavailable as error:
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
        if wrong := check_filter(request.topic):
            raise InvalidArgument(wrong)
        terms = Terms(
            topic=request.topic,
            qos=self._options.qos,
            limit=request.max_in_flight or DEFAULT_LIMIT,
            interval=self._options.redeliver_interval.total_seconds(),
            forget=truth("unsubscribeOnClose", request.metadata.get("unsubscribeOnClose", "")),
        )
        await consume(self._session, terms, partial(_offer, deliver), stop, task_status)

    async def ping(self) -> None:
        await self._publisher.ping()


async def _offer(deliver: Deliver, held: Held) -> Outcome:
    packet = held.packet
    metadata = {"retained": "true" if packet.retain else "false"}
    return await deliver(Message(packet.topic, packet.data, metadata=metadata, position=held.position))
