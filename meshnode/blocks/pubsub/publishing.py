"""PublishEvent and BulkPublishEvent: what happens to an event between the application and the broker."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import final

import trio
from attrs import evolve

from meshnode.blocks.call import Call
from meshnode.blocks.ids import fresh_id
from meshnode.blocks.pubsub.brokers import Broker, Brokers, pubsub_error
from meshnode.blocks.pubsub.envelope import Origin, expiration_text, time_text, wrap
from meshnode.blocks.scoped import scoped
from meshnode.errors import (
    BadRequestDetail,
    BulkPublishError,
    CircuitOpen,
    InvalidArgument,
    MeshError,
    Status,
)
from meshnode.interfaces import PublishRequest
from meshnode.telemetry.tracecontext import next_traceparent
from meshnode.transport import HeaderBlock
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty

__all__ = ["Publishing", "is_raw"]

_EMPTY = Empty()
_TTL = "ttlInSeconds"
_RAW = "rawPayload"
_TRUE = frozenset({"true", "t", "1"})
_FALSE = frozenset({"false", "f", "0", ""})
_WHOLE = re.compile(r"[0-9]{1,10}")


@final
class Publishing:
    """The publisher's side of a node's pub/sub components."""

    def __init__(self, brokers: Brokers, wall: Callable[[], float], rng: random.Random) -> None:
        self._brokers = brokers
        self._wall = wall
        self._rng = rng

    async def publish(self, request: runtime.PublishEventRequest, headers: HeaderBlock, call: Call) -> Empty:
        broker = self._target(request.pubsub_name, request.topic)
        one = self._prepare(
            broker, request.topic, request.data, request.data_content_type, request.metadata, headers
        )
        try:
            await self.send(broker, one, call)
        except MeshError as error:
            raise _failed(broker, request.topic, error) from error
        return _EMPTY

    async def bulk_publish(
        self, request: runtime.BulkPublishRequest, headers: HeaderBlock, call: Call
    ) -> runtime.BulkPublishResponse:
        """Per-entry errors go into the answer; an error of the call means that no entry was taken."""
        broker = self._target(request.pubsub_name, request.topic)
        _check_entry_ids(broker, request, self._brokers.app_id)
        prepared = [
            self._prepare(
                broker,
                request.topic,
                entry.event,
                entry.content_type,
                {**request.metadata, **entry.metadata},
                headers,
            )
            for entry in request.entries
        ]
        failures: Mapping[int, Exception] = {}
        try:
            await self._send_all(broker, prepared, call)
        except BulkPublishError as error:
            failures = error.failures
        except MeshError as error:
            raise _failed(broker, request.topic, error) from error
        failed = [
            runtime.BulkPublishResponseFailedEntry(
                entry_id=request.entries[at].entry_id, error=str(failures[at])
            )
            for at in sorted(failures)
        ]
        return runtime.BulkPublishResponse(failed_entries=failed)

    async def send(
        self, broker: Broker, request: PublishRequest, call: Call, *, stop: trio.Event | None = None
    ) -> None:
        """Publish what is ready as it is, under the component's outbound policy; the topic is the
        application's name for it. No attempt is repeated once `stop` is set.
        """
        request = evolve(request, topic=broker.prefix + request.topic) if broker.prefix else request

        async def attempt() -> None:
            await broker.driver.publish(request)

        await scoped(broker.outbound, attempt, call, stop=stop)

    async def _send_all(self, broker: Broker, requests: Sequence[PublishRequest], call: Call) -> None:
        """A retry repeats only what failed."""
        left = [
            (at, evolve(one, topic=broker.prefix + one.topic) if broker.prefix else one)
            for at, one in enumerate(requests)
        ]

        async def attempt() -> None:
            try:
                await broker.driver.bulk_publish([one for _, one in left])
            except BulkPublishError as error:
                failures = {left[at][0]: cause for at, cause in error.failures.items()}
                left[:] = [left[at] for at in sorted(error.failures)]
                raise BulkPublishError(failures) from error

        if left:
            try:
                await scoped(broker.outbound, attempt, call)
            except BulkPublishError:
                raise
            except MeshError as error:
                if len(left) == len(requests):
                    raise
                # What an earlier attempt took stays taken.
                raise BulkPublishError({at: error for at, _ in left}) from error

    def _target(self, name: str, topic: str) -> Broker:
        broker = self._brokers.find(name)
        if not topic:
            message = f"topic is empty in pubsub {name}"
            raise pubsub_error(Status.INVALID_ARGUMENT, "TOPIC_NAME_EMPTY", message, name)
        self.check_scope(broker, topic)
        return broker

    def check_scope(self, broker: Broker, topic: str) -> None:
        """Raises that this application may not publish to the topic."""
        if not broker.scopes.may_publish(topic):
            message = f"topic {topic} is not allowed for app id {self._brokers.app_id}"
            details = {"topic": topic, "error": message}
            raise pubsub_error(Status.PERMISSION_DENIED, "FORBIDDEN", message, broker.name, details)

    def _prepare(
        self,
        broker: Broker,
        topic: str,
        data: bytes,
        content_type: str,
        metadata: Mapping[str, str],
        headers: HeaderBlock,
    ) -> PublishRequest:
        ttl = _ttl(metadata)
        if is_raw(metadata, broker.name):
            return PublishRequest(topic, data, ttl=ttl, metadata=metadata)
        expiration = "" if ttl is None or broker.keeps_time else expiration_text(self._wall() + ttl)
        try:
            origin = self.origin(broker.name, topic, headers)
            event = wrap(data, content_type, metadata, origin, expiration=expiration)
        except ValueError as error:
            raise pubsub_error(
                Status.INVALID_ARGUMENT,
                "CLOUD_EVENT_CREATION",
                f"cannot create cloudevent: {error}",
                broker.name,
                {"appID": self._brokers.app_id, "error": str(error)},
            ) from error
        return PublishRequest(topic, event, ttl=ttl, metadata=metadata)

    def origin(self, pubsub: str, topic: str, headers: HeaderBlock | None) -> Origin:
        """Where an event of this application comes from, with an id of its own."""
        incoming = headers.get(b"traceparent") if headers is not None else None
        state = headers.get(b"tracestate") if headers is not None else None
        return Origin(
            id=fresh_id(self._rng),
            source=self._brokers.app_id,
            topic=topic,
            pubsub=pubsub,
            traceparent=next_traceparent(incoming, self._rng).decode(),
            tracestate=(state or b"").decode("utf-8", "replace"),
            time=time_text(self._wall()),
        )


def is_raw(metadata: Mapping[str, str], name: str) -> bool:
    """`rawPayload`, in any case. Raises `InvalidArgument` for a value that is neither true nor false."""
    for key, value in metadata.items():
        if key.lower() == _RAW.lower():
            word = value.strip().lower()
            if word not in _TRUE and word not in _FALSE:
                cause = f"{_RAW} value must be a valid boolean: actual is '{value}'"
                message = f"failed deserializing metadata. Error: {cause}"
                raise pubsub_error(
                    Status.INVALID_ARGUMENT, "METADATA_DESERIALIZATION", message, name, {key: value}
                )
            return word in _TRUE
    return False


def _ttl(metadata: Mapping[str, str]) -> float | None:
    for key, value in metadata.items():
        if key.lower() == _TTL.lower() and value:
            if not _WHOLE.fullmatch(value) or not int(value):
                message = f"{_TTL} must be a whole number of seconds from 1, not {value!r}"
                raise InvalidArgument(message, BadRequestDetail([(f"metadata.{_TTL}", message)]))
            return float(value)
    return None


def _check_entry_ids(broker: Broker, request: runtime.BulkPublishRequest, app_id: str) -> None:
    seen: set[str] = set()
    for entry in request.entries:
        if not entry.entry_id or entry.entry_id in seen:
            cause = "entryId is duplicated or not present for entry"
            message = f"error marshaling events to bytes for topic {request.topic} pubsub {broker.name}"
            raise pubsub_error(
                Status.INVALID_ARGUMENT,
                "MARSHAL_EVENTS",
                f"{message}. error: {cause}",
                broker.name,
                {"appID": app_id, "error": cause},
            )
        seen.add(entry.entry_id)


def _failed(broker: Broker, topic: str, error: MeshError) -> MeshError:
    if isinstance(error, CircuitOpen):
        return error
    message = f"error when publishing to topic {topic} in pubsub {broker.name}: {error}"
    status = error.code if error.code is Status.RESOURCE_EXHAUSTED else Status.INTERNAL
    return pubsub_error(
        status, "PUBLISH_MESSAGE", message, broker.name, {"topic": topic, "error": str(error)}
    )
