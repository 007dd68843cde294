"""The MQTT broker mosquitto, from Debian's packages: unpacked into `.tools/mosquitto`, not installed, so that
no service is started and nobody needs to be root. `mosquitto_servers` starts it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from support.install_tools import TOOLS, Unavailable, need, run

__all__ = ["find_mosquitto", "libraries", "mosquitto"]

FOLDER = TOOLS / "mosquitto"
_PACKAGES = ("mosquitto", "libwrap0", "libdlt2", "libcjson1", "libmosquitto1", "libnsl2", "libtirpc3")


def find_mosquitto() -> Path | None:
    """The program, or None when this machine has none."""
    own = FOLDER / "usr" / "sbin" / "mosquitto"
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    return own if own.exists() else Path(found) if found else None


def libraries() -> str:
    """Where it finds its libraries, for LD_LIBRARY_PATH."""
    folders = {path.parent for path in FOLDER.glob("**/*.so*")}
    return ":".join(sorted(str(folder) for folder in folders))


def mosquitto() -> None:
    if find_mosquitto() is not None:
        return
    need("apt-get")
    need("dpkg-deb")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER.parent, prefix="mosquitto-") as name:
        folder = Path(name)
        try:
            run(["apt-get", "download", "-qq", *_PACKAGES], cwd=folder)
        except Unavailable:
            run(["apt-get", "update", "-qq"])
            run(["apt-get", "download", "-qq", *_PACKAGES], cwd=folder)
        unpacked = folder / "unpacked"
        for package in folder.glob("*.deb"):
            run(["dpkg-deb", "-x", str(package), str(unpacked)])
        # Moved as a whole: what was left half filled would pass for installed.
        unpacked.rename(FOLDER)
