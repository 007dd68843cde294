"""bindings.mqtt3 against a real mosquitto."""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import trio
from meshnode_mqtt import BindingOptions, bindings_mqtt, bindings_mqtt3
from support.mosquitto_servers import find_mosquitto, mosquitto_server

from meshnode.errors import ConfigError, InvalidArgument
from meshnode.interfaces import BindingRequest, DriverContext, Outcome
from meshnode.registry import load_options
from meshnode.testing.conformance import bindings

CONTEXT = DriverContext("binding", "app")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    with mosquitto_server(tmp_path_factory.mktemp("mosquitto")) as running:
        yield running


@asynccontextmanager
async def opened(server, name, **options):
    options = {"redeliver_interval": timedelta(seconds=0.1), "topic": name, "consumer_id": name, **options}
    async with bindings_mqtt3.open(BindingOptions(url=server.url, **options), CONTEXT) as binding:
        yield binding


@asynccontextmanager
async def reading(binding, answer=None):
    send, receive = trio.open_memory_channel(1000)
    stop = trio.Event()

    async def take(event):
        await send.send(event)
        return Outcome.ACK if answer is None else await answer(event)

    async def read(task_status):
        await binding.read(take, stop, task_status=task_status)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(read)
            yield receive
            stop.set()


@pytest.mark.parametrize("check", bindings.INPUT_CHECKS, ids=str)
async def test_conformance_of_input(check, server):
    name = f"input-{next(_numbers)}"

    async def fire(data):
        async with opened(server, f"{name}-sender", topic=name) as sender:
            await sender.invoke(BindingRequest("create", data))

    assert await check.run(bindings.InputSetup(lambda: opened(server, name), fire))


@pytest.mark.parametrize("check", bindings.OUTPUT_CHECKS, ids=str)
async def test_conformance_of_output(check, server):
    def open_binding():
        return opened(server, f"output-{next(_numbers)}")

    assert await check.run(bindings.OutputSetup(open_binding, BindingRequest("create", b"x")))


def test_both_of_dapr_s_names():
    assert (bindings_mqtt3.type, bindings_mqtt.type) == ("bindings.mqtt3", "bindings.mqtt")


async def test_topics_and_metadata(server):
    """A request may name another topic; an event says its own."""
    async with (
        opened(server, "reader", topic="sensors/+/temperature") as reader,
        opened(server, "writer", topic="sensors/1/temperature") as writer,
        reading(reader) as events,
    ):
        await writer.invoke(BindingRequest("create", b"20"))
        await writer.invoke(BindingRequest("create", b"30", {"topic": "sensors/2/temperature"}))
        for number, data in ((1, b"20"), (2, b"30")):
            event = await events.receive()
            assert (event.data, event.metadata) == (data, {"topic": f"sensors/{number}/temperature"})
        with pytest.raises(InvalidArgument, match="wildcards"):
            await reader.invoke(BindingRequest("create", b"1"))
        with pytest.raises(InvalidArgument, match="delete"):
            await writer.invoke(BindingRequest("delete", b"1"))


async def test_a_retained_message_per_request(server):
    async with opened(server, "keeper", topic="keeper/1") as binding:
        await binding.invoke(BindingRequest("create", b"kept", {"retain": "true"}))
        async with reading(binding) as events:
            assert (await events.receive()).data == b"kept"
        await binding.invoke(BindingRequest("create", b"", {"retain": "true"}))


async def test_the_number_of_retries(server):
    """Then it is left with the broker, and comes with the next connection."""

    async def answer(_event):
        return Outcome.RETRY

    async with opened(server, "tries", back_off_max_retries=2) as binding:
        async with reading(binding, answer) as events:
            await binding.invoke(BindingRequest("create", b"1"))
            for _ in range(3):
                await events.receive()
            await binding.invoke(BindingRequest("create", b"2"))
            assert [(await events.receive()).data for _ in range(3)] == [b"2"] * 3
        async with reading(binding) as events:
            assert sorted([(await events.receive()).data for _ in range(2)]) == [b"1", b"2"]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"topic": "a#"}, "topic"),
        ({"consumerID": ""}, "consumerID"),
        ({"backOffMaxRetries": "-2"}, "backOffMaxRetries"),
        ({"url": "http://h"}, "url"),
    ],
)
def test_mistakes_in_the_metadata(values, complaint):
    good = {"url": "tcp://localhost", "topic": "t", "consumerID": "me"}
    with pytest.raises(ConfigError, match=complaint):
        load_options(bindings_mqtt3.metadata, [*{**good, **values}.items()])


def test_what_dapr_documents_is_accepted():
    values = {
        "url": "tcp://user:password@host:1883",
        "topic": "mytopic",
        "consumerID": "myapp",
        "retain": "false",
        "cleanSession": "false",
        "backoffMaxRetries": "0",
        "qos": "2",
    }
    options = load_options(bindings_mqtt3.metadata, [*values.items()])
    assert options.back_off_max_retries == 0
