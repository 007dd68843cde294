"""The tables, and the file they are in. Everything here blocks and runs in the worker thread.

A message has one row in `pubsub_messages` and, for each group that has still to acknowledge it, one in
`pubsub_deliveries`. A delivery may be taken from `due` on: at once when it was published, after the lease
when somebody holds it, after the pause when it is to be tried again. One that must wait for another of its
key is `held`; the first of a key never is.

The group of a topic to which nobody has subscribed yet has no name (see `_publishing`).
"""

from __future__ import annotations

import os
import sqlite3
from typing import final

from meshnode_sqlite_client import Database

from meshnode.errors import ComponentUnavailable, PubSubError
from meshnode_pubsub_sqlite._options import Options

__all__ = ["database_of", "file_of", "migrate"]

_LEVEL = 2

_TABLES = """
CREATE TABLE pubsub_schema (level INTEGER NOT NULL);
CREATE TABLE pubsub_messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    data BLOB NOT NULL,
    content_type TEXT NOT NULL,
    metadata TEXT NOT NULL,
    published REAL NOT NULL,
    expires REAL,
    pending INTEGER NOT NULL,
    finished REAL
);
CREATE INDEX pubsub_expiring ON pubsub_messages (expires) WHERE expires IS NOT NULL;
CREATE INDEX pubsub_finished ON pubsub_messages (finished) WHERE pending = 0;
CREATE TABLE pubsub_groups (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    name TEXT,
    size INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, name)
);
CREATE UNIQUE INDEX pubsub_unclaimed ON pubsub_groups (topic) WHERE name IS NULL;
CREATE TABLE pubsub_deliveries (
    group_id INTEGER NOT NULL,
    message_id INTEGER NOT NULL,
    partition_key TEXT NOT NULL,
    held INTEGER NOT NULL,
    due REAL NOT NULL DEFAULT 0,
    owner INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (group_id, message_id)
) WITHOUT ROWID;
CREATE INDEX pubsub_ready ON pubsub_deliveries (group_id, message_id) WHERE held = 0;
CREATE INDEX pubsub_keys ON pubsub_deliveries (group_id, partition_key, message_id) WHERE partition_key <> '';
CREATE INDEX pubsub_leased ON pubsub_deliveries (owner) WHERE owner IS NOT NULL;
CREATE TABLE pubsub_owners (id INTEGER PRIMARY KEY);
CREATE TRIGGER pubsub_group_removed BEFORE DELETE ON pubsub_groups BEGIN
    UPDATE pubsub_messages SET pending = pending - 1, finished = coalesce(finished, 0)
        WHERE id IN (SELECT message_id FROM pubsub_deliveries WHERE group_id = OLD.id);
    DELETE FROM pubsub_deliveries WHERE group_id = OLD.id;
END;
"""


def migrate(connection: sqlite3.Connection) -> None:
    """Creates the tables if they are not there. Raises `PubSubError` when they are another meshnode's."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'pubsub_schema'").fetchone():
            for statement in _statements(_TABLES):
                connection.execute(statement)
            connection.execute("INSERT INTO pubsub_schema VALUES (?)", (_LEVEL,))
        (level,) = connection.execute("SELECT level FROM pubsub_schema").fetchone()
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if level != _LEVEL:
        whose = "an earlier" if level < _LEVEL else "a later"
        raise PubSubError(
            f"sqlite database {file_of(connection)}: its topics have level {level}, not {_LEVEL}: "
            f"they are {whose} meshnode's; choose another file, or remove this one if nothing in it is needed"
        )


def _statements(script: str) -> list[str]:
    """(`executescript` would commit what is under way.)"""
    found, current = [], ""
    for line in script.splitlines():
        current += line + "\n"
        if sqlite3.complete_statement(current):
            found.append(current)
            current = ""
    return found


def file_of(connection: sqlite3.Connection) -> str:
    """The absolute path of the database."""
    (path,) = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
    return str(path)


def database_of(options: Options) -> Database:
    return Database(
        options.connection_string,
        PubSubError,
        timeout=options.timeout,
        busy_timeout=options.busy_timeout,
        check=_SameFile(),
    )


@final
class _SameFile:
    """Refuses to go on when the file is not the one that was opened: SQLite would write on happily into a
    file that nobody will ever find again.
    """

    def __init__(self) -> None:
        self._path = ""
        self._identity = (0, 0)

    def __call__(self, connection: sqlite3.Connection) -> None:
        if not self._path:
            self._path = file_of(connection)
            self._identity = self._look()
        elif self._look() != self._identity:
            raise ComponentUnavailable(
                f"sqlite database {self._path} was removed or replaced while it was in use; restart the node"
            )

    def _look(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino
