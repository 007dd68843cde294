"""pubsub.jetstream against a real nats-server: conformance, what Dapr writes and reads, metadata."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
from meshnode_jetstream import Options, driver
from nats.js.api import ConsumerConfig, DiscardPolicy
from nats.js.errors import NotFoundError
from support.nats_servers import find_nats_server, jetstream_api, nats_server

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import (
    BulkPublishError,
    ComponentError,
    ComponentUnavailable,
    ConfigError,
    InvalidArgument,
    PubSubError,
    Status,
)
from meshnode.interfaces import (
    DriverContext,
    Outcome,
    PublishRequest,
    PubSubFeature,
    SubscribeRequest,
)
from meshnode.registry import load_options
from meshnode.testing.conformance import pubsub

CONTEXT = DriverContext("pubsub", "app")
PULL = pubsub.Promises(
    features=frozenset({PubSubFeature.BULK_PUBSUB}),
    keeps_order=True,
    refused=lambda topic: PublishRequest(topic, bytes(2_000_000)),
)
# A push consumer is served by the server's choice: a busy member of the group holds what it was sent.
PUSH = pubsub.Promises(features=PULL.features, keeps_order=True, side_by_side=False, refused=PULL.refused)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if find_nats_server() is None:
        pytest.skip("nats-server is not installed")
    with nats_server(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture
async def loop(server):
    """A trio-asyncio loop, and a stream for every topic of one word."""
    async with asyncio_loop(True):
        await jetstream_api(server, "add_stream", name="ALL", subjects=["*"])
        yield


@asynccontextmanager
async def opened(server, **options):
    async with driver.open(Options(nats_url=server.url, **options), CONTEXT) as broker:
        yield broker


@asynccontextmanager
async def reading(broker, topic, answer=None, limit=None):
    """A subscription, and a channel with what it delivers; stopped on the way out."""
    send, receive = trio.open_memory_channel(1000)
    stop = trio.Event()

    async def deliver(message):
        await send.send(message)
        return Outcome.ACK if answer is None else await answer(message)

    async def subscribe(task_status):
        await broker.subscribe(
            SubscribeRequest(topic, max_in_flight=limit), deliver, stop, task_status=task_status
        )

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(subscribe)
            yield receive
            stop.set()


async def consumer(server, name):
    return await jetstream_api(server, "consumer_info", "ALL", name)


@pytest.mark.parametrize("check", pubsub.checks_for(PULL), ids=str)
async def test_conformance_of_a_pull_consumer(check, server, loop):
    def open_group(group):
        return opened(server, durable_name=group, concurrency="parallel")

    assert await check.run(pubsub.Setup(open_group, PULL))


@pytest.mark.parametrize("check", pubsub.checks_for(PUSH), ids=str)
async def test_conformance_of_a_push_consumer(check, server, loop):
    def open_group(group):
        return opened(server, durable_name=group, queue_group_name=group)

    assert await check.run(pubsub.Setup(open_group, PUSH))


async def test_what_is_published_is_as_from_dapr(server, loop):
    """The bare data, and the event's id by which the server recognises it."""
    event = json.dumps({"specversion": "1.0", "id": "e1", "data": 1}).encode()
    async with opened(server) as broker:
        await broker.publish(PublishRequest("written", event, "application/cloudevents+json"))
        await broker.publish(PublishRequest("written", event))
        await broker.publish(PublishRequest("written", b'{"id": "e1"}'))
        await broker.bulk_publish(
            [PublishRequest("written", b'{"id": "e1"}'), PublishRequest("written", event)]
        )
    stored = await jetstream_api(server, "stream_info", "ALL", subjects_filter="written")
    assert stored.state.subjects == {"written": 3}
    first = await jetstream_api(server, "get_last_msg", "ALL", "written")
    assert first.data == b'{"id": "e1"}'
    assert not first.headers


async def test_an_event_goes_to_its_dead_letter_topic_too(server, loop):
    """The same event in another topic of the same stream is no duplicate."""
    event = json.dumps({"specversion": "1.0", "id": "once"}).encode()
    async with opened(server) as broker:
        for topic in ("letters", "dead", "dead"):
            await broker.publish(PublishRequest(topic, event))
    for topic in ("letters", "dead"):
        stored = await jetstream_api(server, "stream_info", "ALL", subjects_filter=topic)
        assert stored.state.subjects == {topic: 1}


