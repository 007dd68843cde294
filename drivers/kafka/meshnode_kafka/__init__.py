"""`pubsub.kafka` and `bindings.kafka`: Apache Kafka, in the layout of Dapr's components of these names.

Imports meshnode.interfaces and meshnode.errors only. aiokafka speaks asyncio: what talks to it runs behind
the node's one trio-asyncio loop.

    _options.py       the metadata fields
    _security.py      TLS and SASL in aiokafka's words
    _records.py       what a record looks like; no I/O
    _partition.py     a partition while it is ours; no I/O
    _errors.py        aiokafka's errors as ours, and the way over to its side
    _client.py        makes producers and consumers
    _closing.py       ends both within a bound (asyncio)
    _publisher.py     publishing (asyncio)
    _reader.py        a member of a consumer group (asyncio)
    _subscription.py  its messages delivered (trio)
    _pubsub.py        the broker as a component
    _binding.py       the bindings
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Driver, DriverContext
from meshnode_kafka._binding import KafkaBinding
from meshnode_kafka._client import Clients
from meshnode_kafka._errors import TROUBLE, on_asyncio
from meshnode_kafka._options import BindingOptions, Options
from meshnode_kafka._publisher import Publisher
from meshnode_kafka._pubsub import KafkaPubSub

__all__ = ["BindingOptions", "KafkaBinding", "KafkaPubSub", "Options", "binding", "pubsub"]


@asynccontextmanager
async def _publisher(options: Options, clients: Clients) -> AsyncIterator[Publisher]:
    publisher = Publisher(clients.producer)
    try:
        try:
            await on_asyncio(publisher.open)
        except TROUBLE as error:
            raise ComponentUnavailable(f"kafka at {options.brokers}: no broker answers") from error
        yield publisher
    finally:
        # Bounded by itself: what waits on the other side cannot be left there.
        with trio.CancelScope(shield=True):
            await on_asyncio(publisher.aclose)


@asynccontextmanager
async def _open_pubsub(options: Options, context: DriverContext) -> AsyncIterator[KafkaPubSub]:
    clients = Clients(options, context.app_id, context.rng)
    async with _publisher(options, clients) as publisher:
        yield KafkaPubSub(options, context, clients, publisher)


@asynccontextmanager
async def _open_binding(options: BindingOptions, context: DriverContext) -> AsyncIterator[KafkaBinding]:
    clients = Clients(options, context.app_id, context.rng)
    async with _publisher(options, clients) as publisher:
        yield KafkaBinding(options, context, clients, publisher)


pubsub: Driver[KafkaPubSub] = Driver(
    type="pubsub.kafka",
    metadata=Options,
    open=_open_pubsub,
    summary="Topics of Apache Kafka.",
    needs_asyncio=True,
)

binding: Driver[KafkaBinding] = Driver(
    type="bindings.kafka",
    metadata=BindingOptions,
    open=_open_binding,
    summary="Reads topics of Apache Kafka, and publishes to one.",
    needs_asyncio=True,
)
