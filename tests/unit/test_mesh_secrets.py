"""GetSecret and GetBulkSecret through real nodes, in the in-process mesh on the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen
from google.rpc import error_details_pb2, status_pb2
from trio.testing import MockClock

from meshnode.errors import ComponentError
from meshnode.interfaces import Driver, DriverContext, SecretFeature
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.runtime import v1 as runtime

VALUE = "hunter2-the-value"


class Vault:
    """A secret store that the test holds in its hand."""

    features = frozenset({SecretFeature.MULTIPLE_KEY_VALUES_PER_SECRET})

    def __init__(self) -> None:
        self.secrets = {"db": {"user": "u", "password": VALUE}, "api": {"api": "k"}, "other": {"other": ""}}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.failures = 0

    async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
        await self._ask(name, metadata)
        return self.secrets[name]

    async def bulk_get(self, metadata: Mapping[str, str]) -> Mapping[str, Mapping[str, str]]:
        await self._ask("*", metadata)
        return self.secrets

    async def _ask(self, name: str, metadata: Mapping[str, str]) -> None:
        await trio.lowlevel.checkpoint()
        self.asked.append((name, dict(metadata)))
        if self.failures:
            self.failures -= 1
            raise ComponentError("the vault is sealed")


@frozen
class Options:
    pass


@pytest.fixture
def vault() -> Vault:
    return Vault()


@pytest.fixture
async def mesh(vault: Vault) -> AsyncIterator[Mesh]:
    @asynccontextmanager
    async def opened(options: Options, context: DriverContext) -> AsyncIterator[Vault]:
        yield vault

    registry = Registry.discover([Driver("secretstores.test", Options, opened)])
    async with open_mesh(1, registry=registry) as mesh:
        yield mesh


STORE = """
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: vault}
spec: {type: secretstores.test, version: v1, metadata: []}
"""
SCOPES = """
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: config}
spec: {secrets: {scopes: [%s]}}
"""
RESILIENCY = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies:
    retries:
      three: {policy: constant, duration: 1s, maxRetries: 3}
    circuitBreakers:
      simple: {maxRequests: 1, timeout: 30s, trip: consecutiveFailures >= 2}
  targets:
    components:
      vault: {outbound: {%s}}
"""


async def get(node: MeshNode, key: str, store: str = "vault", **metadata: str) -> dict[str, str]:
    request = runtime.GetSecretRequest(store_name=store, key=key, metadata=metadata)
    return (await node.dapr.get_secret(request)).data


async def bulk(node: MeshNode, store: str = "vault") -> dict[str, dict[str, str]]:
    answer = await node.dapr.get_bulk_secret(runtime.GetBulkSecretRequest(store_name=store))
    return {name: one.secrets for name, one in answer.data.items()}


async def refused(call: Any) -> tuple[Status, str, str]:
    """Status, reason and words of the error that comes."""
    with pytest.raises(GRPCError) as caught:
        await call
    info = error_details_pb2.ErrorInfo()
    details = status_pb2.Status.FromString(caught.value.details or b"").details
    assert details
    assert details[0].Unpack(info)
    assert info.domain == "dapr.io"
    return caught.value.status, info.reason, caught.value.message or ""


async def test_secrets_come_one_by_one_and_in_bulk(
    mesh: Mesh, vault: Vault, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=STORE)
    assert await get(node, "db", version_id="3") == vault.secrets["db"]
    assert vault.asked == [("db", {"version_id": "3"})]
    assert await bulk(node) == vault.secrets


async def test_errors_are_dapr_s(mesh: Mesh, vault: Vault, autojump_clock: MockClock) -> None:
    bare = await mesh.start("bare")
    for call in (get(bare, "db"), bulk(bare)):
        assert await refused(call) == (
            Status.FAILED_PRECONDITION,
            "ERR_SECRET_STORES_NOT_CONFIGURED",
            "secret store is not configured",
        )
    node = await mesh.start("app", resources=STORE)
    # No store is called kubernetes outside a cluster.
    for store in ("ghost", "kubernetes", ""):
        for call in (get(node, "db", store), bulk(node, store)):
            assert await refused(call) == (
                Status.INVALID_ARGUMENT,
                "ERR_SECRET_STORE_NOT_FOUND",
                f"failed finding secret store with key {store}",
            )
    failed = "failed getting secret with key {} from secret store vault: {}"
    for key in ("ghost", ""):
        words = failed.format(key, f"secret {key} not found")
        assert await refused(get(node, key)) == (Status.INTERNAL, "ERR_SECRET_GET", words)
    vault.failures = 2
    words = failed.format("db", "the vault is sealed")
    assert await refused(get(node, "db")) == (Status.INTERNAL, "ERR_SECRET_GET", words)
    words = "failed getting secrets from secret store vault: the vault is sealed"
    assert await refused(bulk(node)) == (Status.INTERNAL, "ERR_SECRET_GET", words)


