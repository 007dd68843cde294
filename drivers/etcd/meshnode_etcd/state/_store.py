"""The store: each write is a transaction with its conditions, so that it happens as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import final

import trio

from meshnode.errors import (
    BulkStateError,
    ComponentError,
    ErrorInfoDetail,
    EtagMismatch,
    NotImplementedHere,
    StateError,
    Status,
)
from meshnode.interfaces import (
    BulkGetResult,
    DeleteRequest,
    Feature,
    GetRequest,
    GetResult,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateOperation,
)
from meshnode_etcd._client import Away, Client
from meshnode_etcd.state._plan import Plan, mismatch, plan
from meshnode_etcd.state._values import Layout
from meshnode_etcd.wire.etcdserverpb import (
    Compare,
    CompareCompareTarget,
    DeleteRangeRequest,
    KeyValue,
    KvStub,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

__all__ = ["EtcdStore"]

_FEATURES = frozenset({Feature.ETAG, Feature.TRANSACTIONAL, Feature.TTL, Feature.ACTOR})
_AT_ONCE = 16


@final
class EtcdStore:
    """A `StateStore` on etcd. An etag is the revision in which its key was last written."""

    def __init__(self, client: Client, layout: Layout, wall: Callable[[], float], max_txn_ops: int) -> None:
        self._client = client
        self._layout = layout
        self._wall = wall
        self._max_txn_ops = max_txn_ops

    @property
    def features(self) -> frozenset[Feature]:
        return _FEATURES

    async def get(self, request: GetRequest) -> GetResult | None:
        wanted = RangeRequest(key=self._client.keys.of(request.key))
        answer = await self._client.call(KvStub, KvStub.range, wanted, repeatable=True)
        return self._result(request.key, answer.kvs)

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        results: list[BulkGetResult] = []
        for start in range(0, len(requests), self._max_txn_ops):
            some = requests[start : start + self._max_txn_ops]
            try:
                found = await self._read([request.key for request in some])
            except ComponentError as error:
                results += [BulkGetResult(request.key, error=error) for request in some]
                continue
            for request, kvs in zip(some, found, strict=True):
                try:
                    results.append(BulkGetResult(request.key, self._result(request.key, kvs)))
                except StateError as error:
                    results.append(BulkGetResult(request.key, error=error))
        return results

    async def set(self, request: SetRequest) -> None:
        await self._commit([request])

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        await self._commit_each(requests)

    async def delete(self, request: DeleteRequest) -> None:
        await self._commit([request])

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None:
        await self._commit_each(requests)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        if len(operations) > self._max_txn_ops:
            numbers = {
                "currentOpsTransaction": str(len(operations)),
                "maxOpsPerTransaction": str(self._max_txn_ops),
            }
            message = f"a transaction of {len(operations)} operations; maxTxnOps is {self._max_txn_ops}"
            detail = ErrorInfoDetail("DAPR_STATE_TOO_MANY_TRANSACTIONS", numbers)
            raise StateError(message, detail, status=Status.INVALID_ARGUMENT)
        if operations:
            await self._commit(operations)

    async def query(self, request: QueryRequest) -> QueryResult:
        raise NotImplementedHere("state.etcd: etcd cannot be queried by what values contain")

    async def ping(self) -> None:
        await self._client.ping()

    def _result(self, key: str, kvs: Sequence[KeyValue]) -> GetResult | None:
        if not kvs:
            return None
        try:
            data, metadata = self._layout.decode(kvs[0].value)
        except ValueError as error:
            raise StateError(f"the value of key {key} {error}") from error
        return GetResult(data, str(kvs[0].mod_revision), metadata)

    async def _read(self, names: Sequence[str]) -> list[list[KeyValue]]:
        ranges = [RequestOp(request_range=RangeRequest(key=self._client.keys.of(name))) for name in names]
        answer = await self._client.transact(TxnRequest(success=ranges), repeatable=True)
        return list(_ranges(answer))

    async def _commit(self, operations: Sequence[StateOperation]) -> None:
        planned = plan(operations)
        leases = await self._grant(planned)
        try:
            answer = await self._client.transact(self._transaction(planned, leases))
        except StateError:  # refused: nothing was written. Where it is not known, a lease may be in use.
            await self._client.revoke(leases.values())
            raise
        if not answer.succeeded:
            await self._client.revoke(leases.values())
            raise _first_mismatch(planned, operations, answer)

    async def _grant(self, planned: Plan) -> dict[int, int]:
        """A lease for each time to live that occurs."""
        wanted = {_ttl(one) for one in planned.writes.values() if isinstance(one, SetRequest)} - {0}
        return {ttl: await self._client.grant(ttl) for ttl in sorted(wanted)}

    def _transaction(self, planned: Plan, leases: Mapping[int, int]) -> TxnRequest:
        """Where a condition fails, the answer has the keys that conditions are of, in their order."""
        keys = {name: self._client.keys.of(name) for name in planned.writes}
        now = self._wall()
        writes = []
        for name, operation in planned.writes.items():
            if isinstance(operation, SetRequest):
                ttl = _ttl(operation)
                value = self._layout.encode(operation.value, ttl, now)
                put = PutRequest(key=keys[name], value=value, lease=leases.get(ttl, 0))
                writes.append(RequestOp(request_put=put))
            else:
                writes.append(RequestOp(request_delete_range=DeleteRangeRequest(key=keys[name])))
        return TxnRequest(
            compare=[
                Compare(target=CompareCompareTarget.MOD, key=keys[name], mod_revision=revision)
                for name, revision in planned.conditions.items()
            ],
            success=writes,
            failure=[
                RequestOp(request_range=RangeRequest(key=keys[name], keys_only=True))
                for name in planned.conditions
            ],
        )

    async def _commit_each(self, requests: Sequence[StateOperation]) -> None:
        """Keys side by side, the operations on one key in their order."""
        positions: dict[str, list[int]] = {}
        for position, request in enumerate(requests):
            positions.setdefault(request.key, []).append(position)
        failures: dict[int, ComponentError] = {}
        limit = trio.CapacityLimiter(_AT_ONCE)

        async def commit(those: Sequence[int]) -> None:
            async with limit:
                for position in those:
                    try:
                        await self._commit([requests[position]])
                    except ComponentError as error:
                        failures[position] = error

        async with trio.open_nursery() as nursery:
            for those in positions.values():
                nursery.start_soon(commit, those)
        away = [error for error in failures.values() if isinstance(error, Away) and not error.sent]
        if away and len(away) == len(requests):
            raise away[0]
        if failures:
            raise BulkStateError(
                {
                    position: error if isinstance(error, StateError) else StateError(error.message)
                    for position, error in sorted(failures.items())
                }
            )


def _ttl(request: SetRequest) -> int:
    """0: no limit."""
    return max(request.ttl or 0, 0)


def _ranges(answer: TxnResponse) -> Iterator[list[KeyValue]]:
    for response in answer.responses:
        yield response.response_range.kvs if response.response_range is not None else []


def _first_mismatch(planned: Plan, operations: Sequence[StateOperation], answer: TxnResponse) -> EtagMismatch:
    found = zip(planned.conditions.items(), _ranges(answer), strict=True)
    etags = {one.key: one.etag for one in reversed(operations)}
    key = next(name for (name, revision), kvs in found if revision != (kvs[0].mod_revision if kvs else 0))
    return mismatch(key, etags[key])
