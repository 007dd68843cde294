"""Locks under kills: what clients saw must be what a sound lock can have shown them.

lock.redis, lock.postgresql and lock.etcd with servers that are killed and started again, lock.sqlite and
lock.postgresql with clients that are, or that are frozen for a while. Run as a program, this file is such a
client: it locks and unlocks, and prints each operation before and after.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import meshnode_etcd.lock
import meshnode_lock_sqlite
import meshnode_postgresql.lock
import meshnode_redis.lock
import pytest
import trio

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.etcd_servers import etcd_cluster, etcd_server
from support.install_etcd import find_etcd
from support.lock_checker import Answer, Operation, violations
from support.lock_clients import Client
from support.postgres_servers import find_postgres, postgres_server
from support.processes import process
from support.redis_servers import redis_server

from meshnode.asyncioloop import asyncio_loop
from meshnode.interfaces import DriverContext

CONTEXT = DriverContext("lockstore", "app")
CLIENTS, KILLS = 5, 5
SLACK = 0.02
"""The stores' clocks are the machine's wall clock, the histories' its monotonic one."""


@asynccontextmanager
async def redis_client(server, name, history):
    options = meshnode_redis.lock.Options(host=server.address)
    async with meshnode_redis.lock.driver.open(options, CONTEXT) as store:
        yield Client(name, store, history.append)


@asynccontextmanager
async def postgres_client(server, name, history):
    options = meshnode_postgresql.lock.Options(connection_string=server.url)
    async with meshnode_postgresql.lock.driver.open(options, CONTEXT) as store:
        yield Client(name, store, history.append)


@pytest.fixture
def postgres():
    if find_postgres() is None:
        pytest.skip("postgres is not installed")
    with postgres_server() as server:
        yield server


async def with_kills(server, open_client):
    """What clients saw of a server that was killed over and over."""
    history = History()
    stop = trio.Event()

    async def work(name):
        async with open_client(server, name, history) as client:
            await client.work(stop)

    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(work, f"c{number}")
        for _ in range(KILLS):
            await history.more_grants(20)
            await trio.to_thread.run_sync(server.kill)
            await trio.to_thread.run_sync(server.start)
        await history.more_grants(20)
        stop.set()
    return history


@pytest.mark.redis
async def test_redis_that_is_killed(tmp_path):
    with redis_server(tmp_path, persistent=True) as server:
        async with asyncio_loop(True):
            history = await with_kills(server, redis_client)
    check_kills(history)


async def test_postgresql_that_is_killed(postgres):
    check_kills(await with_kills(postgres, postgres_client))


def check_kills(history):
    seen = Counter(one.answer for one in history)
    assert seen[Answer.UNKNOWN], "no kill met an operation"
    assert seen[Answer.REFUSED]
    assert violations(history, SLACK) == []


@pytest.mark.redis
async def test_redis_that_forgets_is_found_out(tmp_path):
    """The check's own check: without its file the server gives a lock away twice. (Tokens rise even so.)"""
    history = History()
    with redis_server(tmp_path, persistent=False) as server:
        async with asyncio_loop(True), redis_client(server, "one", history) as one:
            assert await one.lock("r", "before", 60) is Answer.GRANTED
            server.kill()
            server.start()
            async with redis_client(server, "two", history) as two:
                assert await two.lock("r", "after", 60) is Answer.GRANTED
    assert violations(history, SLACK) == ["before and after both held r"]
    assert history[0].token < history[1].token


@pytest.mark.skipif(find_etcd() is None, reason="etcd is not installed")
@pytest.mark.parametrize("members", [1, 3])
async def test_etcd_that_is_killed(tmp_path, members):
    """Its only member, or in a cluster the leader."""
    history, outages = History(), []
    stop = trio.Event()

    async def work(name):
        options = meshnode_etcd.lock.Options(endpoints=addresses, request_timeout=timedelta(seconds=2))
        async with meshnode_etcd.lock.driver.open(options, CONTEXT) as store:
            await Client(name, store, history.append).work(stop)

    def kill_and_start():
        leader = servers[0].post("maintenance/status")["leader"]
        (victim,) = (one for one in servers if member_id(one) == leader)
        outages.append((time.monotonic(), 0.0))
        victim.kill()
        victim.launch(*again)
        for one in servers:
            one.wait()
        # A new leader begins the time of every lease anew, and adds an election timeout.
        outages[-1] = outages[-1][0], time.monotonic() + (0.1 if members == 1 else 1.0)

    with etcd_server(tmp_path) if members == 1 else etcd_cluster(tmp_path, members) as running:
        servers = [running] if members == 1 else running
        addresses = ",".join(one.address for one in servers)
        again = [] if members == 1 else [f"--initial-cluster={','.join(one.as_member for one in servers)}"]
        async with asyncio_loop(True), trio.open_nursery() as nursery:
            for number in range(CLIENTS):
                nursery.start_soon(work, f"c{number}")
            for _ in range(KILLS):
                await history.more_grants(20)
                await trio.to_thread.run_sync(kill_and_start)
            await history.more_grants(20)
            stop.set()
    seen = Counter(one.answer for one in history)
    assert seen[Answer.UNKNOWN], "no kill met an operation"
    assert seen[Answer.REFUSED]
    assert violations(history, SLACK, outages) == []


