"""state.sqlite: the conformance suite on real files, and what is its own."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import timedelta

import pytest
import trio
from meshnode_state_sqlite import Options, driver

from meshnode.errors import ComponentUnavailable, ConfigError, StateError
from meshnode.interfaces import DriverContext, GetRequest, QueryRequest, SetRequest
from meshnode.testing.conformance import state

CONTEXT = DriverContext("statestore", "app")

VARIANTS = {
    "file": lambda folder: Options(connection_string=str(folder / "d%20ta #1.db")),
    "uri": lambda folder: Options(connection_string=f"file:{folder}/data.db?_txlock=immediate&cache=private"),
    "no wal": lambda folder: Options(connection_string=str(folder / "data.db"), disable_wal=True),
    "memory": lambda folder: Options(connection_string=":memory:"),
}


@pytest.fixture(params=VARIANTS)
def open_store(request, tmp_path):
    options = VARIANTS[request.param](tmp_path)
    return lambda: driver.open(options, CONTEXT)


@pytest.mark.parametrize("check", state.CHECKS, ids=str)
async def test_conformance(check, open_store):
    assert await check.run(open_store)


def rows(path, sql, *parameters):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchall()


async def test_values_survive_reopening(tmp_path):
    options = Options(connection_string=str(tmp_path / "data.db"))
    async with driver.open(options, CONTEXT) as store:
        await store.set(SetRequest("k", b"v"))
        before = await store.get(GetRequest("k"))
    async with driver.open(options, CONTEXT) as store:
        assert await store.get(GetRequest("k")) == before


async def test_a_write_that_returned_is_on_disk(tmp_path):
    """Another connection sees it at once, before the store is closed."""
    path = tmp_path / "data.db"
    async with driver.open(Options(connection_string=str(path)), CONTEXT) as store:
        await store.set(SetRequest("k", b"v"))
        assert rows(path, "SELECT value FROM state WHERE key = 'k'") == [("v",)]


async def test_layout_is_dapr_s(tmp_path):
    path = tmp_path / "data.db"
    context = DriverContext("statestore", "app", wall=lambda: 1_800_000_000.25)
    async with driver.open(Options(connection_string=str(path)), context) as store:
        await store.set(SetRequest("text", b'{"a":1}'))
        await store.set(SetRequest("binary", b"\x00\xff", ttl=60))
    assert rows(path, "SELECT key, value FROM metadata") == [("migrations", "1")]
    columns = rows(path, "PRAGMA table_info(state)")
    assert [(name, kind, notnull, pk) for _, name, kind, notnull, _, pk in columns] == [
        ("key", "TEXT", 1, 1),
        ("value", "TEXT", 1, 0),
        ("is_binary", "BOOLEAN", 1, 0),
        ("etag", "TEXT", 1, 0),
        ("expiration_time", "TIMESTAMP", 0, 0),
        ("update_time", "TIMESTAMP", 1, 0),
    ]
    stored = rows(path, "SELECT key, value, is_binary, expiration_time, update_time FROM state")
    assert stored == [
        ("text", '{"a":1}', 0, None, "2027-01-15 08:00:00"),
        ("binary", "AP8=", 1, "2027-01-15 08:01:01", "2027-01-15 08:00:00"),
    ]


async def test_reads_what_daprd_wrote(tmp_path):
    """Rows as Dapr's component writes them: values as base64, times by SQLite's own functions."""
    path = tmp_path / "data.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL)")
        connection.execute("INSERT INTO metadata VALUES ('migrations', '1')")
        connection.execute(
            "CREATE TABLE state (key TEXT NOT NULL PRIMARY KEY, "
            "value TEXT NOT NULL, is_binary BOOLEAN NOT NULL, etag TEXT NOT NULL, "
            "expiration_time TIMESTAMP DEFAULT NULL, "
            "update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        insert = "INSERT INTO state (key, value, is_binary, etag, expiration_time) VALUES (?, ?, ?, ?, {})"
        connection.execute(insert.format("NULL"), ("app||a", "eyJjaXR5IjogIk9zbG8ifQ==", True, "e1"))
        connection.execute(insert.format("NULL"), ("app||b", '{"city":"Bergen"}', False, "e2"))
        later = "DATETIME(CURRENT_TIMESTAMP, '+600 seconds')"
        connection.execute(insert.format(later), ("app||c", "eA==", True, "e3"))
        earlier = "DATETIME(CURRENT_TIMESTAMP, '-1 seconds')"
        connection.execute(insert.format(earlier), ("app||d", "eA==", True, "e4"))
        connection.commit()
    async with driver.open(Options(connection_string=str(path)), CONTEXT) as store:
        answers = await store.bulk_get([GetRequest(f"app||{name}") for name in "abcd"], 0)
        assert [one.result and (one.result.data, one.result.etag) for one in answers] == [
            (b'{"city": "Oslo"}', "e1"),
            (b'{"city":"Bergen"}', "e2"),
            (b"x", "e3"),
            None,
        ]
        await store.set(SetRequest("app||a", b"2", etag="e1"))
        found = await store.query(QueryRequest(filter={"EQ": {"city": "Bergen"}}, key_prefix="app||"))
        assert [item.key for item in found.items] == ["app||b"]


async def test_query_looks_into_base64(tmp_path):
    path = tmp_path / "data.db"
    async with driver.open(Options(connection_string=str(path)), CONTEXT) as store:
        await store.set(SetRequest("k", b"x"))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE state SET value = 'eyJjaXR5IjogIk9zbG8ifQ==', is_binary = 1")
            connection.commit()
        found = await store.query(QueryRequest(filter={"EQ": {"city": "Oslo"}}))
        assert [item.data for item in found.items] == [b'{"city": "Oslo"}']


async def test_table_names_can_be_chosen(tmp_path):
    path = tmp_path / "data.db"
    options = Options(connection_string=str(path), table_name="orders", metadata_table_name="orders_meta")
    async with driver.open(options, CONTEXT) as store:
        await store.set(SetRequest("k", b"v"))
    tables = rows(path, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    assert tables == [("orders",), ("orders_meta",)]


async def test_sweep_removes_expired_rows(tmp_path):
    path = tmp_path / "data.db"
    now = 1_800_000_000.0
    context = DriverContext("statestore", "app", wall=lambda: now)
    options = Options(connection_string=str(path), cleanup_interval=timedelta(milliseconds=50))
    async with driver.open(options, context) as store:
        requests = [SetRequest(f"k{number}", b"v", ttl=10) for number in range(2500)]
        await store.bulk_set([*requests, SetRequest("stays", b"v")])
        now += 60
        with trio.fail_after(20):
            while rows(path, "SELECT count(*) FROM state") != [(1,)]:
                await store.ping()
        assert await store.get(GetRequest("stays")) is not None
    assert rows(path, "SELECT value FROM metadata WHERE key = 'last-cleanup'") == [("2027-01-15 08:01:00",)]


async def test_two_processes_share_a_file(tmp_path):
    """Two stores on one file stand for two processes: both write at once, and neither loses anything."""
    options = Options(connection_string=str(tmp_path / "data.db"))
    async with driver.open(options, CONTEXT) as one, driver.open(options, CONTEXT) as other:

        async def writer(store, name):
            for number in range(50):
                await store.set(SetRequest(f"{name}{number}", b"v"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer, one, "a")
            nursery.start_soon(writer, other, "b")
        for name in "ab":
            answers = await one.bulk_get([GetRequest(f"{name}{number}") for number in range(50)], 0)
            assert all(answer.result is not None for answer in answers)


async def test_locked_database_is_unavailable_and_comes_back(tmp_path):
    path = tmp_path / "data.db"
    options = Options(connection_string=str(path), busy_timeout=timedelta(milliseconds=50))
    async with driver.open(options, CONTEXT) as store:
        await store.set(SetRequest("k", b"1"))
        with closing(sqlite3.connect(path, isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            with pytest.raises(ComponentUnavailable, match="locked"):
                await store.set(SetRequest("k", b"2"))
            result = await store.get(GetRequest("k"))
            assert result is not None
            assert result.data == b"1"
            intruder.execute("ROLLBACK")
        await store.set(SetRequest("k", b"3"))


async def test_reads_do_not_wait_for_writers(tmp_path):
    path = tmp_path / "data.db"
    options = Options(connection_string=str(path), busy_timeout=timedelta(seconds=30))
    async with driver.open(options, CONTEXT) as store:
        await store.set(SetRequest("k", b"1"))
        with closing(sqlite3.connect(path, isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.set, SetRequest("k", b"2"))
                with trio.fail_after(10):
                    for _ in range(20):
                        await store.get(GetRequest("k"))
                intruder.execute("ROLLBACK")
        result = await store.get(GetRequest("k"))
        assert result is not None
        assert result.data == b"2"


async def test_one_operation_may_not_take_forever(tmp_path):
    """A query that would scan for minutes is interrupted at the component's timeout."""
    options = Options(connection_string=str(tmp_path / "data.db"), timeout=timedelta(seconds=1))
    async with driver.open(options, CONTEXT) as store:
        await store.bulk_set([SetRequest(f"k{number}", b'{"a": 1}') for number in range(20_000)])
        slow = {"OR": [{"EQ": {"b": number}} for number in range(900)]}
        with pytest.raises(ComponentUnavailable, match="interrupted"):
            await store.query(QueryRequest(filter=slow))
        await store.ping()


