"""The outbox where transactions fail, stores share a topic, and stores or brokers fail in between."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import frozen
from meshnode_state_in_memory import MemoryStore
from support.mesh_brokers import Application, FlakyBroker, flaky_broker
from trio.testing import MockClock, wait_all_tasks_blocked

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Driver, DriverContext, Feature, Outcome, SetRequest, StateOperation
from meshnode.registry import Registry
from meshnode.testing.mesh import Mesh, MeshNode, open_mesh
from meshnode.transport import GRPCError
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime


@frozen
class Options:
    pass


class Stores:
    """Stores by component name, which outlive their nodes, and what goes wrong with all of them."""

    def __init__(self) -> None:
        self.by_name: dict[str, MemoryStore] = {}
        self.reading: Exception | None = None
        self.hanging = False
        self.forgets = True
        """Whether the stores have a time to live."""

    def __getitem__(self, name: str) -> MemoryStore:
        made = MemoryStore(wall=lambda: 1e9 + trio.current_time(), rng=random.Random(1))
        return self.by_name.setdefault(name, made)

    @property
    def driver(self) -> Driver[Any]:
        @asynccontextmanager
        async def opened(options: Options, context: DriverContext) -> AsyncIterator[Any]:
            yield _Store(self, self[context.component])

        return Driver("state.test", Options, opened)


class _Store:
    def __init__(self, switches: Stores, inner: MemoryStore) -> None:
        self._switches = switches
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def features(self) -> frozenset[Feature]:
        found = self._inner.features
        return found if self._switches.forgets else found - {Feature.TTL}

    async def get(self, request: Any) -> Any:
        if self._switches.reading is not None:
            raise self._switches.reading
        return await self._inner.get(request)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        if self._switches.hanging:
            await trio.sleep_forever()
        await self._inner.transact(operations, metadata)


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture
def broker() -> FlakyBroker:
    return FlakyBroker()


@pytest.fixture
async def mesh(stores: Stores, broker: FlakyBroker) -> AsyncIterator[Mesh]:
    async with open_mesh(1, registry=Registry.discover([stores.driver, broker.driver])) as mesh:
        yield mesh


def store(name: str = "statestore", discard: str = "false") -> str:
    return f"""---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: {name}}}
spec:
  type: state.test
  version: v1
  metadata:
    - {{name: outboxPublishPubsub, value: pubsub}}
    - {{name: outboxPublishTopic, value: orders}}
    - {{name: outboxDiscardWhenMissingState, value: "{discard}"}}
"""


@pytest.fixture
async def listener(mesh: Mesh) -> Application:
    """Another application, subscribed to the outbox's topic."""
    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic="orders")])
    await mesh.start("listener", app=app, resources=flaky_broker())
    await wait_all_tasks_blocked()
    return app


def upsert(key: str, value: bytes, etag: str = "", **metadata: str) -> runtime.TransactionalStateOperation:
    item = common.StateItem(key=key, value=value, metadata=metadata)
    if etag:
        item.etag = common.Etag(value=etag)
    return runtime.TransactionalStateOperation(operation_type="upsert", request=item)


async def transact(node: MeshNode, *operations: Any, name: str = "statestore") -> None:
    await node.dapr.execute_state_transaction(
        runtime.ExecuteStateTransactionRequest(store_name=name, operations=list(operations))
    )


@pytest.mark.parametrize("discard", ["true", "false"])
async def test_transactions_that_fail_do_not_stand_in_the_way_of_others(
    mesh: Mesh, listener: Application, autojump_clock: MockClock, discard: str
) -> None:
    """Etags that do not fit are everyday: each of them must not keep the relay busy."""
    node = await mesh.start("app", resources=flaky_broker() + store(discard=discard))
    for _ in range(50):
        with pytest.raises(GRPCError):
            await transact(node, upsert("a", b"1", etag="9"), upsert("b", b"1"))
    await transact(node, upsert("c", b"2"))
    await trio.sleep(5)
    assert [event.data for event in listener.events] == [b"2"]


