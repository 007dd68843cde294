"""Commands as they are sent, and the Lua scripts among them. No I/O.

A script is called by its digest; a server that has not seen it, or has been restarted, says so, and gets the
text.
"""

from __future__ import annotations

import hashlib

__all__ = ["Arguments", "fallback", "script"]

Arguments = tuple[bytes | str | int, ...]

_sources: dict[str, str] = {}


def script(source: str) -> str:
    """The digest of a script, by which `EVALSHA` calls it. For constants of modules."""
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    _sources[digest] = source
    return digest


def fallback(arguments: Arguments) -> Arguments:
    """The same call with the script's text."""
    if arguments[0] != "EVALSHA":
        return arguments
    return ("EVAL", _sources[str(arguments[1])], *arguments[2:])
