"""Publishing and subscribing through real nodes, in the in-process mesh on the virtual clock. All nodes share
one in-memory broker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from meshnode_pubsub_in_memory import Broker
from trio.testing import MockClock

from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty
from meshnode.wire.google.rpc import ErrorInfo
from meshnode.wire.google.rpc import Status as RpcStatus

SUCCESS = runtime.TopicEventResponseTopicEventResponseStatus.SUCCESS
RETRY = runtime.TopicEventResponseTopicEventResponseStatus.RETRY
DROP = runtime.TopicEventResponseTopicEventResponseStatus.DROP

BROKER = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: pubsub}
spec:
  type: pubsub.in-memory
  version: v1
  metadata: [%s]
"""
SUBSCRIPTION = """
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec: {pubsubname: pubsub, topic: orders, routes: {default: /orders}%s}
"""
RESILIENCY = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies:
    retries:
      three: {policy: constant, duration: 1s, maxRetries: 3}
    timeouts:
      short: 2s
    circuitBreakers:
      simple: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures >= 2}
  targets:
    components:
      pubsub: {inbound: {%s}}
"""


def broker(metadata: str = "") -> str:
    return BROKER % metadata


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([Broker().driver])) as mesh:
        yield mesh


class Application(runtime.AppCallbackBase):
    """Notes what it gets; answers what `answer` says."""

    def __init__(self, topics: list[runtime.TopicSubscription] | None = None) -> None:
        self.topics = topics or []
        self.events: list[runtime.TopicEventRequest] = []
        self.answer: Callable[[runtime.TopicEventRequest], Any] = lambda event: SUCCESS
        self._arrival = trio.Event()

    async def list_topic_subscriptions(self, message: Empty) -> runtime.ListTopicSubscriptionsResponse:
        return runtime.ListTopicSubscriptionsResponse(subscriptions=self.topics)

    async def on_topic_event(self, message: runtime.TopicEventRequest) -> runtime.TopicEventResponse:
        self.events.append(message)
        self._arrival.set()
        answer = self.answer(message)
        if hasattr(answer, "__await__"):
            answer = await answer
        return runtime.TopicEventResponse(status=answer)

    async def has(self, count: int) -> list[runtime.TopicEventRequest]:
        """Wait until so many events have come, which is all there are."""
        with trio.fail_after(300):
            while len(self.events) < count:
                self._arrival = trio.Event()
                await self._arrival.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert len(self.events) == count
        return self.events


async def subscribed(node: MeshNode, count: int = 1) -> None:
    """Wait until the node's subscriptions stand."""
    await trio.testing.wait_all_tasks_blocked()
    found = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    assert len(found.subscriptions) == count


async def publish(node: MeshNode, data: bytes = b"{}", topic: str = "orders", **fields: Any) -> None:
    fields = {"data_content_type": "application/json", **fields}
    await node.dapr.publish_event(
        runtime.PublishEventRequest(pubsub_name="pubsub", topic=topic, data=data, **fields)
    )


def reason(error: GRPCError) -> str:
    for detail in RpcStatus.parse(error.details or b"").details:
        if detail.type_url.endswith("ErrorInfo"):
            return ErrorInfo.parse(detail.value).reason
    return ""


async def refused(call: Any) -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        await call
    return caught.value


async def test_a_declared_subscription_gets_a_cloud_event(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application()
    subscriber = await mesh.start("subscriber", app=app, resources=broker() + SUBSCRIPTION % "")
    publisher = await mesh.start("publisher", resources=broker())
    await subscribed(subscriber)
    await publish(publisher, b'{"n": 1.10}', metadata={"cloudevent.type": "order", "partitionKey": "a"})
    (event,) = await app.has(1)
    assert event.data == b'{"n": 1.10}'
    assert (event.type, event.source, event.topic, event.path) == ("order", "publisher", "orders", "/orders")
    assert (event.pubsub_name, event.spec_version) == ("pubsub", "1.0")
    assert event.data_content_type == "application/json"
    extensions = event.extensions.to_dict() if event.extensions else {}
    assert extensions["topic"] == "orders"
    assert extensions["traceparent"].startswith("00-")
    found = await subscriber.dapr.get_metadata(runtime.GetMetadataRequest())
    assert found.subscriptions[0].type is runtime.PubsubSubscriptionType.DECLARATIVE


async def test_the_application_asks_for_topics_with_rules(mesh: Mesh, autojump_clock: MockClock) -> None:
    rules = [
        runtime.TopicRule(match='event.type == "widget"', path="/widgets"),
        runtime.TopicRule(match="event.data.n > 5", path="/many"),
    ]
    routes = runtime.TopicRoutes(rules=rules)
    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic="orders", routes=routes)])
    node = await mesh.start("app", app=app, resources=broker())
    await subscribed(node)
    await publish(node, b'{"n": 1}', metadata={"cloudevent.type": "widget"})
    await publish(node, b'{"n": 9}')
    await publish(node, b'{"n": 2}')  # nothing matches, and there is no default: it is skipped
    assert sorted(event.path for event in await app.has(2)) == ["/many", "/widgets"]


