"""Opening a connection, and what SQLite's errors mean.

Everything here blocks and runs in a worker thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import final

from attrs import frozen

from meshnode.errors import ComponentError, ComponentUnavailable
from meshnode_sqlite_client._location import locate

__all__ = ["Database", "connect", "translate", "whole"]

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


def _nothing(_connection: sqlite3.Connection) -> None:
    """The usual: there is nothing to check, nothing to prepare."""


@final
@frozen
class Database:
    """Which database, and how to use it.

    `timeout` bounds one job, `busy_timeout` the wait for another process that writes. `failure` is the error
    for what trying again will not mend. `configure` is called with each new connection, `check` before each
    batch of jobs; it raises where the database cannot be used any more.
    """

    connection_string: str
    failure: type[ComponentError]
    timeout: timedelta
    busy_timeout: timedelta
    disable_wal: bool = False
    configure: Callable[[sqlite3.Connection], None] = _nothing
    check: Callable[[sqlite3.Connection], None] = _nothing

    def __str__(self) -> str:
        return f"sqlite database {self.connection_string}"


def translate(error: sqlite3.Error, database: Database) -> ComponentError:
    """SQLite's error as one of ours, with the database's name in it."""
    message = f"{database}: {error}"
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _PASSING:
        return ComponentUnavailable(message)
    return database.failure(message)


def connect(database: Database) -> sqlite3.Connection:
    """A connection in autocommit mode. It may move between threads, one at a time."""
    location = locate(database.connection_string)
    connection = sqlite3.connect(
        location.uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=max(database.busy_timeout.total_seconds(), 0.0),
    )
    try:
        database.configure(connection)
        for pragma in location.pragmas:
            connection.execute(f"PRAGMA {pragma}")
        if location.in_memory:
            connection.execute("PRAGMA journal_mode = MEMORY")
        elif not location.read_only:
            connection.execute(f"PRAGMA journal_mode = {'DELETE' if database.disable_wal else 'WAL'}")
        # Reading something tells a database from another kind of file.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def whole(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block's statements or none, inside the batch's transaction: its neighbours stay."""
    connection.execute("SAVEPOINT meshnode")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO meshnode")
            connection.execute("RELEASE meshnode")
        raise
    connection.execute("RELEASE meshnode")
