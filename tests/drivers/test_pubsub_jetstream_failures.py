"""pubsub.jetstream when things break: a server that dies, stalls, forgets, refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import nkeys
import pytest
import trio
import trio.testing
import trustme
from meshnode_jetstream import Options, driver
from support.nats_servers import find_nats_server, jetstream_api, nats_server
from support.redis_servers import free_port

from meshnode.asyncioloop import asyncio_loop
from meshnode.errors import BulkPublishError, ComponentUnavailable, ConfigError
from meshnode.interfaces import DriverContext, Outcome, PublishRequest, SubscribeRequest

CONTEXT = DriverContext("pubsub", "app")


@pytest.fixture
def server(tmp_path):
    if find_nats_server() is None:
        pytest.skip("nats-server is not installed")
    with nats_server(tmp_path) as running:
        yield running


@pytest.fixture
async def stream(server):
    async with asyncio_loop(True):
        await jetstream_api(server, "add_stream", name="S", subjects=["t", "u"])
        yield


@asynccontextmanager
async def opened(server, **options):
    async with driver.open(Options(nats_url=server.url, **options), CONTEXT) as broker:
        yield broker


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

    async def run(self, task_status=trio.TASK_STATUS_IGNORED):
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


async def test_no_server_at_open():
    options = Options(nats_url=f"nats://127.0.0.1:{free_port()}")
    async with asyncio_loop(True):
        with trio.fail_after(20), pytest.raises(ComponentUnavailable, match="127"):
            async with driver.open(options, CONTEXT):
                pass


async def test_opening_can_be_cancelled(server, stream):
    server.pause()
    with trio.fail_after(20), trio.move_on_after(0.2) as scope:
        async with opened(server):
            pass
    assert scope.cancelled_caught
    server.resume()


@pytest.mark.parametrize(
    "options",
    [{"durable_name": "d"}, {"durable_name": "d", "queue_group_name": "g"}, {}],
    ids=["durable", "group", "own"],
)
async def test_a_server_killed_and_brought_back_loses_nothing(server, stream, options):
    """Everything published with success is delivered; the subscription resumes by itself."""
    sent, seen = set(), set()
    async with opened(server, **options) as broker, reading(broker, limit=4) as reader:

        async def publish(start):
            for number in range(start, start + 20):
                data = json.dumps({"specversion": "1.0", "id": str(number)}).encode()
                await until_it_works(broker.publish, PublishRequest("t", data))
                sent.add(data)

        await publish(0)
        seen.update(await reader.datas(10))
        server.kill()
        with pytest.raises(ComponentUnavailable):
            await until_it_fails(broker)
        server.start()
        await publish(20)
        while seen != sent:
            seen.add((await reader.messages.receive()).data)
        await broker.ping()


async def until_it_fails(broker):
    while True:
        await broker.ping()
        await trio.sleep(0.01)


async def test_bulk_when_the_server_dies(server, stream):
    """Each message has its own failure, for some may have been taken; and nobody waits for an answer."""
    async with opened(server) as broker:
        server.pause()
        async with trio.open_nursery() as nursery:

            async def publish():
                with pytest.raises(BulkPublishError) as caught:
                    await broker.bulk_publish([PublishRequest("t", b"1"), PublishRequest("t", b"2")])
                assert {0, 1} == caught.value.failures.keys()
                assert all("connection was lost" in str(one) for one in caught.value.failures.values())

            nursery.start_soon(publish)
            await trio.testing.wait_all_tasks_blocked(0.05)
            server.kill()
        with pytest.raises(ComponentUnavailable):
            await broker.bulk_publish([PublishRequest("t", b"1")])


async def test_a_paused_server(server, stream):
    """Publishing fails in time and works again after; nothing that was acknowledged is lost."""
    async with opened(server, durable_name="d") as broker, reading(broker) as reader:
        await broker.publish(PublishRequest("t", b"before"))
        assert await reader.datas(1) == [b"before"]
        server.pause()
        with trio.move_on_after(0.3):
            await broker.publish(PublishRequest("t", b"perhaps"))
        with pytest.raises(ComponentUnavailable, match="no answer in time"):
            await broker.publish(PublishRequest("t", b"perhaps"))
        server.resume()
        await until_it_works(broker.publish, PublishRequest("t", b"after"))
        while (await reader.messages.receive()).data != b"after":
            pass


@pytest.mark.parametrize("group", ["", "g"])
async def test_cancelling_gives_back_at_once(server, stream, group):
    """What was under way and what waited; with an ackWait far longer than the test."""

    async def never(_message):
        await trio.sleep_forever()

    options = {"durable_name": "d", "queue_group_name": group, "ack_wait": timedelta(minutes=5)}
    async with opened(server, **options) as one, opened(server, **options) as two:
        async with reading(one, answer=never, limit=2) as first:
            await one.bulk_publish([PublishRequest("t", b"%d" % number) for number in range(8)])
            await first.datas(2)
            first.scope.cancel()
            await first.ended.wait()
        async with reading(two, limit=8) as second:
            assert sorted(await second.datas(8)) == [b"%d" % number for number in range(8)]


async def test_cancelling_while_the_server_is_paused(server, stream):
    """It ends all the same, and leaves no subscription that would swallow messages afterwards."""

    async def never(_message):
        await trio.sleep_forever()

    options = {"durable_name": "d", "queue_group_name": "g", "ack_wait": timedelta(seconds=3)}
    async with opened(server, **options) as broker:
        async with reading(broker, answer=never) as first:
            await broker.publish(PublishRequest("t", b"1"))
            await first.datas(1)
            server.pause()
            first.scope.cancel()
            await first.ended.wait()
        server.resume()
        async with reading(broker) as second:
            assert await second.datas(1) == [b"1"]
            for number in range(10):
                await until_it_works(broker.publish, PublishRequest("t", b"%d" % number))
            assert await second.datas(10) == [b"%d" % number for number in range(10)]


async def test_a_slow_consumer_holds_no_more_than_its_limit(server, stream):
    gate = trio.Event()

    async def answer(_message):
        await gate.wait()
        return Outcome.ACK

    async with opened(server, durable_name="d", concurrency="parallel") as broker:
        await broker.bulk_publish([PublishRequest("t", b"%d" % number) for number in range(50)])
        async with reading(broker, answer=answer, limit=3) as reader:
            await reader.datas(3)
            info = await jetstream_api(server, "consumer_info", "S", "d")
            assert info.num_ack_pending == 3
            gate.set()
            await reader.datas(47)


async def test_a_consumer_that_somebody_deletes(server, stream):
    """A durable one is the operator's business, and made anew by the next subscription."""
    async with opened(server, durable_name="d") as broker, reading(broker) as reader:
        await broker.publish(PublishRequest("t", b"1"))
        assert await reader.datas(1) == [b"1"]
        await jetstream_api(server, "delete_consumer", "S", "d")
        await broker.publish(PublishRequest("t", b"2"))
        while (await reader.messages.receive()).data != b"2":
            pass
        assert len(reader.failures) == 1
        assert "is gone" in str(reader.failures[0])