async def test_closed_store_says_so(tmp_path):
    async with driver.open(Options(connection_string=str(tmp_path / "data.db")), CONTEXT) as store:
        pass
    with pytest.raises(ComponentUnavailable, match="closed"):
        await store.get(GetRequest("k"))


async def test_callers_are_released_when_the_store_closes(tmp_path):
    path = tmp_path / "data.db"
    options = Options(connection_string=str(path), busy_timeout=timedelta(milliseconds=200))
    outcomes = []

    async def caller(store):
        try:
            await store.set(SetRequest("k", b"v"))
        except ComponentUnavailable as error:
            outcomes.append(error)

    async with trio.open_nursery() as nursery, driver.open(options, CONTEXT) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            for _ in range(20):
                nursery.start_soon(caller, store)
            await trio.testing.wait_all_tasks_blocked()
    assert len(outcomes) <= 20


@pytest.mark.parametrize("kind", ["missing folder", "not a database"])
async def test_unusable_file_fails_at_open(tmp_path, kind):
    path = tmp_path / "nowhere" / "data.db"
    if kind == "not a database":
        path = tmp_path / "data.db"
        path.write_bytes(b"this is no database, but long enough to be looked at as one" * 20)
    with pytest.raises((ComponentUnavailable, StateError), match=r"data\.db"):
        async with driver.open(Options(connection_string=str(path)), CONTEXT):
            pass


