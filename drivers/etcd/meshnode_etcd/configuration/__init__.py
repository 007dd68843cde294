"""`configuration.etcd`: keys of etcd as configuration items. Dapr has no component of that name.

_options.py    the metadata fields
_progress.py   what a watch has told, and from where it goes on; no I/O
_handoff.py    responses from the stream to the watch
_store.py      reading and watching
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshnode.errors import ConfigurationError
from meshnode.interfaces import Driver, DriverContext
from meshnode_etcd._open import open_client
from meshnode_etcd.configuration._options import Options
from meshnode_etcd.configuration._store import EtcdConfiguration

__all__ = ["EtcdConfiguration", "Options", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[EtcdConfiguration]:
    async with open_client(options, context, ConfigurationError) as client:
        yield EtcdConfiguration(client, context)


driver: Driver[EtcdConfiguration] = Driver(
    type="configuration.etcd",
    metadata=Options,
    open=_open,
    summary="Keys of etcd as configuration, with every change told as it happens.",
    needs_asyncio=True,
)