@pytest.mark.parametrize(
    ("scope", "readable"),
    [
        ("deniedSecrets: []", {"db", "api", "other"}),
        ("defaultAccess: allow", {"db", "api", "other"}),
        ("defaultAccess: deny", set()),
        ("defaultAccess: deny, allowedSecrets: [db]", {"db"}),
        ("defaultAccess: allow, allowedSecrets: [db]", {"db"}),
        ("defaultAccess: allow, deniedSecrets: [db]", {"api", "other"}),
        ("defaultAccess: deny, deniedSecrets: [db]", set()),
        ("allowedSecrets: [db, api], deniedSecrets: [db]", {"db", "api"}),
        ("allowedSecrets: [DB]", set()),
    ],
)
async def test_scopes_hold(
    mesh: Mesh, vault: Vault, autojump_clock: MockClock, scope: str, readable: set[str]
) -> None:
    scopes = SCOPES % f"{{storeName: vault, {scope}}}"
    node = await mesh.start("app", resources=STORE + scopes)
    assert (await bulk(node)).keys() == readable
    for name, values in vault.secrets.items():
        if name in readable:
            assert await get(node, name) == values
        else:
            before = len(vault.asked)
            assert await refused(get(node, name)) == (
                Status.PERMISSION_DENIED,
                "ERR_PERMISSION_DENIED",
                f'access denied by policy to get "{name}" from "vault"',
            )
            assert len(vault.asked) == before  # the store is not even asked


async def test_a_scope_without_its_store_is_said(mesh: Mesh, autojump_clock: MockClock) -> None:
    scopes = SCOPES % "{storeName: valut, defaultAccess: deny}, {storeName: kubernetes, defaultAccess: deny}"
    node = await mesh.start("app", resources=STORE + scopes)
    said = [one.message for one in mesh.history if "secrets.scopes" in one.message]
    assert said == ["secrets.scopes: no secret store valut is loaded, so its scope holds nothing back"]
    assert await get(node, "api") == {"api": "k"}


async def test_the_outbound_policy_holds(mesh: Mesh, vault: Vault, autojump_clock: MockClock) -> None:
    vault.failures = 2
    node = await mesh.start("app", resources=STORE + RESILIENCY % "retry: three")
    assert await get(node, "api") == {"api": "k"}
    assert len(vault.asked) == 3
    vault.failures = 3
    assert await bulk(node) == vault.secrets
    assert len(vault.asked) == 7


async def test_a_secret_that_is_not_there_is_no_failure(
    mesh: Mesh, vault: Vault, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=STORE + RESILIENCY % "retry: three, circuitBreaker: simple")
    for _ in range(5):
        assert (await refused(get(node, "ghost")))[:2] == (Status.INTERNAL, "ERR_SECRET_GET")
    assert len(vault.asked) == 5
    assert await get(node, "api") == {"api": "k"}


async def test_an_open_breaker_answers_as_everywhere(
    mesh: Mesh, vault: Vault, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=STORE + RESILIENCY % "circuitBreaker: simple")
    vault.failures = 2
    for _ in range(2):
        await refused(get(node, "api"))
    with pytest.raises(GRPCError, match="circuit breaker is open") as caught:
        await get(node, "api")
    assert caught.value.status is Status.UNKNOWN
    await trio.sleep(31)
    assert await get(node, "api") == {"api": "k"}


async def test_metadata_names_what_the_store_can_do(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=STORE)
    found = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    listed = {one.name: list(one.capabilities) for one in found.registered_components}
    assert listed["vault"] == ["MULTIPLE_KEY_VALUES_PER_SECRET"]


async def test_no_value_is_logged(
    mesh: Mesh, vault: Vault, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    node = await mesh.start(
        "app", resources=STORE + RESILIENCY % "retry: three", options={"api_logging": True}
    )
    vault.failures = 1
    await get(node, "db")
    await bulk(node)
    await refused(get(node, "ghost"))
    assert caplog.records
    assert VALUE not in caplog.text
    assert VALUE not in "".join(one.message for one in mesh.history)
