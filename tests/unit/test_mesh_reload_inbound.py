"""Resources that change under a running node: what brings events into the application, and the streams that
applications hold open. In the in-process mesh on the virtual clock; all nodes share one broker and one store.
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
from test_mesh_pubsub import SUCCESS, Application, open_stream, publish, subscribe, subscribed
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.interfaces import (
    BindingEvent,
    ConfigurationItem,
    Driver,
    DriverContext,
    Notify,
    Outcome,
    Receive,
    option,
)
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime


@frozen
class Options:
    version: str = option("version", "Any text: another one is another component.", default="1")


class Lab:
    """Drivers whose instances the test holds in its hand: `opened` has each one's latest."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.opened: dict[str, Any] = {}
        self.memory = MemoryStore(wall=trio.current_time, rng=random.Random(1))

    def driver(self, kind: str, make: Any) -> Driver[Any]:
        @asynccontextmanager
        async def opened(options: Options, context: DriverContext) -> AsyncIterator[Any]:
            what = f"{context.component} {options.version}"
            self.notes.append(f"open {what}")
            self.opened[context.component] = instance = make()
            yield instance
            self.notes.append(f"close {what}")

        return Driver(kind, Options, opened)


class Source:
    """An input binding."""

    def __init__(self) -> None:
        self.receive: Receive | None = None
        self.stop = trio.Event()

    async def read(self, receive: Receive, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        self.receive, self.stop = receive, stop
        task_status.started()
        await stop.wait()


class Settings:
    """A configuration store."""

    def __init__(self) -> None:
        self.notify: Notify | None = None
        self.lingers = trio.Event()
        self.lingers.set()

    async def get(self, keys: Sequence[str], metadata: Mapping[str, str]) -> Mapping[str, ConfigurationItem]:
        return {}

    async def watch(
        self,
        keys: Sequence[str],
        metadata: Mapping[str, str],
        notify: Notify,
        stop: trio.Event,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        self.notify = notify
        task_status.started()
        await stop.wait()
        await self.lingers.wait()

    async def ping(self) -> None: ...

    async def tell(self, key: str, version: str) -> None:
        assert self.notify is not None
        await self.notify({key: ConfigurationItem(f"value {version}", version)})


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
async def mesh(lab: Lab) -> AsyncIterator[Mesh]:
    made = [
        lab.driver("bindings.lab", Source),
        lab.driver("configuration.lab", Settings),
        lab.driver("state.lab", lambda: lab.memory),
    ]
    async with open_mesh(1, registry=Registry.discover([Broker().driver, *made])) as mesh:
        yield mesh


def component(name: str, kind: str, **metadata: str) -> str:
    items = ", ".join(f"{{name: {key}, value: '{value}'}}" for key, value in metadata.items())
    return f"""
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec: {{type: {kind}, version: v1, metadata: [{items}]}}
"""


def broker(interval: str = "1s", **metadata: str) -> str:
    return component("pubsub", "pubsub.in-memory", redeliverInterval=interval, **metadata)


def subscription(topic: str = "orders", path: str = "/orders") -> str:
    return f"""
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {{name: {topic}}}
spec: {{pubsubname: pubsub, topic: {topic}, routes: {{default: {path}}}}}
"""


async def topics(node: MeshNode) -> list[str]:
    await wait_all_tasks_blocked()
    found = await node.dapr.get_metadata(runtime.GetMetadataRequest())
    return sorted(one.topic for one in found.subscriptions)


def held() -> tuple[Any, trio.Event, trio.Event]:
    """An answer that waits, with the events of its beginning and of its release."""
    entered, gate = trio.Event(), trio.Event()

    async def answer() -> Any:
        entered.set()
        await gate.wait()
        return SUCCESS

    return lambda event: answer(), entered, gate


async def test_declared_subscriptions_come_and_go(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic="asked")])
    node = await mesh.start("app", app=app, resources=broker() + subscription())
    assert await topics(node) == ["asked", "orders"]
    await node.reload(broker() + subscription() + subscription("returns", "/returns"))
    assert await topics(node) == ["asked", "orders", "returns"]
    await publish(node, topic="returns")
    assert [one.path for one in await app.has(1)] == ["/returns"]
    await node.reload(broker() + subscription(path="/elsewhere"))
    assert await topics(node) == ["asked", "orders"]
    await publish(node)
    await publish(node, topic="returns")
    assert [one.path for one in await app.has(2)] == ["/returns", "/elsewhere"]


