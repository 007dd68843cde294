"""Output of child processes, line by line: each with its prefix, in its colour, and into its file.

A line of any length passes: one over `LONGEST` is cut into pieces of that length, so that nothing a child
prints can make us hold it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, final

import trio
from attrs import define, field, frozen

from meshnode.cli._color import paint

__all__ = ["Console", "LineWriter", "lines", "log_files"]

LONGEST = 64 * 1024
KEPT_LOGS = 5
_PALETTE = ("cyan", "green", "magenta", "yellow", "blue")


async def lines(stream: trio.abc.ReceiveStream) -> AsyncGenerator[bytes, None]:
    """The lines of a stream without their ends; a last line needs no newline."""
    buffer = bytearray()
    while chunk := await stream.receive_some(LONGEST):
        buffer += chunk
        *whole, rest = bytes(buffer).split(b"\n")
        for line in whole:
            for start in range(0, max(len(line), 1), LONGEST):
                yield line[start : start + LONGEST].removesuffix(b"\r")
        while len(rest) > LONGEST:
            yield rest[:LONGEST]
            rest = rest[LONGEST:]
        buffer = bytearray(rest)
    if buffer:
        yield bytes(buffer)


@final
@define
class Console:
    """Where prefixed lines and our own notes go. A reader that has gone away is no error: printing stops."""

    out: IO[bytes]
    color: bool = False
    width: int = 0
    _gone: bool = field(default=False, init=False)

    def line(self, prefix: str, color: str, text: bytes) -> None:
        """Print one line."""
        if self._gone:
            return
        shown = paint(f"== {prefix:<{self.width}} ==", color, self.color)
        try:
            self.out.write(shown.encode() + b" " + text + b"\n")
            self.out.flush()
        except BrokenPipeError:
            self._gone = True

    def writer(self, prefix: str, index: int, file: IO[bytes] | None, console: bool = True) -> LineWriter:
        """A writer for one child; `index` picks its colour."""
        return LineWriter(self if console else None, prefix, _PALETTE[index % len(_PALETTE)], file)


@frozen
class LineWriter:
    """Takes the lines of one child to the console and to its file."""

    console: Console | None
    prefix: str
    color: str
    file: IO[bytes] | None = None

    def __call__(self, text: bytes) -> None:
        if self.console is not None:
            self.console.line(self.prefix, self.color, text)
        if self.file is not None:
            # A full disk must not end the application.
            with suppress(OSError):
                self.file.write(text + b"\n")
                self.file.flush()


@contextmanager
def log_files(folder: Path, names: Iterable[str], stamp: str) -> Iterator[Callable[[str], IO[bytes]]]:
    """One file per name, `NAME.STAMP.log`; of older ones the latest few stay."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    opened: dict[str, IO[bytes]] = {}
    try:
        for name in names:
            for old in sorted(folder.glob(f"{name}.*.log"))[: -KEPT_LOGS + 1]:
                old.unlink(missing_ok=True)
            opened[name] = (folder / f"{name}.{stamp}.log").open("wb")
        yield opened.__getitem__
    finally:
        for file in opened.values():
            file.close()
