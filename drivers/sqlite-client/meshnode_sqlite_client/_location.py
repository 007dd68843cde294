"""What a connection string means: a path, an SQLite URI or `:memory:`, with the Go driver's `_pragma` and
`_txlock` parameters understood.
"""

from __future__ import annotations

import re
from typing import final
from urllib.parse import parse_qsl, quote, urlencode

from attrs import field, frozen

from meshnode.errors import ConfigError, Problem

__all__ = ["Location", "locate"]

# These are set by metadata fields of their own, as in Dapr.
_RESERVED_PRAGMAS = {"busy_timeout": "busyTimeout", "journal_mode": "disableWAL", "foreign_keys": ""}


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
