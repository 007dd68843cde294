"""A state query as SQL over the JSON functions.

A path that a document does not have matches no operator, not even `NEQ`. Values of different kinds are
never equal and never ordered; booleans count as the numbers 1 and 0. Sorting puts missing values first,
then numbers, then strings, then the rest; ties go by key.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, final

from meshnode.errors import StateError, Status
from meshnode.interfaces import QueryItem, QueryRequest, QueryResult
from meshnode_state_sqlite._rows import decode_value

__all__ = ["Query", "run"]

_COMPARISONS = {"EQ": "=", "NEQ": "=", "GT": ">", "GTE": ">=", "LT": "<", "LTE": "<="}
_NUMBER = "('integer', 'real', 'true', 'false')"
_TEXT = "('text')"
_COMPOSITE = "('object', 'array')"


def _refuse(message: str) -> StateError:
    return StateError(f"query: {message}", status=Status.INVALID_ARGUMENT)


@final
class Query:
    """A compiled query: its SQL and parameters.

    Raises `StateError` (INVALID_ARGUMENT) when the request is malformed.
    """

    def __init__(self, request: QueryRequest, table: str, now: str) -> None:
        self.parameters: list[Any] = [request.key_prefix, request.key_prefix, request.key_prefix, now]
        condition = self._condition(request.filter) if request.filter else "1"
        order = self._order(request)
        self.limit = max(request.limit, 0)
        self.offset = _offset(request.token)
        # One more than asked for tells whether there is another page.
        self.parameters += [self.limit + 1 if self.limit else -1, self.offset]
        self.sql = f"""
            WITH texts AS (
                SELECT key, value, is_binary, etag,
                    CASE WHEN is_binary THEN unbase64(value) ELSE value END AS text
                FROM {table}
                WHERE key >= ? AND substr(key, 1, length(?)) = ?
                    AND (expiration_time IS NULL OR expiration_time > ?)
            ), documents AS (
                SELECT key, value, is_binary, etag, CASE WHEN json_valid(text) THEN text END AS document
                FROM texts
            )
            SELECT key, value, is_binary, etag FROM documents
            WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?"""

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
        path = _path(field)
        if name == "IN":
            if not isinstance(expected, list):
                raise _refuse("IN takes a field and a list of values")
            return "(" + " OR ".join([self._compare("=", path, one) for one in expected] or ["0"]) + ")"
        if name not in _COMPARISONS:
            raise _refuse(f"unknown operator {name}")
        if name == "NEQ":
            self.parameters.append(path)
            return f"(json_type(document, ?) IS NOT NULL AND NOT {self._compare('=', path, expected)})"
        return self._compare(_COMPARISONS[name], path, expected)

    def _compare(self, operator: str, path: str, expected: Any) -> str:
        """Never NULL: the kind is compared first, and a missing path is of no kind."""
        if expected is None:
            self.parameters.append(path)
            return f"(ifnull(json_type(document, ?), '') = 'null' AND {int(operator == '=')})"
        value = "?"
        if isinstance(expected, bool | int | float):
            kinds = _NUMBER
        elif isinstance(expected, str):
            kinds = _TEXT
        else:
            kinds, value = _COMPOSITE, "json(?)"
            if operator != "=":
                return "0"
            expected = json.dumps(expected)
        self.parameters += [path, path, expected]
        kind = "ifnull(json_type(document, ?), '')"
        return f"({kind} IN {kinds} AND json_extract(document, ?) {operator} {value})"

    def _order(self, request: QueryRequest) -> str:
        terms = []
        for sort in request.sort:
            direction = "DESC" if sort.descending else "ASC"
            path = _path(sort.key)
            self.parameters += [path, path]
            terms.append(
                f"CASE WHEN ifnull(json_type(document, ?), 'null') = 'null' THEN 0 "
                f"WHEN json_type(document, ?) IN {_NUMBER} THEN 1 "
                f"WHEN json_type(document, ?) IN {_TEXT} THEN 2 ELSE 3 END {direction}"
            )
            self.parameters.append(path)
            terms.append(f"json_extract(document, ?) {direction}")
            self.parameters.append(path)
        return ", ".join([*terms, "key"])


def _path(field: str) -> str:
    if not field or '"' in field:
        raise _refuse(f"{field!r} is no field")
    return "$" + "".join(f'."{name}"' for name in field.split("."))


def _offset(token: str) -> int:
    if not token:
        return 0
    if not (token.isascii() and token.isdigit() and len(token) < 16):
        raise _refuse(f"page token {token!r} is not one of this store's")
    return int(token)


def run(connection: sqlite3.Connection, query: Query) -> QueryResult:
    """Blocks; runs in a worker thread."""
    rows = connection.execute(query.sql, query.parameters).fetchall()
    token = ""
    if query.limit and len(rows) > query.limit:
        rows = rows[: query.limit]
        token = str(query.offset + query.limit)
    return QueryResult(tuple([_item(*row) for row in rows]), token)


def _item(key: bytes, value: bytes, is_binary: int, etag: bytes) -> QueryItem:
    return QueryItem(key.decode(), decode_value(value, is_binary), etag.decode())
