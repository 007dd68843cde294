"""lock.etcd on real servers."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
from meshnode_etcd.lock import Options, driver
from meshnode_etcd.lock._held import Held, is_over, pack, unpack
from support.etcd_servers import etcd_cluster, etcd_server
from support.install_etcd import find_etcd
from support.redis_servers import free_port

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import ComponentUnavailable, ConfigError, LockError
from meshnode.interfaces import DriverContext, UnlockOutcome
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import lock

needs_etcd = pytest.mark.skipif(find_etcd() is None, reason="etcd is not installed")

CONTEXT = DriverContext("lockstore", "app")
RESOURCE = "lock||app||r"


@asynccontextmanager
async def open_driver(address, **fields):
    async with asyncio_loop(True), driver.open(Options(endpoints=address, **fields), CONTEXT) as locks:
        yield locks


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with etcd_server(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture(scope="module", params=["quick", "usual", "login"])
def setup(request, tmp_path_factory):
    """`usual`: with etcd's own election timeout no lease is shorter than two seconds."""
    usual = ["--heartbeat-interval=100", "--election-timeout=1000"] if request.param == "usual" else []
    with etcd_server(tmp_path_factory.mktemp("etcd"), *usual) as server:
        login = {}
        if request.param == "login":
            server.require_login()
            login = {"username": "root", "password": "s3cret"}
        options = Options(endpoints=server.address, key_prefix_path="locks", **login)
        yield lock.Setup(lambda: driver.open(options, CONTEXT))


@needs_etcd
@pytest.mark.parametrize("check", lock.CHECKS, ids=str)
async def test_conformance(check, setup):
    async with asyncio_loop(True):
        await check.run(setup)


@needs_etcd
async def test_the_layout(server):
    async with open_driver(server.address, key_prefix_path="mesh") as locks:
        token = await locks.try_lock(RESOURCE, "ö", 60)
        kept = server.get(f"mesh/{RESOURCE}")
        assert json.loads(kept["value"]) == {"owner": "ö", "seconds": 60}
        assert int(kept["mod_revision"]) == token
        assert server.post("lease/timetolive", ID=kept["lease"])["grantedTTL"] == "61"


@needs_etcd
async def test_no_lease_is_left_behind(tmp_path):
    with etcd_server(tmp_path) as server:
        async with open_driver(server.address) as locks:
            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(locks.try_lock, RESOURCE, f"{number}", 60)
            assert len(server.post("lease/leases")["leases"]) == 1
            owner = json.loads(server.get(f"/{RESOURCE}")["value"])["owner"]
            assert await locks.unlock(RESOURCE, owner) is UnlockOutcome.SUCCESS
            assert not server.post("lease/leases").get("leases")


@needs_etcd
@pytest.mark.parametrize("value", ["x", "[]", '{"owner": 1, "seconds": 1}', '{"owner": "one"}', b"\xff"])
async def test_a_key_that_is_no_lock(server, value):
    server.put(f"/{RESOURCE}", value)
    async with open_driver(server.address) as locks:
        assert await locks.try_lock(RESOURCE, "one", 60) is None
        with pytest.raises(LockError, match="no lock store wrote"):
            await locks.unlock(RESOURCE, "one")
    server.delete(f"/{RESOURCE}")


@needs_etcd
async def test_a_lock_without_a_lease_is_held_until_it_is_released(server):
    server.put(f"/{RESOURCE}", '{"owner": "by hand", "seconds": 1}')
    async with open_driver(server.address) as locks:
        assert await locks.try_lock(RESOURCE, "one", 60) is None
        assert await locks.unlock(RESOURCE, "one") is UnlockOutcome.LOCK_BELONGS_TO_OTHERS
        assert await locks.unlock(RESOURCE, "by hand") is UnlockOutcome.SUCCESS


