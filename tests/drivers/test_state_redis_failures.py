"""state.redis when things break: servers that stop, stall, restart, move and answer too late."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from meshnode_redis.state import Options, driver
from support.redis_servers import RedisServer, free_port, proxy, redis_cluster, redis_server, sentinel_group

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import BulkStateError, ComponentUnavailable, StateError, Status
from meshnode.interfaces import DeleteRequest, DriverContext, GetRequest, SetRequest

pytestmark = pytest.mark.redis

CONTEXT = DriverContext("statestore", "app")


@asynccontextmanager
async def open_driver(options):
    async with asyncio_loop(True), driver.open(options, CONTEXT) as store:
        yield store


async def value(store, key):
    result = await store.get(GetRequest(key))
    return None if result is None else result.data


async def until_it_works(operation):
    """Tries again for as long as the store is unavailable, as a resiliency policy would."""
    with trio.fail_after(30):
        while True:
            try:
                return await operation()
            except ComponentUnavailable:
                await trio.sleep(0.02)


@asynccontextmanager
async def mute_server():
    """Accepts connections and says nothing."""

    async def say_nothing(_stream):
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        yield f"127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_no_server_at_open():
    options = Options(host=f"127.0.0.1:{free_port()}")
    async with asyncio_loop(True):
        with trio.fail_after(10), pytest.raises(ComponentUnavailable, match=options.host):
            async with driver.open(options, CONTEXT):
                pass


async def test_no_sentinel_and_no_cluster_at_open():
    address = f"127.0.0.1:{free_port()}"
    for options in (
        Options(host=address, failover=True, sentinel_master_name="mymaster"),
        Options(host=address, type="cluster"),
    ):
        async with asyncio_loop(True):
            with trio.fail_after(10), pytest.raises(ComponentUnavailable, match=options.host):
                async with driver.open(options, CONTEXT):
                    pass


async def test_a_server_that_never_answers_at_open():
    """The driver gives up by itself."""
    async with mute_server() as address, asyncio_loop(True):
        options = Options(host=address, read_timeout="200ms", password="x")
        with trio.fail_after(10), pytest.raises(ComponentUnavailable):
            async with driver.open(options, CONTEXT):
                pass


async def test_opening_can_be_cancelled():
    async with mute_server() as address, asyncio_loop(True):
        with trio.fail_after(20), trio.move_on_after(0.1) as scope:
            async with driver.open(Options(host=address, read_timeout="-1"), CONTEXT):
                pass
        assert scope.cancelled_caught


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_goes_and_comes_back(tmp_path, end):
    with redis_server(tmp_path, persistent=True) as server:
        async with open_driver(Options(host=server.address)) as store:
            await store.set(SetRequest("k", b"1"))
            getattr(server, end)()
            for operation in (
                lambda: store.get(GetRequest("k")),
                lambda: store.set(SetRequest("k", b"2")),
                lambda: store.delete(DeleteRequest("k")),
                lambda: store.transact([SetRequest("k", b"2")], {}),
                lambda: store.bulk_set([SetRequest("k", b"2"), SetRequest("l", b"2")]),
                store.ping,
            ):
                with trio.fail_after(10), pytest.raises(ComponentUnavailable, match=server.address):
                    await operation()
            answers = await store.bulk_get([GetRequest("k")], 0)
            assert isinstance(answers[0].error, ComponentUnavailable)
            server.start()
            with trio.fail_after(5):
                # At once, without a first failure that would only drain stale connections.
                assert await value(store, "k") == b"1"
                await store.set(SetRequest("k", b"2"))
                assert await value(store, "k") == b"2"


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(tmp_path):
    acknowledged = {}

    async def writer(store, number):
        for turn in range(60):
            data = b"%d-%d" % (number, turn)
            await until_it_works(lambda data=data: store.set(SetRequest(f"w{number}", data)))
            acknowledged[number] = data

    with redis_server(tmp_path, persistent=True) as server:
        async with open_driver(Options(host=server.address)) as store:
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(writer, store, number)
                for _ in range(2):
                    await trio.sleep(0.05)
                    server.kill()
                    await trio.sleep(0.05)
                    server.start()
            for number, data in acknowledged.items():
                assert await value(store, f"w{number}") == data
                result = await store.get(GetRequest(f"w{number}"))
                assert result is not None
                # Each of the 60 writes counted, plus at most one more for each time its answer was lost.
                assert 60 <= int(result.etag) <= 62


async def test_a_write_is_not_repeated_behind_the_callers_back(tmp_path):
    with redis_server(tmp_path) as server:
        async with proxy(server) as (address, state), open_driver(Options(host=address)) as store:
            # Both scripts are known to the server from here on.
            await store.transact([SetRequest("other", b"1")], {})
            await store.set(SetRequest("k", b"1"))
            state["swallow"] = 1
            with pytest.raises(ComponentUnavailable, match="may have been executed"):
                await store.set(SetRequest("k", b"2"))
            assert server.command("HGET", "k", "version") == "$1\r\n2\r\n"
            state["swallow"] = 1
            with pytest.raises(ComponentUnavailable, match="may have been executed"):
                await store.transact([SetRequest("k", b"3")], {})
            assert server.command("HGET", "k", "version") == "$1\r\n3\r\n"
            state["swallow"] = 1
            with pytest.raises(BulkStateError) as caught:
                await store.bulk_set([SetRequest("k", b"4")])
            assert "may have been executed" in str(caught.value)
            await store.set(SetRequest("k", b"5"))


async def test_a_read_is_repeated(tmp_path):
    with redis_server(tmp_path) as server:
        async with proxy(server) as (address, state), open_driver(Options(host=address)) as store:
            await store.set(SetRequest("k", b"1"))
            state["swallow"] = 1
            assert await value(store, "k") == b"1"
            state["swallow"] = 2
            answers = await store.bulk_get([GetRequest("k"), GetRequest("l")], 0)
            assert [one.result and one.result.data for one in answers] == [b"1", None]
            state["swallow"] = 100
            with pytest.raises(ComponentUnavailable):
                await store.get(GetRequest("k"))
            state["swallow"] = 0
            await store.ping()


async def test_a_connection_closed_by_the_server_costs_nobody_an_error(tmp_path):
    """As when it is idle for too long, or when somebody restarts a load balancer."""
    with redis_server(tmp_path) as server:
        async with open_driver(Options(host=server.address)) as store:
            for number in range(5):
                await store.set(SetRequest("k", b"%d" % number))
                server.command("CLIENT", "KILL", "TYPE", "normal")
                await trio.testing.wait_all_tasks_blocked(0.05)
            assert await value(store, "k") == b"4"


async def test_a_server_that_stalls(tmp_path):
    with redis_server(tmp_path) as server:
        async with open_driver(
            Options(host=server.address, read_timeout="300ms", dial_timeout="300ms")
        ) as store:
            await store.set(SetRequest("k", b"1"))
            os.kill(server.pid, signal.SIGSTOP)
            try:
                failures = []

                async def caller(number):
                    with pytest.raises(ComponentUnavailable) as caught:
                        await store.set(SetRequest(f"k{number}", b"2"))
                    failures.append(caught.value)

                with trio.fail_after(10):
                    async with trio.open_nursery() as nursery:
                        for number in range(20):
                            nursery.start_soon(caller, number)
                assert len(failures) == 20
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await until_it_works(lambda: store.set(SetRequest("k", b"3")))
            assert await value(store, "k") == b"3"


async def test_a_slow_answer_is_waited_for(tmp_path):
    """One second of silence with a timeout of three, and others waiting behind it."""
    with redis_server(tmp_path) as server:
        async with open_driver(Options(host=server.address)) as store:
            await store.set(SetRequest("k", b"1"))
            server.command("CLIENT", "PAUSE", "1000", "ALL")
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(store.set, SetRequest(f"k{number}", b"2"))
            assert await value(store, "k9") == b"2"


async def test_callers_are_released_when_the_store_closes(tmp_path):
    with redis_server(tmp_path) as server:
        outcomes = []

        async def caller(store, number):
            try:
                await store.set(SetRequest(f"k{number}", b"v"))
            except ComponentUnavailable as error:
                outcomes.append(error)

        try:
            async with asyncio_loop(True), trio.open_nursery() as nursery:
                async with driver.open(Options(host=server.address), CONTEXT) as store:
                    await store.ping()
                    os.kill(server.pid, signal.SIGSTOP)
                    for number in range(20):
                        nursery.start_soon(caller, store, number)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                with pytest.raises(ComponentUnavailable, match="closed"):
                    await store.set(SetRequest("k", b"v"))
        finally:
            os.kill(server.pid, signal.SIGCONT)
        assert len(outcomes) == 20
        assert all("closed" in str(error) for error in outcomes)


async def test_everything_around_it_can_be_cancelled(tmp_path):
    """The node's scope ends with the driver open, calls under way and the server silent: nothing hangs."""
    with redis_server(tmp_path) as server:
        try:
            with trio.fail_after(20), trio.CancelScope() as scope:
                async with open_driver(Options(host=server.address)) as store, trio.open_nursery() as nursery:
                    await store.ping()
                    os.kill(server.pid, signal.SIGSTOP)
                    for number in range(20):
                        nursery.start_soon(store.set, SetRequest(f"k{number}", b"v"))
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    scope.cancel()
            assert scope.cancelled_caught
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_overload_is_refused(tmp_path):
    with redis_server(tmp_path) as server:
        async with open_driver(Options(host=server.address, read_timeout="-1")) as store:
            os.kill(server.pid, signal.SIGSTOP)
            try:
                async with trio.open_nursery() as nursery:
                    for _ in range(10_000):
                        nursery.start_soon(store.get, GetRequest("k"))
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    with pytest.raises(StateError) as caught:
                        await store.get(GetRequest("k"))
                    assert caught.value.code is Status.RESOURCE_EXHAUSTED
                    nursery.cancel_scope.cancel()
            finally:
                os.kill(server.pid, signal.SIGCONT)
            # The answers that nobody waits for any more come first.
            await trio.testing.wait_all_tasks_blocked(0.1)
            await store.set(SetRequest("k", b"v"))
            assert await value(store, "k") == b"v"


