"""state.postgresql when things break: servers that are killed or stopped, calls that are cancelled."""

from __future__ import annotations

import signal
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_postgresql.bindings import Options as Plain
from meshnode_postgresql.bindings import driver as binding
from meshnode_postgresql.state import Options, OptionsV2, driver, driver_v2
from support.redis_servers import free_port, proxy

from meshnode.errors import BulkStateError, ComponentUnavailable, StateError
from meshnode.interfaces import BindingRequest, DeleteRequest, DriverContext, GetRequest, SetRequest

CONTEXT = DriverContext("statestore", "app")
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


def opened(server, version="v1", **options):
    given = {"connection_string": server.url, **options}
    if version == "v2":
        return driver_v2.open(OptionsV2(table_prefix="v2_", **given), CONTEXT)
    return driver.open(Options(**given), CONTEXT)


@pytest.fixture(params=["v1", "v2"])
def version(request):
    return request.param


async def value(store, key):
    result = await store.get(GetRequest(key))
    return result and result.data


async def until_it_works(operation):
    """Tries again for as long as the store is unavailable, as a resiliency policy would."""
    with trio.fail_after(60):
        while True:
            try:
                return await operation()
            except ComponentUnavailable:
                await trio.sleep(0.02)


def every_operation(store):
    return (
        lambda: store.get(GetRequest("k")),
        lambda: store.bulk_get([GetRequest("k")], 0),
        lambda: store.set(SetRequest("k", b"2")),
        lambda: store.delete(DeleteRequest("k")),
        lambda: store.transact([SetRequest("k", b"2"), SetRequest("l", b"2")], {}),
        lambda: store.bulk_set([SetRequest("k", b"2"), SetRequest("l", b"2")]),
        store.ping,
    )


async def test_no_server_and_a_wrong_password(shared_postgres):
    with pytest.raises(ComponentUnavailable, match="cannot connect to PostgreSQL"):
        async with opened(shared_postgres, host="127.0.0.1", port=str(free_port())):
            pass
    with pytest.raises(ComponentUnavailable, match="password authentication failed") as caught:
        async with opened(shared_postgres, password="poppy"):
            pass
    assert "poppy" not in str(caught.value)


async def test_a_user_that_may_not_write(shared_postgres):
    async with opened(shared_postgres):
        pass
    shared_postgres.rows("CREATE ROLE reader LOGIN PASSWORD 'x'")
    shared_postgres.rows("GRANT SELECT ON state, dapr_metadata TO reader")
    async with opened(shared_postgres, user="reader", password="x") as store:
        with pytest.raises(StateError, match=r"permission denied .*42501"):
            await store.set(SetRequest("k", b"v"))
        assert await value(store, "never") is None


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_goes_and_comes_back(own_postgres, version, end):
    async with opened(own_postgres, version) as store:
        await store.set(SetRequest("k", b"1"))
        await trio.to_thread.run_sync(getattr(own_postgres, end))
        for operation in every_operation(store):
            with pytest.raises(ComponentUnavailable, match="cannot connect to PostgreSQL"):
                await operation()
        await trio.to_thread.run_sync(own_postgres.start)
        # At once, without a first failure.
        assert await value(store, "k") == b"1"
        await store.set(SetRequest("k", b"2"))
        assert await value(store, "k") == b"2"


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed(own_postgres, version):
    acknowledged: dict[int, int] = {}
    bell = [trio.Event()]

    async def writer(store, number):
        for turn in range(120):
            data = b"%d" % turn
            pair = [SetRequest(f"w{number}", data), SetRequest(f"x{number}", data)]
            await until_it_works(partial(store.transact, pair, {}))
            acknowledged[number] = turn
            bell[0].set()
            bell[0] = trio.Event()

    async with opened(own_postgres, version) as store:
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(writer, store, number)
            for progress in (30, 70):
                while sum(acknowledged.values()) < progress * 6:
                    await bell[0].wait()
                await trio.to_thread.run_sync(own_postgres.kill)
                await trio.to_thread.run_sync(own_postgres.start)
        assert set(acknowledged.values()) == {119}
        for number in range(6):
            assert await value(store, f"w{number}") == await value(store, f"x{number}") == b"119"


async def test_a_transaction_that_the_server_did_not_finish_left_no_trace(own_postgres, version):
    """Killed while it waits for a row that somebody else has locked."""
    table = "state" if version == "v1" else "v2_state"
    async with opened(own_postgres, version) as store:
        await store.set(SetRequest("b", b"old"))
        async with opened(own_postgres, version) as other, trio.open_nursery() as nursery:
            await nursery.start(_holding_row, own_postgres, table, "b")
            async with trio.open_nursery() as inner:
                inner.start_soon(_fails, other, [SetRequest("a", b"new"), SetRequest("b", b"new")])
                await trio.to_thread.run_sync(own_postgres.wait_for_rows, WAITING, [(1,)])
                await trio.to_thread.run_sync(own_postgres.kill)
            nursery.cancel_scope.cancel()
        await trio.to_thread.run_sync(own_postgres.start)
        assert await value(store, "a") is None
        assert await value(store, "b") == b"old"


