"""pubsub.redis on real servers: the conformance suite in every topology, and Dapr's layout."""

from __future__ import annotations

from contextlib import AsyncExitStack, ExitStack

import pytest
import trio
from meshnode_redis.pubsub import Options, driver
from support.certificates import Authority
from support.redis_pubsub import CONTEXT, consumers, consuming, open_driver, pending, publish, until
from support.redis_servers import redis_cluster, redis_server, sentinel_group

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import BulkPublishError, ConfigError, PubSubError
from meshnode.interfaces import Outcome, PublishRequest, PubSubFeature
from meshnode.registry import Registry, load_options
from meshnode.testing.conformance import pubsub

pytestmark = pytest.mark.redis

PROMISES = pubsub.Promises(
    features=frozenset({PubSubFeature.BULK_PUBSUB}),
    keeps_order=True,
    keeps_unclaimed=True,
    keeps_metadata=True,
)


def plain(folder, stack):
    server = stack.enter_context(redis_server(folder))
    return {"host": server.address}


def with_user(folder, stack):
    """Without the commands that an administrator would keep to himself."""
    server = stack.enter_context(redis_server(folder, password="wrong-for-this-user"))
    server.command("ACL", "SETUSER", "mesh", "on", ">s3cret", "~*", "+@all", "-@dangerous")
    return {"host": server.address, "username": "mesh", "password": "s3cret", "db": 3}


def with_sentinel(folder, stack):
    _, _, sentinel = stack.enter_context(sentinel_group(folder, password="s3cret"))
    return {
        "host": sentinel.address,
        "failover": True,
        "sentinel_master_name": "mymaster",
        "password": "s3cret",
    }


def with_cluster(folder, stack):
    servers = stack.enter_context(redis_cluster(folder))
    return {"host": ",".join(server.address for server in servers), "type": "cluster"}


TOPOLOGIES = (plain, with_user, with_sentinel, with_cluster)


@pytest.fixture(scope="module", params=TOPOLOGIES, ids=lambda topology: topology.__name__)
def where(request, tmp_path_factory):
    with ExitStack() as stack:
        yield request.param(tmp_path_factory.mktemp("redis"), stack)


@pytest.mark.parametrize("check", pubsub.checks_for(PROMISES), ids=str)
async def test_conformance(check, where):
    """As a node does it: one trio-asyncio loop around all drivers."""

    def open_group(group):
        options = Options(**where, consumer_id=group, redeliver_interval="200ms")
        return driver.open(options, CONTEXT)

    async with asyncio_loop(True):
        assert await check.run(pubsub.Setup(open_group, PROMISES))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def topic(server):
    server.command("FLUSHALL")
    server.command("CONFIG", "RESETSTAT")
    return "orders"


async def sleep_forever(_message):
    await trio.sleep_forever()


def read_raw(server, topic):
    """Data and metadata of the stream's only entry, as the protocol has them."""
    return server.command("XRANGE", topic, "-", "+").split("\r\n")[4:]


async def test_layout_is_dapr_s(server, topic):
    async with open_driver(host=server.address) as broker:
        await publish(broker, topic, b"plain")
        assert read_raw(server, topic) == ["*2", "$4", "data", "$5", "plain", ""]
        server.command("DEL", topic)
        await publish(broker, topic, b"v", rawPayload="true", name="číslo")
        text = '{"rawPayload":"true","name":"číslo"}'
        size = f"${len(text.encode())}"
        assert read_raw(server, topic) == [
            *("*4", "$4", "data", "$1", "v", "$8", "metadata", size, text, ""),
        ]


async def test_group_is_dapr_s(server, topic):
    """Named as consumerID says, or else as the app; and it begins at the beginning."""
    server.command("XADD", topic, "*", "data", "old")
    async with open_driver(host=server.address) as broker, consuming(broker, topic) as consumer:
        await consumer.has(lambda: consumer.acknowledged == [b"old"])
    async with (
        open_driver(host=server.address, consumer_id="other") as broker,
        consuming(broker, topic) as consumer,
    ):
        await consumer.has(lambda: consumer.acknowledged == [b"old"])
    groups = server.command("XINFO", "GROUPS", topic).split("\r\n")
    assert [groups[at + 2] for at, word in enumerate(groups) if word == "name"] == ["app", "other"]


