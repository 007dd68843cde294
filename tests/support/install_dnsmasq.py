"""The DNS server dnsmasq, from Debian's packages: unpacked into `.tools/dnsmasq`, not installed, so that no
service is started and nobody needs to be root. `dns_servers` starts it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from support.debian import libraries as unpacked_libraries
from support.debian import unpack
from support.install_tools import TOOLS

__all__ = ["dnsmasq", "find_dnsmasq", "libraries"]

FOLDER = TOOLS / "dnsmasq"
_PACKAGES = (
    "dnsmasq-base", "libnetfilter-conntrack3", "libnftables1", "libnftnl11", "libmnl0", "libnfnetlink0",
    "libjansson4", "libxtables12", "libdbus-1-3", "libidn2-0",
)  # fmt: skip


def find_dnsmasq() -> Path | None:
    """The program, or None when this machine has none."""
    own = FOLDER / "usr" / "sbin" / "dnsmasq"
    found = shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin:/usr/local/sbin")
    return own if own.exists() else Path(found) if found else None


def libraries() -> str:
    """For LD_LIBRARY_PATH."""
    return unpacked_libraries(FOLDER)


def dnsmasq() -> None:
    if find_dnsmasq() is not None:
        return
    unpack(_PACKAGES, FOLDER)
