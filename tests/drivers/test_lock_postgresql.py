"""lock.postgresql on real servers."""

from __future__ import annotations

import itertools
import signal
from datetime import timedelta

import pytest
import trio
from meshnode_postgresql.bindings import Options as Plain
from meshnode_postgresql.bindings import driver as binding
from meshnode_postgresql.lock import Options, driver
from support.redis_servers import free_port, proxy

from meshnode.errors import ComponentUnavailable, ConfigError, InvalidArgument, LockError
from meshnode.interfaces import BindingRequest, DriverContext, UnlockOutcome
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import lock

CONTEXT = DriverContext("lockstore", "app")
RESOURCE = "lock||app||r"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
_numbers = itertools.count()


def opened(server, **options):
    return driver.open(Options(**{"connection_string": server.url, **options}), CONTEXT)


@pytest.fixture
def schema(shared_postgres):
    """A name of its own for each test's tables."""
    name = f"l{next(_numbers)}"
    shared_postgres.rows(f"CREATE SCHEMA {name}")
    return name


@pytest.mark.parametrize("check", lock.CHECKS, ids=str)
async def test_conformance(check, shared_postgres):
    await check.run(lock.Setup(lambda: opened(shared_postgres)))


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_one_holds_whatever_isolation_the_database_is_set_to(shared_postgres, level):
    """Of those that ask at once some may hear that it could not be told; two never get it."""
    url = f"{shared_postgres.url}?default_transaction_isolation={level.replace(' ', '%20')}"
    async with opened(shared_postgres, connection_string=url, max_conns=8) as locks:
        for turn in range(10):
            tokens, errors = [], []
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(_contend, locks, f"{level} {turn}", str(number), tokens, errors)
            assert len([token for token in tokens if token is not None]) == 1
            assert all("40001" in error for error in errors)


async def _contend(locks, resource, owner, tokens, errors):
    try:
        tokens.append(await locks.try_lock(resource, owner, 60))
    except ComponentUnavailable as error:
        errors.append(str(error))


async def test_rows_and_what_is_left_of_them(shared_postgres, schema):
    table = f"{schema}.locks"
    async with opened(shared_postgres, table_name=table) as locks:
        token = await locks.try_lock(RESOURCE, "one", 60)
        left = "expires_at - now() BETWEEN interval '50 s' AND interval '60 s'"
        columns = f"resource, owner, token, {left}"
        rows = shared_postgres.rows(f"SELECT {columns} FROM {table}")
        assert rows == [(RESOURCE, "one", token, True)]
        assert await locks.unlock(RESOURCE, "one") is UnlockOutcome.SUCCESS
        assert shared_postgres.rows(f"SELECT * FROM {table}") == []
        for number in range(5):
            await locks.try_lock(f"{RESOURCE}{number}", "one", 60)
        shared_postgres.rows(f"UPDATE {table} SET expires_at = now()")
        assert await locks.try_lock(f"{RESOURCE}2", "two", 60) > token
        rows = shared_postgres.rows(f"SELECT resource, owner FROM {table}")
        assert rows == [(f"{RESOURCE}2", "two")]


async def test_its_time_is_counted_by_the_server(shared_postgres):
    """A client whose clock is years off takes and keeps locks like any other."""
    context = DriverContext("lockstore", "app", wall=lambda: 0.0)
    options = Options(connection_string=shared_postgres.url)
    async with driver.open(options, context) as early, opened(shared_postgres) as locks:
        assert await early.try_lock("clock", "one", 60) is not None
        assert await locks.try_lock("clock", "two", 60) is None
        assert await early.unlock("clock", "one") is UnlockOutcome.SUCCESS
        assert await locks.try_lock("clock", "two", 60) is not None
        assert await early.try_lock("clock", "one", 60) is None


async def test_tokens_rise_after_everything_was_lost(shared_postgres, schema):
    table = f"{schema}.locks"
    async with opened(shared_postgres, table_name=table) as locks:
        before = await locks.try_lock(RESOURCE, "one", 60)
        shared_postgres.rows(f"DROP TABLE {table}")
        with pytest.raises(LockError, match="42P01"):
            await locks.try_lock(RESOURCE, "two", 60)
    async with opened(shared_postgres, table_name=table) as locks:
        after = await locks.try_lock(RESOURCE, "two", 60)
    assert before < after < 2**53


async def test_many_make_the_tables_at_once(shared_postgres, schema):
    got = []

    async def one(owner):
        async with opened(shared_postgres, table_name=f"{schema}.locks", max_conns=2) as locks:
            got.append(await locks.try_lock(RESOURCE, owner, 60))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(one, str(number))
    assert len([token for token in got if token is not None]) == 1


