"""The store: requests become commands on the lane of their key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, final

from meshnode.errors import (
    BulkStateError,
    ComponentError,
    NotImplementedHere,
    StateError,
    Status,
)
from meshnode.interfaces import (
    BulkGetResult,
    Consistency,
    DeleteRequest,
    Feature,
    GetRequest,
    GetResult,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateOperation,
)
from meshnode_redis._client import Client
from meshnode_redis._command import WAIT, Call, Lost, run
from meshnode_redis._script import Arguments
from meshnode_redis.state import _scripts

__all__ = ["RedisStore"]

_FEATURES = frozenset({Feature.ETAG, Feature.TRANSACTIONAL, Feature.TTL, Feature.ACTOR})


def _outcome(replies: Sequence[Any]) -> Any:
    """The answer to a command that a WAIT may follow, or what went wrong with either."""
    return next((reply for reply in replies if isinstance(reply, Exception)), replies[0])


@final
class RedisStore:
    """A `StateStore` on Redis."""

    def __init__(self, client: Client, ttl_in_seconds: int | None) -> None:
        self._client = client
        self._ttl_in_seconds = ttl_in_seconds

    @property
    def features(self) -> frozenset[Feature]:
        return _FEATURES

    async def get(self, request: GetRequest) -> GetResult | None:
        (reply,) = await run([(self._client.lane(request.key), _scripts.get(request.key))], repeatable=True)
        if isinstance(reply, Exception):
            return await self._get_plain(request.key, reply)
        return _scripts.read_hash(request.key, reply)

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        calls = [(self._client.lane(request.key), _scripts.get(request.key)) for request in requests]
        replies = await run(calls, repeatable=True)
        results = []
        for request, reply in zip(requests, replies, strict=True):
            try:
                if isinstance(reply, Exception):
                    found = await self._get_plain(request.key, reply)
                else:
                    found = _scripts.read_hash(request.key, reply)
            except ComponentError as error:
                results.append(BulkGetResult(request.key, error=error))
            else:
                results.append(BulkGetResult(request.key, found))
        return results

    async def _get_plain(self, key: str, error: Exception) -> GetResult | None:
        """After an error on a hash: an old plain string is still readable, though it has no etag."""
        if not str(error).startswith("WRONGTYPE"):
            raise self._client.error(error)
        (reply,) = await run([(self._client.lane(key), _scripts.get_plain(key))], repeatable=True)
        if isinstance(reply, Exception):
            raise self._client.error(reply)
        return None if reply is None else GetResult(reply, "")

    async def set(self, request: SetRequest) -> None:
        (reply,) = await self._write([request])
        self._check(request, reply)

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        await self._write_all(requests)

    async def delete(self, request: DeleteRequest) -> None:
        (reply,) = await self._write([request])
        self._check(request, reply)

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None:
        await self._write_all(requests)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        if not operations:
            return
        if len({self._client.slot(operation.key) for operation in operations}) > 1:
            message = "the keys of a transaction must be in one hash slot of the cluster; use a {tag}"
            raise StateError(message, status=Status.INVALID_ARGUMENT)
        strong = any(operation.consistency is Consistency.STRONG for operation in operations)
        arguments = _scripts.transaction(operations, self._ttl_in_seconds)
        reply = _outcome(await run(self._with_wait(operations[0].key, arguments, strong)))
        if isinstance(reply, Exception):
            raise self._client.error(reply)
        _scripts.check_transaction(operations, reply)

    async def query(self, request: QueryRequest) -> QueryResult:
        raise NotImplementedHere("state.redis: queries need RedisJSON, which this driver does not use")

    async def ping(self) -> None:
        await self._client.ping()

    async def _write(self, requests: Sequence[StateOperation]) -> list[Any]:
        """Sends one command for each; its answer or error, in order."""
        calls: list[Call] = []
        starts = []
        for request in requests:
            starts.append(len(calls))
            if isinstance(request, SetRequest):
                arguments = _scripts.put(request, self._ttl_in_seconds)
            else:
                arguments = _scripts.delete(request)
            calls += self._with_wait(request.key, arguments, request.consistency is Consistency.STRONG)
        replies = await run(calls)
        return [_outcome(replies[start:end]) for start, end in pairwise([*starts, len(calls)])]

    async def _write_all(self, requests: Sequence[StateOperation]) -> None:
        sound: list[int] = []
        failures: dict[int, StateError] = {}
        for position, request in enumerate(requests):
            try:
                _scripts.check_etag(request)
            except StateError as error:
                failures[position] = error
            else:
                sound.append(position)
        replies = await self._write([requests[position] for position in sound])
        if sound and all(isinstance(reply, Lost) and not reply.sent for reply in replies):
            raise self._client.error(replies[0])
        for position, reply in zip(sound, replies, strict=True):
            try:
                self._check(requests[position], reply)
            except ComponentError as error:
                failures[position] = error if isinstance(error, StateError) else StateError(error.message)
        if failures:
            raise BulkStateError(failures)

    def _with_wait(self, key: str, arguments: Arguments, strong: bool) -> list[Call]:
        lane = self._client.lane(key, blocking=strong)
        return [(lane, arguments), (lane, WAIT)] if strong else [(lane, arguments)]

    def _check(self, request: StateOperation, reply: Any) -> None:
        if isinstance(reply, Exception):
            raise self._client.error(reply)
        if isinstance(request, SetRequest):
            _scripts.check_set(request, reply)
        else:
            _scripts.check_delete(request, reply)
