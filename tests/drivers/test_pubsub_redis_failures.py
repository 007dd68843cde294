"""pubsub.redis when things break: servers that die, stall, forget and move, consumers that are killed."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import trio
from support.redis_pubsub import (
    Consumer,
    consumers,
    consuming,
    open_driver,
    pending,
    publish,
    publish_stubbornly,
    until,
)
from support.redis_servers import free_port, proxy, redis_cluster, redis_server, sentinel_group

from meshnode.errors import BulkPublishError, ComponentUnavailable, PubSubError
from meshnode.interfaces import Outcome, PublishRequest, SubscribeRequest

pytestmark = pytest.mark.redis

TOPIC = "orders"
HASTE = {"redeliver_interval": "100ms"}


async def sleep_forever(_message):
    await trio.sleep_forever()


@asynccontextmanager
async def publishing(broker):
    """One publisher that goes on all the time; what it was told is taken is in the list."""
    taken = []

    async def work():
        number = 0
        while True:
            data = b"%d" % number
            number += 1
            try:
                await broker.publish(PublishRequest(TOPIC, data))
            except ComponentUnavailable:
                await trio.sleep(0.02)
            else:
                taken.append(data)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        yield taken
        nursery.cancel_scope.cancel()


async def test_no_message_is_lost_when_the_server_is_killed(tmp_path):
    """Three times, with a publisher and a consumer at work, some of whose deliveries fail."""
    failed = set()

    async def answer(message):
        if message.data.endswith(b"7") and message.data not in failed:
            failed.add(message.data)
            return Outcome.RETRY
        return Outcome.ACK

    with redis_server(tmp_path, persistent=True) as server:
        async with (
            open_driver(host=server.address, **HASTE) as broker,
            consuming(broker, TOPIC, answer) as consumer,
        ):
            async with publishing(broker) as taken:
                for _ in range(3):
                    so_far = len(consumer.acknowledged)
                    await consumer.has(lambda so_far=so_far: len(consumer.acknowledged) > so_far + 100)
                    server.kill()
                    server.start()
                so_far = len(consumer.acknowledged)
                await consumer.has(lambda: len(consumer.acknowledged) > so_far + 100)
            await consumer.has(lambda: set(taken) <= set(consumer.acknowledged))
            await until(lambda: pending(server, TOPIC) == [])
        assert consumers(server, TOPIC) in ([], ["app"])


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_acknowledgements_survive_an_outage(tmp_path, end, caplog):
    """What was delivered before and processed during it is acknowledged after it, not delivered again."""
    caplog.set_level(logging.INFO)
    with redis_server(tmp_path, persistent=True) as server:
        gate = trio.Event()

        async def wait(_message):
            await gate.wait()
            return Outcome.ACK

        async with open_driver(host=server.address) as broker, consuming(broker, TOPIC, wait) as consumer:
            await publish(broker, TOPIC, b"1", b"2", b"3")
            await consumer.has(lambda: len(consumer.messages) == 3)
            getattr(server, end)()
            gate.set()
            await consumer.has(lambda: len(consumer.acknowledged) == 3)
            await until(lambda: "trying again" in caplog.text)
            server.start()
            await until(lambda: pending(server, TOPIC) == [])
            await publish_stubbornly(broker, TOPIC, b"4")
            await consumer.has(lambda: len(consumer.acknowledged) == 4)
            await until(lambda: "receives again" in caplog.text)
        assert sorted(set(consumer.data)) == sorted(consumer.data) == [b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("seed", range(3))
async def test_consumers_that_come_and_go(tmp_path, seed):
    """Stopped and cancelled at any moment, in a crowd, while messages flow: nothing stays behind with one
    that is gone, where it would be stuck for the minute that the processing timeout lasts.
    """
    rng = random.Random(seed)
    done = set()

    async def answer(message):
        if rng.random() < 0.2:
            await trio.sleep(rng.random() / 50)
        if rng.random() < 0.2:
            return Outcome.RETRY
        done.add(message.data)
        return Outcome.ACK

    async def come_and_go(broker):
        for _ in range(12):
            async with consuming(broker, TOPIC, answer, limit=rng.choice((1, 3, 10))) as consumer:
                goal = rng.randrange(20)
                with trio.move_on_after(rng.random() / 10):
                    await consumer.has(lambda goal=goal: len(consumer.messages) > goal)
                if rng.random() < 0.6:
                    consumer.scope.cancel()

    with redis_server(tmp_path) as server:
        async with open_driver(host=server.address, **HASTE) as broker:
            async with publishing(broker) as taken, trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(come_and_go, broker)
            async with consuming(broker, TOPIC, answer) as last:
                await last.has(lambda: set(taken) <= done)
                await until(lambda: pending(server, TOPIC) == [])
        assert consumers(server, TOPIC) in ([], ["app"])


async def test_a_server_that_stalls(tmp_path):
    with redis_server(tmp_path) as server:
        hurry = {"read_timeout": "300ms", "dial_timeout": "300ms"}
        async with (
            open_driver(host=server.address, **hurry, **HASTE) as broker,
            consuming(broker, TOPIC) as consumer,
            publishing(broker) as taken,
        ):
            await consumer.has(lambda: len(consumer.acknowledged) > 50)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                with pytest.raises(ComponentUnavailable):
                    await publish(broker, TOPIC, b"during")
                with pytest.raises(ComponentUnavailable):
                    await broker.ping()
            finally:
                os.kill(server.pid, signal.SIGCONT)
            so_far = len(taken)
            await until(lambda: len(taken) > so_far + 50)
            await consumer.has(lambda: set(taken) <= set(consumer.acknowledged))


async def test_ends_while_the_server_is_stalled(tmp_path):
    """Stopped or cancelled: not at once, for there is something to give back, but soon."""
    with redis_server(tmp_path) as server:
        async with (
            open_driver(host=server.address, read_timeout="300ms", dial_timeout="300ms") as broker,
            consuming(broker, TOPIC) as stopped,
            consuming(broker, TOPIC) as cancelled,
        ):
            os.kill(server.pid, signal.SIGSTOP)
            try:
                stopped.stop.set()
                cancelled.scope.cancel()
                with trio.fail_after(30):
                    await stopped.ended.wait()
                    await cancelled.ended.wait()
            finally:
                os.kill(server.pid, signal.SIGCONT)


async def test_a_server_that_forgets_everything(tmp_path):
    with redis_server(tmp_path) as server:
        async with (
            open_driver(host=server.address, **HASTE) as broker,
            consuming(broker, TOPIC) as consumer,
        ):
            for turn in range(3):
                await publish(broker, TOPIC, b"%d" % turn)
                await consumer.has(lambda turn=turn: len(consumer.acknowledged) == turn + 1)
                server.command("FLUSHALL")
            server.kill()
            server.start()
            await publish_stubbornly(broker, TOPIC, b"after the restart")
            await consumer.has(lambda: b"after the restart" in consumer.acknowledged)
        assert consumers(server, TOPIC) == []


async def test_a_connection_that_the_server_closes(tmp_path):
    with redis_server(tmp_path) as server:
        async with open_driver(host=server.address) as broker, consuming(broker, TOPIC) as consumer:
            for turn in range(5):
                data = b"%d" % turn
                await publish_stubbornly(broker, TOPIC, data)
                await consumer.has(lambda data=data: data in consumer.acknowledged)
                server.command("CLIENT", "KILL", "TYPE", "normal")


async def test_a_read_whose_answer_is_lost(tmp_path):
    """The server has given us the messages and we never saw them: the next connection finds them."""
    with redis_server(tmp_path) as server:
        async with (
            proxy(server) as (address, state),
            open_driver(host=address) as broker,
            consuming(broker, TOPIC) as consumer,
        ):
            await publish(broker, TOPIC, b"before")
            await consumer.has(lambda: consumer.acknowledged == [b"before"])
            await until(lambda: "cmd=xreadgroup" in server.command("CLIENT", "LIST", "TYPE", "normal"))
            state["swallow"] = 1
            server.command("XADD", TOPIC, "*", "data", "lost on the way")
            await consumer.has(lambda: consumer.acknowledged == [b"before", b"lost on the way"])
            assert state["swallow"] == 0
        assert pending(server, TOPIC) == []


async def test_a_publication_is_not_repeated(tmp_path):
    with redis_server(tmp_path) as server:
        async with proxy(server) as (address, state), open_driver(host=address) as broker:
            await publish(broker, TOPIC, b"1")
            state["swallow"] = 1
            with pytest.raises(ComponentUnavailable, match="may have been executed"):
                await publish(broker, TOPIC, b"2")
            assert server.command("XLEN", TOPIC) == ":2\r\n"
            state["swallow"] = 1
            with pytest.raises(BulkPublishError) as caught:
                await broker.bulk_publish([PublishRequest(TOPIC, b"3"), PublishRequest(TOPIC, b"4")])
            assert sorted(caught.value.failures) == [0, 1]
            assert all(isinstance(one, ComponentUnavailable) for one in caught.value.failures.values())
            assert server.command("XLEN", TOPIC) == ":4\r\n"


async def test_an_acknowledgement_is_repeated(tmp_path):
    with redis_server(tmp_path) as server:
        async with proxy(server) as (address, state), open_driver(host=address) as broker:

            async def answer(message):
                if message.data == b"2":
                    state["swallow"] = 1
                return Outcome.ACK

            async with consuming(broker, TOPIC, answer) as consumer:
                await publish(broker, TOPIC, b"1", b"2")
                await consumer.has(lambda: len(consumer.acknowledged) == 2)
                await until(lambda: pending(server, TOPIC) == [])
            assert sorted(consumer.data) == [b"1", b"2"]


async def test_no_server(tmp_path):
    with redis_server(tmp_path) as server:
        async with open_driver(host=server.address, max_retries=0) as broker:
            server.kill()
            requests = [PublishRequest(TOPIC, b"1"), PublishRequest(TOPIC, b"2")]
            with pytest.raises(ComponentUnavailable):
                await broker.bulk_publish(requests)
            with pytest.raises(ComponentUnavailable):
                await publish(broker, TOPIC, b"1")
            with pytest.raises(ComponentUnavailable):
                await broker.subscribe(
                    SubscribeRequest(TOPIC), sleep_forever, trio.Event(), task_status=trio.TASK_STATUS_IGNORED
                )


_HOLDER = """
import sys, trio, trio_asyncio
from meshnode.interfaces import DriverContext, SubscribeRequest
from meshnode_redis.pubsub import Options, driver

