"""The store: requests become statements, each of which is a transaction of its own unless several are to be
one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import trio

from meshnode.errors import (
    BulkStateError,
    ComponentError,
    ComponentUnavailable,
    InvalidArgument,
    NotImplementedHere,
    StateError,
)
from meshnode.interfaces import (
    BulkGetResult,
    DeleteRequest,
    DriverContext,
    Feature,
    GetRequest,
    GetResult,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateOperation,
)
from meshnode_postgresql._connection import Connection, Refused
from meshnode_postgresql._pool import Pool
from meshnode_postgresql._text import array, encode
from meshnode_postgresql.state._layouts import Layout
from meshnode_postgresql.state._query import Query
from meshnode_postgresql.state._statements import Statement, Statements

__all__ = ["PostgresStore"]

_FEATURES = frozenset({Feature.ETAG, Feature.TRANSACTIONAL, Feature.TTL, Feature.ACTOR})
_AT_ONCE = 100
"""Writes of a bulk call that one session takes, with the time set for it."""

_BUFFER = 0.1
"""Seconds by which a clean-up may come early, as in Dapr: clocks and timers are not exact."""


@final
class PostgresStore:
    """A `StateStore` on PostgreSQL."""

    def __init__(self, pool: Pool, layout: Layout, context: DriverContext) -> None:
        self._pool = pool
        self._layout = layout
        self._log = context.log
        self._sql = Statements(layout)

    @property
    def features(self) -> frozenset[Feature]:
        return _FEATURES | {Feature.QUERY_API} if self._layout.document else _FEATURES

    async def get(self, request: GetRequest) -> GetResult | None:
        (answer,) = await self.bulk_get([request], 0)
        if answer.error is not None:
            raise answer.error
        return answer.result

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        if not requests:
            return []
        keys = array(dict.fromkeys(request.key for request in requests))
        async with self._pool.session() as connection:
            result = await connection.run(self._sql.get, [keys])
        found: dict[str, BulkGetResult] = {}
        for row in range(result.ntuples):
            key = self._sql.key(result, row)
            try:
                found[key] = BulkGetResult(key, self._sql.read(result, row))
            except StateError as error:
                found[key] = BulkGetResult(key, error=error)
        return [found.get(request.key) or BulkGetResult(request.key) for request in requests]

    async def set(self, request: SetRequest) -> None:
        await self._write(request)

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        await self._write_all(requests)

    async def delete(self, request: DeleteRequest) -> None:
        await self._write(request)

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None:
        await self._write_all(requests)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        # By key, so that of two transactions that share keys one waits for the other, and never both. What
        # is done to one key stays in order.
        statements = [self._sql.write(one) for one in sorted(operations, key=lambda one: one.key)]
        if not statements:
            return
        async with self._pool.session() as connection:
            if len(statements) == 1:
                await _run(connection, statements[0])
                return
            await connection.simple("BEGIN")
            try:
                for statement in statements:
                    await _run(connection, statement)
            except (StateError, Refused):
                await connection.simple("ROLLBACK")
                raise
            await connection.simple("COMMIT")

    async def query(self, request: QueryRequest) -> QueryResult:
        if not self._layout.document:
            raise NotImplementedHere("state.postgresql: version 2 has no queries; use version 1")
        query = Query(request, self._layout, self._sql)
        async with self._pool.session() as connection:
            return query.result(await connection.run(query.sql, query.values))

    async def ping(self) -> None:
        async with self._pool.session() as connection:
            await connection.simple("SELECT 1")

    async def sweep(self, interval: float) -> None:
        """Runs while the store is open and removes expired rows, unless another process has just done so."""
        while True:
            await trio.sleep(interval)
            try:
                if await self._claim_sweep(interval):
                    while await self._sweep():
                        pass
            except ComponentError as error:
                self._log.warning("removing expired rows: %s", error)

    async def _claim_sweep(self, interval: float) -> bool:
        values = [encode(self._layout.swept_key), repr(max(interval - _BUFFER, 0.0)).encode()]
        async with self._pool.session() as connection:
            return bool((await connection.run(self._sql.claim_sweep, values)).command_tuples)

    async def _sweep(self) -> bool:
        async with self._pool.session() as connection:
            return bool((await connection.run(self._sql.sweep)).command_tuples)

    async def _write(self, request: StateOperation) -> None:
        statement = self._sql.write(request)
        async with self._pool.session() as connection:
            await _run(connection, statement)

    async def _write_all(self, requests: Sequence[StateOperation]) -> None:
        failures: dict[int, StateError] = {}
        for start in range(0, len(requests), _AT_ONCE):
            try:
                found = await self._write_some(requests[start : start + _AT_ONCE])
            except ComponentUnavailable as error:
                if not start:
                    raise
                # What went before is done, and what follows would fare no better.
                failures |= dict.fromkeys(range(start, len(requests)), StateError(error.message))
                break
            failures |= {start + position: failure for position, failure in found.items()}
        if failures:
            raise BulkStateError(failures)

    async def _write_some(self, requests: Sequence[StateOperation]) -> dict[int, StateError]:
        """What failed, by position. Raises `ComponentUnavailable` when nothing has been sent."""
        failures: dict[int, StateError] = {}
        tried = 0
        try:
            async with self._pool.session() as connection:
                for position, request in enumerate(requests):
                    tried = position + 1
                    try:
                        await _run(connection, self._sql.write(request))
                    except Refused as refused:
                        failures[position] = StateError(self._pool.error(refused).message)
                    except StateError as error:
                        failures[position] = error
                    except InvalidArgument as error:
                        failures[position] = StateError(error.message, status=error.code)
        except ComponentUnavailable as error:
            if not tried:
                raise
            failures |= dict.fromkeys(range(tried - 1, len(requests)), StateError(error.message))
        return failures


async def _run(connection: Connection, statement: Statement) -> None:
    statement.check(await connection.run(statement.sql, statement.values, statement.formats))