async def test_a_message_that_fails_comes_again(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application()
    answers = iter([RETRY, GRPCError(Status.INTERNAL, "no"), SUCCESS])

    def answer(event: runtime.TopicEventRequest) -> Any:
        found = next(answers)
        if isinstance(found, GRPCError):
            raise found
        return found

    app.answer = answer
    node = await mesh.start("app", app=app, resources=broker() + SUBSCRIPTION % "")
    await subscribed(node)
    await publish(node)
    events = await app.has(3)
    assert len({event.id for event in events}) == 1
    await trio.sleep(100)
    assert len(app.events) == 3


async def test_retries_run_out_into_the_dead_letter_topic(mesh: Mesh, autojump_clock: MockClock) -> None:
    dead = runtime.TopicSubscription(pubsub_name="pubsub", topic="dead")
    app = Application([dead])
    app.answer = lambda event: RETRY if event.topic == "orders" else SUCCESS
    resources = broker() + SUBSCRIPTION % ", deadLetterTopic: dead" + RESILIENCY % "retry: three"
    node = await mesh.start("app", app=app, resources=resources)
    await subscribed(node, 2)
    await publish(node, b"7")
    events = await app.has(5)
    assert [event.topic for event in events] == ["orders"] * 4 + ["dead"]
    assert {event.data for event in events} == {b"7"}
    assert len({event.id for event in events}) == 1


async def test_drop_goes_to_the_dead_letter_topic_at_once(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic="dead")])
    app.answer = lambda event: DROP if event.topic == "orders" else SUCCESS
    resources = broker() + SUBSCRIPTION % ", deadLetterTopic: dead" + RESILIENCY % "retry: three"
    node = await mesh.start("app", app=app, resources=resources)
    await subscribed(node, 2)
    await publish(node)
    assert [event.topic for event in await app.has(2)] == ["orders", "dead"]


