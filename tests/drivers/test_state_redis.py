"""state.redis on real servers: the conformance suite in every topology, and Dapr's layout."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
from meshnode_redis.state import Options, driver
from support.certificates import Authority
from support.redis_servers import redis_cluster, redis_server, sentinel_group, wait_for

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import (
    BulkStateError,
    ComponentUnavailable,
    ConfigError,
    EtagInvalid,
    EtagMismatch,
    NotImplementedHere,
    StateError,
)
from meshnode.interfaces import (
    Concurrency,
    Consistency,
    DeleteRequest,
    DriverContext,
    Feature,
    GetRequest,
    QueryRequest,
    SetRequest,
)
from meshnode.testing.conformance import state

pytestmark = pytest.mark.redis

CONTEXT = DriverContext("statestore", "app")
CHECKS = [check for check in state.CHECKS if Feature.QUERY_API not in check.needs]


@asynccontextmanager
async def open_driver(options):
    """As a node does it: one trio-asyncio loop around the driver."""
    async with asyncio_loop(True), driver.open(options, CONTEXT) as store:
        yield store


def plain(folder, stack):
    server = stack.enter_context(redis_server(folder))
    return Options(host=server.address)


def with_user(folder, stack):
    server = stack.enter_context(redis_server(folder, password="wrong-for-this-user"))
    server.command("ACL", "SETUSER", "mesh", "on", ">s3cret", "~*", "+@all")
    return Options(host=server.address, username="mesh", password="s3cret", db=3)


def with_tls(folder, stack):
    authority = Authority()
    ca, certificate, key = authority.write(folder, "server")
    tls = ["--tls-ca-cert-file", str(ca), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    server = stack.enter_context(redis_server(folder, tls=tls))
    client_certificate, client_key = authority.issue("client")
    return Options(
        host=server.address,
        enable_tls=True,
        ca_cert=authority.certificate,
        client_cert=client_certificate,
        client_key=client_key,
    )


def with_sentinel(folder, stack):
    _, _, sentinel = stack.enter_context(sentinel_group(folder, password="s3cret"))
    return Options(host=sentinel.address, failover=True, sentinel_master_name="mymaster", password="s3cret")


def with_cluster(folder, stack):
    servers = stack.enter_context(redis_cluster(folder))
    return Options(host=",".join(server.address for server in servers), type="cluster")


TOPOLOGIES = (plain, with_user, with_tls, with_sentinel, with_cluster)


@pytest.fixture(scope="module", params=TOPOLOGIES, ids=lambda topology: topology.__name__)
def options(request, tmp_path_factory):
    with ExitStack() as stack:
        yield request.param(tmp_path_factory.mktemp("redis"), stack)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check, options):
    assert await check.run(lambda: open_driver(options))


async def test_bulk_calls_reach_every_node(options):
    """Keys without a tag: in a cluster they are spread over all nodes."""
    async with open_driver(options) as store:
        await store.bulk_set([SetRequest(f"spread{number}", b"%d" % number) for number in range(100)])
        answers = await store.bulk_get([GetRequest(f"spread{number}") for number in range(100)], 0)
        values = [one.result and one.result.data for one in answers]
        assert values == [b"%d" % number for number in range(100)]
        await store.bulk_delete([DeleteRequest(f"spread{number}") for number in range(100)])
        answers = await store.bulk_get([GetRequest(f"spread{number}") for number in range(100)], 0)
        assert not any(one.result for one in answers)


async def test_layout_is_dapr_s(server):
    async with open_driver(Options(host=server.address)) as store:
        await store.set(SetRequest("app||plain", b"v"))
        await store.set(SetRequest("app||plain", b"w"))
        await store.set(SetRequest("app||first", b"v", concurrency=Concurrency.FIRST_WRITE, ttl=100))
        await store.transact([SetRequest("app||multi", b"v", concurrency=Concurrency.FIRST_WRITE)], {})
    names = ("plain", "first", "multi")
    fields = {name: server.command("HGETALL", f"app||{name}").split("\r\n") for name in names}
    assert fields["plain"] == ["*4", "$4", "data", "$1", "w", "$7", "version", "$1", "2", ""]
    marked = ["*6", "$4", "data", "$1", "v", "$7", "version", "$1", "1", "$11", "first-write", "$1", "0", ""]
    assert fields["first"] == marked
    assert fields["multi"] == marked
    assert server.command("TTL", "app||plain") == ":-1\r\n"
    assert server.command("TTL", "app||first") in (":100\r\n", ":99\r\n")


async def test_reads_and_continues_what_daprd_wrote(server):
    server.command("HSET", "app||k", "data", "from daprd", "version", "41")
    async with open_driver(Options(host=server.address)) as store:
        result = await store.get(GetRequest("app||k"))
        assert result is not None
        assert (result.data, result.etag) == (b"from daprd", "41")
        with pytest.raises(EtagMismatch):
            await store.set(SetRequest("app||k", b"x", etag="40"))
        await store.set(SetRequest("app||k", b"x", etag="41"))
    assert server.command("HGET", "app||k", "version") == "$2\r\n42\r\n"


async def test_marked_keys_are_kept_from_those_without_the_etag(server):
    """Dapr's rule: after a first-write, overwriting takes the etag, whatever the concurrency."""
    server.command("HSET", "app||m", "data", "v", "version", "1", "first-write", "0")
    async with open_driver(Options(host=server.address)) as store:
        with pytest.raises(EtagMismatch, match="takes its etag"):
            await store.set(SetRequest("app||m", b"x"))
        with pytest.raises(EtagMismatch, match="takes its etag"):
            await store.transact([SetRequest("app||m", b"x")], {})
        await store.set(SetRequest("app||m", b"x", etag="1"))
        await store.transact([SetRequest("app||m", b"y", etag="2")], {})
        with pytest.raises(EtagMismatch, match="takes its etag"):
            await store.set(SetRequest("app||m", b"z"))
        await store.delete(DeleteRequest("app||m"))
        await store.set(SetRequest("app||m", b"z"))
        await store.set(SetRequest("app||m", b"z"))