async def hold(message):
    print(message.data.decode(), flush=True)
    await trio.sleep_forever()

async def main():
    options = Options(host=sys.argv[1], processing_timeout="1s", redeliver_interval="100ms")
    async with trio_asyncio.open_loop(), driver.open(options, DriverContext("pubsub", "app")) as broker:
        await broker.subscribe(
            SubscribeRequest("orders", max_in_flight=2), hold, trio.Event(),
            task_status=trio.TASK_STATUS_IGNORED,
        )

trio.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_consumer_that_is_killed_or_frozen(tmp_path, number):
    """Another one takes what it had, once it has given no sign of life for the processing timeout."""
    with redis_server(tmp_path) as server:
        times = {"processing_timeout": "1s", "redeliver_interval": "100ms"}
        async with open_driver(host=server.address, **times) as broker:
            await publish(broker, TOPIC, b"1", b"2", b"3")
            command = [sys.executable, "-c", _HOLDER, server.address]
            holder = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
            try:
                said = b""
                while said.count(b"\n") < 2:
                    said += await holder.stdout.receive_some()
                async with consuming(broker, TOPIC) as consumer:
                    await consumer.has(lambda: consumer.acknowledged == [b"3"])
                    await until(lambda: len(pending(server, TOPIC)) == 2)
                    holder.send_signal(number)
                    await consumer.has(lambda: sorted(consumer.acknowledged) == [b"1", b"2", b"3"])
            finally:
                holder.kill()
                await holder.wait()
                await holder.stdout.aclose()
        assert pending(server, TOPIC) == []


