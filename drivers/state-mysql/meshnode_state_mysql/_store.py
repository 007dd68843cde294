"""The store: requests become jobs for a connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import final
from uuid import UUID

import trio

from meshnode.errors import BulkStateError, ComponentError, NotImplementedHere, StateError
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
from meshnode_state_mysql import _rows
from meshnode_state_mysql._errors import InDoubt
from meshnode_state_mysql._options import Options
from meshnode_state_mysql._pool import Pool

__all__ = ["MysqlStore"]

_FEATURES = frozenset({Feature.ETAG, Feature.TRANSACTIONAL, Feature.TTL, Feature.ACTOR})


@final
class MysqlStore:
    """A `StateStore` on MySQL. `exact`: the table keeps keys apart that differ in case only."""

    def __init__(self, options: Options, context: DriverContext, pool: Pool, *, exact: bool) -> None:
        self._context = context
        self._pool = pool
        self._exact = exact
        self._sql = _rows.Statements(options)

    @property
    def features(self) -> frozenset[Feature]:
        return _FEATURES

    async def get(self, request: GetRequest) -> GetResult | None:
        return await self._pool.run(lambda session: _rows.read(session, self._sql, request.key))

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        if not requests:
            return []
        keys = [request.key for request in requests]
        found = await self._pool.run(
            lambda session: _rows.read_all(session, self._sql, keys, exact=self._exact)
        )
        return [_answer(key, found.get(key)) for key in keys]

    async def set(self, request: SetRequest) -> None:
        await self._write(request)

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        await self._write_all(requests)

    async def delete(self, request: DeleteRequest) -> None:
        await self._write(request)

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None:
        await self._write_all(requests)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        pairs = self._pairs(operations)
        if pairs:
            await self._pool.run(lambda session: _rows.transact(session, self._sql, pairs), writes=True)

    async def query(self, request: QueryRequest) -> QueryResult:
        raise NotImplementedHere("state.mysql: queries are not offered, as in Dapr")

    async def ping(self) -> None:
        await self._pool.run(lambda session: session.rows(self._sql.ping))

    async def sweep(self, interval: float) -> None:
        """Runs while the store is open and removes expired rows, unless another node has just done so."""
        claim = partial(_rows.claim_sweep, sql=self._sql, interval=interval)
        while True:
            await trio.sleep(interval)
            try:
                if await self._pool.run(claim):
                    while await self._pool.run(partial(_rows.sweep, sql=self._sql)):
                        pass
            except ComponentError as error:
                self._context.log.warning("removing expired rows: %s", error)

    async def _write(self, request: StateOperation) -> None:
        pair = (request, self._new_etag())
        await self._pool.run(lambda session: _rows.apply(session, self._sql, pair), writes=True)

    async def _write_all(self, requests: Sequence[StateOperation]) -> None:
        pairs = self._pairs(requests)
        if not pairs:
            return
        try:
            failures = await self._pool.run(
                lambda session: _rows.apply_all(session, self._sql, pairs, self._pool.address), writes=True
            )
        except InDoubt as error:
            failures = dict.fromkeys(range(len(pairs)), StateError(error.message))
        if failures:
            raise BulkStateError(failures)

    def _pairs(self, operations: Sequence[StateOperation]) -> list[_rows.Pair]:
        return [(operation, self._new_etag()) for operation in operations]

    def _new_etag(self) -> str:
        return str(UUID(int=self._context.rng.getrandbits(128), version=4))


def _answer(key: str, found: GetResult | StateError | None) -> BulkGetResult:
    if isinstance(found, StateError):
        return BulkGetResult(key, error=found)
    return BulkGetResult(key, found)
