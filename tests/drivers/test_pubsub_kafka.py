"""pubsub.kafka on a real broker: the conformance suite, order, positions, and what daprd writes."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from meshnode_kafka import Options, pubsub
from meshnode_kafka._records import partitioner
from support.kafka_servers import (
    add_partitions,
    committed,
    create_topic,
    kafka_broker,
    missing_kafka,
    on_asyncio,
    shared_broker,
    subscribed,
)

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import BulkPublishError, InvalidArgument, PubSubError, Status
from meshnode.interfaces import DriverContext, Outcome, PublishRequest, PubSubFeature, SubscribeRequest
from meshnode.testing.conformance import pubsub as conformance

CONTEXT = DriverContext("pubsub", "app")
QUICK = {
    "consume_retry_interval": "50ms",
    "heartbeat_interval": timedelta(milliseconds=200),
    "session_timeout": timedelta(seconds=2),
}
PROMISES = conformance.Promises(
    features=frozenset({PubSubFeature.BULK_PUBSUB}),
    side_by_side=False,
    keeps_order=True,
    order_key=True,
    keeps_metadata=True,
    refused=lambda topic: PublishRequest(topic, b"x" * 2_000_000),
)


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    yield from shared_broker(tmp_path_factory.mktemp("kafka"))


@asynccontextmanager
async def opened(broker, **more):
    async with asyncio_loop(True):
        options = Options(**{"brokers": broker.address, "auth_type": "none", **QUICK, **more})
        async with pubsub.open(options, CONTEXT) as component:
            yield component


def subscription(component, topic, **more):
    request = SubscribeRequest(topic, **more)
    return partial(component.subscribe, request)


@pytest.mark.parametrize("check", conformance.checks_for(PROMISES), ids=str)
async def test_conformance(check, broker):
    def open_group(group):
        options = Options(brokers=broker.address, auth_type="none", consumer_group=group, **QUICK)
        return pubsub.open(options, CONTEXT)

    async with asyncio_loop(True):
        assert await check.run(conformance.Setup(open_group, PROMISES))


async def test_what_daprd_writes_is_read(broker):
    """Metadata are headers, the key besides; a record without a value is JSON's null."""
    headers = [("partitionKey", b"k&1"), ("traceparent", b"00-1"), ("binary", b"\xff"), ("x-internal", b"1")]

    async def write():
        producer = AIOKafkaProducer(bootstrap_servers=broker.address)
        await producer.start()
        await producer.send_and_wait(
            "dapr1", b'{"specversion":"1.0"}', b"k&1", headers=headers, timestamp_ms=7
        )
        await producer.send_and_wait("dapr1", None, b"k&1")
        await producer.send_and_wait("dapr1", b"plain", timestamp_ms=8)
        await producer.stop()

    begun = {"consumer_id": "dapr1", "initial_offset": "oldest", "exclude_header_meta_regex": "^x-"}
    async with opened(broker, **begun) as component:
        await on_asyncio(write)
        async with subscribed(subscription(component, "dapr1")) as application:
            await application.has(3)
    first, second, third = application.messages
    assert first.metadata == {
        "__key": "k&1",
        "__offset": "0",
        "__partition": "0",
        "__timestamp": "7",
        "__topic": "dapr1",
        "partitionKey": "k&1",
        "traceparent": "00-1",
        "binary": "\ufffd",
    }
    assert (first.data, first.topic, first.content_type) == (b'{"specversion":"1.0"}', "dapr1", "")
    assert second.data == b"null"
    assert third.metadata == {
        "__offset": "2", "__partition": "0", "__timestamp": "8", "__topic": "dapr1",
    }  # fmt: skip
    assert first.position < second.position < third.position


async def test_headers_are_escaped_where_that_is_wanted(broker):
    async with (
        opened(broker, consumer_id="escape", escape_headers=True) as component,
        subscribed(subscription(component, "escape")) as application,
    ):
        metadata = {"__key": "k 1", "name": "grün & blau"}
        await component.publish(PublishRequest("escape", b"x", metadata=metadata))
        await application.has(1)
    received = application.messages[0].metadata
    assert (received["__key"], received["name"]) == ("k+1", "gr%C3%BCn+%26+blau")