async def test_reads_what_daprd_wrote(server, topic, caplog):
    for fields in (
        ("data", "1"),
        ("data", "2", "metadata", '{"a":"b","traceid":""}'),
        ("metadata", "{}", "data", "3"),
        ("data", "4", "metadata", "null"),
        ("metadata", '{"only":"metadata"}'),
        ("data", "6", "metadata", "not JSON"),
        ("data", "7", "metadata", '{"text":"x","number":1}', "more", "fields"),
    ):
        server.command("XADD", topic, "*", *fields)
    async with open_driver(host=server.address) as broker, consuming(broker, topic, limit=1) as consumer:
        await consumer.has(lambda: len(consumer.acknowledged) == 7)
    assert consumer.data == [b"1", b"2", b"3", b"4", b"", b"6", b"7"]
    assert [message.metadata for message in consumer.messages] == [
        {},
        {"a": "b", "traceid": ""},
        {},
        {},
        {"only": "metadata"},
        {},
        {"text": "x"},
    ]
    assert caplog.text.count("metadata") == 2
    assert pending(server, topic) == []


async def test_takes_over_from_a_daprd_that_died(server, topic):
    """It reads under the group's name; what it had is taken once it has given no sign of life for long."""
    server.command("XGROUP", "CREATE", topic, "app", "0", "MKSTREAM")
    for data in ("a", "b"):
        server.command("XADD", topic, "*", "data", data)
    server.command("XREADGROUP", "GROUP", "app", "app", "STREAMS", topic, ">")
    (first, *_), (second, *_) = pending(server, topic)
    server.command("XCLAIM", topic, "app", "app", "0", first, "IDLE", "60000")
    server.command("XCLAIM", topic, "app", "app", "0", second, "IDLE", "1000")
    async with (
        open_driver(host=server.address, redeliver_interval="50ms") as broker,
        consuming(broker, topic) as consumer,
    ):
        await publish(broker, topic, b"c")
        await consumer.has(lambda: set(consumer.acknowledged) == {b"a", b"c"})
        server.command("XCLAIM", topic, "app", "app", "0", second, "IDLE", "60000")
        await consumer.has(lambda: set(consumer.acknowledged) == {b"a", b"b", b"c"})


async def test_what_failed_is_due_for_a_daprd_too(server, topic):
    async def fail(_message):
        return Outcome.RETRY

    async with open_driver(host=server.address, redeliver_interval="10s") as broker:
        async with consuming(broker, topic, fail) as consumer:
            await publish(broker, topic, b"bad")
            await until(lambda: [who for _, who, _ in pending(server, topic)] == ["app"])
            ((_, _, age),) = pending(server, topic)
            assert 50_000 <= age < 60_000  # processingTimeout less redeliverInterval: due in 10 s
        assert consumer.data == [b"bad"]
    assert consumers(server, topic) == ["app"]


async def test_what_was_given_back_is_due_at_once(server, topic):
    async with open_driver(host=server.address) as broker:
        async with consuming(broker, topic, sleep_forever, limit=2) as first:
            await publish(broker, topic, b"1", b"2", b"3")
            await first.has(lambda: len(first.messages) == 2)
            first.scope.cancel()
            await first.ended.wait()
        held = pending(server, topic)
        assert [who for _, who, _ in held] == ["app-returned"] * 2
        assert all(age > 86_400_000 for *_, age in held)  # daprds look for what is older than a minute
        async with consuming(broker, topic) as second:
            await second.has(lambda: sorted(second.acknowledged) == [b"1", b"2", b"3"])
    assert consumers(server, topic) == []
    assert pending(server, topic) == []


