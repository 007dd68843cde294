"""etcd, from Debian's package: unpacked into `.tools/etcd`, not installed, so that no service is started and
nobody needs to be root. `etcd_servers` starts it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from support.install_tools import TOOLS, Unavailable, need, run

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
    need("apt-get")
    need("dpkg-deb")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER.parent, prefix="etcd-") as name:
        folder = Path(name)
        try:
            run(["apt-get", "download", "-qq", "etcd-server"], cwd=folder)
        except Unavailable:
            run(["apt-get", "update", "-qq"])
            run(["apt-get", "download", "-qq", "etcd-server"], cwd=folder)
        (package,) = folder.glob("*.deb")
        run(["dpkg-deb", "-x", str(package), str(folder / "unpacked")])
        # Moved as a whole: what was left half filled would pass for installed.
        (folder / "unpacked").rename(FOLDER)
