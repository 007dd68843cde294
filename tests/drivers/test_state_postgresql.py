"""state.postgresql, both versions: the conformance suite on a real server, the layouts, the metadata."""

from __future__ import annotations

import base64
import itertools
import json
import uuid
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import trio
from meshnode_postgresql.state import Options, OptionsV2, driver, driver_v2, postgres, postgres_v2

from meshnode.errors import (
    BulkStateError,
    ComponentUnavailable,
    ConfigError,
    EtagInvalid,
    EtagMismatch,
    InvalidArgument,
    NotImplementedHere,
    StateError,
    Status,
)
from meshnode.interfaces import (
    Concurrency,
    DeleteRequest,
    DriverContext,
    Feature,
    GetRequest,
    QueryRequest,
    SetRequest,
)
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import state

CONTEXT = DriverContext("statestore", "app")
JSON = "application/json"
_numbers = itertools.count()


def opened(server, version="v1", **options):
    found, metadata = {"v1": (driver, Options), "v2": (driver_v2, OptionsV2)}[version]
    return found.open(
        metadata(
            **{"connection_string": server.url, "table_prefix": "v2_", **options}
            if version == "v2"
            else {"connection_string": server.url, **options}
        ),
        CONTEXT,
    )


@pytest.fixture(params=["v1", "v2"])
def version(request):
    return request.param


@pytest.fixture
def schema(shared_postgres):
    """A name of its own for each test's tables."""
    name = f"s{next(_numbers)}"
    shared_postgres.rows(f"CREATE SCHEMA {name}")
    return name


def within(schema, version):
    names = {"table_name": f"{schema}.state"} if version == "v1" else {"table_prefix": f"{schema}."}
    return {**names, "metadata_table_name": f"{schema}.dapr_metadata"}


@pytest.mark.parametrize("check", state.CHECKS, ids=str)
async def test_conformance(check, shared_postgres, version):
    ran = await check.run(lambda: opened(shared_postgres, version))
    assert ran is not (version == "v2" and Feature.QUERY_API in check.needs)


async def value(store, key):
    result = await store.get(GetRequest(key))
    return result and result.data


# What a daprd makes of an empty database, taken from its migrations.
DAPR_V1 = """
CREATE TABLE IF NOT EXISTS {0}.dapr_metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
INSERT INTO {0}.dapr_metadata VALUES ('lock', 'lock'), ('migrations', '2');
CREATE TABLE IF NOT EXISTS {0}.state (key text NOT NULL PRIMARY KEY, value jsonb NOT NULL,
  isbinary boolean NOT NULL, insertdate TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
  updatedate TIMESTAMP WITH TIME ZONE NULL);
ALTER TABLE {0}.state ADD expiredate TIMESTAMP WITH TIME ZONE;
"""
DAPR_V2 = """
CREATE TABLE IF NOT EXISTS {0}.dapr_metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
INSERT INTO {0}.dapr_metadata VALUES ('lock', 'lock'), ('migrations-state-v2-{0}.', '1');
CREATE TABLE IF NOT EXISTS {0}.state (key text NOT NULL PRIMARY KEY, value bytea NOT NULL,
  etag uuid NOT NULL DEFAULT gen_random_uuid(), created_at timestamp with time zone NOT NULL DEFAULT now(),
  updated_at timestamp with time zone, expires_at timestamp with time zone);
CREATE INDEX ON {0}.state (expires_at);
"""


async def test_tables_are_those_of_dapr(shared_postgres, schema, version):
    theirs = f"{schema}_theirs"
    shared_postgres.rows(f"CREATE SCHEMA {theirs}")
    for statement in (DAPR_V1 if version == "v1" else DAPR_V2).format(theirs).split(";\n"):
        shared_postgres.rows(statement)
    async with opened(shared_postgres, version, **within(schema, version)):
        pass
    for sql in (
        "SELECT table_name, column_name, data_type, is_nullable, column_default, ordinal_position "
        "FROM information_schema.columns WHERE table_schema = '{0}' ORDER BY 1, 6",
        "SELECT replace(indexdef, '{0}.', '') FROM pg_indexes WHERE schemaname = '{0}' ORDER BY 1",
        "SELECT replace(key, '{0}.', ''), value FROM {0}.dapr_metadata ORDER BY 1",
    ):
        rows = shared_postgres.rows(sql.format(schema))
        assert rows
        assert rows == shared_postgres.rows(sql.format(theirs))


