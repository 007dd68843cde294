"""pubsub.rabbitmq against a real broker: conformance, Dapr's names, what others write and read, metadata."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count

import pytest
import trio
from meshnode_rabbitmq import PubSubOptions, pubsub
from support.rabbitmq_servers import rabbitmq, raw_client, watched_loop

from meshnode.config.options import load_options
from meshnode.errors import BulkPublishError, ComponentUnavailable, ConfigError, PubSubError, Status
from meshnode.interfaces import (
    DriverContext,
    Message,
    Outcome,
    PublishRequest,
    PubSubFeature,
    SubscribeRequest,
)
from meshnode.testing.conformance import pubsub as conformance

__all__ = ["rabbitmq"]

CONTEXT = DriverContext("pubsub", "app")
SHORT = timedelta(milliseconds=50)
PROMISES = conformance.Promises(
    features=frozenset({PubSubFeature.MESSAGE_TTL, PubSubFeature.BULK_PUBSUB}),
    keeps_order=True,
    refused=lambda topic: PublishRequest(topic, b"x", metadata={"routingKey": "k" * 300}),
)

_topics = count()


def fresh_topic():
    return f"topic{next(_topics)}"


@pytest.fixture
async def server(rabbitmq):
    async with watched_loop():
        yield rabbitmq[0]


def options_of(server, **options):
    """What does not vanish with its last consumer, and is tried again soon."""
    given = {"deleted_when_unused": False, "redeliver_interval": SHORT, **options}
    return PubSubOptions(connection_string=server.url, **given)


def open_broker(server, **options):
    return pubsub.open(options_of(server, **options), CONTEXT)


class Subscription:
    """What a subscription was given, and its end."""

    def __init__(self, answer=None):
        self.messages: list[Message] = []
        self._answer = answer
        self._news = trio.Event()
        self.stop = trio.Event()

    async def deliver(self, message):
        self.messages.append(message)
        self._news.set()
        self._news = trio.Event()
        return Outcome.ACK if self._answer is None else await self._answer(message)

    async def has(self, number):
        with trio.fail_after(20):
            while len(self.messages) < number:
                await self._news.wait()

    @property
    def received(self):
        return [message.data for message in self.messages]


@asynccontextmanager
async def subscribed(broker, topic, answer=None, *, limit=None, **metadata):
    subscription = Subscription(answer)
    request = SubscribeRequest(topic, metadata, limit)
    async with trio.open_nursery() as nursery:

        async def run(*, task_status):
            await broker.subscribe(request, subscription.deliver, subscription.stop, task_status=task_status)

        with trio.fail_after(20):
            await nursery.start(run)
        yield subscription
        subscription.stop.set()


async def subscribe_in_vain(broker, request):
    ignored = trio.TASK_STATUS_IGNORED
    await broker.subscribe(request, Subscription().deliver, trio.Event(), task_status=ignored)


@pytest.mark.parametrize("check", conformance.checks_for(PROMISES), ids=str)
async def test_conformance(check, server):
    def open_group(group):
        return open_broker(server, consumer_id=group)

    assert await check.run(conformance.Setup(open_group, PROMISES))


async def test_names_and_arguments_at_the_broker_are_daprs(server):
    """A second declaration with the arguments that daprd uses is refused unless they are the same."""
    topic = fresh_topic()
    options = {"enable_dead_letter": True, "max_len": 7, "max_len_bytes": 7000}
    queue = f"group-{topic}"
    lengths = {"x-max-length": 7, "x-max-length-bytes": 7000}
    own = {
        "x-dead-letter-exchange": f"dlx-{queue}",
        "x-max-priority": 9,
        "x-queue-type": "classic",
        "x-single-active-consumer": True,
    }
    async with (
        open_broker(server, consumer_id="group", **options) as broker,
        raw_client(server) as raw,
        subscribed(broker, topic, maxPriority="9", singleActiveConsumer="true"),
    ):
        await raw.exchange(topic, "fanout", durable=True)
        await raw.exchange(f"dlx-{queue}", "fanout", durable=True)
        await raw.queue(f"dlq-{queue}", durable=True, arguments={**lengths, "x-queue-mode": "lazy"})
        await raw.queue(queue, durable=True, arguments={**lengths, **own})


async def test_defaults_at_the_broker_are_daprs(server):
    topic = fresh_topic()
    options = PubSubOptions(connection_string=server.url)
    async with (
        pubsub.open(options, CONTEXT) as broker,
        raw_client(server) as raw,
        subscribed(broker, topic),
    ):
        await raw.exchange(topic, "fanout", durable=True, auto_delete=True)
        arguments = {"x-queue-type": "classic"}
        await raw.queue(f"app-{topic}", durable=True, auto_delete=True, arguments=arguments)


async def test_what_daprd_publishes_is_delivered(server):
    topic = fresh_topic()
    event = b'{"specversion":"1.0","id":"1","type":"t","source":"s","data":"hello"}'
    async with (
        open_broker(server) as broker,
        raw_client(server) as raw,
        subscribed(broker, topic) as subscription,
    ):
        await raw.publish(event, exchange=topic, content_type="text/plain")
        await subscription.has(1)
    (message,) = subscription.messages
    assert (message.topic, message.data, message.content_type) == (topic, event, "text/plain")
    assert message.metadata == {}


async def test_properties_and_headers_in_metadata(server):
    topic = fresh_topic()
    options = {"properties_to_metadata": True}
    async with (
        open_broker(server, **options) as broker,
        raw_client(server) as raw,
        subscribed(broker, topic) as subscription,
    ):
        await raw.publish(
            b"x",
            exchange=topic,
            content_type="text/plain",
            message_id="7",
            correlation_id="c",
            message_type="kind",
            headers={"text": "a", "number": 3, "yes": True, "none": None},
        )
        await subscription.has(1)
    assert subscription.messages[0].metadata == {
        "metadata.messageid": "7",
        "metadata.correlationid": "c",
        "metadata.type": "kind",
        "metadata.contenttype": "text/plain",
        "metadata.text": "a",
        "metadata.number": "3",
        "metadata.yes": "true",
    }


async def test_what_others_read(server):
    """The message's properties at the broker."""
    topic, queue = fresh_topic(), fresh_topic()
    metadata = {"messageId": "7", "correlationid": "c", "type": "kind", "priority": "300", "other": "x"}
    async with open_broker(server) as broker, raw_client(server) as raw:
        await raw.exchange(topic, durable=True)
        await raw.queue(queue)
        await raw.bind(queue, topic)
        await broker.publish(PublishRequest(topic, b"1", "application/json", 5.5, metadata))
        await broker.publish(PublishRequest(topic, b"2", metadata={"contentType": "a/b", "priority": "high"}))
        await broker.publish(PublishRequest(topic, b"3"))
        first, second, third = [(await raw.get(queue)).header.properties for _ in range(3)]
    assert (first.content_type, first.delivery_mode, first.priority) == ("application/json", 2, 255)
    assert (first.message_id, first.correlation_id, first.message_type) == ("7", "c", "kind")
    assert (first.expiration, first.headers) == ("5500", None)
    assert (second.content_type, second.priority, second.expiration) == ("a/b", None, None)
    assert third.content_type == "text/plain"


