"""`pubsub.mqtt3` and `bindings.mqtt3` (and both as `mqtt`, Dapr's older name): MQTT 3.1.1.

Imports meshnode.interfaces and meshnode.errors only. The protocol is written here, on trio: at-least-once
needs an acknowledgement after processing at every QoS, a connection that can be cancelled at any point, and a
message recognised when it comes again after a reconnection. (paho-mqtt connects in a way that blocks, and
answers a QoS 2 message before it is processed, so that it is lost with the process.)

    _options.py     the metadata fields
    _packets.py     packets as bytes; no I/O
    _topics.py      topics and topic filters; no I/O
    _held.py        what is received and not acknowledged; no I/O
    _pause.py       how long to wait before dialling again; no I/O
    _link.py        one connection
    _publisher.py   publishing
    _session.py     the session of a client id, and who gets what of it
    _consume.py     one subscription
    _pubsub.py      the broker
    _binding.py     the binding
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import evolve

from meshnode.interfaces import Driver, DriverContext
from meshnode_mqtt._binding import MqttBinding
from meshnode_mqtt._link import Login
from meshnode_mqtt._options import BindingOptions, PubSubOptions, broker_of
from meshnode_mqtt._publisher import Publisher
from meshnode_mqtt._pubsub import MqttPubSub
from meshnode_mqtt._session import Session

__all__ = [
    "BindingOptions",
    "MqttBinding",
    "MqttPubSub",
    "PubSubOptions",
    "bindings_mqtt",
    "bindings_mqtt3",
    "pubsub_mqtt",
    "pubsub_mqtt3",
]


@asynccontextmanager
async def _connected(
    options: PubSubOptions | BindingOptions, context: DriverContext, name: str
) -> AsyncIterator[tuple[Publisher, Session]]:
    """`name`: the client id of the session. The publisher's begins with `consumerID`, for brokers that grant
    rights by it.
    """
    broker = broker_of(options)
    own = f"{options.consumer_id or context.app_id}-producer-{context.rng.getrandbits(48):012x}"
    publisher = Publisher(Login(broker, own, clean=True), context.rng)
    session = Session(Login(broker, name, options.clean_session), context.rng, context.log)
    await publisher.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.serve)
        async with trio.open_nursery() as publishing:
            publishing.start_soon(publisher.serve)
            yield publisher, session
            publisher.close(publishing.cancel_scope)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_pubsub(options: PubSubOptions, context: DriverContext) -> AsyncIterator[MqttPubSub]:
    name = options.consumer_id or context.app_id
    async with _connected(options, context, name) as (publisher, session):
        yield MqttPubSub(options, publisher, session)


@asynccontextmanager
async def _open_binding(options: BindingOptions, context: DriverContext) -> AsyncIterator[MqttBinding]:
    async with _connected(options, context, f"{options.consumer_id}-consumer") as (publisher, session):
        yield MqttBinding(options, publisher, session)


pubsub_mqtt3: Driver[MqttPubSub] = Driver(
    type="pubsub.mqtt3",
    metadata=PubSubOptions,
    open=_open_pubsub,
    summary="Topics of an MQTT 3.1.1 broker.",
)
pubsub_mqtt = evolve(pubsub_mqtt3, type="pubsub.mqtt")

bindings_mqtt3: Driver[MqttBinding] = Driver(
    type="bindings.mqtt3",
    metadata=BindingOptions,
    open=_open_binding,
    summary="Events from a topic of an MQTT 3.1.1 broker, and messages to it.",
)
bindings_mqtt = evolve(bindings_mqtt3, type="bindings.mqtt")
