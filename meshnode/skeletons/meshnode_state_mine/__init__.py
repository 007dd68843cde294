"""`state.mine`: a state store for meshnode.

A driver imports meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.interfaces import Driver, DriverContext

from meshnode_state_mine._options import Options
from meshnode_state_mine._store import Store
from meshnode_state_mine._system import server_at

__all__ = ["Options", "Store", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Store]:
    """Opens what the component needs, and closes it again when the node ends.

    A connection, a pool or a nursery for tasks of the driver's own is an `async with` around the `yield`.
    """
    server = server_at(options.address)
    opened = Store(server, context)
    await opened.ping()  # a server that is not there is found out at the start
    yield opened


driver: Driver[Store] = Driver(
    type="state.mine",
    metadata=Options,
    open=_open,
    summary="One line for `meshnode components describe`.",
)
