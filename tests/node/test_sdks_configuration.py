"""Dapr's Python SDK reads configuration and follows its changes at a real node."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import grpc
import pytest
from support.processes import Node, healthz, node

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec:
  type: configuration.sqlite
  version: v1
  metadata: [{name: connectionString, value: %s}, {name: pollInterval, value: 10ms}]
"""
SDK_DEPRECATES = pytest.mark.filterwarnings("ignore:.* deprecated. :DeprecationWarning")
ALPHA = pytest.mark.filterwarnings("ignore:The Configuration API:UserWarning")
Write = Callable[[str, str, str], Any]


@pytest.fixture
def sdk(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Node, Write]]:
    """A node, and what writes its settings."""
    folder = tmp_path_factory.mktemp("settings")
    path = folder / "settings.db"
    with node("app", folder, resources=RESOURCES % path) as running, healthz() as port:
        from dapr.conf import settings

        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", port)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:

            def write(key: str, value: str, version: str) -> None:
                sql = "INSERT OR REPLACE INTO configuration (key, value, version) VALUES (?, ?, ?)"
                connection.execute(sql, (key, value, version))

            yield running, write


@SDK_DEPRECATES
@ALPHA
def test_python(sdk: tuple[Node, Write]) -> None:
    from dapr.clients import DaprClient

    running, write = sdk
    write("colour", "blue", "1")
    write("size", "10", "")
    told: queue.Queue[tuple[str, Any]] = queue.Queue(100)
    with DaprClient(address=running.address) as client:
        items = client.get_configuration("settings", keys=["colour", "ghost"]).items
        assert {key: (item.value, item.version) for key, item in items.items()} == {"colour": ("blue", "1")}
        assert set(client.get_configuration("settings", keys=[]).items) == {"colour", "size"}
        id_ = client.subscribe_configuration(
            "settings", ["colour"], lambda id_, answer: told.put((id_, answer.items))
        )
        assert id_
        for version in ("2", "3"):
            write("size", version, "")
            write("colour", "red" + version, version)
            of, changed = told.get(timeout=20)
            assert of == id_
            assert {key: (item.value, item.version) for key, item in changed.items()} == {
                "colour": ("red" + version, version)
            }
        assert client.unsubscribe_configuration("settings", id_)
        assert not client.unsubscribe_configuration("settings", id_)
        assert told.empty()


@SDK_DEPRECATES
@ALPHA
def test_python_aio(sdk: tuple[Node, Write]) -> None:
    """Its `subscribe_configuration` iterates an asynchronous stream in a thread, which fails there, and so
    gives no id after five seconds (1.19); played is the stream itself, by the SDK's own stub.
    """
    from dapr.aio.clients import DaprClient
    from dapr.proto import api_v1

    running, write = sdk
    write("colour", "blue", "1")

    async def use() -> None:
        async with DaprClient(address=running.address) as client:
            items = (await client.get_configuration("settings", keys=["colour", "ghost"])).items
            assert {key: (item.value, item.version) for key, item in items.items()} == {
                "colour": ("blue", "1")
            }
            request = api_v1.SubscribeConfigurationRequest(store_name="settings", keys=["colour"])
            stream = client._stub.SubscribeConfiguration(request)
            first = await stream.read()
            assert first.id
            assert not first.items
            for version in ("2", "3"):
                write("size", version, "")
                write("colour", "red" + version, version)
                told = await stream.read()
                assert told.id == first.id
                assert {key: item.value for key, item in told.items.items()} == {"colour": "red" + version}
            assert await client.unsubscribe_configuration("settings", first.id)
            assert await stream.read() is grpc.aio.EOF
            assert not await client.unsubscribe_configuration("settings", first.id)
            with pytest.raises(grpc.RpcError, match="configuration store ghost not found") as caught:
                await client.get_configuration("ghost", keys=["a"])
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(use())


@SDK_DEPRECATES
@ALPHA
def test_errors(sdk: tuple[Node, Write]) -> None:
    from dapr.clients import DaprClient

    with DaprClient(address=sdk[0].address) as client:
        with pytest.raises(grpc.RpcError, match="configuration store ghost not found") as caught:
            client.get_configuration("ghost", keys=["a"])
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
