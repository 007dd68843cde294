"""The file: connections, schema and statements. Everything here blocks; `_resolver` calls it in threads.

The layout is Dapr's, migration level included: whoever comes first creates the tables, everybody else finds
them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final
from urllib.parse import unquote

from attrs import frozen

from meshnode_nameresolution_sqlite._options import SqliteOptions

__all__ = ["Database", "Row"]

LEVEL_KEY: Final = "nr-migrations"
CLEANUP_KEY: Final = "nr-last-cleanup"


@frozen
class Row:
    """A registration: who is at `address`, and under which id it may be refreshed and deleted."""

    registration_id: str
    address: str
    app_id: str
    namespace: str


@final
class Database:
    """Two connections: lookups never queue behind a write that waits for another process."""

    def __init__(self, options: SqliteOptions) -> None:
        self._hosts = options.table_name
        self._metadata = options.metadata_table_name
        self._writer = _connect(options)
        try:
            in_memory = _is_memory(options.connection_string)
            if not in_memory and not options.disable_wal:
                self._writer.execute("PRAGMA journal_mode=WAL")
            self._migrate()
            self._reader = self._writer if in_memory else _connect(options)
        except BaseException:
            self._writer.close()
            raise

    def close(self) -> None:
        self._reader.close()
        self._writer.close()

    def lookup(self, app_id: str, namespace: str, oldest: int) -> tuple[str, ...]:
        # A daprd leaves the namespace empty, so an empty one belongs to every namespace.
        rows = self._reader.execute(
            f"SELECT address FROM {self._hosts}"
            " WHERE app_id = ? AND namespace IN (?, '') AND last_update > ? ORDER BY address",
            (app_id, namespace, oldest),
        )
        return tuple(address for (address,) in rows)

    def register(self, row: Row, now: int) -> None:
        """Takes the address over from whoever had it: only one process can be listening there."""
        self._writer.execute(
            f"REPLACE INTO {self._hosts} (registration_id, address, app_id, namespace, last_update)"
            " VALUES (?, ?, ?, ?, ?)",
            (row.registration_id, row.address, row.app_id, row.namespace, now),
        )

    def refresh(self, row: Row, now: int) -> bool:
        """False when the row is not there any more."""
        updated = self._writer.execute(
            f"UPDATE {self._hosts} SET last_update = ? WHERE registration_id = ? AND address = ?",
            (now, row.registration_id, row.address),
        )
        return updated.rowcount > 0

    def restore(self, row: Row, now: int) -> bool:
        """Puts a vanished row back; False when another registration has its address."""
        restored = self._writer.execute(
            f"INSERT INTO {self._hosts} (registration_id, address, app_id, namespace, last_update)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (row.registration_id, row.address, row.app_id, row.namespace, now),
        )
        return restored.rowcount > 0

    def unregister(self, row: Row) -> None:
        self._writer.execute(
            f"DELETE FROM {self._hosts} WHERE registration_id = ? AND address = ?",
            (row.registration_id, row.address),
        )

    def clean_up(self, own: Row, now: int, interval: float, oldest: int) -> int | None:
        """Deletes others' rows not refreshed since `oldest` and says how many; None if someone just did."""
        due = self._writer.execute(
            f"INSERT INTO {self._metadata} (key, value) VALUES (?, datetime(?, 'unixepoch'))"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            " WHERE strftime('%s', excluded.value) - strftime('%s', value) >= ?",
            (CLEANUP_KEY, now, interval),
        )
        if not due.rowcount:
            return None
        deleted = self._writer.execute(
            f"DELETE FROM {self._hosts} WHERE last_update <= ? AND registration_id != ?",
            (oldest, own.registration_id),
        )
        return deleted.rowcount

    def _migrate(self) -> None:
        with self._exclusive():
            self._writer.execute(
                f"CREATE TABLE IF NOT EXISTS {self._metadata}"
                " (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)"
            )
            if self._level() >= 1:
                return
            self._writer.execute(
                f"CREATE TABLE {self._hosts} (registration_id TEXT NOT NULL PRIMARY KEY,"
                " address TEXT NOT NULL, app_id TEXT NOT NULL, namespace TEXT NOT NULL,"
                " last_update INTEGER NOT NULL)"
            )
            self._writer.execute(f"CREATE UNIQUE INDEX {self._hosts}_address_idx ON {self._hosts} (address)")
            self._writer.execute(f"CREATE INDEX {self._hosts}_last_update_idx ON {self._hosts} (last_update)")
            self._writer.execute(f"REPLACE INTO {self._metadata} (key, value) VALUES (?, '1')", (LEVEL_KEY,))

    def _level(self) -> int:
        query = f"SELECT value FROM {self._metadata} WHERE key = ?"
        row = self._writer.execute(query, (LEVEL_KEY,)).fetchone()
        if row is None:
            return 0
        if not str(row[0]).isdecimal():
            raise sqlite3.DatabaseError(f"invalid migration level found in metadata table: {row[0]}")
        return int(row[0])

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._writer.execute("BEGIN EXCLUSIVE TRANSACTION")
        try:
            yield
        except BaseException:
            self._writer.execute("ROLLBACK TRANSACTION")
            raise
        self._writer.execute("COMMIT TRANSACTION")


def _connect(options: SqliteOptions) -> sqlite3.Connection:
    target = options.connection_string
    uri = target.lower().startswith("file:") or "?" in target
    if uri and not target.lower().startswith("file:"):
        target = f"file:{target}"
    if not _is_memory(target):
        path = unquote(target.removeprefix("file:").partition("?")[0]) if uri else target
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    wait = min(options.busy_timeout, options.timeout).total_seconds()
    # One thread at a time uses a connection, but not always the same one.
    return sqlite3.connect(
        target, timeout=max(0.0, wait), isolation_level=None, check_same_thread=False, uri=uri
    )


def _is_memory(connection_string: str) -> bool:
    text = connection_string.lower()
    return text.startswith((":memory:", "file::memory:")) or "mode=memory" in text
