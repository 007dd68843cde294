"""A fixed point in time on trio's clock by which a request must have ended.

Imports trio for its clock, nothing from meshnode.
"""

from __future__ import annotations

from functools import total_ordering
from typing import final

import trio

__all__ = ["Deadline"]


@final
@total_ordering
class Deadline:
    """grpclib's surface, plus `at`; earlier deadlines are smaller."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at
        """In `trio.current_time()`'s units."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that many seconds from now."""
        return cls(trio.current_time() + seconds)

    @classmethod
    def from_timeout(cls, timeout: float) -> Deadline:
        """The same under grpclib's name."""
        return cls(trio.current_time() + timeout)

    def time_remaining(self) -> float:
        """Seconds left, never less than zero."""
        return max(0.0, self.at - trio.current_time())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Deadline) and self.at == other.at

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Deadline):
            return NotImplemented
        return self.at < other.at

    def __hash__(self) -> int:
        return hash(self.at)

    def __repr__(self) -> str:
        return f"Deadline(at={self.at!r})"
