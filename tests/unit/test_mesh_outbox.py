"""The transactional outbox through real nodes, in the in-process mesh on the virtual clock. All nodes share
one broker and one store, which outlive them.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen
from meshnode_pubsub_in_memory import Broker
from meshnode_state_in_memory import MemoryStore
from trio.testing import MockClock

from meshnode.errors import ComponentUnavailable, ConfigError
from meshnode.interfaces import Driver, DriverContext, GetRequest, StateOperation, SubscribeRequest
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError, Status
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime

SUCCESS = runtime.TopicEventResponseTopicEventResponseStatus.SUCCESS


@frozen
class Options:
    pass


class Store:
    """A store whose transactions can be held up, and can fail, before (`gate`) or after (`behind`) they
    committed.
    """

    def __init__(self) -> None:
        self.inner = MemoryStore(wall=lambda: 1e9 + trio.current_time(), rng=random.Random(1))
        self.gate = trio.Event()
        self.gate.set()
        self.behind = trio.Event()
        self.behind.set()
        self.entered = trio.Event()
        self.fail_before = 0
        self.fail_after = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        self.entered.set()
        await self.gate.wait()
        if self.fail_before:
            self.fail_before -= 1
            raise ComponentUnavailable("lost before")
        await self.inner.transact(operations, metadata)
        await self.behind.wait()
        if self.fail_after:
            self.fail_after -= 1
            raise ComponentUnavailable("lost after")

    @property
    def driver(self) -> Driver[Any]:
        @asynccontextmanager
        async def opened(options: Options, context: DriverContext) -> AsyncIterator[Any]:
            yield self

        return Driver("state.test", Options, opened)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def mesh(store: Store) -> AsyncIterator[Mesh]:
    registry = Registry.discover([store.driver, Broker().driver])
    async with open_mesh(1, registry=registry) as mesh:
        yield mesh


def resources(discard: str = "true", more: str = "") -> str:
    return f"""
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: pubsub}}
spec: {{type: pubsub.in-memory, version: v1}}
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: statestore}}
spec:
  type: state.test
  version: v1
  metadata:
    - {{name: outboxPublishPubsub, value: pubsub}}
    - {{name: outboxPublishTopic, value: orders}}
    - {{name: outboxDiscardWhenMissingState, value: "{discard}"}}
{more}
"""


RETRIES = """
---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies: {retries: {three: {policy: constant, duration: 1s, maxRetries: 3}}}
  targets: {components: {statestore: {outbound: {retry: three}}}}
"""


class Listener(runtime.AppCallbackBase):
    def __init__(self) -> None:
        self.events: list[runtime.TopicEventRequest] = []

    async def list_topic_subscriptions(self, message: Any) -> runtime.ListTopicSubscriptionsResponse:
        topic = runtime.TopicSubscription(pubsub_name="pubsub", topic="orders")
        return runtime.ListTopicSubscriptionsResponse(subscriptions=[topic])

    async def on_topic_event(self, message: runtime.TopicEventRequest) -> runtime.TopicEventResponse:
        self.events.append(message)
        return runtime.TopicEventResponse(status=SUCCESS)


@pytest.fixture
async def listener(mesh: Mesh) -> Listener:
    """Another application, subscribed to the outbox's topic."""
    app = Listener()
    plain = resources().split("---", 1)[0]
    await mesh.start("listener", app=app, resources=plain)
    await trio.testing.wait_all_tasks_blocked()
    return app


def upsert(key: str, value: bytes, **metadata: str) -> runtime.TransactionalStateOperation:
    item = common.StateItem(
        key=key, value=value, metadata={name.replace("__", "."): one for name, one in metadata.items()}
    )
    return runtime.TransactionalStateOperation(operation_type="upsert", request=item)


async def transact(node: MeshNode, *operations: runtime.TransactionalStateOperation) -> None:
    await node.dapr.execute_state_transaction(
        runtime.ExecuteStateTransactionRequest(store_name="statestore", operations=list(operations))
    )


async def test_what_committed_is_published(
    mesh: Mesh, listener: Listener, store: Store, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=resources())
    removal = runtime.TransactionalStateOperation(
        operation_type="delete", request=common.StateItem(key="gone")
    )
    await transact(node, upsert("a", b'{"n": 1}', contentType="application/json"), removal)
    await trio.sleep(30)
    (event,) = listener.events
    assert (event.data, event.topic, event.source) == (b'{"n": 1}', "orders", "app")
    assert event.data_content_type == "application/json"
    found = await node.dapr.get_state(runtime.GetStateRequest(store_name="statestore", key="a"))
    assert found.data == b'{"n": 1}'
    assert await store.inner.get(GetRequest(event.id)) is None  # the marker is done with


async def test_what_failed_is_not_published(
    mesh: Mesh, listener: Listener, store: Store, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=resources())
    store.fail_before = 1
    with pytest.raises(GRPCError):
        await transact(node, upsert("a", b"1"))
    await trio.sleep(100)
    assert listener.events == []
    await transact(node, upsert("a", b"2"))
    await trio.sleep(30)
    assert [event.data for event in listener.events] == [b"2"]


