"""What is sent, from a layout, and what the answers mean. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from attrs import frozen
from psycopg.pq.abc import PGresult

from meshnode.errors import EtagMismatch
from meshnode.interfaces import Concurrency, DeleteRequest, GetResult, SetRequest, StateOperation
from meshnode_postgresql._text import encode
from meshnode_postgresql.state._layouts import Layout, Value

__all__ = ["Statement", "Statements"]

_SWEEP_SLICE = 1000
_TEXT = 0
_ZULU = 'YYYY-MM-DD"T"HH24:MI:SS"Z"'


@final
@frozen
class Statement:
    """SQL, its parameters and their formats; a write that touches no row raises `otherwise`."""

    sql: str
    values: Sequence[bytes | None]
    formats: Sequence[int]
    otherwise: EtagMismatch | None = None

    def check(self, result: PGresult) -> None:
        if self.otherwise is not None and not result.command_tuples:
            raise self.otherwise


@final
class Statements:
    """(Table names cannot be parameters; the options have checked them.)"""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        table, expires = layout.table, layout.expires
        alive = f"(t.{expires} IS NULL OR t.{expires} > now())"
        until = "now() + make_interval(secs => $2::float8)"
        names, values = ", ".join(layout.columns), ", ".join(layout.columns.values())
        changes = ", ".join(
            [
                *[f"{name} = {value}" for name, value in layout.columns.items()],
                f"{layout.updated} = now()",
                f"{expires} = {until}",
            ]
        )
        self._put = (
            f"INSERT INTO {table} AS t (key, {names}, {expires}) VALUES ($1, {values}, {until}) "
            f"ON CONFLICT (key) DO UPDATE SET {changes}"
        )
        self._put_first = f"{self._put} WHERE NOT {alive}"
        self._put_match = f"UPDATE {table} AS t SET {changes} WHERE t.key = $1 AND {alive} AND "
        self._put_match += self._matches(3 + layout.parameters)
        self._delete = f"DELETE FROM {table} AS t WHERE t.key = $1"
        self._delete_match = f"{self._delete} AND {alive} AND {self._matches(2)}"
        self.columns = (
            f"t.key, t.{layout.etag}::text, to_char(t.{expires} AT TIME ZONE 'UTC', '{_ZULU}'), "
            + ", ".join(f"t.{name}" for name in layout.reads)
        )
        self.get = f"SELECT {self.columns} FROM {table} AS t WHERE t.key = ANY($1::text[]) AND {alive}"
        self.alive = alive
        self.sweep = (
            f"DELETE FROM {table} WHERE key IN (SELECT key FROM {table} WHERE {expires} < now() "
            f"LIMIT {_SWEEP_SLICE} FOR UPDATE SKIP LOCKED)"
        )
        metadata = layout.metadata_table
        self.claim_sweep = (
            f"INSERT INTO {metadata} AS m (key, value) VALUES ($1, now()::text) "
            "ON CONFLICT (key) DO UPDATE SET value = now()::text "
            "WHERE extract(epoch FROM now() - m.value::timestamptz) > $2::float8"
        )

    def _matches(self, number: int) -> str:
        return f"t.{self._layout.etag} = ${number}::{self._layout.etag_type}"

    def write(self, operation: StateOperation) -> Statement:
        if isinstance(operation, SetRequest):
            return self._set(operation)
        return self._remove(operation)

    def _set(self, request: SetRequest) -> Statement:
        ttl = str(request.ttl).encode() if request.ttl is not None and request.ttl > 0 else None
        parameters = [_text(encode(request.key)), _text(ttl), *self._layout.encode(request)]
        otherwise: EtagMismatch | None = None
        sql = self._put
        if request.etag:
            parameters.append(_text(self._layout.check_etag(request.etag)))
            sql, otherwise = self._put_match, _mismatch(request.key)
        elif request.concurrency is Concurrency.FIRST_WRITE:
            sql = self._put_first
            otherwise = EtagMismatch(f"first write of key {request.key}, which already exists")
        return _statement(sql, parameters, otherwise)

    def _remove(self, request: DeleteRequest) -> Statement:
        parameters = [_text(encode(request.key))]
        if not request.etag:
            return _statement(self._delete, parameters, None)
        parameters.append(_text(self._layout.check_etag(request.etag)))
        return _statement(self._delete_match, parameters, _mismatch(request.key))

    def key(self, result: PGresult, row: int) -> str:
        """Of a row of `columns`."""
        return (result.get_value(row, 0) or b"").decode()

    def read(self, result: PGresult, row: int) -> GetResult:
        """What is there, of a row of `columns`. Raises `StateError` for what cannot be read."""
        etag, expires, *rest = [result.get_value(row, column) for column in range(1, result.nfields)]
        data = self._layout.decode([one or b"" for one in rest])
        metadata = {} if expires is None else {"ttlExpireTime": expires.decode()}
        return GetResult(data, (etag or b"").decode(), metadata)


def _text(value: bytes | None) -> Value:
    return value, _TEXT


def _statement(sql: str, parameters: Sequence[Value], otherwise: EtagMismatch | None) -> Statement:
    return Statement(sql, [value for value, _ in parameters], [one for _, one in parameters], otherwise)


def _mismatch(key: str) -> EtagMismatch:
    """In Dapr's words, which SDKs look for."""
    return EtagMismatch(f"possible etag mismatch. error from state store: the etag of {key} is another one")