async def test_what_dapr_published_is_read(server, loop):
    event = b'{"specversion":"1.0","id":"x","data":{"n":1},"pubsubname":"p","topic":"fromdapr"}'
    await jetstream_api(server, "publish", "fromdapr", event, headers={"Nats-Msg-Id": "x"})
    async with opened(server) as broker, reading(broker, "fromdapr") as messages:
        message = await messages.receive()
        assert message.data == event
        assert message.topic == "fromdapr"
        assert message.metadata == {
            "Topic": "fromdapr",
            "Nats-Msg-Id": "x",
            "Nats-Sequence": message.metadata["Nats-Sequence"],
            "Nats-Num-Delivered": "1",
        }


@pytest.mark.parametrize("group", ["workers", ""])
async def test_a_consumer_that_dapr_made_is_shared(server, loop, group):
    """Dapr's are push consumers, with or without a queue group."""
    name = f"made-by-dapr-{group}"
    made = ConsumerConfig(
        durable_name=name,
        deliver_subject=f"_INBOX.dapr{group}",
        deliver_group=group or None,
        filter_subject=f"shared{group}",
    )
    await jetstream_api(server, "add_consumer", "ALL", made)
    async with (
        opened(server, durable_name=name, queue_group_name=group) as broker,
        reading(broker, f"shared{group}") as messages,
    ):
        for number in range(5):
            await jetstream_api(server, "publish", f"shared{group}", b"%d" % number)
        assert [(await messages.receive()).data for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    info = await consumer(server, name)
    assert info.num_ack_pending == 0
    assert not info.push_bound


async def test_a_push_consumer_without_a_group_has_one_subscriber(server, loop):
    made = ConsumerConfig(durable_name="lonely", deliver_subject="_INBOX.lonely", filter_subject="lonely")
    await jetstream_api(server, "add_consumer", "ALL", made)
    async with (
        opened(server, durable_name="lonely") as broker,
        reading(broker, "lonely"),
        opened(server, durable_name="lonely") as other,
    ):
        with pytest.RaisesGroup(ComponentUnavailable, allow_unwrapped=True, flatten_subgroups=True):
            async with reading(other, "lonely"):
                pass


async def test_a_group_that_is_another(server, loop):
    made = ConsumerConfig(
        durable_name="grouped", deliver_subject="_INBOX.grouped", deliver_group="g", filter_subject="grouped"
    )
    await jetstream_api(server, "add_consumer", "ALL", made)
    async with opened(server, durable_name="grouped") as broker:
        with pytest.RaisesGroup(pytest.RaisesExc(PubSubError, match="queueGroupName"), allow_unwrapped=True):
            async with reading(broker, "grouped"):
                pass


async def test_the_consumer_is_as_the_metadata_says(server, loop):
    options = {
        "durable_name": "described",
        "back_off": "100ms, 2s",
        "max_deliver": 5,
        "max_ack_pending": 7,
        "memory_storage": True,
        "replicas": 1,
        "deliver_policy": "sequence",
        "start_sequence": 2,
        "flow_control": True,
        "rate_limit": 100_000_000,
    }
    async with opened(server, **options) as broker, reading(broker, "described"):
        config = (await consumer(server, "described")).config
    assert config.deliver_subject.startswith("_INBOX.meshnode-")
    assert config.backoff == [0.1, 2.0]
    assert (config.max_deliver, config.max_ack_pending, config.num_replicas) == (5, 7, 1)
    assert config.mem_storage
    assert config.flow_control
    assert config.idle_heartbeat == 5.0
    assert (config.deliver_policy, config.opt_start_seq) == ("by_start_sequence", 2)
    assert config.rate_limit_bps == 100_000_000


async def test_a_consumer_of_its_own_is_deleted(server, loop):
    async with opened(server) as broker, reading(broker, "passing"):
        before = await jetstream_api(server, "consumers_info", "ALL")
        own = [one.name for one in before if one.config.filter_subject == "passing"]
        assert len(own) == 1
    with pytest.raises(NotFoundError):
        await consumer(server, own[0])


async def test_no_acknowledgements(server, loop):
    """The server forgets as it sends; what fails is tried again here."""
    failed = []

    async def answer(message):
        if len(failed) < 2:
            failed.append(message.data)
            return Outcome.RETRY
        return Outcome.ACK

    async with opened(server, ack_policy="none") as broker, reading(broker, "careless", answer) as messages:
        bodies = [b"%d" % number for number in range(50)]
        await broker.bulk_publish([PublishRequest("careless", data) for data in bodies])
        received = [(await messages.receive()).data for _ in range(52)]
        assert received == [b"0", b"0", *bodies]


@pytest.mark.parametrize("group", ["", "everybody"])
async def test_acknowledging_all_loses_nothing(server, loop, group):
    """The acknowledgement of a later message is one for those before it: none overtakes one that failed."""
    name = f"all{group}"
    seen = []

    async def answer(message):
        seen.append(message.data)
        return Outcome.RETRY if seen.count(b"1") == 1 and message.data == b"1" else Outcome.ACK

    options = {
        "durable_name": name,
        "queue_group_name": group,
        "ack_policy": "all",
        "concurrency": "parallel",
    }
    async with opened(server, **options) as broker:
        await broker.bulk_publish([PublishRequest(name, b"%d" % number) for number in range(4)])
        async with reading(broker, name, answer) as messages:
            for _ in range(5):
                await messages.receive()
    assert seen == [b"0", b"1", b"1", b"2", b"3"]


async def test_a_long_delivery_stays_ours(server, loop):
    """Longer than ackWait, waiting messages included."""
    gate = trio.Event()

    async def answer(_message):
        await gate.wait()
        return Outcome.ACK

    wait = timedelta(seconds=0.3)
    async with opened(server, durable_name="slow", queue_group_name="g", ack_wait=wait) as broker:
        async with reading(broker, "slow", answer) as messages:
            await broker.bulk_publish([PublishRequest("slow", b"%d" % number) for number in range(3)])
            await messages.receive()
            await trio.sleep(1.2)  # four times what the server waits for
            gate.set()
            assert [(await messages.receive()).data for _ in range(2)] == [b"1", b"2"]
        info = await consumer(server, "slow")
    assert (info.num_ack_pending, info.num_redelivered) == (0, 0)


async def test_pauses_between_deliveries(server, loop):
    """As backOff has them, and not more than maxDeliver."""

    async def answer(_message):
        return Outcome.RETRY

    options = {"durable_name": "backing", "back_off": "50ms, 100ms", "max_deliver": 3}
    async with opened(server, **options) as broker, reading(broker, "backing", answer) as messages:
        await broker.publish(PublishRequest("backing", b"1"))
        counts = [(await messages.receive()).metadata["Nats-Num-Delivered"] for _ in range(3)]
        assert counts == ["1", "2", "3"]
        with trio.move_on_after(0.4):
            pytest.fail(f"a fourth delivery: {await messages.receive()}")


async def test_a_limit_of_the_consumer_s(server, loop):
    """Pull requests are no larger than the consumer allows."""
    made = ConsumerConfig(durable_name="small", filter_subject="small")
    # nats-py has no word for it
    made.as_dict = partial(lambda given: {**given, "max_batch": 2}, made.as_dict())
    await jetstream_api(server, "add_consumer", "ALL", made)
    async with opened(server, durable_name="small", concurrency="parallel") as broker:
        await broker.bulk_publish([PublishRequest("small", b"%d" % number) for number in range(9)])
        async with reading(broker, "small") as messages:
            assert len([await messages.receive() for _ in range(9)]) == 9


async def test_a_topic_without_a_stream(server, loop):
    async with opened(server) as broker:
        with pytest.raises(ComponentError, match="no stream takes it"):
            await broker.publish(PublishRequest("nowhere.at.all", b"1"))
        with pytest.raises(ComponentError, match="no stream takes it"):
            await broker.bulk_publish([PublishRequest("nowhere.at.all", b"1")] * 2)
        async with reading(broker, "all-is-well"):
            pass
        with pytest.RaisesGroup(
            pytest.RaisesExc(PubSubError, match=r"no stream holds the subject nowhere\.at\.all"),
            allow_unwrapped=True,
            flatten_subgroups=True,
        ):
            async with reading(broker, "nowhere.at.all"):
                pass


async def test_a_full_stream(server, loop):
    await jetstream_api(
        server, "add_stream", name="FULL", subjects=["full.x"], max_msgs=1, discard=DiscardPolicy.NEW
    )
    async with opened(server) as broker:
        await broker.publish(PublishRequest("full.x", b"1"))
        with pytest.raises(PubSubError) as caught:
            await broker.publish(PublishRequest("full.x", b"2"))
        assert caught.value.code is Status.RESOURCE_EXHAUSTED
        with pytest.raises(BulkPublishError) as several:
            await broker.bulk_publish([PublishRequest("full.x", b"2"), PublishRequest("good", b"3")])
        assert list(several.value.failures) == [0]


async def test_a_topic_that_is_no_subject(server, loop):
    async with opened(server) as broker:
        for topic in ("two words", "", "line\r\nend"):
            with pytest.raises(InvalidArgument):
                await broker.publish(PublishRequest(topic, b"1"))


async def test_a_wildcard_names_the_topic_it_was_subscribed_with(server, loop):
    """As in Dapr; the subject is in the metadata."""
    await jetstream_api(server, "add_stream", name="WILD", subjects=["wild.>"])
    async with opened(server) as broker, reading(broker, "wild.*") as messages:
        await broker.publish(PublishRequest("wild.a", b"1"))
        message = await messages.receive()
        assert (message.topic, message.metadata["Topic"]) == ("wild.*", "wild.a")


def options_of(**values):
    return load_options(driver.metadata, [*values.items()])


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"jwt": "x"}, "seedKey"),
        ({"seedKey": "x"}, "jwt"),
        ({"tls_client_cert": "x"}, "tls_client_key"),
        ({"durableName": "a.b"}, "durableName"),
        ({"backOff": "1s, soon"}, "'soon' is no duration"),
        ({"backOff": "1s, 2s", "maxDeliver": "1"}, "maxDeliver"),
        ({"deliverPolicy": "later"}, "deliverPolicy"),
        ({"ackPolicy": "some"}, "ackPolicy"),
        ({"concurrency": "two"}, "concurrency"),
        ({"natsURL": "ws://localhost:80"}, "natsURL"),
        ({"startSequence": "-1"}, "startSequence"),
        ({"natsURL": " "}, "natsURL"),
    ],
)
def test_mistakes_in_the_metadata(values, complaint):
    with pytest.raises(ConfigError, match=complaint):
        options_of(**{"natsURL": "nats://localhost:4222", **values})


