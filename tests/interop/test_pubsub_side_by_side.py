"""One application's events behind a daprd and a meshnode: what either publishes, an application behind the
other gets as one behind itself does.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from attrs import frozen
from dapr.proto.runtime.v1 import appcallback_pb2, appcallback_pb2_grpc, dapr_pb2_grpc, pubsub_pb2
from google.protobuf.json_format import MessageToDict
from support.daprd_servers import daprd
from support.install_daprd import find_daprd
from support.install_mosquitto import find_mosquitto
from support.kafka_servers import kafka_broker, missing_kafka
from support.mosquitto_servers import mosquitto_server
from support.nats_servers import NatsServer, find_nats_server, jetstream_api, nats_server
from support.processes import node, wait_until
from support.rabbitmq_servers import rabbit_server
from support.redis_servers import find_redis_server, free_port, redis_server
from support.sidecar_clients import State, upsert

from meshnode.asyncioloop import asyncio_loop

pytestmark = [
    pytest.mark.skipif(find_daprd() is None, reason="daprd is not installed"),
    pytest.mark.skipif(find_redis_server() is None, reason="redis-server is not installed"),
]

EACH: Mapping[str, str] = {
    "redis": '{name: redisHost, value: "WHERE"}, {name: consumerID, value: "GROUP"}',
    "jetstream": '{name: natsURL, value: "WHERE"}',
    "mqtt3": '{name: url, value: "WHERE"}, {name: consumerID, value: "GROUP"}',
    "rabbitmq": '{name: connectionString, value: "WHERE"}, {name: consumerID, value: "GROUP"}',
    "kafka": (
        '{name: brokers, value: "WHERE"}, {name: consumerGroup, value: "GROUP"}, '
        "{name: authType, value: none}, {name: initialOffset, value: oldest}"
    ),
}
"""Brokers, as components in which each sidecar has a group of its own."""

SHARED = """---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: shared}
spec:
  type: pubsub.redis
  version: v1
  metadata: [{name: redisHost, value: "WHERE"}]
---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: store}
spec:
  type: state.redis
  version: v1
  metadata:
    - {name: redisHost, value: "WHERE"}
    - {name: outboxPublishPubsub, value: shared}
    - {name: outboxPublishTopic, value: told}