async def test_last_write_looks_at_no_etag(server):
    async with open_driver(Options(host=server.address)) as store:
        await store.set(SetRequest("app||l", b"1"))
        await store.set(SetRequest("app||l", b"2", etag="999", concurrency=Concurrency.LAST_WRITE))
        await store.set(SetRequest("app||l", b"3", etag="no number", concurrency=Concurrency.LAST_WRITE))
        await store.bulk_set([SetRequest("app||l", b"4", etag="nope", concurrency=Concurrency.LAST_WRITE)])


@pytest.mark.parametrize("etag", ["x", "1.0", " 1", "1_0", "٣", "0x1"])
async def test_an_etag_that_is_no_number_is_invalid(server, etag):
    async with open_driver(Options(host=server.address)) as store:
        with pytest.raises(EtagInvalid):
            await store.set(SetRequest("k", b"v", etag=etag))
        with pytest.raises(EtagInvalid):
            await store.delete(DeleteRequest("k", etag=etag))
        with pytest.raises(EtagInvalid):
            await store.transact([DeleteRequest("k", etag=etag)], {})
        with pytest.raises(BulkStateError) as caught:
            await store.bulk_set([SetRequest("fine", b"v"), SetRequest("k", b"v", etag=etag)])
        assert isinstance(caught.value.failures[1], EtagInvalid)
        assert await store.get(GetRequest("fine")) is not None


async def test_values_of_other_types(server):
    server.command("SET", "app||old", "plain string")
    server.command("RPUSH", "app||list", "x")
    server.command("HSET", "app||hash", "something", "else")
    server.command("HSET", "app||odd", "data", "v", "version", "many")
    async with open_driver(Options(host=server.address)) as store:
        old = await store.get(GetRequest("app||old"))
        assert old is not None
        assert (old.data, old.etag) == (b"plain string", "")
        answers = await store.bulk_get([GetRequest("app||old"), GetRequest("app||list")], 0)
        assert answers[0].result == old
        assert isinstance(answers[1].error, StateError)
        with pytest.raises(StateError, match="WRONGTYPE"):
            await store.get(GetRequest("app||list"))
        assert await store.get(GetRequest("app||hash")) is None
        with pytest.raises(EtagMismatch):
            await store.set(SetRequest("app||old", b"new", etag="1"))
        with pytest.raises(EtagMismatch):
            await store.delete(DeleteRequest("app||old", etag="1"))
        with pytest.raises(EtagMismatch):
            await store.set(SetRequest("app||old", b"new", concurrency=Concurrency.FIRST_WRITE))
        await store.transact([SetRequest("app||old", b"new"), SetRequest("app||old", b"newer")], {})
        result = await store.get(GetRequest("app||old"))
        assert result is not None
        assert (result.data, result.etag) == (b"newer", "2")
        with pytest.raises(StateError, match="is no number"):
            await store.transact([SetRequest("app||other", b"v"), SetRequest("app||odd", b"v")], {})
        assert await store.get(GetRequest("app||other")) is None


async def test_time_to_live_of_the_component(server):
    async with open_driver(Options(host=server.address, ttl_in_seconds=50)) as store:
        await store.set(SetRequest("t1", b"v"))
        await store.set(SetRequest("t2", b"v", ttl=-1))
        await store.set(SetRequest("t3", b"v", ttl=500))
        await store.transact([SetRequest("t4", b"v")], {})
    assert [server.command("TTL", f"t{number}") for number in (1, 2, 4)] == [":50\r\n", ":-1\r\n", ":50\r\n"]
    assert server.command("TTL", "t3") in (":500\r\n", ":499\r\n")


async def test_a_write_without_time_to_live_keeps_the_expiry(server):
    """As Dapr's component, unlike its SQL stores."""
    async with open_driver(Options(host=server.address)) as store:
        await store.set(SetRequest("t", b"v", ttl=500))
        await store.set(SetRequest("t", b"w"))
        assert server.command("TTL", "t") in (":500\r\n", ":499\r\n")
        await store.set(SetRequest("t", b"w", ttl=-1))
        assert server.command("TTL", "t") == ":-1\r\n"


