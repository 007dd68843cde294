"""`state.postgresql`: state in a table of PostgreSQL, in the layouts of Dapr's component of that name.

_options.py    the metadata fields of version 1 and of version 2
_layouts.py    the two layouts: tables, columns, values and etags as they stand there; no I/O
_statements.py what is sent, from a layout
_migrate.py    making the tables
_query.py      a query as SQL
_store.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from meshnode.errors import StateError
from meshnode.interfaces import Driver, DriverContext
from meshnode_postgresql._open import open_pool
from meshnode_postgresql.state._layouts import Layout, layout_v1, layout_v2
from meshnode_postgresql.state._migrate import migrate
from meshnode_postgresql.state._options import Options, OptionsV2, StateOptions
from meshnode_postgresql.state._store import PostgresStore

__all__ = ["Options", "OptionsV2", "PostgresStore", "driver", "driver_v2", "postgres", "postgres_v2"]


@asynccontextmanager
async def _open(
    options: StateOptions, layout: Layout, context: DriverContext
) -> AsyncIterator[PostgresStore]:
    async with open_pool(options, StateError) as pool:
        await migrate(pool, layout)
        store = PostgresStore(pool, layout, context)
        raised: BaseException | None = None
        async with trio.open_nursery() as nursery:
            if options.sweeps:
                nursery.start_soon(store.sweep, options.cleanup_interval.total_seconds())
            try:
                yield store
            except BaseException as error:  # out of the nursery it would come in a group
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised


def _open_v1(options: Options, context: DriverContext) -> AbstractAsyncContextManager[PostgresStore]:
    return _open(options, layout_v1(options.table_name, options.metadata_table_name), context)


def _open_v2(options: OptionsV2, context: DriverContext) -> AbstractAsyncContextManager[PostgresStore]:
    return _open(options, layout_v2(options.table_prefix, options.metadata_table_name), context)


Opening = Callable[..., AbstractAsyncContextManager[PostgresStore]]


def _driver(name: str, version: str, metadata: type[StateOptions], opened: Opening) -> Driver[PostgresStore]:
    return Driver(
        type=name,
        metadata=metadata,
        open=opened,
        summary="State in a table of PostgreSQL.",
        versions=(version,),
    )


driver: Driver[PostgresStore] = _driver("state.postgresql", "v1", Options, _open_v1)
driver_v2: Driver[PostgresStore] = _driver("state.postgresql", "v2", OptionsV2, _open_v2)
postgres: Driver[PostgresStore] = _driver("state.postgres", "v1", Options, _open_v1)
"""The same by the other name that Dapr has for it."""
postgres_v2: Driver[PostgresStore] = _driver("state.postgres", "v2", OptionsV2, _open_v2)
