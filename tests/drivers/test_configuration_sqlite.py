"""configuration.sqlite on a real file, written by another connection."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial

import pytest
from meshnode_configuration_sqlite import Options, driver

from meshnode.errors import ConfigError, ConfigurationError
from meshnode.interfaces import ConfigurationItem, DriverContext
from meshnode.registry import Registry
from meshnode.testing.conformance import configuration

CONTEXT = DriverContext("settings", "app")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "settings.db")


@pytest.fixture
def write(path):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection.execute


def opened(path, **options):
    return driver.open(Options(connection_string=path, **options), CONTEXT)


@pytest.mark.parametrize("check", configuration.CHECKS, ids=str)
async def test_conformance(check, path, write):
    async def put(key, value, version):
        sql = 'INSERT OR REPLACE INTO "configuration" (key, value, version) VALUES (?, ?, ?)'
        write(sql, (key, value, version))

    async def remove(key):
        write('DELETE FROM "configuration" WHERE key = ?', (key,))

    await check.run(configuration.Setup(partial(opened, path), put, remove))


async def test_metadata_of_items(path, write):
    async with opened(path, table="my_items") as store:
        write("INSERT INTO my_items VALUES ('a', '1', 'v', '{\"m\": \"x\"}'), ('b', '2', '', NULL)")
        assert await store.get(["a", "b", "c"], {}) == {
            "a": ConfigurationItem("1", "v", {"m": "x"}),
            "b": ConfigurationItem("2"),
        }
        write("UPDATE my_items SET metadata = '[1]' WHERE key = 'b'")
        with pytest.raises(ConfigurationError, match="metadata of b"):
            await store.get([], {})


async def test_many_keys(path, write):
    async with opened(path) as store:
        write("BEGIN")
        for number in range(2000):
            write("INSERT INTO configuration (key, value) VALUES (?, ?)", (f"k{number}", "v"))
        write("COMMIT")
        assert len(await store.get([f"k{number}" for number in range(2000)], {})) == 2000
        assert len(await store.get([], {})) == 2000


def test_what_is_refused():
    assert Registry.discover().driver("configuration.sqlite") is driver
    for options in (
        {"connection_string": ":memory:"},
        {"connection_string": "x", "table": 'a"b'},
        {"connection_string": ""},
    ):
        with pytest.raises(ConfigError):
            Options(**options)