"""
"""In which both are one group."""

ON_REDIS = pytest.mark.parametrize("sides", ["redis"], indirect=True, scope="module")
RAW = {"rawPayload": "true"}
SUBSCRIPTIONS: Sequence[tuple[str, str, Mapping[str, str], str]] = (
    ("each", "events", {}, ""),
    ("each", "raw", RAW, ""),
    ("each", "failing", {}, "dead"),
    ("each", "dead", {}, ""),
    ("shared", "work", {}, ""),
    ("shared", "told", {}, ""),
)


class Application(appcallback_pb2_grpc.AppCallbackServicer):
    """Notes what it gets; drops what is for `failing`."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._news = threading.Condition()

    def ListTopicSubscriptions(self, request: Any, context: grpc.ServicerContext) -> Any:
        topics = [
            appcallback_pb2.TopicSubscription(
                pubsub_name=pubsub, topic=topic, metadata=metadata, dead_letter_topic=dead
            )
            for pubsub, topic, metadata, dead in SUBSCRIPTIONS
        ]
        return appcallback_pb2.ListTopicSubscriptionsResponse(subscriptions=topics)

    def OnTopicEvent(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self._news:
            self.events.append(request)
            self._news.notify_all()
        answer = appcallback_pb2.TopicEventResponse
        return answer(status=answer.DROP if request.topic == "failing" else answer.SUCCESS)

    def of(self, topic: str, mark: bytes) -> list[Any]:
        return [one for one in self.events if one.topic == topic and mark in one.data]

    def wait(self, topic: str, mark: bytes, times: int = 1) -> list[Any]:
        """The events of that topic whose data has the mark."""
        with self._news:
            there = self._news.wait_for(lambda: len(self.of(topic, mark)) >= times, 20)
            assert there, f"{mark!r} did not come to {topic}; there are {self.events}"
        return self.of(topic, mark)


@frozen
class Side:
    name: str
    broker: str
    stub: Any
    state: State
    app: Application

    def publish(self, topic: str, data: bytes, kind: str = "", pubsub: str = "each", **metadata: str) -> None:
        request = pubsub_pb2.PublishEventRequest(
            pubsub_name=pubsub, topic=topic, data=data, data_content_type=kind, metadata=dotted(metadata)
        )
        self.stub.PublishEvent(request, timeout=10)

    def publish_bulk(self, topic: str, *entries: Any, pubsub: str = "each", **metadata: str) -> Any:
        request = pubsub_pb2.BulkPublishRequest(
            pubsub_name=pubsub, topic=topic, entries=entries, metadata=dotted(metadata)
        )
        return self.stub.BulkPublishEventAlpha1(request, timeout=10)


def dotted(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("__", "."): value for name, value in metadata.items()}


@contextmanager
def serving(app: Application) -> Iterator[int]:
    port = free_port()
    with ThreadPoolExecutor(16) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        appcallback_pb2_grpc.add_AppCallbackServicer_to_server(app, server)
        assert server.add_insecure_port(f"127.0.0.1:{port}") == port
        server.start()
        try:
            yield port
        finally:
            server.stop(grace=None).wait()


def _component(broker: str, where: str, group: str) -> str:
    metadata = EACH[broker].replace("WHERE", where).replace("GROUP", group)
    return f"""---
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {{name: each}}
spec:
  type: pubsub.{broker}
  version: v1
  metadata: [{metadata}]
"""


@contextmanager
def _server(broker: str, home: Path) -> Iterator[str]:
    """The broker's address."""
    if broker == "redis":
        with redis_server(home) as redis:
            yield redis.address
    elif broker == "mqtt3":
        if find_mosquitto() is None:
            pytest.skip("mosquitto is not installed")
        with mosquitto_server(home) as mosquitto:
            yield mosquitto.url
    elif broker == "rabbitmq":
        with rabbit_server(home) as rabbit:
            yield rabbit.url
    elif broker == "kafka":
        missing = missing_kafka()
        if missing is not None:
            pytest.skip(missing)
        with kafka_broker(home) as kafka:
            yield kafka.address
    else:
        if find_nats_server() is None:
            pytest.skip("nats-server is not installed")
        with nats_server(home) as nats:
            trio.run(_make_stream, nats)
            yield nats.url


async def _make_stream(server: NatsServer) -> None:
    """Neither sidecar makes one."""
    async with asyncio_loop(True):
        await jetstream_api(server, "add_stream", name="ALL", subjects=["*"])


@pytest.fixture(scope="module", params=EACH)
def sides(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sequence[Side]]:
    """daprd's and meshnode's, of one application id."""
    home: Path = tmp_path_factory.mktemp("pubsub")
    broker: str = request.param
    with ExitStack() as stack:
        where = stack.enter_context(_server(broker, home))
        redis = where if broker == "redis" else stack.enter_context(redis_server(home)).address
        made = []
        for name, start in (("daprd", daprd), ("node", node)):
            app = Application()
            port = stack.enter_context(serving(app))
            resources = _component(broker, where, name) + SHARED.replace("WHERE", redis)
            running: Any = stack.enter_context(start("shop", home, resources=resources, app_port=port))
            for _, topic, _, _ in SUBSCRIPTIONS:
                running.process.wait_for(topic)
            channel = stack.enter_context(grpc.insecure_channel(running.address))
            stub: Any = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]
            made.append(Side(name, broker, stub, State(name, channel), app))
        for side in made:  # a subscription that is announced may not be there yet, and MQTT keeps nothing
            for pubsub, topic in (("each", "events"), ("each", "dead"), ("each", "raw")):
                _until_heard(side, made, pubsub, topic)
        yield made


def _until_heard(publisher: Side, sides: Sequence[Side], pubsub: str, topic: str) -> None:
    def heard() -> bool:
        more = RAW if topic == "raw" else {}
        publisher.publish(topic, f"warm {publisher.name}".encode(), "text/plain", pubsub, **more)
        return all(side.app.of(topic, f"warm {publisher.name}".encode()) for side in sides)

    wait_until(heard, what=f"{topic} of {pubsub}")


def shown(event: Any) -> dict[str, Any]:
    """All fields. JSON as the value it is: to a daprd data are values, which it writes anew."""
    fields = dict(MessageToDict(event, preserving_proto_field_name=True))
    fields["data"] = bytes(event.data)
    if event.data_content_type.startswith("application/json"):
        with suppress(ValueError):
            fields["data"] = json.loads(event.data)
    return fields