async def test_default_ttl_and_transient_messages(server):
    topic, queue = fresh_topic(), fresh_topic()
    options = {"ttl_in_seconds": timedelta(seconds=9), "delivery_mode": 0}
    async with open_broker(server, **options) as broker, raw_client(server) as raw:
        await raw.exchange(topic, durable=True)
        await raw.queue(queue)
        await raw.bind(queue, topic)
        await broker.publish(PublishRequest(topic, b"1"))
        await broker.publish(PublishRequest(topic, b"2", ttl=1))
        first, second = [(await raw.get(queue)).header.properties for _ in range(2)]
    assert (first.expiration, second.expiration) == ("9000", "1000")
    assert first.delivery_mode == 1


async def test_routing_keys_of_a_topic_exchange(server):
    topic = fresh_topic()
    async with (
        open_broker(server, exchange_kind="topic") as broker,
        subscribed(broker, topic, routingKey="a.*,b", queueName=f"own-{topic}") as subscription,
        raw_client(server) as raw,
    ):
        for key in ("a.1", "c", "b", ""):
            await broker.publish(PublishRequest(topic, key.encode(), metadata={"routingKey": key}))
        await subscription.has(2)
        assert await raw.counts(f"own-{topic}") == (0, 1)
    assert sorted(subscription.received) == [b"a.1", b"b"]


async def test_a_quorum_queue(server):
    topic = fresh_topic()
    tries = []

    async def second_time(message):
        tries.append(message)
        return Outcome.ACK if len(tries) > 1 else Outcome.RETRY

    options = {"properties_to_metadata": True}
    async with (
        open_broker(server, **options) as broker,
        subscribed(broker, topic, second_time, queueType="quorum") as subscription,
    ):
        await broker.publish(PublishRequest(topic, b"1"))
        await subscription.has(2)
    assert subscription.messages[1].metadata["metadata.x-delivery-count"] == "1"


