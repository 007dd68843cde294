"""Events into the application by its callbacks: OnTopicEvent, and OnBulkTopicEvent for several at once."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Sequence
from typing import final

from meshnode.app import AppChannel
from meshnode.blocks.customheaders import metadata_headers
from meshnode.blocks.ids import fresh_id
from meshnode.blocks.keeping import call_app
from meshnode.blocks.pubsub.events import bulk_entry, topic_event
from meshnode.blocks.pubsub.subscription import Arrival, Status, TopicSubscription
from meshnode.blocks.unary import Answer, Encodable, P, decoded
from meshnode.telemetry.tracecontext import next_traceparent
from meshnode.transport import Deadline
from meshnode.transport import Status as Code
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["CallbackReceiver"]

Pair = tuple[bytes, bytes]

_log = logging.getLogger("meshnode.pubsub")

_ON_EVENT = b"/dapr.proto.runtime.v1.AppCallback/OnTopicEvent"
_ON_BULK = b"/dapr.proto.runtime.v1.AppCallback/OnBulkTopicEvent"
_ON_BULK_ALPHA = b"/dapr.proto.runtime.v1.AppCallbackAlpha/OnBulkTopicEventAlpha1"
_BULK_TYPE = "com.dapr.event.sent.bulk"
_MOST_STATE = 512
"""Characters of a `tracestate` that every hop has to carry (W3C Trace Context, 3.3.1.5)."""


@final
class CallbackReceiver:
    """One per node: it keeps nothing but which of the two bulk methods the application has."""

    def __init__(self, app: AppChannel, rng: random.Random) -> None:
        self._app = app
        self._rng = rng
        self._bulk_method = _ON_BULK_ALPHA

    async def receive(
        self, subscription: TopicSubscription, arrivals: Sequence[Arrival], seconds: float
    ) -> Sequence[Status]:
        deadline = Deadline.after(seconds) if seconds else None
        if subscription.bulk is None:
            return [await self._one(subscription, arrival, deadline) for arrival in arrivals]
        return await self._bulk(subscription, arrivals, deadline)

    async def _one(
        self, subscription: TopicSubscription, arrival: Arrival, deadline: Deadline | None
    ) -> Status:
        request = topic_event(arrival.event, subscription.broker.name, arrival.topic, arrival.path)
        headers = [*metadata_headers(arrival.message.metadata), *self._trace(arrival)]
        answer = await self._call(_ON_EVENT, request, headers, deadline)
        return _reply(answer, runtime.TopicEventResponse).status

    async def _bulk(
        self, subscription: TopicSubscription, arrivals: Sequence[Arrival], deadline: Deadline | None
    ) -> list[Status]:
        ids = [fresh_id(self._rng) for _ in arrivals]
        request = runtime.TopicEventBulkRequest(
            id=fresh_id(self._rng),
            entries=[
                bulk_entry(arrival.event, entry_id, arrival.message, raw=subscription.raw)
                for entry_id, arrival in zip(ids, arrivals, strict=True)
            ],
            topic=arrivals[0].topic,
            pubsub_name=subscription.broker.name,
            type=_BULK_TYPE,
            path=arrivals[0].path,
        )
        answer = await self._call_bulk(request, [*self._trace(arrivals[0])], deadline)
        statuses = {
            one.entry_id: one.status for one in _reply(answer, runtime.TopicEventBulkResponse).statuses
        }
        unknown = statuses.keys() - set(ids)
        if unknown:
            _log.warning("Invalid entry id received from app while processing pub/sub event %s", min(unknown))
        # What the application did not mention it has not processed.
        return [statuses.get(entry_id, Status.RETRY) for entry_id in ids]

    async def _call_bulk(
        self,
        request: runtime.TopicEventBulkRequest,
        headers: Sequence[Pair],
        deadline: Deadline | None,
    ) -> Answer:
        """By whichever of the two names the application knows: SDKs have the older one, newer ones both."""
        answer = await self._call(self._bulk_method, request, headers, deadline)
        if answer.error is not None and answer.error.status is Code.UNIMPLEMENTED:
            other = _ON_BULK if self._bulk_method is _ON_BULK_ALPHA else _ON_BULK_ALPHA
            again = await self._call(other, request, headers, deadline)
            if again.error is None or again.error.status is not Code.UNIMPLEMENTED:
                self._bulk_method = other
            return again
        return answer

    async def _call(
        self, path: bytes, request: Encodable, headers: Sequence[Pair], deadline: Deadline | None
    ) -> Answer:
        return await call_app(self._app, path, request, deadline, headers)

    def _trace(self, arrival: Arrival) -> Iterator[Pair]:
        incoming = arrival.event.text("traceparent").encode("ascii", "replace")
        yield b"traceparent", next_traceparent(incoming or None, self._rng)
        state = arrival.event.text("tracestate")
        if state and len(state) <= _MOST_STATE and state.isascii() and state.isprintable():
            yield b"tracestate", state.encode()


def _reply(answer: Answer, kind: type[P]) -> P:
    if answer.error is not None:
        raise answer.error
    return decoded(kind, answer.message, "the application")
