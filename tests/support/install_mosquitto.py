"""The MQTT broker mosquitto, from Debian's packages: unpacked into `.tools/mosquitto`, not installed, so that
no service is started and nobody needs to be root. `mosquitto_servers` starts it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from support.debian import libraries as unpacked_libraries
from support.debian import unpack
from support.install_tools import TOOLS

__all__ = ["find_mosquitto", "libraries", "mosquitto"]

FOLDER = TOOLS / "mosquitto"
_PACKAGES = ("mosquitto", "libwrap0", "libdlt2", "libcjson1", "libmosquitto1", "libnsl2", "libtirpc3")


def find_mosquitto() -> Path | None:
    """The program, or None when this machine has none."""
    own = FOLDER / "usr" / "sbin" / "mosquitto"
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    return own if own.exists() else Path(found) if found else None


def libraries() -> str:
    """For LD_LIBRARY_PATH."""
    return unpacked_libraries(FOLDER)


def mosquitto() -> None:
    if find_mosquitto() is not None:
        return
    unpack(_PACKAGES, FOLDER)
