"""`bindings.mine`: a binding of both directions for meshnode.

A driver imports meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.interfaces import Driver, DriverContext

from meshnode_bindings_mine._binding import Binding
from meshnode_bindings_mine._options import Options
from meshnode_bindings_mine._system import server_at

__all__ = ["Binding", "Options", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Binding]:
    """Opens what the component needs, and closes it again when the node ends.

    A connection, a pool or a nursery for tasks of the driver's own is an `async with` around the `yield`.
    """
    server = server_at(options.address)
    opened = Binding(server, options)
    await opened.ping()  # a server that is not there is found out at the start
    yield opened


driver: Driver[Binding] = Driver(
    type="bindings.mine",
    metadata=Options,
    open=_open,
    summary="One line for `meshnode components describe`.",
)
