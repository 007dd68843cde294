"""`lock.sqlite`: locks in one file, shared by every process that opens it.

Imports meshnode.interfaces and meshnode.errors only; the connection and its thread are
meshnode_sqlite_client's.

    _options.py   the metadata fields
    _rows.py      the table, and one operation on it, as functions that take a connection
    _locks.py     the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from meshnode_sqlite_client import Database, open_workers

from meshnode.errors import LockError
from meshnode.interfaces import Driver, DriverContext
from meshnode_lock_sqlite import _rows
from meshnode_lock_sqlite._locks import SqliteLocks
from meshnode_lock_sqlite._options import Options

__all__ = ["Options", "SqliteLocks", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[SqliteLocks]:
    database = Database(
        options.connection_string,
        LockError,
        timeout=options.timeout,
        busy_timeout=options.busy_timeout,
        disable_wal=options.disable_wal,
    )
    sql = _rows.Statements(options.table_name)
    async with open_workers(database, partial(_rows.migrate, sql)) as (worker,):
        yield SqliteLocks(sql, context, worker)


driver: Driver[SqliteLocks] = Driver(
    type="lock.sqlite",
    metadata=Options,
    open=_open,
    summary="Locks in an SQLite file; needs nothing installed.",
)
