"""The state store: from meshnode's calls to the system's, and from its errors to meshnode's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import final

from meshnode.errors import (
    BulkStateError,
    ComponentUnavailable,
    EtagInvalid,
    EtagMismatch,
    NotImplementedHere,
    StateError,
)
from meshnode.interfaces import (
    BulkGetResult,
    Concurrency,
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

from meshnode_state_mine._system import Conflict, Row, Server, Write

__all__ = ["Store"]


@final
class Store:
    """A `StateStore`. An etag is the version of its row, in decimal."""

    def __init__(self, server: Server, context: DriverContext) -> None:
        self._server = server
        self._wall = context.wall

    @property
    def features(self) -> frozenset[Feature]:
        return frozenset({Feature.ETAG, Feature.TRANSACTIONAL, Feature.TTL})

    async def get(self, request: GetRequest) -> GetResult | None:
        with _translated():
            row = await self._server.read(request.key, self._wall())
        return _result(row) if row is not None else None

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        """One after another; a system that can read several keys at once is asked once here."""
        return [BulkGetResult(request.key, await self.get(request)) for request in requests]

    async def set(self, request: SetRequest) -> None:
        await self._write([request])

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        await self._write_each(requests)

    async def delete(self, request: DeleteRequest) -> None:
        await self._write([request])

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None:
        await self._write_each(requests)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        """A system without transactions leaves `TRANSACTIONAL` out of its features."""
        await self._write(operations)

    async def query(self, request: QueryRequest) -> QueryResult:
        """Never called while `QUERY_API` is not among the features."""
        raise NotImplementedHere("state.mine has no queries")

    async def ping(self) -> None:
        with _translated():
            await self._server.ping()

    async def _write(self, operations: Sequence[StateOperation]) -> None:
        """All or nothing, and compared and written in one step: of two writers with one etag one wins."""
        now = self._wall()
        writes = [_write_of(operation, now) for operation in operations]
        try:
            with _translated():
                await self._server.write(writes, now)
        except Conflict as error:
            # In Dapr's words, which SDKs look for.
            message = f"possible etag mismatch. error from state store: {error} has another etag"
            raise EtagMismatch(message) from error

    async def _write_each(self, operations: Sequence[StateOperation]) -> None:
        failures: dict[int, StateError] = {}
        for position, operation in enumerate(operations):
            try:
                await self._write([operation])
            except StateError as error:
                failures[position] = error
            except ComponentUnavailable as error:
                if position == 0:
                    raise  # none has been written
                failures[position] = StateError(error.message)
        if failures:
            raise BulkStateError(failures)


@contextmanager
def _translated() -> Iterator[None]:
    """What the system's library raises becomes one of meshnode's errors here."""
    try:
        yield
    except OSError as error:
        raise ComponentUnavailable(str(error)) from error


def _result(row: Row) -> GetResult:
    metadata = {}
    if row.expires != math.inf:
        moment = datetime.fromtimestamp(row.expires, UTC)
        metadata["ttlExpireTime"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return GetResult(row.value, str(row.version), metadata)


def _write_of(operation: StateOperation, now: float) -> Write:
    expected = _version(operation.etag) if operation.etag else None
    if isinstance(operation, DeleteRequest):
        return Write(operation.key, None, expected)
    if expected is None and operation.concurrency is Concurrency.FIRST_WRITE:
        expected = 0
    ttl = operation.ttl
    expires = now + ttl if ttl is not None and ttl > 0 else math.inf
    return Write(operation.key, operation.value, expected, expires)


def _version(etag: str) -> int:
    if not (etag.isascii() and etag.isdecimal()):
        raise EtagInvalid(f'"{etag}" is no etag of this store')
    return int(etag)