@pytest.mark.parametrize("end", ["stop", "cancel"])
async def test_no_consumer_stays_behind(server, topic, end):
    async with open_driver(host=server.address) as broker, consuming(broker, topic) as consumer:
        await publish(broker, topic, b"1")
        await consumer.has(lambda: consumer.acknowledged)
        assert len(consumers(server, topic)) == 1
        if end == "stop":
            consumer.stop.set()
        else:
            consumer.scope.cancel()
        with trio.fail_after(20):
            await consumer.ended.wait()
        assert consumers(server, topic) == []
        clients = server.command("CLIENT", "LIST")
        assert "cmd=xreadgroup" not in clients


async def test_a_slow_consumer_holds_no_more_than_its_limit(server, topic):
    async with open_driver(host=server.address, concurrency=3) as broker:
        await broker.bulk_publish([PublishRequest(topic, b"%d" % number) for number in range(200)])
        gate = trio.Event()

        async def wait(_message):
            await gate.wait()
            return Outcome.ACK

        async with consuming(broker, topic, wait) as slow:
            await slow.has(lambda: len(slow.messages) == 3)
            await publish(broker, topic, b"more")
            assert len(pending(server, topic)) == 3
            gate.set()
            await slow.has(lambda: len(slow.acknowledged) == 201)
        assert len(set(slow.data)) == 201


async def test_queue_depth_bounds_a_read(server, topic):
    async with open_driver(host=server.address, concurrency=50, queue_depth=2) as broker:
        await broker.bulk_publish([PublishRequest(topic, b"%d" % number) for number in range(20)])
        async with consuming(broker, topic) as consumer:
            await consumer.has(lambda: len(consumer.acknowledged) == 20)
    calls = server.command("INFO", "commandstats").split("cmdstat_xreadgroup:calls=")[1]
    assert int(calls.split(",")[0]) >= 10


async def test_streams_are_trimmed(server, topic):
    """About: servers drop whole blocks of a hundred entries."""
    async with open_driver(host=server.address, max_len_approx=100, stream_ttl="1h") as broker:
        await broker.bulk_publish([PublishRequest(topic, b"%d" % number) for number in range(500)])
    assert 100 <= int(server.command("XLEN", topic)[1:]) <= 200
    server.command("DEL", topic)
    for number in range(300):
        server.command("XADD", topic, f"{number + 1}-1", "data", "from 1970")
    async with open_driver(host=server.address, stream_ttl="1h") as broker:
        await publish(broker, topic, b"now")
    assert int(server.command("XLEN", topic)[1:]) <= 101


async def test_what_was_trimmed_while_pending_is_dropped(server, topic, caplog):
    async with open_driver(host=server.address, redeliver_interval="100ms") as broker:
        async with consuming(broker, topic, sleep_forever) as first:
            await publish(broker, topic, b"given back", b"and trimmed")
            await first.has(lambda: len(first.messages) == 2)
            first.scope.cancel()
            await first.ended.wait()
        server.command("XDEL", topic, pending(server, topic)[1][0])
        async with consuming(broker, topic) as second:
            await second.has(lambda: second.acknowledged == [b"given back"])
            await until(lambda: "was trimmed or deleted before" in caplog.text)
            await until(lambda: pending(server, topic) == [])

        async def fail(_message):
            return Outcome.RETRY

        caplog.clear()
        async with consuming(broker, topic, fail) as third:
            await publish(broker, topic, b"failed")
            await third.has(lambda: b"failed" in third.data)
            await until(lambda: [who for _, who, _ in pending(server, topic)] == ["app"])
            server.command("XTRIM", topic, "MAXLEN", "0")
            await until(lambda: pending(server, topic) == [])
        assert "was trimmed or deleted before" in caplog.text


