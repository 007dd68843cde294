"""configuration.etcd on real servers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_etcd.configuration import Options, driver
from support.etcd_servers import etcd_cluster, etcd_server
from support.install_etcd import find_etcd
from support.redis_servers import free_port, proxy

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import ConfigurationItem, DriverContext
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import configuration

pytestmark = pytest.mark.skipif(find_etcd() is None, reason="etcd is not installed")

CONTEXT = DriverContext("settings", "app")
LOGIN = {"username": "root", "password": "s3cret"}


@asynccontextmanager
async def open_driver(address, **fields):
    fields = {"key_prefix_path": "conf", **fields}
    async with asyncio_loop(True), driver.open(Options(endpoints=address, **fields), CONTEXT) as store:
        yield store


class Watcher:
    """What a watch tells, one change after another, as (key, value or None)."""

    def __init__(self):
        self.told, self.revisions = [], []
        self.stop, self._bell = trio.Event(), trio.Event()

    async def notify(self, changes):
        for key, item in changes.items():
            self.told.append((key, item and item.value))
            self.revisions.append(item and int(item.version))
        self._bell.set()
        self._bell = trio.Event()

    async def has(self, *changes):
        with trio.fail_after(30):
            while self.told[-len(changes) :] != list(changes):
                await self._bell.wait()


@asynccontextmanager
async def watching(store, *keys):
    watcher = Watcher()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(store.watch, keys, {}, watcher.notify, watcher.stop))
        yield watcher
        nursery.cancel_scope.cancel()


async def in_thread(function, *arguments):
    return await trio.to_thread.run_sync(function, *arguments)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with etcd_server(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with etcd_server(tmp_path_factory.mktemp("etcd")) as running:
        running.require_login()
        yield running


@pytest.mark.parametrize("login", [False, True], ids=["open", "login"])
@pytest.mark.parametrize("check", configuration.CHECKS, ids=str)
async def test_conformance(check, login, server, guarded):
    used = guarded if login else server

    async def put(key, value, version):
        await in_thread(used.put, f"conf/{key}", value)

    async def remove(key):
        await in_thread(used.delete, f"conf/{key}")

    opened = partial(open_driver, used.address, **(LOGIN if login else {}))
    await check.run(configuration.Setup(opened, put, remove, own_versions=True))


async def test_what_an_item_is(server):
    created = server.put("items/a", "1")
    written = server.put("items/a", b"\xff2")
    server.put("items/", "of an empty name")
    server.put("items0", "beside")
    server.put("item", "before")
    async with open_driver(server.address, key_prefix_path="items") as store:
        metadata = {"createRevision": str(created), "writes": "2"}
        wanted = ConfigurationItem("\ufffd2", str(written), metadata)
        found = await store.get([], {})
        assert set(found) == {"a", ""}
        assert found["a"] == wanted
        assert await store.get(["a", "b", "a"], {}) == {"a": wanted}


async def test_more_keys_than_a_transaction_takes(server):
    names = [f"k{number}" for number in range(250)]
    async with open_driver(server.address, key_prefix_path="many") as store:
        async with watching(store, *names) as watcher:
            for name in names[::50]:
                await in_thread(server.put, f"many/{name}", name)
                await watcher.has((name, name))
        assert set(await store.get(names, {})) == set(names[::50])


async def test_a_key_that_is_written_twice_is_told_twice(server):
    """Also where both come in one response, to a reader that was busy."""
    gate, told = trio.Event(), []

    async def notify(changes):
        told.append({key: item and item.value for key, item in changes.items()})
        await gate.wait()

    store_of = open_driver(server.address, key_prefix_path="twice")
    async with store_of as store, trio.open_nursery() as nursery:
        await nursery.start(partial(store.watch, [], {}, notify, trio.Event()))
        for value in ("1", "2", "3"):
            await in_thread(server.put, "twice/a", value)
        await in_thread(server.delete, "twice/a")
        await in_thread(server.put, "twice/b", "end")
        gate.set()
        with trio.fail_after(20):
            while not told or told[-1].get("b") != "end":
                await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert [one["a"] for one in told if "a" in one] == ["1", "2", "3", None]


@pytest.mark.parametrize("keys", [(), ("a", "b", "c")], ids=["all", "named"])
async def test_each_change_is_told_once_while_connections_break(server, keys):
    prefix = f"cut{len(keys)}"
    async with (
        proxy(server) as (address, link),
        open_driver(address, key_prefix_path=prefix) as store,
        watching(store, *keys) as watcher,
    ):
        wanted, revisions = [], []
        for number in range(150):
            key = "abc"[number % 3]
            if number % 10 == 9:
                link["swallow"] = 1
            revisions.append(await in_thread(server.put, f"{prefix}/{key}", str(number)))
            wanted.append((key, str(number)))
            if number % 30 == 29:
                await watcher.has((key, str(number)))
        with trio.fail_after(30):
            while len(watcher.told) < len(wanted):
                await trio.testing.wait_all_tasks_blocked(0.01)
    if not keys:
        assert (watcher.told, watcher.revisions) == (wanted, revisions)
    for key in "abc":  # of several keys that are named, each has an order of its own
        of_key = [one for one in wanted if one[0] == key]
        assert [one for one in watcher.told if one[0] == key] == of_key


@pytest.mark.parametrize("login", [False, True], ids=["open", "login"])
async def test_a_server_that_is_killed_and_comes_back(tmp_path, login):
    with etcd_server(tmp_path) as server:
        for key in ("same", "other", "gone"):
            server.put(f"conf/{key}", "1")
        if login:
            server.require_login()
        async with open_driver(server.address, **(LOGIN if login else {})) as store:
            async with watching(store) as everything, watching(store, "other", "gone") as some:
                for turn in range(2):
                    await in_thread(server.kill)
                    with pytest.raises(ComponentUnavailable):
                        await store.get(["same"], {})
                    await in_thread(server.start)
                    if login:
                        await in_thread(renew_token, server)
                    await in_thread(server.put, "conf/other", f"{turn}")
                    await some.has(("other", f"{turn}"))
                    await in_thread(server.put, "conf/same", f"live {turn}")
                    await everything.has(("other", f"{turn}"), ("same", f"live {turn}"))
                await in_thread(server.delete, "conf/gone")
                await everything.has(("gone", None))
                await some.has(("gone", None))
            assert len(everything.told) == 5
            assert some.told == [("other", "0"), ("other", "1"), ("gone", None)]


def renew_token(server):
    server.token = ""
    server.token = server.post("auth/authenticate", name="root", password="s3cret")["token"]


async def test_a_history_that_was_compacted_away(tmp_path):
    """While the watch was cut off: what differs is told, once, and what comes after."""
    with etcd_server(tmp_path) as server:
        for key in ("same", "other", "gone", "again"):
            server.put(f"conf/{key}", "1")
        async with proxy(server) as (address, link), open_driver(address) as store:
            async with watching(store) as everything, watching(store, "gone", "other", "same") as some:
                link["swallow"] = 10**9
                await in_thread(server.put, "conf/other", "cuts the streams")
                for number in range(5):
                    await in_thread(server.put, "conf/other", f"{number}")
                await in_thread(server.delete, "conf/gone")
                await in_thread(server.delete, "conf/again")
                await in_thread(server.put, "conf/again", "1")
                last = await in_thread(server.put, "conf/new", "x")
                await in_thread(partial(server.post, "kv/compaction", revision=last, physical=True))
                link["swallow"] = 0
                with trio.fail_after(30):
                    while len(everything.told) < 4 or len(some.told) < 2:
                        await trio.testing.wait_all_tasks_blocked(0.01)
                assert sorted(everything.told, key=str) == sorted(
                    [("gone", None), ("again", "1"), ("new", "x"), ("other", "4")], key=str
                )
                assert sorted(some.told, key=str) == sorted([("gone", None), ("other", "4")], key=str)
                await in_thread(server.put, "conf/same", "after")
                await everything.has(("same", "after"))
                await some.has(("same", "after"))
            assert (len(everything.told), len(some.told)) == (5, 3)


async def test_stop_and_cancel_while_the_server_stalls(tmp_path):
    with etcd_server(tmp_path) as server:
        async with open_driver(server.address) as store:
            async with trio.open_nursery() as nursery:
                watcher = Watcher()
                await nursery.start(partial(store.watch, (), {}, watcher.notify, watcher.stop))
                server.stall()
                watcher.stop.set()
                with trio.fail_after(10):
                    while nursery.child_tasks:
                        await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.fail_after(10), trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(store.watch, (), {}, _never, trio.Event(), task_status=_NO))
                    await trio.testing.wait_all_tasks_blocked(0.02)
                    scope.cancel()
            assert scope.cancelled_caught
            server.go_on()
            async with watching(store) as watcher:
                await in_thread(server.put, "conf/a", "1")
                await watcher.has(("a", "1"))


async def test_stop_ends_a_watch_whose_server_is_gone(tmp_path):
    with etcd_server(tmp_path) as server:
        async with open_driver(server.address) as store, trio.open_nursery() as nursery:
            watcher = Watcher()
            await nursery.start(partial(store.watch, (), {}, watcher.notify, watcher.stop))
            await in_thread(server.kill)
            with pytest.raises(ComponentUnavailable):
                await store.ping()
            watcher.stop.set()
        assert watcher.told == []


async def test_a_watch_of_a_server_that_is_not_there(tmp_path):
    with etcd_server(tmp_path) as server:
        async with open_driver(server.address) as store:
            await in_thread(server.kill)
            with pytest.raises(ComponentUnavailable):
                await store.watch(["k"], {}, _never, trio.Event(), task_status=_NO)
    async with asyncio_loop(True):
        with pytest.raises(ComponentUnavailable):
            async with driver.open(Options(endpoints=f"127.0.0.1:{free_port()}"), CONTEXT):
                pass


async def _never(changes):
    raise AssertionError(changes)


_NO = trio.TASK_STATUS_IGNORED


async def test_a_cluster_whose_members_are_killed_in_turn(tmp_path):
    second = timedelta(seconds=1)
    with etcd_cluster(tmp_path) as servers:
        again = f"--initial-cluster={','.join(server.as_member for server in servers)}"
        addresses = ",".join(server.address for server in servers)
        open_store = open_driver(addresses, request_timeout=second, dial_timeout=second)
        async with open_store as store, watching(store) as watcher:
            wanted, revisions = [], []
            for turn, victim in enumerate(servers):
                alive = servers[turn - 1]
                revisions.append(await in_thread(alive.put, "conf/k", f"before {turn}"))
                await in_thread(victim.kill)
                await in_thread(alive.wait)
                revisions.append(await in_thread(alive.put, "conf/k", f"without {turn}"))
                wanted += [("k", f"before {turn}"), ("k", f"without {turn}")]
                await watcher.has(*wanted[-2:])
                await in_thread(victim.launch, again)
                await in_thread(victim.wait)
            assert (watcher.told, watcher.revisions) == (wanted, revisions)


async def test_wrong_credentials(guarded):
    wrong = Options(endpoints=guarded.address, username="root", password="guess")
    async with asyncio_loop(True):
        with pytest.raises(ConfigError, match="password"):
            async with driver.open(wrong, CONTEXT):
                pass


def test_metadata():
    found = Registry.discover().driver("configuration.etcd", "v1")
    assert found is driver
    assert found.needs_asyncio
    options = load_options(found.metadata, {"endpoints": "a:1", "keyPrefixPath": "/config/app"})
    assert options.key_prefix_path == "/config/app"