async def test_a_consumer_of_our_own_that_is_lost_goes_on(server, stream):
    """Neither from the beginning nor with a gap."""
    async with opened(server) as broker, reading(broker) as reader:
        await broker.bulk_publish([PublishRequest("t", b"%d" % number) for number in range(5)])
        await reader.datas(5)
        (own,) = await jetstream_api(server, "consumers_info", "S")
        await jetstream_api(server, "delete_consumer", "S", own.name)
        await broker.publish(PublishRequest("t", b"5"))
        received = await reader.datas(1)
        if received == [b"4"]:  # its acknowledgement was on the way when the consumer was deleted
            received = await reader.datas(1)
        assert received == [b"5"]
        assert reader.failures == []


async def test_stop_drains(server, stream):
    gate = trio.Event()

    async def answer(_message):
        await gate.wait()
        return Outcome.ACK

    async with opened(server, durable_name="d") as broker:
        async with reading(broker, answer=answer, limit=2) as reader:
            await broker.bulk_publish([PublishRequest("t", b"%d" % number) for number in range(6)])
            await reader.datas(2)
            reader.stop.set()
            gate.set()
            await reader.ended.wait()
            assert reader.messages.statistics().current_buffer_used == 0
        info = await jetstream_api(server, "consumer_info", "S", "d")
        assert (info.num_ack_pending, info.num_pending, info.num_waiting) == (0, 4, 0)


