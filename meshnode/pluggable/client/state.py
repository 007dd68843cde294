"""A state store in another process.

Writes with an etag or for a first writer go one by one, also in bulk: of a `BulkSet` that fails nobody says
which of its items did, and those are the ones that are expected to.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, final

from meshnode.errors import BulkStateError, ComponentError, ComponentUnavailable, StateError
from meshnode.interfaces import (
    BulkGetResult,
    Concurrency,
    Consistency,
    DeleteRequest,
    DriverContext,
    Feature,
    GetRequest,
    GetResult,
    QueryItem,
    QueryRequest,
    QueryResult,
    SetRequest,
    StateOperation,
)
from meshnode.pluggable.client.connection import Connection, Session, kept
from meshnode.pluggable.client.errors import state_error_of, translated
from meshnode.pluggable.client.initialising import Properties, initialise
from meshnode.pluggable.names import QUERY, STATE, TRANSACTIONS, TTL
from meshnode.transport import GRPCError
from meshnode.wire.dapr.proto.components import v1 as components
from meshnode.wire.google import protobuf

__all__ = ["PluggableStore", "open_store"]

R = TypeVar("R", SetRequest, DeleteRequest)
_KNOWN = {feature.value: feature for feature in Feature}
_NEEDS = {Feature.QUERY_API: QUERY, Feature.TRANSACTIONAL: TRANSACTIONS}
"""Features that are a service of their own: without it the component's word for the feature is empty."""


@final
class PluggableStore:
    """A `StateStore`."""

    def __init__(self, connection: Connection, services: frozenset[str]) -> None:
        self.connection = connection
        self.features: frozenset[Feature] = frozenset()
        self._services = services

    async def begin(self, properties: Mapping[str, str], session: Session) -> None:
        types = (components.InitRequest, components.InitResponse)
        await initialise(session, STATE, *types, properties)
        with translated(ComponentError):
            reply = await session.stub(components.StateStoreStub).features(components.FeaturesRequest())
        named = {_KNOWN[name] for name in reply.features if name in _KNOWN}
        self.features = frozenset(one for one in named if _NEEDS.get(one, STATE) in self._services)

    async def get(self, request: GetRequest) -> GetResult | None:
        reply = await _call(self.connection.stub(components.StateStoreStub).get, _get(request))
        return _found(reply)

    async def bulk_get(self, requests: Sequence[GetRequest], parallelism: int) -> Sequence[BulkGetResult]:
        if not requests:
            return []
        options = components.BulkGetRequestOptions(parallelism=max(0, parallelism))
        message = components.BulkGetRequest(items=[_get(one) for one in requests], options=options)
        reply = await _call(self.connection.stub(components.StateStoreStub).bulk_get, message)
        found = {item.key: item for item in reply.items}
        return [_bulk_item(one.key, found.get(one.key)) for one in requests]

    async def set(self, request: SetRequest) -> None:
        await _call(self.connection.stub(components.StateStoreStub).set, _set(request))

    async def bulk_set(self, requests: Sequence[SetRequest]) -> None:
        def together(plain: Sequence[SetRequest]) -> Awaitable[Any]:
            message = components.BulkSetRequest(items=[_set(one) for one in plain])
            return _call(self.connection.stub(components.StateStoreStub).bulk_set, message)

        await _in_bulk(requests, self.set, together)

    async def delete(self, request: DeleteRequest) -> None:
        await _call(self.connection.stub(components.StateStoreStub).delete, _delete(request))

    async def bulk_delete(self, requests: Sequence[DeleteRequest]) -> None:
        def together(plain: Sequence[DeleteRequest]) -> Awaitable[Any]:
            message = components.BulkDeleteRequest(items=[_delete(one) for one in plain])
            return _call(self.connection.stub(components.StateStoreStub).bulk_delete, message)

        await _in_bulk(requests, self.delete, together)

    async def transact(self, operations: Sequence[StateOperation], metadata: Mapping[str, str]) -> None:
        message = components.TransactionalStateRequest(
            operations=[_operation(one) for one in operations], metadata=dict(metadata)
        )
        await _call(self.connection.stub(components.TransactionalStateStoreStub).transact, message)

    async def query(self, request: QueryRequest) -> QueryResult:
        """The component knows nothing of prefixes, and what is not the caller's must not leave the node: a
        page is made of as many of the component's as it takes.
        """
        found: list[QueryItem] = []
        token, metadata = request.token, {}
        while True:
            before, missing = token, request.limit - len(found)
            reply = await _call(
                self.connection.stub(components.QueriableStateStoreStub).query,
                _query(request, missing if request.limit else 0, token),
            )
            found += [_query_item(one) for one in reply.items if one.key.startswith(request.key_prefix)]
            token, metadata = reply.token, reply.metadata
            if not request.limit or len(found) >= request.limit or token in ("", before):
                return QueryResult(found, token, metadata)

    async def ping(self) -> None:
        with translated(ComponentUnavailable):
            await self.connection.stub(components.StateStoreStub).ping(components.PingRequest())


