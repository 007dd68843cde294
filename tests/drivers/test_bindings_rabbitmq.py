"""bindings.rabbitmq against a real broker."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count

import pytest
import trio
from meshnode_rabbitmq import BindingOptions, binding
from support.rabbitmq_servers import rabbitmq, raw_client, watched_loop

from meshnode.config.options import load_options
from meshnode.errors import BindingError, ComponentUnavailable, ConfigError, InvalidArgument
from meshnode.interfaces import (
    BindingEvent,
    BindingRequest,
    DriverContext,
    InputBinding,
    Outcome,
    OutputBinding,
)

__all__ = ["rabbitmq"]

CONTEXT = DriverContext("binding", "app")
_queues = count()


@pytest.fixture
async def server(rabbitmq):
    async with watched_loop():
        yield rabbitmq[0]


def open_binding(server, queue, **options):
    given = {"redeliver_interval": timedelta(milliseconds=50), **options}
    return binding.open(BindingOptions(host=server.url, queue_name=queue, **given), CONTEXT)


def fresh_queue():
    return f"queue{next(_queues)}"


def create(data, **metadata):
    return BindingRequest("create", data, metadata)


class Reading:
    def __init__(self, answer=None):
        self.events: list[BindingEvent] = []
        self._answer = answer
        self._news = trio.Event()
        self.stop = trio.Event()
        self.scope = trio.CancelScope()

    async def receive(self, event):
        self.events.append(event)
        self._news.set()
        self._news = trio.Event()
        return Outcome.ACK if self._answer is None else await self._answer(event)

    async def has(self, number):
        with trio.fail_after(20):
            while len(self.events) < number:
                await self._news.wait()

    @property
    def received(self):
        return [event.data for event in self.events]


@asynccontextmanager
async def reading(opened, answer=None):
    account = Reading(answer)
    async with trio.open_nursery() as nursery:

        async def run(*, task_status):
            with account.scope:
                await opened.read(account.receive, account.stop, task_status=task_status)

        with trio.fail_after(20):
            await nursery.start(run)
        yield account
        account.stop.set()


async def test_both_directions(server):
    async with open_binding(server, fresh_queue()) as opened:
        assert isinstance(opened, OutputBinding)
        assert isinstance(opened, InputBinding)
        assert list(opened.operations) == ["create"]
        for number in range(10):
            await opened.invoke(create(b"%d" % number))
        async with reading(opened) as account:
            await account.has(10)
    assert account.received == [b"%d" % number for number in range(10)]


async def test_what_others_read(server):
    queue = fresh_queue()
    async with open_binding(server, queue) as opened, raw_client(server) as raw:
        await opened.invoke(create(b"1", contentType="a/b", ttlInSeconds="60", priority="3", own="x"))
        await opened.invoke(create(b"2"))
        first, second = [(await raw.get(queue)).header.properties for _ in range(2)]
    assert (first.content_type, first.expiration, first.priority) == ("a/b", "60000", 3)
    assert first.headers == {"contentType": "a/b", "ttlInSeconds": "60", "priority": "3", "own": "x"}
    assert (second.content_type, second.expiration, second.delivery_mode) == ("text/plain", None, 2)


async def test_what_others_write(server):
    """Headers that are text become metadata, escaped for a query as daprd has them."""
    queue = fresh_queue()
    async with open_binding(server, queue) as opened, raw_client(server) as raw, reading(opened) as account:
        await raw.publish(b"1", key=queue, headers={"a name": "x y&z", "number": 3})
        await account.has(1)
    assert account.events == [BindingEvent(b"1", {"a+name": "x+y%26z"})]


async def test_the_queue_at_the_broker_is_daprs(server):
    queue = fresh_queue()
    options = {"durable": True, "max_priority": 7, "ttl_in_seconds": timedelta(seconds=30)}
    async with open_binding(server, queue, **options), raw_client(server) as raw:
        await raw.queue(queue, durable=True, arguments={"x-message-ttl": 30000, "x-max-priority": 7})


async def test_priorities(server):
    async with open_binding(server, fresh_queue(), max_priority=5) as opened:
        for priority in ("1", "5", "3"):
            await opened.invoke(create(priority.encode(), priority=priority))
        async with reading(opened) as account:
            await account.has(3)
    assert account.received == [b"5", b"3", b"1"]


async def test_expired_events_are_not_delivered(server):
    queue = fresh_queue()
    options = {"ttl_in_seconds": timedelta(milliseconds=1)}
    async with open_binding(server, queue, **options) as opened, raw_client(server) as raw:
        await opened.invoke(create(b"short"))
        with trio.fail_after(20):
            while await raw.counts(queue) != (0, 0):
                pass


async def test_an_event_that_failed_comes_again_before_the_others(server):
    tries = []

    async def third_time(event):
        tries.append(event)
        return Outcome.ACK if len(tries) > 2 else Outcome.RETRY

    async with open_binding(server, fresh_queue()) as opened:
        for number in range(3):
            await opened.invoke(create(b"%d" % number))
        async with reading(opened, third_time) as account:
            await account.has(5)
    assert account.received == [b"0", b"0", b"0", b"1", b"2"]


async def test_each_event_goes_to_one_reader(server):
    queue = fresh_queue()
    async with (
        open_binding(server, queue) as one,
        open_binding(server, queue) as two,
        reading(one) as first,
        reading(two) as second,
    ):
        for number in range(20):
            await one.invoke(create(b"%02d" % number))
        with trio.fail_after(20):
            while len(first.events) + len(second.events) < 20:
                await trio.lowlevel.checkpoint()
    assert sorted(first.received + second.received) == [b"%02d" % number for number in range(20)]


async def test_cancelled_readers_give_back_at_once(server):
    queue = fresh_queue()

    async def never(_event):
        await trio.sleep_forever()

    async with open_binding(server, queue, prefetch_count=5) as opened, raw_client(server) as raw:
        async with reading(opened, never) as account:
            for number in range(3):
                await opened.invoke(create(b"%d" % number))
            await account.has(1)
            account.scope.cancel()
        assert await raw.counts(queue) == (3, 0)
        assert [(await raw.get(queue)).body for _ in range(3)] == [b"0", b"1", b"2"]


async def test_an_exclusive_queue(server):
    """Written and read by the same component, and nobody else's."""
    queue = fresh_queue()
    async with open_binding(server, queue, exclusive=True) as opened, reading(opened) as account:
        await opened.invoke(create(b"1"))
        await account.has(1)
        with pytest.raises(ComponentUnavailable, match="exclusive"):
            async with open_binding(server, queue, exclusive=True):
                pass


