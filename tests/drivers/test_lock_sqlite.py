"""lock.sqlite: the conformance suite, its metadata, and the file behind it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from meshnode_lock_sqlite import Options, driver

from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, UnlockOutcome
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import lock

CONTEXT = DriverContext("lockstore", "app")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locks.db"


def opened(path, **options):
    return driver.open(Options(connection_string=str(path), **options), CONTEXT)


@pytest.mark.parametrize("disable_wal", [False, True], ids=["wal", "no-wal"])
@pytest.mark.parametrize("check", lock.CHECKS, ids=str)
async def test_conformance(check, path, disable_wal):
    await check.run(lock.Setup(lambda: opened(path, disable_wal=disable_wal)))


async def test_tokens_go_on_where_the_file_left_off(path):
    async with opened(path) as locks:
        first = await locks.try_lock("a", "one", 60)
        assert await locks.unlock("a", "one") is UnlockOutcome.SUCCESS
    async with opened(path) as locks:
        assert await locks.try_lock("b", "one", 60) > first


async def test_what_is_over_leaves_the_file(path):
    now = 1000.0
    context = DriverContext("lockstore", "app", wall=lambda: now)
    async with driver.open(Options(connection_string=str(path)), context) as locks:
        for number in range(10):
            assert await locks.try_lock(f"r{number}", "one", 5) is not None
        now = 1005.0
        assert await locks.unlock("none", "one") is UnlockOutcome.LOCK_DOES_NOT_EXIST
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM locks").fetchone() == (0,)


async def test_locks_of_one_process_in_memory():
    async with driver.open(Options(connection_string=":memory:"), CONTEXT) as locks:
        assert await locks.try_lock("a", "one", 60) == 1
        assert await locks.try_lock("a", "two", 60) is None


async def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(ComponentUnavailable):
        async with opened(tmp_path / "no" / "such" / "folder.db"):
            pass


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "connectionString"),
        ({"connectionString": ""}, "is empty"),
        ({"connectionString": "file:x.db?mode=ro"}, "have to be written"),
        ({"connectionString": "x.db", "tableName": "a b"}, "no table name"),
        ({"connectionString": "x.db", "timeout": "1ms"}, "at least 1s"),
    ],
)
def test_metadata_that_cannot_be_used(metadata, words):
    with pytest.raises(ConfigError, match=words):
        load_options(driver.metadata, metadata)


def test_metadata():
    assert Registry.discover().driver("lock.sqlite", "v1") is driver
    options = load_options(driver.metadata, {"url": "x.db", "busyTimeout": "5s", "tableName": "mine"})
    assert (options.connection_string, options.table_name) == ("x.db", "mine")
