"""`secretstores.mine`: a secret store for meshnode.

A driver imports meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.interfaces import Driver, DriverContext

from meshnode_secretstores_mine._options import Options
from meshnode_secretstores_mine._secrets import Secrets
from meshnode_secretstores_mine._system import server_at

__all__ = ["Options", "Secrets", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Secrets]:
    """Opens what the component needs, and closes it again when the node ends.

    A connection, a pool or a nursery for tasks of the driver's own is an `async with` around the `yield`.
    """
    server = server_at(options.address)
    opened = Secrets(server)
    await opened.ping()  # a server that is not there is found out at the start
    yield opened


driver: Driver[Secrets] = Driver(
    type="secretstores.mine",
    metadata=Options,
    open=_open,
    summary="One line for `meshnode components describe`.",
)