async def test_failed_messages_are_dead_lettered_by_the_broker(server):
    topic = fresh_topic()

    async def fail(_message):
        return Outcome.RETRY

    async with open_broker(server, enable_dead_letter=True) as broker, raw_client(server) as raw:
        async with subscribed(broker, topic, fail) as subscription:
            await broker.publish(PublishRequest(topic, b"bad"))
            await subscription.has(1)
        assert await raw.counts(f"app-{topic}") == (0, 0)
        message = await raw.get(f"dlq-app-{topic}")
    assert message.body == b"bad"
    assert subscription.received == [b"bad"]


@pytest.mark.parametrize("options", [{"requeue_in_failure": False}, {"auto_ack": True}], ids=str)
async def test_failed_messages_may_be_given_up(server, options):
    topic = fresh_topic()

    async def fail(_message):
        return Outcome.RETRY

    async with open_broker(server, **options) as broker, raw_client(server) as raw:
        async with subscribed(broker, topic, fail) as subscription:
            await broker.publish(PublishRequest(topic, b"1"))
            await subscription.has(1)
        assert await raw.counts(f"app-{topic}") == (0, 0)
    assert subscription.received == [b"1"]


async def test_single_concurrency_keeps_the_order_over_redeliveries(server):
    topic = fresh_topic()
    failed = []

    async def fail_first(message):
        if message.data == b"1" and len(failed) < 2:
            failed.append(message)
            return Outcome.RETRY
        return Outcome.ACK

    async with (
        open_broker(server, concurrency="single") as broker,
        subscribed(broker, topic, fail_first, limit=5) as subscription,
    ):
        await broker.bulk_publish([PublishRequest(topic, b"%d" % number) for number in range(5)])
        await subscription.has(7)
    assert subscription.received == [b"0", b"1", b"1", b"1", b"2", b"3", b"4"]


async def test_a_slow_consumer_holds_no_more_than_its_limit(server):
    """The others wait at the broker, for whoever has time."""
    topic = fresh_topic()
    gate = trio.Event()

    async def slow(_message):
        await gate.wait()
        return Outcome.ACK

    async with open_broker(server) as broker, raw_client(server) as raw:
        async with subscribed(broker, topic, slow, limit=3) as subscription:
            await broker.bulk_publish([PublishRequest(topic, b"x")] * 20)
            await subscription.has(3)
            assert await raw.counts(f"app-{topic}") == (17, 1)
            gate.set()
            await subscription.has(20)
        assert await raw.counts(f"app-{topic}") == (0, 0)


async def test_prefetched_messages_go_back_at_the_stop(server):
    topic = fresh_topic()
    gate = trio.Event()

    async def slow(_message):
        await gate.wait()
        return Outcome.ACK

    async with open_broker(server, prefetch_count=10, concurrency="single") as broker:
        async with raw_client(server) as raw, subscribed(broker, topic, slow) as subscription:
            await broker.bulk_publish([PublishRequest(topic, b"%d" % number) for number in range(5)])
            await subscription.has(1)
            assert await raw.counts(f"app-{topic}") == (0, 1)
            subscription.stop.set()
            with trio.fail_after(20):
                while await raw.counts(f"app-{topic}") != (4, 0):
                    pass
            gate.set()
        async with raw_client(server) as raw:
            bodies = [(await raw.get(f"app-{topic}")).body for _ in range(4)]
    assert bodies == [b"1", b"2", b"3", b"4"]
    assert subscription.received == [b"0"]


async def test_a_message_that_waits_to_be_tried_again_goes_back_at_the_stop(server):
    topic = fresh_topic()

    async def fail(_message):
        return Outcome.RETRY

    options = {"redeliver_interval": timedelta(hours=1)}
    async with open_broker(server, **options) as broker, raw_client(server) as raw:
        with trio.fail_after(20):
            async with subscribed(broker, topic, fail) as subscription:
                await broker.publish(PublishRequest(topic, b"1"))
                await subscription.has(1)
        assert await raw.counts(f"app-{topic}") == (1, 0)


async def test_publishing_to_an_exchange_that_was_deleted(server):
    """As exchanges are with their last queue, by Dapr's default. It is declared again."""
    topic = fresh_topic()
    async with open_broker(server) as broker, raw_client(server) as raw:
        await broker.publish(PublishRequest(topic, b"1"))
        await raw.delete_exchange(topic)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(broker.publish, PublishRequest(topic, b"%d" % number))
        await raw.exchange(topic, durable=True)


