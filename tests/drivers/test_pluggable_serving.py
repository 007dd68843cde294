"""`meshnode.pluggable.serve` and the sockets' other side, in one process: what the contract says of calls
that no node of ours makes, and what becomes of a served driver.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen
from google.protobuf.descriptor_pb2 import FileDescriptorProto  # type: ignore[attr-defined]
from meshnode_pubsub_in_memory import Broker
from meshnode_state_in_memory import driver as memory
from support.components import go_component, open_component, registry_at, socket_folder

import meshnode.wire.descriptors as descriptors
from meshnode.errors import ComponentError, ComponentUnavailable, EtagMismatch, StateError, Status
from meshnode.interfaces import (
    Driver,
    GetRequest,
    Outcome,
    PublishRequest,
    QueryRequest,
    SetRequest,
    SubscribeRequest,
    free_form,
    option,
)
from meshnode.pluggable import serve
from meshnode.transport import Cardinality, GRPCError, open_channel
from meshnode.wire.dapr.proto.components import v1 as components
from meshnode.wire.grpc.reflection import v1 as reflection

PACKAGE = "dapr.proto.components.v1"


@pytest.fixture
def folder():
    with socket_folder() as path:
        yield path


@asynccontextmanager
async def serving(folder, *drivers, name="py"):
    """The event that stops it, and one that is set when it has ended."""
    stop, ended = trio.Event(), trio.Event()

    async def run(*, task_status):
        await serve(*drivers, name=name, folder=folder, stop=stop, task_status=task_status)
        ended.set()

    async with trio.open_nursery() as nursery:
        assert await nursery.start(run) == folder / f"{name}.sock"
        yield stop, ended
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def stub(folder, cls, instance="c", name="py"):
    async with open_channel(f"unix:{folder / name}.sock") as channel:
        yield cls(channel, metadata={"x-component-instance": instance})


@frozen
class Options:
    path: str = option("path", "Where it is.", default="/")
    others: Any = free_form("The rest.")


class Life:
    """A driver that notes when it is opened and closed."""

    def __init__(self):
        self.opened: list[Options] = []
        self.closed = 0
        self.driver = Driver(type="state.life", metadata=Options, open=self._open)

    @asynccontextmanager
    async def _open(self, options, context):
        self.opened.append(options)
        try:
            async with memory.open(memory.metadata(), context) as store:
                yield store
        finally:
            self.closed += 1


async def test_metadata_reaches_the_driver_as_written(folder):
    life = Life()
    async with serving(folder, life.driver):
        given = {"PATH": "/data", "MyOwn": "a b", "keyPrefix": "name", "primaryEncryptionKey": "secret"}
        async with open_component(folder, "state.py", **given):
            assert life.opened == [Options(path="/data", others={"MyOwn": "a b", "keyPrefix": "name"})]
            assert "a b" not in repr(life.opened[0])


async def test_wrong_metadata_is_the_openers_error(folder):
    async with serving(folder, memory):
        with pytest.raises(ComponentError, match="unknown metadata name") as caught:
            async with open_component(folder, "state.py", nonsense="1"):
                raise AssertionError("unknown metadata was accepted")
        assert caught.value.code is Status.INVALID_ARGUMENT


async def test_the_same_metadata_keeps_the_instance_and_other_metadata_replaces_it(folder):
    life = Life()
    async with serving(folder, life.driver):
        async with open_component(folder, "state.py", path="/a") as store:
            await store.set(SetRequest("k", b"1"))
        async with open_component(folder, "state.py", path="/a") as store:
            assert (await store.get(GetRequest("k"))).data == b"1"
        assert (len(life.opened), life.closed) == (1, 0)
        async with open_component(folder, "state.py", path="/b") as store:
            assert await store.get(GetRequest("k")) is None
        assert (len(life.opened), life.closed) == (2, 1)
        async with open_component(folder, "state.py", "other", path="/a"):
            assert (len(life.opened), life.closed) == (3, 1)


async def test_stop_finishes_what_is_under_way(folder):
    life = Life()
    async with serving(folder, life.driver) as (stop, ended), open_component(folder, "state.py") as store:
        await store.set(SetRequest("k", b"1"))
        stop.set()
        with trio.fail_after(20):
            await ended.wait()
        assert life.closed == 1
        assert not (folder / "py.sock").exists()


@frozen
class Slow:
    """A secret store whose one secret takes as long as the test likes."""

    asked: trio.Event
    gate: trio.Event
    features: frozenset[Any] = frozenset()

    async def get(self, name, metadata):
        self.asked.set()
        await self.gate.wait()
        return {name: "value"}

    async def bulk_get(self, metadata):
        return {}


async def test_a_call_under_way_is_answered_though_the_process_stops(folder):
    slow = Slow(trio.Event(), trio.Event())

    @asynccontextmanager
    async def open_slow(options, context):
        yield slow

    found = []

    async def ask():
        found.append(await store.get("name", {}))

    async with (
        serving(folder, Driver(type="secretstores.slow", metadata=Options, open=open_slow)) as (stop, ended),
        open_component(folder, "secretstores.py") as store,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask)
        await slow.asked.wait()
        stop.set()
        with trio.fail_after(20):
            while True:
                try:
                    await store.bulk_get({})
                except ComponentUnavailable:
                    break
                await trio.lowlevel.checkpoint()
        slow.gate.set()
        with trio.fail_after(20):
            await ended.wait()
    assert found == [{"name": "value"}]


async def test_a_subscription_ends_when_the_process_stops(folder):
    async with (
        serving(folder, Broker().driver) as (stop, ended),
        open_component(folder, "pubsub.py") as broker,
        trio.open_nursery() as nursery,
    ):

        async def subscribe(*, task_status):
            with pytest.raises(ComponentUnavailable, match="going away"):
                await broker.subscribe(
                    SubscribeRequest("t"), lambda _: None, trio.Event(), task_status=task_status
                )

        await nursery.start(subscribe)
        stop.set()
        with trio.fail_after(20):
            await ended.wait()


async def test_cancelled_everything_ends_at_once(folder):
    life = Life()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, life.driver, folder=folder))
        async with open_component(folder, "state.life") as store:
            await store.set(SetRequest("k", b"1"))
            nursery.cancel_scope.cancel()
    assert life.closed == 1
    assert not (folder / "life.sock").exists()


async def test_drivers_that_cannot_be_served_together(folder):
    lock = Driver(type="lock.x", metadata=Options, open=memory.open)
    for drivers, words in (
        ((), "nothing to serve"),
        ((lock,), "lock.x cannot be served"),
        ((memory, memory), "cannot share a socket"),
        ((memory, Broker().driver, Life().driver), "cannot share a socket"),
        ((Life().driver, Broker().driver), "several names"),
    ):
        with pytest.raises(ValueError, match=words):
            await serve(*drivers, folder=folder)
    async with serving(folder, memory):
        with pytest.raises(OSError, match="cannot listen"):
            await serve(memory, name="py", folder=folder)


async def test_before_init_every_call_fails(folder):
    async with serving(folder, memory), stub(folder, components.StateStoreStub) as store:
        with pytest.raises(GRPCError) as caught:
            await store.get(components.GetRequest(key="k"))
        assert caught.value.status is Status.FAILED_PRECONDITION


async def test_what_a_daprd_is_told_of_an_etag(folder):
    """The status as components-contrib's client reads it; a bulk write among them."""
    async with serving(folder, memory), stub(folder, components.StateStoreStub) as store:
        await store.init(components.InitRequest())
        stale = components.SetRequest(key="k", value=b"1", etag=components.Etag(value="7"))
        for method, request in (
            (store.set, stale),
            (store.bulk_set, components.BulkSetRequest(items=[stale])),
        ):
            with pytest.raises(GRPCError) as caught:
                await method(request)
            assert caught.value.status is Status.FAILED_PRECONDITION
            assert b"type.googleapis.com/google.rpc.BadRequest" in caught.value.details
            assert b"\x0a\x04etag" in caught.value.details


