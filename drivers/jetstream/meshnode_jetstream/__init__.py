"""`pubsub.jetstream`: topics as subjects of NATS JetStream streams, as in Dapr's component of that name.

Imports meshnode.interfaces and meshnode.errors only. nats-py speaks asyncio: the connection lives behind the
node's one trio-asyncio loop. Pull requests, acknowledgements and JetStream's API are written here, over plain
NATS messages, because what is under way at the server must be known to be given back.

    _options.py        the metadata fields
    _protocol.py       subjects, status messages, acknowledgements; no I/O
    _floor.py          up to where a stream is processed; no I/O
    _connection.py     the connection and requests over it
    _consumer.py       the consumer at the server: found, made, made again
    _inbox.py          what has come and is not begun
    _subscription.py   one subscription
    _pubsub.py         the component
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.interfaces import Driver, DriverContext
from meshnode_jetstream._connection import open_connection
from meshnode_jetstream._options import Options
from meshnode_jetstream._pubsub import JetStreamPubSub

__all__ = ["JetStreamPubSub", "Options", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[JetStreamPubSub]:
    async with open_connection(options, context) as connection:
        yield JetStreamPubSub(options, connection, context.rng)


driver: Driver[JetStreamPubSub] = Driver(
    type="pubsub.jetstream",
    metadata=Options,
    open=_open,
    summary="Topics as subjects of NATS JetStream streams.",
    needs_asyncio=True,
)
