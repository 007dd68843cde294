"""A pub/sub component whose failures a test can switch, and an application that notes what it gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import frozen
from meshnode_pubsub_in_memory import Broker, Options

from meshnode.errors import BulkPublishError
from meshnode.interfaces import Deliver, Driver, DriverContext, Message, Outcome, PublishRequest, option
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty

__all__ = ["Application", "FlakyBroker", "flaky_broker"]

SUCCESS = runtime.TopicEventResponseTopicEventResponseStatus.SUCCESS


@frozen
class FlakyBrokerOptions:
    note: str = option("note", "Anything; `{namespace}` in it puts topics into the namespace.", default="")
    limit: int = option("limit", "Deliveries side by side.", default=10)


class FlakyBroker:
    """The driver `pubsub.flaky` and the switches of all its components."""

    def __init__(self) -> None:
        self.refusing: Callable[[PublishRequest], Exception | None] = lambda request: None
        self.refusing_of_several: Callable[[list[bytes]], dict[int, Exception]] = lambda data: {}
        """By position, what is refused of a bulk publication."""
        self.connecting = False
        """Whether subscribing waits for a broker that is away, for ever."""
        self.farewell: Exception | None = None
        """What a subscription raises when it is cancelled."""
        self.metadata: dict[str, str] = {}
        """What the broker says of every message besides what its publisher said."""
        self.published: list[PublishRequest] = []
        self.subscribed: list[str] = []
        self.outcomes: list[Outcome] = []
        self._broker = Broker()
        self.driver: Driver[Any] = Driver("pubsub.flaky", FlakyBrokerOptions, self._open)

    @asynccontextmanager
    async def _open(self, options: FlakyBrokerOptions, context: DriverContext) -> AsyncIterator[Any]:
        async with self._broker.driver.open(Options(concurrency=options.limit), context) as inner:
            yield _PubSub(self, inner)


class _PubSub:
    def __init__(self, switches: FlakyBroker, inner: Any) -> None:
        self._switches = switches
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def publish(self, request: PublishRequest) -> None:
        error = self._switches.refusing(request)
        if error is not None:
            raise error
        await self._inner.publish(request)
        self._switches.published.append(request)

    async def bulk_publish(self, requests: Sequence[PublishRequest]) -> None:
        failures = self._switches.refusing_of_several([one.data for one in requests])
        taken = [one for at, one in enumerate(requests) if at not in failures]
        await self._inner.bulk_publish(taken)
        self._switches.published.extend(taken)
        if failures:
            raise BulkPublishError(failures)

    async def subscribe(self, request: Any, deliver: Deliver, stop: trio.Event, *, task_status: Any) -> None:
        if self._switches.connecting:
            await trio.sleep_forever()

        async def noted(message: Message) -> Outcome:
            metadata = {**message.metadata, **self._switches.metadata}
            said = Message(message.topic, message.data, message.content_type, metadata, message.position)
            outcome = await deliver(said)
            self._switches.outcomes.append(outcome)
            return outcome

        self._switches.subscribed.append(request.topic)
        try:
            await self._inner.subscribe(request, noted, stop, task_status=task_status)
        except trio.Cancelled:
            if self._switches.farewell is not None:
                raise self._switches.farewell from None
            raise


def flaky_broker(name: str = "pubsub", metadata: str = "") -> str:
    """YAML of a component of that type; `metadata` is the inside of a flow sequence."""
    return f"""---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec: {{type: pubsub.flaky, version: v1, metadata: [{metadata}]}}
"""


class Application(runtime.AppCallbackBase):
    """Notes what it gets; answers what `answer` says, and `topics` when it is asked for them."""

    def __init__(self, topics: Sequence[runtime.TopicSubscription] = ()) -> None:
        self.topics: Callable[[], Any] = lambda: list(topics)
        self.events: list[runtime.TopicEventRequest] = []
        self.times: list[float] = []
        self.answer: Callable[[runtime.TopicEventRequest], Any] = lambda event: SUCCESS

    async def list_topic_subscriptions(self, message: Empty) -> runtime.ListTopicSubscriptionsResponse:
        topics = self.topics()
        if hasattr(topics, "__await__"):
            topics = await topics
        return runtime.ListTopicSubscriptionsResponse(subscriptions=topics)

    async def on_topic_event(self, message: runtime.TopicEventRequest) -> runtime.TopicEventResponse:
        self.events.append(message)
        self.times.append(trio.current_time())
        answer = self.answer(message)
        if hasattr(answer, "__await__"):
            answer = await answer
        return runtime.TopicEventResponse(status=answer)