async def test_a_master_that_became_a_replica(tmp_path):
    with redis_server(tmp_path) as server, redis_server(tmp_path) as other:
        async with open_driver(Options(host=server.address)) as store:
            await store.set(SetRequest("k", b"v"))
            server.command("REPLICAOF", "127.0.0.1", str(other.port))
            with pytest.raises(ComponentUnavailable, match=r"(?i)read.?only"):
                await store.set(SetRequest("k", b"w"))
            server.command("REPLICAOF", "NO", "ONE")
            await store.set(SetRequest("k", b"w"))


async def test_sentinel_failover(tmp_path):
    with sentinel_group(tmp_path) as (master, replica, sentinel):
        options = Options(host=sentinel.address, failover=True, sentinel_master_name="mymaster")
        async with open_driver(options) as store:
            await store.set(SetRequest("before", b"1"))
            assert master.command("EXISTS", "before") == ":1\r\n"
            master.kill()
            with pytest.raises(ComponentUnavailable):
                await store.set(SetRequest("during", b"1"))
            await until_it_works(lambda: store.set(SetRequest("after", b"2")))
            assert replica.command("HGET", "after", "data") == "$1\r\n2\r\n"
            assert await value(store, "after") == b"2"


def _owner(servers: list[RedisServer], key: str) -> RedisServer:
    slot = int(servers[0].command("CLUSTER", "KEYSLOT", key)[1:])
    return servers[min(slot // (16384 // len(servers)), len(servers) - 1)]


async def test_cluster_node_goes_and_comes_back(tmp_path):
    keys = [f"key{number}" for number in range(60)]
    with redis_cluster(tmp_path, 3, "--appendonly", "yes", "--appendfsync", "always") as servers:
        dead = servers[1]
        options = Options(host=servers[0].address, type="cluster")
        async with open_driver(options) as store:
            await store.bulk_set([SetRequest(key, b"1") for key in keys])
            dead.kill()
            with pytest.raises(ComponentUnavailable):
                await store.ping()
            answers = await store.bulk_get([GetRequest(key) for key in keys], 0)
            for key, answer in zip(keys, answers, strict=True):
                if _owner([servers[0], dead, servers[2]], key) is dead:
                    assert isinstance(answer.error, ComponentUnavailable)
                else:
                    assert answer.result is not None
                    assert answer.result.data == b"1"
            dead.start()
            await until_it_works(store.ping)

            async def read_all():
                found = await store.bulk_get([GetRequest(key) for key in keys], 0)
                for one in found:
                    if one.error is not None:
                        raise one.error
                return found

            assert all(one.result is not None for one in await until_it_works(read_all))


async def test_cluster_slot_that_moves(tmp_path):
    """Asked at the old place and followed to the new one, during the move (ASK) and after it (MOVED)."""
    with redis_cluster(tmp_path) as servers:
        async with open_driver(Options(host=servers[0].address, type="cluster")) as store:
            await store.transact([SetRequest("{m}a", b"1"), SetRequest("{m}b", b"1")], {})
            source = _owner(servers, "{m}a")
            target = next(server for server in servers if server is not source)
            slot = source.command("CLUSTER", "KEYSLOT", "{m}a")[1:].strip()
            names = {server: server.command("CLUSTER", "MYID").split("\r\n")[1] for server in servers}
            target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
            source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
            await store.set(SetRequest("{m}new", b"created during the move"))
            assert await value(store, "{m}a") == b"1"
            source.command("MIGRATE", "127.0.0.1", str(target.port), "{m}a", "0", "5000")
            assert await value(store, "{m}a") == b"1"
            source.command("MIGRATE", "127.0.0.1", str(target.port), "{m}b", "0", "5000")
            for server in servers:
                server.command("CLUSTER", "SETSLOT", slot, "NODE", names[target])
            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(store.set, SetRequest(f"{{m}}{number}", b"2"))
            await store.transact([SetRequest("{m}a", b"2"), SetRequest("{m}b", b"2")], {})
            for name in ("a", "b", "5", "new"):
                assert await value(store, "{m}" + name) is not None
            assert target.command("EXISTS", "{m}a", "{m}b", "{m}new") == ":3\r\n"