async def test_scripts_are_sent_again_to_a_server_that_forgot_them(server):
    async with open_driver(Options(host=server.address)) as store:
        await store.set(SetRequest("s", b"1"))
        server.command("SCRIPT", "FLUSH")
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(store.set, SetRequest(f"s{number}", b"2"))
        server.command("SCRIPT", "FLUSH")
        await store.transact([SetRequest("s", b"3")], {})
        result = await store.get(GetRequest("s"))
        assert result is not None
        assert (result.data, result.etag) == (b"3", "2")


async def test_strong_consistency_waits_for_the_replicas(tmp_path):
    with redis_server(tmp_path) as master:
        follow = ["--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0"]
        with redis_server(tmp_path, *follow) as replica:
            up = "master_link_status:up"
            wait_for(lambda: up in replica.command("INFO", "replication"), "no replication")
            async with open_driver(Options(host=master.address)) as store:
                for number in range(20):
                    await store.set(SetRequest(f"k{number}", b"v", consistency=Consistency.STRONG))
                    assert replica.command("HGET", f"k{number}", "data") == "$1\r\nv\r\n"
                await store.transact([SetRequest("t", b"v", consistency=Consistency.STRONG)], {})
                assert replica.command("HGET", "t", "data") == "$1\r\nv\r\n"
                await store.delete(DeleteRequest("t", consistency=Consistency.STRONG))
                assert replica.command("EXISTS", "t") == ":0\r\n"
        assert "calls=22" in master.command("INFO", "commandstats").split("cmdstat_wait:")[1]


async def test_queries_are_not_offered(server, caplog):
    async with open_driver(Options(host=server.address, query_indexes="[]")) as store:
        assert Feature.QUERY_API not in store.features
        with pytest.raises(NotImplementedHere):
            await store.query(QueryRequest())
    assert "queryIndexes" in caplog.text


async def test_transactions_across_slots_are_refused(tmp_path):
    with redis_cluster(tmp_path) as servers:
        async with open_driver(Options(host=servers[0].address, type="cluster")) as store:
            with pytest.raises(StateError, match="hash slot"):
                await store.transact([SetRequest("a", b"1"), SetRequest("b", b"1")], {})
            assert await store.get(GetRequest("a")) is None
            await store.transact([SetRequest("{t}a", b"1"), SetRequest("{t}b", b"1")], {})


def test_a_store_brings_no_other_component_s_modules():
    """A node loads what its components need."""
    script = "import sys, meshnode_redis.state; print(*sorted(sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert "meshnode_redis.state._store" in loaded
    others = ("meshnode_redis.pubsub", "meshnode_redis.bindings")
    assert not [name for name in loaded if name.startswith(others)]


async def fails_at_open(options, pattern):
    async with asyncio_loop(True):
        with pytest.raises(ComponentUnavailable, match=pattern):
            async with driver.open(options, CONTEXT):
                pass


@pytest.mark.parametrize("login", [{"password": "x"}, {"username": "x", "password": "x"}, {}])
async def test_wrong_credentials_fail_at_open(tmp_path, login):
    with redis_server(tmp_path, password="s3cret") as server:
        await fails_at_open(Options(host=server.address, **login), server.address)


async def test_tls_checks_the_certificate(tmp_path):
    with ExitStack() as stack:
        good = with_tls(tmp_path, stack)
        login = {"enable_tls": True, "client_cert": good.client_cert, "client_key": good.client_key}
        await fails_at_open(Options(host=good.host, **login), "CERTIFICATE_VERIFY_FAILED")
        stranger = Options(host=good.host, enable_tls=True, ca_cert=Authority().certificate)
        await fails_at_open(stranger, "CERTIFICATE_VERIFY_FAILED")
        async with open_driver(Options(host=good.host, insecure_skip_tls_verify=True, **login)) as store:
            await store.ping()


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"host": ""}, "redisHost"),
        ({"host": "a:b:c"}, "redisHost"),
        ({"host": "a,b"}, "redisHost"),
        ({"host": "a", "type": "ring"}, "redisType"),
        ({"host": "a", "failover": True}, "sentinelMasterName"),
        ({"host": "a", "failover": True, "sentinel_master_name": "m", "type": "cluster"}, "failover"),
        ({"host": "a", "read_timeout": "soon"}, "readTimeout"),
        ({"host": "a", "dial_timeout": "5 apples"}, "dialTimeout"),
        ({"host": "a", "client_cert": "x"}, "clientKey"),
        ({"host": "a", "use_entra_id": True}, "useEntraID"),
    ],
)
def test_bad_options_are_refused(arguments, field):
    with pytest.raises(ConfigError) as caught:
        Options(**arguments)
    assert [problem.field for problem in caught.value.problems] == [field]


def test_secrets_are_not_shown():
    options = Options(host="h", password="pw1", sentinel_password="pw2", client_key="pw3", client_cert="pw4")
    assert "pw" not in repr(options)
