"""The component's metadata, with Dapr's names, defaults and limits."""

from __future__ import annotations

import re
from datetime import timedelta

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["SqliteOptions"]

SECOND = timedelta(seconds=1)


@frozen
class SqliteOptions:
    connection_string: str = option(
        "connectionString",
        "Path of the SQLite file, or a `file:` URI. The node fills in a file in the user's state folder.",
        aliases=("url",),
    )
    table_name: str = option("tableName", "Table of the registrations.", default="hosts")
    metadata_table_name: str = option(
        "metadataTableName",
        "Table with the level of the schema and the time of the last clean-up.",
        default="metadata",
    )
    update_interval: timedelta = option(
        "updateInterval",
        "Age past which a registration counts as dead; each node refreshes its own before. Whole seconds,"
        " the same on all nodes.",
        default=timedelta(seconds=5),
    )
    cleanup_interval: timedelta = option(
        "cleanupInterval",
        "How often dead registrations are deleted, by whichever node comes first; 0 never.",
        default=timedelta(hours=1),
        aliases=("cleanupIntervalInSeconds",),
    )
    timeout: timedelta = option(
        "timeout",
        "Time one operation may take; at least a second less than `updateInterval`.",
        default=SECOND,
        aliases=("timeoutInSeconds",),
    )
    busy_timeout: timedelta = option(
        "busyTimeout",
        "How long to wait for another process that is writing.",
        default=timedelta(milliseconds=800),
    )
    disable_wal: bool = option(
        "disableWAL",
        "Journal the old way instead of write-ahead; needed on network file systems.",
        default=False,
    )

    def __attrs_post_init__(self) -> None:
        problems = tuple(self._problems())
        if problems:
            raise ConfigError(problems)

    def _problems(self) -> list[Problem]:
        found = []
        if not self.connection_string.strip():
            found.append(Problem("missing connection string", field="connectionString"))
        for name, value in (("tableName", self.table_name), ("metadataTableName", self.metadata_table_name)):
            # The name becomes part of the SQL text, where no placeholder can stand.
            if not re.fullmatch(r"[A-Za-z0-9_]+", value, re.ASCII):
                remedy = "letters, digits and _ are allowed"
                found.append(Problem(f"{value!r} cannot be a table's name", field=name, remedy=remedy))
        if self.update_interval % SECOND:
            found.append(Problem("must be whole seconds", field="updateInterval", remedy="e.g. 5s"))
        if self.timeout < SECOND:
            found.append(Problem("must be at least 1s", field="timeout"))
        if self.update_interval - self.timeout < SECOND:
            remedy = f"at least {(self.timeout + SECOND).total_seconds():g}s"
            found.append(
                Problem("must be at least 1s longer than timeout", field="updateInterval", remedy=remedy)
            )
        return found
