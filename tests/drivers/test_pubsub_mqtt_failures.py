"""pubsub.mqtt3 when things break: a broker that dies, stalls, refuses; a node that dies; hostile peers."""

from __future__ import annotations

import base64
import hashlib
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
import trio
import trio.testing
import trustme
from meshnode_mqtt import PubSubOptions, pubsub_mqtt3
from support.mosquitto_servers import find_mosquitto, mosquitto_server
from support.redis_servers import free_port

from meshnode.errors import BulkPublishError, ComponentUnavailable
from meshnode.interfaces import DriverContext, Outcome, PublishRequest, SubscribeRequest

CONTEXT = DriverContext("pubsub", "app")


@pytest.fixture
def server(tmp_path):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with mosquitto_server(tmp_path) as running:
        yield running


def opened(server, **options):
    options = {"url": server.url, "redeliver_interval": timedelta(seconds=0.1), **options}
    return pubsub_mqtt3.open(PubSubOptions(**options), CONTEXT)


class Reader:
    """A subscription that is made again when it fails, as the node does; and what it delivered."""

    def __init__(self, broker, topic="t", answer=None, limit=None):
        self._broker = broker
        self._request = SubscribeRequest(topic, max_in_flight=limit)
        self._answer = answer
        self._send, self.messages = trio.open_memory_channel(100_000)
        self.stop = trio.Event()
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.failures = []

    async def _deliver(self, message):
        await self._send.send(message)
        return Outcome.ACK if self._answer is None else await self._answer(message)

    async def run(self, task_status):
        started = False

        class Status:
            def started(self):
                nonlocal started
                if not started:
                    started = True
                    task_status.started()

        with self.scope:
            while not self.stop.is_set():
                try:
                    await self._broker.subscribe(
                        self._request, self._deliver, self.stop, task_status=Status()
                    )
                except ComponentUnavailable as error:
                    self.failures.append(error)
                    await trio.sleep(0.1)
        self.ended.set()

    async def datas(self, count):
        return [(await self.messages.receive()).data for _ in range(count)]

    async def until(self, data):
        while (await self.messages.receive()).data != data:
            pass


@asynccontextmanager
async def reading(broker, *arguments, **options):
    reader = Reader(broker, *arguments, **options)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(reader.run)
            yield reader
            reader.stop.set()


async def until_it_works(operation, *arguments):
    """Tries again for as long as the broker is unavailable, as a resiliency policy would."""
    with trio.fail_after(30):
        while True:
            try:
                return await operation(*arguments)
            except ComponentUnavailable:
                await trio.sleep(0.05)


async def never(_message):
    await trio.sleep_forever()


async def test_no_broker_at_open():
    options = PubSubOptions(url=f"tcp://127.0.0.1:{free_port()}")
    with trio.fail_after(20), pytest.raises(ComponentUnavailable, match="mqtt broker at 127"):
        async with pubsub_mqtt3.open(options, CONTEXT):
            pass


@asynccontextmanager
async def peer(*answers):
    """Answers the first bytes of each connection with one of these, and says no more."""
    remaining = list(answers)

    async def serve(stream):
        async with stream:
            await stream.receive_some(65536)
            if remaining:
                answer = remaining.pop(0)
                await stream.send_all(answer)
                if not answer.endswith(b"!"):
                    return
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"tcp://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_opening_can_be_cancelled():
    async with peer() as url:
        with trio.fail_after(20), trio.move_on_after(0.1) as scope:
            async with pubsub_mqtt3.open(PubSubOptions(url=url), CONTEXT):
                pass
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x20\x02\x00\x04", "wrong user name or password"),
        (b"\x20\x02\x00\x05", "not authorised"),
        (b"\x20\x02\x00\x63", "refused with code 99"),
        (b"\x20\x01\x00", "malformed CONNACK"),
        (b"\x90\x03\x00\x01\x00", "the first packet is not CONNACK"),
        (b"HTTP/1.1 400 Bad Request\r\n", "a packet of type 4|malformed|closed"),
        (b"\x20\xff\xff\xff\xff\xff", "a length of more than four bytes"),
        (b"", "closed the connection"),
    ],
)
async def test_peers_that_do_not_let_us_in(answer, words):
    async with peer(answer) as url:
        with trio.fail_after(20), pytest.raises(ComponentUnavailable, match=words):
            async with pubsub_mqtt3.open(PubSubOptions(url=url), CONTEXT):
                pass


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_broker_killed_and_brought_back_loses_nothing(server, qos):
    """Everything published with success is delivered; publisher and subscription resume by themselves."""
    sent, seen = set(), set()
    async with opened(server, qos=qos) as broker, reading(broker, limit=4) as reader:

        async def publish(start):
            for number in range(start, start + 20):
                data = b"%d" % number
                await until_it_works(broker.publish, PublishRequest("t", data))
                sent.add(data)

        await publish(0)
        seen.update(await reader.datas(10))
        await broker.ping()  # mosquitto has written what it acknowledged when it gets to the next packet
        server.kill()
        with pytest.raises(ComponentUnavailable):
            while True:
                await broker.publish(PublishRequest("t", b"0"))
        server.start()
        await publish(20)
        while not seen >= sent:
            seen.add((await reader.messages.receive()).data)
        await broker.ping()
        assert reader.failures == []


