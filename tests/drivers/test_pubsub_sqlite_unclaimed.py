"""pubsub.sqlite: what is published before anybody has subscribed, and who gets it."""

from __future__ import annotations

import random
import sqlite3
import time
from contextlib import AsyncExitStack, asynccontextmanager, closing
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_pubsub_sqlite import Options, driver

from meshnode.interfaces import DriverContext, Outcome, PublishRequest, SubscribeRequest

HOUR = 3600.0


class Wall:
    """The time of day, which tests may let pass."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead


@pytest.fixture
def path(tmp_path):
    return tmp_path / "topics.db"


def opened(path, group="app", wall=time.time, **given):
    quick = {"redeliver_interval": timedelta(milliseconds=20), "lease_duration": timedelta(minutes=5)}
    chosen = Options(connection_string=str(path), consumer_id=group, **{**quick, **given})
    return driver.open(chosen, DriverContext("pubsub", "app", wall=wall))


def rows(path, sql, *parameters):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchall()


async def reads(path, sql, wanted):
    """Until the file says so: what was asked of it lands when it lands."""
    with trio.fail_after(20):
        for _ in range(5000):
            if rows(path, sql) == wanted:
                return
            await trio.sleep(0.005)


class Inbox:
    """A deliver function that keeps what it acknowledged; the first deliveries of `fail_once` fail."""

    def __init__(self, fail_once=()):
        self.messages = []
        self._to_fail = set(fail_once)
        self._news = trio.Event()

    async def __call__(self, message):
        if message.data in self._to_fail:
            self._to_fail.remove(message.data)
            return Outcome.RETRY
        self.messages.append(message)
        self._news.set()
        self._news = trio.Event()
        return Outcome.ACK

    @property
    def came(self):
        return [message.data for message in self.messages]

    @property
    def positions(self):
        return [message.position for message in self.messages]

    async def has(self, count):
        with trio.fail_after(20):
            while len(self.messages) < count:
                await self._news.wait()


@asynccontextmanager
async def reading(broker, inbox, *, limit=None, topic="t"):
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        request = SubscribeRequest(topic, max_in_flight=limit)
        await nursery.start(partial(broker.subscribe, request, inbox, stop))
        yield
        stop.set()


async def publish(broker, *bodies, topic="t", **fields):
    for data in bodies:
        await broker.publish(PublishRequest(topic, data, **fields))


async def test_the_first_group_receives_it_in_order(path):
    """Single and bulk publications, those before and those after; nothing of other topics."""
    first = Inbox()
    async with opened(path) as broker:
        await publish(broker, b"0", b"1")
        await publish(broker, b"elsewhere", topic="another")
        await broker.bulk_publish([PublishRequest("t", b"2"), PublishRequest("t", b"3")])
        async with reading(broker, first, limit=1):
            await publish(broker, b"4")
            await first.has(5)
    assert first.came == [b"0", b"1", b"2", b"3", b"4"]
    assert rows(path, "SELECT topic, data FROM pubsub_messages") == [("another", b"elsewhere")]


async def test_later_groups_begin_with_their_subscription(path):
    """Even while the first has not read what was kept: it is the first's."""
    first, later = Inbox(), Inbox()
    async with opened(path, "first") as one, opened(path, "later") as two:
        await publish(one, b"before")
        async with reading(two, Inbox(), topic="another"), reading(one, first):
            await first.has(1)
        await publish(one, b"between")
        async with reading(two, later):
            await publish(one, b"after")
            await later.has(1)
        async with reading(one, first):
            await first.has(3)
    assert sorted(first.came) == [b"after", b"before", b"between"]
    assert later.came == [b"after"]


async def test_keys_keep_their_order(path):
    """Side by side, in two consumers of the group, with redeliveries."""
    bodies = [b"%d" % number for number in range(60)]
    inbox = Inbox(fail_once=bodies[::7])
    async with opened(path) as one, opened(path) as two:
        for number, data in enumerate(bodies):
            await publish(one, data, metadata={"partitionKey": f"key {number % 4}"})
        async with reading(one, inbox), reading(two, inbox):
            await inbox.has(60)
    for key in range(4):
        mine = [data for data in inbox.came if int(data) % 4 == key]
        assert mine == bodies[key::4]


async def test_time_to_live(path):
    """What has expired is not delivered, and is removed though nobody comes."""
    wall, inbox = Wall(), Inbox()
    async with opened(path, wall=wall) as broker:
        await publish(broker, b"short", b"shorter", ttl=60, metadata={"partitionKey": "k"})
        await publish(broker, b"long", ttl=HOUR, metadata={"partitionKey": "k"})
        await publish(broker, b"short", topic="another", ttl=60)
        wall.ahead = 120
        async with reading(broker, inbox):
            await inbox.has(1)
    assert inbox.came == [b"long"]
    async with opened(path, wall=wall):
        await reads(path, "SELECT count(*) FROM pubsub_messages", [(0,)])
        await reads(path, "SELECT topic, name FROM pubsub_groups", [("t", "app")])


