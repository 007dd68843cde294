"""Virtual environments as a user has them, without the network: what this one has installed is there too."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

__all__ = ["make_venv"]


def make_venv(folder: Path) -> dict[str, str]:
    """Makes one with pip and the `meshnode` command; returns the environment variables of its shell.

    Hatchling, which `pip install` builds with, comes from here as well.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    scripts = folder / "bin"
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    command = scripts / "meshnode"
    command.write_text(f'#!/bin/sh\nexec "{scripts / "python"}" -m meshnode "$@"\n')
    command.chmod(0o755)
    path = [str(scripts), sysconfig.get_path("scripts"), os.environ["PATH"]]
    return {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's name for "without"
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