async def test_what_is_wanted_as_before_is_not_disturbed(mesh: Mesh, autojump_clock: MockClock) -> None:
    app = Application()
    app.answer, entered, gate = held()
    node = await mesh.start("app", app=app, resources=broker() + subscription())
    await subscribed(node)
    await publish(node)
    await entered.wait()
    with trio.fail_after(1):  # does not wait for a delivery that it does not concern
        await node.reload(subscription() + broker() + subscription("returns"))
    gate.set()
    await app.has(1)
    assert not [one for one in mesh.history if "as it was has ended" in one.message]


async def test_a_subscription_moves_to_a_broker_that_is_opened_anew(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic="asked")])
    app.answer, entered, gate = held()
    node = await mesh.start("app", app=app, resources=broker() + subscription())
    await subscribed(node, 2)
    await publish(node, b"1")
    await entered.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.reload, broker("2s") + subscription())
        await wait_all_tasks_blocked()
        await publish(node, b"2")
        await publish(node, b"3", topic="asked")
        await app.has(2)  # the other topic has moved over already; this one waits for what is under way
        gate.set()
    events = await app.has(3)
    assert [one.data for one in events] == [b"1", b"3", b"2"]  # none lost, none twice
    assert await topics(node) == ["asked", "orders"]


async def test_what_takes_longer_than_the_grace_period_is_given_back(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    app = Application()
    app.answer, entered, _ = held()
    node = await mesh.start("app", app=app, resources=broker() + subscription())
    await subscribed(node)
    await publish(node, b"1")
    await entered.wait()
    began = trio.current_time()
    app_answers = app.answer
    await node.reload(broker("2s") + subscription())
    assert trio.current_time() - began == pytest.approx(5)
    assert app_answers is app.answer
    app.answer = lambda event: SUCCESS
    first, second = await app.has(2)
    assert first.id == second.id


async def test_a_stream_moves_to_a_broker_that_is_opened_anew(mesh: Mesh, autojump_clock: MockClock) -> None:
    node = await mesh.start("app", resources=broker())
    async with open_stream(node) as stream:
        subscriber = await subscribe(stream)
        await publish(node, b"1")
        first = await subscriber.event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.reload, broker("2s"))
            await wait_all_tasks_blocked()
            await publish(node, b"2")
            await subscriber.answer(first.id)
        second = await subscriber.event()
        assert second.data == b"2"
        await subscriber.answer(second.id)
        assert await topics(node) == ["orders"]
        await node.reload(component("other", "state.lab"))
        assert await stream.recv_message() is None
        await stream.end()
        with pytest.raises(GRPCError, match="pubsub pubsub is not found"):
            await stream.recv_trailing_metadata()
    assert await topics(node) == []


async def test_a_topic_that_is_no_longer_allowed_ends_its_subscription(
    mesh: Mesh, autojump_clock: MockClock
) -> None:
    app = Application()
    node = await mesh.start("app", app=app, resources=broker() + subscription())
    assert await topics(node) == ["orders"]
    await node.reload(broker(allowedTopics="returns") + subscription())
    assert await topics(node) == []


async def test_an_input_binding_moves_over(mesh: Mesh, lab: Lab, autojump_clock: MockClock) -> None:
    class Bound(runtime.AppCallbackBase):
        events: list[bytes] = []  # noqa: RUF012

        async def list_input_bindings(self, message: Any) -> runtime.ListInputBindingsResponse:
            return runtime.ListInputBindingsResponse(bindings=["late"])

        async def on_binding_event(self, message: Any) -> runtime.BindingEventResponse:
            self.events.append(message.data)
            return runtime.BindingEventResponse()

    source = component("source", "bindings.lab", direction="input", version="1")
    node = await mesh.start("app", app=Bound(), resources=source)
    await wait_all_tasks_blocked()
    before = lab.opened["source"]
    late = component("late", "bindings.lab") + component("unwanted", "bindings.lab")
    await node.reload(source.replace("'1'", "'2'") + late)
    await wait_all_tasks_blocked()
    assert before.stop.is_set()
    assert await lab.opened["source"].receive(BindingEvent(b"new")) is Outcome.ACK
    assert await lab.opened["late"].receive(BindingEvent(b"late")) is Outcome.ACK
    assert lab.opened["unwanted"].receive is None
    assert Bound.events == [b"new", b"late"]
    await node.reload(component("other", "state.lab"))
    await wait_all_tasks_blocked()
    assert lab.opened["late"].stop.is_set()
    assert lab.notes.count("close source 1") == lab.notes.count("close late 1") == 1