async def test_a_user_that_may_make_no_tables(shared_postgres, schema):
    table = f"{schema}.locks"
    user = {"user": f"{schema}_user", "password": "x"}
    shared_postgres.rows(f"CREATE ROLE {schema}_user LOGIN PASSWORD 'x'")
    shared_postgres.rows(f"GRANT USAGE ON SCHEMA {schema} TO {schema}_user")
    with pytest.raises(LockError, match=r"permission denied .*42501"):
        async with opened(shared_postgres, table_name=table, **user):
            pass
    async with opened(shared_postgres, table_name=table):
        pass
    shared_postgres.rows(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {schema}_user")
    shared_postgres.rows(f"GRANT USAGE ON SEQUENCE {table}_tokens TO {schema}_user")
    async with opened(shared_postgres, table_name=table, **user) as locks:
        assert await locks.try_lock(RESOURCE, "one", 60) is not None
        assert await locks.unlock(RESOURCE, "one") is UnlockOutcome.SUCCESS


async def test_names_that_have_no_place(shared_postgres):
    async with opened(shared_postgres) as locks:
        for resource, owner in (("a\0b", "one"), ("a", "o\0ne")):
            with pytest.raises(InvalidArgument, match="NUL"):
                await locks.try_lock(resource, owner, 60)
            with pytest.raises(InvalidArgument, match="NUL"):
                await locks.unlock(resource, owner)


async def test_a_server_that_goes_and_comes_back_remembers(own_postgres):
    """Also where its database does not wait for the disk."""
    own_postgres.rows("ALTER DATABASE postgres SET synchronous_commit = off")
    try:
        async with opened(own_postgres) as locks:
            assert await locks.try_lock("kept", "one", 60) is not None
            token = await locks.try_lock("released", "one", 60)
            assert await locks.unlock("released", "one") is UnlockOutcome.SUCCESS
            await trio.to_thread.run_sync(own_postgres.kill)
            for operation in (
                lambda: locks.try_lock("kept", "two", 60),
                lambda: locks.unlock("kept", "one"),
                locks.ping,
            ):
                with pytest.raises(ComponentUnavailable, match="cannot connect to PostgreSQL"):
                    await operation()
            await trio.to_thread.run_sync(own_postgres.start)
            assert await locks.try_lock("kept", "two", 60) is None
            assert await locks.try_lock("released", "two", 60) > token
            assert await locks.unlock("kept", "one") is UnlockOutcome.SUCCESS
    finally:
        own_postgres.rows("ALTER DATABASE postgres RESET synchronous_commit")


async def test_a_server_that_is_stopped(own_postgres):
    """Calls can be cancelled, and end by themselves after `timeout`; then it goes on."""
    async with opened(own_postgres, timeout=timedelta(seconds=1)) as locks:
        own_postgres.signal(signal.SIGSTOP)
        try:
            with trio.fail_after(60):
                with trio.move_on_after(0.1) as scope:
                    await locks.try_lock("stopped", "one", 60)
                assert scope.cancelled_caught
                with pytest.raises(ComponentUnavailable, match="did not answer within 1 s"):
                    await locks.try_lock("stopped", "two", 60)
        finally:
            own_postgres.signal(signal.SIGCONT)
    async with opened(own_postgres) as locks:
        assert await locks.try_lock("after", "one", 60) is not None


async def test_a_cancelled_call_lets_go_of_its_turn(shared_postgres):
    """It waits at the server, behind somebody who has the resource's turn; others get it afterwards."""
    turn = "SELECT pg_advisory_xact_lock(hashtextextended('locks:turn', 0)), pg_sleep(60)"
    held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    plain = binding.open(Plain(connection_string=shared_postgres.url), CONTEXT)
    async with opened(shared_postgres) as locks, plain as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.invoke, BindingRequest("exec", metadata={"sql": turn}))
            await trio.to_thread.run_sync(shared_postgres.wait_for_rows, held, [(1,)])
            async with trio.open_nursery() as waiting:
                waiting.start_soon(locks.try_lock, "turn", "one", 60)
                await trio.to_thread.run_sync(shared_postgres.wait_for_rows, WAITING, [(1,)])
                assert await locks.try_lock("another", "one", 60) is not None
                waiting.cancel_scope.cancel()
            # Only now, for with the turn it might have been granted before it heard of its end.
            nursery.cancel_scope.cancel()
        assert await locks.try_lock("turn", "two", 60) is not None


async def test_an_answer_that_was_lost_is_not_asked_for_again(shared_postgres):
    async with proxy(shared_postgres) as (address, link):
        host, _, port = address.rpartition(":")
        async with opened(shared_postgres, host=host, port=port) as locks:
            link["swallow"] = 1
            with pytest.raises(ComponentUnavailable, match="lost the connection"):
                await locks.try_lock("lost", "one", 60)
            owner = shared_postgres.rows("SELECT owner FROM locks WHERE resource = 'lost'")
            assert owner == [("one",)]
            assert await locks.unlock("lost", "one") is UnlockOutcome.SUCCESS


async def test_no_server_and_a_wrong_password(shared_postgres):
    with pytest.raises(ComponentUnavailable, match="cannot connect to PostgreSQL"):
        async with opened(shared_postgres, host="127.0.0.1", port=str(free_port())):
            pass
    with pytest.raises(ComponentUnavailable, match="password authentication failed"):
        async with opened(shared_postgres, password="poppy"):
            pass


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({}, "connectionString: is empty"),
        ({"url": "user=u", "tableName": "a b"}, "tableName: 'a b' is no table name"),
        ({"url": "user=u", "tableName": "a" * 51}, "tableName: has more than 50 characters"),
        ({"url": "user=u", "table": "x"}, "unknown metadata name"),
    ],
)
def test_mistakes_in_the_metadata(metadata, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_options(Options, metadata)


def test_found_by_entry_point():
    assert Registry.discover().driver("lock.postgresql", "v1") is driver
    options = load_options(driver.metadata, {"host": "db", "user": "u", "tableName": "s.locks"})
    assert options.table_name == "s.locks"
