"""`configuration.postgresql`: configuration items in a table of PostgreSQL, whose trigger tells of changes,
as Dapr's component of that name has it.

_options.py    the metadata fields
_items.py      rows and notifications as items; what of them is new; no I/O
_rows.py       reading the table
_feed.py       the connection that listens
_store.py      reading and watching
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from meshnode.errors import ConfigurationError
from meshnode.interfaces import Driver, DriverContext
from meshnode_postgresql._open import open_pool
from meshnode_postgresql.configuration._options import Options
from meshnode_postgresql.configuration._rows import check_table
from meshnode_postgresql.configuration._store import PostgresConfiguration

__all__ = ["Options", "PostgresConfiguration", "driver", "postgres"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[PostgresConfiguration]:
    async with open_pool(options, ConfigurationError) as pool:
        await check_table(pool, options.table, context)
        yield PostgresConfiguration(options, context, pool)


def _driver(name: str) -> Driver[PostgresConfiguration]:
    opened: Callable[[Options, DriverContext], AbstractAsyncContextManager[PostgresConfiguration]] = _open
    return Driver(
        type=name,
        metadata=Options,
        open=opened,
        summary="Configuration items in a table of PostgreSQL, with changes told as they happen.",
    )


driver: Driver[PostgresConfiguration] = _driver("configuration.postgresql")
postgres: Driver[PostgresConfiguration] = _driver("configuration.postgres")
"""The same by the other name that Dapr has for it."""
