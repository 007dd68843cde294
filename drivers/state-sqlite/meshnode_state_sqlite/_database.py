"""How the store uses its database, and the tables.

Everything here blocks and runs in a worker thread.
"""

from __future__ import annotations

import base64
import binascii
import sqlite3

from meshnode_sqlite_client import Database

from meshnode.errors import StateError
from meshnode_state_sqlite._options import Options

__all__ = ["database_of", "migrate"]


def database_of(options: Options) -> Database:
    return Database(
        options.connection_string,
        StateError,
        timeout=options.timeout,
        busy_timeout=options.busy_timeout,
        disable_wal=options.disable_wal,
        configure=_configure,
    )


def _configure(connection: sqlite3.Connection) -> None:
    """Text comes as bytes, and queries can look into base64."""
    connection.text_factory = bytes
    connection.create_function("unbase64", 1, _unbase64, deterministic=True)


def _unbase64(value: object) -> str | None:
    """SQL function: the text behind a base64 value, or NULL when there is none."""
    try:
        return base64.b64decode(value, validate=True).decode() if isinstance(value, str | bytes) else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def migrate(options: Options, connection: sqlite3.Connection) -> None:
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
