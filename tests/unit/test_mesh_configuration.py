"""The configuration block through real nodes, in the in-process mesh on the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.errors import ComponentUnavailable, ConfigurationError
from meshnode.interfaces import ConfigurationItem, Driver, DriverContext, Notify
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.rpc import ErrorInfo
from meshnode.wire.google.rpc import Status as RpcStatus


class Settings:
    """A configuration store that the test holds in its hand."""

    def __init__(self) -> None:
        self.items = {"a": ConfigurationItem("1", "v1", {"m": "x"}), "b": ConfigurationItem("2")}
        self.asked: list[tuple[Sequence[str], Mapping[str, str]]] = []
        self.watching: list[Notify] = []
        self.ended: list[str] = []
        self.failures: list[Exception] = []

    async def get(self, keys: Sequence[str], metadata: Mapping[str, str]) -> Mapping[str, ConfigurationItem]:
        self._fail()
        self.asked.append((list(keys), dict(metadata)))
        return {key: item for key, item in self.items.items() if not keys or key in keys}

    async def watch(
        self,
        keys: Sequence[str],
        metadata: Mapping[str, str],
        notify: Notify,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        self._fail()
        self.asked.append((list(keys), dict(metadata)))
        self.watching.append(notify)
        how = "cancelled"
        try:
            task_status.started()
            await stop.wait()
            how = "stopped"
        finally:
            self.watching.remove(notify)
            self.ended.append(how)

    async def ping(self) -> None: ...

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)

    @property
    def driver(self) -> Driver[Settings]:
        @asynccontextmanager
        async def opened(options: Options, context: DriverContext) -> AsyncIterator[Settings]:
            yield self

        return Driver("configuration.test", Options, opened)


@frozen
class Options:
    pass


STORE = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: settings}
spec: {type: configuration.test, version: v1}
"""
RETRY = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies: {retries: {three: {policy: constant, duration: 1s, maxRetries: 3}}}
  targets: {components: {settings: {outbound: {retry: three}}}}
