"""`configuration.sqlite`: configuration items in a table of an SQLite file.

Imports meshnode.interfaces and meshnode.errors only; the connection and its thread are
meshnode_sqlite_client's.

    _options.py   the metadata fields
    _rows.py      what is asked of the file
    _store.py     reading and watching
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from meshnode_sqlite_client import Database, open_workers

from meshnode.errors import ConfigurationError
from meshnode.interfaces import Driver, DriverContext
from meshnode_configuration_sqlite import _rows
from meshnode_configuration_sqlite._options import Options
from meshnode_configuration_sqlite._store import SqliteConfiguration

__all__ = ["Options", "SqliteConfiguration", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[SqliteConfiguration]:
    database = Database(
        options.connection_string,
        ConfigurationError,
        options.timeout,
        options.busy_timeout,
        disable_wal=options.disable_wal,
    )
    async with open_workers(database, partial(_rows.migrate, options.table)) as (worker,):
        await worker.call(partial(_rows.read, options.table, ("",)), writes=False)
        yield SqliteConfiguration(options, context, worker)


driver: Driver[SqliteConfiguration] = Driver(
    type="configuration.sqlite",
    metadata=Options,
    open=_open,
    summary="Configuration items in a table of an SQLite file; needs nothing installed.",
)
