"""`state.in-memory`: a state store in the node's own memory.

Imports meshnode.interfaces and meshnode.errors only.

_query.py   what a query means, as functions over parsed JSON
_store.py   the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import frozen

from meshnode.interfaces import Driver, DriverContext
from meshnode_state_in_memory._store import MemoryStore

__all__ = ["MemoryStore", "Options", "driver"]


@frozen
class Options:
    """The component has no metadata."""


@asynccontextmanager
async def _open(_options: Options, context: DriverContext) -> AsyncIterator[MemoryStore]:
    store = MemoryStore(wall=context.wall, rng=context.rng)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.sweep)
        yield store
        nursery.cancel_scope.cancel()


driver: Driver[MemoryStore] = Driver(
    type="state.in-memory",
    metadata=Options,
    open=_open,
    summary="State in the node's memory; gone when the node ends.",
)
