"""Texts, arrays and names as they go to the server. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable

from meshnode.errors import InvalidArgument, Problem

__all__ = ["array", "bad_channel", "bad_name", "encode", "quoted"]

# What needs no quotes in SQL; the server folds it to lower case, there as in Dapr's components.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")


def encode(text: str) -> bytes:
    """Raises `InvalidArgument` for what the server has no place for; libpq would end the text there."""
    if "\0" in text:
        raise InvalidArgument("PostgreSQL has no NUL character")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument("half a character") from None


def quoted(text: str) -> str:
    """One element of an array's literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array(texts: Iterable[str]) -> bytes:
    """The literal of a `text[]`."""
    return encode("{" + ",".join(map(quoted, texts)) + "}")


def bad_name(name: str, field: str) -> list[Problem]:
    """A problem where it is no table's name, with a schema before it or without."""
    parts = name.split(".")
    if len(parts) <= 2 and all(map(_NAME.fullmatch, parts)):
        return []
    remedy = "letters, digits and _, with a schema and a dot before it or without"
    return [Problem(f"{name!r} is no table name", field=field, remedy=remedy)]


def bad_channel(name: str) -> str:
    """What is wrong with a channel's name, or nothing."""
    return (
        "is no channel: 1 to 63 bytes without NUL" if "\0" in name or not 0 < len(name.encode()) < 64 else ""
    )
