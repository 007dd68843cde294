"""Opening a component: its pool, once the server has answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshnode.errors import ComponentError
from meshnode_postgresql._options import ConnectionOptions
from meshnode_postgresql._pool import Pool

__all__ = ["open_pool"]


@asynccontextmanager
async def open_pool(options: ConnectionOptions, failure: type[ComponentError]) -> AsyncIterator[Pool]:
    pool = Pool(options, failure)
    raised: BaseException | None = None
    try:
        async with pool.session():
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.sweep)
            try:
                yield pool
            except BaseException as error:  # out of the nursery it would come in a group
                raised = error
            nursery.cancel_scope.cancel()
        if raised is not None:
            raise raised
    finally:
        pool.close()
