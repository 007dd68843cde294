"""The store: requests become jobs for the worker."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import final

from meshnode_sqlite_client import Worker

from meshnode.interfaces import DriverContext, UnlockOutcome
from meshnode_lock_sqlite import _rows

__all__ = ["SqliteLocks"]


@final
class SqliteLocks:
    """A `LockStore` in an SQLite file.

    The clock is read before a job waits for its turn: late, a job ends no lock that is still held at its own
    turn, and the lock it takes ends no later than its taker reckons.
    """

    def __init__(self, sql: _rows.Statements, context: DriverContext, worker: Worker) -> None:
        self._sql = sql
        self._context = context
        self._worker = worker

    async def try_lock(self, resource: str, owner: str, seconds: int) -> int | None:
        now = self._context.wall()
        action = partial(_rows.try_lock, self._sql, resource, owner, now, now + seconds)
        return await self._worker.call(action, writes=True)

    async def unlock(self, resource: str, owner: str) -> UnlockOutcome:
        action = partial(_rows.unlock, self._sql, resource, owner, self._context.wall())
        return await self._worker.call(action, writes=True)

    async def ping(self) -> None:
        def action(connection: sqlite3.Connection) -> None:
            connection.execute(self._sql.look).fetchone()

        await self._worker.call(action, writes=False)
