"""Where a resource was written. Imports attrs only."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

__all__ = ["Source"]


@frozen
class Source:
    """The file and the first line of a resource; `lines` adds those of its metadata items by name, for
    problems found later.
    """

    file: str = ""
    line: int = 0
    lines: Mapping[str, int] = field(factory=dict, eq=False, repr=False)
