"""`lock.redis`: locks in Redis, in the layout of Dapr's component of that name.

_options.py    the metadata fields
_scripts.py    what is sent; no I/O
_locks.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.errors import LockError, MeshError
from meshnode.interfaces import Driver, DriverContext
from meshnode_redis._open import open_client
from meshnode_redis.lock._locks import RedisLocks, refuse_replicas
from meshnode_redis.lock._options import Options

__all__ = ["Options", "RedisLocks", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[RedisLocks]:
    refusal: MeshError | None = None
    async with open_client(options, context, LockError) as client:
        try:
            await refuse_replicas(client)
        except MeshError as error:  # out of the client's nursery it would come in a group
            refusal = error
        else:
            yield RedisLocks(client)
    if refusal is not None:
        raise refusal


driver: Driver[RedisLocks] = Driver(
    type="lock.redis",
    metadata=Options,
    open=_open,
    summary="Locks in Redis: a single server, without replicas.",
    needs_asyncio=True,
)
