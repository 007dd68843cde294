"""SubscribeTopicEventsAlpha1: a subscription for as long as its stream is open.

The stream's request nursery hosts everything. When the stream breaks, that nursery is cancelled, and with it
the driver's subscription: what the application had not acknowledged goes back to the broker at once, and no
consumer stays behind. Each stream is a subscription of its own; several of one topic share its messages, as
instances of an application do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import trio

from meshnode.blocks.pubsub.delivery import NotProcessed
from meshnode.blocks.pubsub.events import topic_event
from meshnode.blocks.pubsub.subscription import Arrival, Status, TopicSubscription
from meshnode.errors import InvalidArgument
from meshnode.transport import Stream
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["EventStream", "StreamReceiver", "initial_request"]

EventStream = Stream[runtime.SubscribeTopicEventsRequestAlpha1, runtime.SubscribeTopicEventsResponseAlpha1]


async def initial_request(stream: EventStream) -> runtime.SubscribeTopicEventsRequestInitialAlpha1:
    """The stream's first message. Raises `InvalidArgument` for any other one."""
    first = await stream.recv_message()
    initial = first.initial_request if first is not None else None
    if initial is None:
        raise InvalidArgument("initial request is required")
    if not initial.pubsub_name:
        raise InvalidArgument("pubsubName is required")
    if not initial.topic:
        raise InvalidArgument("topic is required")
    return initial


@final
class _Pending:
    """An event that the application has and has not answered."""

    __slots__ = ("answered", "status")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.status: Status | None = None


@final
class StreamReceiver:
    """Sends events over one stream and gives the answers to whoever waits for them, by event id."""

    def __init__(self, stream: EventStream) -> None:
        self._stream = stream
        self._pending: dict[str, _Pending] = {}
        self._sending = trio.Lock()
        self._confirmed = trio.Event()

    async def confirm(self) -> None:
        """Tell the application that it is subscribed. No event goes before this: SDKs throw away whatever
        comes first.
        """
        initial = runtime.SubscribeTopicEventsResponseInitialAlpha1()
        await self._stream.send_message(runtime.SubscribeTopicEventsResponseAlpha1(initial_response=initial))
        self._confirmed.set()

    async def receive(
        self, subscription: TopicSubscription, arrivals: Sequence[Arrival], seconds: float
    ) -> Sequence[Status]:
        return [await self._one(subscription, arrival) for arrival in arrivals]

    async def _one(self, subscription: TopicSubscription, arrival: Arrival) -> Status:
        request = topic_event(arrival.event, subscription.broker.name, arrival.topic, arrival.path)
        while (earlier := self._pending.get(request.id)) is not None:
            await earlier.answered.wait()  # the same event twice: one answer could not be told from the other
        pending = self._pending[request.id] = _Pending()
        try:
            async with self._sending:  # the waiting, too: a lock lets them go on in the order they came
                await self._confirmed.wait()
                await self._stream.send_message(
                    runtime.SubscribeTopicEventsResponseAlpha1(event_message=request)
                )
            await pending.answered.wait()
        finally:
            del self._pending[request.id]
            pending.answered.set()
        if pending.status is None:
            raise NotProcessed("the stream ended before the event was answered")
        return pending.status

    async def listen(self) -> None:
        """Take the application's answers until it ends its side. Raises `InvalidArgument` for a second
        initial request.
        """
        async for message in self._stream:
            processed = message.event_processed
            if processed is None:
                raise InvalidArgument("duplicate initial request received")
            pending = self._pending.get(processed.id)
            if pending is not None and pending.status is None:
                answer = processed.status
                pending.status = answer.status if answer is not None else Status.SUCCESS
                pending.answered.set()