async def test_an_attempt_that_timed_out_has_ended_before_the_next(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    app, running, most = Application(), 0, 0

    async def slow() -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await trio.sleep(10 if len(app.events) < 3 else 0)
        finally:
            running -= 1
        return SUCCESS

    app.answer = lambda event: slow()
    resources = broker() + SUBSCRIPTION % "" + RESILIENCY % "timeout: short, retry: three"
    node = await mesh.start("app", app=app, resources=resources)
    await subscribed(node)
    await publish(node)
    await app.has(3)
    await trio.sleep(60)
    assert (len(app.events), most, running) == (3, 1, 0)


async def test_an_open_breaker_pauses_the_subscription(mesh: Mesh, autojump_clock: MockClock) -> None:
    """Two failures open it; until it is half-open 30 s later nothing reaches the application, and nothing
    comes into the dead-letter topic because of it.
    """
    app, times = Application(), []
    broken = True

    def answer(event: runtime.TopicEventRequest) -> Any:
        times.append(trio.current_time())
        return RETRY if broken else SUCCESS

    app.answer = answer
    resources = broker() + SUBSCRIPTION % "" + RESILIENCY % "circuitBreaker: simple"
    node = await mesh.start("app", app=app, resources=resources)
    await subscribed(node)
    for number in range(10):
        await publish(node, b"%d" % number)
    await trio.testing.wait_all_tasks_blocked()
    opened = trio.current_time()
    failed = len(times)
    assert failed < 10
    await trio.sleep(20)
    assert len(times) == failed
    broken = False
    await trio.sleep(30)
    assert {event.data for event in app.events} == {b"%d" % number for number in range(10)}
    assert min(time for time in times[failed:]) >= opened + 30
    assert len(times) == failed + 10


async def test_shutdown_finishes_what_is_under_way_and_keeps_the_rest(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    """One delivery at a time: the first is finished while the node drains, the others come to the next
    node.
    """
    gate, first = trio.Event(), Application()

    async def wait() -> Any:
        await gate.wait()
        return SUCCESS

    first.answer = lambda event: wait()
    metadata = ", metadata: {maxInFlight: '1'}"
    resources = broker() + SUBSCRIPTION % metadata
    node = await mesh.start("app", app=first, resources=resources, instance="one")
    publisher = await mesh.start("publisher", resources=broker())
    await subscribed(node)
    for number in range(3):
        await publish(publisher, b"%d" % number)
    await first.has(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.stop)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert [event.data for event in first.events] == [b"0"]
    second = Application()
    await mesh.start("app", app=second, resources=resources, instance="two")
    assert [event.data for event in await second.has(2)] == [b"1", b"2"]


async def test_a_killed_node_gives_back_what_it_had(mesh: Mesh, autojump_clock: MockClock) -> None:
    first, second = Application(), Application()

    async def for_ever() -> Any:
        await trio.sleep_forever()

    first.answer = lambda event: for_ever()
    resources = broker() + SUBSCRIPTION % ", deadLetterTopic: dead"
    node = await mesh.start("app", app=first, resources=resources, instance="one")
    publisher = await mesh.start("publisher", resources=broker())
    await subscribed(node)
    await publish(publisher, b"1")
    await first.has(1)
    await node.kill()
    await mesh.start("app", app=second, resources=resources, instance="two")
    assert [event.data for event in await second.has(1)] == [b"1"]


async def test_an_unhealthy_application_pauses_its_subscriptions(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    app = Application()
    node = await mesh.start("app", app=app, resources=broker() + SUBSCRIPTION % "")
    await subscribed(node)
    node.node.app.set_healthy(False)
    await publish(node)
    await trio.sleep(100)
    assert app.events == []
    node.node.app.set_healthy(True)
    await app.has(1)


async def test_what_is_no_event_stays_or_goes_to_the_dead_letter_topic(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    raw = {"rawPayload": "true"}
    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic="dead", metadata=raw)])
    resources = broker() + SUBSCRIPTION % ", deadLetterTopic: dead"
    node = await mesh.start("app", app=app, resources=resources)
    await subscribed(node, 2)
    await publish(node, b"no json", metadata=raw)
    (event,) = await app.has(1)
    assert (event.topic, event.data) == ("dead", b"no json")


async def test_raw_payloads_arrive_as_they_are(mesh: Mesh, autojump_clock: MockClock) -> None:
    metadata = {"rawPayload": "true"}
    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic="raw", metadata=metadata)])
    node = await mesh.start("app", app=app, resources=broker())
    await subscribed(node)
    await publish(node, b"\xff\x00", topic="raw", metadata=metadata)
    (event,) = await app.has(1)
    assert (event.data, event.data_content_type) == (b"\xff\x00", "application/octet-stream")