@asynccontextmanager
async def open_store(
    path: Path, services: frozenset[str], properties: Properties, context: DriverContext
) -> AsyncIterator[PluggableStore]:
    store = PluggableStore(Connection(path, context), services)
    async with kept(store.connection, partial(store.begin, properties.passed_on)):
        yield store


async def _call(method: Callable[[Any], Awaitable[Any]], message: Any) -> Any:
    try:
        return await method(message)
    except GRPCError as error:
        raise state_error_of(error) from error


async def _in_bulk(
    requests: Sequence[R],
    alone: Callable[[R], Awaitable[None]],
    together: Callable[[Sequence[R]], Awaitable[Any]],
) -> None:
    """All are tried; `BulkStateError` names those that failed. Keys that come twice keep their order."""
    if len({one.key for one in requests}) < len(requests):
        picky = set(range(len(requests)))
    else:
        picky = {at for at, one in enumerate(requests) if _conditional(one)}
    failures: dict[int, StateError] = {}
    done = False
    for at in sorted(picky):
        try:
            await alone(requests[at])
            done = True
        except StateError as error:
            failures[at] = error
        except ComponentUnavailable as error:
            if not done:
                raise
            failures[at] = StateError(str(error), status=error.code)
    plain = [at for at in range(len(requests)) if at not in picky]
    try:
        if plain:
            await together([requests[at] for at in plain])
    except StateError as error:
        failures |= dict.fromkeys(plain, error)
    except ComponentUnavailable as error:
        if not done:
            raise
        failures |= dict.fromkeys(plain, StateError(str(error), status=error.code))
    if failures:
        raise BulkStateError(failures)


def _conditional(request: SetRequest | DeleteRequest) -> bool:
    return request.etag is not None or request.concurrency is Concurrency.FIRST_WRITE


# --- values to messages and back


def _consistency(value: Consistency) -> components.StateOptionsStateConsistency:
    return components.StateOptionsStateConsistency(value.value)


def _options(request: SetRequest | DeleteRequest) -> components.StateOptions:
    return components.StateOptions(
        concurrency=components.StateOptionsStateConcurrency(request.concurrency.value),
        consistency=_consistency(request.consistency),
    )


def _etag_message(etag: str | None) -> components.Etag | None:
    return None if etag is None else components.Etag(value=etag)


def _etag(message: components.Etag | None) -> str:
    return "" if message is None else message.value


def _get(request: GetRequest) -> components.GetRequest:
    return components.GetRequest(
        key=request.key,
        metadata=dict(request.metadata),
        consistency=_consistency(request.consistency),
    )


def _set(request: SetRequest) -> components.SetRequest:
    ttl = {} if request.ttl is None else {TTL: str(request.ttl)}
    return components.SetRequest(
        key=request.key,
        value=request.value,
        etag=_etag_message(request.etag),
        metadata={**request.metadata, **ttl},
        options=_options(request),
        content_type=request.content_type,
    )


def _delete(request: DeleteRequest) -> components.DeleteRequest:
    return components.DeleteRequest(
        key=request.key,
        etag=_etag_message(request.etag),
        metadata=dict(request.metadata),
        options=_options(request),
    )


def _operation(request: StateOperation) -> components.TransactionalStateOperation:
    if isinstance(request, SetRequest):
        return components.TransactionalStateOperation(set=_set(request))
    return components.TransactionalStateOperation(delete=_delete(request))


def _query(request: QueryRequest, limit: int, token: str) -> components.QueryRequest:
    """The operands as JSON texts in messages without a type, as Dapr sends them."""
    operands = (request.filter or {}).items()
    order = components.SortingOrder
    query = components.Query(
        filter={operator: protobuf.Any(value=json.dumps(operand).encode()) for operator, operand in operands},
        sort=[
            components.Sorting(key=one.key, order=order.DESC if one.descending else order.ASC)
            for one in request.sort
        ],
        pagination=components.Pagination(limit=limit, token=token),
    )
    return components.QueryRequest(query=query, metadata=dict(request.metadata))


def _found(reply: components.GetResponse | components.BulkStateItem) -> GetResult | None:
    if reply.etag is None and not reply.data:
        return None
    return GetResult(reply.data, _etag(reply.etag), reply.metadata)


def _bulk_item(key: str, item: components.BulkStateItem | None) -> BulkGetResult:
    if item is None:
        return BulkGetResult(key)
    if item.error:
        return BulkGetResult(key, error=StateError(item.error))
    return BulkGetResult(key, _found(item))


def _query_item(item: components.QueryItem) -> QueryItem:
    if item.error:
        raise StateError(f"key {item.key}: {item.error}")
    return QueryItem(item.key, item.data, _etag(item.etag))