async def test_a_queue_that_is_gone(server):
    queue = fresh_queue()
    async with open_binding(server, queue) as opened, raw_client(server) as raw:
        await raw.delete_queue(queue)
        with pytest.raises(BindingError, match="no queue takes the message"):
            await opened.invoke(create(b"1"))


async def test_requests_that_cannot_be_right(server):
    async with open_binding(server, fresh_queue()) as opened:
        for request in (
            BindingRequest("get"),
            create(b"x", ttlInSeconds="soon"),
            create(b"x", ttlInSeconds="0"),
            create(b"x", priority="high"),
            create(b"x", contentType="x" * 300),
        ):
            with pytest.raises(InvalidArgument):
                await opened.invoke(request)
        await opened.invoke(create(b"x"))


async def test_a_queue_name_that_the_protocol_does_not_have(server):
    with pytest.raises(BindingError, match="queue"):
        async with open_binding(server, "naïve*"):
            pass


async def test_the_documented_component_is_understood():
    documented = {
        "queueName": "queue1",
        "host": "amqp://user:password@host.domain:5672",
        "durable": "true",
        "deleteWhenUnused": "false",
        "ttlInSeconds": "60",
        "prefetchCount": "0",
        "exclusive": "false",
        "maxPriority": "5",
        "contentType": "text/plain",
        "reconnectWaitInSeconds": "5",
        "externalSasl": "false",
    }
    options = load_options(BindingOptions, documented)
    assert (options.max_priority, options.ttl_in_seconds) == (5, timedelta(minutes=1))
    assert "password" not in repr(options)


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"host": "rabbit:5672"}, "host"),
        ({"queueName": ""}, "queueName"),
        ({"maxPriority": "0"}, "maxPriority"),
        ({"maxPriority": "256"}, "maxPriority"),
        ({"prefetchCount": "-1"}, "prefetchCount"),
        ({"ttlInSeconds": "0"}, "ttlInSeconds"),
        ({"redeliverInterval": "-1s"}, "redeliverInterval"),
        ({"saslExternal": "true"}, "externalSasl"),
        ({"clientCert": "PEM", "clientKey": "PEM"}, "clientCert"),
        ({"queue": "q"}, "queue"),
    ],
    ids=str,
)
async def test_metadata_mistakes(metadata, field):
    with pytest.raises(ConfigError) as raised:
        load_options(BindingOptions, {"host": "amqp://localhost", "queueName": "q", **metadata})
    fields = {problem.field.rpartition(".")[2] for problem in raised.value.problems}
    assert field in fields