async def test_deliveries_survive_a_reconnection(server):
    """What was under way when the broker went is not delivered again, and acknowledged when it is back."""
    gate = trio.Event()

    async def answer(_message):
        await gate.wait()
        return Outcome.ACK

    async with opened(server, consumer_id="steady") as broker:
        async with reading(broker, answer=answer, limit=2) as reader:
            for number in range(4):
                await broker.publish(PublishRequest("t", b"%d" % number))
            await reader.datas(2)
            server.stop()
            await until_gone(broker)
            gate.set()
            await reader.datas(2)
            server.start()
            await until_it_works(broker.publish, PublishRequest("t", b"last"))
            assert await reader.datas(1) == [b"last"]
        async with reading(broker) as again:
            await broker.publish(PublishRequest("t", b"next"))
            assert await again.datas(1) == [b"next"]


async def test_a_broker_that_forgot_everything(server):
    """Subscriptions are made again; what was being delivered goes on, and nobody is told of its end."""
    gate = trio.Event()

    async def answer(message):
        if message.data == b"long":
            await gate.wait()
        return Outcome.ACK

    async with opened(server) as broker, reading(broker, answer=answer) as reader:
        await broker.publish(PublishRequest("t", b"long"))
        await reader.datas(1)
        server.stop()
        (server.folder / "mosquitto.db").unlink()
        server.start()
        while True:  # until the subscription is there, the broker drops what is published
            await until_it_works(broker.publish, PublishRequest("t", b"new"))
            with trio.move_on_after(0.2):
                assert await reader.datas(1) == [b"new"]
                break
        gate.set()
        assert reader.failures == []


async def until_gone(broker):
    while True:
        try:
            await broker.ping()
        except ComponentUnavailable:
            return


async def test_a_paused_broker(server):
    async with opened(server) as broker, reading(broker) as reader:
        await broker.publish(PublishRequest("t", b"before"))
        assert await reader.datas(1) == [b"before"]
        server.pause()
        with trio.move_on_after(0.2) as scope:
            await broker.publish(PublishRequest("t", b"perhaps"))
        assert scope.cancelled_caught
        server.resume()
        await until_it_works(broker.publish, PublishRequest("t", b"after"))
        await reader.until(b"after")


async def test_cancelling_while_the_broker_is_paused(server):
    async with opened(server) as broker:
        async with reading(broker, answer=never) as reader:
            await broker.publish(PublishRequest("t", b"1"))
            await reader.datas(1)
            server.pause()
            reader.scope.cancel()
            await reader.ended.wait()
        server.resume()
        async with reading(broker) as again:
            assert await again.datas(1) == [b"1"]


async def test_cancelling_gives_back_at_once(server):
    """To the next subscription of this component, and to the next life of the node."""
    async with (
        opened(server, consumer_id="careful") as broker,
        reading(broker, "other"),
        reading(broker, answer=never, limit=2) as first,
    ):
        for number in range(6):
            await broker.publish(PublishRequest("t", b"%d" % number))
        await first.datas(2)
        first.scope.cancel()
        await first.ended.wait()
        async with reading(broker, answer=never, limit=3) as second:
            await second.datas(3)
            second.scope.cancel()
            await second.ended.wait()
    async with opened(server, consumer_id="careful") as broker, reading(broker, limit=1) as third:
        assert await third.datas(6) == [b"%d" % number for number in range(6)]


