"""`pubsub.in-memory`: topics in the node's own memory.

Imports meshnode.interfaces and meshnode.errors only.

    _broker.py   topics, consumer groups and who gets what next; no I/O
    _pubsub.py   the metadata fields, publishing, subscribing
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import final

from meshnode.interfaces import Driver, DriverContext
from meshnode_pubsub_in_memory._broker import Topics
from meshnode_pubsub_in_memory._pubsub import MemoryPubSub, Options

__all__ = ["Broker", "MemoryPubSub", "Options", "driver"]


@final
class Broker:
    """A broker that several nodes of one process share; give its `driver` to their registry."""

    def __init__(self) -> None:
        self._topics = Topics()

    @property
    def driver(self) -> Driver[MemoryPubSub]:
        return _driver(self._topics)


def _driver(shared: Topics | None = None) -> Driver[MemoryPubSub]:
    @asynccontextmanager
    async def opened(options: Options, context: DriverContext) -> AsyncIterator[MemoryPubSub]:
        yield MemoryPubSub(options, context, shared or Topics())

    return Driver(
        type="pubsub.in-memory",
        metadata=Options,
        open=opened,
        summary="Topics in the node's memory; gone when the node ends.",
    )


driver: Driver[MemoryPubSub] = _driver()
