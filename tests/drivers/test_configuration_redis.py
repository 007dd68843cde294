"""configuration.redis on real servers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from meshnode_redis.configuration import Options, driver
from support.redis_servers import redis_cluster, redis_server

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import ConfigurationItem, DriverContext
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import configuration

pytestmark = pytest.mark.redis

CONTEXT = DriverContext("settings", "app")


@asynccontextmanager
async def open_driver(options):
    async with asyncio_loop(True), driver.open(options, CONTEXT) as store:
        yield store


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.mark.parametrize("check", configuration.CHECKS, ids=str)
async def test_conformance(check, server):
    async def put(key, value, version):
        await trio.to_thread.run_sync(server.command, "SET", key, f"{value}||{version}" if version else value)

    async def remove(key):
        await trio.to_thread.run_sync(server.command, "DEL", key)

    opened = partial(open_driver, Options(host=server.address))
    await check.run(configuration.Setup(opened, put, remove))


async def test_what_is_no_item(server):
    server.command("FLUSHALL")
    server.command("RPUSH", "list", "x")
    server.command("SET", "empty", "")
    server.command("SET", "a", "1||2||3")
    async with open_driver(Options(host=server.address)) as store:
        assert await store.get([], {}) == {"a": ConfigurationItem("1", "2")}
        assert await store.get(["list", "empty", "a"], {}) == {"a": ConfigurationItem("1", "2")}


async def test_flags_of_others_stay(server):
    server.command("CONFIG", "SET", "notify-keyspace-events", "Ex")
    send, receive = trio.open_memory_channel(10)
    async with open_driver(Options(host=server.address)) as store, trio.open_nursery() as nursery:
        await nursery.start(partial(store.watch, ["k"], {}, send.send, trio.Event()))
        flags = server.command("CONFIG", "GET", "notify-keyspace-events").split("\r\n")[4]
        assert {"K", "A", "E"} <= set(flags)
        nursery.cancel_scope.cancel()
    receive.close()


async def test_a_server_that_is_killed_and_comes_back(tmp_path):
    """What changed while nobody listened is told once, and so is what changes after."""
    send, receive = trio.open_memory_channel(100)
    with redis_server(tmp_path, persistent=True) as server:
        for key in ("same", "other", "gone"):
            server.command("SET", key, "1||1")
        options = Options(host=server.address)
        async with open_driver(options) as store, trio.open_nursery() as nursery:
            for keys in (["same", "other", "gone"], []):
                await nursery.start(partial(store.watch, keys, {}, send.send, trio.Event()))
            for turn in range(2):
                server.kill()
                with pytest.raises(ComponentUnavailable):
                    await store.get(["same"], {})
                server.start()
                server.command("SET", "other", f"{turn}||new")
                server.command("SET" if turn else "DEL", "gone", *(["back"] if turn else []))
                wanted = {
                    "other": ConfigurationItem(str(turn), "new"),
                    "gone": ConfigurationItem("back") if turn else None,
                }
                told = []
                with trio.fail_after(20):
                    while len(told) < 4:
                        told += (await receive.receive()).items()
                assert sorted(told, key=str) == sorted([*wanted.items()] * 2, key=str)
                server.command("SET", "same", f"live {turn}")
                with trio.fail_after(20):
                    for _ in range(2):
                        assert await receive.receive() == {"same": ConfigurationItem(f"live {turn}")}
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.WouldBlock):
            receive.receive_nowait()


async def test_a_watch_of_a_server_that_is_not_there(tmp_path):
    with redis_server(tmp_path) as server:
        async with open_driver(Options(host=server.address, max_retries=0)) as store:
            server.kill()
            with pytest.raises(ComponentUnavailable):
                await store.watch(["k"], {}, _never, trio.Event(), task_status=trio.TASK_STATUS_IGNORED)


async def _never(changes):
    raise AssertionError(changes)


async def test_another_database(server):
    send, receive = trio.open_memory_channel(10)
    async with open_driver(Options(host=server.address, db=3)) as store, trio.open_nursery() as nursery:
        await nursery.start(partial(store.watch, ["k"], {}, send.send, trio.Event()))
        async with open_driver_writer(server, 3) as write:
            await write("k", b"three")
        with trio.fail_after(20):
            assert await receive.receive() == {"k": ConfigurationItem("three")}
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_driver_writer(server, place):
    """Another driver writes; a plain connection of the test's has no database of its own."""
    from meshnode_redis.bindings import Options as Plain
    from meshnode_redis.bindings import driver as binding

    from meshnode.interfaces import BindingRequest

    where = {"type": place} if place == "cluster" else {"db": place}
    async with binding.open(Plain(host=server.address, **where), CONTEXT) as opened:

        async def write(key, data):
            await opened.invoke(BindingRequest("create", data, {"key": key}))

        yield write


async def test_cluster(tmp_path):
    """Every primary tells of its own keys only."""
    send, receive = trio.open_memory_channel(100)
    with redis_cluster(tmp_path) as servers:
        async with (
            open_driver(Options(host=servers[0].address, type="cluster")) as store,
            open_driver_writer(servers[0], "cluster") as write,
            trio.open_nursery() as nursery,
        ):
            names = [f"k{number}" for number in range(20)]
            await nursery.start(partial(store.watch, names, {}, send.send, trio.Event()))
            await nursery.start(partial(store.watch, [], {}, send.send, trio.Event()))
            for name in names:
                await write(name, b"v||1")
                with trio.fail_after(20):
                    for _ in range(2):
                        assert await receive.receive() == {name: ConfigurationItem("v", "1")}
            assert set(await store.get([], {})) == set(names)
            nursery.cancel_scope.cancel()


def test_metadata_as_in_dapr():
    found = Registry.discover().driver("configuration.redis", "v1")
    assert found is driver
    options = load_options(found.metadata, {"redisHost": "cache", "redisDB": "2", "poolSize": "5"})
    assert options.db == 2
