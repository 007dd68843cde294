"""`pubsub.mine`: a pub/sub broker for meshnode.

A driver imports meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.interfaces import Driver, DriverContext

from meshnode_pubsub_mine._broker import Broker
from meshnode_pubsub_mine._options import Options
from meshnode_pubsub_mine._system import server_at

__all__ = ["Broker", "Options", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Broker]:
    """Opens what the component needs, and closes it again when the node ends.

    A connection, a pool or a nursery for tasks of the driver's own is an `async with` around the `yield`.
    """
    server = server_at(options.address)
    opened = Broker(server, options, context)
    await opened.ping()  # a server that is not there is found out at the start
    yield opened


driver: Driver[Broker] = Driver(
    type="pubsub.mine",
    metadata=Options,
    open=_open,
    summary="One line for `meshnode components describe`.",
)