def member_id(server):
    return server.post("maintenance/status")["header"]["member_id"]


def test_sqlite_whose_clients_are_killed(tmp_path):
    check_clients(histories_of_clients("sqlite", str(tmp_path / "locks.db")))


def test_postgresql_whose_clients_are_frozen_and_killed(postgres):
    """While one is frozen, whatever it was doing, the others go on."""
    check_clients(histories_of_clients("postgresql", postgres.url, frozen=True))


def histories_of_clients(kind, place, *, frozen=False):
    """What clients that are processes wrote down, some of which were killed."""
    processes = []
    with ExitStack() as stack:

        def start():
            command = [sys.executable, __file__, kind, place, f"c{len(processes)}"]
            processes.append(stack.enter_context(process(command)))

        for _ in range(CLIENTS):
            start()
        for victim in range(KILLS):
            processes[victim].wait_for('"granted"')
            at = processes[-1].wait_for('"granted"')
            if frozen:
                at = frozen_meanwhile(processes[victim], processes[-1])
            processes[victim].end(signal.SIGKILL)
            start()
            processes[-2].wait_for('"granted"', after=at + 1)
        processes[-1].wait_for('"granted"')
        for one in processes[KILLS:]:
            one.end(signal.SIGKILL)
    return [operation for one in processes for operation in operations(one.lines)]


def frozen_meanwhile(victim, witness):
    """The line of a grant of the witness's from the time when the victim was frozen. It then goes on."""
    victim.popen.send_signal(signal.SIGSTOP)
    try:
        at = len(witness.lines)
        for _ in range(3):
            at = witness.wait_for('"granted"', after=at + 1)
    finally:
        victim.popen.send_signal(signal.SIGCONT)
    victim.wait_for('"granted"', after=len(victim.lines))
    return at


def check_clients(history):
    seen = Counter(one.answer for one in history)
    assert seen[Answer.GRANTED] > 2 * KILLS
    assert seen[Answer.REFUSED]
    assert violations(history, SLACK) == []


class History(list):
    """Operations that ended, and a bell for who waits for more grants."""

    def __init__(self):
        super().__init__()
        self._bell = trio.Event()

    def append(self, operation):
        super().append(operation)
        self._bell.set()
        self._bell = trio.Event()

    @property
    def grants(self):
        return sum(one.answer is Answer.GRANTED for one in self)

    async def more_grants(self, number):
        wanted = self.grants + number
        with trio.fail_after(60):
            while self.grants < wanted:
                await self._bell.wait()


def operations(lines):
    """Those that ended as they ended, and the one under way at the kill without an answer."""
    found = {}
    for line in lines:
        try:
            fields = json.loads(line)
        except ValueError:
            continue  # cut off by the kill
        answer = Answer(fields.pop("answer"))
        operation = Operation(**fields, answer=answer)
        found[operation.owner, operation.seconds] = operation
    return found.values()


def say(operation):
    fields = {name: getattr(operation, name) for name in Operation.__slots__ if not name.startswith("_")}
    print(json.dumps(fields | {"answer": operation.answer.value}), flush=True)


async def client(kind, place, name):
    module = {"sqlite": meshnode_lock_sqlite, "postgresql": meshnode_postgresql.lock}[kind]
    async with module.driver.open(module.Options(connection_string=place), CONTEXT) as store:
        await Client(name, store, say, say).work(trio.Event())


if __name__ == "__main__":
    trio.run(client, *sys.argv[1:])