async def test_everything_around_it_can_be_cancelled(tmp_path):
    """The node's own scope ends, with the component open: what was under way is given back all the same."""
    with redis_server(tmp_path) as server:
        with trio.fail_after(20), trio.CancelScope() as scope:
            async with (
                open_driver(host=server.address) as broker,
                consuming(broker, TOPIC, sleep_forever) as consumer,
            ):
                await publish(broker, TOPIC, b"1", b"2")
                await consumer.has(lambda: len(consumer.messages) == 2)
                scope.cancel()
        assert scope.cancelled_caught
        assert [who for _, who, _ in pending(server, TOPIC)] == ["app-returned"] * 2
        assert consumers(server, TOPIC) == ["app-returned"]


async def test_a_delivery_that_raises_ends_the_subscription(tmp_path):
    async def fail(_message):
        raise RuntimeError("a mishap")

    with redis_server(tmp_path) as server:
        async with open_driver(host=server.address) as broker:
            await publish(broker, TOPIC, b"1")
            with pytest.raises(RuntimeError, match="a mishap"):
                await broker.subscribe(
                    SubscribeRequest(TOPIC), fail, trio.Event(), task_status=trio.TASK_STATUS_IGNORED
                )
            assert consumers(server, TOPIC) == ["app-returned"]
            async with consuming(broker, TOPIC) as consumer:
                await consumer.has(lambda: consumer.acknowledged == [b"1"])


