"""The metadata fields of `configuration.sqlite`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import final

from attrs import frozen
from meshnode_sqlite_client import locate

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["Options"]


@final
@frozen
class Options:
    """Metadata of `configuration.sqlite`."""

    connection_string: str = option(
        "connectionString", "Path of the database file, or an SQLite URI.", aliases=("url",)
    )
    table: str = option(
        "table", "The table of the items; made where it is not there.", default="configuration"
    )
    poll_interval: timedelta = option(
        "pollInterval",
        "How often a subscription looks whether the file has changed.",
        default=timedelta(milliseconds=100),
    )
    busy_timeout: timedelta = option(
        "busyTimeout",
        "How long to wait for another process that is writing to the same file.",
        default=timedelta(seconds=2),
    )
    timeout: timedelta = option(
        "timeout", "How long one operation may keep the database busy.", default=timedelta(seconds=20)
    )
    disable_wal: bool = option("disableWAL", "Use a rollback journal instead of a log.", default=False)

    def __attrs_post_init__(self) -> None:
        problems = []
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", self.table):
            problems.append(Problem(f"{self.table!r} is no name of a table", field="table"))
        least = (
            ("pollInterval", self.poll_interval, 0.001),
            ("busyTimeout", self.busy_timeout, 0.0),
            ("timeout", self.timeout, 1.0),
        )
        problems += [
            Problem(f"must be at least {seconds:g}s", field=name)
            for name, value, seconds in least
            if value.total_seconds() < seconds
        ]
        if problems:
            raise ConfigError(problems)
        if locate(self.connection_string).in_memory:
            message = "a database in memory can be filled by nobody"
            raise ConfigError([Problem(message, field="connectionString")])
