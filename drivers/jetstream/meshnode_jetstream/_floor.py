"""Up to where a subscription has processed its stream. No I/O."""

from __future__ import annotations

from typing import final

__all__ = ["Floor"]


@final
class Floor:
    """For a consumer that must be made again: the new one begins at `resume`, and nothing is left out.

    What was processed beyond that comes a second time.
    """

    def __init__(self) -> None:
        self._open: set[int] = set()
        self._highest = 0

    def begins_after(self, sequence: int) -> None:
        self._highest = max(self._highest, sequence)

    def begin(self, sequence: int) -> None:
        self._open.add(sequence)
        self._highest = max(self._highest, sequence)

    def done(self, sequence: int) -> None:
        self._open.discard(sequence)

    @property
    def resume(self) -> int:
        return min(self._open, default=self._highest + 1)
