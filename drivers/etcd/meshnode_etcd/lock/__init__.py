"""`lock.etcd`: locks in etcd. Dapr has no component of that name; the layout is our own.

_options.py    the metadata fields
_held.py       what is kept below a lock's key, and whether its time is over; no I/O
_locks.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.errors import LockError
from meshnode.interfaces import Driver, DriverContext
from meshnode_etcd._open import open_client
from meshnode_etcd.lock._locks import EtcdLocks
from meshnode_etcd.lock._options import Options

__all__ = ["EtcdLocks", "Options", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[EtcdLocks]:
    async with open_client(options, context, LockError) as client:
        yield EtcdLocks(client)


driver: Driver[EtcdLocks] = Driver(
    type="lock.etcd",
    metadata=Options,
    open=_open,
    summary="Locks in etcd: one server or a cluster, which may lose members.",
    needs_asyncio=True,
)
