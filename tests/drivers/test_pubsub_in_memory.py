"""pubsub.in-memory: the conformance suite, and what is its own."""

from __future__ import annotations

import itertools
import random
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


async def subscribed(nursery, broker, deliver, *, topic="t", limit=None, gathered=False):
    stop = trio.Event()
    request = SubscribeRequest(topic, max_in_flight=limit, gathered=gathered)
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


def of_key(key, *numbers):
    return [PublishRequest("t", b"%s%d" % (key.encode(), n), metadata={"partitionKey": key}) for n in numbers]


class Held:
    """A consumer whose deliveries end when they are told to."""

    def __init__(self):
        self.begun = []
        self._ends = {}
        self._outcomes = {}

    async def deliver(self, message):
        self.begun.append(message.data)
        self._ends[message.data] = trio.Event()
        await self._ends[message.data].wait()
        return self._outcomes.pop(message.data)

    async def end(self, data, outcome=Outcome.ACK):
        """And whatever follows from it."""
        self._outcomes[data] = outcome
        self._ends[data].set()
        await trio.testing.wait_all_tasks_blocked()


async def test_gathered_deliveries_of_one_key_run_side_by_side_in_order(autojump_clock):
    held = Held()
    async with (
        Broker().driver.open(Options(), DriverContext("p", "app")) as broker,
        trio.open_nursery() as nursery,
    ):
        await subscribed(nursery, broker, held.deliver, limit=4, gathered=True)
        for request in [*of_key("a", 1, 2), *of_key("b", 1), *of_key("a", 3, 4), *of_key("c", 1)]:
            await broker.publish(request)
            await trio.testing.wait_all_tasks_blocked()
        assert held.begun == [b"a1", b"a2", b"b1", b"a3"]
        nursery.cancel_scope.cancel()


async def test_while_one_gathers_a_key_no_other_consumer_gets_any_of_it(autojump_clock):
    one, other = Held(), Held()
    async with (
        Broker().driver.open(Options(), DriverContext("p", "app")) as broker,
        trio.open_nursery() as nursery,
    ):
        await subscribed(nursery, broker, one.deliver, limit=2, gathered=True)
        await broker.bulk_publish(of_key("a", 1, 2, 3, 4))
        await trio.testing.wait_all_tasks_blocked()
        await subscribed(nursery, broker, other.deliver, limit=2)
        await broker.bulk_publish(of_key("b", 1, 2))
        await trio.testing.wait_all_tasks_blocked()
        assert (one.begun, other.begun) == ([b"a1", b"a2"], [b"b1"])
        await one.end(b"a2")
        await one.end(b"a1")
        assert (one.begun, other.begun) == ([b"a1", b"a2", b"a3", b"a4"], [b"b1"])
        nursery.cancel_scope.cancel()


async def test_gathered_a_message_to_be_tried_again_lets_its_successors_go_ahead(autojump_clock):
    held = Held()
    async with (
        Broker().driver.open(Options(), DriverContext("p", "app")) as broker,
        trio.open_nursery() as nursery,
    ):
        stop = await subscribed(nursery, broker, held.deliver, limit=2, gathered=True)
        await broker.bulk_publish(of_key("a", 1, 2, 3, 4))
        await trio.testing.wait_all_tasks_blocked()
        await held.end(b"a1", Outcome.RETRY)
        await held.end(b"a2")
        assert held.begun == [b"a1", b"a2", b"a3"]
        await trio.sleep(2)
        await held.end(b"a3")
        assert held.begun == [b"a1", b"a2", b"a3", b"a1", b"a4"]
        stop.set()
        await held.end(b"a1")
        await held.end(b"a4")


async def test_what_a_gathering_consumer_gives_back_is_anybodys_in_order(autojump_clock):
    came = []

    async def note(message):
        came.append(message.data)
        return Outcome.ACK

    async with Broker().driver.open(Options(), DriverContext("p", "app")) as broker:
        async with trio.open_nursery() as nursery:
            await subscribed(nursery, broker, Held().deliver, limit=4, gathered=True)
            await broker.bulk_publish(of_key("a", *range(6)))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:
            stop = await subscribed(nursery, broker, note)
            await trio.testing.wait_all_tasks_blocked()
            stop.set()
    assert came == [b"a%d" % number for number in range(6)]


class Rules:
    """What must hold however consumers share a group: a key belongs to one at a time, and nothing is done
    twice.
    """

    def __init__(self, rng):
        self._rng = rng
        self._under_way = {}
        self.begun = []
        self.done = []

    async def deliver(self, name, gathered, retries, message):
        under_way = self._under_way.setdefault(message.data[:1], [])
        assert not under_way or (gathered and set(under_way) == {name})
        under_way.append(name)
        self.begun.append(message.data)
        await trio.sleep(self._rng.choice((0, 1, 2)))
        under_way.remove(name)
        if self._rng.random() < retries:
            return Outcome.RETRY
        self.done.append(message.data)
        return Outcome.ACK


@pytest.mark.parametrize("retries", [0, 0.3])
async def test_consumers_of_every_kind_share_a_group(retries, autojump_clock):
    for seed in range(30):
        rng = random.Random(seed)
        rules = Rules(rng)
        published = [one for n in range(10) for key in "abc" for one in of_key(key, n)]
        async with (
            Broker().driver.open(Options(), DriverContext("p", "app")) as broker,
            trio.open_nursery() as nursery,
        ):
            for name in range(3):
                gathered, limit = rng.random() < 0.6, rng.randint(1, 6)
                deliver = partial(rules.deliver, name, gathered, retries)
                await subscribed(nursery, broker, deliver, limit=limit, gathered=gathered)
            for request in published:
                await broker.publish(request)
                if rng.random() < 0.3:
                    await trio.sleep(1)
            await trio.sleep(300)
            nursery.cancel_scope.cancel()
        assert sorted(rules.done) == sorted(one.data for one in published)
        if not retries:
            assert [data for data in rules.begun if data[:1] == b"a"] == [b"a%d" % n for n in range(10)]


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
