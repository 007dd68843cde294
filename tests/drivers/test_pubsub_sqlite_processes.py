"""pubsub.sqlite shared by processes, some of which are killed or stopped: nothing acknowledged is lost.

Run as a program, this file is such a process: it publishes or consumes, and prints what it has done.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
from collections import Counter, defaultdict
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_pubsub_sqlite import Options, driver

from meshnode.interfaces import DriverContext, Outcome, PublishRequest, SubscribeRequest

if __name__ != "__main__":
    from support.processes import process

CONTEXT = DriverContext("pubsub", "app")
LIMIT, KEYS, MESSAGES = 8, 5, 400


def opened(path, lease=300.0, group="app"):
    chosen = Options(
        connection_string=str(path),
        consumer_id=group,
        concurrency=LIMIT,
        lease_duration=timedelta(seconds=lease),
        redeliver_interval=timedelta(milliseconds=20),
    )
    return driver.open(chosen, CONTEXT)


def say(*words):
    print(*words, flush=True)


async def consume(path, lease):
    async def deliver(message):
        say("begun", message.data.decode())
        await trio.sleep(0.002)
        say("done", message.data.decode())
        return Outcome.ACK

    async with opened(path, float(lease)) as broker, trio.open_nursery() as nursery:
        await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), deliver, trio.Event()))
        say("ready")


async def publish(path, _lease):
    async with opened(path) as broker, trio.open_nursery() as nursery:
        say("ready")

        async def publisher(who):
            for number in range(100_000):
                await broker.publish(PublishRequest("t", b"%d:%d" % (who, number)))
                say("sent", f"{who}:{number}")

        for who in range(4):
            nursery.start_soon(publisher, who)


async def follow(path, group):
    """Says which messages it got, by their numbers in the file."""

    async def deliver(message):
        say("got", str(message.position))
        return Outcome.ACK

    async with opened(path, group=group) as broker, trio.open_nursery() as nursery:
        await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), deliver, trio.Event()))
        say("ready")


@contextmanager
def running(role, path, lease=300.0):
    with process([sys.executable, __file__, role, str(path), str(lease)]) as one:
        one.wait_for("ready")
        yield one


def said(running_process, word):
    return [line.split()[1] for line in list(running_process.lines) if line.startswith(f"{word} ")]


def freeze(sleeper, path):
    """Stops a process while it is not writing: one that is holds up everybody, whatever we do."""
    for _ in range(200):
        sleeper.popen.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, sleeper.popen.pid, os.WSTOPPED)
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0.05)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                sleeper.popen.send_signal(signal.SIGCONT)
            else:
                return
    raise AssertionError("it is always writing")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "topics.db"


class Inbox:
    """A deliver function that keeps what it is given."""

    def __init__(self):
        self.came = []
        self._news = trio.Event()

    async def __call__(self, message):
        self.came.append(message.data.decode())
        self._news.set()
        self._news = trio.Event()
        return Outcome.ACK

    async def until(self, condition):
        with trio.fail_after(30):
            while not condition(self.came):
                await self._news.wait()


async def make_group(path):
    async with opened(path) as broker, trio.open_nursery() as nursery:
        stop = trio.Event()
        await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), Inbox(), stop))
        stop.set()


async def fill(path):
    async with opened(path) as broker:
        await broker.bulk_publish(
            [
                PublishRequest("t", b"%d" % number, metadata={"partitionKey": str(number % KEYS)})
                for number in range(MESSAGES)
            ]
        )


async def test_a_consumer_that_is_killed(path):
    """What it was done with does not come again, what it held comes to another at once (the lease would last
    for minutes), and each key goes on where it was.
    """
    await make_group(path)
    await fill(path)
    inbox = Inbox()
    with running("consume", path) as victim:
        await trio.to_thread.run_sync(partial(victim.wait_for, "done 200"))
        victim.end(signal.SIGKILL)
        done = [int(number) for number in said(victim, "done")]
    assert len(done) >= 20
    async with opened(path) as broker, trio.open_nursery() as nursery:
        stop = trio.Event()
        await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), inbox, stop))
        await inbox.until(lambda came: len(set(map(int, came)) | set(done)) == MESSAGES)
        stop.set()
    came = [int(number) for number in inbox.came]
    assert len(came) == len(set(came))
    assert len(set(came) & set(done)) <= LIMIT  # done, and killed before the acknowledgement was on disk
    by_key = defaultdict(list)
    for number in came:
        by_key[number % KEYS].append(number)
    for key, numbers in by_key.items():
        last = max([number for number in done if number % KEYS == key], default=key - KEYS)
        assert numbers[0] in (last, last + KEYS)
        assert numbers == list(range(numbers[0], MESSAGES, KEYS))


async def test_a_publisher_that_is_killed(path):
    """Every publication that had returned is delivered."""
    inbox = Inbox()
    async with opened(path) as broker, trio.open_nursery() as nursery:
        stop = trio.Event()
        await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), inbox, stop))
        with running("publish", path) as victim:
            await inbox.until(lambda came: len(came) >= 300)
            victim.end(signal.SIGKILL)
            sent = set(said(victim, "sent"))
        assert len(sent) >= 100
        await inbox.until(lambda came: sent <= set(came))
        stop.set()
    assert len(inbox.came) == len(set(inbox.came))


async def test_what_killed_publishers_left_waits_for_the_first_group(path):
    """Nobody has subscribed while the publishers lived. Then all comes, once and in order."""
    sent, positions = Counter(), []
    for _ in range(2):
        with running("publish", path) as victim:
            await trio.to_thread.run_sync(partial(victim.wait_for, "sent 3:50"))
            victim.end(signal.SIGKILL)
            sent.update(said(victim, "sent"))
    inbox = Inbox()

    async def note(message):
        positions.append(message.position)
        return await inbox(message)

    async with opened(path) as broker, trio.open_nursery() as nursery:
        stop = trio.Event()
        request = SubscribeRequest("t", max_in_flight=1)
        await nursery.start(partial(broker.subscribe, request, note, stop))
        await inbox.until(lambda came: sent <= Counter(came))
        stop.set()
    assert sent["0:0"] == 2
    assert positions == list(range(1, len(positions) + 1))


@pytest.mark.parametrize("seed", range(3))
async def test_a_publisher_and_the_first_groups_start_at_once(path, seed):
    """One group comes first and gets all, the others all from some message on, nobody anything twice."""
    roles = [("publish", "300"), ("follow", "a"), ("follow", "b"), ("follow", "c")]
    random.Random(seed).shuffle(roles)
    with ExitStack() as stack:
        found = {
            option: stack.enter_context(process([sys.executable, __file__, role, str(path), option]))
            for role, option in roles
        }
        publisher = found.pop("300")
        for follower in found.values():
            await trio.to_thread.run_sync(partial(follower.wait_for, "ready"))
        at = len(publisher.lines)
        await trio.to_thread.run_sync(partial(publisher.wait_for, "sent", after=at))
        publisher.end(signal.SIGKILL)
        with closing(sqlite3.connect(path)) as connection, trio.fail_after(60):
            for _ in range(6000):
                if connection.execute("SELECT max(size), count(*) FROM pubsub_groups").fetchone() == (0, 3):
                    break
                await trio.sleep(0.01)
            (last,) = connection.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'pubsub_messages'"
            ).fetchone()
        for follower in found.values():
            follower.end(signal.SIGKILL)
        got = [sorted(int(number) for number in said(follower, "got")) for follower in found.values()]
    every = list(range(1, last + 1))
    assert every in got
    for numbers in got:
        assert numbers == every[len(every) - len(numbers) :]
    assert len(every) >= len(set(said(publisher, "sent"))) > 0


async def test_a_consumer_that_is_stopped_and_goes_on(path):
    """Its leases lapse and others take over; when it goes on it does no harm, and works again."""
    await make_group(path)
    inbox = Inbox()
    with running("consume", path, lease=1.0) as sleeper:
        freeze(sleeper, path)
        try:
            await fill(path)
            async with opened(path, lease=1.0) as broker, trio.open_nursery() as nursery:
                stop = trio.Event()
                await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), inbox, stop))
                await inbox.until(lambda came: len(set(came)) == MESSAGES)
                stop.set()
        finally:
            sleeper.popen.send_signal(signal.SIGCONT)
        async with opened(path) as broker:
            await broker.publish(PublishRequest("t", b"afterwards"))
        await trio.to_thread.run_sync(partial(sleeper.wait_for, "done afterwards"))
        sleeper.end(signal.SIGKILL)


async def test_two_consumers_one_of_which_is_stopped_in_the_middle(path):
    await make_group(path)
    await fill(path)
    inbox = Inbox()
    with running("consume", path, lease=1.0) as sleeper:
        await trio.to_thread.run_sync(partial(sleeper.wait_for, "done 100"))
        freeze(sleeper, path)
        try:
            async with opened(path, lease=1.0) as broker, trio.open_nursery() as nursery:
                stop = trio.Event()
                await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), inbox, stop))
                # All but what it had done is ours, what it holds once its leases have lapsed.
                done = set(said(sleeper, "done"))
                await inbox.until(lambda came: len(set(came) | done) == MESSAGES)
                stop.set()
        finally:
            sleeper.popen.send_signal(signal.SIGCONT)
            sleeper.end(signal.SIGKILL)


async def test_another_process_is_heard_of(path):
    """A message that another process publishes is noticed without one of our own."""
    inbox = Inbox()
    async with opened(path) as broker, trio.open_nursery() as nursery:
        stop = trio.Event()
        await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), inbox, stop))
        with running("publish", path) as other:
            await inbox.until(lambda came: len(came) >= 10)
            other.end(signal.SIGKILL)
        stop.set()


async def test_the_dead_are_buried(path):
    """Its row and its lock file are gone as well."""
    await make_group(path)
    inbox = Inbox()
    with running("consume", path) as victim:
        assert len(list(path.parent.glob("*-owner-*"))) == 1
        victim.end(signal.SIGKILL)
    async with opened(path) as broker, trio.open_nursery() as nursery:
        stop = trio.Event()
        await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), inbox, stop))
        with trio.fail_after(15):
            for _ in range(1500):
                if len(list(path.parent.glob("*-owner-*"))) == 1:
                    break
                await trio.sleep(0.01)
        stop.set()
    assert [file.name for file in path.parent.iterdir()] == ["topics.db"]


if __name__ == "__main__":
    trio.run(
        {"consume": consume, "publish": publish, "follow": follow}[sys.argv[1]], sys.argv[2], sys.argv[3]
    )