async def test_an_outbox_moves_over(mesh: Mesh, lab: Lab, autojump_clock: MockClock) -> None:
    def store(version: str, topic: str) -> str:
        outbox = {"outboxPublishPubsub": "pubsub", "outboxPublishTopic": topic}
        return component("store", "state.lab", version=version, **outbox)

    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic=one) for one in ("a", "b")])
    await mesh.start("listener", app=app, resources=broker())
    node = await mesh.start("app", resources=broker() + store("1", "a"))

    async def transact(value: bytes) -> None:
        operation = runtime.TransactionalStateOperation("upsert", common.StateItem(key="k", value=value))
        request = runtime.ExecuteStateTransactionRequest(store_name="store", operations=[operation])
        await node.dapr.execute_state_transaction(request)

    await transact(b"1")
    await app.has(1)
    await node.reload(broker() + store("2", "a"))
    await transact(b"2")
    await node.reload(broker("2s") + store("2", "b"))
    await transact(b"3")
    events = await app.has(3)
    assert [(one.topic, one.data) for one in events] == [("a", b"1"), ("a", b"2"), ("b", b"3")]
    await node.reload(broker("2s") + component("store", "state.lab"))
    await transact(b"4")
    await app.has(3)


@asynccontextmanager
async def watching(node: MeshNode) -> AsyncIterator[Any]:
    """Gives the next change's versions by key; raises what the stream ended with."""
    path = "/dapr.proto.runtime.v1.Dapr/SubscribeConfiguration"
    handler = runtime.DaprBase().__mapping__()[path]
    kinds = (handler.cardinality, handler.request_type, handler.reply_type)
    async with node.channel.request(path, *kinds) as stream:

        async def told() -> dict[str, str]:
            message = await stream.recv_message()
            if message is None:
                await stream.recv_trailing_metadata()
            return {key: item.version for key, item in message.items.items()}

        await stream.send_message(runtime.SubscribeConfigurationRequest(store_name="settings"), end=True)
        assert await told() == {}
        yield told
        await stream.cancel()


async def test_a_configuration_stream_moves_over_and_tells_each_change_once(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=component("settings", "configuration.lab"))
    async with watching(node) as told:
        old = lab.opened["settings"]
        await old.tell("a", "1")
        assert await told() == {"a": "1"}
        await node.reload(component("settings", "configuration.lab", version="2"))
        new = lab.opened["settings"]
        assert new is not old
        await wait_all_tasks_blocked()
        assert "close settings 1" in lab.notes
        await new.tell("a", "2")
        assert await told() == {"a": "2"}
        await node.reload(component("other", "state.lab"))
        with pytest.raises(GRPCError, match="configuration stores not configured"):
            await told()


async def test_what_both_watches_see_while_one_takes_over_is_told_once(
    mesh: Mesh, lab: Lab, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=component("settings", "configuration.lab"))
    async with watching(node) as told, trio.open_nursery() as nursery:
        old = lab.opened["settings"]
        old.lingers = trio.Event()
        nursery.start_soon(node.reload, component("settings", "configuration.lab", version="2"))
        await wait_all_tasks_blocked()
        new = lab.opened["settings"]
        assert new is not old
        for version in ("1", "2"):
            await old.tell("a", version)

        async def telling() -> None:
            for version in ("1", "2", "3", "2"):
                await new.tell("a", version)

        nursery.start_soon(telling)
        for version in ("1", "2"):
            assert await told() == {"a": version}
        old.lingers.set()
        for version in ("3", "2"):  # the latter is the value of before, set once more
            assert await told() == {"a": version}
