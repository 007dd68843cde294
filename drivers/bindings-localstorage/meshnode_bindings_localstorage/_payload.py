"""What a request's data is.

Dapr's component takes data that is a quoted string for what stands between the quotes (its HTTP API passes
JSON strings on like that), and then data that is valid base64 for what that decodes to. Applications rely on
the latter to send binary data, so both are done here.
"""

from __future__ import annotations

import base64
import re

from meshnode.interfaces import unquoted

__all__ = ["payload"]

_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def payload(data: bytes, *, decode_base64: bool) -> bytes:
    data = unquoted(data)
    if not decode_base64:
        return data
    joined = data.translate(None, b"\r\n")
    return base64.b64decode(joined) if _BASE64.fullmatch(joined) else data
