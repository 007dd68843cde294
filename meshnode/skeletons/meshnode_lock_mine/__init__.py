"""`lock.mine`: a lock store for meshnode.

A driver imports meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.interfaces import Driver, DriverContext

from meshnode_lock_mine._locks import Locks
from meshnode_lock_mine._options import Options
from meshnode_lock_mine._system import server_at

__all__ = ["Locks", "Options", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Locks]:
    """Opens what the component needs, and closes it again when the node ends.

    A connection, a pool or a nursery for tasks of the driver's own is an `async with` around the `yield`.
    """
    server = server_at(options.address)
    opened = Locks(server, context)
    await opened.ping()  # a server that is not there is found out at the start
    yield opened


driver: Driver[Locks] = Driver(
    type="lock.mine",
    metadata=Options,
    open=_open,
    summary="One line for `meshnode components describe`.",
)