async def test_subscriptions_cancelled_at_any_moment_leave_no_consumer(server):
    topic = fresh_topic()
    async with open_broker(server) as broker, raw_client(server) as raw:
        for turn in range(30):
            with trio.move_on_after(turn / 2000):
                await subscribe_in_vain(broker, SubscribeRequest(topic))
        assert await raw.counts(f"app-{topic}") == (0, 0)


async def test_a_queue_that_is_deleted_ends_its_subscription(server):
    topic = fresh_topic()
    async with open_broker(server) as broker, raw_client(server) as raw:
        with pytest.RaisesGroup(
            pytest.RaisesExc(ComponentUnavailable, match="the broker ended the consumer")
        ):
            async with subscribed(broker, topic):
                await raw.delete_queue(f"app-{topic}")
                with trio.fail_after(20):
                    await trio.sleep_forever()


async def test_a_queue_that_is_there_with_other_arguments(server):
    topic = fresh_topic()
    async with open_broker(server) as broker, raw_client(server) as raw:
        await raw.queue(f"app-{topic}", durable=False)
        with pytest.raises(PubSubError, match="inequivalent arg 'durable'"):
            await subscribe_in_vain(broker, SubscribeRequest(topic))


async def test_topology_that_is_not_ours(server):
    topic = fresh_topic()
    options = {"exchange_declare_mode": "passive", "queue_declare_mode": "passive"}
    async with open_broker(server, **options) as broker, raw_client(server) as raw:
        with pytest.raises(PubSubError, match=f"no exchange '{topic}'"):
            await broker.publish(PublishRequest(topic, b"1"))
        await raw.exchange(topic, "direct")
        await raw.queue(f"app-{topic}")
        await raw.bind(f"app-{topic}", topic, "key")
        async with subscribed(broker, topic) as subscription:
            await broker.publish(PublishRequest(topic, b"1", metadata={"routingKey": "key"}))
            await broker.publish(PublishRequest(topic, b"2", metadata={"routingKey": "other"}))
            await subscription.has(1)
        assert subscription.received == [b"1"]


async def test_a_bulk_publication_names_what_failed(server):
    topic = fresh_topic()
    requests = [PublishRequest(topic, b"%d" % number) for number in range(4)]
    requests[1] = PublishRequest(topic, b"1", metadata={"correlationId": "c" * 256})
    async with open_broker(server) as broker, subscribed(broker, topic) as subscription:
        with pytest.raises(BulkPublishError) as raised:
            await broker.bulk_publish(requests)
        await subscription.has(3)
    assert list(raised.value.failures) == [1]
    assert raised.value.failures[1].code is Status.INVALID_ARGUMENT
    assert subscription.received == [b"0", b"2", b"3"]


async def test_large_and_empty_messages(server):
    topic = fresh_topic()
    bodies = [b"", b"x" * 131072, b"y" * 1_000_003]
    async with open_broker(server) as broker, subscribed(broker, topic) as subscription:
        for body in bodies:
            await broker.publish(PublishRequest(topic, body))
        await subscription.has(3)
    assert subscription.received == bodies


async def test_cancelled_publications_leave_the_others_their_confirms(server):
    topic = fresh_topic()
    done = []
    async with open_broker(server) as broker, subscribed(broker, topic) as subscription:

        async def publish(number):
            with trio.CancelScope() as scope:
                if number % 2:
                    scope.cancel()
                await broker.publish(PublishRequest(topic, b"%d" % number))
                done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(publish, number)
        assert sorted(done) == list(range(0, 40, 2))
        await subscription.has(20)


async def test_tls_and_login_by_certificate(server, rabbitmq):
    authority = rabbitmq[1]
    certificate, key = authority.issue("client")
    topic = fresh_topic()
    options = PubSubOptions(
        protocol="amqps",
        hostname=f"localhost:{server.tls_port}",
        ca_cert=authority.certificate,
        client_cert=certificate,
        client_key=key,
        sasl_external=True,
    )
    async with pubsub.open(options, CONTEXT) as broker, subscribed(broker, topic) as subscription:
        await broker.publish(PublishRequest(topic, b"secret"))
        await subscription.has(1)
        await broker.ping()


async def test_a_certificate_that_nobody_signed(server):
    options = PubSubOptions(connection_string=f"amqps://guest:guest@localhost:{server.tls_port}")
    with pytest.raises(ComponentUnavailable, match="certificate"):
        async with pubsub.open(options, CONTEXT):
            pass


