"""Token buckets for what a peer may do only so often. Pure: `now` comes in, a verdict comes out.

Imports nothing from meshnode.
"""

from __future__ import annotations

from typing import final

__all__ = ["RateGuard"]


@final
class RateGuard:
    """`burst` at once, `rate` per second after that."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = float("-inf")

    def spend(self, now: float) -> bool:
        """Take one token; False means that the peer does it too often."""
        if now > self._at:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
