"""The store: each request is one call of a function at the server."""

from __future__ import annotations

from typing import final

from psycopg.pq.abc import PGresult

from meshnode.interfaces import UnlockOutcome
from meshnode_postgresql._pool import Pool
from meshnode_postgresql._text import encode
from meshnode_postgresql.lock._tables import Tables

__all__ = ["PostgresLocks", "migrate"]


@final
class PostgresLocks:
    """A `LockStore` on PostgreSQL. Nothing is sent twice: where an answer was lost, it may have been done."""

    def __init__(self, pool: Pool, tables: Tables) -> None:
        self._pool = pool
        self._tables = tables

    async def try_lock(self, resource: str, owner: str, seconds: int) -> int | None:
        values = [encode(resource), encode(owner), str(seconds).encode()]
        async with self._pool.session() as connection:
            token = _answer(await connection.run(self._tables.try_lock, values))
        return None if token is None else int(token)

    async def unlock(self, resource: str, owner: str) -> UnlockOutcome:
        async with self._pool.session() as connection:
            result = await connection.run(self._tables.unlock, [encode(resource), encode(owner)])
        return UnlockOutcome(int(_answer(result) or b""))

    async def ping(self) -> None:
        async with self._pool.session() as connection:
            await connection.simple("SELECT 1")


async def migrate(pool: Pool, tables: Tables) -> None:
    """Makes the table and its functions where they are not there; a user that may make none will do else."""
    async with pool.session() as connection:
        if _answer(await connection.run(tables.missing)) == b"t":
            now = _answer(await connection.run(tables.now))
            await connection.simple(tables.create(int(now or b"1")))


def _answer(result: PGresult) -> bytes | None:
    return result.get_value(0, 0)