async def test_expired_messages_are_dropped(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application()
    resources = broker() + SUBSCRIPTION % ""
    node = await mesh.start("app", app=app, resources=resources)
    await subscribed(node)
    node.node.app.set_healthy(False)
    await publish(node, b"1", metadata={"ttlInSeconds": "5"})
    await trio.sleep(1)
    node.node.app.set_healthy(True)
    await app.has(1)


async def test_bulk_publish_and_bulk_subscribe(mesh: Mesh, autojump_clock: MockClock) -> None:
    class Bulk(runtime.AppCallbackAlphaBase):
        def __init__(self) -> None:
            self.batches: list[runtime.TopicEventBulkRequest] = []

        async def on_bulk_topic_event_alpha_1(
            self, message: runtime.TopicEventBulkRequest
        ) -> runtime.TopicEventBulkResponse:
            self.batches.append(message)
            again = len(self.batches) == 1
            return runtime.TopicEventBulkResponse(
                statuses=[
                    runtime.TopicEventBulkResponseEntry(
                        entry_id=entry.entry_id, status=RETRY if again and at == 1 else SUCCESS
                    )
                    for at, entry in enumerate(message.entries)
                ]
            )

    bulk = Bulk()
    settings = ", bulkSubscribe: {enabled: true, maxMessagesCount: 3, maxAwaitDurationMs: 500}"
    node = await mesh.start("app", app=[bulk], resources=broker() + SUBSCRIPTION % settings)
    await subscribed(node)
    entries = [
        runtime.BulkPublishRequestEntry(entry_id=str(n), event=b"%d" % n, content_type="application/json")
        for n in range(5)
    ]
    request = runtime.BulkPublishRequest(pubsub_name="pubsub", topic="orders", entries=entries)
    assert (await node.dapr.bulk_publish_event(request)).failed_entries == []
    await trio.sleep(20)
    data = [[e.cloud_event.data for e in batch.entries if e.cloud_event] for batch in bulk.batches]
    assert data[0] == [b"0", b"1", b"2"]
    assert data[1:] == [[b"3", b"4"], [b"1"]]


@pytest.mark.parametrize(
    ("fields", "status", "why"),
    [
        ({"pubsub_name": ""}, Status.INVALID_ARGUMENT, "DAPR_PUBSUB_NAME_EMPTY"),
        ({"pubsub_name": "ghost"}, Status.INVALID_ARGUMENT, "DAPR_PUBSUB_NOT_FOUND"),
        ({"topic": ""}, Status.INVALID_ARGUMENT, "DAPR_PUBSUB_TOPIC_NAME_EMPTY"),
        ({"topic": "secret"}, Status.PERMISSION_DENIED, "DAPR_PUBSUB_FORBIDDEN"),
        (
            {"metadata": {"rawPayload": "perhaps"}},
            Status.INVALID_ARGUMENT,
            "DAPR_PUBSUB_METADATA_DESERIALIZATION",
        ),
        (
            {"data_content_type": "application/cloudevents+json", "data": b"{"},
            Status.INVALID_ARGUMENT,
            "DAPR_PUBSUB_CLOUD_EVENT_CREATION",
        ),
    ],
)  # fmt: skip
async def test_publishing_errors_are_daprs(
    mesh: Mesh, autojump_clock: MockClock, fields: Any, status: Status, why: str
) -> None:
    node = await mesh.start("app", resources=broker("{name: allowedTopics, value: orders}"))
    request = {"pubsub_name": "pubsub", "topic": "orders", "data": b"x"} | fields
    error = await refused(node.dapr.publish_event(runtime.PublishEventRequest(**request)))
    assert (error.status, reason(error)) == (status, why)


async def test_bulk_publish_wants_distinct_entry_ids(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=broker())
    entries = [runtime.BulkPublishRequestEntry(entry_id="1", event=b"x")] * 2
    request = runtime.BulkPublishRequest(pubsub_name="pubsub", topic="orders", entries=entries)
    error = await refused(node.dapr.bulk_publish_event(request))
    assert (error.status, reason(error)) == (Status.INVALID_ARGUMENT, "DAPR_PUBSUB_MARSHAL_EVENTS")


async def test_a_subscription_outside_its_scope_is_left_out(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application()
    resources = broker("{name: subscriptionScopes, value: app=other}") + SUBSCRIPTION % ""
    node = await mesh.start("app", app=app, resources=resources)
    await subscribed(node, 0)
    await publish(node)
    await trio.sleep(10)
    assert app.events == []


async def test_an_event_that_the_application_does_not_implement_is_kept(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    app = Application()
    known = False

    def answer(event: runtime.TopicEventRequest) -> Any:
        if not known:
            raise GRPCError(Status.UNIMPLEMENTED, "no such topic")
        return SUCCESS

    app.answer = answer
    node = await mesh.start("app", app=app, resources=broker() + SUBSCRIPTION % "")
    await subscribed(node)
    await publish(node)
    await trio.sleep(2)
    known = True
    await trio.sleep(5)
    count = len(app.events)
    await trio.sleep(60)
    assert 1 < count == len(app.events)


# --- streams


class Subscriber:
    """One streaming subscription of the test's own."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def event(self) -> runtime.TopicEventRequest:
        with trio.fail_after(100):
            message = await self.stream.recv_message()
        assert message is not None
        assert message.event_message is not None
        return message.event_message

    async def answer(self, event_id: str, status: Any = SUCCESS) -> None:
        processed = runtime.SubscribeTopicEventsRequestProcessedAlpha1(
            id=event_id, status=runtime.TopicEventResponse(status=status)
        )
        await self.stream.send_message(runtime.SubscribeTopicEventsRequestAlpha1(event_processed=processed))


def open_stream(node: MeshNode) -> Any:
    path = "/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1"
    handler = runtime.DaprBase().__mapping__()[path]
    return node.channel.request(path, handler.cardinality, handler.request_type, handler.reply_type)


async def subscribe(stream: Any, **fields: Any) -> Subscriber:
    fields = {"pubsub_name": "pubsub", "topic": "orders", **fields}
    initial = runtime.SubscribeTopicEventsRequestInitialAlpha1(**fields)
    await stream.send_message(runtime.SubscribeTopicEventsRequestAlpha1(initial_request=initial))
    first = await stream.recv_message()
    assert first.initial_response is not None
    return Subscriber(stream)


async def test_a_stream_gets_events_and_answers_them(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=broker())
    async with open_stream(node) as stream:
        subscriber = await subscribe(stream)
        await publish(node, b"1")
        event = await subscriber.event()
        assert (event.data, event.topic) == (b"1", "orders")
        await subscriber.answer(event.id, RETRY)
        again = await subscriber.event()
        assert again.id == event.id
        await subscriber.answer(event.id)
        await stream.end()
        assert await stream.recv_message() is None
    found = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    assert found.subscriptions == []


async def test_a_broken_stream_gives_its_events_back_at_once(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=broker("{name: redeliverInterval, value: 1h}"))
    began = trio.current_time()
    async with open_stream(node) as stream:
        subscriber = await subscribe(stream)
        await publish(node, b"1")
        lost = await subscriber.event()
        await stream.cancel()
    async with open_stream(node) as stream:
        subscriber = await subscribe(stream)
        event = await subscriber.event()
        assert event.id == lost.id
        assert trio.current_time() - began < 10
        await subscriber.answer(event.id)
        await stream.end()
        assert await stream.recv_message() is None


async def test_the_initial_response_comes_first_and_then_the_events_in_order(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=broker())
    async with open_stream(node) as stream:
        await subscribe(stream)
        await stream.end()
        assert await stream.recv_message() is None
    for _ in range(10):  # trio runs the tasks of a moment in one order or the other
        for number in range(4):
            await publish(node, b"%d" % number)
        async with open_stream(node) as stream:
            subscriber = await subscribe(stream)
            events = [await subscriber.event() for _ in range(4)]
            assert [event.data for event in events] == [b"0", b"1", b"2", b"3"]
            for event in events:
                await subscriber.answer(event.id)
            await stream.end()
            assert await stream.recv_message() is None


async def test_two_streams_of_one_topic_share_its_events(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=broker())
    got: list[bytes] = []
    async with open_stream(node) as one, open_stream(node) as two:
        subscribers = [await subscribe(one, metadata={"maxInFlight": "1"}) for one in (one, two)]
        for number in range(6):
            await publish(node, b"%d" % number)
        for _ in range(3):
            for subscriber in subscribers:
                event = await subscriber.event()
                got.append(event.data)
                await subscriber.answer(event.id)
        await one.end()
        await two.end()
        assert await one.recv_message() is None
        assert await two.recv_message() is None
    assert sorted(got) == [b"%d" % number for number in range(6)]


async def test_a_node_that_shuts_down_ends_its_streams(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=broker())
    async with open_stream(node) as stream:
        await subscribe(stream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.stop)
            assert await stream.recv_message() is None
            await stream.end()
            error = await refused(stream.recv_trailing_metadata())
    assert error.status is Status.UNAVAILABLE


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"pubsub_name": ""}, "pubsubName is required"), ({"topic": ""}, "topic is required"),
     ({"pubsub_name": "ghost"}, "pubsub ghost is not found")],
)  # fmt: skip
async def test_a_stream_without_what_it_needs_is_refused(
    mesh: Mesh, autojump_clock: MockClock, fields: Any, words: str
) -> None:
    node = await mesh.start("app", resources=broker())
    async with open_stream(node) as stream:
        initial = {"pubsub_name": "pubsub", "topic": "orders"} | fields
        request = runtime.SubscribeTopicEventsRequestInitialAlpha1(**initial)
        await stream.send_message(runtime.SubscribeTopicEventsRequestAlpha1(initial_request=request))
        error = await refused(stream.recv_message())
    assert (error.status, error.message) == (Status.INVALID_ARGUMENT, words)


async def test_a_second_initial_request_ends_the_stream(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=broker())
    async with open_stream(node) as stream:
        await subscribe(stream)
        initial = runtime.SubscribeTopicEventsRequestInitialAlpha1(pubsub_name="pubsub", topic="orders")
        await stream.send_message(runtime.SubscribeTopicEventsRequestAlpha1(initial_request=initial))
        assert await stream.recv_message() is None
        await stream.end()
        error = await refused(stream.recv_trailing_metadata())
    assert error.status is Status.INVALID_ARGUMENT
