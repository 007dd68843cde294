"""What every peer program shares: one JSON command per line on stdin, one JSON answer per line on stdout.

Peers run in processes of their own: no event loop or thread of another gRPC implementation is in ours.
Bytes travel as base64 in objects `{"b64": …}`. A peer ends when its stdin does.
"""

from __future__ import annotations

import base64
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any


def pack(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [pack(item) for item in value]
    return value


def unpack(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"b64"}:
            return base64.b64decode(value["b64"])
        return {key: unpack(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unpack(item) for item in value]
    return value


def serve(handle: Callable[[dict[str, Any]], Any]) -> None:
    """Answer commands until stdin ends; what `handle` raises is reported to the test."""
    for line in sys.stdin:
        try:
            answer = {"ok": handle(unpack(json.loads(line)))}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(pack(answer)), flush=True)
