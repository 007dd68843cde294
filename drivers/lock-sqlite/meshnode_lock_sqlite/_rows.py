"""The table, and one operation on it, as functions that take a connection. They block and run in the worker
thread, inside its transaction.

A row is a lock that was taken; its number is the fencing token. `AUTOINCREMENT` is what makes numbers rise
for ever: without it the highest would be given out again after its row was removed. Times are seconds since
1970.
"""

from __future__ import annotations

import sqlite3
from typing import final

from meshnode.interfaces import UnlockOutcome

__all__ = ["Statements", "migrate", "try_lock", "unlock"]


@final
class Statements:
    """SQL for one table's name, made once."""

    def __init__(self, table: str) -> None:
        self.create = f"""CREATE TABLE IF NOT EXISTS {table} (
            token INTEGER PRIMARY KEY AUTOINCREMENT,
            resource TEXT NOT NULL UNIQUE,
            owner TEXT NOT NULL,
            expires_at REAL NOT NULL
        )"""
        self.index = f"CREATE INDEX IF NOT EXISTS {table}_expires_at ON {table} (expires_at)"
        self.expire = f"DELETE FROM {table} WHERE expires_at <= ?"
        self.holder = f"SELECT owner FROM {table} WHERE resource = ?"
        self.take = f"INSERT INTO {table} (resource, owner, expires_at) VALUES (?, ?, ?)"
        self.release = f"DELETE FROM {table} WHERE resource = ?"
        self.look = f"SELECT 1 FROM {table} LIMIT 1"


def migrate(sql: Statements, connection: sqlite3.Connection) -> None:
    """Creates the table if it is not there."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(sql.create)
        connection.execute(sql.index)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def try_lock(
    sql: Statements, resource: str, owner: str, now: float, expires_at: float, connection: sqlite3.Connection
) -> int | None:
    """The token, or None where somebody holds it."""
    connection.execute(sql.expire, (now,))
    if connection.execute(sql.holder, (resource,)).fetchone() is not None:
        return None
    return connection.execute(sql.take, (resource, owner, expires_at)).lastrowid


def unlock(
    sql: Statements, resource: str, owner: str, now: float, connection: sqlite3.Connection
) -> UnlockOutcome:
    connection.execute(sql.expire, (now,))
    row = connection.execute(sql.holder, (resource,)).fetchone()
    if row is None:
        return UnlockOutcome.LOCK_DOES_NOT_EXIST
    if row[0] != owner:
        return UnlockOutcome.LOCK_BELONGS_TO_OTHERS
    connection.execute(sql.release, (resource,))
    return UnlockOutcome.SUCCESS
