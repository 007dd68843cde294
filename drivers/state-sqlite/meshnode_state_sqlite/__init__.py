"""`state.sqlite`: durable state in one file, in the tables Dapr's component of that name uses.

Imports meshnode.interfaces and meshnode.errors only; the connection and its thread are
meshnode_sqlite_client's.

    _options.py    the metadata fields
    _database.py   how the store uses its database, and the tables
    _rows.py       one operation on the tables, as functions that take a connection; runs in a worker thread
    _query.py      a query as SQL
    _store.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from meshnode_sqlite_client import open_workers

from meshnode.interfaces import Driver, DriverContext
from meshnode_state_sqlite._database import database_of, migrate
from meshnode_state_sqlite._options import Options
from meshnode_state_sqlite._store import SqliteStore

__all__ = ["Options", "SqliteStore", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[SqliteStore]:
    prepare = partial(migrate, options)
    async with (
        open_workers(database_of(options), prepare, readers=2) as workers,
        trio.open_nursery() as nursery,
    ):
        store = SqliteStore(options, context, workers)
        if options.sweeps:
            nursery.start_soon(store.sweep)
        yield store
        nursery.cancel_scope.cancel()


driver: Driver[SqliteStore] = Driver(
    type="state.sqlite",
    metadata=Options,
    open=_open,
    summary="Durable state in an SQLite file; needs nothing installed.",
)