async def test_tables_of_a_daprd_are_taken_as_they_are(shared_postgres, schema, version):
    """By a user that may make none, too."""
    for statement in (DAPR_V1 if version == "v1" else DAPR_V2).format(schema).split(";\n"):
        shared_postgres.rows(statement)
    shared_postgres.rows(f"CREATE ROLE {schema}_user LOGIN PASSWORD 'x'")
    shared_postgres.rows(f"GRANT USAGE ON SCHEMA {schema} TO {schema}_user")
    shared_postgres.rows(
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}_user"
    )
    names = within(schema, version)
    async with opened(shared_postgres, version, user=f"{schema}_user", password="x", **names) as store:
        await store.set(SetRequest("k", b"v"))
        assert await value(store, "k") == b"v"


async def test_many_make_the_tables_at_once(shared_postgres, schema, version):
    async def one():
        async with opened(shared_postgres, version, max_conns=2, **within(schema, version)) as store:
            await store.set(SetRequest("k", b"v"))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(one)
    assert shared_postgres.rows(f"SELECT count(*) FROM {schema}.state") == [(1,)]


async def test_an_old_table_of_version_1_gets_its_column(shared_postgres, schema):
    for statement in DAPR_V1.format(schema).split(";\n")[:-2]:
        shared_postgres.rows(statement)
    shared_postgres.rows(f"UPDATE {schema}.dapr_metadata SET value = '1' WHERE key = 'migrations'")
    shared_postgres.rows(f"INSERT INTO {schema}.state VALUES ('old', '1', false)")
    async with opened(shared_postgres, **within(schema, "v1")) as store:
        assert await value(store, "old") == b"1"
    level = f"SELECT value FROM {schema}.dapr_metadata WHERE key = 'migrations'"
    assert shared_postgres.rows(level) == [("2",)]


async def test_rows_of_version_1(shared_postgres, schema):
    """Bytes as base64, JSON as it is; the etag is xmin."""
    binary = base64.b64encode(b"\x00\xff").decode()
    async with opened(shared_postgres, **within(schema, "v1")) as store:
        insert = f"INSERT INTO {schema}.state (key, value, isbinary) VALUES "
        shared_postgres.rows(
            f"""{insert} ('a||bytes', '"{binary}"', true), ('a||json', '{{"b": 1}}', false)"""
        )
        shared_postgres.rows(f"{insert} ('a||bad', '5', true)")
        for key, data in (("a||bytes", b"\x00\xff"), ("a||json", b'{"b": 1}')):
            found = await store.get(GetRequest(key))
            ((xmin,),) = shared_postgres.rows(f"SELECT xmin::text FROM {schema}.state WHERE key = '{key}'")
            assert (found.data, found.etag) == (data, xmin)
            await store.set(SetRequest(key, b"new", etag=xmin))
        with pytest.raises(StateError, match="no base64"):
            await store.get(GetRequest("a||bad"))
        answers = await store.bulk_get([GetRequest("a||bad"), GetRequest("a||json")], 0)
        assert isinstance(answers[0].error, StateError)
        assert answers[1].result.data == b"new"
        await store.set(SetRequest("a||ours", b"\x00\xff"))
        await store.set(SetRequest("a||ours json", b'{"x":  [1.0, "\xc3\xbc"]}', content_type=JSON, ttl=60))
    columns = "key, value::text, isbinary, insertdate IS NULL, updatedate IS NULL, expiredate > now()"
    rows = shared_postgres.rows(f"SELECT {columns} FROM {schema}.state WHERE key <> 'a||bad' ORDER BY key")
    new = base64.b64encode(b"new").decode()
    assert rows == [
        ("a||bytes", f'"{new}"', True, False, False, None),
        ("a||json", f'"{new}"', True, False, False, None),
        ("a||ours", f'"{binary}"', True, False, True, None),
        ("a||ours json", '{"x": [1.0, "ü"]}', False, False, True, True),
    ]


