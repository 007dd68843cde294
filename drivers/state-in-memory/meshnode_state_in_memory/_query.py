"""What a state query means, as pure functions over parsed JSON documents.

A path (`person.org`) that a document does not have matches no operator, not even `NEQ`. Values of different
kinds are never equal and never ordered. Sorting puts missing values first, then numbers and booleans, then
strings, then everything else; ties go by key.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meshnode.errors import StateError, Status
from meshnode.interfaces import QueryItem, QueryRequest, QueryResult

__all__ = ["Predicate", "compile_filter", "page"]

Predicate = Callable[[Any], bool]

_MISSING = object()

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "EQ": operator.eq,
    "NEQ": operator.ne,
    "GT": operator.gt,
    "GTE": operator.ge,
    "LT": operator.lt,
    "LTE": operator.le,
}


def _refuse(message: str) -> StateError:
    return StateError(f"query: {message}", status=Status.INVALID_ARGUMENT)


def compile_filter(condition: Mapping[str, Any] | None) -> Predicate:
    """The filter as a predicate on a parsed document; a malformed one is a `StateError`."""
    if not condition:
        return lambda _document: True
    if len(condition) != 1:
        raise _refuse("a condition has exactly one operator")
    ((name, argument),) = condition.items()
    if name in ("AND", "OR"):
        return _compile_junction(name, argument)
    if not isinstance(argument, Mapping) or len(argument) != 1:
        raise _refuse(f"{name} takes one field and its value")
    ((path, expected),) = argument.items()
    if name == "IN":
        if not isinstance(expected, list):
            raise _refuse("IN takes a field and a list of values")
        return lambda document: _is_in(_look_up(document, path), expected)
    compare = _COMPARISONS.get(name)
    if compare is None:
        raise _refuse(f"unknown operator {name}")
    return lambda document: _holds(compare, _look_up(document, path), expected)


def _compile_junction(name: str, argument: Any) -> Predicate:
    if not isinstance(argument, list) or not argument:
        raise _refuse(f"{name} takes a list of conditions")
    parts = [compile_filter(part) for part in argument]
    combine = all if name == "AND" else any
    return lambda document: combine(part(document) for part in parts)


def _look_up(document: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(document, Mapping) or name not in document:
            return _MISSING
        document = document[name]
    return document


def _rank(value: Any) -> int:
    if value is _MISSING or value is None:
        return 0
    if isinstance(value, bool | int | float):
        return 1
    return 2 if isinstance(value, str) else 3


def _holds(compare: Callable[[Any, Any], bool], found: Any, expected: Any) -> bool:
    if found is _MISSING:
        return False
    same_kind = _rank(found) == _rank(expected)
    if compare is operator.eq or compare is operator.ne:
        return (same_kind and found == expected) is (compare is operator.eq)
    return same_kind and _rank(found) in (1, 2) and compare(found, expected)


def _is_in(found: Any, expected: Sequence[Any]) -> bool:
    return any(_holds(operator.eq, found, one) for one in expected)


def _sort_key(document: Any, path: str) -> tuple[int, Any]:
    value = _look_up(document, path)
    rank = _rank(value)
    if rank == 0:
        return (0, 0)
    return (rank, json.dumps(value, sort_keys=True) if rank == 3 else value)


def page(request: QueryRequest, candidates: Sequence[tuple[QueryItem, Any]]) -> QueryResult:
    """Filter, sort and cut. `candidates` are items with their parsed document (None if it is no JSON)."""
    matches = compile_filter(request.filter)
    found = sorted((pair for pair in candidates if matches(pair[1])), key=lambda pair: pair[0].key)
    for sort in reversed(request.sort):
        path = sort.key
        found.sort(key=lambda pair, path=path: _sort_key(pair[1], path), reverse=sort.descending)  # type: ignore[misc]
    start = _offset(request.token)
    end = start + request.limit if request.limit > 0 else len(found)
    token = str(end) if end < len(found) else ""
    return QueryResult(items=tuple(item for item, _ in found[start:end]), token=token)


def _offset(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit()):
        raise _refuse(f"page token {token!r} is not one of this store's")
    return int(token)
