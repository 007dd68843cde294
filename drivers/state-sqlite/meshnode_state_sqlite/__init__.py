"""`state.sqlite`: durable state in one file, in the tables Dapr's component of that name uses.

Imports meshnode.interfaces and meshnode.errors only.

    _options.py    the metadata fields, and what a connection string means
    _database.py   opening a connection, and the tables
    _rows.py       one operation on the tables, as functions that take a connection; runs in a worker thread
    _query.py      a query as SQL
    _worker.py     one connection, its thread, and the jobs waiting for it
    _store.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshnode.interfaces import Driver, DriverContext
from meshnode_state_sqlite._options import Options
from meshnode_state_sqlite._store import SqliteStore
from meshnode_state_sqlite._worker import open_workers

__all__ = ["Options", "SqliteStore", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[SqliteStore]:
    async with open_workers(options) as workers, trio.open_nursery() as nursery:
        store = SqliteStore(options, context, workers)
        for worker in workers:
            nursery.start_soon(worker.run)
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
