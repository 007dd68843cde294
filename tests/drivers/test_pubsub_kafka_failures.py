"""pubsub.kafka when things break and when consumers come and go: brokers that are killed, paused and back
again, rebalances, cancellation, stops.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_kafka import Options, pubsub
from support.kafka_servers import (
    committed,
    create_topic,
    kafka_broker,
    members,
    missing_kafka,
    shared_broker,
    subscribed,
)
from support.redis_servers import free_port

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import DriverContext, Outcome, PublishRequest, SubscribeRequest

CONTEXT = DriverContext("pubsub", "app")


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    yield from shared_broker(tmp_path_factory.mktemp("kafka"))


@pytest.fixture(scope="module")
def breakable(tmp_path_factory):
    if reason := missing_kafka():
        pytest.skip(reason)
    with kafka_broker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture
def own_broker(breakable):
    """One that may be killed and paused; it is there for each test."""
    if not breakable.runs:
        breakable.start()
    return breakable


def options(address, group, **more):
    quick = {
        "consume_retry_interval": "50ms",
        "heartbeat_interval": timedelta(milliseconds=200),
        "session_timeout": timedelta(seconds=2),
    }
    return Options(**{"brokers": address, "auth_type": "none", "consumer_id": group, **quick, **more})


@asynccontextmanager
async def opened(address, group, **more):
    async with asyncio_loop(True), pubsub.open(options(address, group, **more), CONTEXT) as component:
        yield component


def subscription(component, topic):
    return partial(component.subscribe, SubscribeRequest(topic))


def request(topic, data, partition=None):
    return PublishRequest(topic, data, metadata={} if partition is None else {"partitionNumber": partition})


class Gate:
    """Answers when it is opened."""

    def __init__(self):
        self.event = trio.Event()

    async def __call__(self, _message):
        await self.event.wait()
        return Outcome.ACK


async def until_it_works(operation):
    """Tries again for as long as the broker is unavailable, as a resiliency policy would."""
    with trio.fail_after(60):
        while True:
            try:
                return await operation()
            except ComponentUnavailable:
                await trio.sleep(0.05)


async def test_nothing_acknowledged_is_lost_when_the_broker_is_killed(own_broker):
    acknowledged = []

    async def publish(component):
        for number in range(60):
            data = b"%d" % number
            await until_it_works(partial(component.publish, request("killed", data)))
            acknowledged.append(data)

    async with (
        opened(own_broker.address, "killed") as component,
        subscribed(subscription(component, "killed")) as application,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(publish, component)
        for count in (5, 10):
            await application.has_finished(count)
            own_broker.kill()
            own_broker.start()
        await application.until(lambda: len(set(application.finished)) == 60)
    assert acknowledged == [b"%d" % number for number in range(60)]
    # Each as published; one whose commit was lost may come again, with all that followed it.
    firsts = list(dict.fromkeys(application.finished))
    assert firsts == acknowledged


async def test_a_broker_that_stalls_for_longer_than_the_session(own_broker):
    async with (
        opened(own_broker.address, "stalled") as component,
        subscribed(subscription(component, "stalled")) as application,
    ):
        await component.publish(request("stalled", b"before"))
        await application.has_finished(1)
        own_broker.pause()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_it_works, partial(component.publish, request("stalled", b"during")))
                await trio.sleep(3)
                own_broker.resume()
        finally:
            own_broker.resume()
        await application.until(lambda: b"during" in application.finished)
        await until_it_works(partial(component.publish, request("stalled", b"after")))
        await application.until(lambda: b"after" in application.finished)
    assert list(dict.fromkeys(application.finished)) == [b"before", b"during", b"after"]


async def test_everything_can_be_cancelled_while_the_broker_is_silent(own_broker):
    """Publications and subscriptions, those that begin as well; and the driver closes."""

    async def subscribe(component, topic):
        async with subscribed(subscription(component, topic), Gate()):
            await trio.sleep_forever()

    try:
        with trio.fail_after(40), trio.CancelScope() as scope:
            async with opened(own_broker.address, "silent") as component, trio.open_nursery() as nursery:
                await component.publish(request("silent", b"x"))
                async with subscribed(subscription(component, "silent"), Gate()) as application:
                    await component.publish(request("silent", b"x"))
                    await application.has(1)
                    own_broker.pause()
                    nursery.start_soon(component.publish, request("silent", b"y"))
                    nursery.start_soon(component.publish, request("other", b"y"))
                    nursery.start_soon(component.ping)
                    nursery.start_soon(subscribe, component, "silent")
                    await trio.testing.wait_all_tasks_blocked(0.1)
                    scope.cancel()
        assert scope.cancelled_caught
    finally:
        own_broker.resume()


async def test_a_broker_that_is_gone(own_broker):
    async def fails(operation):
        with trio.fail_after(30), pytest.raises(ComponentUnavailable, match=own_broker.address):
            await operation()

    async with opened(own_broker.address, "gone") as component:
        await component.publish(request("gone", b"x"))
        own_broker.kill()
        subscribing = partial(subscription(component, "gone"), Gate(), trio.Event())
        async with trio.open_nursery() as nursery:
            for operation in (
                partial(component.publish, request("gone", b"y")),
                partial(component.bulk_publish, [request("gone", b"y"), request("gone", b"z")]),
                partial(subscribing, task_status=trio.TASK_STATUS_IGNORED),
                component.ping,
            ):
                nursery.start_soon(fails, operation)


async def test_no_broker_at_open():
    async with asyncio_loop(True):
        address = f"127.0.0.1:{free_port()}"
        with trio.fail_after(10), pytest.raises(ComponentUnavailable, match=address):
            async with pubsub.open(options(address, "g"), CONTEXT):
                pass


async def test_opening_can_be_cancelled():
    """Something listens there that is no Kafka and says nothing."""

    async def say_nothing(_stream):
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        address = f"127.0.0.1:{listener.socket.getsockname()[1]}"
        async with asyncio_loop(True):
            with trio.fail_after(20), trio.move_on_after(0.2) as scope:
                async with pubsub.open(options(address, "g"), CONTEXT):
                    pass
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_cancelled_it_gives_back_at_once(broker):
    """Its session would last a minute: only having left the group explains that the next one is served."""
    patient = {"session_timeout": timedelta(seconds=20), "heartbeat_interval": timedelta(seconds=5)}
    async with opened(broker.address, "cancelled", **patient) as component:
        async with subscribed(subscription(component, "cancelled"), Gate()) as application:
            await component.publish(request("cancelled", b"1"))
            await component.publish(request("cancelled", b"2"))
            await application.has(1)
            assert await members(broker.address, "cancelled") == 1
            await application.cancel()
        assert await members(broker.address, "cancelled") == 0
        assert application.finished == []
        with trio.fail_after(10):
            async with subscribed(subscription(component, "cancelled")) as application:
                await application.has_finished(2)
    assert application.finished == [b"1", b"2"]


async def test_stopped_it_finishes_what_is_under_way_and_no_more(broker):
    gate = Gate()
    async with opened(broker.address, "stopped") as component:
        async with subscribed(subscription(component, "stopped"), gate) as application:
            await component.bulk_publish([request("stopped", b"%d" % number) for number in range(5)])
            await application.has(1)
            application.stop.set()
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert not application.ended.is_set()
            gate.event.set()
            await application.ended.wait()
        assert application.finished == [b"0"]
        assert await committed(broker.address, "stopped") == {0: 1}
        assert await members(broker.address, "stopped") == 0
        async with subscribed(subscription(component, "stopped")) as application:
            await application.has_finished(4)
    assert application.finished == [b"%d" % number for number in range(1, 5)]


async def test_a_delivery_may_take_longer_than_the_session(broker):
    gate = Gate()
    async with (
        opened(broker.address, "long") as component,
        subscribed(subscription(component, "long"), gate) as application,
    ):
        await component.publish(request("long", b"1"))
        await application.has(1)
        await trio.sleep(3)
        assert await members(broker.address, "long") == 1
        gate.event.set()
        await application.has_finished(1)
        await component.publish(request("long", b"2"))
        await application.has_finished(2)
    assert application.received == [b"1", b"2"]


async def test_a_rebalance_waits_for_what_ends_soon(broker):
    """Its offset is committed before the partition goes, so nobody gets it again."""
    await create_topic_in(broker, "soon", 2)
    gate = Gate()
    async with (
        opened(broker.address, "soon", session_timeout=timedelta(seconds=10)) as component,
        subscribed(subscription(component, "soon"), gate) as first,
    ):
        for partition in ("0", "1"):
            await component.publish(request("soon", partition.encode(), partition))
        await first.has(2)
        second = Gate()
        async with trio.open_nursery() as nursery:
            started = trio.Event()
            done = trio.Event()

            async def join():
                async with subscribed(subscription(component, "soon"), second) as other:
                    started.set()
                    await done.wait()
                assert other.received == []

            nursery.start_soon(join)
            await trio.sleep(0.6)  # the rebalance begins with a heartbeat
            assert not started.is_set()
            gate.event.set()
            await started.wait()
            done.set()
        assert first.finished == [b"0", b"1"] or first.finished == [b"1", b"0"]
    assert sorted(first.received) == [b"0", b"1"]


async def create_topic_in(broker, name, partitions):
    async with asyncio_loop(True):
        await create_topic(broker.address, name, partitions)


async def test_a_rebalance_cancels_what_takes_too_long(broker):
    """Both messages come again, each to whoever has its partition then."""
    await create_topic_in(broker, "slow", 2)
    calls = []

    async def answer(name, message):
        calls.append((name, message.data))
        if len(calls) <= 2:
            await trio.sleep_forever()
        return Outcome.ACK

    async with (
        opened(broker.address, "slow") as component,
        subscribed(subscription(component, "slow"), partial(answer, "first")) as first,
    ):
        for partition in ("0", "1"):
            await component.publish(request("slow", partition.encode(), partition))
        await first.has(2)
        async with subscribed(subscription(component, "slow"), partial(answer, "second")) as second:
            await second.has_finished(1)
            await first.has_finished(1)
    assert len(calls) == 4
    assert {first.finished[0], second.finished[0]} == {b"0", b"1"}


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "sticky"])
async def test_consumers_come_and_go_and_each_message_is_done_once(broker, strategy):
    """Without a failure there is no redelivery, whoever leaves in the middle of it."""
    topic = f"churn-{strategy}"
    await create_topic_in(broker, topic, 4)
    finished = []
    half, whole = trio.Event(), trio.Event()

    async def answer(message):
        await trio.sleep(0.002)
        finished.append(message.data)
        if len(finished) >= 200:
            half.set()
        if len(finished) >= 400:
            whole.set()
        return Outcome.ACK

    async with (
        opened(broker.address, topic, rebalance_strategy=strategy) as component,
        subscribed(subscription(component, topic), answer) as steady,
    ):
        requests = [request(topic, b"%d" % number, str(number % 4)) for number in range(400)]
        await component.bulk_publish(requests[:300])
        async with subscribed(subscription(component, topic), answer):
            await half.wait()
            async with subscribed(subscription(component, topic), answer) as third:
                await component.bulk_publish(requests[300:])
            assert third.ended.is_set()
        with trio.fail_after(60):
            await whole.wait()
        assert not steady.ended.is_set()
    assert sorted(finished, key=int) == [one.data for one in requests]
    for partition in range(4):
        own = [int(data) for data in finished if int(data) % 4 == partition]
        assert own == sorted(own)
