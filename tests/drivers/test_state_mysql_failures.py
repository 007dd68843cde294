"""state.mysql when things break: servers that stop, stall and restart, and callers that go away."""

from __future__ import annotations

import signal
from contextlib import closing
from functools import partial

import pytest
import trio
from meshnode_state_mysql import Options, driver
from support.mariadb_servers import find_mariadb, mariadb_server
from support.redis_servers import free_port

from meshnode.errors import ComponentUnavailable, StateError
from meshnode.interfaces import DeleteRequest, DriverContext, GetRequest, SetRequest

pytestmark = pytest.mark.skipif(find_mariadb() is None, reason="MariaDB is not installed")

CONTEXT = DriverContext("statestore", "app")


@pytest.fixture
def server(tmp_path):
    with mariadb_server(tmp_path) as running:
        yield running


def options(server, **more):
    return Options(connection_string=server.dsn, **more)


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
                await trio.lowlevel.checkpoint()


async def until_somebody_waits_for_a_lock(server):
    with trio.fail_after(20):
        while server.rows("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1] == "0":
            await trio.lowlevel.checkpoint()


def operations(store):
    pair = [SetRequest("k", b"2"), SetRequest("l", b"2")]
    return (
        lambda: store.get(GetRequest("k")),
        lambda: store.bulk_get([GetRequest("k")], 0),
        lambda: store.set(SetRequest("k", b"2")),
        lambda: store.delete(DeleteRequest("k")),
        lambda: store.transact(pair, {}),
        lambda: store.bulk_set(pair),
        store.ping,
    )


async def test_no_server_at_open():
    port = free_port()
    for dsn in (
        f"u:p@tcp(127.0.0.1:{port})/",
        "u:p@unix(/nowhere/mysql.sock)/",
        "u:p@tcp(no.such.host.invalid)/",
    ):
        with trio.fail_after(30), pytest.raises(ComponentUnavailable, match="mysql at"):
            async with driver.open(Options(connection_string=dsn), CONTEXT):
                pass


async def test_wrong_password(server):
    given = Options(connection_string=f"tester:wrong@tcp({server.address})/")
    with pytest.raises(ComponentUnavailable, match="denied") as caught:
        async with driver.open(given, CONTEXT):
            pass
    assert "wrong" not in str(caught.value)


async def say_nothing(_stream):
    await trio.sleep_forever()


async def say_something_else(stream):
    await stream.send_all(b"220 mail.example ESMTP\r\n" * 4)


@pytest.mark.parametrize("peer", [say_nothing, say_something_else])
async def test_a_peer_that_is_no_mysql(peer):
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, peer, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        given = Options(connection_string=f"u:p@tcp(127.0.0.1:{port})/?timeout=500ms")
        with trio.fail_after(20), pytest.raises(ComponentUnavailable):
            async with driver.open(given, CONTEXT):
                pass
        nursery.cancel_scope.cancel()


async def test_opening_can_be_cancelled():
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with trio.fail_after(20), trio.move_on_after(0.1) as scope:
            async with driver.open(Options(connection_string=f"u:p@tcp(127.0.0.1:{port})/"), CONTEXT):
                pass
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_goes_and_comes_back(server, end):
    async with driver.open(options(server), CONTEXT) as store:
        await store.set(SetRequest("k", b"1"))
        getattr(server, end)()
        for operation in operations(store):
            with trio.fail_after(20), pytest.raises(ComponentUnavailable, match=server.address):
                await operation()
        server.start()
        assert await value(store, "k") == b"1"
        await store.set(SetRequest("k", b"3"))
        assert await value(store, "k") == b"3"


async def test_a_connection_that_the_server_closed_costs_nobody_an_error(server):
    async with driver.open(options(server), CONTEXT) as store:
        await store.set(SetRequest("k", b"1"))
        for (number,) in server.rows("SELECT id FROM information_schema.processlist WHERE db IS NOT NULL"):
            server.rows(f"KILL {number}")
        await store.set(SetRequest("k", b"2"))
        assert await value(store, "k") == b"2"


async def test_a_server_killed_while_writes_are_under_way(server):
    """A transaction is there as a whole or not at all, and what was said to be done is there."""
    done = []

    async with driver.open(options(server), CONTEXT) as store:

        async def writer(number):
            try:
                for turn in range(1000):
                    names = [f"w{number}-{turn}-{part}" for part in "abc"]
                    await store.transact([SetRequest(name, b"v") for name in names], {})
                    done.append(names[0])
                    if len(done) == 40:
                        server.kill()
            except ComponentUnavailable:
                pass

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(writer, number)
        server.start()
        names = {name for (name,) in server.rows("SELECT id FROM state", schema="dapr_state_store")}
        assert len(done) >= 40
        assert set(done) <= names
        assert all({f"{name[:-1]}{part}" for part in "abc"} <= names for name in names)


async def test_a_server_that_stalls(server):
    async with driver.open(options(server, timeout_in_seconds=1), CONTEXT) as store:
        await store.set(SetRequest("k", b"1"))
        failures = []

        async def caller(operation, kind):
            with pytest.raises(kind) as caught:
                await operation()
            failures.append(str(caught.value))

        server.signal(signal.SIGSTOP)
        try:
            get, _, put, _, transact, bulk, _ = operations(store)
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    # This one gets the connection there is; for the others there is none.
                    nursery.start_soon(caller, put, ComponentUnavailable)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    for operation in (get, transact, bulk):
                        nursery.start_soon(caller, operation, ComponentUnavailable)
        finally:
            server.signal(signal.SIGCONT)
        assert len(failures) == 4
        assert sum("may have been executed" in text for text in failures) == 1
        await until_it_works(lambda: store.set(SetRequest("k", b"3")))
        assert await value(store, "k") == b"3"


async def test_a_call_to_a_stopped_server_is_cancelled(server):
    """It ends, and leaves neither a thread that waits nor a connection that somebody else gets."""
    async with driver.open(options(server), CONTEXT) as store:
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
        with trio.fail_after(20):
            await store.set(SetRequest("k", b"3"))
            assert await value(store, "k") == b"3"


@pytest.mark.parametrize("kind", ["set", "transact", "bulk_set"])
async def test_a_cancelled_write_that_waits_for_a_lock_is_given_up(server, kind):
    """It does not happen later, when the lock is free and its caller has long tried something else."""
    async with driver.open(options(server), CONTEXT) as store:
        await store.bulk_set([SetRequest("a", b"1"), SetRequest("k", b"1")])
        with closing(server.connect(database="dapr_state_store", autocommit=False)) as other:
            other.query("SELECT * FROM state WHERE id = 'k' FOR UPDATE")
            pair = [SetRequest("a", b"2"), SetRequest("k", b"2")]
            calls = {
                "set": lambda: store.set(pair[1]),
                "transact": lambda: store.transact(pair, {}),
                "bulk_set": lambda: store.bulk_set(pair),
            }
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(calls[kind])
                    await until_somebody_waits_for_a_lock(server)
                    nursery.cancel_scope.cancel()
            waiting = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'"
            assert server.rows(waiting)[0][1] == "0"
            other.rollback()
        answers = await store.bulk_get([GetRequest("a"), GetRequest("k")], 0)
        assert [one.result and one.result.data for one in answers] == [b"1", b"1"]


async def test_a_write_that_waits_too_long_for_a_lock(server):
    """The component's time is over: the write is given up, and the next one finds everything in order."""
    async with driver.open(options(server, timeout_in_seconds=1), CONTEXT) as store:
        await store.set(SetRequest("k", b"1"))
        with closing(server.connect(database="dapr_state_store", autocommit=False)) as other:
            other.query("SELECT * FROM state WHERE id = 'k' FOR UPDATE")
            with trio.fail_after(20), pytest.raises(ComponentUnavailable, match="within 1 s"):
                await store.set(SetRequest("k", b"2"))
            other.rollback()
        assert await value(store, "k") == b"1"
        await store.set(SetRequest("k", b"3"))


async def test_callers_are_released_when_the_store_closes(server):
    outcomes = []
    async with trio.open_nursery() as nursery:

        async def caller(store, number):
            try:
                await store.set(SetRequest("k", b"%d" % number))
            except ComponentUnavailable as error:
                outcomes.append(str(error))

        with closing(server.connect(autocommit=False)) as other:
            async with driver.open(options(server), CONTEXT) as store:
                await store.set(SetRequest("k", b"v"))
                other.query("SELECT * FROM dapr_state_store.state WHERE id = 'k' FOR UPDATE")
                for number in range(30):  # more than there are connections
                    nursery.start_soon(caller, store, number)
                await until_somebody_waits_for_a_lock(server)
            with pytest.raises(ComponentUnavailable, match="closed"):
                await store.get(GetRequest("k"))
            with trio.fail_after(20):
                while len(outcomes) < 30:
                    await trio.lowlevel.checkpoint()
            other.rollback()
    assert all("closed" in text for text in outcomes)


async def test_everything_around_it_can_be_cancelled(server):
    """The node's scope ends with the driver open, calls under way and the server silent: nothing hangs."""
    try:
        with trio.fail_after(30), trio.CancelScope() as scope:
            async with driver.open(options(server), CONTEXT) as store, trio.open_nursery() as nursery:
                await store.ping()
                server.signal(signal.SIGSTOP)
                for number in range(20):
                    nursery.start_soon(store.set, SetRequest(f"k{number}", b"v"))
                await trio.testing.wait_all_tasks_blocked(0.05)
                scope.cancel()
        assert scope.cancelled_caught
    finally:
        server.signal(signal.SIGCONT)


async def test_a_server_that_takes_no_writes_for_now(server):
    server.rows("CREATE USER clerk@'%' IDENTIFIED BY 'sesame'")
    server.rows("GRANT ALL ON dapr_state_store.* TO clerk@'%'")
    given = Options(connection_string=f"clerk:sesame@tcp({server.address})/")
    async with driver.open(given, CONTEXT) as store:
        await store.set(SetRequest("k", b"1"))
        server.rows("SET GLOBAL read_only = ON")
        with pytest.raises(ComponentUnavailable, match="read-only"):
            await store.set(SetRequest("k", b"2"))
        with pytest.raises(ComponentUnavailable, match="read-only"):
            await store.bulk_set([SetRequest("k", b"2")])
        assert await value(store, "k") == b"1"
        server.rows("SET GLOBAL read_only = OFF")
        await store.set(SetRequest("k", b"3"))


async def test_a_table_that_somebody_dropped(server):
    async with driver.open(options(server), CONTEXT) as store:
        server.rows("DROP TABLE dapr_state_store.state")
        with pytest.raises(StateError, match=r"doesn't exist \(1146\)"):
            await store.set(SetRequest("k", b"1"))
