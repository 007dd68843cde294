"""nameresolution.redis on real servers."""

from __future__ import annotations

import logging
import os
import random
import signal
from contextlib import asynccontextmanager

import pytest
import trio
from meshnode_redis.nameresolution import Options, driver
from support.log_records import LogRecords
from support.redis_servers import free_port, redis_cluster, redis_server, sentinel_group

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import ComponentError, ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, Instance
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import nameresolution

pytestmark = pytest.mark.redis

ME = Instance("checkout", "127.0.0.1:50002")
SILENT = logging.getLogger("test")
KEY = "meshnode||names||default||checkout"


def opened(options, log=SILENT):
    return driver.open(options, DriverContext("redis", "checkout", log=log, rng=random.Random()))


@asynccontextmanager
async def open_driver(options, log=SILENT):
    async with asyncio_loop(True), opened(options, log) as resolver:
        yield resolver


async def until(resolver, wanted, app_id=ME.app_id):
    """What comes about by itself: there is no event to wait for."""
    with trio.fail_after(30):
        while True:
            try:
                if sorted(await resolver.resolve(app_id, "default")) == sorted(wanted):
                    return
            except ComponentUnavailable:
                pass
            await trio.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def empty(server):
    server.command("FLUSHALL")
    return server


@pytest.mark.parametrize("check", nameresolution.CHECKS, ids=str)
async def test_conformance(check, server):
    async with asyncio_loop(True):
        await check.run(lambda: opened(Options(host=server.address)))


async def test_conformance_on_a_cluster(tmp_path):
    with redis_cluster(tmp_path) as servers:
        async with asyncio_loop(True):
            for check in nameresolution.CHECKS:
                await check.run(lambda: opened(Options(host=servers[0].address, type="cluster")))


async def test_the_layout(empty):
    async with open_driver(Options(host=empty.address)) as resolver:
        async with resolver.announce(ME):
            assert empty.command("KEYS", "*") == f"*1\r\n${len(KEY)}\r\n{KEY}\r\n"
            lines = empty.command("ZRANGE", KEY, "0", "-1", "WITHSCORES").split("\r\n")
            address, _, registration = lines[2].partition("||")
            assert address == ME.address
            assert len(registration) == 32
            expires = int(empty.command("PEXPIRETIME", KEY).strip(":\r\n"))
            assert expires == int(lines[4]), "the set goes with its last registration"
        assert empty.command("KEYS", "*") == "*0\r\n"


async def test_only_registrations_that_last_are_given(empty):
    async with open_driver(Options(host=empty.address)) as resolver:
        now = int(empty.command("TIME").split("\r\n")[2]) * 1000
        for address, end in (("10.0.0.1:1", now + 60_000), ("10.0.0.1:1", now + 50_000), ("10.0.0.2:1", now)):
            empty.command("ZADD", KEY, str(end), f"{address}||{end}")
        empty.command("ZADD", KEY, str(now + 60_000), "unix:/run/b.sock||x")
        empty.command("ZADD", KEY, str(now + 60_000), "not a registration")
        assert await resolver.resolve("checkout", "default") == ("10.0.0.1:1", "unix:/run/b.sock")
        assert await resolver.resolve("checkout", "other") == ()
        async with resolver.announce(ME):
            assert "10.0.0.2:1" not in empty.command("ZRANGE", KEY, "0", "-1"), "what is over is thrown away"
            expires = int(empty.command("PEXPIRETIME", KEY).strip(":\r\n"))
            assert expires == now + 60_000, "the set lasts as long as the longest registration"


async def test_a_registration_is_renewed_before_it_ends(empty):
    """Its end moves on; nobody ever sees it missing."""
    async with open_driver(Options(host=empty.address, ttl="1s")) as resolver, resolver.announce(ME):
        ends = set()
        with trio.fail_after(30):
            while len(ends) < 6:
                assert await resolver.resolve("checkout", "default") == (ME.address,)
                ends.add(empty.command("ZRANGE", KEY, "0", "-1", "WITHSCORES").split("\r\n")[4])
                await trio.sleep(0.02)


async def test_a_node_that_was_killed_is_forgotten(empty):
    async with open_driver(Options(host=empty.address, ttl="1s")) as resolver:
        async with resolver.announce(ME):
            member = empty.command("ZRANGE", KEY, "0", "-1").split("\r\n")[2]
            end = empty.command("ZSCORE", KEY, member).split("\r\n")[1]
        empty.command("ZADD", KEY, end, member)  # as if it had never taken it out
        await until(resolver, [])