async def test_a_transaction_tells_of_etags_too(folder):
    async with serving(folder, memory), open_component(folder, "state.py") as store:
        with pytest.raises(EtagMismatch):
            await store.transact([SetRequest("a", b"1"), SetRequest("b", b"1", etag="7")], {})
        assert await store.get(GetRequest("a")) is None


async def test_a_query_stays_within_its_prefix(folder):
    async with serving(folder, memory), open_component(folder, "state.py") as store:
        for number in range(6):
            await store.set(SetRequest(f"{'mine' if number % 3 else 'theirs'}||{number}", b'{"a": 1}'))
        found, token = [], ""
        while True:
            page = await store.query(
                QueryRequest({"EQ": {"a": 1}}, limit=3, token=token, key_prefix="mine||")
            )
            found.append([one.key for one in page.items])
            token = page.token
            if not token:
                break
        assert found == [["mine||1", "mine||2", "mine||4"], ["mine||5"]]
        with pytest.raises(StateError) as caught:
            await store.query(QueryRequest({"NONE": {"a": 1}}))
        assert caught.value.code is Status.INVALID_ARGUMENT


async def test_nothing_is_delivered_during_a_pause(folder):
    came, news = [], trio.Event()

    async def deliver(message):
        came.append(message.data)
        news.set()
        return Outcome.ACK

    async with (
        serving(folder, Broker().driver),
        stub(folder, components.PubSubStub) as control,
        open_component(folder, "pubsub.py") as broker,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(partial(broker.subscribe, SubscribeRequest("t"), deliver, trio.Event()))
        await control.pause(components.PauseRequest())
        await broker.publish(PublishRequest("t", b"1"))
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert came == []
        await control.resume(components.ResumeRequest())
        with trio.fail_after(20):
            await news.wait()
        assert came == [b"1"]
        nursery.cancel_scope.cancel()


class Failing:
    """A broker that is lost: before a subscription has begun, or once it has."""

    features: frozenset[Any] = frozenset()

    async def publish(self, request):
        raise ComponentUnavailable("the broker is away")

    async def bulk_publish(self, requests):
        await self.publish(requests[0])

    async def subscribe(self, request, deliver, stop, *, task_status):
        if request.topic == "late":
            task_status.started()
        raise ComponentUnavailable("the broker is away")

    async def ping(self):
        raise ComponentUnavailable("the broker is away")


@pytest.mark.parametrize("topic", ["early", "late"])
async def test_a_subscription_that_fails_says_why(folder, topic):
    @asynccontextmanager
    async def open_failing(options, context):
        yield Failing()

    failing = Driver(type="pubsub.failing", metadata=Options, open=open_failing)
    async with serving(folder, failing), open_component(folder, "pubsub.py") as broker:
        with pytest.raises(ComponentUnavailable, match="the broker is away") as caught:
            await broker.subscribe(
                SubscribeRequest(topic), None, trio.Event(), task_status=trio.TASK_STATUS_IGNORED
            )
        assert caught.value.code is Status.UNAVAILABLE
        for call in (broker.ping, partial(broker.publish, PublishRequest("t", b"1"))):
            with pytest.raises(ComponentUnavailable, match="the broker is away"):
                await call()


async def test_a_first_message_without_a_topic_is_refused(folder):
    async with serving(folder, Broker().driver), stub(folder, components.PubSubStub) as broker:
        await broker.init(components.PubSubInitRequest())
        with pytest.raises(GRPCError, match="topic"):
            async with broker.pull_messages([components.PullMessagesRequest(ack_message_id="1")]) as messages:
                async for _ in messages:
                    raise AssertionError("a message without a subscription")


# --- the contract, by the word of a component that is not ours


async def asked(path, symbol):
    """The files behind a symbol, by the reflection of a socket."""
    async with open_channel(f"unix:{path}") as channel:
        call: Any = channel.request(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Cardinality.STREAM_STREAM,
            reflection.ServerReflectionRequest,
            reflection.ServerReflectionResponse,
        )
        async with call as stream:
            question = reflection.ServerReflectionRequest(file_containing_symbol=symbol)
            await stream.send_message(question, end=True)
            answer = await stream.recv_message()
    files = answer.file_descriptor_response.file_descriptor_proto
    return {one.name: one for one in map(FileDescriptorProto.FromString, files)}


def numbered(message, prefix=""):
    """Every field of a message and of those inside it: number, type and label by name."""
    for field in message.field:
        yield f"{prefix}{message.name}.{field.name}", (field.number, field.type, field.type_name, field.label)
    for inner in message.nested_type:
        yield from numbered(inner, f"{prefix}{message.name}.")


@pytest.mark.parametrize(
    ("socket", "service", "fields"),
    [
        ("gomem", "StateStore", 60),
        ("gomem", "PubSub", 25),
        ("gomem", "InputBinding", 15),
        ("gosecrets", "SecretStore", 8),
    ],
)
async def test_our_numbers_are_those_of_daprs_go_module(folder, socket, service, fields):
    with go_component(folder):
        theirs = await asked(folder / f"{socket}.sock", f"{PACKAGE}.{service}")
    compared = 0
    for name, file in theirs.items():
        if file.package != PACKAGE:
            continue
        ours = FileDescriptorProto.FromString((descriptors.file(name) or [b""])[0])
        our_fields = dict(pair for message in ours.message_type for pair in numbered(message))
        for message in file.message_type:
            for field, facts in numbered(message):
                assert our_fields[field] == facts, field
                compared += 1
        for one in file.service:
            methods = {method.name: method for other in ours.service for method in other.method}
            for method in one.method:
                mine = methods[method.name]
                assert mine.client_streaming == method.client_streaming
                assert mine.server_streaming == method.server_streaming
    assert compared >= fields


async def test_kinds_of_one_socket_are_drivers_each(folder):
    async with serving(folder, memory, Broker().driver, name="my.store"):
        registry = await registry_at(folder)
        assert "state.my.store" in registry.types("state")
        assert "pubsub.my.store" in registry.types("pubsub")
        assert registry.driver("State.My.Store").versions == ("v1", "v0")
