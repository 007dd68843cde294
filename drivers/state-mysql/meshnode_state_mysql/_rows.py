"""One operation on the tables, as functions that take a session. They block and run in a thread.

A value is stored as Dapr's component stores bytes: base64 as a JSON text, `isbinary` 1. Where it is 0, the
column holds a JSON document. Times are the server's, to the second.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, final

from pymysql.err import MySQLError

from meshnode.errors import EtagMismatch, StateError
from meshnode.interfaces import Concurrency, DeleteRequest, GetResult, SetRequest, StateOperation
from meshnode_state_mysql._connection import Session
from meshnode_state_mysql._errors import CHANGED, DEADLOCK, code_of, translated
from meshnode_state_mysql._options import Options

__all__ = [
    "Pair",
    "Statements",
    "apply",
    "apply_all",
    "claim_sweep",
    "read",
    "read_all",
    "sweep",
    "transact",
]

T = TypeVar("T")
Pair = tuple[StateOperation, str]
"""An operation, and the etag that a write gives its row."""

_SLICE = 1000
"""Keys of one SELECT, rows of one DELETE."""
_ATTEMPTS = 20
"""A deadlock has a victim and a winner, so that each attempt but the last of a crowd brings somebody on."""


@final
class Statements:
    """The SQL, with the tables' names filled in.

    (Names cannot be parameters; `Options` has checked them.)
    """

    def __init__(self, options: Options) -> None:
        table, metadata = options.table_name, options.metadata_table_name
        alive = "(expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)"
        columns = ("value", "eTag", "isbinary", "expiredate")
        insert = f"INSERT INTO {table} (id, value, eTag, isbinary, expiredate) VALUES (%s, %s, %s, 1, {{}})"
        self._put = f"{insert} ON DUPLICATE KEY UPDATE " + _assign(columns, "VALUES({0})")
        # The server assigns from left to right, and the last of them decides about all.
        self._put_first = f"{insert} ON DUPLICATE KEY UPDATE " + _assign(
            columns, f"IF({alive}, {{0}}, VALUES({{0}}))"
        )
        self._put_match = (
            f"UPDATE {table} SET value = %s, eTag = %s, isbinary = 1, expiredate = {{}} "
            f"WHERE id = %s AND eTag = %s AND {alive}"
        )
        self.delete = f"DELETE FROM {table} WHERE id = %s"
        self.delete_match = f"{self.delete} AND eTag = %s AND {alive}"
        self.get = (
            f"SELECT id, value, eTag, isbinary, UNIX_TIMESTAMP(expiredate) FROM {table} WHERE {alive} AND id "
        )
        self.ping = f"SELECT 1 FROM {table} LIMIT 1"
        self.sweep = f"DELETE FROM {table} WHERE expiredate <= CURRENT_TIMESTAMP LIMIT {_SLICE}"
        self.claim_sweep = (
            f"INSERT INTO {metadata} (id, value) VALUES ('last-cleanup', CURRENT_TIMESTAMP) "
            "ON DUPLICATE KEY UPDATE value = "
            "IF(CURRENT_TIMESTAMP > DATE_ADD(value, INTERVAL %s MICROSECOND), CURRENT_TIMESTAMP, value)"
        )

    def put(self, request: SetRequest, new_etag: str) -> tuple[str, Sequence[str]]:
        """The statement, and what goes into it."""
        # The column has whole seconds: one more, lest a value vanish before its time to live has passed.
        lives = request.ttl is not None and request.ttl > 0
        expiry = f"CURRENT_TIMESTAMP + INTERVAL {(request.ttl or 0) + 1:d} SECOND" if lives else "NULL"
        value = f'"{base64.b64encode(request.value).decode()}"'
        if request.etag:
            return self._put_match.format(expiry), (value, new_etag, request.key, request.etag)
        first = request.concurrency is Concurrency.FIRST_WRITE
        sql = self._put_first if first else self._put
        return sql.format(expiry), (request.key, value, new_etag)


def _assign(columns: Sequence[str], source: str) -> str:
    return ", ".join([f"{name} = " + source.format(name) for name in columns])


def read(session: Session, sql: Statements, key: str) -> GetResult | None:
    rows = session.rows(f"{sql.get} = %s", key)
    return _result(rows[0]) if rows else None


def read_all(
    session: Session, sql: Statements, keys: Sequence[str], *, exact: bool
) -> Mapping[str, GetResult | StateError]:
    """What is there. `exact`: the table finds a key under no other name than its own."""
    found: dict[str, GetResult | StateError] = {}
    wanted = list(dict.fromkeys(keys))
    size = _SLICE if exact else 1
    for start in range(0, len(wanted), size):
        part = wanted[start : start + size]
        for row in session.rows(f"{sql.get} IN ({', '.join(['%s'] * len(part))})", *part):
            key = str(row[0]) if exact else part[0]
            try:
                found[key] = _result(row)
            except StateError as error:
                found[key] = error
    return found


def _result(row: Sequence[Any]) -> GetResult:
    key, value, etag, is_binary, expires = row
    try:
        data = base64.b64decode(json.loads(value), validate=True) if is_binary else str(value).encode()
    except (ValueError, TypeError) as error:
        raise StateError(f"the value of key {key} is not what isbinary says it is: {error}") from error
    if expires is None:
        return GetResult(data, etag)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(expires)))
    return GetResult(data, etag, {"ttlExpireTime": moment})


def _write(run: Callable[..., int], sql: Statements, pair: Pair) -> None:
    """One set or delete; raises `EtagMismatch` and changes nothing when its condition does not hold."""
    operation, new_etag = pair
    if isinstance(operation, DeleteRequest):
        if not operation.etag:
            run(sql.delete, operation.key)
        elif run(sql.delete_match, operation.key, operation.etag) == 0:
            raise _mismatch(operation.key)
        return
    statement, arguments = sql.put(operation, new_etag)
    if run(statement, *arguments) == 0:
        if operation.etag:
            raise _mismatch(operation.key)
        raise EtagMismatch(f"first write of key {operation.key}, which already exists")


def _mismatch(key: str) -> EtagMismatch:
    """In Dapr's words, which SDKs look for."""
    return EtagMismatch(f"possible etag mismatch. error from state store: the etag of {key} is another one")