ANEW = ("id", "time", "expiration")
TRACE = ("traceid", "traceparent")


def lasting(event: Any) -> dict[str, Any]:
    """Without what every publication has anew: of that, only that it is there. A meshnode gives an event a
    trace where its publisher has none; a daprd that does not trace leaves it empty.
    """
    found = shown(event)
    extensions = {f"extension {name}": value for name, value in found.pop("extensions", {}).items()}
    fields = {**found, **extensions}
    for name in (*ANEW, *(f"extension {name}" for name in (*ANEW, *TRACE))):
        if name in fields:
            fields[name] = "there"
    return fields


CLOUD_EVENT = {
    "specversion": "1.0", "id": "mine MARK", "source": "me", "type": "com.example.made", "subject": "s",
    "datacontenttype": "application/json", "data": {"mark": "MARK"}, "mine": "x", "number": 5,
}  # fmt: skip
OVERRIDES = {
    "cloudevent__id": "given MARK", "cloudevent__source": "elsewhere", "cloudevent__type": "com.example.one",
    "cloudevent__traceid": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "cloudevent__subject": "subject", "cloudevent__extra": "more", "cloudevent__time": "2020-01-01T00:00:00Z",
}  # fmt: skip
PUBLICATIONS: Mapping[str, tuple[bytes, str, Mapping[str, str]]] = {
    "text": (b"MARK", "text/plain", {}),
    "no type": (b"MARK", "", {}),
    "json": (b'{"mark": "MARK", "n": 1.0}', "application/json", {}),
    "json string": (b'"MARK"', "application/json", {}),
    "json with a charset": (b'{"mark":"MARK"}', "application/json; charset=utf-8", {}),
    "no json": (b"{MARK", "application/json", {}),
    "xml": (b"<a>MARK</a>", "application/xml", {}),
    "bytes": (b"MARK\x00\xff", "application/octet-stream", {}),
    "cloud event": (json.dumps(CLOUD_EVENT).encode(), "application/cloudevents+json", {}),
    "overrides": (b"MARK", "text/plain", OVERRIDES),
    "ttl": (b"MARK", "text/plain", {"ttlInSeconds": "100"}),
    "key": (b"MARK", "text/plain", {"partitionKey": "k"}),
    "other metadata": (b"MARK", "text/plain", {"colour": "red"}),
}


@pytest.mark.parametrize("name", PUBLICATIONS)
def test_an_event_of_either_is_the_same_for_both(sides: Sequence[Side], name: str) -> None:
    data, kind, metadata = PUBLICATIONS[name]
    published = []
    for publisher in sides:
        mark = f"{name}-{publisher.name}-".encode()
        given = {one: value.replace("MARK", mark.decode()) for one, value in metadata.items()}
        publisher.publish("events", data.replace(b"MARK", mark), kind, **given)
        theirs, ours = (side.app.wait("events", mark)[0] for side in sides)
        assert shown(theirs) == shown(ours)
        if name in ("overrides", "cloud event"):
            assert theirs.id.endswith(f" {mark.decode()}")
        published.append(unmarked(lasting(theirs), mark))
    assert published[0] == published[1]


def unmarked(fields: dict[str, Any], mark: bytes) -> dict[str, Any]:
    return {name: repr(value).replace(mark.decode(), "MARK") for name, value in fields.items()}


def test_json_of_a_type_of_its_own_reaches_both(sides: Sequence[Side]) -> None:
    for publisher in sides:
        data = b'{"mark":"vendor-' + publisher.name.encode() + b'"}'
        publisher.publish("events", data, "application/vnd.shop+json")
        assert sides[1].app.wait("events", data)[0].data == data

        def come(source: str = publisher.name) -> bool:
            found = [one for one in sides[0].app.events if one.data_content_type.endswith("+json")]
            return len(found) == (1 if source == "daprd" else 2)

        wait_until(come)
    # Deliberate: a daprd hands on such an event without its data.
    assert {one.data for one in sides[0].app.events if one.data_content_type.endswith("+json")} == {b""}


def test_a_raw_message_of_either_is_the_same_for_both(sides: Sequence[Side]) -> None:
    for publisher in sides:
        for end in (b"", b"\x00\xff"):
            mark = f"raw-{publisher.name}-".encode() + (b"b" if end else b"t")
            publisher.publish("raw", mark + end, "text/plain", **RAW)
            theirs, ours = (shown(side.app.wait("raw", mark)[0]) for side in sides)
            assert theirs.pop("id") != ours.pop("id")  # it has none: whoever delivers it gives it one
            assert theirs == ours


