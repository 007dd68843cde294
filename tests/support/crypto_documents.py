"""The library that a daprd encrypts with, as the program of `tests/node/go_crypto`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import final

__all__ = ["Kit", "content", "find_kit"]


def content(size: int) -> bytes:
    """What the program's documents hold: byte number i is 7i mod 251."""
    cycle = bytes(7 * i % 251 for i in range(251))
    return (cycle * (size // 251 + 1))[:size]


@final
class Kit:
    """The program, with keys in a folder. A document that it refuses raises ValueError with its reason."""

    def __init__(self, program: str, keys: Path) -> None:
        self._program = program
        self._keys = str(keys)

    def encrypt(self, plain: bytes, key: str, algorithm: str, cipher: str, name: str = "") -> bytes:
        """`name` is what the document calls its key, `-` for a document that names none."""
        return self._run(plain, "encrypt", key, algorithm, cipher, *([name] if name else []))

    def decrypt(self, sealed: bytes, key: str = "") -> bytes:
        return self._run(sealed, "decrypt", *([key] if key else []))

    def fixtures(self) -> bytes:
        return self._run(b"", "fixtures")

    def _run(self, data: bytes, verb: str, *words: str) -> bytes:
        command = [self._program, verb, self._keys, *words]
        ran = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
        if ran.returncode:
            raise ValueError(ran.stderr.decode().strip())
        return ran.stdout


def find_kit(keys: Path) -> Kit | None:
    program = shutil.which("go-kit-crypto")
    return None if program is None else Kit(program, keys)
