"""Values as documents and back, in the shape of Dapr's component: `_id`, `value`, `_etag`, `_ttl`. No I/O.

What was saved as `application/json` is a document, for queries to look into; other bytes are a string. Bytes
that are no UTF-8 are binary data here, and a broken string in a daprd; both are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from bson import json_util
from bson.json_util import JSONMode, JSONOptions

from meshnode.errors import StateError, Status
from meshnode.interfaces import GetResult, SetRequest

__all__ = ["alive", "dead", "fields", "result", "value_of"]

_JSON = "application/json"
_RELAXED = JSONOptions(json_mode=JSONMode.RELAXED)
_LARGEST = 2**63
_WRITTEN_OUT = 1e21
"""Whole numbers below are written without an exponent, as Go does."""


def alive(now: datetime) -> Mapping[str, Any]:
    """The condition for what has no end yet; None stands for a field that is not there, too."""
    return {"$or": [{"_ttl": None}, {"_ttl": {"$gt": now}}]}


def dead(now: datetime) -> Mapping[str, Any]:
    return {"_ttl": {"$lte": now}}


def fields(request: SetRequest, etag: str, now: datetime) -> dict[str, Any]:
    lives = request.ttl is not None and request.ttl > 0
    end = now + timedelta(seconds=request.ttl or 0) if lives else None
    return {"value": _stored(request), "_etag": etag, "_ttl": end}


def _stored(request: SetRequest) -> Any:
    if request.content_type == _JSON:
        try:
            found = json.loads(request.value)
        except ValueError as error:
            message = f"the value of key {request.key} is no JSON: {error}"
            raise StateError(message, status=Status.INVALID_ARGUMENT) from error
        if isinstance(found, dict | list):
            return _sized(found)
    try:
        return request.value.decode()
    except UnicodeDecodeError:
        return request.value


def _sized(value: Any) -> Any:
    """Whole numbers beyond 64 bits have no place in a document; as in a daprd they lose digits."""
    if isinstance(value, dict):
        return {name: _sized(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_sized(one) for one in value]
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        return float(value)
    return value


def value_of(stored: Any) -> bytes:
    if isinstance(stored, str):
        return stored.encode(errors="surrogateescape")
    if isinstance(stored, bytes):
        return stored
    stored = _whole(stored)
    return json_util.dumps(stored, json_options=_RELAXED, ensure_ascii=False, separators=(",", ":")).encode(
        errors="surrogateescape"
    )


def _whole(value: Any) -> Any:
    """A daprd keeps every number as a floating-point one, and reads those that are whole as `1`."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _WRITTEN_OUT:
        return int(value)
    return value


def result(document: Mapping[str, Any]) -> GetResult:
    end = document.get("_ttl")
    metadata = {}
    if isinstance(end, datetime):
        metadata["ttlExpireTime"] = end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return GetResult(value_of(document.get("value")), str(document.get("_etag", "")), metadata)
