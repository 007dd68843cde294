"""Data that is a quoted string.

Dapr's components take such data for what stands between the quotes, since its HTTP API passes JSON strings on
like that. A string is quoted as Go quotes it.
"""

from __future__ import annotations

import re

__all__ = ["unquoted"]

_SIMPLE = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
# Compiled by their first use: the interfaces are part of every start.
_ESCAPE = rb'(?s)\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)'
_QUOTED = rb'"((?:[^"\\\n]|\\.)*)"'


def unquoted(data: bytes) -> bytes:
    """The data itself where it is no quoted string."""
    if not data.startswith(b'"'):
        return data
    match = re.fullmatch(_QUOTED, data)
    try:
        return re.sub(_ESCAPE, _unescaped, match[1]) if match else data
    except ValueError:
        return data


def _unescaped(match: re.Match[bytes]) -> bytes:
    """Raises `ValueError` for what Go does not know, and for the number of no character."""
    simple, byte, octal, short, long = match.groups()
    if simple is not None:
        return _SIMPLE.get(simple, simple)
    if byte is not None:
        return bytes([int(byte, 16)])
    if octal is not None:
        return bytes([int(octal, 8)])
    if short is None and long is None:
        raise ValueError(match[0])
    return chr(int(short or long, 16)).encode()