def test_a_bulk_of_either_is_the_same_for_both(sides: Sequence[Side]) -> None:
    published = []
    for publisher in sides:
        mark = f"bulk-{publisher.name}-"
        entries = [
            pubsub_pb2.BulkPublishRequestEntry(
                entry_id=str(number),
                event=f"{mark}{number}".encode(),
                content_type="text/plain",
                metadata=more,
            )
            for number, more in enumerate(({}, {"cloudevent.type": "other"}, {"ttlInSeconds": "90"}))
        ]
        assert not publisher.publish_bulk("events", *entries).failedEntries
        theirs, ours = (
            sorted(side.app.wait("events", mark.encode(), 3), key=lambda one: bytes(one.data))
            for side in sides
        )
        assert list(map(shown, theirs)) == list(map(shown, ours))
        published.append([unmarked(lasting(event), mark.encode()) for event in theirs])
    assert published[0] == published[1]


def test_a_dead_letter_of_either_is_the_same_for_both(sides: Sequence[Side]) -> None:
    for publisher in sides:
        mark = f"dead-{publisher.name}-".encode()
        publisher.publish("failing", b'{"mark":"' + mark + b'"}', "application/json")
        # Two groups fail to deliver it. On JetStream a daprd's letter has the id of the message, and is
        # dropped as its repetition: deliberately not so with a meshnode's.
        letters = 1 if publisher.broker == "jetstream" else 2
        for side in sides:
            first, second = map(shown, (side.app.wait("dead", mark, letters) * 2)[:2])
            assert first == second
            original = shown(side.app.of("failing", mark)[0])
            assert {name for name in original if original[name] != first[name]} <= {"topic", "extensions"}


@ON_REDIS
def test_subscribers_of_one_id_share_the_messages(sides: Sequence[Side]) -> None:
    wanted = [f"work-{side.name}-{number:02}".encode() for side in sides for number in range(20)]
    for mark in wanted:
        side = sides[0] if b"daprd" in mark else sides[1]
        side.publish("work", mark, "text/plain", "shared")
    _until_all(sides, "work", b"work-", len(wanted))
    got = [bytes(event.data) for side in sides for event in side.app.of("work", b"work-")]
    assert sorted(got) == wanted
    assert all(side.app.of("work", b"work-") for side in sides)


@ON_REDIS
@pytest.mark.parametrize("metadata", [{}, {"cloudevent.type": "made"}, {"type": "made"}])
def test_an_outbox_of_either_is_relayed_once(sides: Sequence[Side], metadata: Mapping[str, str]) -> None:
    """By whichever of the two gets the message: of ten of each there should be some for both."""
    kind = "-".join(metadata)
    marks = [f"told-{kind}-{side.name}-{number}-" for side in sides for number in range(10)]
    for mark in marks:
        side = sides[0] if "daprd" in mark else sides[1]
        side.state.transact("store", upsert(mark, mark.encode(), **metadata))
    _until_all(sides, "told", f"told-{kind}-".encode(), len(marks))
    events = [event for side in sides for event in side.app.of("told", f"told-{kind}-".encode())]
    assert sorted(event.data.decode() for event in events) == sorted(marks)
    for writer in sides:
        shapes = [_shape(event) for event in events if writer.name.encode() in event.data]
        assert all(shape == shapes[0] for shape in shapes)
        # A daprd takes names of attributes as they are, a meshnode (as for a publication) with `cloudevent.`.
        takes = "type" if writer.name == "daprd" else "cloudevent.type"
        assert shapes[0]["type"] == ("made" if takes in metadata else "com.dapr.event.sent")


def _shape(event: Any) -> Mapping[str, Any]:
    """What a meshnode notes for its own relay, a daprd that relays it leaves there."""
    notes = ("extension outboxstore", "extension outboxmetadata", "data")
    return {name: value for name, value in lasting(event).items() if name not in notes}


def _until_all(sides: Sequence[Side], topic: str, mark: bytes, count: int) -> None:
    wait_until(lambda: sum(len(side.app.of(topic, mark)) for side in sides) >= count, what=topic)
