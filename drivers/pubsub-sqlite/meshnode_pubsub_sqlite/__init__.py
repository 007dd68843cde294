"""`pubsub.sqlite`: topics and consumer groups in one file, shared by every process that opens it.

Imports meshnode.interfaces and meshnode.errors only; the connection and its thread are
meshnode_sqlite_client's.

    _options.py     the metadata fields
    _tables.py      the tables, and the file they are in
    _rows.py        one operation on a group's deliveries; like the next two, functions that take a
                    connection and run in the worker thread
    _publishing.py  groups, and what is published into them
    _sweeping.py    removing what is over
    _owners.py      who holds leases, and whether it is alive
    _bells.py       waking the subscriptions that may have something to take
    _tending.py     what goes on in the background: leases, other processes, what is over
    _pubsub.py      publishing and subscribing
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from meshnode_sqlite_client import open_workers

from meshnode.interfaces import Driver, DriverContext
from meshnode_pubsub_sqlite._bells import Bells
from meshnode_pubsub_sqlite._options import Options
from meshnode_pubsub_sqlite._owners import owning
from meshnode_pubsub_sqlite._pubsub import SqlitePubSub
from meshnode_pubsub_sqlite._tables import database_of, migrate
from meshnode_pubsub_sqlite._tending import Tending

__all__ = ["Options", "SqlitePubSub", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[SqlitePubSub]:
    async with open_workers(database_of(options), migrate) as (worker,), owning(worker, context) as owner:
        bells = Bells()
        tending = Tending(options, context, worker, owner, bells)
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            for task in (tending.renew, tending.listen, tending.bury, tending.sweep):
                nursery.start_soon(task)
            try:
                yield SqlitePubSub(options, context, worker, tending, bells)
            except BaseException as raised:  # out of the nursery it would come in a group
                failure = raised
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


driver: Driver[SqlitePubSub] = Driver(
    type="pubsub.sqlite",
    metadata=Options,
    open=_open,
    summary="Durable topics in an SQLite file; needs nothing installed.",
)
