"""Dapr's own sidecar, daprd 1.18.0, built into `.tools/daprd` from Dapr's published Go modules, with the
components that the tests put beside a meshnode's. (1.18.3 cannot be had: the proxy does not serve all it
needs.)

`main.go` beside this module registers the components and calls Dapr's program. That wants one of two build
tags, each of which brings every component of every cloud, and panics without: so it is built from a copy of
the module in which the file that panics is empty.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from support.install_tools import TOOLS, need, run

__all__ = ["daprd", "daprd_has", "find_daprd"]

FOLDER = TOOLS / "daprd"
MODULE = Path(__file__).with_name("daprd")
_MODULE = "github.com/dapr/dapr"
_PANICS = Path("cmd", "daprd", "components", "zz_notag.go")
_TAG = "subtlecrypto"
"""Dapr's own builds do without the Subtle methods; to compare them with ours they are built in."""
_FLAGS = {"GOFLAGS": "-mod=mod -buildvcs=false"}


def find_daprd() -> Path | None:
    """The program, or None when this machine has none. One that is on the PATH would be of any version."""
    own = FOLDER / "daprd"
    return own if own.exists() else None


def daprd_has(text: bytes) -> bool:
    """Whether the program was built with the package or feature of that name: an older one lacks what was
    added here since.
    """
    program = find_daprd()
    return program is not None and text in program.read_bytes()


def daprd() -> None:
    if find_daprd() is not None:
        return
    need("go")
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER, prefix="build-") as name:
        folder = Path(name)
        for file in MODULE.iterdir():
            shutil.copy(file, folder)
        run(["go", "mod", "download", _MODULE], cwd=folder, env=_FLAGS)
        listed = subprocess.run(
            ["go", "list", "-m", "-f", "{{.Dir}}", _MODULE],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        copy = folder / "dapr"
        shutil.copytree(listed.stdout.strip(), copy, copy_function=shutil.copyfile)
        (copy / _PANICS).write_text("package components\n")
        run(["go", "mod", "edit", "-replace", f"{_MODULE}=./dapr"], cwd=folder, env=_FLAGS)
        run(
            ["go", "build", f"-tags={_TAG}", "-ldflags=-s -w", "-o", "daprd.new", "."], cwd=folder, env=_FLAGS
        )
        (folder / "daprd.new").rename(FOLDER / "daprd")
