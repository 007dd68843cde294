"""pubsub.rabbitmq when things break: a broker that is killed, that stalls, that is not there."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
import trio
import trio_asyncio
from meshnode_rabbitmq import BindingOptions, PubSubOptions, binding, pubsub
from support.rabbitmq_servers import rabbit_server, raw_client, watched_loop
from support.redis_servers import free_port

from meshnode.errors import ComponentUnavailable, PubSubError, Status
from meshnode.interfaces import BindingRequest, DriverContext, Outcome, PublishRequest, SubscribeRequest

CONTEXT = DriverContext("pubsub", "app")


@pytest.fixture(scope="module")
def broker_process(tmp_path_factory):
    with rabbit_server(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture
async def server(broker_process):
    async with watched_loop():
        try:
            yield broker_process
        finally:
            broker_process.resume()


def open_broker(server, **options):
    given = {"deleted_when_unused": False, "redeliver_interval": timedelta(milliseconds=50), **options}
    return pubsub.open(PubSubOptions(connection_string=server.url, **given), CONTEXT)


async def until_it_works(operation):
    """Tries again for as long as the broker is unavailable, as a resiliency policy would."""
    with trio.fail_after(60):
        while True:
            try:
                return await operation()
            except ComponentUnavailable:
                await trio.sleep(0.05)


async def hold_subscription(broker, topic, deliver, *, task_status):
    """A subscription that is made anew whenever it is lost, as the node does."""
    first = True

    async def subscribe():
        nonlocal first
        status, first = task_status if first else trio.TASK_STATUS_IGNORED, False
        await broker.subscribe(SubscribeRequest(topic), deliver, trio.Event(), task_status=status)

    await until_it_works(subscribe)


async def test_a_broker_that_is_killed_loses_nothing_that_was_confirmed(server):
    """Killed in the middle of publishing and consuming, and started again."""
    confirmed, came = set(), set()
    third, complete = trio.Event(), trio.Event()

    async def deliver(message):
        came.add(message.data)
        if len(came) == 30:
            third.set()
        if len(came) >= 100 and came >= confirmed:
            complete.set()
        return Outcome.ACK

    async def publish():
        for number in range(100):
            request = PublishRequest("killed", b"%d" % number)
            await until_it_works(partial(broker.publish, request))
            confirmed.add(request.data)

    async with open_broker(server) as broker, trio.open_nursery() as nursery:
        await nursery.start(hold_subscription, broker, "killed", deliver)
        nursery.start_soon(publish)
        with trio.fail_after(60):
            await third.wait()
            await trio.to_thread.run_sync(server.kill)
            await trio.to_thread.run_sync(server.start)
            await complete.wait()
        nursery.cancel_scope.cancel()


async def test_what_was_under_way_comes_again(server):
    """The connection breaks under a delivery: it is cancelled, and made again. A binding fares likewise."""
    fates = []
    begun, again = trio.Event(), trio.Event()
    options = BindingOptions(host=server.url, queue_name="killed", durable=True)

    async def deliver(_message):
        if not begun.is_set():
            begun.set()
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                fates.append("cancelled")
                raise
        again.set()
        return Outcome.ACK

    async with (
        open_broker(server) as broker,
        binding.open(options, CONTEXT) as opened,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(hold_subscription, broker, "under way", deliver)
        await broker.publish(PublishRequest("under way", b"1"))
        with trio.fail_after(60):
            await begun.wait()
            with pytest.RaisesGroup(ComponentUnavailable):
                async with trio.open_nursery() as reading:
                    await reading.start(partial(opened.read, deliver, trio.Event()))
                    await trio.to_thread.run_sync(server.kill)
            for operation in (
                partial(broker.publish, PublishRequest("under way", b"2")),
                partial(opened.invoke, BindingRequest("create", b"2")),
                broker.ping,
            ):
                with pytest.raises(ComponentUnavailable):
                    await operation()
            await trio.to_thread.run_sync(server.start)
            await again.wait()
            await opened.invoke(BindingRequest("create", b"3"))
        nursery.cancel_scope.cancel()
    assert fates == ["cancelled"]


async def test_publishing_to_a_broker_that_stalls(server):
    """The caller may go at any time; the connection is as good as before."""
    async with open_broker(server) as broker:
        await broker.publish(PublishRequest("stalled", b"before"))
        server.pause()
        with trio.move_on_after(0.2) as scope:
            await broker.publish(PublishRequest("stalled", b"during"))
        assert scope.cancelled_caught
        server.resume()
        with trio.fail_after(20):
            await broker.publish(PublishRequest("stalled", b"after"))
            await broker.ping()


async def test_too_many_messages_for_a_broker_that_stalls(server):
    """What waits for its confirm is bounded, callers that went away included."""
    async with open_broker(server) as broker:
        await broker.publish(PublishRequest("flood", b"before"))
        server.pause()
        for _ in range(4):
            with trio.move_on_after(0.2):
                await broker.bulk_publish([PublishRequest("flood", b"x")] * 250)
        with pytest.raises(PubSubError) as raised:
            await broker.publish(PublishRequest("flood", b"one more"))
        assert raised.value.code is Status.RESOURCE_EXHAUSTED
        server.resume()
        with trio.fail_after(20):
            await until_there_is_room(broker)


async def until_there_is_room(broker):
    while True:
        try:
            return await broker.publish(PublishRequest("flood", b"after"))
        except PubSubError:
            await trio.sleep(0.05)


async def test_closing_while_the_broker_stalls_and_nothing_can_be_written(server):
    """More than the sockets hold is on its way, so that aiormq waits to write."""
    with trio.fail_after(30):
        async with open_broker(server) as broker:
            await broker.publish(PublishRequest("heavy", b"before"))
            server.pause()
            with trio.move_on_after(0.5):
                await broker.bulk_publish([PublishRequest("heavy", b"x" * 1_000_000)] * 40)


async def test_a_subscription_is_cancelled_while_the_broker_stalls(server):
    """It ends, and what it had is there again when the broker is."""
    begun = trio.Event()

    async def never(_message):
        begun.set()
        await trio.sleep_forever()

    async with open_broker(server) as broker:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(hold_subscription, broker, "cancelled", never)
                await broker.publish(PublishRequest("cancelled", b"1"))
                await begun.wait()
                server.pause()
                nursery.cancel_scope.cancel()
        server.resume()
        async with raw_client(server) as raw:
            with trio.fail_after(20):
                while await raw.counts("app-cancelled") != (1, 0):
                    pass


async def test_a_subscription_is_stopped_while_the_broker_stalls(server):
    """It ends, though the broker never says goodbye; what it had is there again when the broker is."""
    begun, stop = trio.Event(), trio.Event()

    async def never(_message):
        begun.set()
        await trio.sleep_forever()

    async with open_broker(server) as broker:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                subscribe = partial(broker.subscribe, SubscribeRequest("stopped"), never, stop)
                await nursery.start(subscribe)
                await broker.publish(PublishRequest("stopped", b"1"))
                await begun.wait()
                server.pause()
                stop.set()
        server.resume()
        async with raw_client(server) as raw:
            with trio.fail_after(20):
                while await raw.counts("app-stopped") != (1, 0):
                    pass


async def test_heartbeats_find_a_broker_that_is_gone(server):
    """A subscription does not wait for ever for a broker that never says that it is gone."""

    async def deliver(_message):
        return Outcome.ACK

    async with open_broker(server, heart_beat=timedelta(seconds=1)) as broker:
        with trio.fail_after(30), pytest.RaisesGroup(ComponentUnavailable):
            async with trio.open_nursery() as nursery:
                subscribe = partial(broker.subscribe, SubscribeRequest("silent"), deliver, trio.Event())
                await nursery.start(subscribe)
                server.pause()


async def test_no_broker_at_open():
    options = PubSubOptions(hostname=f"127.0.0.1:{free_port()}")
    async with trio_asyncio.open_loop():
        with trio.fail_after(10), pytest.raises(ComponentUnavailable, match=options.hostname):
            async with pubsub.open(options, CONTEXT):
                pass


async def test_opening_can_be_cancelled():
    """At a server that accepts and says nothing."""

    async def say_nothing(_stream):
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery, trio_asyncio.open_loop():
        (listener,) = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with trio.move_on_after(0.2) as scope:
            async with pubsub.open(PubSubOptions(hostname=f"127.0.0.1:{port}"), CONTEXT):
                pass
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()
