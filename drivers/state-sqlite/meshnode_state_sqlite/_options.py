"""The metadata fields of `state.sqlite`, with Dapr's names and defaults, and what a connection string
means.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import final
from urllib.parse import parse_qsl, quote, urlencode

from attrs import field, frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import option

__all__ = ["Location", "Options", "locate"]

_TIMEOUT = timedelta(seconds=20)
_BUSY_TIMEOUT = timedelta(seconds=2)
_NEVER = timedelta(0)

_IDENTIFIER = re.compile(r"[A-Za-z0-9_]+")
# These are set by metadata fields of their own, as in Dapr.
_RESERVED_PRAGMAS = {"busy_timeout": "busyTimeout", "journal_mode": "disableWAL", "foreign_keys": ""}


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


@final
@frozen
class Location:
    """A connection string taken apart."""

    uri: str
    in_memory: bool
    read_only: bool
    pragmas: tuple[str, ...] = field(default=())


def locate(connection_string: str) -> Location:
    """Raises `ConfigError` when it is empty or sets what has a metadata field of its own."""
    if not connection_string:
        raise _problem("is empty")
    path, _, query = connection_string.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    pragmas = tuple(value for name, value in pairs if name == "_pragma")
    for pragma in pragmas:
        name = re.split(r"[(=\s]", pragma.lower(), maxsplit=1)[0]
        if name in _RESERVED_PRAGMAS:
            instead = _RESERVED_PRAGMAS[name]
            raise _problem(f"must not set _pragma={name}", f"use the field {instead}" if instead else "")
    # `_txlock` and `_pragma` are options of the Go driver, not of SQLite.
    own = [(name, value) for name, value in pairs if not name.startswith("_")]
    if not path.lower().startswith("file:"):
        path = "file:" + quote(path, safe="/:")
    given = dict(own)
    return Location(
        uri=path + ("?" + urlencode(own) if own else ""),
        in_memory=path.lower().startswith("file::memory:") or given.get("mode") == "memory",
        read_only=given.get("mode") == "ro" or given.get("immutable") == "1",
        pragmas=pragmas,
    )


def _problem(message: str, remedy: str = "") -> ConfigError:
    return ConfigError([Problem(message, field="connectionString", remedy=remedy)])
