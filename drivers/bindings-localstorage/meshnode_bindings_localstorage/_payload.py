"""What a request's data is.

Dapr's component takes data that is a quoted string for what stands between the quotes (its HTTP API passes
JSON strings on like that), and then data that is valid base64 for what that decodes to. Applications rely on
the latter to send binary data, so both are done here. A string is quoted as Go quotes it.
"""

from __future__ import annotations

import base64
import re

__all__ = ["payload"]

_SIMPLE = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_ESCAPE = re.compile(
    rb'\\(?:([abfnrtv\\"])|x([0-9a-fA-F]{2})|([0-3][0-7]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)',
    re.DOTALL,
)
_QUOTED = re.compile(rb'"((?:[^"\\\n]|\\.)*)"')
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def payload(data: bytes, *, decode_base64: bool) -> bytes:
    data = _unquoted(data)
    if not decode_base64:
        return data
    joined = data.translate(None, b"\r\n")
    return base64.b64decode(joined) if _BASE64.fullmatch(joined) else data


def _unquoted(data: bytes) -> bytes:
    """The data itself where it is no quoted string."""
    if not data.startswith(b'"'):
        return data
    match = _QUOTED.fullmatch(data)
    try:
        return _ESCAPE.sub(_unescaped, match[1]) if match else data
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
