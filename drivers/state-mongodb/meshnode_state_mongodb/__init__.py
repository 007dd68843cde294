"""`state.mongodb`: state in a collection on MongoDB, in the layout of Dapr's component of that name.

Imports meshnode.interfaces and meshnode.errors only. PyMongo's client speaks asyncio: it runs behind the
node's one trio-asyncio loop.

    _options.py      the metadata fields
    _documents.py    values as documents and back; no I/O
    _query.py        a state query as MongoDB's; no I/O
    _errors.py       what goes wrong, in the node's words
    _client.py       the client (asyncio), and the way to it from trio's side
    _operations.py   one set or delete (asyncio)
    _store.py        the store (trio)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshnode.errors import ComponentUnavailable
from meshnode.interfaces import Driver, DriverContext
from meshnode_state_mongodb._client import Client, on_asyncio
from meshnode_state_mongodb._errors import TROUBLE, translated
from meshnode_state_mongodb._options import Options
from meshnode_state_mongodb._store import MongoStore

__all__ = ["MongoStore", "Options", "driver"]

_FAREWELL = 10


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[MongoStore]:
    client = await on_asyncio(lambda: _made(options, context))
    try:
        try:
            await on_asyncio(client.open)
        except TROUBLE as error:
            # What is wrong may be put right at the server.
            raise ComponentUnavailable(translated(options.place, error).message) from error
        if not client.transactional:
            context.log.info(
                "%s: the server is no replica set: no transactions, and no actors", context.component
            )
        yield MongoStore(client, context)
    finally:
        client.end_calls()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL):
            await on_asyncio(client.close)


async def _made(options: Options, context: DriverContext) -> Client:
    return Client(options, context)


driver: Driver[MongoStore] = Driver(
    type="state.mongodb",
    metadata=Options,
    open=_open,
    summary="State in a collection on MongoDB.",
    needs_asyncio=True,
)
