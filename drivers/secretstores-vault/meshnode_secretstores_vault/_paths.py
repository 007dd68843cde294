"""Where a secret lies. No I/O.

A name that another one could stand for (`a//b`, `./a`, `b/../a`, a `%61`) must not reach the server as that
other one, or it would be a way around the node's scopes: such names are none, and everything in a name that
means something in an address is encoded.
"""

from __future__ import annotations

from urllib.parse import quote

__all__ = ["joined", "path_of"]


def path_of(name: str) -> str:
    """A secret's name as part of an address. Raises `KeyError` for a name that can be no secret's."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or not part.isprintable() or part != part.strip() for part in parts):
        raise KeyError(name)
    try:
        return "/".join(quote(part, safe="") for part in parts)
    except UnicodeEncodeError:
        raise KeyError(name) from None


def joined(*parts: str) -> str:
    """Parts of a path, those that are empty left out."""
    return "/".join(filter(None, (part.strip("/") for part in parts)))
