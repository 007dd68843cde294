"""pubsub.sqlite: the conformance suite on real files, and what is its own."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_pubsub_sqlite import Options, driver

from meshnode.errors import (
    BulkPublishError,
    ComponentUnavailable,
    ConfigError,
    MeshError,
    PubSubError,
    Status,
)
from meshnode.interfaces import DriverContext, Outcome, PublishRequest, PubSubFeature, SubscribeRequest
from meshnode.testing.conformance import pubsub

PROMISES = pubsub.Promises(
    features=frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB}),
    keeps_order=True,
    order_key=True,
    keeps_unclaimed=True,
    keeps_content_type=True,
    keeps_metadata=True,
)
CONTEXT = DriverContext("pubsub", "app")


class Wall:
    """The time of day, which tests may let pass."""

    def __init__(self):
        self.ahead = 0.0

    def __call__(self):
        return time.time() + self.ahead

    async def pass_time(self, seconds):
        self.ahead += seconds


def options(path, **given):
    quick = {"redeliver_interval": timedelta(milliseconds=50), "lease_duration": timedelta(minutes=5)}
    return Options(connection_string=str(path), **{**quick, **given})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "topics.db"


@pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
async def test_conformance(check, tmp_path):
    wall = Wall()

    def open_group(group):
        chosen = options(tmp_path / "top%20ics #1.db", consumer_id=group)
        return driver.open(chosen, DriverContext("pubsub", "app", wall=wall))

    assert await check.run(pubsub.Setup(open_group, PROMISES, pass_time=wall.pass_time))


def rows(path, sql, *parameters):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchall()


class Inbox:
    """A deliver function that keeps what it is given; `gate` holds deliveries up until it is set."""

    def __init__(self, *, gate=None):
        self.came = []
        self.gate = gate
        self._news = trio.Event()

    async def __call__(self, message):
        self.came.append(message.data)
        self._news.set()
        self._news = trio.Event()
        if self.gate is not None:
            await self.gate.wait()
        return Outcome.ACK

    async def has(self, count):
        with trio.fail_after(15):
            while len(self.came) < count:
                await self._news.wait()


async def subscribed(nursery, broker, deliver, *, topic="t", limit=None):
    stop = trio.Event()
    request = SubscribeRequest(topic, max_in_flight=limit)
    await nursery.start(partial(broker.subscribe, request, deliver, stop))
    return stop


async def make_group(broker, topic="t"):
    async with trio.open_nursery() as nursery:
        (await subscribed(nursery, broker, Inbox(), topic=topic)).set()


async def reads(path, sql, wanted):
    """Until the file says so: what was asked of it lands when it lands."""
    with trio.fail_after(15):
        for _ in range(2000):
            if rows(path, sql) == wanted:
                return
            await trio.sleep(0.01)


async def drained(path):
    await reads(path, "SELECT count(*) FROM pubsub_deliveries", [(0,)])


async def test_a_publication_that_returned_is_on_disk(path):
    async with driver.open(options(path), CONTEXT) as broker:
        await make_group(broker)
        await broker.publish(PublishRequest("t", b"1"))
        assert rows(path, "SELECT data FROM pubsub_messages") == [(b"1",)]


async def test_nothing_stays_behind(path):
    """No rows when every group is done, and no files but the database when everybody has left."""
    inbox, other = Inbox(), Inbox()
    async with (
        driver.open(options(path, consumer_id="a"), CONTEXT) as one,
        driver.open(options(path, consumer_id="b"), CONTEXT) as two,
        trio.open_nursery() as nursery,
    ):
        stops = [await subscribed(nursery, one, inbox), await subscribed(nursery, two, other)]
        await one.bulk_publish(
            [PublishRequest("t", b"%d" % n, metadata={"partitionKey": "k"}) for n in range(20)]
        )
        await inbox.has(20)
        await other.has(20)
        await drained(path)
        for stop in stops:
            stop.set()
    assert rows(path, "SELECT count(*) FROM pubsub_messages") == [(0,)]
    assert rows(path, "SELECT count(*) FROM pubsub_owners") == [(0,)]
    assert rows(path, "SELECT size FROM pubsub_groups") == [(0,), (0,)]
    assert [file.name for file in path.parent.iterdir()] == ["topics.db"]


async def test_a_full_group_refuses(path):
    async with driver.open(options(path, max_length=2), CONTEXT) as broker:
        await make_group(broker)
        with pytest.raises(BulkPublishError) as several:
            await broker.bulk_publish([PublishRequest("t", b"%d" % number) for number in range(4)])
        assert set(several.value.failures) == {2, 3}
        with pytest.raises(PubSubError, match="group app has 2 messages of topic t") as caught:
            await broker.publish(PublishRequest("t", b"5"))
        assert caught.value.code is Status.RESOURCE_EXHAUSTED
        await broker.publish(PublishRequest("another", b"6"))
        inbox = Inbox()
        async with trio.open_nursery() as nursery:
            stop = await subscribed(nursery, broker, inbox)
            await inbox.has(2)
            await reads(path, "SELECT size FROM pubsub_groups WHERE topic = 't'", [(0,)])
            await broker.publish(PublishRequest("t", b"7"))
            await inbox.has(3)
            stop.set()
    assert sorted(inbox.came) == [b"0", b"1", b"7"]


async def test_retention_keeps_what_was_acknowledged(path):
    inbox = Inbox()
    async with driver.open(options(path, retention=timedelta(hours=1)), CONTEXT) as broker:
        async with trio.open_nursery() as nursery:
            stop = await subscribed(nursery, broker, inbox)
            await broker.publish(PublishRequest("t", b"1"))
            await inbox.has(1)
            stop.set()
        found = rows(path, "SELECT data, pending, finished > published FROM pubsub_messages")
        assert found == [(b"1", 0, 1)]


async def test_the_sweep_removes_what_is_over(path):
    """What expired while nobody read, and what was kept for long enough. It begins when the broker opens."""
    wall, inbox = Wall(), Inbox()
    context = DriverContext("pubsub", "app", wall=wall)
    chosen = options(path, retention=timedelta(hours=1))
    async with driver.open(chosen, context) as broker:
        async with trio.open_nursery() as nursery:
            stop = await subscribed(nursery, broker, inbox)
            await broker.publish(PublishRequest("t", b"acknowledged"))
            await inbox.has(1)
            stop.set()
        many = [PublishRequest("t", b"x", ttl=60, metadata={"partitionKey": "k"}) for _ in range(1200)]
        await broker.bulk_publish(many)
        await broker.publish(PublishRequest("t", b"stays", metadata={"partitionKey": "k"}))
    await wall.pass_time(1800)
    async with driver.open(chosen, context):
        await reads(path, "SELECT count(*) FROM pubsub_deliveries", [(1,)])
        assert rows(path, "SELECT count(*) FROM pubsub_messages") == [(1202,)]
    await wall.pass_time(3601)
    async with driver.open(chosen, context) as broker, trio.open_nursery() as nursery:
        await reads(path, "SELECT data FROM pubsub_messages", [(b"stays",)])
        stop = await subscribed(nursery, broker, inbox)
        await inbox.has(2)
        stop.set()
    assert inbox.came == [b"acknowledged", b"stays"]


async def test_an_abandoned_group_can_be_removed(path):
    async with driver.open(options(path, consumer_id="old"), CONTEXT) as old:
        await make_group(old)
    async with (
        driver.open(options(path, consumer_id="new"), CONTEXT) as broker,
        trio.open_nursery() as nursery,
    ):
        inbox = Inbox()
        stop = await subscribed(nursery, broker, inbox)
        await broker.publish(PublishRequest("t", b"1"))
        await inbox.has(1)
        await reads(path, "SELECT pending FROM pubsub_messages", [(1,)])
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM pubsub_groups WHERE name = 'old'")
            connection.commit()
        await drained(path)
        await broker.publish(PublishRequest("t", b"2"))
        await inbox.has(2)
        stop.set()


async def test_a_long_delivery_keeps_its_lease(path):
    """Another consumer of the group waits for twice the lease and does not get the message."""
    gate = trio.Event()
    inbox, other = Inbox(gate=gate), Inbox()
    chosen = options(path, lease_duration=timedelta(seconds=1))
    async with (
        driver.open(chosen, CONTEXT) as one,
        driver.open(chosen, CONTEXT) as two,
        trio.open_nursery() as nursery,
    ):
        stops = [await subscribed(nursery, one, inbox)]
        await one.publish(PublishRequest("t", b"1"))
        await inbox.has(1)
        stops.append(await subscribed(nursery, two, other))
        await trio.sleep(2.5)  # what should not happen has no event
        gate.set()
        await drained(path)
        for stop in stops:
            stop.set()
    assert (inbox.came, other.came) == ([b"1"], [])


async def test_a_lapsed_lease_is_lost(path):
    """Who stopped answering finds, when it acknowledges, that the message is another's, and leaves it be."""
    gate, other_gate = trio.Event(), trio.Event()
    inbox, other = Inbox(gate=gate), Inbox(gate=other_gate)
    wall = Wall()
    async with (
        driver.open(options(path), CONTEXT) as one,
        driver.open(options(path), DriverContext("pubsub", "app", wall=wall)) as two,
        trio.open_nursery() as nursery,
    ):
        async with trio.open_nursery() as first:
            stop = await subscribed(first, one, inbox)
            await one.publish(PublishRequest("t", b"1"))
            await inbox.has(1)
            await wall.pass_time(3600)  # for the other, the lease has lapsed
            other_stop = await subscribed(nursery, two, other)
            await other.has(1)
            gate.set()
            stop.set()
        assert rows(path, "SELECT attempts FROM pubsub_deliveries") == [(2,)]
        other_gate.set()
        await drained(path)
        other_stop.set()


