"""Dapr's Python SDK reads secrets from a real node, within its scopes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import pytest
from support.processes import Node, healthz, node

RESOURCES = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: files}
spec:
  type: secretstores.local.file
  version: v1
  metadata:
    - {name: secretsFile, value: %s}
    - {name: multiValued, value: "true"}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: variables}
spec:
  type: secretstores.local.env
  version: v1
  metadata: [{name: prefix, value: SECRETS_TEST_}]
"""
CONFIGURATION = """
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: config}
spec:
  secrets:
    scopes: [{storeName: files, deniedSecrets: [private]}]
"""
SECRETS = '{"db": {"user": "u", "password": "pass-value"}, "plain": "text", "private": "private-value"}'
SDK_DEPRECATES = pytest.mark.filterwarnings("ignore:.* deprecated. :DeprecationWarning")
DENIED = 'access denied by policy to get "private" from "files"'


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    home = tmp_path_factory.mktemp("secrets")
    secrets, config = home / "secrets.json", home / "config.yaml"
    secrets.write_text(SECRETS)
    config.write_text(CONFIGURATION)
    flags = ("--config", str(config), "--log-level", "debug", "--enable-api-logging")
    env = {"SECRETS_TEST_TOKEN": "env-value"}
    with node("app", home, *flags, resources=RESOURCES % secrets, env=env) as running:
        yield running
        for value in ("pass-value", "private-value", "env-value"):
            assert value not in running.process.output


@pytest.fixture
def python_sdk(app: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with healthz() as port:
        from dapr.conf import settings

        monkeypatch.setattr(settings, "DAPR_HTTP_PORT", port)
        yield app


@SDK_DEPRECATES
def test_python(python_sdk: Node) -> None:
    from dapr.clients import DaprClient

    with DaprClient(address=python_sdk.address) as client:
        assert client.get_secret("files", "db").secret == {"user": "u", "password": "pass-value"}
        assert client.get_bulk_secret("files").secrets == {
            "db": {"user": "u", "password": "pass-value"},
            "plain": {"plain": "text"},
        }
        assert client.get_secret("variables", "TOKEN").secret == {"TOKEN": "env-value"}
        assert client.get_bulk_secret("variables").secrets == {"TOKEN": {"TOKEN": "env-value"}}
        for store, key, code, words in (
            ("files", "private", grpc.StatusCode.PERMISSION_DENIED, DENIED),
            ("files", "ghost", grpc.StatusCode.INTERNAL, "secret ghost not found"),
            ("ghost", "db", grpc.StatusCode.INVALID_ARGUMENT, "failed finding secret store with key ghost"),
        ):
            with pytest.raises(grpc.RpcError, match=words) as caught:
                client.get_secret(store, key)
            assert caught.value.code() is code
        listed = {one.name: one.capabilities for one in client.get_metadata().registered_components}
        assert list(listed["files"]) == ["MULTIPLE_KEY_VALUES_PER_SECRET"]
        assert list(listed["variables"]) == []


@SDK_DEPRECATES
def test_python_aio(python_sdk: Node) -> None:
    from dapr.aio.clients import DaprClient

    async def use() -> None:
        async with DaprClient(address=python_sdk.address) as client:
            assert (await client.get_secret("files", "plain")).secret == {"plain": "text"}
            assert (await client.get_bulk_secret("files")).secrets.keys() == {"db", "plain"}
            assert (await client.get_bulk_secret("variables")).secrets == {"TOKEN": {"TOKEN": "env-value"}}
            with pytest.raises(grpc.RpcError, match="secret ghost not found"):
                await client.get_secret("files", "ghost")
            with pytest.raises(grpc.RpcError, match=DENIED) as caught:
                await client.get_secret("files", "private")
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED

    asyncio.run(use())
