"""Subscriptions where something goes wrong beside the application's answer: brokers that fail in unexpected
ways, applications that come late, shutdowns in the middle of things.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from support.mesh_brokers import SUCCESS, Application, FlakyBroker, flaky_broker
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.config.nodeoptions import AppHealthOptions
from meshnode.errors import ComponentUnavailable, PubSubError
from meshnode.interfaces import Outcome
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty

RETRY = runtime.TopicEventResponseTopicEventResponseStatus.RETRY
DROP = runtime.TopicEventResponseTopicEventResponseStatus.DROP

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
      forever: {policy: constant, duration: 1h, maxRetries: -1}
    timeouts:
      short: 2s
    circuitBreakers:
      simple: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures >= 2}
  targets:
    components:
      pubsub: {inbound: {%s}}
"""


@pytest.fixture
def broker() -> FlakyBroker:
    return FlakyBroker()


@pytest.fixture
async def mesh(broker: FlakyBroker) -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([broker.driver])) as mesh:
        yield mesh


async def publish(node: MeshNode, data: bytes = b"{}", topic: str = "orders", **fields: Any) -> None:
    fields = {"data_content_type": "application/json", **fields}
    await node.dapr.publish_event(
        runtime.PublishEventRequest(pubsub_name="pubsub", topic=topic, data=data, **fields)
    )


def lines(mesh: Mesh, words: str) -> list[str]:
    return [one.message for one in mesh.history if words in one.message]


# --- brokers


@pytest.mark.parametrize("more", ["", ", bulkSubscribe: {enabled: true, maxMessagesCount: 2}"])
async def test_an_unexpected_error_of_the_broker_keeps_the_message_and_the_node(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock, more: str
) -> None:
    app = Application()
    app.answer = lambda event: RETRY
    resources = flaky_broker() + SUBSCRIPTION % (", deadLetterTopic: dead" + more)
    node = await mesh.start("app", app=app, resources=resources)
    await wait_all_tasks_blocked()
    broken = True
    broker.refusing = lambda one: OSError("socket gone") if broken and one.topic == "dead" else None
    await publish(node, b"1")
    await trio.sleep(5)
    assert broker.outcomes
    assert set(broker.outcomes) == {Outcome.RETRY}
    broken = False
    await trio.sleep(5)
    assert broker.outcomes[-1] is Outcome.ACK
    assert [one.topic for one in broker.published] == ["orders", "dead"]
    assert broker.subscribed == ["orders"]  # it did not have to be subscribed to again


