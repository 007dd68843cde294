"""Opening a connection, the tables, and what SQLite's errors mean.

Everything here blocks and runs in a worker thread.
"""

from __future__ import annotations

import base64
import binascii
import sqlite3

from meshnode.errors import ComponentError, ComponentUnavailable, StateError
from meshnode_state_sqlite._options import Options, locate

__all__ = ["connect", "migrate", "translate"]

_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_INTERRUPT,
    }
)
"""Errors that may be gone at the next attempt; the low byte of an extended code is the code."""


def translate(error: sqlite3.Error, options: Options) -> ComponentError:
    """SQLite's error as one of ours, with the database's name in it."""
    message = f"sqlite database {options.connection_string}: {error}"
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _PASSING:
        return ComponentUnavailable(message)
    return StateError(message)


def connect(options: Options) -> sqlite3.Connection:
    """A connection in autocommit mode that gives text as bytes.

    It may move between threads, one at a time.
    """
    location = locate(options.connection_string)
    connection = sqlite3.connect(
        location.uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=max(options.busy_timeout.total_seconds(), 0.0),
    )
    try:
        connection.text_factory = bytes
        connection.create_function("unbase64", 1, _unbase64, deterministic=True)
        for pragma in location.pragmas:
            connection.execute(f"PRAGMA {pragma}")
        if location.in_memory:
            connection.execute("PRAGMA journal_mode = MEMORY")
        elif not location.read_only:
            connection.execute(f"PRAGMA journal_mode = {'DELETE' if options.disable_wal else 'WAL'}")
        # Reading something tells a database from another kind of file.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _unbase64(value: object) -> str | None:
    """SQL function: the text behind a base64 value, or NULL when there is none."""
    try:
        return base64.b64decode(value, validate=True).decode() if isinstance(value, str | bytes) else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def migrate(connection: sqlite3.Connection, options: Options) -> None:
    """Creates the tables if they are not there.

    The level is kept where Dapr keeps it, so each finds the other's work done.
    """
    state, metadata = options.table_name, options.metadata_table_name
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {metadata} (key text NOT NULL PRIMARY KEY, value text NOT NULL)"
        )
        row = connection.execute(f"SELECT value FROM {metadata} WHERE key = 'migrations'").fetchone()
        if row is None or int(row[0]) < 1:
            connection.execute(
                f"""CREATE TABLE IF NOT EXISTS {state} (
                    key TEXT NOT NULL PRIMARY KEY,
                    value TEXT NOT NULL,
                    is_binary BOOLEAN NOT NULL,
                    etag TEXT NOT NULL,
                    expiration_time TIMESTAMP DEFAULT NULL,
                    update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
                )"""
            )
            connection.execute(f"REPLACE INTO {metadata} (key, value) VALUES ('migrations', '1')")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
