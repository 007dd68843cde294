"""`state.redis`: state in Redis, in the layout of Dapr's component of that name.

_options.py    the metadata fields
_scripts.py    what is sent and what the answers mean; no I/O
_store.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.errors import StateError
from meshnode.interfaces import Driver, DriverContext
from meshnode_redis._open import open_client
from meshnode_redis.state._options import Options
from meshnode_redis.state._store import RedisStore

__all__ = ["Options", "RedisStore", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[RedisStore]:
    if options.query_indexes:
        context.log.warning("%s: queryIndexes has no effect, for queries are not offered", context.component)
    async with open_client(options, context, StateError) as client:
        yield RedisStore(client, options.ttl_in_seconds)


driver: Driver[RedisStore] = Driver(
    type="state.redis",
    metadata=Options,
    open=_open,
    summary="State in Redis: single, sentinel or cluster.",
    needs_asyncio=True,
)
