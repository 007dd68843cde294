"""state.mongodb on a server that speaks MongoDB's protocol: the conformance suite, Dapr's layout, and what is
its own.
"""

from __future__ import annotations

import logging
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import trio
from meshnode_state_mongodb import Options, driver
from support.certificates import Authority
from support.secantus_servers import find_secantus, secantus_server

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import ComponentUnavailable, ConfigError, EtagMismatch, StateError, Status
from meshnode.interfaces import (
    Concurrency,
    DriverContext,
    Feature,
    GetRequest,
    QueryRequest,
    SetRequest,
)
from meshnode.testing.conformance import state

pytestmark = pytest.mark.skipif(find_secantus() is None, reason="SecantusDB is not installed")

CONTEXT = DriverContext("statestore", "app")
OF_REPLICA_SETS = {Feature.TRANSACTIONAL, Feature.ACTOR}


@asynccontextmanager
async def open_driver(options, context=CONTEXT):
    """As a node does it: one trio-asyncio loop around the driver."""
    async with asyncio_loop(True), driver.open(options, context) as store:
        yield store


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with secantus_server(tmp_path_factory.mktemp("secantus")) as running:
        yield running


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    with secantus_server(tmp_path_factory.mktemp("alone"), "--standalone") as running:
        yield running


@pytest.fixture
def options(server, request):
    """A collection of the test's own."""
    return Options(host=server.address, collection_name=re.sub(r"\W", "_", request.node.name))


@pytest.fixture
def collection(server, options):
    with server.client() as client:
        yield client[options.database_name][options.collection_name]


@pytest.mark.parametrize("check", state.CHECKS, ids=str)
async def test_conformance(check, server):
    assert await check.run(lambda: open_driver(Options(host=server.address)))


@pytest.mark.parametrize("check", [one for one in state.CHECKS if not one.needs & OF_REPLICA_SETS], ids=str)
async def test_conformance_without_a_replica_set(check, alone):
    assert await check.run(lambda: open_driver(Options(host=alone.address)))


async def test_without_a_replica_set_there_are_no_transactions(alone, caplog):
    with caplog.at_level(logging.INFO):
        async with open_driver(Options(host=alone.address)) as store:
            assert not store.features & OF_REPLICA_SETS
            with pytest.raises(StateError, match="replica set") as caught:
                await store.transact([SetRequest("k", b"v")], {})
            assert caught.value.code is Status.FAILED_PRECONDITION
    assert "no replica set" in caplog.text


