"""bindings.kafka on a real broker: the conformance suites of both directions, and Dapr's ways."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
from aiokafka import AIOKafkaConsumer
from meshnode_kafka import BindingOptions, binding
from support.kafka_servers import members, on_asyncio, shared_broker, subscribed

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import BindingError, InvalidArgument, Status
from meshnode.interfaces import BindingRequest, DriverContext, Outcome
from meshnode.registry import load_options
from meshnode.testing.conformance import bindings as conformance

CONTEXT = DriverContext("queue", "app")


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    yield from shared_broker(tmp_path_factory.mktemp("kafka"))


def options(broker, **more):
    quick = {
        "consume_retry_interval": "50ms",
        "heartbeat_interval": timedelta(milliseconds=200),
        "session_timeout": timedelta(seconds=2),
    }
    return BindingOptions(**{"brokers": broker.address, "auth_type": "none", **quick, **more})


@asynccontextmanager
async def opened(broker, **more):
    async with asyncio_loop(True), binding.open(options(broker, **more), CONTEXT) as component:
        yield component


def create(data, **metadata):
    return BindingRequest("create", data, metadata)


@pytest.mark.parametrize("check", conformance.INPUT_CHECKS, ids=str)
async def test_input(check, broker):
    topic = f"input-{check.name}"
    fields = options(broker, topics=topic, publish_topic=topic, consumer_group=topic)

    async def fire(data):
        async with binding.open(fields, CONTEXT) as beside:
            await beside.invoke(create(data))

    async with asyncio_loop(True):
        setup = conformance.InputSetup(lambda: binding.open(fields, CONTEXT), fire)
        assert await check.run(setup)


@pytest.mark.parametrize("check", conformance.OUTPUT_CHECKS, ids=str)
async def test_output(check, broker):
    fields = options(broker, publish_topic="output")
    async with asyncio_loop(True):
        setup = conformance.OutputSetup(lambda: binding.open(fields, CONTEXT), create(b"x"))
        assert await check.run(setup)


async def test_several_topics_and_what_comes_with_each_event(broker):
    async with (
        opened(broker, topics="one, two", publish_topic="one") as component,
        opened_beside(broker, publish_topic="two") as other,
        subscribed(component.read) as application,
    ):
        assert component.operations == ("create",)
        result = await component.invoke(create(b"1", partitionKey="k", correlation="c"))
        assert (result.data, dict(result.metadata)) == (b"", {})
        await other.invoke(create(b"2"))
        await application.has_finished(2)
        # The app id is the group where no other is named.
        assert await members(broker.address, "app") == 1
    first = next(event for event in application.messages if event.data == b"1")
    expected = {"__topic": "one", "__key": "k", "partitionKey": "k", "correlation": "c", "__offset": "0"}
    assert expected.items() <= first.metadata.items()
    assert {event.metadata["__topic"] for event in application.messages} == {"one", "two"}


@asynccontextmanager
async def opened_beside(broker, **more):
    """Within the loop that is running."""
    async with binding.open(options(broker, **more), CONTEXT) as component:
        yield component


async def test_what_is_created_is_what_daprd_would_write(broker):
    async def read():
        consumer = AIOKafkaConsumer("made", bootstrap_servers=broker.address, auto_offset_reset="earliest")
        await consumer.start()
        record = await consumer.getone()
        await consumer.stop()
        return record

    async with opened(broker, publish_topic="made") as component:
        await component.invoke(create(b"{}", partitionKey="k", name="v"))
        record = await on_asyncio(read)
    assert (record.key, record.value) == (b"k", b"{}")
    assert sorted(record.headers) == [("name", b"v"), ("partitionKey", b"k")]


@pytest.mark.parametrize("retry", [True, False])
async def test_a_failed_event_comes_again_unless_told_otherwise(broker, retry):
    topic = f"failing-{retry}"
    failed = []

    async def answer(event):
        if event.data == b"bad" and len(failed) < 2:
            failed.append(event.data)
            return Outcome.RETRY
        return Outcome.ACK

    fields = {} if retry else {"consume_retry_enabled": False}
    async with (
        opened(broker, topics=topic, publish_topic=topic, consumer_group=topic, **fields) as component,
        subscribed(component.read, answer) as application,
    ):
        for data in (b"bad", b"good"):
            await component.invoke(create(data))
        await application.until(lambda: b"good" in application.finished)
    assert application.received == ([b"bad"] * 3 if retry else [b"bad"]) + [b"good"]


async def test_without_topics_it_reads_nothing_and_without_a_topic_it_writes_nothing(broker):
    async with opened(broker) as component:
        async with subscribed(component.read) as application:
            assert application.messages == []
        with pytest.raises(BindingError, match="publishTopic"):
            await component.invoke(create(b"x"))
        with pytest.raises(InvalidArgument, match="create"):
            await component.invoke(BindingRequest("delete"))
        await component.ping()


async def test_an_event_that_is_too_large(broker):
    async with opened(broker, publish_topic="large", max_message_bytes=100) as component:
        with pytest.raises(BindingError) as caught:
            await component.invoke(create(b"x" * 1000))
        assert caught.value.code is Status.INVALID_ARGUMENT
        with trio.fail_after(20):
            await component.invoke(create(b"x"))


def test_dapr_s_own_example_is_accepted():
    example = {
        "topics": "topic1,topic2",
        "brokers": "localhost:9092,localhost:9093",
        "consumerGroup": "group1",
        "publishTopic": "topic3",
        "authRequired": "true",
        "saslUsername": "user",
        "saslPassword": "s3cret",
        "maxMessageBytes": "1024",
        "version": "1.0.0",
    }
    loaded = load_options(BindingOptions, example)
    assert (loaded.topic_names, loaded.authentication) == (["topic1", "topic2"], "password")
