"""A state query as MongoDB's: a field `a.b` of a value is `value.a.b`. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, final

from meshnode.errors import StateError, Status
from meshnode.interfaces import QueryRequest

__all__ = ["Query"]

_COMPARISONS = {
    "EQ": "$eq",
    "NEQ": "$ne",
    "GT": "$gt",
    "GTE": "$gte",
    "LT": "$lt",
    "LTE": "$lte",
    "IN": "$in",
}


def _refuse(message: str) -> StateError:
    return StateError(f"query: {message}", status=Status.INVALID_ARGUMENT)


@final
class Query:
    """Raises `StateError` (INVALID_ARGUMENT) when the request is malformed."""

    def __init__(self, request: QueryRequest) -> None:
        self.filter: dict[str, Any] = {}
        if request.key_prefix:
            self.filter["_id"] = {"$regex": f"^{re.escape(request.key_prefix)}"}
        if request.filter:
            self.filter["$and"] = [_condition(request.filter)]
        # Those that are equal come in the order of their keys, lest pages overlap.
        self.sort = [(_path(one.key), -1 if one.descending else 1) for one in request.sort] + [("_id", 1)]
        self.limit = max(request.limit, 0)
        self.skip = _offset(request.token)


def _condition(condition: Any) -> dict[str, Any]:
    if not isinstance(condition, Mapping) or len(condition) != 1:
        raise _refuse("a condition has exactly one operator")
    ((name, argument),) = condition.items()
    if name in ("AND", "OR"):
        if not isinstance(argument, list) or not argument:
            raise _refuse(f"{name} takes a list of conditions")
        return {f"${name.lower()}": [_condition(part) for part in argument]}
    if name not in _COMPARISONS:
        raise _refuse(f"unknown operator {name}")
    if not isinstance(argument, Mapping) or len(argument) != 1:
        raise _refuse(f"{name} takes one field and its value")
    ((field, expected),) = argument.items()
    if name == "IN" and not isinstance(expected, list):
        raise _refuse("IN takes a field and a list of values")
    path = _path(field)
    compared = {path: {_COMPARISONS[name]: expected}}
    # A field that is not there is unequal to everything for MongoDB, and equal to null.
    return {"$and": [compared, {path: {"$exists": True}}]}


def _path(field: str) -> str:
    if not field or "$" in field or "\0" in field:
        raise _refuse(f"{field!r} is no field")
    return f"value.{field}"


def _offset(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 16):
        raise _refuse(f"page token {token!r} is not one of this store's")
    return int(token)
