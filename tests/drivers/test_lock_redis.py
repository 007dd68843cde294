"""lock.redis on real servers."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from meshnode_redis.lock import Options, driver
from support.redis_servers import free_port, proxy, redis_server, sentinel_group

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import ComponentUnavailable, ConfigError, LockError
from meshnode.interfaces import DriverContext, UnlockOutcome
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import lock

pytestmark = pytest.mark.redis

CONTEXT = DriverContext("lockstore", "app")
RESOURCE = "lock||app||r"


@asynccontextmanager
async def open_driver(address):
    async with asyncio_loop(True), driver.open(Options(host=address), CONTEXT) as locks:
        yield locks


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def locks(server):
    server.command("FLUSHALL")
    async with open_driver(server.address) as opened:
        yield opened


@pytest.mark.parametrize("check", lock.CHECKS, ids=str)
async def test_conformance(check, server):
    async with asyncio_loop(True):
        await check.run(lock.Setup(lambda: driver.open(Options(host=server.address), CONTEXT)))


async def test_the_layout_is_that_of_dapr(locks, server):
    """A string with the owner, which expires: what a daprd's `SET NX` makes and its script looks for."""
    assert await locks.try_lock(RESOURCE, "one", 60) is not None
    assert server.command("GET", RESOURCE) == "$3\r\none\r\n"
    assert server.command("TTL", RESOURCE) in (":60\r\n", ":59\r\n")
    server.command("SET", "lock||app||theirs", "daprd", "NX", "EX", "60")
    assert await locks.try_lock("lock||app||theirs", "one", 60) is None
    assert await locks.unlock("lock||app||theirs", "one") is UnlockOutcome.LOCK_BELONGS_TO_OTHERS
    assert await locks.unlock("lock||app||theirs", "daprd") is UnlockOutcome.SUCCESS


async def test_tokens_rise_after_everything_was_lost(locks, server):
    before = await locks.try_lock(RESOURCE, "one", 60)
    for command in (("FLUSHALL",), ("SCRIPT", "FLUSH")):
        server.command(*command)
    after = await locks.try_lock(RESOURCE, "two", 60)
    assert before < after < 2**53
    assert server.command("TTL", "meshnode||fencing-token") == ":-1\r\n"


async def test_a_key_that_is_no_lock(locks, server):
    server.command("RPUSH", RESOURCE, "x")
    assert await locks.try_lock(RESOURCE, "one", 60) is None
    with pytest.raises(LockError, match="WRONGTYPE"):
        await locks.unlock(RESOURCE, "one")


async def test_an_answer_that_was_lost_is_not_asked_for_again(server):
    server.command("FLUSHALL")
    async with proxy(server) as (address, link), open_driver(address) as locks:
        link["swallow"] = 1
        with pytest.raises(ComponentUnavailable, match="may have been executed"):
            await locks.try_lock(RESOURCE, "one", 60)
        assert server.command("GET", RESOURCE) == "$3\r\none\r\n"
        assert await locks.unlock(RESOURCE, "one") is UnlockOutcome.SUCCESS


async def test_a_server_that_goes_and_comes_back_remembers(tmp_path):
    with redis_server(tmp_path, persistent=True) as server:
        async with open_driver(server.address) as locks:
            token = await locks.try_lock(RESOURCE, "one", 60)
            server.kill()
            with pytest.raises(ComponentUnavailable):
                await locks.try_lock(RESOURCE, "two", 60)
            with pytest.raises(ComponentUnavailable):
                await locks.ping()
            server.start()
            assert await locks.try_lock(RESOURCE, "two", 60) is None
            assert await locks.unlock(RESOURCE, "one") is UnlockOutcome.SUCCESS
            assert await locks.try_lock(RESOURCE, "two", 60) > token


async def test_no_server():
    options = Options(host=f"127.0.0.1:{free_port()}")
    async with asyncio_loop(True):
        with pytest.raises(ComponentUnavailable, match=options.host):
            async with driver.open(options, CONTEXT):
                pass


async def test_a_server_with_replicas_is_refused(tmp_path):
    with sentinel_group(tmp_path) as (master, _, _):
        async with asyncio_loop(True):
            with pytest.raises(ConfigError, match="has replicas"):
                async with driver.open(Options(host=master.address), CONTEXT):
                    pass


@pytest.mark.parametrize(
    "metadata",
    [{"failover": "true", "sentinelMasterName": "m"}, {"redisType": "cluster"}, {"redisHost": ""}],
    ids=str,
)
def test_metadata_that_cannot_be_used(metadata):
    with pytest.raises(ConfigError, match=next(iter(metadata))):
        load_options(driver.metadata, {"redisHost": "cache:6379", **metadata})


def test_metadata_as_in_dapr():
    found = Registry.discover().driver("lock.redis", "v1")
    assert found is driver
    assert found.needs_asyncio
    values = {"redisHost": "cache", "redisPassword": "", "maxRetries": "3", "maxRetryBackoff": "2s"}
    assert load_options(found.metadata, values | {"redeliverInterval": "15s"}).hosts == [("cache", 6379)]
