"""Indented lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

__all__ = ["Writer"]


@final
class Writer:
    """Collects lines of Python at the current indentation."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    def line(self, *lines: str) -> None:
        """Add lines."""
        self._lines += ["    " * self._depth + line for line in lines]

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Add a compound statement, whose body is what is added inside the context."""
        self.line(f"{head}:")
        self._depth += 1
        yield
        self._depth -= 1

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines)
