"""`bindings.redis`: plain keys in Redis, as Dapr's component of that name handles them. Output only.

_options.py    the metadata fields
_binding.py    the operations
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.errors import BindingError
from meshnode.interfaces import Driver, DriverContext
from meshnode_redis._open import open_client
from meshnode_redis.bindings._binding import RedisBinding
from meshnode_redis.bindings._options import Options

__all__ = ["Options", "RedisBinding", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[RedisBinding]:
    async with open_client(options, context, BindingError) as client:
        yield RedisBinding(client)


driver: Driver[RedisBinding] = Driver(
    type="bindings.redis",
    metadata=Options,
    open=_open,
    summary="Plain keys in Redis: create, get, delete, increment.",
    needs_asyncio=True,
)