def test_where_the_api_is():
    url = {"natsURL": "nats://localhost:4222"}
    assert options_of(**url).prefix == "$JS.API"
    assert options_of(**url, domain="hub").prefix == "$JS.hub.API"
    assert options_of(**url, domain="hub", apiPrefix="$JS.edge.API.").prefix == "$JS.edge.API"


async def test_a_domain(tmp_path):
    if find_nats_server() is None:
        pytest.skip("nats-server is not installed")
    with nats_server(tmp_path, domain="hub") as other:
        async with asyncio_loop(True):
            await jetstream_api(other, "add_stream", name="ALL", subjects=["*"])
            async with opened(other, domain="hub", durable_name="d") as broker:
                await broker.publish(PublishRequest("t", b"1"))
                async with reading(broker, "t") as messages:
                    assert (await messages.receive()).data == b"1"
                assert (await consumer(other, "d")).num_ack_pending == 0


def test_the_example_of_dapr_s_documentation_is_accepted():
    options = options_of(
        natsURL="nats://localhost:4222, nats://other:4222",
        jwt="eyJhbGciOiJ",
        seedKey="SUACS34K",
        tls_client_cert="/path/to/tls.crt",
        tls_client_key="/path/to/tls.key",
        token="my-token",
        name="my-conn-name",
        streamName="my-stream",
        durableName="my-durable",
        queueGroupName="my-queue",
        startSequence="1",
        startTime="1630349391",
        deliverAll="false",
        flowControl="false",
        ackWait="10s",
        maxDeliver="5",
        backOff="50ms, 1s, 10s",
        maxAckPending="5000",
        replicas="1",
        memoryStorage="false",
        rateLimit="1024",
        hearbeat="15s",
        ackPolicy="explicit",
        concurrencyMode="parallel",
    )
    assert options.servers == ["nats://localhost:4222", "nats://other:4222"]
    assert options.pauses == [0.05, 1.0, 10.0]
    assert options.heartbeat.total_seconds() == 15
    assert options.limit == 5000
