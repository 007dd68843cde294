"""What a connection remembers of streams that are gone: whether a late frame is the peer's mistake.

Sans-io; imports nothing from meshnode.
"""

from __future__ import annotations

from typing import Final, final

__all__ = ["History"]

_RESETS: Final = 4096
_GAPS: Final = 64


@final
class History:
    """Bounded: streams that were reset long ago, and ids skipped after many others were, are forgotten."""

    __slots__ = ("_gaps", "_resets")

    def __init__(self) -> None:
        self._resets: dict[int, None] = {}  # in the order in which they were reset
        self._gaps: list[tuple[int, int]] = []  # ranges of ids that no stream was opened with

    def reset(self, stream_id: int) -> None:
        """We reset the stream, or never took it; the peer may have sent more on it before it knew."""
        self._resets[stream_id] = None
        if len(self._resets) > _RESETS:
            del self._resets[next(iter(self._resets))]

    def was_reset(self, stream_id: int) -> bool:
        """Whether frames on it are to be ignored."""
        return stream_id in self._resets

    def skipped(self, first: int, last: int) -> None:
        """The peer skipped these ids, which closes them."""
        if len(self._gaps) < _GAPS:
            self._gaps.append((first, last))

    def was_skipped(self, stream_id: int) -> bool:
        """Whether the stream is closed without ever having been open."""
        return any(first <= stream_id <= last for first, last in self._gaps)
