"""QueryStateAlpha1: Dapr's JSON query, checked and handed to a store that can answer it.

The query has `filter` (one of EQ, NEQ, GT, GTE, LT, LTE, IN, AND, OR), `sort` (a list of {key, order}) and
`page` ({limit, token}).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, final

from meshnode.blocks.call import Call
from meshnode.blocks.scoped import scoped
from meshnode.blocks.state import StateBlock, Store
from meshnode.errors import ErrorInfoDetail, MeshError, ResourceInfoDetail, Status
from meshnode.interfaces import Feature, QueryRequest, SortKey
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["StateQuery", "parse_query"]

_COMPARISONS = ("EQ", "NEQ", "GT", "GTE", "LT", "LTE")
_MAX_DEPTH = 32
"""Filters within filters; stores walk them recursively."""


@final
class StateQuery:
    """The query half of the state block."""

    def __init__(self, state: StateBlock) -> None:
        self._state = state

    async def query(self, request: runtime.QueryStateRequest, call: Call) -> runtime.QueryStateResponse:
        store = self._state.store(request.store_name)
        if Feature.QUERY_API not in store.driver.features:
            raise MeshError(
                "state store does not support querying",
                ErrorInfoDetail("DAPR_STATE_QUERYING_NOT_SUPPORTED"),
                ResourceInfoDetail("state", store.name),
                status=Status.INTERNAL,
            )
        if store.cipher is not None:
            raise _failed(store, "cannot query encrypted store")
        try:
            wanted = parse_query(request.query, store.prefix.text, request.metadata)
        except ValueError as error:
            raise _failed(
                store, f"failed to parse JSON query body: {error}", Status.INVALID_ARGUMENT
            ) from error
        try:
            found = await scoped(store.policy, partial(store.driver.query, wanted), call)
        except MeshError as error:
            raise _failed(store, str(error)) from error
        items = [
            runtime.QueryStateItem(key=store.prefix.strip(item.key), data=item.data, etag=item.etag)
            for item in found.items
        ]
        return runtime.QueryStateResponse(results=items, token=found.token, metadata=dict(found.metadata))


def parse_query(text: str, key_prefix: str, metadata: Mapping[str, str]) -> QueryRequest:
    """Raises ValueError that says which part of the query is wrong."""
    try:
        query = _object(json.loads(text), "the query")
    except RecursionError:
        raise ValueError("the query is nested too deeply") from None
    unknown = query.keys() - {"filter", "sort", "page"}
    if unknown:
        raise ValueError(f"unknown field {sorted(unknown)[0]!r}; a query has filter, sort and page")
    filter_ = query.get("filter")
    if filter_:
        _check_filter(filter_)
    page = _object(query.get("page", {}), "page")
    limit = page.get("limit", 0)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 0:
        raise ValueError(f"page.limit must be a whole number, not {limit!r}")
    token = page.get("token", "")
    if not isinstance(token, str):
        raise ValueError(  # noqa: TRY004  (the caller's text is wrong, not its type)
            f"page.token must be text, not {token!r}"
        )
    sort = query.get("sort") or []
    if not isinstance(sort, list):
        raise ValueError(  # noqa: TRY004  (the same)
            f"sort must be a list, not {type(sort).__name__}"
        )
    keys = tuple(_sort_key(key) for key in sort)
    return QueryRequest(filter_ or None, keys, limit, token, key_prefix, metadata)


def _sort_key(value: Any) -> SortKey:
    key = _object(value, "each entry of sort")
    order = str(key.get("order", "ASC")).upper()
    if not isinstance(key.get("key"), str) or order not in ("ASC", "DESC", ""):
        raise ValueError(f"each entry of sort has a key and an order of ASC or DESC, not {value!r}")
    return SortKey(key["key"], descending=order == "DESC")


def _check_filter(value: Any, depth: int = 1) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"filters are nested too deeply: at most {_MAX_DEPTH} within one another")
    filter_ = _object(value, "a filter")
    if len(filter_) != 1:
        raise ValueError(f"a filter has exactly one operator, not {len(filter_)}")
    (operator, operand), *_ = filter_.items()
    if operator in _COMPARISONS:
        if not isinstance(operand, dict) or len(operand) != 1:
            raise ValueError(f"{operator} takes one key and its value")
    elif operator == "IN":
        if (
            not isinstance(operand, dict)
            or len(operand) != 1
            or not isinstance(next(iter(operand.values())), list)
        ):
            raise ValueError("IN takes one key and a list of values")
    elif operator in ("AND", "OR"):
        if not isinstance(operand, list) or len(operand) < 2:
            raise ValueError(f"{operator} takes a list of at least two filters")
        for part in operand:
            _check_filter(part, depth + 1)
    else:
        raise ValueError(
            f"unknown operator {operator!r}; there are {', '.join(_COMPARISONS)}, IN, AND and OR"
        )


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004  (the same)
            f"{what} must be a JSON object, not {type(value).__name__}"
        )
    return value


def _failed(store: Store, cause: str, code: Status = Status.INTERNAL) -> MeshError:
    return MeshError(
        f"state store {store.name} query failed: {cause}",
        ErrorInfoDetail("DAPR_STATE_QUERY_FAILED"),
        ResourceInfoDetail("state", store.name),
        status=code,
    )
