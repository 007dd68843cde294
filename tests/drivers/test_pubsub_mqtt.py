"""pubsub.mqtt3 against a real mosquitto: conformance, what Dapr's component writes and reads, metadata."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
from meshnode_mqtt import PubSubOptions, pubsub_mqtt, pubsub_mqtt3
from support.mosquitto_servers import find_mosquitto, mosquitto_server

from meshnode.errors import BulkPublishError, ConfigError, InvalidArgument, PubSubError
from meshnode.interfaces import DriverContext, Outcome, PublishRequest, PubSubFeature, SubscribeRequest
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import pubsub

CONTEXT = DriverContext("pubsub", "app")
# A session has one connection: the members of a group would throw each other out.
PROMISES = pubsub.Promises(
    features=frozenset({PubSubFeature.SUBSCRIBE_WILDCARDS, PubSubFeature.BULK_PUBSUB}),
    competing=False,
    keeps_order=True,
    refused=lambda topic: PublishRequest(f"{topic}/#", b""),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with mosquitto_server(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@asynccontextmanager
async def opened(server, **options):
    options = {"redeliver_interval": timedelta(seconds=0.1), **options}
    async with pubsub_mqtt3.open(PubSubOptions(url=server.url, **options), CONTEXT) as broker:
        yield broker


@asynccontextmanager
async def reading(broker, topic, answer=None, limit=None, **metadata):
    """A subscription, and a channel with what it delivers; stopped on the way out."""
    send, receive = trio.open_memory_channel(1000)
    stop = trio.Event()

    async def deliver(message):
        await send.send(message)
        return Outcome.ACK if answer is None else await answer(message)

    async def subscribe(task_status):
        request = SubscribeRequest(topic, metadata, max_in_flight=limit)
        await broker.subscribe(request, deliver, stop, task_status=task_status)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(subscribe)
            yield receive
            stop.set()


async def datas(messages, count):
    return [(await messages.receive()).data for _ in range(count)]


@pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
async def test_conformance(check, server):
    def open_group(group):
        return opened(server, consumer_id=group)

    assert await check.run(pubsub.Setup(open_group, PROMISES))


@pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
async def test_conformance_with_qos_2(check, server):
    def open_group(group):
        return opened(server, consumer_id=f"two-{group}", qos=2)

    assert await check.run(pubsub.Setup(open_group, PROMISES))


def test_both_of_dapr_s_names():
    registry = Registry.installed() if hasattr(Registry, "installed") else None
    assert pubsub_mqtt.type == "pubsub.mqtt"
    assert pubsub_mqtt3.type == "pubsub.mqtt3"
    assert registry is None or registry.driver("pubsub.mqtt", "v1")


async def test_what_is_published_is_the_bare_data(server):
    """Dapr's component reads nothing but topic, payload and the retained flag."""
    async with opened(server, consumer_id="bare") as broker, reading(broker, "bare/#") as messages:
        await broker.publish(PublishRequest("bare/a", b'{"id": "1"}', "application/json"))
        message = await messages.receive()
        assert (message.topic, message.data, message.metadata) == (
            "bare/a",
            b'{"id": "1"}',
            {"retained": "false"},
        )


async def test_retained(server):
    async with opened(server, consumer_id="retained") as broker:
        await broker.publish(PublishRequest("kept", b"1", metadata={"retain": "true"}))
        await broker.publish(PublishRequest("not-kept", b"1"))
        async with reading(broker, "kept") as messages:
            assert (await messages.receive()).metadata == {"retained": "true"}
        with pytest.raises(InvalidArgument, match="retain"):
            await broker.publish(PublishRequest("kept", b"1", metadata={"retain": "perhaps"}))
        await broker.publish(PublishRequest("kept", b"", metadata={"retain": "true"}))
    async with opened(server, consumer_id="retaining", retain=True) as broker:
        await broker.publish(PublishRequest("kept-too", b"1"))
        async with reading(broker, "kept-too") as messages:
            assert (await messages.receive()).metadata == {"retained": "true"}
        await broker.publish(PublishRequest("kept-too", b""))


async def test_shared_subscriptions_divide_the_messages(server):
    """The group is in the topic, and each member has a session of its own."""
    async with (
        opened(server, consumer_id="member-1") as one,
        opened(server, consumer_id="member-2") as two,
        reading(one, "$share/group/jobs/+") as first,
        reading(two, "$share/group/jobs/+") as second,
    ):
        for number in range(20):
            await one.publish(PublishRequest(f"jobs/{number}", b"%d" % number))
        received = []
        async with trio.open_nursery() as nursery:
            for messages in (first, second):

                async def collect(messages=messages):
                    async for message in messages:
                        assert message.topic == f"jobs/{message.data.decode()}"
                        received.append(message.data)
                        if len(received) == 20:
                            nursery.cancel_scope.cancel()

                nursery.start_soon(collect)
    assert sorted(received, key=int) == [b"%d" % number for number in range(20)]


