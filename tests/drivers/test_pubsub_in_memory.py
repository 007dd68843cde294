"""pubsub.in-memory: the conformance suite, and what is its own."""

from __future__ import annotations

import itertools
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_pubsub_in_memory import Broker, Options

from meshnode.errors import BulkPublishError, ConfigError, PubSubError, Status
from meshnode.interfaces import DriverContext, Outcome, PublishRequest, PubSubFeature, SubscribeRequest
from meshnode.testing.conformance import pubsub


class Passing:
    """A wall clock that the checks move."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def wall(self):
        return self.now

    async def __call__(self, seconds):
        self.now += seconds


PROMISES = pubsub.Promises(
    features=frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB}),
    keeps_order=True,
    order_key=True,
    keeps_content_type=True,
    keeps_metadata=True,
)


@pytest.fixture
def setup():
    driver, clock = Broker().driver, Passing()
    context = DriverContext("pubsub", "app", wall=clock.wall)

    def open_group(group):
        options = Options(consumer_id=group, redeliver_interval=timedelta(milliseconds=20))
        return driver.open(options, context)

    return pubsub.Setup(open_group, PROMISES, pass_time=clock)


@pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
async def test_conformance(check, setup, autojump_clock):
    assert await check.run(setup)


async def subscribed(nursery, broker, deliver, *, topic="t", limit=None):
    stop = trio.Event()
    request = SubscribeRequest(topic, max_in_flight=limit)
    await nursery.start(partial(broker.subscribe, request, deliver, stop))
    return stop


async def test_a_full_group_refuses(autojump_clock):
    async def never(message):
        await trio.sleep_forever()

    async with (
        Broker().driver.open(Options(max_queued=2), DriverContext("p", "app")) as broker,
        trio.open_nursery() as nursery,
    ):
        await subscribed(nursery, broker, never, limit=1)
        await broker.publish(PublishRequest("t", b"1"))
        with pytest.raises(BulkPublishError) as several:
            await broker.bulk_publish([PublishRequest("t", b"%d" % number) for number in (2, 3, 4)])
        assert set(several.value.failures) == {1, 2}
        with pytest.raises(PubSubError, match="2 messages of topic t") as caught:
            await broker.publish(PublishRequest("t", b"5"))
        assert caught.value.code is Status.RESOURCE_EXHAUSTED
        await broker.publish(PublishRequest("nobody-reads", b"6"))
        nursery.cancel_scope.cancel()


async def test_several_given_back_keep_their_order(autojump_clock):
    came = []

    async def never(message):
        await trio.sleep_forever()

    async def note(message):
        came.append(message.data)
        return Outcome.ACK

    bodies = [b"%d" % number for number in range(6)]
    async with Broker().driver.open(Options(), DriverContext("p", "app")) as broker:
        async with trio.open_nursery() as nursery:
            await subscribed(nursery, broker, never, limit=4)
            for data in bodies:
                await broker.publish(PublishRequest("t", data))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            stop = await subscribed(nursery, broker, note, limit=1)
            await trio.testing.wait_all_tasks_blocked()
            stop.set()
    assert came == bodies


async def test_a_message_to_be_tried_again_waits_for_the_interval(autojump_clock):
    times = []

    async def retry(message):
        times.append(trio.current_time())
        return Outcome.RETRY if len(times) < 4 else Outcome.ACK

    options = Options(redeliver_interval=timedelta(seconds=5))
    async with (
        Broker().driver.open(options, DriverContext("p", "app")) as broker,
        trio.open_nursery() as nursery,
    ):
        stop = await subscribed(nursery, broker, retry)
        await broker.publish(PublishRequest("t", b"1"))
        await trio.sleep(60)
        stop.set()
    assert [round(later - earlier) for earlier, later in itertools.pairwise(times)] == [5, 5, 5]


async def test_components_of_their_own_are_apart(autojump_clock):
    async def deliver(message):
        raise AssertionError("it came from another component")

    driver = Broker().driver
    assert driver.type == "pubsub.in-memory"
    async with (
        Broker().driver.open(Options(), DriverContext("p", "app")) as one,
        Broker().driver.open(Options(), DriverContext("p", "app")) as two,
        trio.open_nursery() as nursery,
    ):
        stop = await subscribed(nursery, one, deliver)
        await two.publish(PublishRequest("t", b"1"))
        await trio.testing.wait_all_tasks_blocked()
        stop.set()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"max_queued": 0}, "maxQueued"),
        ({"redeliver_interval": timedelta(seconds=-1)}, "redeliverInterval"),
    ],
)
def test_bad_options_are_refused(arguments, field):
    with pytest.raises(ConfigError) as caught:
        Options(**arguments)
    assert [problem.field for problem in caught.value.problems] == [field]
