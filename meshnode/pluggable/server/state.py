"""A state store, served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from meshnode.errors import InvalidArgument
from meshnode.interfaces import (
    Concurrency,
    Consistency,
    DeleteRequest,
    Feature,
    GetRequest,
    GetResult,
    QueryRequest,
    SetRequest,
    SortKey,
    StateOperation,
    StateStore,
)
from meshnode.pluggable.names import TTL
from meshnode.pluggable.server.instances import Instances
from meshnode.pluggable.server.method import Method, requires, service
from meshnode.wire.dapr.proto.components import v1 as components

__all__ = ["state_services"]


def state_services(instances: Instances) -> list[Any]:
    """Transactions and queries are offered for every driver; those that lack them answer UNIMPLEMENTED."""
    store: dict[str, Method] = {
        "Features": _features,
        "Get": _get,
        "Set": _set,
        "Delete": _delete,
        "BulkGet": _bulk_get,
        "BulkSet": _bulk_set,
        "BulkDelete": _bulk_delete,
        "Ping": _ping,
    }
    reply = components.InitResponse
    return [
        service(components.StateStoreBase(), instances, reply, store),
        service(components.TransactionalStateStoreBase(), instances, reply, {"Transact": _transact}),
        service(
            components.TransactionalStoreMultiMaxSizeBase(), instances, reply, {"MultiMaxSize": _largest}
        ),
        service(components.QueriableStateStoreBase(), instances, reply, {"Query": _query}),
    ]


async def _features(store: StateStore, _: Any) -> components.FeaturesResponse:
    return components.FeaturesResponse(features=sorted(one.value for one in store.features))


async def _largest(store: StateStore, _: Any) -> components.MultiMaxSizeResponse:
    return components.MultiMaxSizeResponse(max_size=-1)  # no driver limits a transaction


async def _get(store: StateStore, request: components.GetRequest) -> components.GetResponse:
    found = await store.get(_get_request(request))
    if found is None:
        return components.GetResponse()
    return components.GetResponse(data=found.data, etag=_etag(found.etag), metadata=dict(found.metadata))


async def _set(store: StateStore, request: components.SetRequest) -> components.SetResponse:
    await store.set(_set_request(request))
    return components.SetResponse()


async def _delete(store: StateStore, request: components.DeleteRequest) -> components.DeleteResponse:
    await store.delete(_delete_request(request))
    return components.DeleteResponse()


async def _bulk_get(store: StateStore, request: components.BulkGetRequest) -> components.BulkGetResponse:
    parallelism = 0 if request.options is None else request.options.parallelism
    found = await store.bulk_get([_get_request(one) for one in request.items], parallelism)
    return components.BulkGetResponse(
        items=[_item(one.key, one.result, "" if one.error is None else str(one.error)) for one in found]
    )


async def _bulk_set(store: StateStore, request: components.BulkSetRequest) -> components.BulkSetResponse:
    await store.bulk_set([_set_request(one) for one in request.items])
    return components.BulkSetResponse()


async def _bulk_delete(
    store: StateStore, request: components.BulkDeleteRequest
) -> components.BulkDeleteResponse:
    await store.bulk_delete([_delete_request(one) for one in request.items])
    return components.BulkDeleteResponse()


async def _ping(store: StateStore, _: Any) -> components.PingResponse:
    await store.ping()
    return components.PingResponse()


async def _transact(
    store: StateStore, request: components.TransactionalStateRequest
) -> components.TransactionalStateResponse:
    requires(Feature.TRANSACTIONAL in store.features, "transactions")
    await store.transact([_operation(one) for one in request.operations], request.metadata)
    return components.TransactionalStateResponse()


async def _query(store: StateStore, request: components.QueryRequest) -> components.QueryResponse:
    requires(Feature.QUERY_API in store.features, "queries")
    query = request.query or components.Query()
    page = query.pagination or components.Pagination()
    descending = components.SortingOrder.DESC
    result = await store.query(
        QueryRequest(
            filter=_filter(query) or None,
            sort=[SortKey(one.key, one.order is descending) for one in query.sort],
            limit=page.limit,
            token=page.token,
            metadata=request.metadata,
        )
    )
    items = [components.QueryItem(key=one.key, data=one.data, etag=_etag(one.etag)) for one in result.items]
    return components.QueryResponse(items=items, token=result.token, metadata=dict(result.metadata))


# --- messages to values and back


def _filter(query: components.Query) -> Mapping[str, Any]:
    try:
        return {operator: json.loads(operand.value) for operator, operand in query.filter.items()}
    except ValueError as error:
        raise InvalidArgument(f"query: an operand of the filter is no JSON: {error}") from error


def _etag(value: str) -> components.Etag:
    return components.Etag(value=value)


def _get_request(request: components.GetRequest) -> GetRequest:
    return GetRequest(request.key, Consistency(request.consistency.value), request.metadata)


def _set_request(request: components.SetRequest) -> SetRequest:
    options = request.options or components.StateOptions()
    return SetRequest(
        request.key,
        request.value,
        etag=None if request.etag is None else request.etag.value,
        concurrency=Concurrency(options.concurrency.value),
        consistency=Consistency(options.consistency.value),
        ttl=_ttl(request.metadata),
        content_type=request.content_type,
        metadata=request.metadata,
    )


def _delete_request(request: components.DeleteRequest) -> DeleteRequest:
    options = request.options or components.StateOptions()
    return DeleteRequest(
        request.key,
        etag=None if request.etag is None else request.etag.value,
        concurrency=Concurrency(options.concurrency.value),
        consistency=Consistency(options.consistency.value),
        metadata=request.metadata,
    )


def _operation(operation: components.TransactionalStateOperation) -> StateOperation:
    if operation.set is not None:
        return _set_request(operation.set)
    if operation.delete is not None:
        return _delete_request(operation.delete)
    raise InvalidArgument("an operation of a transaction is neither a set nor a delete")


def _ttl(metadata: Mapping[str, str]) -> int | None:
    text = metadata.get(TTL, "")
    try:
        return int(text) if text else None
    except ValueError:
        raise InvalidArgument(f"{TTL} must be a whole number of seconds, not {text!r}") from None


def _item(key: str, result: GetResult | None, error: str) -> components.BulkStateItem:
    if result is None:
        return components.BulkStateItem(key=key, error=error)
    return components.BulkStateItem(
        key=key, data=result.data, etag=_etag(result.etag), metadata=dict(result.metadata)
    )
