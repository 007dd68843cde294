"""A broker, served."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from meshnode.api.service import Stream
from meshnode.errors import BulkPublishError, InvalidArgument
from meshnode.interfaces import Message, Outcome, PublishRequest, PubSub, SubscribeRequest
from meshnode.pluggable.names import GATHERED, MAX_IN_FLIGHT, TTL
from meshnode.pluggable.server.instances import Instance, Instances
from meshnode.pluggable.server.method import Method, service
from meshnode.pluggable.server.pulling import pull
from meshnode.wire.dapr.proto.components import v1 as components

__all__ = ["pubsub_services"]


def pubsub_services(instances: Instances) -> list[Any]:
    methods: dict[str, Method] = {
        "Features": _features,
        "Publish": _publish,
        "BulkPublish": _bulk_publish,
        "Ping": _ping,
    }
    controls = {"Pause": _pause, "Resume": _resume}
    reply = components.PubSubInitResponse
    return [service(components.PubSubBase(), instances, reply, methods, {"PullMessages": _pull}, controls)]


async def _features(broker: PubSub, _: Any) -> components.FeaturesResponse:
    return components.FeaturesResponse(features=sorted(one.value for one in broker.features))


async def _publish(broker: PubSub, request: components.PublishRequest) -> components.PublishResponse:
    await broker.publish(_request(request.topic, request.data, request.content_type, request.metadata))
    return components.PublishResponse()


async def _bulk_publish(
    broker: PubSub, request: components.BulkPublishRequest
) -> components.BulkPublishResponse:
    entries = request.entries
    requests = [
        _request(request.topic, one.event, one.content_type, {**request.metadata, **one.metadata})
        for one in entries
    ]
    failed: list[components.BulkPublishResponseFailedEntry] = []
    try:
        await broker.bulk_publish(requests)
    except BulkPublishError as error:
        failed = [
            components.BulkPublishResponseFailedEntry(entry_id=entries[at].entry_id, error=str(one))
            for at, one in sorted(error.failures.items())
        ]
    return components.BulkPublishResponse(failed_entries=failed)


async def _ping(broker: PubSub, _: Any) -> components.PingResponse:
    await broker.ping()
    return components.PingResponse()


def _pause(instance: Instance) -> components.PauseResponse:
    instance.pause()
    return components.PauseResponse()


def _resume(instance: Instance) -> components.ResumeResponse:
    instance.resumed.set()
    return components.ResumeResponse()


async def _pull(instance: Instance, stream: Stream) -> None:
    first = await stream.recv_message()
    if first is None or first.topic is None:
        raise InvalidArgument("the first message of PullMessages has to name the topic")
    broker: PubSub = instance.served
    await pull(instance, stream, partial(broker.subscribe, _subscription(first.topic)), _message, _answer)


def _subscription(topic: components.Topic) -> SubscribeRequest:
    metadata = dict(topic.metadata)
    gathered = metadata.pop(GATHERED, "") == "true"
    limit = metadata.get(MAX_IN_FLIGHT, "")
    return SubscribeRequest(topic.name, metadata, int(limit) if limit.isdecimal() else None, gathered)


def _message(event: Message, identifier: str) -> components.PullMessagesResponse:
    return components.PullMessagesResponse(
        data=event.data,
        topic_name=event.topic,
        metadata=dict(event.metadata),
        content_type=event.content_type,
        id=identifier,
    )


def _answer(request: components.PullMessagesRequest) -> tuple[str, Outcome]:
    return request.ack_message_id, Outcome.ACK if request.ack_error is None else Outcome.RETRY


def _request(topic: str, data: bytes, content_type: str, metadata: Mapping[str, str]) -> PublishRequest:
    text = metadata.get(TTL, "")
    try:
        ttl = float(text) if text else None
    except ValueError:
        raise InvalidArgument(f"{TTL} must be a number of seconds, not {text!r}") from None
    return PublishRequest(topic, data, content_type, ttl, metadata)
