"""A state query as SQL over `jsonb`. No I/O.

A path that a document does not have matches no operator, not even `NEQ`. Values of different kinds are
never equal and never ordered. Sorting puts missing values first, then strings, numbers, booleans and the
rest, as `jsonb` does; ties go by key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, final

from psycopg.pq.abc import PGresult

from meshnode.errors import StateError, Status
from meshnode.interfaces import QueryItem, QueryRequest, QueryResult
from meshnode_postgresql._text import array, encode
from meshnode_postgresql.state._layouts import Layout
from meshnode_postgresql.state._statements import Statements

__all__ = ["Query"]

_COMPARISONS = {"EQ": "=", "NEQ": "<>", "GT": ">", "GTE": ">=", "LT": "<", "LTE": "<="}
_EQUALITY = ("=", "<>")


def _refuse(message: str) -> StateError:
    return StateError(f"query: {message}", status=Status.INVALID_ARGUMENT)


@final
class Query:
    """A compiled query: its SQL and parameters.

    Raises `StateError` (INVALID_ARGUMENT) when the request is malformed.
    """

    def __init__(self, request: QueryRequest, layout: Layout, statements: Statements) -> None:
        self._statements = statements
        self._document = f"t.{layout.document}"
        self.values: list[bytes] = [encode(request.key_prefix)]
        condition = self._condition(request.filter) if request.filter else "true"
        order = self._order(request)
        self._limit = max(request.limit, 0)
        self._offset = _offset(request.token)
        # One more than asked for tells whether there is another page.
        limit = f"LIMIT {self._limit + 1}" if self._limit else ""
        self.sql = (
            f"SELECT {statements.columns} FROM {layout.table} AS t "
            f"WHERE t.key >= $1 AND starts_with(t.key, $1) AND {statements.alive} AND {condition} "
            f"ORDER BY {order} {limit} OFFSET {self._offset}"
        )

    def _parameter(self, value: bytes, kind: str) -> str:
        self.values.append(value)
        return f"${len(self.values)}::{kind}"

    def _condition(self, condition: Any) -> str:
        if not isinstance(condition, Mapping) or len(condition) != 1:
            raise _refuse("a condition has exactly one operator")
        ((name, argument),) = condition.items()
        if name in ("AND", "OR"):
            if not isinstance(argument, list) or not argument:
                raise _refuse(f"{name} takes a list of conditions")
            return "(" + f" {name} ".join([self._condition(part) for part in argument]) + ")"
        if not isinstance(argument, Mapping) or len(argument) != 1:
            raise _refuse(f"{name} takes one field and its value")
        ((field, expected),) = argument.items()
        if name == "IN":
            if not isinstance(expected, list):
                raise _refuse("IN takes a field and a list of values")
            return "(" + " OR ".join([self._compare("=", field, one) for one in expected] or ["false"]) + ")"
        if name not in _COMPARISONS:
            raise _refuse(f"unknown operator {name}")
        return self._compare(_COMPARISONS[name], field, expected)

    def _compare(self, operator: str, field: str, expected: Any) -> str:
        """Never NULL, which an `OR` would hand on."""
        if operator not in _EQUALITY and not isinstance(expected, bool | int | float | str):
            return "false"
        try:
            wanted = self._parameter(encode(json.dumps(expected, allow_nan=False)), "jsonb")
        except ValueError:
            raise _refuse(f"{field} is compared with what is no JSON") from None
        found = self._field(field)
        if operator in _EQUALITY:
            return f"coalesce({found} {operator} {wanted}, false)"
        same = f"jsonb_typeof({found}) = jsonb_typeof({wanted})"
        return f"coalesce({same} AND {found} {operator} {wanted}, false)"

    def _field(self, field: str) -> str:
        if not field:
            raise _refuse("a field has a name")
        return f"({self._document} #> {self._parameter(array(field.split('.')), 'text[]')})"

    def _order(self, request: QueryRequest) -> str:
        terms = [
            self._field(sort.key) + (" DESC NULLS LAST" if sort.descending else " ASC NULLS FIRST")
            for sort in request.sort
        ]
        return ", ".join([*terms, 't.key COLLATE "C"'])

    def result(self, answer: PGresult) -> QueryResult:
        count, token = answer.ntuples, ""
        if self._limit and count > self._limit:
            count = self._limit
            token = str(self._offset + self._limit)
        items = []
        for row in range(count):
            found = self._statements.read(answer, row)
            items.append(QueryItem(self._statements.key(answer, row), found.data, found.etag))
        return QueryResult(tuple(items), token)


def _offset(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 16):
        raise _refuse(f"page token {token!r} is not one of this store's")
    return int(token)