@pytest.mark.parametrize(
    "data",
    [b"{broken", b'"\\u0000"', b'"\\ud800"', b"", b"NaN", b"[" * 100_000, '"x"'.encode("utf-16"), b"\xff"],
    ids=lambda data: repr(data[:9]),
)
async def test_what_is_called_json_and_has_no_place_in_jsonb(shared_postgres, data):
    """The node may have encrypted it."""
    async with opened(shared_postgres) as store:
        await store.set(SetRequest("k", data, content_type=JSON))
        assert await value(store, "k") == data


async def test_rows_of_version_2(shared_postgres, schema):
    etag = str(uuid.uuid4())
    async with opened(shared_postgres, "v2", **within(schema, "v2")) as store:
        shared_postgres.rows(
            f"INSERT INTO {schema}.state (key, value, etag) VALUES ('a||k', '\\x00ff', '{etag}')"
        )
        found = await store.get(GetRequest("a||k"))
        assert (found.data, found.etag) == (b"\x00\xff", etag)
        await store.set(SetRequest("a||k", b"new", etag=f"{{{etag.upper()}}}", ttl=60))
        found = await store.get(GetRequest("a||k"))
        until = datetime.fromisoformat(found.metadata["ttlExpireTime"])
        assert found.metadata["ttlExpireTime"].endswith("Z")
        assert timedelta(0) < until - datetime.now(UTC) <= timedelta(seconds=61)
    columns = "key, value, etag::text, created_at IS NULL, updated_at IS NULL, expires_at > now()"
    rows = shared_postgres.rows(f"SELECT {columns} FROM {schema}.state")
    assert rows == [("a||k", b"new", found.etag, False, False, True)]


@pytest.mark.parametrize(("version", "error"), [("v1", EtagInvalid), ("v2", EtagMismatch)])
async def test_etags_that_are_none(shared_postgres, version, error):
    """As Dapr's: version 1 can tell, version 2 says that it is another's."""
    async with opened(shared_postgres, version) as store:
        for etag in ("x", "-1", "4294967296", "٣"):
            with pytest.raises(error):
                await store.set(SetRequest("k", b"v", etag=etag))
            with pytest.raises(error):
                await store.delete(DeleteRequest("k", etag=etag))


async def test_keys_that_have_no_place(shared_postgres, version):
    async with opened(shared_postgres, version) as store:
        for operation in (
            lambda: store.get(GetRequest("a\0b")),
            lambda: store.set(SetRequest("a\0b", b"v")),
            lambda: store.delete(DeleteRequest("a\0b")),
        ):
            with pytest.raises(InvalidArgument, match="NUL"):
                await operation()
        with pytest.raises(BulkStateError) as caught:
            await store.bulk_set([SetRequest("fine", b"1"), SetRequest("a\0b", b"2")])
        assert caught.value.failures[1].code is Status.INVALID_ARGUMENT
        assert await value(store, "fine") == b"1"


async def test_a_long_bulk_tries_everything(shared_postgres, version):
    async with opened(shared_postgres, version) as store:
        first = Concurrency.FIRST_WRITE
        keys = [f"long{number}" for number in range(250)]
        await store.bulk_set([SetRequest(keys[number], b"old") for number in (3, 120)])
        with pytest.raises(BulkStateError) as caught:
            await store.bulk_set([SetRequest(key, b"new", concurrency=first) for key in keys])
        assert set(caught.value.failures) == {3, 120}
        await store.bulk_delete([DeleteRequest(key) for key in keys])
        answers = await store.bulk_get([GetRequest(key) for key in keys], 0)
        assert all(one.result is None for one in answers)


