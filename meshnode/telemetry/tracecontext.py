"""W3C trace context: the `traceparent` header that every hop hands on.

A hop keeps the trace id and puts its own span id in; without an incoming header it starts a trace. Source:
W3C Trace Context, section 3.
"""

from __future__ import annotations

import random
import re

__all__ = ["next_traceparent"]

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16


def next_traceparent(incoming: bytes | None, rng: random.Random) -> bytes:
    """The `traceparent` to send on, for the one that came in (None, or malformed: a new, unsampled trace)."""
    if incoming is not None:
        match = _TRACEPARENT.fullmatch(incoming)
        if match is not None and incoming[:2] != b"ff":
            trace_id, span_id, flags = match.groups()
            if trace_id != _NO_TRACE and span_id != _NO_SPAN:
                return b"00-%b-%016x-%b" % (trace_id, rng.getrandbits(64) or 1, flags)
    return b"00-%032x-%016x-00" % (rng.getrandbits(128) or 1, rng.getrandbits(64) or 1)