async def test_a_clean_session_keeps_nothing(server):
    async with opened(server, consumer_id="clean", clean_session=True) as broker:
        async with reading(broker, "clean"):
            pass
        await broker.publish(PublishRequest("clean", b"lost"))
        async with reading(broker, "clean") as messages:
            await broker.publish(PublishRequest("clean", b"1"))
            assert await datas(messages, 1) == [b"1"]


async def test_unsubscribe_on_close(server):
    """Dapr's name in a subscription's metadata, for topics that nobody comes back to."""
    async with opened(server, consumer_id="leaver") as broker:
        async with reading(broker, "left", unsubscribeOnClose="true"):
            pass
        await broker.publish(PublishRequest("left", b"lost"))
        async with reading(broker, "left") as messages:
            await broker.publish(PublishRequest("left", b"1"))
            assert await datas(messages, 1) == [b"1"]


async def test_qos_0(server):
    """Sent and forgotten; what fails is still tried again while the subscription lasts."""
    seen = []

    async def answer(message):
        seen.append(message.data)
        return Outcome.ACK if len(seen) > 1 else Outcome.RETRY

    async with (
        opened(server, consumer_id="zero", qos=0) as broker,
        reading(broker, "zero", answer) as messages,
    ):
        await broker.publish(PublishRequest("zero", b"1"))
        assert await datas(messages, 2) == [b"1", b"1"]


async def test_a_session_of_before_is_taken_over(server):
    """A daprd's, or an earlier node's: what waits for several topics is kept until they are subscribed to."""
    async with opened(server, consumer_id="heir") as broker, reading(broker, "a"), reading(broker, "b"):
        pass
    async with opened(server, consumer_id="other") as broker:
        for number in range(3):
            await broker.publish(PublishRequest("b", b"b%d" % number))
            await broker.publish(PublishRequest("a", b"a%d" % number))
    async with opened(server, consumer_id="heir") as broker, reading(broker, "a", limit=1) as first:
        assert await datas(first, 3) == [b"a0", b"a1", b"a2"]
        async with reading(broker, "b", limit=1) as second:
            assert await datas(second, 3) == [b"b0", b"b1", b"b2"]


async def test_a_topic_twice(server):
    async with opened(server, consumer_id="twice") as broker, reading(broker, "twice"):
        with pytest.RaisesGroup(pytest.RaisesExc(PubSubError, match="already"), allow_unwrapped=True):
            async with reading(broker, "twice"):
                pass


@pytest.mark.parametrize("topic", ["", "a/#", "+", "nul\0"])
async def test_topics_nobody_can_publish_to(server, topic):
    async with opened(server, consumer_id="refused") as broker:
        with pytest.raises(InvalidArgument):
            await broker.publish(PublishRequest(topic, b"1"))
        with pytest.raises(BulkPublishError):
            await broker.bulk_publish([PublishRequest(topic, b"1")])


@pytest.mark.parametrize("topic", ["", "a/#/b", "a+/b", "$share/group/"])
async def test_topics_nobody_can_subscribe_to(server, topic):
    async with opened(server, consumer_id="refused") as broker:
        with pytest.RaisesGroup(InvalidArgument, allow_unwrapped=True):
            async with reading(broker, topic):
                pass


def options_of(**values):
    return load_options(pubsub_mqtt3.metadata, [*values.items()])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"url": "localhost:1883"}, "url"),
        ({"url": "ws://localhost"}, "scheme 'ws'"),
        ({"url": "tcp://:1883"}, "names no host"),
        ({"qos": "3"}, "qos"),
        ({"clientCert": "x"}, "clientKey"),
        ({"url": "ssl://h", "caCert": "no certificate"}, "caCert"),
        ({"redeliverInterval": "-1s"}, "redeliverInterval"),
        ({"topics": "a"}, "topics"),
    ],
)
def test_mistakes_in_the_metadata(values, complaint):
    with pytest.raises(ConfigError, match=complaint):
        options_of(**{"url": "tcp://localhost:1883", **values})


def test_what_dapr_documents_is_accepted():
    options = options_of(
        url="tcp://user:pass@localhost:1883",
        consumerID="me",
        retain="false",
        cleanSession="false",
        qos="1",
        backOffMaxRetries="3",
    )
    assert "pass" not in repr(options)