async def test_layout_is_dapr_s(options, collection):
    async with open_driver(options) as store:
        await store.set(SetRequest("app||text", b'{"a": 1}'))
        json = SetRequest(
            "app||json", b'{"a": [1, 2.5, null], "b": {"c": "d"}}', content_type="application/json"
        )
        await store.set(json)
        await store.set(SetRequest("app||dollar", b"$name", ttl=60))
        await store.transact([SetRequest("app||list", b'[1,"x"]', content_type="application/json")], {})
        await store.set(SetRequest("app||word", b'"x"', content_type="application/json"))
    found = {document["_id"]: document for document in collection.find()}
    assert {name: document["value"] for name, document in found.items()} == {
        "app||text": '{"a": 1}',
        "app||json": {"a": [1, 2.5, None], "b": {"c": "d"}},
        "app||dollar": "$name",
        "app||list": [1, "x"],
        "app||word": '"x"',
    }
    assert all(set(document) == {"_id", "value", "_etag", "_ttl"} for document in found.values())
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", d["_etag"]) for d in found.values())
    ends = {name: document["_ttl"] for name, document in found.items() if document["_ttl"] is not None}
    assert list(ends) == ["app||dollar"]
    left = ends["app||dollar"].replace(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(seconds=30) < left < timedelta(seconds=90)
    assert {"_ttl": 1} in [dict(index["key"]) for index in collection.list_indexes()]
    assert [index.get("expireAfterSeconds") for index in collection.list_indexes()] == [None, 0]


async def test_reads_and_continues_what_daprd_wrote(options, collection):
    now = datetime.now(UTC)
    collection.insert_many(
        [
            {"_id": "app||text", "value": '{"city": "Oslo"}', "_etag": "e1", "_ttl": None},
            {"_id": "app||json", "value": {"city": "Bergen", "n": 5.5}, "_etag": "e2", "_ttl": None},
            {"_id": "app||list", "value": [1, {"a": True}], "_etag": "e3", "_ttl": None},
            {"_id": "app||number", "value": 42, "_etag": "e4", "_ttl": now + timedelta(seconds=600)},
            {"_id": "app||gone", "value": "x", "_etag": "e5", "_ttl": now - timedelta(seconds=1)},
            {"_id": "app||old", "value": "x", "_etag": "e6"},  # from before there were times to live
        ]
    )
    async with open_driver(options) as store:
        names = ("text", "json", "list", "number", "gone", "old", "never")
        answers = await store.bulk_get([GetRequest(f"app||{name}") for name in names], 0)
        assert [one.result and (one.result.data, one.result.etag) for one in answers] == [
            (b'{"city": "Oslo"}', "e1"),
            (b'{"city":"Bergen","n":5.5}', "e2"),
            (b'[1,{"a":true}]', "e3"),
            (b"42", "e4"),
            None,
            (b"x", "e6"),
            None,
        ]
        assert await store.get(GetRequest("app||gone")) is None
        await store.set(SetRequest("app||text", b"2", etag="e1"))
        await store.set(SetRequest("app||old", b"2", etag="e6"))
        with pytest.raises(EtagMismatch, match="possible etag mismatch"):
            await store.set(SetRequest("app||gone", b"2", etag="e5"))
        await store.set(SetRequest("app||gone", b"2", concurrency=Concurrency.FIRST_WRITE))
        found = await store.query(QueryRequest(filter={"EQ": {"city": "Bergen"}}, key_prefix="app||"))
        assert [(item.key, item.data) for item in found.items] == [
            ("app||json", b'{"city":"Bergen","n":5.5}')
        ]


async def test_json_that_is_none_and_numbers_that_are_large(options):
    async with open_driver(options) as store:
        with pytest.raises(StateError, match="no JSON"):
            await store.set(SetRequest("k", b"{", content_type="application/json"))
        await store.set(SetRequest("k", b'{"n":100000000000000000000}', content_type="application/json"))
        found = await store.get(GetRequest("k"))
        assert found is not None
        assert found.data == b'{"n":100000000000000000000}'
        await store.set(
            SetRequest("k", b'{"n":[1.0,-2.0,1.5],"o":{"m":1e21}}', content_type="application/json")
        )
        found = await store.get(GetRequest("k"))
        assert found is not None
        assert found.data == b'{"n":[1,-2,1.5],"o":{"m":1e+21}}'  # what a daprd reads


async def test_a_value_that_is_too_large(options):
    async with open_driver(options) as store:
        with pytest.raises(StateError):
            await store.set(SetRequest("k", b"x" * 17 * 1024 * 1024))
        await store.set(SetRequest("k", b"v"))
        assert await store.get(GetRequest("k")) is not None


async def test_the_time_is_the_server_s(options):
    """A node whose clock is wrong by an hour gives values the time that others see."""
    for wrong in (-3600, 3600):
        context = DriverContext(
            "statestore", "app", wall=lambda wrong=wrong: datetime.now(UTC).timestamp() + wrong
        )
        async with open_driver(options, context) as fast, driver.open(options, CONTEXT) as right:
            await fast.set(SetRequest("k", b"v", ttl=600))
            found = await right.get(GetRequest("k"))
            assert found is not None
            left = datetime.fromisoformat(found.metadata["ttlExpireTime"]) - datetime.now(UTC)
            assert timedelta(minutes=8) < left < timedelta(minutes=12)
            assert await fast.get(GetRequest("k")) == found


async def test_many_ways_to_say_where(server):
    for given in (
        {"connection_string": f"mongodb://{server.address}/?replicaSet=secantus"},
        {"host": server.address, "params": "?replicaSet=secantus&appName=shop"},
        {"host": server.address, "write_concern": "majority", "read_concern": "majority"},
        {"host": server.address, "write_concern": "1", "operation_timeout": timedelta(seconds=30)},
    ):
        async with open_driver(Options(**given)) as store:
            await store.set(SetRequest("k", b"v"))
            assert await store.get(GetRequest("k")) is not None


async def test_logging_in(tmp_path):
    with secantus_server(tmp_path) as server, server.client() as client:
        client.admin.command("createUser", "mesh", pwd="p@ss:/?", roles=["root"])
        server.stop()
        server.arguments.append("--auth")
        server.start()
        given = {"host": server.address, "params": "?authSource=admin"}
        async with open_driver(Options(username="mesh", password="p@ss:/?", **given)) as store:
            await store.set(SetRequest("k", b"v"))
            assert await store.get(GetRequest("k")) is not None
        for wrong in ({"username": "mesh", "password": "wrong"}, {}):
            async with asyncio_loop(True):
                with pytest.raises(ComponentUnavailable, match=server.address) as caught:
                    async with driver.open(Options(**wrong, **given), CONTEXT):
                        pass
            assert "wrong" not in str(caught.value)


async def test_over_tls(tmp_path):
    ca, certificate, key = Authority().write(tmp_path, "server")
    tls = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    with secantus_server(tmp_path, *tls) as server:
        params = f"?tls=true&tlsCAFile={ca}"
        async with open_driver(Options(host=server.address, params=params)) as store:
            await store.set(SetRequest("k", b"v" * 100_000))
            assert await store.get(GetRequest("k")) is not None
        given = Options(host=server.address, params="?tls=true", operation_timeout=timedelta(seconds=1))
        async with asyncio_loop(True):
            with pytest.raises(ComponentUnavailable, match="certificate"):
                async with driver.open(given, CONTEXT):
                    pass


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "host"),
        ({"host": "a", "server": "b"}, "server"),
        ({"host": "a", "database_name": ""}, "databaseName"),
        ({"host": "a", "collection_name": ""}, "collectionName"),
        ({"host": "a", "write_concern": "most"}, "writeConcern"),
        ({"host": "a", "write_concern": "0"}, "writeConcern"),
        ({"host": "a", "operation_timeout": timedelta(0)}, "operationTimeout"),
    ],
)
def test_bad_options_are_refused(arguments, field):
    with pytest.raises(ConfigError) as caught:
        Options(**arguments)
    assert [problem.field for problem in caught.value.problems] == [field]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"connection_string": "postgres://user:secret@host/"}, "connectionString"),
        ({"connection_string": "mongodb://user:secret@host:port/"}, "connectionString"),
        ({"host": "host:99999"}, "host"),
        ({"host": "host", "params": "?tls=perhaps"}, "params"),
        ({"host": "host", "params": "?w=majority&journal=5"}, "params"),
    ],
)
async def test_addresses_that_are_none(arguments, field):
    async with asyncio_loop(True):
        with pytest.raises(ConfigError) as caught:
            async with driver.open(Options(**arguments), CONTEXT):
                pass
    assert [problem.field for problem in caught.value.problems] == [field]
    assert "secret" not in str(caught.value)


async def test_expired_documents_are_removed_by_the_server_only(options, collection):
    """What has expired is not seen, though it is still there."""
    async with open_driver(options) as store:
        await store.set(SetRequest("k", b'{"a":1}', ttl=600, content_type="application/json"))
        collection.update_one({}, {"$set": {"_ttl": datetime.now(UTC) - timedelta(milliseconds=50)}})
        assert await store.get(GetRequest("k")) is None
        assert not (await store.query(QueryRequest(filter={"EQ": {"a": 1}}))).items


async def test_transactions_that_meet_begin_again(options):
    """Many writers of the same two documents: all succeed, for the server refuses none for good."""
    async with open_driver(options) as store:

        async def writer(number):
            pair = [SetRequest(name, b"%d" % number) for name in ("a", "b")]
            await store.transact(pair if number % 2 else pair[::-1], {})

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(writer, number)
        answers = await store.bulk_get([GetRequest("a"), GetRequest("b")], 0)
        assert len({one.result and one.result.data for one in answers}) == 1
