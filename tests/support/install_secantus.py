"""SecantusDB, which speaks MongoDB's protocol, from PyPI: in an environment of its own below
`.tools/secantusdb`, for it brings much that the project does not need. `secantus_servers` starts it.

A real mongod is in none of the registries we install from. FerretDB (a Go module, 1.x) has neither
transactions nor indexes with an expiry, without which Dapr's own component does not start.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from support.install_tools import TOOLS, Unavailable, run

__all__ = ["find_secantus", "secantus"]

FOLDER = TOOLS / "secantusdb"
_PACKAGE = "secantusdb==0.7.0b3"


def find_secantus() -> Path | None:
    """The program, or None when this machine has none."""
    program = FOLDER / "bin" / "secantusd-py"
    return program if program.exists() else None


def secantus() -> None:
    if find_secantus() is not None:
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    try:
        run([sys.executable, "-m", "venv", str(FOLDER)])
        run([str(FOLDER / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", _PACKAGE])
    except Unavailable:
        shutil.rmtree(FOLDER, ignore_errors=True)
        raise
    if find_secantus() is None:
        raise Unavailable("the package has no secantusd-py")
