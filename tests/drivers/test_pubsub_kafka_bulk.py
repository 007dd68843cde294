"""pubsub.kafka where deliveries are gathered (bulk subscribe): several messages of a partition are under way
together, with the node's own batches at the other end.
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
    missing_kafka,
    shared_broker,
    subscribed,
)

from meshnode.asyncioloop import asyncio_loop
from meshnode.blocks.pubsub.batches import Batches
from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import DriverContext, Outcome, PublishRequest, SubscribeRequest

CONTEXT = DriverContext("pubsub", "app")
FOR_EVER = 1000.0
"""A patience with which batches leave full or not at all."""


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    yield from shared_broker(tmp_path_factory.mktemp("kafka"))


@asynccontextmanager
async def opened(broker, group, **more):
    quick = {
        "consume_retry_interval": "50ms",
        "heartbeat_interval": timedelta(milliseconds=200),
        "session_timeout": timedelta(seconds=2),
    }
    options = Options(
        **{"brokers": broker.address, "auth_type": "none", "consumer_id": group, **quick, **more}
    )
    async with asyncio_loop(True), pubsub.open(options, CONTEXT) as component:
        yield component


async def acknowledge(_message):
    return Outcome.ACK


@asynccontextmanager
async def gathering(component, topic, answer=acknowledge, *, most=5, patience=FOR_EVER):
    """A bulk subscription, and the batches that came of it. `answer` is asked for each message of a batch,
    one after another. Order is that of the batches: the deliveries of one end in any order.
    """
    stop, batches = trio.Event(), []

    async def receive(messages):
        batches.append([message.data for message in messages])
        return [await answer(message) for message in messages]

    gathered = Batches(receive, most=most, patience=patience, stop=stop)
    request = SubscribeRequest(topic, max_in_flight=2 * most, gathered=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gathered.run)
        async with subscribed(partial(component.subscribe, request), gathered.deliver) as application:
            try:
                yield application, batches
            finally:
                stop.set()
        nursery.cancel_scope.cancel()


def numbers(*several):
    return [b"%d" % number for number in several]


def handed_over(batches):
    return [data for batch in batches for data in batch]


def requests(topic, several, partitions=1):
    return [
        PublishRequest(topic, b"%d" % number, metadata={"partitionNumber": str(number % partitions)})
        for number in several
    ]


async def create_topic_in(broker, name, partitions):
    async with asyncio_loop(True):
        await create_topic(broker.address, name, partitions)


async def test_one_partition_fills_batches_in_order(broker):
    async with opened(broker, "full") as component:
        async with gathering(component, "full") as (application, batches):
            for request in requests("full", range(5)):  # each comes on its own
                await component.publish(request)
            await application.has_finished(5)
            await component.bulk_publish(requests("full", range(5, 22)))
            await application.has_finished(20)
        assert await committed(broker.address, "full") == {0: 22}
    assert batches == [numbers(*range(at, min(at + 5, 22))) for at in (0, 5, 10, 15, 20)]


async def test_no_more_of_a_partition_is_under_way_than_the_limit(broker):
    gate = trio.Event()

    async def answer(_message):
        await gate.wait()
        return Outcome.ACK

    async with (
        opened(broker, "bound") as component,
        gathering(component, "bound", answer) as (application, batches),
    ):
        await component.bulk_publish(requests("bound", range(40)))
        await application.has(10)
        gate.set()
        await application.has_finished(40)
    assert application.most_under_way == 10
    assert handed_over(batches) == numbers(*range(40))


async def test_one_that_failed_comes_again_behind_its_successors(broker):
    failures = []

    async def answer(message):
        if message.data == b"2" and not failures:
            failures.append(message.position)
            return Outcome.RETRY
        return Outcome.ACK

    async with opened(broker, "again") as component:
        async with gathering(component, "again", answer, patience=0.2) as (application, batches):
            await component.bulk_publish(requests("again", range(10)))
            await application.has_finished(10)
        assert await committed(broker.address, "again") == {0: 10}
    assert batches[0] == numbers(*range(5))
    later = handed_over(batches[1:])
    assert sorted(later) == numbers(2, 5, 6, 7, 8, 9)
    assert [data for data in later if data != b"2"] == numbers(5, 6, 7, 8, 9)
    first, second = (message.position for message in application.messages if message.data == b"2")
    assert first == second  # so in its batch it comes before what was published after it


async def test_offsets_are_committed_up_to_the_first_that_is_not_done(broker):
    async def answer(message):
        return Outcome.RETRY if message.data == b"3" else Outcome.ACK

    async with opened(broker, "prefix") as component:
        async with gathering(component, "prefix", answer, patience=0.1) as (application, _batches):
            await component.bulk_publish(requests("prefix", range(10)))
            await application.has_finished(9)
        assert await committed(broker.address, "prefix") == {0: 3}
        async with gathering(component, "prefix", most=7) as (application, batches):
            await application.has_finished(7)
        assert await committed(broker.address, "prefix") == {0: 10}
    assert batches == [numbers(*range(3, 10))]


async def test_one_that_never_succeeds_holds_up_its_partition_in_the_end(broker):
    """How far the others may get ahead of it is how much would come again after a crash."""

    async def answer(message):
        return Outcome.RETRY if message.data == b"0" else Outcome.ACK

    async with (
        opened(broker, "poison", channel_buffer_size=8) as component,
        gathering(component, "poison", answer, most=2, patience=0.02) as (application, _batches),
    ):
        await component.bulk_publish(requests("poison", range(20)))
        await application.has_finished(7)
        tries = application.received.count(b"0")
        await application.until(lambda: application.received.count(b"0") >= tries + 4)
    assert sorted(application.finished) == numbers(*range(1, 8))


async def test_one_that_is_given_up_holds_up_nobody(broker):
    async def answer(message):
        return Outcome.RETRY if message.data == b"1" else Outcome.ACK

    async with opened(broker, "given-up", back_off_max_retries=2, channel_buffer_size=4) as component:
        begin = gathering(component, "given-up", answer, most=2, patience=0.02)
        async with begin as (application, _batches):
            await component.bulk_publish(requests("given-up", range(30)))
            await application.has_finished(29)
        assert await committed(broker.address, "given-up") == {0: 30}
    assert application.received.count(b"1") == 3


async def test_cancelled_it_gives_the_whole_batch_back(broker):
    async def never(_message):
        await trio.sleep_forever()

    async with opened(broker, "cancelled-bulk") as component:
        async with gathering(component, "cancelled-bulk", never) as (application, _batches):
            await component.bulk_publish(requests("cancelled-bulk", range(10)))
            await application.has(10)
            await application.cancel()
        async with gathering(component, "cancelled-bulk") as (application, batches):
            await application.has_finished(10)
    assert batches == [numbers(0, 1, 2, 3, 4), numbers(5, 6, 7, 8, 9)]


async def test_stopped_it_finishes_the_batches_under_way_and_no_more(broker):
    gate = trio.Event()

    async def answer(_message):
        await gate.wait()
        return Outcome.ACK

    async with opened(broker, "stopped-bulk") as component:
        async with gathering(component, "stopped-bulk", answer) as (application, first):
            await component.bulk_publish(requests("stopped-bulk", range(20)))
            await application.has(10)
            application.stop.set()
            gate.set()
            await application.ended.wait()
        assert first == [numbers(*range(5)), numbers(*range(5, 10))]
        assert sorted(application.finished) == numbers(*range(10))
        assert await committed(broker.address, "stopped-bulk") == {0: 10}
        async with gathering(component, "stopped-bulk") as (application, batches):
            await application.has_finished(10)
    assert batches == [numbers(*range(10, 15)), numbers(*range(15, 20))]


async def test_a_rebalance_waits_for_batches_that_end_soon(broker):
    """What they have done is committed before the partitions go, so nobody gets it again."""
    await create_topic_in(broker, "bulk-soon", 2)
    gate, started, done = trio.Event(), trio.Event(), trio.Event()

    async def answer(_message):
        await gate.wait()
        return Outcome.ACK

    async def join(component):
        async with gathering(component, "bulk-soon") as (other, _batches):
            started.set()
            await done.wait()
        assert other.received == []

    async with (
        opened(broker, "bulk-soon", session_timeout=timedelta(seconds=10)) as component,
        gathering(component, "bulk-soon", answer) as (first, _batches),
        trio.open_nursery() as nursery,
    ):
        await component.bulk_publish(requests("bulk-soon", range(10), 2))
        await first.has(10)
        nursery.start_soon(join, component)
        await trio.sleep(0.6)  # the rebalance begins with a heartbeat
        assert not started.is_set()
        gate.set()
        await started.wait()
        done.set()
    assert sorted(first.received) == sorted(first.finished) == numbers(*range(10))


async def test_a_rebalance_cancels_batches_that_take_too_long(broker):
    """All their messages come again, to whoever has their partition then, in order."""
    await create_topic_in(broker, "bulk-slow", 2)
    stuck = trio.Event()

    async def slowly(_message):
        await stuck.wait()
        return Outcome.ACK

    async with (
        opened(broker, "bulk-slow") as component,
        gathering(component, "bulk-slow", slowly) as (first, mine),
    ):
        await component.bulk_publish(requests("bulk-slow", range(10), 2))
        await first.has(10)
        async with gathering(component, "bulk-slow") as (second, theirs):
            await second.has_finished(5)
            assert first.finished == []
            stuck.set()
            await first.has_finished(5)
        assert sorted(first.finished + second.finished) == numbers(*range(10))
        halves = [numbers(0, 2, 4, 6, 8), numbers(1, 3, 5, 7, 9)]
        assert sorted(theirs + mine[1:]) == halves


async def test_consumers_come_and_go_and_each_message_is_done_once(broker):
    await create_topic_in(broker, "bulk-churn", 4)
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

    def begin(component):
        return gathering(component, "bulk-churn", answer, most=10, patience=0.1)

    async with opened(broker, "bulk-churn") as component, begin(component):
        several = requests("bulk-churn", range(400), 4)
        await component.bulk_publish(several[:300])
        async with begin(component):
            await half.wait()
            async with begin(component):
                await component.bulk_publish(several[300:])
        with trio.fail_after(60):
            await whole.wait()
    assert sorted(finished, key=int) == [one.data for one in several]
    for partition in range(4):
        own = [int(data) for data in finished if int(data) % 4 == partition]
        assert own == sorted(own)


async def test_nothing_acknowledged_is_lost_when_the_broker_is_killed(tmp_path):
    if reason := missing_kafka():
        pytest.skip(reason)

    async def publish(component, application):
        for number, request in enumerate(requests("killed-bulk", range(60))):
            await application.has_finished(number - 12)  # so that there is more to come when it is killed
            published = False
            while not published:
                try:
                    await component.publish(request)
                    published = True
                except ComponentUnavailable:
                    await trio.sleep(0.05)

    with kafka_broker(tmp_path) as own:
        async with (
            opened(own, "killed-bulk") as component,
            gathering(component, "killed-bulk", patience=0.1) as (application, batches),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(publish, component, application)
            await application.has_finished(20)
            own.kill()
            own.start()
            await application.until(lambda: len(set(application.finished)) == 60)
    # What was not committed comes again, with all that followed it; for the first time each comes in order.
    assert list(dict.fromkeys(handed_over(batches))) == numbers(*range(60))
