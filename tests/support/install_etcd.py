"""etcd, from Debian's package: unpacked into `.tools/etcd`, not installed, so that no service is started and
nobody needs to be root. `etcd_servers` starts it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from support.debian import unpack
from support.install_tools import TOOLS

__all__ = ["etcd", "find_etcd"]

FOLDER = TOOLS / "etcd"


def find_etcd() -> Path | None:
    """The program, or None when this machine has none."""
    found = shutil.which("etcd")
    if found is not None:
        return Path(found)
    own = FOLDER / "usr" / "bin" / "etcd"
    return own if own.exists() else None


def etcd() -> None:
    if find_etcd() is not None:
        return
    unpack(["etcd-server"], FOLDER)
