"""Programs the benchmark starts: each has ended when its context is left, whatever happened in it.

Imports the standard library and attrs only.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, final

from attrs import define, field

__all__ = ["BENCHMARKS", "Failure", "Program", "python", "running"]

BENCHMARKS = Path(__file__).resolve().parent.parent
_GRACE = 8.0  # seconds to end after SIGTERM
_TAIL = 2000  # bytes of a failed program's output that are shown


class Failure(Exception):
    """The benchmark cannot go on; the message is for its user."""


@final
@define
class Program:
    """A running program. `role` names it in the tables."""

    role: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    reader: int
    """Where its lines of JSON are read: its stdout, or what its `--ready-fd` leads to."""
    _buffer: bytes = field(default=b"", init=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, patience: float) -> dict[str, Any]:
        """The next line of JSON it writes. Raises `Failure`, with its last words, if none comes in time."""
        ends = time.monotonic() + patience
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, ends - time.monotonic()))
            chunk = os.read(self.reader, 65536) if ready else b""
            if not chunk:
                why = "ended early" if ready else f"said nothing for {patience:g} s"
                raise Failure(f"{self.role} {why}\n{self.last_words()}".rstrip())
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(text)
        return found

    def send(self, command: Mapping[str, Any]) -> None:
        """Write a line of JSON to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        self.output.seek(max(0, self.output.seek(0, os.SEEK_END) - _TAIL))
        return self.output.read().decode(errors="replace").strip()


def python(module: str, *arguments: str) -> list[str]:
    """The command line of a module of ours."""
    return [sys.executable, "-m", module, *arguments]


@contextmanager
def running(
    role: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    ready_flag: str | None = None,
    stdin: bool = False,
    grace: float = _GRACE,
) -> Iterator[Program]:
    """The program for as long as the context is open. With `ready_flag` it is told a file descriptor to
    report on; without, its stdout is read. `grace` are the seconds it gets to end.
    """
    path = os.pathsep.join(filter(None, (str(BENCHMARKS), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path, **(env or {})}
    with TemporaryFile() as output:
        reader, writer = os.pipe()
        with open(reader, "rb", buffering=0), open(writer, "wb", buffering=0) as passed:
            report: dict[str, Any] = (
                {"pass_fds": (writer,), "stdout": output} if ready_flag else {"stdout": writer}
            )
            process = subprocess.Popen(
                [*command, ready_flag, str(writer)] if ready_flag else command,
                env=env, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL, stderr=output, **report,
            )  # fmt: skip
            try:
                passed.close()
                yield Program(role, process, output, reader)
            finally:
                _end(process, grace)


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    if process.stdin is not None:
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
    process.terminate()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
