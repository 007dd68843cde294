"""`nameresolution.redis`: nodes register in Redis for a time, and renew that for as long as they live. Dapr
has no resolver of this name; the layout is our own.

_options.py    the metadata fields
_scripts.py    what is sent; no I/O
_resolver.py   registering, renewing and looking up
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.errors import ComponentError
from meshnode.interfaces import Driver, DriverContext, lone_error
from meshnode_redis._open import open_client
from meshnode_redis.nameresolution._options import Options
from meshnode_redis.nameresolution._resolver import RedisResolver

__all__ = ["Options", "RedisResolver", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[RedisResolver]:
    with lone_error():
        async with open_client(options, context, ComponentError) as client:
            yield RedisResolver(options, context, client)


driver: Driver[RedisResolver] = Driver(
    type="nameresolution.redis",
    metadata=Options,
    open=_open,
    summary="Nodes find each other through Redis, where each renews its registration.",
    needs_asyncio=True,
)