async def test_a_lost_answer_is_no_failure(
    mesh: Mesh, listener: Listener, store: Store, autojump_clock: MockClock
) -> None:
    """The retry finds the markers of an attempt that had committed: the caller hears success, and one event
    goes out.
    """
    node = await mesh.start("app", resources=resources(more=RETRIES))
    store.fail_after = 1
    await transact(node, upsert("a", b"1"))
    await trio.sleep(100)
    assert [event.data for event in listener.events] == [b"1"]


async def test_a_slow_transaction_cannot_commit_once_its_message_is_discarded(
    mesh: Mesh, listener: Listener, store: Store, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=resources())
    store.gate = trio.Event()
    async with trio.open_nursery() as nursery:

        async def refused() -> None:
            with pytest.raises(GRPCError) as caught:
                await transact(node, upsert("a", b"1"))
            assert caught.value.status is Status.INTERNAL

        nursery.start_soon(refused)
        await trio.sleep(60)
        store.gate.set()
    await trio.sleep(60)
    assert listener.events == []
    found = await node.dapr.get_state(runtime.GetStateRequest(store_name="statestore", key="a"))
    assert found.data == b""


@pytest.mark.parametrize("discard", ["true", "false"])
@pytest.mark.parametrize("committed", [True, False])
async def test_a_node_that_dies_leaves_it_to_the_next(
    mesh: Mesh,
    listener: Listener,
    store: Store,
    autojump_clock: MockClock,
    discard: str,
    committed: bool,
) -> None:
    """Killed between the internal message and the commit, or right behind the commit."""
    node = await mesh.start("app", resources=resources(discard), instance="one")
    async with trio.open_nursery() as nursery:

        async def lost() -> None:
            with pytest.raises(GRPCError):
                await transact(node, upsert("a", b"1"))

        if committed:
            store.behind = trio.Event()
        else:
            store.gate = trio.Event()
        nursery.start_soon(lost)
        await store.entered.wait()
        await trio.testing.wait_all_tasks_blocked()
        await node.kill()
    await mesh.start("app", resources=resources(discard), instance="two")
    await trio.sleep(300)
    assert [event.data for event in listener.events] == ([b"1"] if committed else [])


async def test_a_projection_is_published_in_place_of_what_is_saved(
    mesh: Mesh, listener: Listener, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=resources())
    await transact(node, upsert("a", b"saved"), upsert("a", b"said", outbox__projection="true"))
    await trio.sleep(30)
    assert [event.data for event in listener.events] == [b"said"]
    found = await node.dapr.get_state(runtime.GetStateRequest(store_name="statestore", key="a"))
    assert found.data == b"saved"


async def test_a_projection_of_nothing_fails_the_transaction(
    mesh: Mesh, listener: Listener, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=resources())
    with pytest.raises(GRPCError) as caught:
        await transact(node, upsert("a", b"1"), upsert("b", b"2", outbox__projection="true"))
    assert caught.value.status is Status.INVALID_ARGUMENT
    await trio.sleep(60)
    assert listener.events == []


async def test_the_publisher_may_shape_the_event(
    mesh: Mesh, listener: Listener, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=resources())
    await transact(node, upsert("a", b"1", cloudevent__type="order.made", cloudevent__id="mine"))
    await trio.sleep(30)
    assert [(event.type, event.id) for event in listener.events] == [("order.made", "mine")]


class LateBroker:
    """Refuses the relay's first subscription. It keeps nothing of a topic without subscriptions."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.refusals = 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def subscribe(self, request: SubscribeRequest, *args: Any, **options: Any) -> None:
        if request.topic.endswith("outbox") and self.refusals:
            self.refusals -= 1
            raise ComponentUnavailable("busy")
        await self.inner.subscribe(request, *args, **options)


async def test_nothing_commits_before_the_relay_has_subscribed(
    store: Store, autojump_clock: MockClock
) -> None:
    """On a broker that keeps nothing for nobody its event would be lost."""
    memory = Broker().driver

    @asynccontextmanager
    async def opened(options: Any, context: DriverContext) -> AsyncIterator[Any]:
        async with memory.open(options, context) as inner:
            yield LateBroker(inner)

    registry = Registry.discover([store.driver, Driver(memory.type, memory.metadata, opened)])
    async with open_mesh(1, registry=registry) as mesh:
        app = Listener()
        await mesh.start("listener", app=app, resources=resources().split("---", 1)[0])
        await trio.testing.wait_all_tasks_blocked()
        node = await mesh.start("app", resources=resources())
        with pytest.raises(GRPCError, match="could not subscribe"):
            await transact(node, upsert("early", b"1"))
        await trio.sleep(1)
        await transact(node, upsert("late", b"2"))
        await trio.sleep(30)
        assert [event.data for event in app.events] == [b"2"]
        assert await store.inner.get(GetRequest("app||early")) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("value: orders", 'value: ""'), "an outbox needs both"),
        (("Pubsub, value: pubsub", "Pubsub, value: ghost"), 'no pub/sub component "ghost"'),
    ],
)  # fmt: skip
async def test_an_outbox_without_what_it_needs_is_a_mistake(
    mesh: Mesh, autojump_clock: MockClock, change: tuple[str, str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        await mesh.start("app", resources=resources().replace(*change))
