"""Programs from Debian's packages, unpacked below `.tools` and not installed: no service is started, and
nobody needs to be root.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from support.install_tools import Unavailable, need, run

__all__ = ["libraries", "unpack"]


def unpack(packages: Sequence[str], into: Path) -> None:
    """Raises `Unavailable` where they cannot be had."""
    need("apt-get")
    need("dpkg-deb")
    into.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=into.parent, prefix=f"{into.name}-") as name:
        folder = Path(name)
        try:
            run(["apt-get", "download", "-qq", *packages], cwd=folder)
        except Unavailable:
            run(["apt-get", "update", "-qq"])
            run(["apt-get", "download", "-qq", *packages], cwd=folder)
        unpacked = folder / "unpacked"
        for package in sorted(folder.glob("*.deb")):
            run(["dpkg-deb", "-x", str(package), str(unpacked)])
        # Moved as a whole: what was left half filled would pass for installed.
        shutil.rmtree(into, ignore_errors=True)
        unpacked.rename(into)


def libraries(folder: Path) -> str:
    """Where what was unpacked there finds its libraries, for LD_LIBRARY_PATH."""
    return ":".join(sorted({str(path.parent) for path in folder.glob("**/*.so*")}))