"""


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture
async def mesh(settings: Settings) -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([settings.driver])) as mesh:
        yield mesh


def stub(node: MeshNode) -> runtime.DaprStub:
    return runtime.DaprStub(node.channel)


@asynccontextmanager
async def subscribed(node: MeshNode, *keys: str, alpha: bool = False) -> AsyncIterator[tuple[Any, str]]:
    """The stream and its id."""
    path = "/dapr.proto.runtime.v1.Dapr/SubscribeConfiguration" + ("Alpha1" if alpha else "")
    handler = runtime.DaprBase().__mapping__()[path]
    async with node.channel.request(
        path, handler.cardinality, handler.request_type, handler.reply_type
    ) as stream:
        await stream.send_message(
            runtime.SubscribeConfigurationRequest(store_name="settings", keys=list(keys)), end=True
        )
        first = await stream.recv_message()
        assert first is not None
        assert first.id
        assert first.items == {}
        yield stream, first.id
        await stream.cancel()


def _reason(error: GRPCError) -> str:
    for detail in RpcStatus.parse(error.details or b"").details:
        if detail.type_url.endswith("ErrorInfo"):
            return ErrorInfo.parse(detail.value).reason
    return ""


async def test_get(mesh: Mesh, settings: Settings, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=STORE)
    for call in (stub(node).get_configuration, stub(node).get_configuration_alpha_1):
        answer = await call(
            runtime.GetConfigurationRequest(store_name="settings", keys=["a", "c", "a"], metadata={"k": "v"})
        )
        assert answer.items == {"a": common.ConfigurationItem(value="1", version="v1", metadata={"m": "x"})}
        assert settings.asked.pop() == (["a", "c"], {"k": "v"})
    answer = await stub(node).get_configuration(runtime.GetConfigurationRequest(store_name="settings"))
    assert set(answer.items) == {"a", "b"}


@pytest.mark.parametrize("alpha", [False, True])
async def test_changes_come_after_the_id(
    mesh: Mesh, settings: Settings, autojump_clock: MockClock, alpha: bool
) -> None:
    node = await mesh.start("app", resources=STORE)
    async with subscribed(node, "a", "b", "a", alpha=alpha) as (stream, id_):
        assert settings.asked == [(["a", "b"], {})]
        await settings.watching[0]({"a": ConfigurationItem("3", "v2")})
        await settings.watching[0]({"a": None, "b": ConfigurationItem("4")})
        second, third = await stream.recv_message(), await stream.recv_message()
        assert second.id == third.id == id_
        assert second.items == {"a": common.ConfigurationItem(value="3", version="v2")}
        assert third.items == {"a": common.ConfigurationItem(), "b": common.ConfigurationItem(value="4")}
    await wait_all_tasks_blocked()
    assert settings.ended == ["cancelled"]
    assert settings.watching == []


async def test_unsubscribe_ends_the_stream(mesh: Mesh, settings: Settings, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=STORE)
    for call in (stub(node).unsubscribe_configuration, stub(node).unsubscribe_configuration_alpha_1):
        async with subscribed(node) as (stream, id_), subscribed(node) as (other, other_id):
            assert id_ != other_id
            request = runtime.UnsubscribeConfigurationRequest(store_name="settings", id=id_)
            assert (await call(request)).ok
            assert await stream.recv_message() is None
            await stream.recv_trailing_metadata()
            await settings.watching[0]({"a": None})
            assert (await other.recv_message()).id == other_id
            again = await call(request)
            assert not again.ok
            assert id_ in again.message
            assert "does not exist" in again.message
    assert settings.ended.count("stopped") == 2


async def test_the_nodes_end_ends_subscriptions(
    mesh: Mesh, settings: Settings, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=STORE)
    async with subscribed(node) as (stream, _):
        await node.stop()
        assert await stream.recv_message() is None
    assert settings.ended == ["stopped"]


async def test_errors_as_in_dapr(mesh: Mesh, settings: Settings, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=STORE)
    with pytest.raises(GRPCError, match="configuration store other not found") as caught:
        await stub(node).get_configuration(runtime.GetConfigurationRequest(store_name="other"))
    assert caught.value.status is Status.INVALID_ARGUMENT
    assert _reason(caught.value) == "ERR_CONFIGURATION_STORE_NOT_FOUND"
    settings.failures.append(ConfigurationError("no"))
    text = r"failed to get \[a b\] from Configuration store settings: no"
    with pytest.raises(GRPCError, match=text) as caught:
        await stub(node).get_configuration(
            runtime.GetConfigurationRequest(store_name="settings", keys=["a", "b"])
        )
    assert caught.value.status is Status.INTERNAL
    assert _reason(caught.value) == "ERR_CONFIGURATION_GET"
    settings.failures.append(ComponentUnavailable("away"))
    with pytest.raises(GRPCError, match=r"failed to subscribe \[a\] from Configuration store") as caught:
        async with subscribed(node, "a"):
            pass
    assert caught.value.status is Status.INVALID_ARGUMENT


async def test_without_a_store(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app")
    request = runtime.GetConfigurationRequest(store_name="settings")
    with pytest.raises(GRPCError, match="configuration stores not configured") as caught:
        await stub(node).get_configuration(request)
    assert caught.value.status is Status.FAILED_PRECONDITION


async def test_the_components_policy(mesh: Mesh, settings: Settings, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=STORE + RETRY)
    settings.failures += [ComponentUnavailable("away")] * 2
    await stub(node).get_configuration(runtime.GetConfigurationRequest(store_name="settings"))
    settings.failures += [ComponentUnavailable("away")] * 2
    async with subscribed(node, "a") as (stream, _):
        await settings.watching[0]({"a": None})
        assert (await stream.recv_message()).items == {"a": common.ConfigurationItem()}