async def test_what_takes_long_stays_ours(server, topic):
    """Several times the processing timeout, with another consumer looking, and a daprd."""
    times = {"processing_timeout": "400ms", "redeliver_interval": "50ms"}
    async with open_driver(host=server.address, **times) as broker:
        gate = trio.Event()

        async def wait(_message):
            await gate.wait()
            return Outcome.ACK

        async with consuming(broker, topic, wait) as slow:
            await publish(broker, topic, b"long")
            await slow.has(lambda: slow.messages)
            async with consuming(broker, topic) as other:
                ((entry, owner, _),) = pending(server, topic)
                await until(lambda: count_of(server, "xpending") > 40)
                assert server.command("XCLAIM", topic, "app", "app", "400", entry) == "*0\r\n"
                assert [(one, who) for one, who, _ in pending(server, topic)] == [(entry, owner)]
                gate.set()
                await slow.has(lambda: slow.acknowledged)
                assert other.messages == []
    assert pending(server, topic) == []


def count_of(server, command):
    tail = server.command("INFO", "commandstats").partition(f"cmdstat_{command}:calls=")[2]
    return int(tail.split(",")[0] or 0) if tail else 0


@pytest.mark.parametrize("off", ["processing_timeout", "redeliver_interval"])
async def test_redelivery_can_be_turned_off(server, topic, off):
    """What failed stays pending then, as with Dapr; what was given back is still taken."""
    outcomes = {b"bad": Outcome.RETRY, b"good": Outcome.ACK}

    async def answer(message):
        if message.data == b"slow":
            await trio.sleep_forever()
        return outcomes[message.data]

    async with open_driver(host=server.address, **{off: "0"}) as broker:
        async with consuming(broker, topic, answer) as first:
            await publish(broker, topic, b"bad", b"good", b"slow")
            await first.has(lambda: len(first.messages) == 3)
            await until(lambda: "app" in [who for _, who, _ in pending(server, topic)])
            first.scope.cancel()
            await first.ended.wait()
        async with consuming(broker, topic) as second:
            await second.has(lambda: second.acknowledged == [b"slow"])
    assert [who for _, who, _ in pending(server, topic)] == ["app"]


async def test_much_is_pending(server, topic):
    """More than one look goes through: all that failed comes again, and all that was given back."""
    bodies = {b"%d" % number for number in range(450)}

    async def fail_first(_message):
        return Outcome.RETRY if len(consumer.messages) <= 450 else Outcome.ACK

    async with open_driver(host=server.address, redeliver_interval="1s", concurrency=250) as broker:
        await broker.bulk_publish([PublishRequest(topic, data) for data in bodies])
        async with consuming(broker, topic, sleep_forever) as first:
            await first.has(lambda: len(first.messages) == 250)
            assert len(pending(server, topic)) == 250
            first.scope.cancel()
            await first.ended.wait()
        assert {who for _, who, _ in pending(server, topic)} == {"app-returned"}
        async with consuming(broker, topic, fail_first, limit=20) as consumer:
            await consumer.has(lambda: set(consumer.acknowledged) == bodies)
        assert set(consumer.data[:450]) == bodies
        assert len(consumer.data) == 900
    assert pending(server, topic) == []


async def test_errors_can_be_acknowledged(server, topic):
    async def fail(_message):
        return Outcome.RETRY

    async with (
        open_driver(host=server.address, ack_on_error=True) as broker,
        consuming(broker, topic, fail) as consumer,
    ):
        await publish(broker, topic, b"bad")
        await consumer.has(lambda: consumer.messages)
        await until(lambda: pending(server, topic) == [])


async def test_two_redelivery_times(server, topic):
    """An interval longer than the processing timeout is kept all the same."""

    async def fail_once(_message):
        return Outcome.RETRY if len(consumer.messages) == 1 else Outcome.ACK

    times = {"processing_timeout": "100ms", "redeliver_interval": "1s"}
    async with (
        open_driver(host=server.address, **times) as broker,
        consuming(broker, topic, fail_once) as consumer,
    ):
        await publish(broker, topic, b"bad")
        await until(lambda: [who for _, who, _ in pending(server, topic)] == ["app"])
        ((_, _, age),) = pending(server, topic)
        assert age < 1000
        await consumer.has(lambda: consumer.acknowledged)
    assert consumer.data == [b"bad", b"bad"]


