"""Dapr's Python SDK takes and releases locks at real nodes that share a file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest
from support.processes import Node, healthz, node

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: lockstore}
spec:
  type: lock.sqlite
  version: v1
  metadata: [{name: connectionString, value: %s}]
"""
SDK_DEPRECATES = pytest.mark.filterwarnings("ignore:.* deprecated. :DeprecationWarning")
ALPHA = pytest.mark.filterwarnings("ignore:The Distributed Lock API:UserWarning")
TOKEN = "meshnode-fencing-token"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    """Two of one application."""
    folder = tmp_path_factory.mktemp("locks")
    resources = RESOURCES % (folder / "locks.db")
    homes = [folder / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
    with node("app", homes[0], resources=resources) as one, node("app", homes[1], resources=resources) as two:
        yield one, two


@pytest.fixture
def python_sdk(nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Node, Node]]:
    with healthz() as port:
        from dapr.conf import settings

        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", port)
        yield nodes


@SDK_DEPRECATES
@ALPHA
def test_python(python_sdk: tuple[Node, Node]) -> None:
    from dapr.clients import DaprClient
    from dapr.clients.grpc._response import UnlockResponseStatus

    one, two = python_sdk
    with DaprClient(address=one.address) as client, DaprClient(address=two.address) as other:
        tokens = []
        for _ in range(2):
            with client.try_lock("lockstore", "r", "me", 60) as taken:
                assert taken.success
                assert not other.try_lock("lockstore", "r", "you", 60).success
                assert not client.try_lock("lockstore", "r", "me", 60).success
                assert (
                    other.unlock("lockstore", "r", "you").status
                    is UnlockResponseStatus.lock_belongs_to_others
                )
                tokens.append(int(taken.headers[TOKEN][0]))
            assert client.unlock("lockstore", "r", "me").status is UnlockResponseStatus.lock_does_not_exist
        assert tokens[0] < tokens[1]
        assert other.try_lock("lockstore", "r", "you", 60).success
        assert client.unlock("lockstore", "r", "you").status is UnlockResponseStatus.success


@SDK_DEPRECATES
@ALPHA
def test_python_aio(python_sdk: tuple[Node, Node]) -> None:
    from dapr.aio.clients import DaprClient
    from dapr.clients.grpc._response import UnlockResponseStatus

    async def use() -> None:
        async with (
            DaprClient(address=python_sdk[0].address) as client,
            DaprClient(address=python_sdk[1].address) as other,
        ):
            async with await client.try_lock("lockstore", "aio", "me", 60) as taken:
                assert taken.success
                assert not (await other.try_lock("lockstore", "aio", "you", 60)).success
            answer = await client.unlock("lockstore", "aio", "me")
            assert answer.status is UnlockResponseStatus.lock_does_not_exist
            assert (await other.try_lock("lockstore", "aio", "you", 60)).success
            answer = await client.unlock("lockstore", "aio", "me")
            assert answer.status is UnlockResponseStatus.lock_belongs_to_others
            answer = await client.unlock("lockstore", "aio", "you")
            assert answer.status is UnlockResponseStatus.success
            with pytest.raises(grpc.RpcError, match="lock store ghost not found"):
                await client.try_lock("ghost", "aio", "me", 60)

    asyncio.run(use())


@SDK_DEPRECATES
@ALPHA
def test_errors(python_sdk: tuple[Node, Node]) -> None:
    from dapr.clients import DaprClient

    with DaprClient(address=python_sdk[0].address) as client:
        with pytest.raises(grpc.RpcError, match="lock store ghost not found") as caught:
            client.try_lock("ghost", "r", "me", 60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.RpcError, match="can't contain") as caught:
            client.unlock("lockstore", "a||b", "me")
        assert caught.value.code() is grpc.StatusCode.INTERNAL