async def test_another_node_takes_over(server):
    """A node that vanishes without a word: its session goes to the next one with that client id."""
    async with opened(server, consumer_id="heir") as one, reading(one, answer=never) as lost:
        await one.publish(PublishRequest("t", b"1"))
        await lost.datas(1)
        async with opened(server, consumer_id="heir") as two, reading(two) as heir:
            assert await heir.datas(1) == [b"1"]
            lost.scope.cancel()


async def test_stop_drains(server):
    gate = trio.Event()

    async def answer(_message):
        await gate.wait()
        return Outcome.ACK

    async with opened(server) as broker:
        async with reading(broker, answer=answer, limit=2) as reader:
            for number in range(6):
                await broker.publish(PublishRequest("t", b"%d" % number))
            await reader.datas(2)
            reader.stop.set()
            gate.set()
            await reader.ended.wait()
        async with reading(broker, limit=1) as again:
            assert await again.datas(4) == [b"2", b"3", b"4", b"5"]


async def test_a_slow_consumer_is_sent_no_more_than_the_window(tmp_path):
    """The broker's own: what is not acknowledged counts, and the rest waits there."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    gate = trio.Event()
    under_way, most = 0, 0

    async def answer(_message):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await gate.wait()
        under_way -= 1
        return Outcome.ACK

    with mosquitto_server(tmp_path, "max_inflight_messages 5") as server:
        async with opened(server) as broker, reading(broker, answer=answer, limit=3) as reader:
            await broker.bulk_publish([PublishRequest("t", b"%d" % number) for number in range(50)])
            await reader.datas(3)
            assert len(broker._session._held) <= 5
            gate.set()
            await reader.datas(47)
            assert most == 3


async def test_bulk_when_the_broker_dies(server):
    async with opened(server) as broker:
        server.pause()
        outcome = []

        async def publish():
            try:
                await broker.bulk_publish([PublishRequest("t", b"1"), PublishRequest("t/#", b"2")])
            except BulkPublishError as error:
                outcome.append({at: type(failure) for at, failure in error.failures.items()})

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish)
                await trio.testing.wait_all_tasks_blocked()
                server.kill()
        assert outcome[0][0] is ComponentUnavailable
        with pytest.raises(ComponentUnavailable):
            await broker.bulk_publish([PublishRequest("t", b"1")])


async def test_a_login(tmp_path):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    (tmp_path / "passwords").write_text(PASSWORDS)
    config = f"password_file {tmp_path}/passwords\nallow_anonymous false"
    with mosquitto_server(tmp_path, config) as server:
        url = server.url.replace("//", "//me:p%40ss@")
        async with pubsub_mqtt3.open(PubSubOptions(url=url), CONTEXT) as broker:
            await broker.ping()
        with pytest.raises(ComponentUnavailable, match=r"not authorised|wrong user name"):
            async with opened(server):
                pass


# User `me`, password `p@ss`: salted SHA-512, as mosquitto_passwd writes it.
_SALT = b"saltsaltsalt"
_HASH = base64.b64encode(hashlib.sha512(b"p@ss" + _SALT).digest()).decode()
PASSWORDS = f"me:$6${base64.b64encode(_SALT).decode()}${_HASH}\n"


async def test_tls(tmp_path):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    listener = "\n".join(
        f"{name} {tmp_path}/{file}"
        for name, file in (("cafile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key"))
    )
    with mosquitto_server(tmp_path, listener=f"{listener}\nrequire_certificate true") as server:
        own = authority.issue_cert("node@example.com")
        options = {
            "url": server.url.replace("tcp", "ssl"),
            "ca_cert": authority.cert_pem.bytes().decode(),
            "client_cert": own.cert_chain_pems[0].bytes().decode(),
            "client_key": own.private_key_pem.bytes().decode(),
        }
        async with opened(server, **options) as broker, reading(broker) as reader:
            await broker.publish(PublishRequest("t", bytes(500_000)))
            assert await reader.datas(1) == [bytes(500_000)]
        with pytest.raises(ComponentUnavailable):
            async with opened(server, **{**options, "client_cert": "", "client_key": ""}) as broker:
                await until_gone(broker)
                await broker.ping()
        with pytest.raises(ComponentUnavailable, match="certificate"):
            async with opened(server, url=options["url"]):
                pass
