"""`lock.postgresql`: locks in a table of PostgreSQL.

_options.py    the metadata fields
_tables.py     the table, and the functions that work on it; no I/O
_locks.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.errors import LockError
from meshnode.interfaces import Driver, DriverContext
from meshnode_postgresql._open import open_pool
from meshnode_postgresql.lock._locks import PostgresLocks, migrate
from meshnode_postgresql.lock._options import Options
from meshnode_postgresql.lock._tables import Tables

__all__ = ["Options", "PostgresLocks", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[PostgresLocks]:
    tables = Tables(options.table_name)
    async with open_pool(options, LockError) as pool:
        await migrate(pool, tables)
        yield PostgresLocks(pool, tables)


driver: Driver[PostgresLocks] = Driver(
    type="lock.postgresql",
    metadata=Options,
    open=_open,
    summary="Locks in a table of PostgreSQL.",
)
