"""bindings.redis on real servers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from meshnode_redis.bindings import Options, driver
from support.redis_servers import redis_cluster, redis_server

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import BindingError, ComponentUnavailable, ConfigError, InvalidArgument
from meshnode.interfaces import BindingRequest, DriverContext, InputBinding, OutputBinding
from meshnode.registry import Registry, load_options

pytestmark = pytest.mark.redis

CONTEXT = DriverContext("binding", "app")


@asynccontextmanager
async def open_driver(options):
    async with asyncio_loop(True), driver.open(options, CONTEXT) as binding:
        yield binding


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def binding(server):
    server.command("FLUSHALL")
    async with open_driver(Options(host=server.address)) as opened:
        yield opened


async def invoke(binding, operation, data=b"", **metadata):
    result = await binding.invoke(BindingRequest(operation, data, metadata))
    assert result.metadata == {}
    return result.data


async def test_what_it_is(binding):
    assert isinstance(binding, OutputBinding)
    assert not isinstance(binding, InputBinding)
    assert list(binding.operations) == ["create", "get", "delete", "increment"]


async def test_create_get_delete(binding, server):
    data = bytes(range(256))
    assert await invoke(binding, "create", data, key="k") == b""
    assert server.command("STRLEN", "k") == ":256\r\n"
    assert await invoke(binding, "get", key="k") == data
    assert await invoke(binding, "create", b"other", key="k") == b""
    assert await invoke(binding, "get", key="k") == b"other"
    assert await invoke(binding, "delete", key="k") == b""
    assert await invoke(binding, "get", key="k") == b""
    assert await invoke(binding, "delete", key="k") == b""


async def test_get_that_deletes(binding, server):
    await invoke(binding, "create", b"once", key="k")
    assert await invoke(binding, "get", key="k", delete="false") == b"once"
    assert await invoke(binding, "get", key="k", delete="true") == b"once"
    assert server.command("EXISTS", "k") == ":0\r\n"
    assert await invoke(binding, "get", key="k", delete="true") == b""


async def test_increment(binding, server):
    for _ in range(3):
        assert await invoke(binding, "increment", key="n") == b""
    assert await invoke(binding, "get", key="n") == b"3"
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(partial(invoke, binding, "increment", key="n"))
    assert await invoke(binding, "get", key="n") == b"23"
    assert server.command("TTL", "n") == ":-1\r\n"


async def test_time_to_live(binding, server):
    await invoke(binding, "create", b"v", key="k", ttlInSeconds="100")
    assert server.command("TTL", "k") in (":100\r\n", ":99\r\n")
    await invoke(binding, "create", b"v", key="k")
    assert server.command("TTL", "k") == ":-1\r\n"
    await invoke(binding, "increment", key="n", ttlInSeconds="100")
    assert server.command("TTL", "n") in (":100\r\n", ":99\r\n")
    server.command("SCRIPT", "FLUSH")
    await invoke(binding, "increment", key="n", ttlInSeconds="200")
    assert await invoke(binding, "get", key="n") == b"2"
    assert server.command("TTL", "n") in (":200\r\n", ":199\r\n")


@pytest.mark.parametrize(
    ("operation", "metadata", "words"),
    [
        ("create", {}, "missing key"),
        ("get", {"key": ""}, "missing key"),
        ("list", {"key": "k"}, "invalid operation type: list"),
        ("create", {"key": "k", "ttlInSeconds": "soon"}, "valid integer"),
        ("create", {"key": "k", "ttlInSeconds": "0"}, "higher than zero"),
        ("increment", {"key": "k", "ttlInSeconds": "-1"}, "higher than zero"),
    ],
)
async def test_requests_that_cannot_be_right(binding, server, operation, metadata, words):
    with pytest.raises(InvalidArgument, match=words):
        await binding.invoke(BindingRequest(operation, b"v", metadata))
    assert server.command("DBSIZE") == ":0\r\n"


async def test_what_the_server_refuses(binding, server):
    server.command("RPUSH", "list", "x")
    server.command("SET", "word", "x")
    with pytest.raises(BindingError, match="WRONGTYPE"):
        await invoke(binding, "get", key="list")
    with pytest.raises(BindingError, match="not an integer"):
        await invoke(binding, "increment", key="word")
    with pytest.raises(BindingError, match="not an integer"):
        await invoke(binding, "increment", key="word", ttlInSeconds="5")


async def test_a_server_that_goes_and_comes_back(tmp_path):
    with redis_server(tmp_path, persistent=True) as server:
        async with open_driver(Options(host=server.address)) as binding:
            await invoke(binding, "create", b"v", key="k")
            server.kill()
            for operation in binding.operations:
                with pytest.raises(ComponentUnavailable):
                    await invoke(binding, operation, b"w", key="k")
            server.start()
            assert await invoke(binding, "get", key="k") == b"v"


async def test_cluster(tmp_path):
    with redis_cluster(tmp_path) as servers:
        async with open_driver(Options(host=servers[0].address, type="cluster")) as binding:
            for number in range(30):
                await invoke(binding, "create", b"%d" % number, key=f"k{number}")
            for number in range(30):
                assert await invoke(binding, "get", key=f"k{number}") == b"%d" % number


def test_metadata_as_in_dapr():
    found = Registry.discover().driver("bindings.redis", "v1")
    assert found is driver
    assert found.needs_asyncio
    options = load_options(
        found.metadata,
        {"redisHost": "cache", "redisPort": "6380", "redisPassword": "", "redeliverInterval": "60s"},
    )
    assert options.hosts == [("cache", 6380)]
    with pytest.raises(ConfigError, match="redisPort"):
        load_options(found.metadata, {"redisHost": "cache:6379", "redisPort": "6380"})
    with pytest.raises(ConfigError, match="ttlInSeconds"):
        load_options(found.metadata, {"redisHost": "cache", "ttlInSeconds": "5"})
