"""Resources that change under a running node: components, policies, mistakes. In the in-process mesh on the
virtual clock. `test_mesh_reload_inbound` has what brings events.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen
from meshnode_state_in_memory import MemoryStore
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.errors import ComponentUnavailable, ConfigError, MeshError
from meshnode.interfaces import Driver, DriverContext, GetRequest, GetResult, option
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime


@frozen
class Options:
    place: str = option("place", "Which of the test's places the values are in.", default="")
    password: str = option("password", "Must be right.", default="", secret=True)


class Store:
    """One opened store; what it holds belongs to its place, which outlives it."""

    def __init__(self, lab: Lab, options: Options) -> None:
        self.options = options
        self.lab = lab
        inner = lab.places.setdefault(
            options.place, MemoryStore(wall=trio.current_time, rng=random.Random(1))
        )
        self.inner = inner
        self.open = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def get(self, request: GetRequest) -> GetResult | None:
        self.lab.entered.set()
        await self.lab.gate.wait()
        assert self.open, "a request on a store that is closed"
        if self.lab.failing:
            raise ComponentUnavailable("no answer")
        return await self.inner.get(request)


class Lab:
    """Notes what is opened and closed; holds requests up; refuses to open."""

    def __init__(self) -> None:
        self.places: dict[str, MemoryStore] = {}
        self.notes: list[str] = []
        self.gate = trio.Event()
        self.gate.set()
        self.entered = trio.Event()
        self.refused: set[str] = set()
        self.failing = False
        self.secrets = {"password": {"password": "one"}}

    @property
    def store(self) -> Driver[Store]:
        @asynccontextmanager
        async def opened(options: Options, context: DriverContext) -> AsyncIterator[Store]:
            if options.place in self.refused:
                raise ComponentUnavailable(f"{options.place} cannot be reached")
            what = f"{context.component}@{options.place or options.password}"
            self.notes.append(f"open {what}")
            store = Store(self, options)
            try:
                yield store
            finally:
                store.open = False
                self.notes.append(f"close {what}")

        return Driver("state.lab", Options, opened)

    @property
    def vault(self) -> Driver[Any]:
        lab = self

        @frozen
        class Secrets:
            address: str = option("address", "Any text.", default="")

        class Vault:
            features: frozenset[Any] = frozenset()

            async def get(self, name: str, metadata: Mapping[str, str]) -> Mapping[str, str]:
                return lab.secrets[name]

        @asynccontextmanager
        async def opened(options: Secrets, context: DriverContext) -> AsyncIterator[Vault]:
            lab.notes.append(f"open {context.component}")
            yield Vault()
            lab.notes.append(f"close {context.component}")

        return Driver("secretstores.lab", Secrets, opened)


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
async def mesh(lab: Lab) -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([lab.store, lab.vault])) as mesh:
        yield mesh


def component(name: str, kind: str = "state.lab", more: str = "", **metadata: str) -> str:
    items = ", ".join(f"{{name: {key}, value: '{value}'}}" for key, value in metadata.items())
    return f"""
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec: {{type: {kind}, version: v1, metadata: [{items}]{more}}}
"""


RESILIENCY = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: %s}
spec:
  policies:
    retries: {again: {policy: constant, duration: 1s, maxRetries: %d}}
    circuitBreakers: {simple: {maxRequests: 1, timeout: 300s, trip: consecutiveFailures >= 3}}
  targets:
    components: {store: {outbound: {%s}}}
"""


async def save(node: MeshNode, value: bytes, store: str = "store") -> None:
    item = common.StateItem(key="k", value=value)
    await node.dapr.save_state(runtime.SaveStateRequest(store_name=store, states=[item]))


async def read(node: MeshNode, store: str = "store") -> bytes:
    answer = await node.dapr.get_state(runtime.GetStateRequest(store_name=store, key="k"))
    return answer.data


async def status_of(call: Any) -> Status:
    with pytest.raises(GRPCError) as caught:
        await call
    return caught.value.status


