"""The metadata fields of `lock.sqlite`, named as those of Dapr's SQLite components."""

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
_IDENTIFIER = re.compile(r"[A-Za-z0-9_]+")


@final
@frozen
class Options:
    """Metadata of `lock.sqlite`."""

    connection_string: str = option(
        "connectionString",
        "Path of the database file, or an SQLite URI, or `:memory:` for the locks of one process.",
        aliases=("url",),
    )
    table_name: str = option("tableName", "Table that holds the locks.", default="locks")
    timeout: timedelta = option(
        "timeout",
        "How long one operation may keep the database busy.",
        default=_TIMEOUT,
        aliases=("timeoutInSeconds",),
    )
    busy_timeout: timedelta = option(
        "busyTimeout",
        "How long to wait for another process that is writing to the same file.",
        default=_BUSY_TIMEOUT,
    )
    disable_wal: bool = option("disableWAL", "Do without the write-ahead log.", default=False)

    def __attrs_post_init__(self) -> None:
        problems = []
        if not _IDENTIFIER.fullmatch(self.table_name):
            remedy = "letters, digits and _ only"
            problems.append(
                Problem(f"{self.table_name!r} is no table name", field="tableName", remedy=remedy)
            )
        if self.timeout < timedelta(seconds=1):
            problems.append(Problem("must be at least 1s", field="timeout"))
        if locate(self.connection_string).read_only:
            problems.append(Problem("locks have to be written", field="connectionString"))
        if problems:
            raise ConfigError(problems)
