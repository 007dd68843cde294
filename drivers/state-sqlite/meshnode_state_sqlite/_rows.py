"""One operation on the tables, as functions that take a connection. They block and run in a worker thread.

A value that is text is stored as it is (`is_binary` 0), anything else as base64 (`is_binary` 1): both
are what Dapr's component reads. Times are UTC text to the second, `YYYY-MM-DD HH:MM:SS`, as SQLite's
CURRENT_TIMESTAMP.
"""

from __future__ import annotations

import base64
import math
import sqlite3
import time
from collections.abc import Sequence
from typing import final

from meshnode_sqlite_client import whole

from meshnode.errors import EtagMismatch
from meshnode.interfaces import Concurrency, DeleteRequest, GetResult, SetRequest, StateOperation
from meshnode_state_sqlite._options import Options

__all__ = ["Statements", "Stored", "decode_value", "read", "sweep", "timestamp", "transact", "write"]

_SWEEP_SLICE = 1000

Stored = tuple[str, int]


def timestamp(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))


def _encode_value(value: bytes) -> Stored:
    if b"\0" not in value:
        try:
            return value.decode(), 0
        except UnicodeDecodeError:
            pass
    return base64.b64encode(value).decode(), 1


def decode_value(value: bytes | str, is_binary: int) -> bytes:
    """What is in the `value` column, as the caller wrote it."""
    raw = value.encode() if isinstance(value, str) else value
    return base64.b64decode(raw) if is_binary else raw


@final
class Statements:
    """The SQL, with the table's name filled in.

    (Table names cannot be parameters; `Options` has checked them.)
    """

    def __init__(self, options: Options) -> None:
        table, metadata = options.table_name, options.metadata_table_name
        alive = "(expiration_time IS NULL OR expiration_time > :now)"
        columns = "key, value, is_binary, etag, expiration_time, update_time"
        values = ":key, :value, :is_binary, :new_etag, :expires, :now"
        changes = (
            "value = :value, is_binary = :is_binary, etag = :new_etag, "
            "expiration_time = :expires, update_time = :now"
        )
        self.get = (
            f"SELECT value, is_binary, etag, expiration_time FROM {table} WHERE key = ? "
            "AND (expiration_time IS NULL OR expiration_time > ?)"
        )
        self.put = (
            f"INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT (key) DO UPDATE SET {changes}"
        )
        self.put_first = f"{self.put} WHERE NOT {alive}"
        self.put_match = f"UPDATE {table} SET {changes} WHERE key = :key AND etag = :etag AND {alive}"
        self.delete = f"DELETE FROM {table} WHERE key = :key"
        self.delete_match = f"{self.delete} AND etag = :etag AND {alive}"
        self.sweep = (
            f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} "
            f"WHERE expiration_time IS NOT NULL AND expiration_time < ? LIMIT {_SWEEP_SLICE})"
        )
        self.claim_sweep = (
            f"INSERT INTO {metadata} (key, value) VALUES ('last-cleanup', :now) ON CONFLICT (key) DO UPDATE "
            "SET value = :now WHERE strftime('%s', :now) - strftime('%s', value) >= :interval"
        )


def read(connection: sqlite3.Connection, sql: Statements, key: str, now: str) -> GetResult | None:
    row = connection.execute(sql.get, (key, now)).fetchone()
    if row is None:
        return None
    value, is_binary, etag, expires = row
    data = decode_value(value, is_binary)
    if expires is None:
        return GetResult(data, etag.decode())
    return GetResult(data, etag.decode(), {"ttlExpireTime": expires.decode().replace(" ", "T") + "Z"})


def write(
    connection: sqlite3.Connection, sql: Statements, operation: StateOperation, new_etag: str, moment: float
) -> None:
    """One set or delete; raises `EtagMismatch` and changes nothing when its condition does not hold."""
    if isinstance(operation, SetRequest):
        _put(connection, sql, operation, new_etag, moment)
    else:
        _delete(connection, sql, operation, moment)


def _put(
    connection: sqlite3.Connection, sql: Statements, request: SetRequest, new_etag: str, moment: float
) -> None:
    value, is_binary = _encode_value(request.value)
    # Rounded up: a value must not vanish before its time to live has passed.
    expires = (
        timestamp(math.ceil(moment + request.ttl)) if request.ttl is not None and request.ttl > 0 else None
    )
    row = {
        "key": request.key,
        "value": value,
        "is_binary": is_binary,
        "new_etag": new_etag,
        "expires": expires,
        "now": timestamp(moment),
    }
    if request.etag:
        row["etag"] = request.etag
        if connection.execute(sql.put_match, row).rowcount == 0:
            raise _mismatch(request.key)
    elif request.concurrency is Concurrency.FIRST_WRITE:
        if connection.execute(sql.put_first, row).rowcount == 0:
            raise EtagMismatch(f"first write of key {request.key}, which already exists")
    else:
        connection.execute(sql.put, row)


def _mismatch(key: str) -> EtagMismatch:
    """In Dapr's words, which SDKs look for."""
    return EtagMismatch(f"possible etag mismatch. error from state store: the etag of {key} is another one")


def _delete(connection: sqlite3.Connection, sql: Statements, request: DeleteRequest, moment: float) -> None:
    if not request.etag:
        connection.execute(sql.delete, {"key": request.key})
        return
    row = {"key": request.key, "etag": request.etag, "now": timestamp(moment)}
    if connection.execute(sql.delete_match, row).rowcount == 0:
        raise _mismatch(request.key)


def transact(
    connection: sqlite3.Connection,
    sql: Statements,
    operations: Sequence[tuple[StateOperation, str]],
    moment: float,
) -> None:
    """All or nothing."""
    with whole(connection):
        for operation, new_etag in operations:
            write(connection, sql, operation, new_etag, moment)


def sweep(connection: sqlite3.Connection, sql: Statements, moment: float) -> bool:
    """Removes a slice of expired rows; True when there may be more."""
    return connection.execute(sql.sweep, (timestamp(moment),)).rowcount >= _SWEEP_SLICE
