"""What state.sqlite and pubsub.sqlite share: transactions by batch, and when a commit waits for the disk."""

from __future__ import annotations

import sqlite3
from datetime import timedelta

import pytest
import trio
from meshnode_sqlite_client import Database, open_workers, whole

from meshnode.errors import ComponentUnavailable, StateError


def database(path, **given):
    return Database(str(path), StateError, timedelta(seconds=10), timedelta(seconds=2), **given)


def prepare(connection):
    connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)")


def synchronous(connection):
    return connection.execute("PRAGMA synchronous").fetchone()[0]


def in_transaction(connection):
    return connection.in_transaction


async def test_only_what_must_survive_a_power_cut_waits_for_the_disk(tmp_path):
    async with open_workers(database(tmp_path / "x.db"), prepare) as (worker,):
        usual = await worker.call(synchronous, writes=True)
        assert usual == 2
        assert await worker.call(synchronous, writes=True, durable=False) == 1
        assert await worker.call(synchronous, writes=True) == 2
        levels = []

        async def ask(durable):
            levels.append(await worker.call(synchronous, writes=True, durable=durable))

        async with trio.open_nursery() as nursery:  # one batch, and one of it is durable
            for durable in (False, True, False):
                nursery.start_soon(ask, durable)
        assert levels == [2, 2, 2]


async def test_what_the_user_chose_is_not_raised(tmp_path):
    async with open_workers(database(f"{tmp_path}/x.db?_pragma=synchronous(0)"), prepare) as (worker,):
        assert await worker.call(synchronous, writes=True) == 0
        assert await worker.call(synchronous, writes=True, durable=False) == 0


async def test_a_job_that_looks_first(tmp_path):
    async with open_workers(database(tmp_path / "x.db"), prepare) as (worker,):
        assert not await worker.call(in_transaction, writes=lambda _connection: False)
        assert await worker.call(in_transaction, writes=lambda _connection: True)


async def test_whole_undoes_one_job_and_leaves_its_neighbours(tmp_path):
    def put(number, connection):
        with whole(connection):
            connection.execute("INSERT INTO t VALUES (?)", (number,))
            if number % 2:
                raise StateError("odd")

    refused = []
    async with open_workers(database(tmp_path / "x.db"), prepare) as (worker,):

        async def caller(number):
            try:
                await worker.call(lambda connection: put(number, connection), writes=True)
            except StateError:
                refused.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(caller, number)
        found = await worker.call(
            lambda connection: connection.execute("SELECT n FROM t ORDER BY n").fetchall(), writes=False
        )
    assert [number for (number,) in found] == [0, 2, 4, 6, 8]
    assert sorted(refused) == [1, 3, 5, 7, 9]


async def test_what_is_cancelled_can_still_write(tmp_path):
    def put(connection):
        connection.execute("INSERT INTO t VALUES (1)")

    with trio.CancelScope() as scope:
        async with open_workers(database(tmp_path / "x.db"), prepare) as (worker,):
            scope.cancel()
            with trio.CancelScope(shield=True):
                await worker.call(put, writes=True)
    connection = sqlite3.connect(tmp_path / "x.db")
    assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
    connection.close()


async def test_a_check_that_fails_refuses_everybody(tmp_path):
    def gone(_connection):
        raise ComponentUnavailable("gone")

    async with open_workers(database(tmp_path / "x.db", check=gone), prepare) as (worker,):
        with pytest.raises(ComponentUnavailable, match="gone"):
            await worker.call(in_transaction, writes=False)


async def test_errors_of_the_block_come_out_bare(tmp_path):
    with pytest.raises(LookupError):
        async with open_workers(database(tmp_path / "x.db"), prepare):
            raise LookupError
