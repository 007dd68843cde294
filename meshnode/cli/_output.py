"""Results for people and for programs: one `-o table|json|jsonl` for every command.

Data goes to standard output, messages to standard error. In JSON a list of rows is one array, in JSON lines
one object per line, and either way the objects are the same; keys never depend on the terminal. Tables leave
out what a column does not name. A reader that goes away ends the command without an error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, final

from attrs import define, field, frozen

from meshnode.cli._color import paint, use_color

__all__ = ["Column", "Output", "ReaderGone", "ago", "command_line"]

Row = Mapping[str, Any]

_READABLE = 100
_UNLIMITED = 100_000
"""The width of a table that nobody looks at: a pipe gets every row on one line, whole."""


class ReaderGone(Exception):
    """Nobody reads standard output any more: the command is over, and that is no error."""


@frozen
class Column:
    """One column of a table: the key of the row, its heading, and how its value is shown."""

    key: str
    title: str
    show: Callable[[Any], str] | None = None

    def text(self, row: Row) -> str:
        value = row.get(self.key)
        if value is None or value in ("", [], ()):
            return "-"
        return self.show(value) if self.show else _plain(value)


@final
@define
class Output:
    """Where a command's result goes, and in which form."""

    form: str = "table"
    color_choice: str = "auto"
    out: IO[str] = field(factory=lambda: sys.stdout)
    err: IO[str] = field(factory=lambda: sys.stderr)

    @property
    def for_people(self) -> bool:
        return self.form == "table"

    def color(self, stream: IO[str]) -> bool:
        return use_color(self.color_choice, os.environ, stream)

    def rows(self, rows: Sequence[Row], columns: Sequence[Column], empty: str = "") -> None:
        """A list. `empty` is said to people when there is nothing in it."""
        if self.form == "json":
            self._write(json.dumps([dict(row) for row in rows], indent=2, default=str))
        elif self.form == "jsonl":
            for row in rows:
                self.one_line(row)
        elif rows:
            self._table(rows, columns)
        elif empty:
            self.message(empty)

    def item(self, row: Row, columns: Sequence[Column]) -> None:
        """One thing: its fields below each other."""
        if self.form == "json":
            self._write(json.dumps(dict(row), indent=2, default=str))
        elif self.form == "jsonl":
            self.one_line(row)
        else:
            width = max(len(column.title) for column in columns) + 1
            bold = self.color(self.out)
            for column in columns:
                title = paint(f"{column.title + ':':<{width}}", "bold", bold)
                self._write(f"{title} {column.text(row)}")

    def one_line(self, row: Row) -> None:
        """One object of a stream, as it comes."""
        self._write(json.dumps(dict(row), default=str))

    def text(self, text: str) -> None:
        """Data that is text already."""
        self._write(text)

    def message(self, text: str, color: str = "") -> None:
        """For people, on standard error."""
        print(paint(text, color, bool(color) and self.color(self.err)), file=self.err)

    def _write(self, text: str) -> None:
        try:
            print(text, file=self.out, flush=True)
        except BrokenPipeError:
            raise ReaderGone from None

    def _table(self, rows: Sequence[Row], columns: Sequence[Column]) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        for column in columns:
            table.add_column(column.title, overflow="fold")
        for row in rows:
            table.add_row(*(Text(column.text(row)) for column in columns))
        terminal = self.out.isatty()
        console = Console(
            file=self.out,
            width=None if terminal else _UNLIMITED,
            force_terminal=self.color(self.out),
            no_color=not self.color(self.out),
            highlight=False,
        )
        with console.capture() as capture:
            console.print(table)
        for line in capture.get().rstrip("\n").split("\n"):
            self._write(line.rstrip())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return str(value)


def command_line(argv: Sequence[str]) -> str:
    """A command as one would type it, on one line of readable length."""
    import shlex

    words = " ".join(shlex.join(argv).split())
    return words if len(words) <= _READABLE else words[:_READABLE] + "…"


def ago(seconds: float) -> str:
    """A length of time in its two largest units: `3h12m`, `45s`."""
    whole = max(0, int(seconds))
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "m"), (whole % 60, "s")]
    shown = [f"{number}{unit}" for number, unit in parts if number]
    return "".join(shown[:2]) or "0s"
