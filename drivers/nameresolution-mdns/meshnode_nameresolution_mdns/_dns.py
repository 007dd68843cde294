"""The names of zeroconf that are used here. Its documentation gives them, its `__all__` does not."""

from __future__ import annotations

from zeroconf import (  # type: ignore[attr-defined]
    DNSAddress,
    DNSIncoming,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    DNSRecord,
    DNSService,
    DNSText,
)

__all__ = [
    "DNSAddress",
    "DNSIncoming",
    "DNSOutgoing",
    "DNSPointer",
    "DNSQuestion",
    "DNSRecord",
    "DNSService",
    "DNSText",
]
