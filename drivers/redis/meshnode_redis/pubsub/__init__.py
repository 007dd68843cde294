"""`pubsub.redis`: topics as Redis streams, in the layout of Dapr's component of that name.

_options.py        the metadata fields
_entries.py        what stands in a stream, as messages; no I/O
_scripts.py        Lua for what must not be torn apart; no I/O
_group.py          a consumer's dealings with its group, but for taking
_feed.py           taking from the stream: new, given back, due, orphaned
_subscription.py   delivering what the feed brings
_pubsub.py         publishing, subscribing
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.errors import PubSubError
from meshnode.interfaces import Driver, DriverContext
from meshnode_redis._open import open_client
from meshnode_redis.pubsub._options import Options
from meshnode_redis.pubsub._pubsub import RedisPubSub

__all__ = ["Options", "RedisPubSub", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[RedisPubSub]:
    async with open_client(options, context, PubSubError) as client:
        yield RedisPubSub(client, options, context)


driver: Driver[RedisPubSub] = Driver(
    type="pubsub.redis",
    metadata=Options,
    open=_open,
    summary="Topics as Redis streams: single, sentinel or cluster.",
    needs_asyncio=True,
)
