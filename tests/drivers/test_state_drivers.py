"""The state drivers as a node finds them: by entry point, with metadata as it stands in Dapr's component
files.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import pytest
import trio

from meshnode.errors import ConfigError
from meshnode.interfaces import DriverContext, GetRequest
from meshnode.registry import Registry, load_options

REGISTRY = Registry.discover()
CONTEXT = DriverContext("statestore", "app")


@pytest.mark.parametrize(
    ("name", "asyncio"),
    [
        ("state.in-memory", False),
        ("state.sqlite", False),
        ("state.redis", True),
        ("state.mysql", False),
        ("state.mongodb", True),
        ("state.postgresql", False),
        ("state.postgres", False),
    ],
)
def test_found_by_entry_point(name, asyncio):
    driver = REGISTRY.driver(name, "v1")
    assert driver.type == name
    assert driver.needs_asyncio is asyncio
    assert driver.summary


def test_sqlite_metadata_as_in_dapr():
    options = load_options(
        REGISTRY.driver("state.sqlite").metadata,
        {
            "connectionString": "data.db",
            "timeoutInSeconds": "30",
            "tableName": "orders",
            "cleanupInterval": "1h30m",
            "busyTimeout": "800ms",
            "disableWAL": "true",
        },
    )
    assert options.timeout == timedelta(seconds=30)
    assert options.cleanup_interval == timedelta(minutes=90)
    assert options.busy_timeout == timedelta(milliseconds=800)
    assert (options.table_name, options.disable_wal) == ("orders", True)


def test_redis_metadata_as_in_dapr():
    options = load_options(
        REGISTRY.driver("state.redis").metadata,
        {
            "redisHost": "a:6379,b:6380",
            "redisPassword": "",
            "redisType": "cluster",
            "enableTLS": "false",
            "maxRetries": "5",
            "maxRetryBackoff": "3000000000",
            "dialTimeout": "5000",
            "readTimeout": "-1",
            "poolSize": "20",
            "idleCheckFrequency": "1m",
            "ttlInSeconds": "600",
        },
    )
    assert options.hosts == [("a", 6379), ("b", 6380)]
    assert options.longest_pause == 3.0
    assert (options.max_retries, options.ttl_in_seconds) == (5, 600)


def test_mysql_metadata_as_in_dapr():
    options = load_options(
        REGISTRY.driver("state.mysql").metadata,
        {
            "connectionString": "user:p@ss@tcp(db:3306)/?allowNativePasswords=true&tls=custom",
            "schemaName": "orders",
            "timeoutInSeconds": "0",
            "pemPath": "/etc/ca.pem",
            "cleanupIntervalInSeconds": "-1",
        },
    )
    assert (options.schema_name, options.table_name) == ("orders", "state")
    assert options.metadata_table_name == "dapr_metadata"
    assert (options.timeout, options.sweep_seconds) == (20, None)
    assert "p@ss" not in repr(options)


def test_mongodb_metadata_as_in_dapr():
    options = load_options(
        REGISTRY.driver("state.mongodb").metadata,
        {
            "server": "server.example.com",
            "username": "admin",
            "password": "p@ss",
            "databaseName": "shop",
            "writeconcern": "2",
            "readconcern": "Majority",
            "params": "?authSource=admin",
            "operationTimeout": "10s",
        },
    )
    assert options.uri == "mongodb+srv://admin:p%40ss@server.example.com/shop?authSource=admin"
    assert (options.write_concern, options.read_concern, options.timeout) == ("2", "majority", 10.0)
    assert "p@ss" not in repr(options)
    assert options.place == "server.example.com"


@pytest.mark.parametrize(
    ("name", "metadata", "words"),
    [
        ("state.redis", {}, "redisHost"),
        ("state.redis", {"redisHost": "h", "redisPasword": "x"}, "redisPassword"),
        ("state.redis", {"redisHost": "h", "readTimeout": "soon"}, "readTimeout"),
        ("state.sqlite", {"connectionString": ""}, "connectionString"),
        ("state.sqlite", {"connectionString": "x", "tableName": "a-b"}, "tableName"),
        ("state.in-memory", {"size": "5"}, "size"),
        ("state.mongodb", {}, "host"),
        ("state.mongodb", {"host": "a", "readConcern": "most"}, "readConcern"),
        ("state.mysql", {}, "connectionString"),
        ("state.mysql", {"connectionString": "u@tcp(h)/?tls=custom"}, "pemPath"),
    ],
)
def test_mistakes_are_named(name, metadata, words):
    with pytest.raises(ConfigError, match=words):
        load_options(REGISTRY.driver(name).metadata, metadata)


_WRITER = """
import sys, trio
from meshnode.interfaces import DriverContext, SetRequest
from meshnode_state_sqlite import Options, driver

async def main():
    async with driver.open(Options(connection_string=sys.argv[1]), DriverContext("s", "a")) as store:
        for number in range(1_000_000):
            await store.set(SetRequest(f"k{number}", b"%d" % number))
            print(number, flush=True)

trio.run(main)
"""


async def test_sqlite_keeps_what_it_acknowledged_when_the_process_is_killed(tmp_path):
    """A process writes and says so line by line until it is killed; another one finds everything it had
    said.
    """
    path = str(tmp_path / "data.db")
    command = [sys.executable, "-c", _WRITER, path]
    writer = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    said = 0
    async for chunk in writer.stdout:
        said += chunk.count(b"\n")
        if said >= 50:
            writer.kill()
    await writer.wait()
    assert said >= 50
    driver = REGISTRY.driver("state.sqlite")
    async with driver.open(driver.metadata(connection_string=path), CONTEXT) as store:
        answers = await store.bulk_get([GetRequest(f"k{number}") for number in range(said)], 0)
        assert [one.result and one.result.data for one in answers] == [b"%d" % n for n in range(said)]