async def test_what_nobody_came_for_goes(path, caplog):
    """When its time has passed; topics that are empty then leave nothing. What has a group stays."""
    wall, inbox = Wall(), Inbox()
    caplog.set_level("INFO")
    async with opened(path, wall=wall) as broker:
        async with reading(broker, Inbox(), topic="claimed"):
            pass
        await publish(broker, b"claimed", topic="claimed")
        await broker.bulk_publish(
            [PublishRequest("t", b"old", metadata={"partitionKey": str(n % 3)}) for n in range(1200)]
        )
        for number in range(20):
            await publish(broker, b"old", topic=f"once {number}")
        wall.ahead = 23 * HOUR
        await publish(broker, b"a", b"b", metadata={"partitionKey": "0"})
    async with opened(path, wall=wall, unclaimed_retention=timedelta(hours=23.5)):
        pass
    assert rows(path, "SELECT count(*) FROM pubsub_messages") == [(1223,)]
    wall.ahead = 25 * HOUR
    async with opened(path, wall=wall) as broker:
        await reads(path, "SELECT data FROM pubsub_messages ORDER BY id", [(b"claimed",), (b"a",), (b"b",)])
        await reads(path, "SELECT topic, name, size FROM pubsub_groups ORDER BY topic", [
            ("claimed", "app", 1), ("t", None, 2),
        ])  # fmt: skip
        assert rows(path, "SELECT count(*) FROM pubsub_deliveries") == [(3,)]
        async with reading(broker, inbox):
            await inbox.has(2)
    assert inbox.came == [b"a", b"b"]
    assert "topics of 1220 messages within 86400s" in caplog.text


async def test_nothing_is_kept_where_nothing_shall_be(path):
    inbox = Inbox()
    async with opened(path) as other:
        await publish(other, b"of another component")
    async with opened(path, unclaimed_retention=timedelta(0)) as broker:
        await reads(path, "SELECT count(*) FROM pubsub_messages", [(0,)])
        await publish(broker, b"to nobody")
        await broker.bulk_publish([PublishRequest("t", b"to nobody")])
        assert rows(path, "SELECT count(*) FROM pubsub_messages") == [(0,)]
        async with reading(broker, inbox):
            await publish(broker, b"to somebody")
            await inbox.has(1)
    assert inbox.came == [b"to somebody"]


async def test_the_newest_are_kept(path, caplog):
    """Publishing goes on, the log says it once for each topic, and keys are none the worse."""
    inbox = Inbox()
    async with opened(path, max_length=5) as broker:
        for number in range(20):
            await publish(broker, b"%d" % number, metadata={"partitionKey": str(number % 2)})
            assert rows(path, "SELECT count(*) FROM pubsub_messages")[0][0] <= 5
        await broker.bulk_publish([PublishRequest("another", b"%d" % number) for number in range(8)])
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert "topic t: it keeps the newest 5 messages" in caplog.text
        assert rows(path, "SELECT topic, size FROM pubsub_groups") == [("t", 5), ("another", 5)]
        async with reading(broker, inbox):
            await inbox.has(5)
        assert sorted(inbox.came) == [b"%d" % number for number in range(15, 20)]
        by_key = [[int(data) for data in inbox.came if int(data) % 2 == key] for key in (0, 1)]
        assert by_key == [[16, 18], [15, 17, 19]]
    await reads(path, "SELECT size FROM pubsub_groups WHERE topic = 't'", [(0,)])


async def test_who_allows_least_is_heeded(path):
    async with opened(path) as generous, opened(path, max_length=3) as thrifty:
        await publish(generous, *[b"%d" % number for number in range(1500)])
        for _ in range(3):
            await publish(thrifty, b"last")
        assert rows(path, "SELECT data FROM pubsub_messages ORDER BY id") == [(b"last",)] * 3
        assert rows(path, "SELECT size FROM pubsub_groups") == [(3,)]


async def test_a_topic_whose_groups_were_removed_waits_for_a_first_one_again(path):
    inbox = Inbox()
    async with opened(path, "old") as old, reading(old, Inbox()):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM pubsub_groups")
        connection.commit()
    async with opened(path, "new") as broker:
        await publish(broker, b"1")
        async with reading(broker, inbox):
            await inbox.has(1)
    assert inbox.came == [b"1"]


async def publish_now_and_then(path, rng):
    async with opened(path, "publisher") as broker:
        for number in range(30):
            for _ in range(rng.randrange(30)):
                await trio.lowlevel.checkpoint()
            await publish(broker, b"%d" % number, metadata={"partitionKey": "k"} if number % 3 else {})


@pytest.mark.parametrize("seed", range(12))
async def test_publications_and_first_subscriptions_race(path, seed):
    """Of several groups one comes first and gets all; each of the others all from some moment on; nobody
    anything twice. Every component has its own connection, as in several processes.
    """
    rng = random.Random(seed)
    names = ["a", "a", "b", "c"]
    inboxes = {name: Inbox() for name in names}
    async with AsyncExitStack() as stack:
        members = [(name, await stack.enter_async_context(opened(path, name))) for name in names]
        rng.shuffle(members)
        stop = trio.Event()
        async with trio.open_nursery() as subscriptions:
            async with trio.open_nursery() as publishers:
                for _ in range(3):
                    publishers.start_soon(publish_now_and_then, path, random.Random(rng.random()))
                await reads(path, f"SELECT count(*) > {rng.randrange(60)} FROM pubsub_messages", [(1,)])
                for name, broker in members:
                    subscribe = partial(broker.subscribe, task_status=trio.TASK_STATUS_IGNORED)
                    subscriptions.start_soon(subscribe, SubscribeRequest("t"), inboxes[name], stop)
            await reads(path, "SELECT max(size), count(*) FROM pubsub_groups", [(0, 3)])
            stop.set()
    every = list(range(1, 91))
    found = [sorted(inbox.positions) for inbox in inboxes.values()]
    assert every in found
    for positions in found:
        assert positions == every[len(every) - len(positions) :]
    assert rows(path, "SELECT count(*) FROM pubsub_messages") == [(0,)]
