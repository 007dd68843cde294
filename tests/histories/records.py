"""How something is written down: one JSON object per line, with the machine's monotonic time.

A line is with the operating system before `write` returns, so a SIGKILL of its writer loses nothing that was
written. Each process writes a file of its own: one that is started again never appends to a torn line.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

__all__ = ["Record", "Recorder", "read_records"]

Record = dict[str, Any]


@final
class Recorder:
    """Writes the records of this process to `folder`; `name` says who it is, however often it is started."""

    def __init__(self, folder: Path, name: str) -> None:
        self.incarnation = len(list(folder.glob(f"{name}.*.jsonl")))
        self._file = os.open(
            folder / f"{name}.{self.incarnation}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
        )

    def write(self, what: str, **fields: Any) -> None:
        record = {"at": time.monotonic_ns(), "what": what, **fields}
        os.write(self._file, json.dumps(record, separators=(",", ":")).encode() + b"\n")


def read_records(folder: Path) -> Iterator[Record]:
    """All records of all processes, file by file. The last line of one that was killed may be torn."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)
