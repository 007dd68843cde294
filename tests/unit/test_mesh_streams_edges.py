"""Streaming subscriptions whose application does not do what it should, and whose node or broker goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from support.mesh_brokers import SUCCESS, FlakyBroker, flaky_broker
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Outcome
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.runtime import v1 as runtime

Request = runtime.SubscribeTopicEventsRequestAlpha1

RESILIENCY = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies:
    retries: {three: {policy: constant, duration: 1s, maxRetries: 3}}
    timeouts: {short: 2s}
  targets: {components: {pubsub: {inbound: {timeout: short, retry: three}}}}
"""


@pytest.fixture
def broker() -> FlakyBroker:
    return FlakyBroker()


@pytest.fixture
async def mesh(broker: FlakyBroker) -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([broker.driver])) as mesh:
        yield mesh


def open_stream(node: MeshNode) -> Any:
    path = "/dapr.proto.runtime.v1.Dapr/SubscribeTopicEventsAlpha1"
    handler = runtime.DaprBase().__mapping__()[path]
    return node.channel.request(path, handler.cardinality, handler.request_type, handler.reply_type)


async def subscribe(stream: Any, **fields: Any) -> None:
    fields = {"pubsub_name": "pubsub", "topic": "orders", **fields}
    initial = runtime.SubscribeTopicEventsRequestInitialAlpha1(**fields)
    await stream.send_message(Request(initial_request=initial))
    first = await stream.recv_message()
    assert first.initial_response is not None


async def event(stream: Any) -> runtime.TopicEventRequest:
    message = await stream.recv_message()
    assert message is not None
    return message.event_message  # type: ignore[no-any-return]


async def answer(stream: Any, event_id: str, status: Any = SUCCESS) -> None:
    response = runtime.TopicEventResponse(status=status)
    processed = runtime.SubscribeTopicEventsRequestProcessedAlpha1(id=event_id, status=response)
    await stream.send_message(Request(event_processed=processed))


async def publish(node: MeshNode, data: bytes = b"1", **metadata: str) -> None:
    request = runtime.PublishEventRequest(
        pubsub_name="pubsub",
        topic="orders",
        data=data,
        data_content_type="application/json",
        metadata=metadata,
    )
    await node.dapr.publish_event(request)


async def ended(stream: Any) -> GRPCError:
    with pytest.raises(GRPCError) as caught:
        assert await stream.recv_message() is None
        await stream.end()
        await stream.recv_trailing_metadata()
    return caught.value


async def test_a_stream_without_an_initial_request_does_not_hold_up_a_shutdown(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker())
    async with open_stream(node) as stream:
        await stream.send_request()
        await wait_all_tasks_blocked()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.stop)
            assert (await ended(stream)).status is Status.UNAVAILABLE
        assert trio.current_time() == began


async def test_an_application_that_never_answers_costs_the_grace_period_and_no_event(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker(), instance="one")
    async with open_stream(node) as stream:
        await subscribe(stream, dead_letter_topic="dead")
        await publish(node)
        first = await event(stream)
        await node.stop()
    again = await mesh.start("app", resources=flaky_broker(), instance="two")
    async with open_stream(again) as stream:
        await subscribe(stream)
        assert (await event(stream)).id == first.id
    assert [one.topic for one in broker.published] == ["orders"]


async def test_an_event_without_an_answer_is_sent_again_and_dead_lettered_in_the_end(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker() + RESILIENCY)
    async with open_stream(node) as stream:
        await subscribe(stream, dead_letter_topic="dead")
        await publish(node)
        events = [await event(stream) for _ in range(4)]
        await trio.sleep(10)
        assert len({one.id for one in events}) == 1
        assert [one.topic for one in broker.published] == ["orders", "dead"]
        await answer(stream, events[0].id)  # too late, and nobody minds
        await publish(node)
        await answer(stream, (await event(stream)).id)
        await wait_all_tasks_blocked()
    assert broker.outcomes == [Outcome.ACK] * 2


async def test_answers_that_fit_nothing_are_passed_over(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker())
    async with open_stream(node) as stream:
        await subscribe(stream)
        await answer(stream, "unknown")
        await publish(node)
        one = await event(stream)
        await answer(stream, one.id)
        await answer(stream, one.id, runtime.TopicEventResponseTopicEventResponseStatus.RETRY)
        await publish(node)
        await answer(stream, (await event(stream)).id)
        await wait_all_tasks_blocked()
        assert broker.outcomes == [Outcome.ACK] * 2


async def test_one_event_twice_is_answered_twice(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker())
    async with open_stream(node) as stream:
        await subscribe(stream)
        for data in (b"1", b"2", b"3"):
            await publish(node, data, **{"cloudevent.id": "same"})
        seen = []
        for _ in range(3):
            seen.append((await event(stream)).data)
            await answer(stream, "same")
        await wait_all_tasks_blocked()
        assert sorted(seen) == [b"1", b"2", b"3"]
        assert broker.outcomes == [Outcome.ACK] * 3


async def test_a_stream_that_ends_while_its_broker_fails_ends_alone(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker())
    broker.farewell = ComponentUnavailable("the broker is gone as well")
    async with open_stream(node) as one, open_stream(node) as two:
        await subscribe(one)
        await subscribe(two)
        await one.cancel()
        await wait_all_tasks_blocked()
        await publish(node)
        await answer(two, (await event(two)).id)
        await wait_all_tasks_blocked()
        assert broker.outcomes == [Outcome.ACK]


async def test_a_stream_over_a_broker_that_is_away_waits_and_can_be_given_up(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker())
    broker.connecting = True
    async with open_stream(node) as stream:
        initial = runtime.SubscribeTopicEventsRequestInitialAlpha1(pubsub_name="pubsub", topic="orders")
        await stream.send_message(Request(initial_request=initial))
        await wait_all_tasks_blocked()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.stop)
            assert (await ended(stream)).status is Status.UNAVAILABLE
        assert trio.current_time() == began


async def test_a_stream_that_sends_what_is_no_message_gives_back_what_it_had(
    mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker())
    async with open_stream(node) as stream:
        await subscribe(stream)
        await publish(node)
        lost = await event(stream)
        await stream.send_message(Request())
        assert (await ended(stream)).status is Status.INVALID_ARGUMENT
    async with open_stream(node) as stream:
        await subscribe(stream)
        assert (await event(stream)).id == lost.id