@needs_etcd
async def test_a_server_that_goes_and_comes_back_remembers(tmp_path):
    with etcd_server(tmp_path) as server:
        async with open_driver(server.address) as locks:
            token = await locks.try_lock(RESOURCE, "one", 60)
            server.kill()
            for operation in (
                lambda: locks.try_lock(RESOURCE, "two", 60),
                lambda: locks.unlock(RESOURCE, "one"),
                locks.ping,
            ):
                with pytest.raises(ComponentUnavailable, match=server.address):
                    await operation()
            server.start()
            assert await locks.try_lock(RESOURCE, "two", 60) is None
            assert await locks.unlock(RESOURCE, "one") is UnlockOutcome.SUCCESS
            assert await locks.try_lock(RESOURCE, "two", 60) > token


@needs_etcd
async def test_a_call_is_cancelled_while_the_server_stalls(tmp_path):
    with etcd_server(tmp_path) as server:
        async with open_driver(server.address) as locks:
            token = await locks.try_lock(RESOURCE, "one", 60)
            server.stall()
            try:
                for operation in (
                    lambda: locks.try_lock("other", "two", 60),
                    lambda: locks.unlock(RESOURCE, "two"),
                ):
                    with trio.fail_after(10), trio.CancelScope() as scope:
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(operation)
                            await trio.testing.wait_all_tasks_blocked(0.02)
                            scope.cancel()
                    assert scope.cancelled_caught
            finally:
                server.go_on()
            assert await locks.unlock(RESOURCE, "one") is UnlockOutcome.SUCCESS
            assert await locks.try_lock(RESOURCE, "two", 60) > token
            assert await locks.try_lock("other", "one", 60) is not None


@needs_etcd
async def test_a_cluster_that_loses_its_leader_remembers(tmp_path):
    with etcd_cluster(tmp_path) as servers:
        second = timedelta(seconds=1)
        addresses = ",".join(server.address for server in servers)
        async with open_driver(addresses, request_timeout=second, dial_timeout=second) as locks:
            token = await locks.try_lock(RESOURCE, "one", 600)
            leader = servers[0].post("maintenance/status")["leader"]
            of = {server.post("maintenance/status")["header"]["member_id"]: server for server in servers}
            await trio.to_thread.run_sync(of[leader].kill)

            async def until_it_works(operation):
                with trio.fail_after(60):
                    while True:
                        try:
                            return await operation()
                        except ComponentUnavailable:
                            await trio.sleep(0.02)

            assert await until_it_works(lambda: locks.try_lock(RESOURCE, "two", 60)) is None
            outcome = await until_it_works(lambda: locks.unlock(RESOURCE, "one"))
            assert outcome in (UnlockOutcome.SUCCESS, UnlockOutcome.LOCK_DOES_NOT_EXIST)
            after = await until_it_works(lambda: locks.try_lock(RESOURCE, "two", 60))
            assert after is None or after > token


@needs_etcd
async def test_wrong_credentials(tmp_path):
    with etcd_server(tmp_path) as server:
        server.require_login()
        wrong = Options(endpoints=server.address, username="root", password="guess")
        async with asyncio_loop(True):
            with pytest.raises(ConfigError, match="password"):
                async with driver.open(wrong, CONTEXT):
                    pass


async def test_no_server():
    options = Options(endpoints=f"127.0.0.1:{free_port()}")
    async with asyncio_loop(True):
        with pytest.raises(ComponentUnavailable, match=options.endpoints):
            async with driver.open(options, CONTEXT):
                pass


def test_when_a_lock_is_over():
    """`left` is rounded down: 0 of 6 means that more than 5 seconds have passed."""
    five = Held("one", 5)
    assert [is_over(five, 6, left) for left in (6, 5, 1, 0, -1)] == [False, False, False, True, True]
    assert [is_over(five, 10, left) for left in (10, 5, 4, 0)] == [False, False, True, True]
    assert is_over(five, 0, -1), "a lease that is gone"
    assert unpack(pack(five)) == five


def test_metadata():
    found = Registry.discover().driver("lock.etcd", "v1")
    assert found is driver
    assert found.needs_asyncio
    with pytest.raises(ConfigError, match="maxTxnOps"):
        load_options(found.metadata, {"endpoints": "a:1", "maxTxnOps": "1"})
