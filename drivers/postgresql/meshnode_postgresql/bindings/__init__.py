"""`bindings.postgresql`: SQL on PostgreSQL, as Dapr's component of that name runs it.

_options.py      the metadata fields
_params.py       `params` as the texts that go to the server
_values.py       what comes back, as JSON in Dapr's shape
_intervals.py    times of day and intervals, likewise
_binding.py      the binding
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from meshnode.errors import BindingError
from meshnode.interfaces import Driver, DriverContext
from meshnode_postgresql._open import open_pool
from meshnode_postgresql.bindings._binding import Postgres
from meshnode_postgresql.bindings._options import Options

__all__ = ["Options", "Postgres", "driver", "postgres"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[Postgres]:
    async with open_pool(options, BindingError) as pool:
        yield Postgres(pool, context)


def _driver(name: str) -> Driver[Postgres]:
    opened: Callable[[Options, DriverContext], AbstractAsyncContextManager[Postgres]] = _open
    return Driver(type=name, metadata=Options, open=opened, summary="SQL on PostgreSQL.")


driver: Driver[Postgres] = _driver("bindings.postgresql")
postgres: Driver[Postgres] = _driver("bindings.postgres")
"""The same by the other name that Dapr has for it."""