async def test_read_only_database(tmp_path):
    path = tmp_path / "data.db"
    async with driver.open(Options(connection_string=str(path), disable_wal=True), CONTEXT) as store:
        await store.set(SetRequest("k", b"v"))
    async with driver.open(Options(connection_string=f"file:{path}?mode=ro"), CONTEXT) as store:
        assert await store.get(GetRequest("k")) is not None
        with pytest.raises(StateError, match="readonly"):
            await store.set(SetRequest("k", b"w"))


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"connection_string": ""}, "connectionString"),
        ({"connection_string": "x.db?_pragma=busy_timeout(5)"}, "connectionString"),
        ({"connection_string": "x.db?_pragma=journal_mode=DELETE"}, "connectionString"),
        ({"connection_string": "x.db", "table_name": "a; DROP TABLE b"}, "tableName"),
        ({"connection_string": "x.db", "metadata_table_name": ""}, "metadataTableName"),
        ({"connection_string": "x.db", "timeout": timedelta(milliseconds=10)}, "timeout"),
    ],
)
def test_bad_options_are_refused(arguments, field):
    with pytest.raises(ConfigError) as caught:
        Options(**arguments)
    assert [problem.field for problem in caught.value.problems] == [field]


async def test_wall_clock_is_the_context_s(tmp_path):
    now = time.time()
    context = DriverContext("statestore", "app", wall=lambda: now)
    async with driver.open(Options(connection_string=str(tmp_path / "data.db")), context) as store:
        await store.set(SetRequest("k", b"v", ttl=3600))
        now += 3599
        assert await store.get(GetRequest("k")) is not None
        now += 2
        assert await store.get(GetRequest("k")) is None
