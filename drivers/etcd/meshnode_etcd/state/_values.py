"""What is kept below a key. No I/O.

v1 keeps the value as it is, v2 a message with the value, when it was written and how long it lives. The time
to live is a lease's in both; the message only says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol, final

from attrs import frozen

from meshnode_etcd.state._message import Time, Value, pack, unpack

__all__ = ["Layout", "Plain", "Wrapped"]


class Layout(Protocol):
    def encode(self, data: bytes, ttl: int, now: float) -> bytes:
        """`ttl` 0: no limit."""
        ...

    def decode(self, raw: bytes) -> tuple[bytes, Mapping[str, str]]:
        """Value and metadata. Raises `ValueError`."""
        ...


@final
@frozen
class Plain:
    """Version v1."""

    def encode(self, data: bytes, ttl: int, now: float) -> bytes:
        return data

    def decode(self, raw: bytes) -> tuple[bytes, Mapping[str, str]]:
        return raw, {}


@final
@frozen
class Wrapped:
    """Version v2.

    Dapr's component writes a time to live of nothing where there is none, and then reports that the value
    expired when it was written. Here it is left out, and one of nothing means none.
    """

    def encode(self, data: bytes, ttl: int, now: float) -> bytes:
        seconds = int(now // 1)
        written = Time(seconds, int((now - seconds) * 1e9))
        return pack(Value(data, written, Time(ttl) if ttl else None))

    def decode(self, raw: bytes) -> tuple[bytes, Mapping[str, str]]:
        try:
            value = unpack(raw)
        except ValueError as error:
            raise ValueError(f"is not in the layout of v2: {error}") from error
        if value.ts is None:
            raise ValueError("is not in the layout of v2: every writer says when it wrote")
        if value.ttl is None or not (value.ttl.seconds or value.ttl.nanos):
            return value.data, {}
        seconds = value.ts.seconds + value.ttl.seconds + (value.ts.nanos + value.ttl.nanos) // 10**9
        try:
            expires = datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            return value.data, {}
        return value.data, {"ttlExpireTime": f"{expires:%Y-%m-%dT%H:%M:%SZ}"}