async def test_two_at_one_address_take_out_only_their_own(empty):
    """As when a node starts before the one it replaces has quite gone."""
    options = Options(host=empty.address)
    async with asyncio_loop(True), opened(options) as old, opened(options) as new:
        async with new.announce(ME):
            async with old.announce(ME):
                assert await new.resolve("checkout", "default") == (ME.address,)
            assert await old.resolve("checkout", "default") == (ME.address,)
        assert await old.resolve("checkout", "default") == ()


async def test_a_server_that_is_killed_and_comes_back_empty(tmp_path):
    records = LogRecords()
    with redis_server(tmp_path) as server:
        options = Options(host=server.address, ttl="1s", max_retries=0)
        async with open_driver(options, records.log) as resolver, resolver.announce(ME):
            for _ in range(2):
                server.kill()
                with pytest.raises(ComponentUnavailable, match=server.address):
                    await resolver.resolve("checkout", "default")
                await records.wait_for("could not be renewed")
                server.start()
                await until(resolver, [ME.address])
                await records.wait_for("is renewed again")


async def test_a_server_that_stands_still(tmp_path):
    """A cancelled lookup is at an end at once, and so, after its grace, is a node that leaves."""
    records = LogRecords()
    with redis_server(tmp_path) as server:
        async with open_driver(Options(host=server.address), records.log) as resolver:
            async with resolver.announce(ME):
                os.kill(server.pid, signal.SIGSTOP)
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(resolver.resolve, "checkout", "default")
                        await trio.testing.wait_all_tasks_blocked()
                        nursery.cancel_scope.cancel()
                finally:
                    os.kill(server.pid, signal.SIGCONT)
                assert await resolver.resolve("checkout", "default") == (ME.address,)
                os.kill(server.pid, signal.SIGSTOP)
            await records.wait_for("could not be taken out")
            os.kill(server.pid, signal.SIGCONT)
            await until(resolver, [])


async def test_a_failover(tmp_path):
    with sentinel_group(tmp_path) as (master, _, sentinel):
        options = Options(
            host=sentinel.address, failover=True, sentinel_master_name="mymaster", ttl="1s", max_retries=0
        )
        async with open_driver(options) as resolver, resolver.announce(ME):
            await until(resolver, [ME.address])
            master.kill()
            with pytest.raises(ComponentUnavailable):
                await resolver.resolve("checkout", "default")
            await until(resolver, [ME.address])


async def test_no_server():
    options = Options(host=f"127.0.0.1:{free_port()}", max_retries=0)
    async with asyncio_loop(True):
        with pytest.raises(ComponentUnavailable, match=options.host):
            async with opened(options):
                pass


async def test_a_wrong_password(tmp_path):
    with redis_server(tmp_path, password="right") as server:
        async with asyncio_loop(True):
            with pytest.raises(ComponentUnavailable, match="invalid username-password"):
                async with opened(Options(host=server.address, password="wrong")):
                    pass
        async with open_driver(Options(host=server.address, password="right")) as resolver:
            assert await resolver.resolve("checkout", "default") == ()


async def test_a_key_of_somebody_else(empty):
    empty.command("SET", KEY, "x")
    async with open_driver(Options(host=empty.address)) as resolver:
        with pytest.raises(ComponentError, match="WRONGTYPE"):
            await resolver.resolve("checkout", "default")
        with pytest.raises(ComponentError, match="WRONGTYPE"):
            async with resolver.announce(ME):
                pass


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"ttl": "500ms"}, "ttl: must be at least 1s"),
        ({"ttl": "10"}, "a bare number is in milliseconds"),
        ({"ttl": "soon"}, "ttl: 'soon' is no duration"),
        ({"redisHost": ""}, "redisHost"),
        ({"lifetime": "1s"}, "lifetime"),
    ],
)
def test_metadata_that_cannot_be_used(metadata, said):
    with pytest.raises(ConfigError, match=said):
        load_options(driver.metadata, {"redisHost": "localhost", **metadata})


def test_it_is_found_by_its_entry_point():
    assert Registry.discover().driver("nameresolution.redis") is driver