async def test_a_value_that_is_an_event_itself_is_published(
    mesh: Mesh, listener: Application, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker() + store())
    event = b'{"id":"mine","source":"s","type":"t","specversion":"1.0","data":{"n":1.10}}'
    await transact(node, upsert("a", event, contentType="application/cloudevents+json"))
    await trio.sleep(60)
    assert [(one.id, one.type, one.data) for one in listener.events] == [("mine", "t", b'{"n":1.10}')]


async def test_a_value_that_only_claims_to_be_an_event_fails_its_transaction(
    mesh: Mesh, listener: Application, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    node = await mesh.start("app", resources=flaky_broker() + store())
    with pytest.raises(GRPCError):
        await transact(node, upsert("a", b"no event", contentType="application/cloudevents+json"))
    assert broker.published == []


@pytest.mark.parametrize("discard", ["true", "false"])
async def test_stores_that_share_a_topic_do_not_take_each_others_events(
    mesh: Mesh, listener: Application, autojump_clock: MockClock, discard: str
) -> None:
    resources = flaky_broker() + store("one", discard) + store("two", discard)
    node = await mesh.start("app", resources=resources)
    for number in range(20):
        await transact(node, upsert("a", b"%d" % number), name="one" if number % 2 else "two")
    await trio.sleep(30)
    assert sorted(int(event.data) for event in listener.events) == list(range(20))


@pytest.mark.parametrize("error", [ComponentUnavailable("down"), OSError("socket gone")])
async def test_a_store_that_fails_the_relay_costs_nothing_but_time(
    mesh: Mesh,
    listener: Application,
    stores: Stores,
    broker: FlakyBroker,
    autojump_clock: MockClock,
    error: Exception,
) -> None:
    node = await mesh.start("app", resources=flaky_broker() + store(discard="true"))
    await wait_all_tasks_blocked()
    stores.reading = error
    await transact(node, upsert("a", b"1"))
    await trio.sleep(15)
    assert listener.events == []
    stores.reading = None
    await trio.sleep(30)
    assert [event.data for event in listener.events] == [b"1"]
    assert broker.subscribed.count("defaultappordersoutbox") == 1


@pytest.mark.parametrize("error", [ComponentUnavailable("down"), OSError("socket gone")])
async def test_a_broker_that_refuses_the_event_gets_it_later(
    mesh: Mesh, listener: Application, broker: FlakyBroker, autojump_clock: MockClock, error: Exception
) -> None:
    node = await mesh.start("app", resources=flaky_broker() + store())
    await wait_all_tasks_blocked()
    broken = True
    broker.refusing = lambda one: error if broken and one.topic == "orders" else None
    await transact(node, upsert("a", b"1"))
    await trio.sleep(15)
    assert listener.events == []
    broken = False
    await trio.sleep(30)
    assert [event.data for event in listener.events] == [b"1"]


@pytest.mark.parametrize("forgets", [True, False])
async def test_an_internal_message_that_comes_twice_is_one_event(
    mesh: Mesh,
    listener: Application,
    stores: Stores,
    broker: FlakyBroker,
    autojump_clock: MockClock,
    forgets: bool,
) -> None:
    """Also where the store cannot forget by itself: there it is discarded as missing."""
    stores.forgets = forgets
    node = await mesh.start("app", resources=flaky_broker() + store(discard="true"))
    await wait_all_tasks_blocked()
    await transact(node, upsert("a", b"1"))
    await trio.sleep(30)
    internal = broker.published[0]
    broker_again = runtime.PublishEventRequest(
        pubsub_name="pubsub",
        topic=internal.topic,
        data=internal.data,
        data_content_type="application/cloudevents+json",
    )
    await node.dapr.publish_event(broker_again)
    await trio.sleep(60)
    assert [event.data for event in listener.events] == [b"1"]
    assert set(broker.outcomes) == {broker.outcomes[-1]}


async def test_what_a_daprd_announced_is_relayed_as_it_would(
    mesh: Mesh, listener: Application, stores: Stores, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    """It puts an operation's metadata among the attributes, and relays them all."""
    node = await mesh.start("app", resources=flaky_broker() + store())
    await wait_all_tasks_blocked()
    marker = "outbox-by-a-daprd"
    await stores["statestore"].set(SetRequest(marker, b"0"))
    announced = (
        b'{"id":"outbox-by-a-daprd","source":"app","type":"made","specversion":"1.0","data":"2",'
        b'"datacontenttype":"text/plain","topic":"","pubsubname":"pubsub","traceid":"00-x","other":"more"}'
    )
    await node.dapr.publish_event(
        runtime.PublishEventRequest(
            pubsub_name="pubsub",
            topic="defaultappordersoutbox",
            data=announced,
            metadata={"rawPayload": "true"},
        )
    )
    await trio.sleep(30)
    (event,) = listener.events
    assert (event.id, event.type, event.data, event.topic) == (marker, "made", b"2", "orders")
    assert b'"traceid":"00-x"' in broker.published[-1].data
    assert b'"other":"more"' in broker.published[-1].data


async def test_an_outbox_in_a_namespace(mesh: Mesh, broker: FlakyBroker, autojump_clock: MockClock) -> None:
    named = flaky_broker(metadata="{name: note, value: '{namespace}'}")
    app = Application([runtime.TopicSubscription(pubsub_name="pubsub", topic="orders")])
    await mesh.start("listener", app=app, resources=named)
    node = await mesh.start("app", resources=named + store())
    await wait_all_tasks_blocked()
    await transact(node, upsert("a", b"1"))
    await trio.sleep(30)
    assert [(event.data, event.topic) for event in app.events] == [(b"1", "orders")]
    assert [one.topic for one in broker.published] == ["defaultdefaultappordersoutbox", "defaultorders"]


async def test_a_relay_that_waits_for_a_transaction_does_not_hold_up_a_shutdown(
    mesh: Mesh, broker: FlakyBroker, stores: Stores, autojump_clock: MockClock
) -> None:
    retries = """---
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: resiliency}
spec:
  policies: {retries: {forever: {policy: constant, duration: 1h, maxRetries: -1}}}
  targets: {components: {statestore: {outbound: {retry: forever}}}}
"""
    node = await mesh.start("app", resources=flaky_broker() + store() + retries)
    await wait_all_tasks_blocked()
    stores.reading = ComponentUnavailable("down")
    await transact(node, upsert("a", b"1"))
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await node.stop()
    assert trio.current_time() == began


async def test_a_caller_that_goes_away_leaves_no_message_that_waits(
    mesh: Mesh, listener: Application, stores: Stores, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    """Its transaction is made sure not to commit any more, so the relay need not wait for it."""
    node = await mesh.start("app", resources=flaky_broker() + store())
    await wait_all_tasks_blocked()
    stores.hanging = True
    with pytest.raises(GRPCError):
        await node.dapr.execute_state_transaction(
            runtime.ExecuteStateTransactionRequest(store_name="statestore", operations=[upsert("a", b"1")]),
            timeout=1,
        )
    stores.hanging = False
    await trio.sleep(5)
    assert broker.outcomes == [Outcome.ACK]
    assert listener.events == []


async def test_events_without_a_writer_do_not_stand_in_the_way(
    mesh: Mesh, listener: Application, broker: FlakyBroker, autojump_clock: MockClock
) -> None:
    """Messages of transactions that nobody ended, as a crash leaves them, stay where they are not to be
    discarded; others do not wait for them each time.
    """
    node = await mesh.start("app", resources=flaky_broker() + store())
    await wait_all_tasks_blocked()
    for number in range(30):
        event = b'{"id":"outbox-%d","source":"s","type":"t","specversion":"1.0","data":1}' % number
        await node.dapr.publish_event(
            runtime.PublishEventRequest(
                pubsub_name="pubsub",
                topic="defaultappordersoutbox",
                data=event,
                data_content_type="application/cloudevents+json",
            )
        )
    await trio.sleep(60)
    await transact(node, upsert("a", b"2"))
    await trio.sleep(30)
    assert [event.data for event in listener.events] == [b"2"]