async def test_a_token(tmp_path):
    if find_nats_server() is None:
        pytest.skip("nats-server is not installed")
    with nats_server(tmp_path, "authorization { token: secret }") as server:
        async with asyncio_loop(True):
            # The server may hang up before it has been read what it says.
            with trio.fail_after(20), pytest.raises(ComponentUnavailable, match=r"Authorization|reset|EOF"):
                async with opened(server, token="wrong"):
                    pass
            async with opened(server, token="secret") as broker:
                await broker.ping()


async def test_signing_in_with_a_jwt(tmp_path):
    """An operator, an account with JetStream and a user, made by hand."""
    if find_nats_server() is None:
        pytest.skip("nats-server is not installed")
    operator = key_pair(nkeys.PREFIX_BYTE_OPERATOR)
    account, system = key_pair(nkeys.PREFIX_BYTE_ACCOUNT), key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
    user = key_pair(nkeys.PREFIX_BYTE_USER)
    config = "\n".join(
        [
            f"operator: {token(operator, operator, 'operator', {})}",
            "resolver: MEMORY",
            "resolver_preload: {",
            f"  {public(account)}: {token(operator, account, 'account', {'limits': {**LIMITS, **STORAGE}})}",
            f"  {public(system)}: {token(operator, system, 'account', {'limits': LIMITS})}",
            "}",
            f"system_account: {public(system)}",
        ]
    )
    with nats_server(tmp_path, config) as server:
        async with asyncio_loop(True):
            seed = bytes(user.seed).decode()
            jwt = token(account, user, "user", {"subs": -1, "data": -1, "payload": -1})
            async with opened(server, jwt=jwt, seed_key=seed) as broker:
                await broker.ping()
            # A user who may no longer: the server says so, and nats-py gives up. We go on asking.
            short = token(account, user, "user", {"subs": -1, "data": -1, "payload": -1}, lives=2)
            async with opened(server, jwt=short, seed_key=seed) as broker:
                with trio.fail_after(20), pytest.raises(ComponentUnavailable, match="Authorization"):
                    while True:
                        with suppress_lost():
                            await broker.ping()
                        await trio.sleep(0.05)
            other = bytes(key_pair(nkeys.PREFIX_BYTE_USER).seed).decode()
            with trio.fail_after(20), pytest.raises(ComponentUnavailable, match=r"Authorization|reset|EOF"):
                async with opened(server, jwt=jwt, seed_key=other):
                    pass


LIMITS = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
STORAGE = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


def key_pair(kind):
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), kind)))


def public(pair):
    return bytes(pair.public_key).decode()


@contextmanager
def suppress_lost():
    """A connection that was lost may be renewed; one that was refused is another matter."""
    try:
        yield
    except ComponentUnavailable as error:
        if "Authorization" in str(error):
            raise


def token(issuer, subject, kind, extra, lives=None):
    def packed(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    claims = {"jti": "", "iat": 1, "iss": public(issuer), "name": kind, "sub": public(subject)}
    if lives is not None:
        claims["exp"] = int(time.time()) + lives
    claims["nats"] = {"type": kind, "version": 2, **extra}
    claims["jti"] = (
        base64.b32encode(hashlib.sha256(json.dumps(claims).encode()).digest()).decode().rstrip("=")
    )
    head = packed(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{head}.{packed(json.dumps(claims).encode())}"
    return f"{signed}.{packed(issuer.sign(signed.encode()))}"


async def test_a_client_certificate(tmp_path, monkeypatch):
    """As files and as PEM; the server's is checked against the system's authorities."""
    if find_nats_server() is None:
        pytest.skip("nats-server is not installed")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    client = authority.issue_cert("client@example.com")
    client.cert_chain_pems[0].write_to_path(tmp_path / "client.pem")
    client.private_key_pem.write_to_path(tmp_path / "client.key")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    files = f'cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.pem"'
    tls = f'tls {{ {files}, ca_file: "{tmp_path}/ca.pem", verify: true }}'
    with nats_server(tmp_path, tls) as server:
        async with asyncio_loop(True):
            for certificate, key in (
                (str(tmp_path / "client.pem"), str(tmp_path / "client.key")),
                ((tmp_path / "client.pem").read_text(), (tmp_path / "client.key").read_text()),
            ):
                async with opened(server, tls_client_cert=certificate, tls_client_key=key) as broker:
                    await broker.ping()
            with pytest.raises(ConfigError, match="tls_client_cert"):
                async with opened(server, tls_client_cert="/nowhere", tls_client_key="/nowhere"):
                    pass