async def test_a_locked_database(path):
    """Publishing is unavailable; what is under way waits with its acknowledgement, and all goes on after."""
    gate = trio.Event()
    inbox = Inbox(gate=gate)
    chosen = options(path, busy_timeout=timedelta(milliseconds=50))
    async with driver.open(chosen, CONTEXT) as broker, trio.open_nursery() as nursery:
        stop = await subscribed(nursery, broker, inbox, limit=1)
        await broker.publish(PublishRequest("t", b"1"))
        await inbox.has(1)
        with closing(sqlite3.connect(path, isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            with pytest.raises(ComponentUnavailable, match="locked"):
                await broker.publish(PublishRequest("t", b"2"))
            await broker.ping()
            gate.set()
            with pytest.raises(ComponentUnavailable, match="locked"):
                await broker.publish(PublishRequest("t", b"2"))
            intruder.execute("ROLLBACK")
        await broker.publish(PublishRequest("t", b"2"))
        await inbox.has(2)
        stop.set()
    assert inbox.came == [b"1", b"2"]


async def test_a_full_disk(path):
    inbox = Inbox()
    small = f"{path}?_pragma=max_page_count(64)"
    async with driver.open(options(small), CONTEXT) as broker:
        await make_group(broker)
        kept = 0
        with pytest.raises(ComponentUnavailable, match="full"):
            for _ in range(100):
                await broker.publish(PublishRequest("t", bytes(10_000)))
                kept += 1
        assert kept > 3
        async with trio.open_nursery() as nursery:
            stop = await subscribed(nursery, broker, inbox)
            await inbox.has(kept)
            await drained(path)
            await broker.publish(PublishRequest("t", bytes(10_000)))  # there is room again
            await inbox.has(kept + 1)
            stop.set()


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_gone(path, replaced):
    """Nothing is written into a file that nobody will find again."""
    async with driver.open(options(path), CONTEXT) as broker:
        await make_group(broker)
        path.rename(path.with_suffix(".away"))
        if replaced:
            path.write_bytes(b"")
        for call in (partial(broker.publish, PublishRequest("t", b"1")), broker.ping):
            with pytest.raises(ComponentUnavailable, match="removed or replaced"):
                await call()
        path.with_suffix(".away").replace(path)
        await broker.publish(PublishRequest("t", b"1"))


@pytest.mark.parametrize("kind", ["missing folder", "not a database", "earlier level", "later level"])
async def test_unusable_file_fails_at_open(tmp_path, kind):
    path = tmp_path / "nowhere" / "topics.db"
    if kind != "missing folder":
        path = tmp_path / "topics.db"
    if kind == "not a database":
        path.write_bytes(b"this is no database, but long enough to be looked at as one" * 20)
    if kind.endswith("level"):
        async with driver.open(options(path), CONTEXT):
            pass
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE pubsub_schema SET level = ?", (7 if kind == "later level" else 1,))
            connection.commit()
    says = f"an? {kind.split()[0]} meshnode's" if kind.endswith("level") else ""
    with pytest.raises((ComponentUnavailable, PubSubError), match=rf"topics\.db.*{says}"):
        async with driver.open(options(path), CONTEXT):
            pass


async def test_errors_of_the_block_come_out_bare(path):
    error = LookupError("of the block")
    with pytest.raises(LookupError) as caught:
        async with driver.open(options(path), CONTEXT):
            raise error
    assert caught.value is error


async def test_closed_broker_says_so(path):
    async with driver.open(options(path), CONTEXT) as broker:
        pass
    with pytest.raises(ComponentUnavailable, match="closed"):
        await broker.publish(PublishRequest("t", b"1"))


async def test_cancelling_everything_at_once_gives_back(path):
    """The whole component is cancelled, subscription and all: what was under way is free in the file."""
    inbox = Inbox(gate=trio.Event())
    with trio.CancelScope() as scope:
        async with driver.open(options(path), CONTEXT) as broker, trio.open_nursery() as nursery:
            await subscribed(nursery, broker, inbox)
            await broker.publish(PublishRequest("t", b"1"))
            await inbox.has(1)
            scope.cancel()
    assert rows(path, "SELECT owner, due FROM pubsub_deliveries") == [(None, 0.0)]


async def test_state_may_live_in_the_same_file(path):
    from meshnode_state_sqlite import Options as StateOptions
    from meshnode_state_sqlite import driver as state_driver

    from meshnode.interfaces import SetRequest

    inbox = Inbox()
    async with (
        state_driver.open(StateOptions(connection_string=str(path)), CONTEXT) as store,
        driver.open(options(path), CONTEXT) as broker,
        trio.open_nursery() as nursery,
    ):
        stop = await subscribed(nursery, broker, inbox)
        for number in range(20):
            await store.set(SetRequest("k", b"%d" % number))
            await broker.publish(PublishRequest("t", b"%d" % number))
        await inbox.has(20)
        stop.set()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"connection_string": ""}, "connectionString"),
        ({"connection_string": ":memory:"}, "connectionString"),
        ({"connection_string": "file:x.db?mode=ro"}, "connectionString"),
        ({"connection_string": "x.db?_pragma=busy_timeout(5)"}, "connectionString"),
        ({"connection_string": "x.db", "concurrency": 0}, "concurrency"),
        ({"connection_string": "x.db", "max_length": 0}, "maxLength"),
        ({"connection_string": "x.db", "lease_duration": timedelta(0)}, "leaseDuration"),
        ({"connection_string": "x.db", "poll_interval": timedelta(0)}, "pollInterval"),
        ({"connection_string": "x.db", "retention": timedelta(seconds=-1)}, "retention"),
        ({"connection_string": "x.db", "unclaimed_retention": timedelta(seconds=-1)}, "unclaimedRetention"),
        ({"connection_string": "x.db", "redeliver_interval": timedelta(seconds=-1)}, "redeliverInterval"),
        ({"connection_string": "x.db", "timeout": timedelta(milliseconds=10)}, "timeout"),
    ],
)
def test_bad_options_are_refused(arguments, field):
    with pytest.raises(ConfigError) as caught:
        Options(**arguments)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert isinstance(caught.value, MeshError)
