"""Errors the command line itself raises; `main` turns them into a message on standard error and an exit
code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshnode.cli._exit import ExitCode

__all__ = ["CliError", "UsageProblem", "leaves", "suggestion"]


class CliError(Exception):
    """A command that failed: one sentence, an optional hint below it, an exit code."""

    def __init__(self, message: str, hint: str = "", code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class UsageProblem(CliError):
    """A command line that cannot be used."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, ExitCode.USAGE)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`did you mean X?` for the nearest of `known`, or nothing when none is near."""
    import difflib  # only a mistake needs it, and it lies on the start-up path

    near = difflib.get_close_matches(word.casefold(), list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else ""


def leaves(group: BaseExceptionGroup[Any]) -> list[Any]:
    """The single errors of a group, however deep."""
    found: list[Any] = []
    for error in group.exceptions:
        found.extend(leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found
