"""Name resolution for one machine: a SQLite file in which every node keeps a row of its own.

The tables and the rules are those of Dapr's sqlite name resolution, so a `daprd` with the same file takes
part: a row is refreshed before it is `updateInterval` old, one that is older counts as dead, and a clean end
deletes it.

Imports meshnode.interfaces, meshnode.errors and trio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.interfaces import Driver, DriverContext
from meshnode_nameresolution_sqlite._options import SqliteOptions
from meshnode_nameresolution_sqlite._resolver import RegistrationLost, SqliteResolver

__all__ = ["RegistrationLost", "SqliteOptions", "SqliteResolver", "driver"]


@asynccontextmanager
async def _open(options: SqliteOptions, context: DriverContext) -> AsyncIterator[SqliteResolver]:
    async with SqliteResolver.open(options, context) as resolver:
        yield resolver


driver: Driver[SqliteResolver] = Driver(
    type="nameresolution.sqlite",
    metadata=SqliteOptions,
    open=_open,
    summary="Nodes of one machine find each other through a shared SQLite file.",
)
