"""The store: requests become jobs for the worker that reads, writes or queries."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from typing import final

import trio
from meshnode_sqlite_client import Worker

from meshnode.errors import BulkStateError, ComponentError, StateError
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
from meshnode_state_sqlite import _query, _rows
from meshnode_state_sqlite._options import Options

__all__ = ["SqliteStore"]

_FEATURES = frozenset({Feature.ETAG, Feature.TRANSACTIONAL, Feature.TTL, Feature.QUERY_API, Feature.ACTOR})


@final
class SqliteStore:
    """A `StateStore` in an SQLite file."""

    def __init__(self, options: Options, context: DriverContext, workers: Sequence[Worker]) -> None:
        """One worker for everything, or one each for writes, reads and queries: a long query holds up no
        read.
        """
        self._options = options
        self._context = context
        self._writer, self._reader, self._scanner = workers if len(workers) == 3 else (workers[0],) * 3
        self._sql = _rows.Statements(options)

    @property
    def features(self) -> frozenset[Feature]:
        return _FEATURES

    async def get(self, request: GetRequest) -> GetResult | None:
        now = _rows.timestamp(self._context.wall())
        return await self._reader.call(partial(self._get, request.key, now), writes=False)

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        if not requests:
            return []
        now = _rows.timestamp(self._context.wall())
        return await self._reader.call(partial(self._get_all, requests, now), writes=False)

    async def set(self, request: SetRequest) -> None:
        await self._write(request)

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        await self._write_all(requests)

    async def delete(self, request: DeleteRequest) -> None:
        await self._write(request)

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None:
        await self._write_all(requests)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        pairs = [(operation, self._new_etag()) for operation in operations]
        moment = self._context.wall()

        def action(connection: sqlite3.Connection) -> None:
            _rows.transact(connection, self._sql, pairs, moment)

        if pairs:
            await self._writer.call(action, writes=True)

    async def query(self, request: QueryRequest) -> QueryResult:
        now = _rows.timestamp(self._context.wall())
        query = _query.Query(request, self._options.table_name, now)

        def action(connection: sqlite3.Connection) -> QueryResult:
            return _query.run(connection, query)

        return await self._scanner.call(action, writes=False)

    async def ping(self) -> None:
        def action(connection: sqlite3.Connection) -> None:
            connection.execute(f"SELECT 1 FROM {self._options.table_name} LIMIT 1").fetchone()

        await self._reader.call(action, writes=False)

    async def sweep(self) -> None:
        """Runs while the store is open and removes expired rows, unless another process has just done so."""
        interval = self._options.cleanup_interval.total_seconds()
        while True:
            await trio.sleep(interval)
            try:
                if await self._writer.call(partial(self._claim_sweep, interval), writes=True):
                    while await self._writer.call(self._sweep, writes=True):
                        pass
            except ComponentError as error:
                self._context.log.warning("removing expired rows: %s", error)

    async def _write(self, request: StateOperation) -> None:
        action = partial(self._apply, request, self._new_etag(), self._context.wall())
        await self._writer.call(action, writes=True)

    async def _write_all(self, requests: Sequence[StateOperation]) -> None:
        if not requests:
            return
        pairs = [(request, self._new_etag()) for request in requests]
        failures = await self._writer.call(partial(self._apply_all, pairs, self._context.wall()), writes=True)
        if failures:
            raise BulkStateError(failures)

    def _new_etag(self) -> str:
        return f"{self._context.rng.getrandbits(128):032x}"

    # What follows runs in a worker's thread.

    def _get(self, key: str, now: str, connection: sqlite3.Connection) -> GetResult | None:
        return _rows.read(connection, self._sql, key, now)

    def _get_all(
        self, requests: Sequence[GetRequest], now: str, connection: sqlite3.Connection
    ) -> list[BulkGetResult]:
        keys = [request.key for request in requests]
        return [BulkGetResult(key, _rows.read(connection, self._sql, key, now)) for key in keys]

    def _apply(
        self, request: StateOperation, new_etag: str, moment: float, connection: sqlite3.Connection
    ) -> None:
        _rows.write(connection, self._sql, request, new_etag, moment)

    def _apply_all(
        self, pairs: Sequence[tuple[StateOperation, str]], moment: float, connection: sqlite3.Connection
    ) -> dict[int, StateError]:
        failures = {}
        for position, (request, new_etag) in enumerate(pairs):
            try:
                _rows.write(connection, self._sql, request, new_etag, moment)
            except StateError as error:
                failures[position] = error
        return failures

    def _claim_sweep(self, interval: float, connection: sqlite3.Connection) -> bool:
        """True when this process is the one to sweep now; others that share the file see that it is done."""
        now = _rows.timestamp(self._context.wall())
        # A second less, since the database counts in whole ones.
        row = {"now": now, "interval": interval - 1}
        return connection.execute(self._sql.claim_sweep, row).rowcount > 0

    def _sweep(self, connection: sqlite3.Connection) -> bool:
        return _rows.sweep(connection, self._sql, self._context.wall())
