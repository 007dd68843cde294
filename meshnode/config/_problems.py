"""Collecting problems: nothing here stops at the first one. Imports `meshnode.errors` only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final

from meshnode.errors import Problem

__all__ = ["Report", "did_you_mean", "nearest", "options_text"]

_LISTED = 14
"""A list of allowed names longer than this helps nobody; only the nearest is named then."""


def nearest(found: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that the text was probably meant to be, compared without regard to case."""
    import difflib  # Only a mistake needs it, and this lies on the start-up path.

    folded = {name.casefold(): name for name in allowed}
    matches = difflib.get_close_matches(found.casefold(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def did_you_mean(found: str, allowed: Iterable[str]) -> str:
    """`did you mean "duration"?` and what is allowed, or only the latter; empty when nothing helps."""
    names = list(allowed)
    best = nearest(found, names)
    parts = [f'did you mean "{best}"?'] if best is not None else []
    if 0 < len(names) <= _LISTED:
        parts.append(options_text(names))
    return " ".join(parts)


def options_text(names: Sequence[str]) -> str:
    return f"allowed: {', '.join(names)}"


@final
class Report:
    """What was found in one run over the files. `file` names the one being read; `lenient` turns unknown
    fields into warnings.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        self.file = ""
        self.lenient = lenient
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def problem(self, line: int, field: str, message: str, remedy: str = "") -> None:
        self.problems.append(Problem(message, self.file, line, field, remedy))

    def warning(self, line: int, field: str, message: str, remedy: str = "") -> None:
        self.warnings.append(Problem(message, self.file, line, field, remedy))

    def unknown(self, line: int, field: str, message: str, remedy: str = "") -> None:
        """A problem, or under `lenient` a warning."""
        (self.warning if self.lenient else self.problem)(line, field, message, remedy)
