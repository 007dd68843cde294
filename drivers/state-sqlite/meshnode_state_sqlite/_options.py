"""The metadata fields of `state.sqlite`, with Dapr's names and defaults."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import final

from attrs import frozen
from meshnode_sqlite_client import locate

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["Options"]

_TIMEOUT = timedelta(seconds=20)
_BUSY_TIMEOUT = timedelta(seconds=2)
_NEVER = timedelta(0)

_IDENTIFIER = re.compile(r"[A-Za-z0-9_]+")


@final
@frozen
class Options:
    """Metadata of `state.sqlite`."""

    connection_string: str = option(
        "connectionString",
        "Path of the database file, or an SQLite URI (`file:data.db?mode=ro`), or `:memory:`.",
        aliases=("url",),
    )
    table_name: str = option("tableName", "Table that holds the values.", default="state")
    metadata_table_name: str = option(
        "metadataTableName", "Table that holds the schema's version.", default="metadata"
    )
    timeout: timedelta = option(
        "timeout",
        "How long one operation may keep the database busy.",
        default=_TIMEOUT,
        aliases=("timeoutInSeconds",),
    )
    cleanup_interval: timedelta = option(
        "cleanupInterval",
        "How often expired rows are removed; 0 or less: never. (They are not returned in any case.)",
        default=_NEVER,
        aliases=("cleanupIntervalInSeconds",),
    )
    busy_timeout: timedelta = option(
        "busyTimeout",
        "How long to wait for another process that is writing to the same file.",
        default=_BUSY_TIMEOUT,
    )
    disable_wal: bool = option(
        "disableWAL", "Do without the write-ahead log; needed on network file systems.", default=False
    )

    def __attrs_post_init__(self) -> None:
        problems = [
            Problem(f"{name!r} is no table name", field=label, remedy="letters, digits and _ only")
            for label, name in (
                ("tableName", self.table_name),
                ("metadataTableName", self.metadata_table_name),
            )
            if not _IDENTIFIER.fullmatch(name)
        ]
        if self.timeout < timedelta(seconds=1):
            problems.append(Problem("must be at least 1s", field="timeout"))
        if problems:
            raise ConfigError(problems)
        locate(self.connection_string)

    @property
    def sweeps(self) -> bool:
        return self.cleanup_interval > _NEVER