async def _fails(store, operations):
    with pytest.raises(ComponentUnavailable, match="lost the connection"):
        await store.transact(operations, {})


async def _holding_row(server, table, key, *, task_status):
    """Another client's transaction that has the row."""
    sql = f"BEGIN; UPDATE {table} SET key = key WHERE key = '{key}'; SELECT pg_sleep(60)"
    held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    opened_client = binding.open(Plain(connection_string=server.url), CONTEXT)
    async with opened_client as client, trio.open_nursery() as nursery:
        nursery.start_soon(_ignoring_loss, client, BindingRequest("exec", metadata={"sql": sql}))
        await trio.to_thread.run_sync(server.wait_for_rows, held, [(1,)])
        task_status.started()
        await trio.sleep_forever()


async def _ignoring_loss(client, request):
    try:
        await client.invoke(request)
    except ComponentUnavailable:
        pass


async def test_cancelled_while_it_waits_for_a_row(own_postgres, version):
    """Half of the transaction is at the server; nothing of it stays, no connection is stuck."""
    table = "state" if version == "v1" else "v2_state"
    async with opened(own_postgres, version, max_conns=2) as store:
        await store.set(SetRequest("b", b"old"))
        for operation in (
            partial(store.transact, [SetRequest("a", b"new"), SetRequest("b", b"new")], {}),
            partial(store.set, SetRequest("b", b"new")),
            partial(store.bulk_delete, [DeleteRequest("b")]),
        ):
            async with trio.open_nursery() as nursery:
                await nursery.start(_holding_row, own_postgres, table, "b")
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(operation)
                        await trio.to_thread.run_sync(own_postgres.wait_for_rows, WAITING, [(1,)])
                        scope.cancel()
                nursery.cancel_scope.cancel()
            assert await value(store, "a") is None
            assert await value(store, "b") == b"old"
        await store.transact([SetRequest("a", b"2"), SetRequest("b", b"2")], {})
        assert await value(store, "b") == b"2"


async def test_a_server_that_is_stopped(own_postgres, version):
    """Calls can be cancelled, and end by themselves after `timeout`; then it goes on."""
    async with opened(own_postgres, version, timeout=timedelta(seconds=1)) as store:
        await store.set(SetRequest("k", b"1"))
        own_postgres.signal(signal.SIGSTOP)
        try:
            with trio.fail_after(60):
                with trio.move_on_after(0.1) as scope:
                    await store.set(SetRequest("k", b"2"))
                assert scope.cancelled_caught
                with pytest.raises(ComponentUnavailable, match="did not answer within 1 s"):
                    await store.get(GetRequest("k"))
        finally:
            own_postgres.signal(signal.SIGCONT)
        await until_it_works(lambda: store.set(SetRequest("k", b"3")))
        assert await value(store, "k") == b"3"


async def test_a_bulk_call_whose_server_is_killed(own_postgres):
    """What was done and what was not is told apart."""
    async with opened(own_postgres) as store, trio.open_nursery() as nursery:
        await store.set(SetRequest("m", b"old"))
        await nursery.start(_holding_row, own_postgres, "state", "m")
        failures = []

        async def bulk():
            with pytest.raises(BulkStateError) as caught:
                await store.bulk_set([SetRequest(key, b"new") for key in ("l", "m", "n")])
            failures.append(caught.value.failures)

        async with trio.open_nursery() as inner:
            inner.start_soon(bulk)
            await trio.to_thread.run_sync(own_postgres.wait_for_rows, WAITING, [(1,)])
            await trio.to_thread.run_sync(own_postgres.kill)
        nursery.cancel_scope.cancel()
    assert set(failures[0]) == {1, 2}
    await trio.to_thread.run_sync(own_postgres.start)
    async with opened(own_postgres) as store:
        assert [await value(store, key) for key in ("l", "m", "n")] == [b"new", b"old", None]


async def test_transactions_that_share_keys_do_not_lock_each_other_out(shared_postgres, version):
    """Whatever order their callers name the keys in."""
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'"
    before = shared_postgres.rows(deadlocks)
    keys = [f"d{number}" for number in range(6)]
    async with opened(shared_postgres, version, max_conns=8) as store:

        async def one(turn):
            order = keys[turn % 6 :] + keys[: turn % 6]
            order = order[::-1] if turn % 2 else order
            await store.transact([SetRequest(key, b"%d" % turn) for key in order], {})

        async with trio.open_nursery() as nursery:
            for turn in range(48):
                nursery.start_soon(one, turn)
        assert len({await value(store, key) for key in keys}) == 1
    assert shared_postgres.rows(deadlocks) == before


async def test_a_write_is_not_repeated_behind_the_callers_back(shared_postgres):
    """The answer is lost on the way: the caller hears that it may have been done."""
    async with proxy(shared_postgres) as (address, link):
        host, _, port = address.rpartition(":")
        async with opened(shared_postgres, host=host, port=port) as store:
            await store.set(SetRequest("once", b"1"))
            link["swallow"] = 1
            with pytest.raises(ComponentUnavailable, match="lost the connection"):
                await store.set(SetRequest("once", b"2"))
            assert await value(store, "once") == b"2"