async def test_expired_rows_are_removed_by_one_of_them(shared_postgres, schema, version):
    """Found by the clean-up of whichever store comes first; a row without expiry stays."""
    names = within(schema, version)
    column = "expiredate" if version == "v1" else "expires_at"
    async with opened(shared_postgres, version, **names) as store:
        await store.bulk_set([SetRequest(f"k{number}", b"x", ttl=600) for number in range(5)])
        await store.set(SetRequest("stays", b"x"))
        shared_postgres.rows(
            f"UPDATE {schema}.state SET {column} = now() - interval '1 s' WHERE key <> 'stays'"
        )
        assert await value(store, "k1") is None
    often = timedelta(milliseconds=50)
    async with (
        opened(shared_postgres, version, cleanup_interval=often, **names),
        opened(shared_postgres, version, cleanup_interval=often, **names),
    ):
        sql = f"SELECT key FROM {schema}.state"
        await trio.to_thread.run_sync(shared_postgres.wait_for_rows, sql, [("stays",)])
    key = "last-cleanup" if version == "v1" else f"last-cleanup-state-v2-{schema}."
    sql = f"SELECT value::timestamptz <= now() FROM {schema}.dapr_metadata WHERE key = '{key}'"
    assert shared_postgres.rows(sql) == [(True,)]


async def test_a_clean_up_that_somebody_has_just_made_is_left_out(shared_postgres, schema):
    """Two intervals later somebody tries again."""
    names = within(schema, "v1")
    name = f"{schema}_sweeper"
    url = f"{shared_postgres.url}?application_name={name}"
    often = timedelta(milliseconds=20)
    last = f"INSERT INTO {schema}.dapr_metadata VALUES ('last-cleanup', now()::text)"
    async with opened(shared_postgres, **names) as store:
        await store.set(SetRequest("k", b"x", ttl=600))
    shared_postgres.rows(f"UPDATE {schema}.state SET expiredate = now() - interval '1 s'")
    shared_postgres.rows(last.replace("now()", "(now() + interval '1 hour')"))
    async with opened(shared_postgres, connection_string=url, cleanup_interval=often, **names):
        tried = (
            f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' "
            "AND query LIKE 'INSERT INTO%dapr_metadata%extract%'"
        )
        await trio.to_thread.run_sync(shared_postgres.wait_for_rows, tried, [(1,)])
        assert shared_postgres.rows(f"SELECT key FROM {schema}.state") == [("k",)]
        shared_postgres.rows(
            f"UPDATE {schema}.dapr_metadata SET value = (now() - interval '1 s')::text "
            "WHERE key = 'last-cleanup'"
        )
        sql = f"SELECT key FROM {schema}.state"
        await trio.to_thread.run_sync(shared_postgres.wait_for_rows, sql, [])


async def test_queries_see_json_alone(shared_postgres, schema):
    async with opened(shared_postgres, **within(schema, "v1")) as store:
        people = {"1": {"n": 1, "on": True}, "2": {"n": "1", "on": None}, "3": {"n": [1], "on": {"a": "b"}}}
        for key, person in people.items():
            await store.set(SetRequest(f"a||{key}", json.dumps(person).encode(), content_type=JSON))
        await store.set(SetRequest("a||4", json.dumps(people["1"]).encode()))
        await store.set(SetRequest("a||gone", b'{"n": 1}', content_type=JSON, ttl=60))
        shared_postgres.rows(f"UPDATE {schema}.state SET expiredate = now() WHERE key = 'a||gone'")

        async def ask(condition):
            found = await store.query(QueryRequest(filter=condition, key_prefix="a||"))
            return "".join(item.key[3:] for item in found.items)

        assert await ask(None) == "1234"
        assert await ask({"EQ": {"n": 1.0}}) == "1"
        assert await ask({"EQ": {"n": "1"}}) == "2"
        assert await ask({"EQ": {"n": [1]}}) == "3"
        assert await ask({"GTE": {"n": [1]}}) == ""
        assert await ask({"EQ": {"on": None}}) == "2"
        assert await ask({"NEQ": {"on": None}}) == "13"
        assert await ask({"EQ": {"on.a": "b"}}) == "3"
        assert await ask({"IN": {"n": []}}) == ""
        assert await ask({"EQ": {"o'n\"}": 1}}) == ""
        for condition in ({"EQ": {"": 1}}, {"EQ": {"n": float("nan")}}):
            with pytest.raises(StateError) as caught:
                await ask(condition)
            assert caught.value.code is Status.INVALID_ARGUMENT