async def test_a_request_under_way_ends_on_the_old_instance(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=component("store", place="old"))
    await save(node, b"old")
    lab.gate = trio.Event()
    answers: list[bytes] = []

    async def reading() -> None:
        answers.append(await read(node))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reading)
        await lab.entered.wait()
        assert await node.reload(component("store", place="new")) == []
        await save(node, b"new")
        await wait_all_tasks_blocked()
        assert lab.notes == ["open store@old", "open store@new"]  # nothing is closed while it is in use
        lab.gate.set()
    assert answers == [b"old"]
    assert await read(node) == b"new"
    await wait_all_tasks_blocked()
    assert lab.notes == ["open store@old", "open store@new", "close store@old"]


async def test_components_come_and_go(mesh: Mesh, lab: Lab, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=component("store", place="a"))
    await node.reload(component("store", place="a") + component("other", place="b"))
    await save(node, b"b", "other")
    found = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    assert [one.name for one in found.registered_components] == ["store", "other"]
    await node.reload(component("other", place="b"))
    assert await read(node, "other") == b"b"
    assert await status_of(read(node)) is Status.INVALID_ARGUMENT
    found = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    assert [one.name for one in found.registered_components] == ["other"]
    await wait_all_tasks_blocked()
    assert lab.notes == ["open store@a", "open other@b", "close store@a"]


async def test_what_only_moved_within_its_file_is_not_opened_anew(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=component("store", place="a") + component("other", place="b"))
    await node.reload("\n\n" + component("other", place="b") + "\n" + component("store", place="a"))
    assert lab.notes == ["open store@a", "open other@b"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (component("store", plaice="new"), "plaice: unknown metadata name"),
        (component("store", kind="state.nothing"), "unknown component type"),
        (RESILIENCY % ("wrong", 1, "retry: nothing"), "nothing"),
        (component("store", place="new", keyPrefix="a||b"), "a||b"),  # shows only once it is open
        (component("store", place="new", outboxPublishPubsub="no", outboxPublishTopic="t"), '"no"'),
    ],
)
async def test_a_mistake_leaves_all_as_it_was(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock, wrong: str, words: str
) -> None:
    node = await mesh.start("app", resources=component("store", place="old"))
    await save(node, b"old")
    with pytest.raises(ConfigError) as caught:
        await node.reload(component("added", place="added") + wrong)
    assert words in str(caught.value)
    assert await read(node) == b"old"
    assert await status_of(read(node, "added")) is Status.INVALID_ARGUMENT
    await wait_all_tasks_blocked()
    opened = [note for note in lab.notes if note.startswith("open")]
    closed = [note for note in lab.notes if note.startswith("close")]
    assert [one.replace("open", "close") for one in opened[1:]] == closed[::-1]
    assert await node.reload(component("store", place="new")) == []  # and then it can be mended


async def test_what_cannot_be_opened_stays_as_it_was(mesh: Mesh, lab: Lab, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=component("store", place="old"))
    await save(node, b"old")
    lab.refused = {"away"}
    left = await node.reload(component("store", place="away") + component("other", place="b"))
    assert left == [
        "component store stays as it was: error initializing component store (state.lab/v1): "
        "away cannot be reached"
    ]
    assert await read(node) == b"old"
    await save(node, b"b", "other")
    lenient = component("store", more=", ignoreErrors: true", place="away")
    stays, lacks = await node.reload(lenient + component("third", place="away"))
    assert stays.startswith("component store stays as it was")
    assert lacks.startswith("component third is not there")
    assert await read(node) == b"old"
    lab.refused = set()
    assert await node.reload(component("store", place="away")) == []
    assert await read(node) == b""


async def test_a_component_that_failed_at_the_start_is_tried_again(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock
) -> None:
    lab.refused = {"away"}
    resources = component("store", more=", ignoreErrors: true", place="away")
    node = await mesh.start("app", resources=resources)
    assert await status_of(read(node)) is Status.FAILED_PRECONDITION
    lab.refused = set()
    await node.reload(resources)
    await save(node, b"here")