async def test_a_wrong_password(server):
    options = PubSubOptions(hostname=f"127.0.0.1:{server.port}", username="guest", password="wr:o/ng@")
    with pytest.raises(ComponentUnavailable, match="ACCESS_REFUSED") as raised:
        async with pubsub.open(options, CONTEXT):
            pass
    assert "ng@" not in str(raised.value)


async def test_a_virtual_host_that_is_not_there(server):
    options = PubSubOptions(connection_string=f"{server.url}/no%2Fwhere")
    with pytest.raises(ComponentUnavailable, match="no/where"):
        async with pubsub.open(options, CONTEXT):
            pass


@pytest.mark.parametrize(
    "metadata",
    [{"queueType": "stream"}, {"maxLen": "many"}, {"maxLenBytes": "-1"}, {"maxPriority": "high"}],
    ids=str,
)
async def test_impossible_subscription_metadata(server, metadata):
    (name,) = metadata
    async with open_broker(server) as broker:
        with pytest.raises(PubSubError, match=name) as raised:
            await subscribe_in_vain(broker, SubscribeRequest(fresh_topic(), metadata))
    assert raised.value.code is Status.INVALID_ARGUMENT


DOCUMENTED = {
    "connectionString": "amqp://guest:guest@localhost:5672",
    "protocol": "amqp",
    "hostname": "localhost",
    "username": "username",
    "password": "password",
    "consumerID": "channel1",
    "durable": "false",
    "deletedWhenUnused": "false",
    "autoAck": "false",
    "deliveryMode": "0",
    "requeueInFailure": "false",
    "prefetchCount": "0",
    "reconnectWait": "0",
    "concurrencyMode": "parallel",
    "publisherConfirm": "false",
    "enableDeadLetter": "true",
    "maxLen": "3000",
    "maxLenBytes": "10485760",
    "exchangeKind": "fanout",
    "saslExternal": "false",
    "ttlInSeconds": "60",
    "clientName": "pod",
    "heartBeat": "10s",
    "publishMessagePropertiesToMetadata": "true",
}
"""The component of Dapr's documentation."""


async def test_the_documented_component_is_understood():
    options = load_options(PubSubOptions, DOCUMENTED)
    assert (options.delivery_mode, options.requeues, options.enable_dead_letter) == (0, False, True)
    assert (options.ttl_in_seconds, options.limit(None)) == (timedelta(minutes=1), 100)


async def test_older_names():
    options = load_options(
        PubSubOptions,
        {"host": "amqp://u:p%40@rabbit/v%2Fh", "reconnectWaitSeconds": "5", "concurrency": "single"},
    )
    address = options.address
    assert (address.host, address.port, address.user, address.password) == ("rabbit", 5672, "u", "p@")
    assert (address.vhost, options.limit(8)) == ("v/h", 1)
    assert "p@" not in repr(options)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"connectionString": "http://localhost"}, "connectionString"),
        ({"connectionString": "amqp://a:1,b:2"}, "connectionString"),
        ({"connectionString": "amqp://host?heartbeat=3"}, "connectionString"),
        ({"connectionString": "amqp://host:port"}, "connectionString"),
        ({"hostname": ""}, "hostname"),
        ({"connectionString": "amqp://host", "protocol": "amqps"}, "protocol"),
        ({"deliveryMode": "3"}, "deliveryMode"),
        ({"prefetchCount": "256"}, "prefetchCount"),
        ({"maxLen": "-1"}, "maxLen"),
        ({"ttlInSeconds": "0"}, "ttlInSeconds"),
        ({"heartBeat": "20h"}, "heartBeat"),
        ({"redeliverInterval": "0"}, "redeliverInterval"),
        ({"exchangeKind": "x-delayed-message"}, "exchangeKind"),
        ({"caCert": "PEM"}, "caCert"),
        ({"protocol": "amqps", "caCert": "PEM"}, "caCert"),
        ({"protocol": "amqps", "clientCert": "PEM"}, "clientKey"),
        ({"protocol": "amqps", "saslExternal": "true"}, "saslExternal"),
        ({"concurrency": "double"}, "concurrency"),
        ({"prefetch": "3"}, "prefetch"),
    ],
    ids=str,
)
async def test_metadata_mistakes(metadata, field):
    with pytest.raises(ConfigError) as raised:
        load_options(PubSubOptions, metadata)
    assert [problem.field.rpartition(".")[2] for problem in raised.value.problems] == [field]
