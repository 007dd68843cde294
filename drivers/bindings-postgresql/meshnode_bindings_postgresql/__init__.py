"""`bindings.postgresql`: SQL on PostgreSQL, as Dapr's component of that name runs it.

Imports meshnode.interfaces and meshnode.errors only. libpq, as psycopg wraps it, does the talking without
blocking; trio waits for its socket. So there is no thread and no other event loop, and a cancelled call ends
its query at the server.

    _options.py      the metadata fields
    _dsn.py          a connection string taken apart
    _gotime.py       times and durations as Go writes them
    _params.py       `params` as the texts that go to the server
    _values.py       what comes back, as JSON in Dapr's shape
    _intervals.py    times of day and intervals, likewise
    _connection.py   one connection
    _pool.py         some of them
    _binding.py      the binding
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Driver, DriverContext
from meshnode_bindings_postgresql._binding import Postgres
from meshnode_bindings_postgresql._dsn import parse_dsn
from meshnode_bindings_postgresql._options import Options
from meshnode_bindings_postgresql._pool import Pool

__all__ = ["Options", "Postgres", "driver", "postgres"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Postgres]:
    pool = Pool(parse_dsn(options.connection_string), options)
    try:
        with trio.move_on_after(options.timeout.total_seconds()) as scope:
            async with pool.connection():
                pass
        if scope.cancelled_caught:
            raise ComponentUnavailable(
                f"{pool.name} did not answer within {options.timeout.total_seconds():g} s"
            )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.sweep)
            yield Postgres(pool, context)
            nursery.cancel_scope.cancel()
    finally:
        pool.close()


def _driver(name: str) -> Driver[Postgres]:
    opened: Callable[[Options, DriverContext], AbstractAsyncContextManager[Postgres]] = _open
    return Driver(type=name, metadata=Options, open=opened, summary="SQL on PostgreSQL.")


driver: Driver[Postgres] = _driver("bindings.postgresql")
postgres: Driver[Postgres] = _driver("bindings.postgres")
"""The same by the other name that Dapr has for it."""