async def test_sentinel_failover(tmp_path):
    with sentinel_group(tmp_path) as (master, replica, sentinel):
        where = {"host": sentinel.address, "failover": True, "sentinel_master_name": "mymaster"}
        async with open_driver(**where, **HASTE) as broker, consuming(broker, TOPIC) as consumer:
            await publish(broker, TOPIC, b"before")
            await consumer.has(lambda: consumer.acknowledged == [b"before"])
            master.kill()
            await publish_stubbornly(broker, TOPIC, b"after")
            await consumer.has(lambda: b"after" in consumer.acknowledged)
            assert int(replica.command("XLEN", TOPIC)[1:]) >= 1


async def test_cluster_node_goes_and_comes_back(tmp_path):
    with redis_cluster(tmp_path, 3, "--appendonly", "yes", "--appendfsync", "always") as servers:
        topics = [f"topic{number}" for number in range(9)]
        where = {"host": servers[0].address, "type": "cluster"}
        async with open_driver(**where, **HASTE) as broker, trio.open_nursery() as nursery:
            found = {}
            for topic in topics:
                found[topic] = Consumer(acknowledge)
                await nursery.start(found[topic].run, broker, SubscribeRequest(topic))
                await publish(broker, topic, b"before")
            for consumer in found.values():
                await consumer.has(lambda consumer=consumer: consumer.acknowledged == [b"before"])
            servers[1].kill()
            with pytest.raises(ComponentUnavailable):
                await broker.ping()
            servers[1].start()
            for topic, consumer in found.items():
                await publish_stubbornly(broker, topic, b"after")
                await consumer.has(lambda consumer=consumer: b"after" in consumer.acknowledged)
            for consumer in found.values():
                consumer.stop.set()


async def acknowledge(_message):
    return Outcome.ACK


async def test_cluster_slot_that_moves(tmp_path):
    """The subscription follows its stream to another node."""
    with redis_cluster(tmp_path) as servers:
        where = {"host": servers[0].address, "type": "cluster"}
        async with open_driver(**where, **HASTE) as broker, consuming(broker, TOPIC) as consumer:
            await publish(broker, TOPIC, b"before")
            await consumer.has(lambda: consumer.acknowledged == [b"before"])
            source = next(one for one in servers if one.command("XLEN", TOPIC).startswith(":"))
            target = next(one for one in servers if one is not source)
            slot = source.command("CLUSTER", "KEYSLOT", TOPIC)[1:].strip()
            names = {one: one.command("CLUSTER", "MYID").split("\r\n")[1] for one in servers}
            target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
            source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
            source.command("MIGRATE", "127.0.0.1", str(target.port), TOPIC, "0", "5000")
            await publish_stubbornly(broker, TOPIC, b"during")
            for one in servers:
                one.command("CLUSTER", "SETSLOT", slot, "NODE", names[target])
            await publish_stubbornly(broker, TOPIC, b"after")
            await consumer.has(lambda: {b"before", b"during", b"after"} <= set(consumer.acknowledged))
            assert target.command("XLEN", TOPIC) == ":3\r\n"


async def test_a_user_without_rights(tmp_path):
    with redis_server(tmp_path, password="s3cret") as server:
        server.command("ACL", "SETUSER", "poor", "on", ">p", "~*", "+@all", "-@stream")
        async with open_driver(host=server.address, username="poor", password="p") as broker:
            with pytest.raises(PubSubError, match=r"no permissions|can't run"):
                await publish(broker, TOPIC, b"1")
            with pytest.raises(PubSubError, match=r"no permissions|can't run"):
                await broker.subscribe(
                    SubscribeRequest(TOPIC), sleep_forever, trio.Event(), task_status=trio.TASK_STATUS_IGNORED
                )


async def test_no_server_at_open():
    with pytest.raises(ExceptionGroup) as group:
        async with open_driver(host=f"127.0.0.1:{free_port()}", max_retries=0):
            pass
    assert group.group_contains(ComponentUnavailable)
