"""`configuration.redis`: plain keys in Redis as configuration items, in the layout of Dapr's component of
that name.

_options.py    the metadata fields
_values.py     channels, flags and values as they stand in Redis; no I/O
_news.py       which keys may have changed
_feed.py       the connections that listen (asyncio side)
_store.py      reading and watching
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.errors import ConfigurationError
from meshnode.interfaces import Driver, DriverContext
from meshnode_redis._open import open_client
from meshnode_redis.configuration._options import Options
from meshnode_redis.configuration._store import RedisConfiguration

__all__ = ["Options", "RedisConfiguration", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[RedisConfiguration]:
    async with open_client(options, context, ConfigurationError) as client:
        yield RedisConfiguration(options, context, client)


driver: Driver[RedisConfiguration] = Driver(
    type="configuration.redis",
    metadata=Options,
    open=_open,
    summary="Plain keys in Redis as configuration, with changes told as they happen.",
    needs_asyncio=True,
)
