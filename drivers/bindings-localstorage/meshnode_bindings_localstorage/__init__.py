"""`bindings.localstorage`: files below one folder, as Dapr's component of that name has them.

Imports meshnode.interfaces and meshnode.errors only. Everything that touches the disk runs in threads.

    _options.py   the metadata fields, and which folders are refused
    _payload.py   what the data of a request is when it is quoted or base64
    _paths.py     a name within the folder, without a way out of it
    _files.py     the four operations; they block
    _binding.py   the binding
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshnode.interfaces import Driver, DriverContext
from meshnode_bindings_localstorage._binding import LocalStorage, prepare
from meshnode_bindings_localstorage._options import Options

__all__ = ["LocalStorage", "Options", "driver"]


@asynccontextmanager
async def _open(options: Options, context: DriverContext) -> AsyncIterator[LocalStorage]:
    root = await trio.to_thread.run_sync(prepare, options)
    yield LocalStorage(options, context, root)


driver: Driver[LocalStorage] = Driver(
    type="bindings.localstorage",
    metadata=Options,
    open=_open,
    summary="Files below one folder.",
)