async def test_version_2_has_no_queries(shared_postgres):
    async with opened(shared_postgres, "v2") as store:
        assert Feature.QUERY_API not in store.features
        with pytest.raises(NotImplementedHere, match="version 1"):
            await store.query(QueryRequest())


@asynccontextmanager
async def database(server, name):
    server.rows(f"CREATE DATABASE {name}")
    yield f"{server.url.rpartition('/')[0]}/{name}"


async def test_a_table_of_the_other_version(shared_postgres):
    async with database(shared_postgres, "mixed") as url:
        async with opened(shared_postgres, "v1", connection_string=url):
            pass
        with pytest.raises(StateError, match="expires_at") as caught:
            async with opened(shared_postgres, "v2", connection_string=url, table_prefix=""):
                pass
        assert not isinstance(caught.value, ComponentUnavailable)


def test_metadata_as_in_dapr():
    registry = Registry.discover()
    for name, version, found in (
        ("state.postgresql", "v1", driver),
        ("state.postgresql", "v2", driver_v2),
        ("state.postgres", "v1", postgres),
        ("state.postgres", "v2", postgres_v2),
    ):
        assert registry.driver(name, version) is found
    values = {
        "connectionString": "host=localhost user=postgres password=example port=5432 connect_timeout=10 "
        "database=dapr_test",
        "timeoutInSeconds": "20",
        "cleanupIntervalInSeconds": "3600",
        "metadataTableName": "public.dapr_metadata",
        "maxConns": "4",
        "connectionMaxIdleTime": "5m",
        "queryExecMode": "cache_describe",
        "host": "db",
        "sslRootCert": "/ca.pem",
    }
    options = load_options(driver.metadata, values | {"tableName": "public.state"})
    assert (options.cleanup_interval, options.table_name) == (timedelta(hours=1), "public.state")
    settings = options.dsn().settings
    assert (settings["host"], settings["user"], settings["sslrootcert"]) == ("db", "postgres", "/ca.pem")
    options = load_options(driver_v2.metadata, values | {"tablePrefix": "my_"})
    assert options.table_prefix == "my_"
    options = load_options(driver.metadata, {"host": "db", "user": "u", "cleanupInterval": "-1"})
    assert not options.sweeps
    assert options.dsn().settings["host"] == "db"


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        ({}, "connectionString: is empty"),
        ({"url": "user=u", "tableName": "a-b"}, "tableName: 'a-b' is no table name"),
        ({"url": "user=u", "tableName": "a.b.c"}, "tableName"),
        ({"url": "user=u", "metadataTableName": "x; drop table y"}, "metadataTableName"),
        ({"url": "user=u", "timeout": "10ms"}, "timeout: must be at least 1s"),
        ({"url": "user=u", "cleanupInterval": "soon"}, "cleanupInterval"),
        ({"url": "user=u", "useAzureAD": "true"}, "useAzureAD: is not offered"),
    ],
)
def test_mistakes_in_the_metadata(metadata, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_options(Options, metadata)


def test_prefixes_that_begin_no_name():
    for prefix in ("a b", "a.b.", "'", "1", "."):
        with pytest.raises(ConfigError, match="tablePrefix"):
            OptionsV2(connection_string="user=u", table_prefix=prefix)