async def test_a_broker_that_fails_while_it_is_cancelled_troubles_nobody(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", app=Application(), resources=flaky_broker() + SUBSCRIPTION % "")
    await wait_all_tasks_blocked()
    broker.farewell = ComponentUnavailable("the broker is gone as well")
    await node.kill()


async def test_a_broker_that_is_away_does_not_hold_up_a_shutdown(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    broker.connecting = True
    node = await mesh.start("app", app=Application(), resources=flaky_broker() + SUBSCRIPTION % "")
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await node.stop()
    assert trio.current_time() == began


# --- applications


async def test_an_application_that_is_healthy_late_is_asked_then(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    class Late(Application, runtime.AppCallbackHealthCheckBase):
        healthy = False

        async def health_check(self, message: Empty) -> runtime.HealthCheckResponse:
            if not self.healthy:
                raise GRPCError(Status.UNAVAILABLE, "not yet")
            return runtime.HealthCheckResponse()

        def __mapping__(self) -> dict[str, Any]:
            health = runtime.AppCallbackHealthCheckBase.__mapping__(self)
            return {**Application.__mapping__(self), **health}

    app = Late([runtime.TopicSubscription(pubsub_name="pubsub", topic="orders")])
    probes = AppHealthOptions(interval=1, timeout=1, threshold=1)
    node = await mesh.start("app", app=app, resources=flaky_broker(), options={"app_health": probes})
    await trio.sleep(120)
    app.healthy = True
    await trio.sleep(60)
    await publish(node)
    await trio.sleep(1)
    assert len(app.events) == 1


async def test_a_list_of_topics_that_fails_is_asked_for_again(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application()
    failures = 20

    def topics() -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise GRPCError(Status.INTERNAL, "starting up")
        return [runtime.TopicSubscription(pubsub_name="pubsub", topic="orders")]

    app.topics = topics
    node = await mesh.start("app", app=app, resources=flaky_broker())
    await trio.sleep(3600)
    await publish(node)
    await trio.sleep(1)
    assert len(app.events) == 1


async def test_a_list_of_topics_that_never_comes_holds_up_nothing(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    """Neither what is declared nor the shutdown."""
    app = Application()
    app.topics = trio.sleep_forever
    node = await mesh.start("app", app=app, resources=flaky_broker() + SUBSCRIPTION % "")
    await wait_all_tasks_blocked()
    await publish(node)
    await trio.sleep(1)
    assert len(app.events) == 1
    began = trio.current_time()
    await node.stop()
    assert trio.current_time() == began


async def test_an_application_that_turns_unhealthy_between_attempts_loses_nothing(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    app = Application()
    app.answer = lambda event: RETRY if len(app.events) == 1 else SUCCESS
    resources = flaky_broker() + SUBSCRIPTION % ", deadLetterTopic: dead" + RESILIENCY % "retry: three"
    node = await mesh.start("app", app=app, resources=resources)
    await wait_all_tasks_blocked()
    await publish(node)
    await wait_all_tasks_blocked()
    node.node.app.set_healthy(False)
    await trio.sleep(60)
    assert [one.topic for one in broker.published] == ["orders"]
    node.node.app.set_healthy(True)
    await trio.sleep(10)
    assert len(app.events) == 2
    assert broker.outcomes == [Outcome.ACK]


# --- dead letters


async def test_a_dead_letter_topic_outside_the_scope_takes_nothing(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    """Else an application could publish wherever it names as its dead-letter topic."""
    app = Application()
    app.answer = lambda event: DROP
    metadata = "{name: protectedTopics, value: secret}"
    resources = flaky_broker(metadata=metadata) + SUBSCRIPTION % ", deadLetterTopic: secret"
    node = await mesh.start("app", app=app, resources=resources)
    await wait_all_tasks_blocked()
    await publish(node)
    await trio.sleep(5)
    assert [one.topic for one in broker.published] == ["orders"]
    assert set(broker.outcomes) == {Outcome.RETRY}
    assert lines(mesh, "topic secret is not allowed for app id app")


async def test_a_namespaced_dead_letter_stays_in_the_namespace(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic="dead")])
    app.answer = lambda event: DROP if event.topic == "orders" else SUCCESS
    resources = flaky_broker(metadata="{name: note, value: '{namespace}'}")
    resources += SUBSCRIPTION % ", deadLetterTopic: dead"
    node = await mesh.start("app", app=app, resources=resources)
    await wait_all_tasks_blocked()
    await publish(node)
    await trio.sleep(5)
    assert [one.topic for one in broker.published] == ["defaultorders", "defaultdead"]
    assert [event.topic for event in app.events] == ["orders", "dead"]


# --- shutdown


@pytest.mark.parametrize("policy", ["retry: forever", "retry: forever, circuitBreaker: simple"])
async def test_a_message_that_waits_for_its_next_attempt_does_not_hold_up_a_shutdown(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock, policy: str
) -> None:
    app = Application()
    app.answer = lambda event: RETRY
    resources = flaky_broker() + SUBSCRIPTION % ", deadLetterTopic: dead" + RESILIENCY % policy
    node = await mesh.start("app", app=app, resources=resources)
    await wait_all_tasks_blocked()
    await publish(node, b"1")
    await publish(node, b"2")
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await node.stop()
    assert trio.current_time() == began
    assert broker.outcomes == [Outcome.RETRY] * 2
    assert [one.topic for one in broker.published] == ["orders"] * 2


# --- sizes and characters


async def test_metadata_that_no_application_takes_as_headers_is_left_out(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    """2,000 entries are more than a gRPC server accepts: the event must come without them."""
    app = Application()
    node = await mesh.start("app", app=app, resources=flaky_broker() + SUBSCRIPTION % "")
    await wait_all_tasks_blocked()
    await publish(node, metadata={f"name-{number}": "value" * 20 for number in range(2000)})
    await trio.sleep(5)
    assert len(app.events) == 1


@pytest.mark.parametrize("text", [r"\ud800", r"\udfff and more", "1" + "0" * 400])
async def test_an_attribute_that_protobuf_cannot_carry_spoils_no_event(
    mesh: Mesh, autojump_clock: MockClock, text: str
) -> None:
    app = Application()
    node = await mesh.start("app", app=app, resources=flaky_broker() + SUBSCRIPTION % "")
    await wait_all_tasks_blocked()
    value = text if text.isdigit() else f'"{text}"'
    event = f'{{"id":"1","source":"s","type":"t","specversion":"1.0","odd":{value},"data":1}}'
    await publish(node, event.encode(), data_content_type="application/cloudevents+json")
    await trio.sleep(5)
    assert [one.data for one in app.events] == [b"1"]


# --- what holds for every call into the application


async def test_every_callback_carries_the_applications_token(mesh: Mesh, autojump_clock: MockClock) -> None:
    tokens: dict[str, Any] = {}

    class Watched(Application):
        def __mapping__(self) -> dict[str, Any]:
            return {path: watched(path, one) for path, one in super().__mapping__().items()}

    def watched(path: str, handler: Any) -> Any:
        async def note(stream: Any) -> None:
            tokens[path.rpartition("/")[2]] = stream.metadata.get("dapr-api-token")
            await handler.func(stream)

        return type(handler)(note, handler.cardinality, handler.request_type, handler.reply_type)

    app = Watched([runtime.TopicSubscription(pubsub_name="pubsub", topic="orders")])
    options = {"app_api_token": "secret"}
    node = await mesh.start("app", app=app, resources=flaky_broker(), options=options)
    await wait_all_tasks_blocked()
    await publish(node)
    await wait_all_tasks_blocked()
    assert tokens == {"ListTopicSubscriptions": "secret", "OnTopicEvent": "secret"}


async def test_events_keep_to_the_applications_concurrency(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    app, running, most = Application(), 0, 0

    async def work() -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        return SUCCESS

    app.answer = lambda event: work()
    resources = flaky_broker() + SUBSCRIPTION % ""
    node = await mesh.start("app", app=app, resources=resources, options={"app_max_concurrency": 2})
    await wait_all_tasks_blocked()
    for _ in range(10):
        await publish(node)
    await trio.sleep(20)
    assert (len(app.events), most) == (10, 2)
    assert broker.outcomes == [Outcome.ACK] * 10


# --- several at once


class Bulk(runtime.AppCallbackAlphaBase):
    """Answers batch after batch what the test lists, then SUCCESS for each entry."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.batches: list[list[bytes]] = []

    async def on_bulk_topic_event_alpha_1(
        self, message: runtime.TopicEventBulkRequest
    ) -> runtime.TopicEventBulkResponse:
        ids = [entry.entry_id for entry in message.entries]
        self.batches.append([entry.cloud_event.data for entry in message.entries if entry.cloud_event])
        statuses = self.answers.pop(0)(ids) if self.answers else [(one, SUCCESS) for one in ids]
        entry = runtime.TopicEventBulkResponseEntry
        return runtime.TopicEventBulkResponse(
            statuses=[entry(entry_id=one, status=status) for one, status in statuses]
        )


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (lambda ids: [], [b"0", b"1", b"2"]),
        (lambda ids: [("ghost", SUCCESS), (ids[0], SUCCESS)], [b"1", b"2"]),
        (lambda ids: [(ids[1], SUCCESS), (ids[1], RETRY)], [b"0", b"1", b"2"]),
        (lambda ids: [(ids[0], DROP), (ids[1], RETRY), (ids[2], SUCCESS)], [b"1"]),
    ],
    ids=["nothing", "an unknown one", "one twice", "one of each"],
)
async def test_what_a_bulk_answer_does_not_settle_comes_again(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock, answer: Any, again: list[bytes]
) -> None:
    app = Bulk(answer)
    settings = ", deadLetterTopic: dead, bulkSubscribe: {enabled: true, maxMessagesCount: 3}"
    resources = flaky_broker() + SUBSCRIPTION % settings + RESILIENCY % "retry: three"
    node = await mesh.start("app", app=app, resources=resources)
    await wait_all_tasks_blocked()
    for number in range(3):
        await publish(node, b"%d" % number)
    await trio.sleep(30)
    assert app.batches == [[b"0", b"1", b"2"], again]
    assert broker.outcomes == [Outcome.ACK] * 3
    dead = [one for one in broker.published if one.topic == "dead"]
    assert len(dead) == (again == [b"1"])


async def test_a_bulk_retry_repeats_what_failed_and_says_what_stays_undone(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    calls: list[list[int]] = []

    def refusing(data: list[bytes]) -> dict[int, Exception]:
        numbers = [int(one.rpartition(b'"data":')[2].rstrip(b"}")) for one in data]
        calls.append(numbers)
        bad = {1, 3} if len(calls) == 1 else {3}
        return {at: PubSubError(f"no {number}") for at, number in enumerate(numbers) if number in bad}

    broker.refusing_of_several = refusing
    outbound = (RESILIENCY % "retry: three").replace("inbound", "outbound")
    node = await mesh.start("app", resources=flaky_broker() + outbound)
    entries = [
        runtime.BulkPublishRequestEntry(entry_id=f"e{n}", event=b"%d" % n, content_type="application/json")
        for n in range(5)
    ]
    request = runtime.BulkPublishRequest(pubsub_name="pubsub", topic="orders", entries=entries)
    answer = await node.dapr.bulk_publish_event(request)
    assert [(one.entry_id, one.error) for one in answer.failed_entries] == [("e3", "no 3")]
    assert calls == [[0, 1, 2, 3, 4], [1, 3], [3], [3]]


async def test_a_half_open_breaker_with_many_that_wait(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    """The probe takes its time; who waits looks once a second at most, and all get through in the end."""
    app = Application()

    async def slow() -> Any:
        await trio.sleep(100)
        return SUCCESS

    app.answer = lambda event: RETRY if len(app.events) <= 2 else slow()
    resources = flaky_broker(metadata="{name: limit, value: '50'}") + SUBSCRIPTION % ""
    node = await mesh.start("app", app=app, resources=resources + RESILIENCY % "circuitBreaker: simple")
    await wait_all_tasks_blocked()
    for _ in range(2):
        await publish(node)
    await wait_all_tasks_blocked()
    for _ in range(40):
        await publish(node)
    await trio.sleep(120)
    assert len(app.events) == 3
    await trio.sleep(400)
    assert broker.outcomes.count(Outcome.ACK) == 42


# --- applications that go away


@pytest.mark.parametrize("policy", ["", "retry: three", "circuitBreaker: simple"])
async def test_an_application_that_restarts_loses_nothing_to_the_dead_letter_topic(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock, policy: str
) -> None:
    """A call that surely reached nobody says nothing about the event."""
    app = Application()
    resources = flaky_broker() + SUBSCRIPTION % ", deadLetterTopic: dead"
    resources += RESILIENCY % policy if policy else ""
    node = await mesh.start("app", app=app, resources=resources)
    await wait_all_tasks_blocked()
    mesh.app_link("app").cut()
    for _ in range(5):
        await publish(node)
    await trio.sleep(120)
    assert (app.events, broker.outcomes) == ([], [])
    mesh.app_link("app").heal()
    await trio.sleep(5)
    assert len(app.events) == 5
    assert broker.outcomes == [Outcome.ACK] * 5
    assert [one.topic for one in broker.published] == ["orders"] * 5


async def test_what_kills_the_application_is_given_up_in_the_end(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    """Attempts count across the pauses in which nobody is there."""
    app = Application()

    async def die() -> Any:
        mesh.app_link("app").cut()
        await trio.sleep_forever()

    app.answer = lambda event: die()
    resources = flaky_broker() + SUBSCRIPTION % ", deadLetterTopic: dead" + RESILIENCY % "retry: three"
    node = await mesh.start("app", app=app, resources=resources)
    await wait_all_tasks_blocked()
    await publish(node)
    for _ in range(6):
        await trio.sleep(30)
        mesh.app_link("app").heal()
    assert len(app.events) == 4
    assert [one.topic for one in broker.published] == ["orders", "dead"]


async def test_what_opens_the_breaker_is_given_up_in_the_end(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    """Attempts count across the pauses of a breaker as well: else one event would keep it open for ever."""
    app = Application()
    app.answer = lambda event: RETRY if event.data == b"1" else SUCCESS
    resources = flaky_broker() + SUBSCRIPTION % ", deadLetterTopic: dead"
    resources += RESILIENCY % "retry: three, circuitBreaker: simple"
    node = await mesh.start("app", app=app, resources=resources)
    await wait_all_tasks_blocked()
    await publish(node, b"1")
    await trio.sleep(300)
    assert len(app.events) == 4
    assert [one.topic for one in broker.published] == ["orders", "dead"]
    await publish(node, b"2")
    await trio.sleep(300)
    assert broker.outcomes == [Outcome.ACK] * 2