async def test_a_topic_that_is_no_stream(server, topic):
    server.command("SET", topic, "a string")
    async with open_driver(host=server.address) as broker:
        with pytest.raises(PubSubError, match="WRONGTYPE"):
            await publish(broker, topic, b"1")
        with pytest.raises(BulkPublishError) as caught:
            await broker.bulk_publish([PublishRequest("fine", b"1"), PublishRequest(topic, b"2")])
        assert list(caught.value.failures) == [1]
        assert server.command("XLEN", "fine") == ":1\r\n"
        with pytest.raises(ExceptionGroup) as group:
            async with consuming(broker, topic):
                raise AssertionError("it started")
        assert group.group_contains(PubSubError, match="WRONGTYPE")


async def test_many_subscriptions(server, topic):
    async with open_driver(host=server.address) as broker, AsyncExitStack() as stack:
        names = [f"{topic}{number}" for number in range(120)]
        found = [await stack.enter_async_context(consuming(broker, name)) for name in names]
        for name in names:
            await publish(broker, name, name.encode())
        for name, consumer in zip(names, found, strict=True):
            await consumer.has(lambda consumer=consumer: consumer.acknowledged)
            assert consumer.data == [name.encode()]
        for consumer in found:
            consumer.stop.set()


async def test_over_tls(tmp_path):
    authority = Authority()
    ca, certificate, key = authority.write(tmp_path, "server")
    tls = ["--tls-ca-cert-file", str(ca), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    with redis_server(tmp_path, tls=tls) as server:
        client_cert, client_key = authority.issue("client")
        login = {"ca_cert": authority.certificate, "client_cert": client_cert, "client_key": client_key}
        async with (
            open_driver(host=server.address, enable_tls=True, **login) as broker,
            consuming(broker, "orders") as consumer,
        ):
            await publish(broker, "orders", b"1", b"x" * 1_000_000)
            await consumer.has(lambda: len(consumer.acknowledged) == 2)


def test_metadata_as_in_dapr():
    found = Registry.discover().driver("pubsub.redis", "v1")
    assert found is driver
    assert found.needs_asyncio
    options = load_options(
        found.metadata,
        {
            "redisHost": "a:6379,b:6380",
            "redisPassword": "",
            "redisType": "cluster",
            "enableTLS": "false",
            "consumerID": "group",
            "processingTimeout": "600000",
            "redeliverInterval": "30s",
            "queueDepth": "1000",
            "concurrency": "15",
            "maxLenApprox": "10000",
            "streamTTL": "720h",
            "ackOnError": "true",
            "redisMaxRetries": "5",
            "idleCheckFrequency": "-1",
            "poolTimeout": "5s",
            "maxConnAge": "30m",
            "minIdleConns": "2",
            "sentinelUsername": "",
        },
    )
    assert (options.processing, options.redelivery, options.due_after) == (600, 30, 600)
    assert (options.trim_after, options.ack_on_error) == (2_592_000, True)


def test_defaults_are_dapr_s():
    options = Options(host="h")
    assert (options.processing, options.redelivery, options.redelivers) == (60, 15, True)
    assert (options.queue_depth, options.concurrency, options.max_len_approx) == (100, 10, 0)
    empty = Options(host="h", processing_timeout="", redeliver_interval="", stream_ttl="")
    assert (empty.processing, empty.redelivery, empty.trim_after) == (60, 15, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("processingTimeout", "soon"),
        ("redeliverInterval", "-5s"),
        ("streamTTL", "30d"),
        ("concurrency", "0"),
        ("queueDepth", "-1"),
        ("maxLenApprox", "many"),
        ("ackOnError", "perhaps"),
        ("redisPort", "70000"),
        ("useEntraID", "true"),
        ("consumerId2", "x"),
        ("ttlInSeconds", "5"),
    ],
)
def test_mistakes_are_named(name, value):
    with pytest.raises(ConfigError, match=name):
        load_options(driver.metadata, {"redisHost": "h", name: value})
