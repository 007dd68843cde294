"""What is asked of the file: functions that take a connection and run in the worker thread."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from meshnode.errors import ConfigurationError
from meshnode.interfaces import ConfigurationItem

__all__ = ["mark", "migrate", "read"]

_AT_ONCE = 500


def migrate(table: str, connection: sqlite3.Connection) -> None:
    """The columns are those of Dapr's component for PostgreSQL."""
    connection.execute(
        f'CREATE TABLE IF NOT EXISTS "{table}" '
        "(key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, "
        "version TEXT NOT NULL DEFAULT '', metadata TEXT)"
    )


def mark(connection: sqlite3.Connection) -> int:
    """Another number after another connection has written."""
    (number,) = connection.execute("PRAGMA data_version").fetchone()
    return int(number)


def read(table: str, keys: Sequence[str], connection: sqlite3.Connection) -> dict[str, ConfigurationItem]:
    """The items of these keys, or of all."""
    # One name after another would be slow, and a statement takes only so many.
    select = f'SELECT key, value, version, metadata FROM "{table}"'
    if not keys:
        return dict(map(_item, connection.execute(select + " ORDER BY key")))
    found: dict[str, ConfigurationItem] = {}
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        where = f" WHERE key IN ({', '.join('?' * len(some))})"
        found.update(map(_item, connection.execute(select + where, tuple(some))))
    return found


def _item(row: tuple[object, ...]) -> tuple[str, ConfigurationItem]:
    key, value, version, metadata = row
    item = ConfigurationItem(_text(value), _text(version), _pairs(str(key), metadata))
    return str(key), item


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _pairs(key: str, metadata: object) -> dict[str, str]:
    text = _text(metadata)
    if not text:
        return {}
    try:
        pairs = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"the metadata of {key} is no JSON: {error}") from error
    if pairs is None:
        return {}
    if not isinstance(pairs, dict) or not all(isinstance(value, str) for value in pairs.values()):
        raise ConfigurationError(f"the metadata of {key} is no JSON object of texts")
    return pairs
