"""state.mongodb when things break: servers that stop, stall and restart, and callers that go away."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_state_mongodb import Options, driver
from support.redis_servers import free_port
from support.secantus_servers import find_secantus, secantus_server

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import BulkStateError, ComponentUnavailable
from meshnode.interfaces import DeleteRequest, DriverContext, GetRequest, QueryRequest, SetRequest

pytestmark = pytest.mark.skipif(find_secantus() is None, reason="SecantusDB is not installed")

CONTEXT = DriverContext("statestore", "app")
SOON = timedelta(seconds=1)


@asynccontextmanager
async def open_driver(options):
    async with asyncio_loop(True), driver.open(options, CONTEXT) as store:
        yield store


@pytest.fixture
def server(tmp_path):
    with secantus_server(tmp_path) as running:
        yield running


async def value(store, key):
    result = await store.get(GetRequest(key))
    return None if result is None else result.data


async def until_it_works(operation):
    """Tries again for as long as the store is unavailable, as a resiliency policy would."""
    with trio.fail_after(40):
        while True:
            try:
                return await operation()
            except ComponentUnavailable:
                await trio.lowlevel.checkpoint()


def operations(store):
    pair = [SetRequest("k", b"2"), SetRequest("l", b"2")]
    # Keys of its own: a server that stopped before it was told of the transaction's end keeps others from
    # them for a minute.
    transacted = [SetRequest("t", b"2"), SetRequest("u", b"2")]
    return (
        lambda: store.get(GetRequest("k")),
        lambda: store.bulk_get([GetRequest("k")], 0),
        lambda: store.query(QueryRequest()),
        lambda: store.set(SetRequest("k", b"2")),
        lambda: store.delete(DeleteRequest("k")),
        lambda: store.transact(transacted, {}),
        lambda: store.bulk_set(pair),
        store.ping,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid"])
async def test_no_server_at_open(host):
    given = Options(host=f"{host}:{free_port()}", operation_timeout=SOON)
    async with asyncio_loop(True):
        with trio.fail_after(30), pytest.raises(ComponentUnavailable, match=given.host):
            async with driver.open(given, CONTEXT):
                pass


async def say_nothing(_stream):
    await trio.sleep_forever()


async def say_something_else(stream):
    await stream.send_all(b"220 mail.example ESMTP\r\n" * 4)


@pytest.mark.parametrize("peer", [say_nothing, say_something_else])
async def test_a_peer_that_is_no_mongodb(peer):
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, peer, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        given = Options(host=f"127.0.0.1:{port}", operation_timeout=SOON)
        async with asyncio_loop(True):
            with trio.fail_after(20), pytest.raises(ComponentUnavailable):
                async with driver.open(given, CONTEXT):
                    pass
        nursery.cancel_scope.cancel()


async def test_opening_can_be_cancelled():
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        given = Options(host=f"127.0.0.1:{listener.socket.getsockname()[1]}")
        async with asyncio_loop(True):
            with trio.fail_after(20), trio.move_on_after(0.1) as scope:
                async with driver.open(given, CONTEXT):
                    pass
            assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_goes_and_comes_back(server, end):
    async with open_driver(Options(host=server.address, operation_timeout=SOON)) as store:
        await store.set(SetRequest("k", b"1"))
        getattr(server, end)()
        for operation in operations(store):
            with trio.fail_after(20), pytest.raises(ComponentUnavailable, match=server.address):
                await operation()
        server.start()
        assert await until_it_works(lambda: value(store, "k")) == b"1"
        await store.set(SetRequest("k", b"3"))
        assert await value(store, "k") == b"3"


async def test_a_server_killed_while_writes_are_under_way(server):
    """A transaction is there as a whole or not at all, and what was said to be done is there."""
    done = []

    async with open_driver(Options(host=server.address, operation_timeout=SOON)) as store:

        async def writer(number):
            try:
                for turn in range(1000):
                    names = [f"w{number}-{turn}-{part}" for part in "abc"]
                    await store.transact([SetRequest(name, b"v") for name in names], {})
                    done.append(names[0])
                    if len(done) == 24:
                        server.kill()
            except ComponentUnavailable:
                pass

        with trio.fail_after(90):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(writer, number)
    server.start()
    with server.client() as client:
        names = {document["_id"] for document in client["daprStore"]["daprCollection"].find()}
    assert len(done) >= 24
    assert set(done) <= names
    assert all({f"{name[:-1]}{part}" for part in "abc"} <= names for name in names)


async def test_a_server_that_stalls(server):
    async with open_driver(Options(host=server.address, operation_timeout=SOON)) as store:
        await store.set(SetRequest("k", b"1"))
        failures = []

        async def caller(operation):
            with pytest.raises((ComponentUnavailable, BulkStateError)) as caught:
                await operation()
            failures.append(str(caught.value))

        server.signal(signal.SIGSTOP)
        try:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for operation in operations(store):
                        nursery.start_soon(caller, operation)
        finally:
            server.signal(signal.SIGCONT)
        assert len(failures) == len(operations(store))
        assert any("may have been executed" in text for text in failures)
        await until_it_works(lambda: store.set(SetRequest("k", b"3")))
        assert await value(store, "k") == b"3"


async def test_a_call_to_a_stopped_server_is_cancelled(server):
    """It ends, and leaves no connection that somebody else gets with half an answer in it."""
    async with open_driver(Options(host=server.address)) as store:
        await store.set(SetRequest("k", b"1"))
        server.signal(signal.SIGSTOP)
        try:
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    for operation in operations(store):
                        nursery.start_soon(operation)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    nursery.cancel_scope.cancel()
        finally:
            server.signal(signal.SIGCONT)
        await until_it_works(lambda: store.set(SetRequest("k", b"3")))
        assert await value(store, "k") == b"3"


async def test_callers_are_released_when_the_store_closes(server):
    outcomes = []

    async def caller(store, number):
        try:
            await store.set(SetRequest("k", b"%d" % number))
        except ComponentUnavailable as error:
            outcomes.append(error)

    async with asyncio_loop(True), trio.open_nursery() as nursery:
        try:
            async with driver.open(Options(host=server.address), CONTEXT) as store:
                await store.ping()
                server.signal(signal.SIGSTOP)
                for number in range(20):
                    nursery.start_soon(caller, store, number)
                await trio.testing.wait_all_tasks_blocked(0.05)
        finally:
            server.signal(signal.SIGCONT)
        with pytest.raises(ComponentUnavailable, match="closed"):
            await store.get(GetRequest("k"))
    assert len(outcomes) == 20


async def test_everything_around_it_can_be_cancelled(server):
    """The node's scope ends with the driver open, calls under way and the server silent: nothing hangs."""
    try:
        with trio.fail_after(40), trio.CancelScope() as scope:
            async with open_driver(Options(host=server.address)) as store, trio.open_nursery() as nursery:
                await store.ping()
                server.signal(signal.SIGSTOP)
                for operation in operations(store):
                    nursery.start_soon(operation)
                await trio.testing.wait_all_tasks_blocked(0.05)
                scope.cancel()
        assert scope.cancelled_caught
    finally:
        server.signal(signal.SIGCONT)