async def test_a_secret_store_that_changed_gives_its_secrets_anew(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock
) -> None:
    secret = """
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec:
  type: state.lab
  version: v1
  metadata: [{name: password, secretKeyRef: {name: password, key: password}}]
auth: {secretStore: vault}
"""
    plain = component("plain", place="a", more="").replace("---", "---", 1) + "auth: {secretStore: vault}\n"
    vault = component("vault", "secretstores.lab", address="%s")
    node = await mesh.start("app", resources=secret + plain + vault % "here")
    assert lab.notes == ["open vault", "open store@one", "open plain@a"]
    lab.secrets["password"] = {"password": "two"}
    await node.reload(secret + plain + vault % "here")
    assert len(lab.notes) == 3  # a file that has not changed is no reason to ask again
    await node.reload(secret + plain + vault % "there")
    await wait_all_tasks_blocked()
    assert lab.notes[3:5] == ["open vault", "open store@two"]
    assert set(lab.notes[5:]) == {"close vault", "close store@one"}


async def test_policies_change_and_an_open_breaker_stays_open(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock
) -> None:
    store = component("store", place="a")
    lab.failing = True
    node = await mesh.start("app", resources=store)
    assert await status_of(read(node)) is Status.INTERNAL
    await node.reload(store + RESILIENCY % ("one", 2, "retry: again, circuitBreaker: simple"))
    began = trio.current_time()
    assert await status_of(read(node)) is not Status.OK
    assert trio.current_time() - began == pytest.approx(2)
    found = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    assert [one.name for one in found.resiliencies] == ["one"]
    # Three failures in a row: open. What else changes does not close it.
    lab.failing = False
    for more in (
        RESILIENCY % ("one", 5, "circuitBreaker: simple"),
        RESILIENCY % ("two", 5, "circuitBreaker: simple"),
    ):
        await node.reload(store + component("other", place="b") + more)
        with pytest.raises(GRPCError, match="circuit breaker is open"):
            await read(node)
    changed = (RESILIENCY % ("two", 5, "circuitBreaker: simple")).replace(">= 3", ">= 4")
    await node.reload(store + changed)
    assert await read(node) == b""
    await node.reload(store)
    found = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    assert found.resiliencies == []


async def test_a_changed_configuration_is_said_to_need_a_start(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock
) -> None:
    configuration = """
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: settings}
spec: {logging: {apiLogging: {enabled: %s}}}
"""
    node = await mesh.start("app", resources=component("store", place="a") + configuration % "false")
    await node.reload(component("store", place="a") + configuration % "true")
    await node.reload(component("store", place="a") + configuration % "true")
    said = [one.message for one in mesh.history if "Configuration has changed" in one.message]
    assert len(said) == 1


async def test_a_node_that_leaves_is_not_reloaded(mesh: Mesh, lab: Lab, autojump_clock: MockClock) -> None:
    lab.gate = trio.Event()
    node = await mesh.start("app", resources=component("store", place="a"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(status_of, read(node))
        await lab.entered.wait()
        node.node.stop()
        await wait_all_tasks_blocked()
        with pytest.raises(MeshError, match="shutting down") as caught:
            await node.reload(component("store", place="b"))
        assert caught.value.code is Status.UNAVAILABLE
    await node.stop()
    assert lab.notes == ["open store@a", "close store@a"]


async def test_a_node_that_stops_while_it_opens_closes_what_it_opened(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock
) -> None:
    """Components that are being replaced are closed with the node, each once."""
    node = await mesh.start("app", resources=component("store", place="a"))
    lab.refused = {"away"}
    async with trio.open_nursery() as nursery:

        async def reloading() -> None:
            with pytest.raises(MeshError, match="shutting down"):
                await node.reload(component("other", place="b") + component("store", place="away"))

        nursery.start_soon(reloading)
        await wait_all_tasks_blocked()
        await node.stop()
    assert lab.notes == ["open store@a", "open other@b", "close other@b", "close store@a"]