async def test_what_is_published_is_what_daprd_would_write(broker):
    async def read():
        consumer = AIOKafkaConsumer("dapr2", bootstrap_servers=broker.address, auto_offset_reset="earliest")
        await consumer.start()
        records = [await consumer.getone() for _ in range(3)]
        await consumer.stop()
        return records

    async with opened(broker, exclude_header_meta_regex="^x-", compression="zstd") as component:
        metadata = {"partitionKey": "k", "ttlInSeconds": "10", "x-internal": "1"}
        await component.publish(PublishRequest("dapr2", b"{}", metadata=metadata))
        await component.publish(PublishRequest("dapr2", b"null", metadata={"__key": "k"}))
        await component.publish(PublishRequest("dapr2", b"null"))
        first, second, third = await on_asyncio(read)
    assert (first.key, first.value) == (b"k", b"{}")
    assert sorted(first.headers) == [("partitionKey", b"k"), ("ttlInSeconds", b"10")]
    assert (second.key, second.value, second.headers) == (b"k", None, (("__key", b"k"),))
    assert (third.key, third.value, third.headers) == (None, b"null", ())


def test_a_key_has_the_partition_that_daprd_finds():
    """FNV-1a: `a` is 0xE40C292C, `foobar` 0xBF9CF968 and `hello` 0x4F9F2CAB."""
    find = partitioner(random.Random(1))
    partitions = [0, 1, 2, 3, 4, 5, 6]
    expected = {b"a": 468965076 % 7, b"foobar": 1080231576 % 7, b"hello": 1335831723 % 7}
    assert {key: find(key, partitions, partitions) for key in expected} == expected
    assert {find(None, partitions, [2, 3]) for _ in range(50)} == {2, 3}


async def test_a_failed_message_holds_up_its_partition_and_no_other(broker):
    await create_topic_in(broker, "order", 2)
    other_is_done = trio.Event()
    failures = []

    async def answer(message):
        if message.metadata["__partition"] == "1":
            if message.data == b"b9":
                other_is_done.set()
            return Outcome.ACK
        if message.data == b"a0" and (not other_is_done.is_set() or len(failures) < 3):
            failures.append(message.data)
            return Outcome.RETRY
        return Outcome.ACK

    async with (
        opened(broker, consumer_id="order") as component,
        subscribed(subscription(component, "order"), answer) as application,
    ):
        for number in range(10):
            for name, partition in (("a", "0"), ("b", "1")):
                request = PublishRequest(
                    "order", f"{name}{number}".encode(), metadata={"partitionNumber": partition}
                )
                await component.publish(request)
        await application.has_finished(20)
    finished = [data for data in application.finished if data.startswith(b"a")]
    assert finished == [b"a%d" % number for number in range(10)]
    received = [data for data in application.received if data.startswith(b"a")]
    assert received == [b"a0"] * len(failures) + finished
    others = [data for data in application.received if data.startswith(b"b")]
    assert others == [b"b%d" % number for number in range(10)]


async def create_topic_in(broker, name, partitions, **configs):
    async with asyncio_loop(True):
        await create_topic(broker.address, name, partitions, configs)


async def test_no_more_is_delivered_than_the_limit(broker):
    await create_topic_in(broker, "limit", 4)
    gate = trio.Event()

    async def answer(_message):
        await gate.wait()
        return Outcome.ACK

    async with opened(broker, consumer_id="limit") as component:
        begin = subscription(component, "limit", max_in_flight=2)
        async with subscribed(begin, answer) as application:
            requests = [
                PublishRequest("limit", b"%d" % number, metadata={"partitionNumber": str(number % 4)})
                for number in range(40)
            ]
            await component.bulk_publish(requests)
            await application.has(2)
            await trio.sleep(0.3)  # room for a third to come, if one would
            assert application.under_way == 2
            gate.set()
            await application.has_finished(40)
            assert application.most_under_way == 2


@pytest.mark.parametrize(
    ("settings", "deliveries"),
    [({"consume_retry_enabled": False}, 1), ({"back_off_duration": "20ms", "back_off_max_retries": 2}, 3)],
    ids=["no retry", "two retries"],
)
async def test_a_message_is_given_up_where_that_is_wanted(broker, settings, deliveries):
    topic = f"giving-up-{deliveries}"

    async def answer(message):
        return Outcome.RETRY if message.data == b"bad" else Outcome.ACK

    async with opened(broker, consumer_id=topic, **settings) as component:
        async with subscribed(subscription(component, topic), answer) as application:
            await component.bulk_publish([PublishRequest(topic, b"bad"), PublishRequest(topic, b"good")])
            await application.has_finished(1)
        assert await committed(broker.address, topic) == {0: 2}
    assert application.received == [b"bad"] * deliveries + [b"good"]


async def test_a_group_begins_where_it_is_told_to(broker):
    async with opened(broker) as component:
        await component.publish(PublishRequest("begin", b"before"))
    for group, expected in (("oldest", [b"before", b"after 0"]), ("newest", [b"after 1"])):
        async with (
            opened(broker, consumer_id=group, initial_offset=group) as component,
            subscribed(subscription(component, "begin")) as application,
        ):
            data = b"after 0" if group == "oldest" else b"after 1"
            await component.publish(PublishRequest("begin", data))
            await application.has_finished(len(expected))
        assert application.received == expected