def apply(session: Session, sql: Statements, pair: Pair) -> None:
    """One operation, which is done when this returns."""
    _repeated(lambda: _write(session.write, sql, pair))


def transact(session: Session, sql: Statements, pairs: Sequence[Pair]) -> None:
    """All or nothing."""

    def body() -> None:
        with session.transaction():
            for _, pair in _in_order_of_keys(pairs):
                _write(session.execute, sql, pair)

    _repeated(body)


def apply_all(
    session: Session, sql: Statements, pairs: Sequence[Pair], address: str
) -> Mapping[int, StateError]:
    """Each for itself, but committed once, which is one wait for the disk. What failed, by position."""

    def body() -> Mapping[int, StateError]:
        failures: dict[int, StateError] = {}
        with session.transaction():
            for position, pair in _in_order_of_keys(pairs):
                try:
                    _write(session.execute, sql, pair)
                except StateError as error:
                    failures[position] = error
                except MySQLError as error:
                    refusal = translated(address, error)
                    if not isinstance(refusal, StateError):
                        raise
                    failures[position] = refusal
        return failures

    return _repeated(body)


def _in_order_of_keys(pairs: Sequence[Pair]) -> list[tuple[int, Pair]]:
    """So that two transactions lock their rows in the same order. Operations on one key keep theirs."""
    return sorted(enumerate(pairs), key=lambda numbered: numbered[1][0].key)


def _repeated(body: Callable[[], T]) -> T:
    """Until it is no deadlock's victim, for which the server has undone everything."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return body()
        except MySQLError as error:
            if code_of(error) not in (DEADLOCK, CHANGED):
                raise
    return body()


def claim_sweep(session: Session, sql: Statements, interval: float) -> bool:
    """True when this node is the one to sweep now; others that share the table see that it is done."""
    # A little less than the interval, as in Dapr: clocks differ.
    return session.write(sql.claim_sweep, int((interval - 0.1) * 1_000_000)) > 0


def sweep(session: Session, sql: Statements) -> bool:
    """Removes a slice of expired rows; True when there may be more."""
    return session.write(sql.sweep) >= _SLICE
