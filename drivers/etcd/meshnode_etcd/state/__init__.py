"""`state.etcd`: state in etcd, in the layouts of Dapr's component of that name, versions v1 and v2.

_options.py    the metadata fields
_message.py    the message of version v2 on the wire; no I/O
_values.py     what is kept below a key, of either version; no I/O
_plan.py       what a transaction comes to; no I/O
_store.py      the store
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from meshnode.errors import StateError
from meshnode.interfaces import Driver, DriverContext
from meshnode_etcd._open import open_client
from meshnode_etcd.state._options import Options
from meshnode_etcd.state._store import EtcdStore
from meshnode_etcd.state._values import Layout, Plain, Wrapped

__all__ = ["EtcdStore", "Options", "driver", "driver_v1"]


def _opening(
    layout: Layout,
) -> Callable[[Options, DriverContext], AbstractAsyncContextManager[EtcdStore]]:
    @asynccontextmanager
    async def opened(options: Options, context: DriverContext) -> AsyncIterator[EtcdStore]:
        async with open_client(options, context, StateError) as client:
            yield EtcdStore(client, layout, context.wall, options.max_txn_ops)

    return opened


def _driver(version: str, layout: Layout, summary: str) -> Driver[EtcdStore]:
    return Driver("state.etcd", Options, _opening(layout), summary, (version,), needs_asyncio=True)


driver = _driver("v2", Wrapped(), "State in etcd.")
driver_v1 = _driver("v1", Plain(), "State in etcd, values as they are (deprecated by Dapr).")