async def test_what_a_new_group_has_not_done_is_not_skipped(broker):
    """It has committed nothing, and begins at the end; yet its message comes to the next consumer."""

    async def refuse(_message):
        return Outcome.RETRY

    async with opened(broker, consumer_id="first") as component:
        async with subscribed(subscription(component, "first"), refuse) as application:
            await component.publish(PublishRequest("first", b"1"))
            await application.has(1)
            await application.cancel()
        await component.publish(PublishRequest("first", b"2"))
        async with subscribed(subscription(component, "first")) as application:
            await application.has_finished(2)
    assert application.finished == [b"1", b"2"]


async def test_a_new_partition_is_read_from_its_beginning(broker):
    await create_topic_in(broker, "growing", 1)
    refresh = {"refresh_interval": timedelta(milliseconds=500)}
    async with (
        opened(broker, consumer_id="growing", **refresh) as component,
        subscribed(subscription(component, "growing")) as application,
    ):
        await add_partitions(broker.address, "growing", 2)
        async with opened_beside(broker) as other:
            await other.publish(PublishRequest("growing", b"x", metadata={"partitionNumber": "1"}))
        await application.has_finished(1)
    assert application.messages[0].metadata["__partition"] == "1"


@asynccontextmanager
async def opened_beside(broker):
    """Within the loop that is running."""
    options = Options(brokers=broker.address, auth_type="none")
    async with pubsub.open(options, CONTEXT) as component:
        yield component


async def test_bulk_errors_are_the_entries_own(broker):
    async with (
        opened(broker, consumer_id="bulk", max_message_bytes=1000) as component,
        subscribed(subscription(component, "bulk")) as application,
    ):
        requests = [
            PublishRequest("bulk", b"0"),
            PublishRequest("bulk", b"x" * 2000),
            PublishRequest("bulk", b"2", metadata={"partitionNumber": "7"}),
            PublishRequest("bulk", b"3", metadata={"partitionNumber": "x"}),
            PublishRequest("bulk", b"4"),
        ]
        with pytest.raises(BulkPublishError) as caught:
            await component.bulk_publish(requests)
        await application.has_finished(2)
    failures = caught.value.failures
    assert {position: error.code for position, error in failures.items()} == {
        1: Status.INVALID_ARGUMENT,
        2: Status.NOT_FOUND,
        3: Status.INVALID_ARGUMENT,
    }
    assert application.finished == [b"0", b"4"]


async def test_requests_that_can_never_be_right(broker):
    async with opened(broker) as component:
        for request in (
            PublishRequest("no topic", b"x"),
            PublishRequest("", b"x"),
            PublishRequest("t", b"x", metadata={"valueSchemaType": "Avro"}),
        ):
            with pytest.raises(InvalidArgument):
                await component.publish(request)
        request = SubscribeRequest("t", {"valueSchemaType": "Avro"})
        with pytest.raises(InvalidArgument, match="schemas"):
            await component.subscribe(request, None, trio.Event(), task_status=trio.TASK_STATUS_IGNORED)


async def test_a_group_that_will_not_have_us(broker):
    """What the coordinator refuses comes out of the subscription; it does not wait for ever."""
    async with opened(broker, consumer_id="refused", session_timeout=timedelta(hours=1)) as component:
        subscribe = partial(subscription(component, "refused"), None, trio.Event())
        with trio.fail_after(20), pytest.raises(PubSubError, match="session timeout"):
            await subscribe(task_status=trio.TASK_STATUS_IGNORED)


async def test_a_broker_that_creates_no_topics_and_takes_small_messages(tmp_path):
    """What it refuses leaves the producer usable; a subscription may be older than its topic."""
    if reason := missing_kafka():
        pytest.skip(reason)
    settings = {"auto.create.topics.enable": "false", "message.max.bytes": 2000}
    with kafka_broker(tmp_path, settings) as strict:
        async with opened(strict, consumer_id="strict") as component:
            async with subscribed(subscription(component, "later")) as application:
                with pytest.raises(PubSubError, match="does not exist") as caught:
                    await component.publish(PublishRequest("later", b"x"))
                assert caught.value.code is Status.NOT_FOUND
                await create_topic(strict.address, "later")
                with pytest.raises(PubSubError) as caught:
                    await component.publish(PublishRequest("later", b"x" * 5000))
                assert caught.value.code is Status.INVALID_ARGUMENT
                for data in (b"1", b"2"):
                    await component.publish(PublishRequest("later", data))
                await application.has_finished(2)
            await component.ping()
        assert application.received == [b"1", b"2"]
