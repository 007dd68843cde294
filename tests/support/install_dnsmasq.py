"""The DNS server dnsmasq, from Debian's packages: unpacked into `.tools/dnsmasq`, not installed, so that no
service is started and nobody needs to be root. `dns_servers` starts it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from support.install_tools import TOOLS, Unavailable, need, run

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
    """Where it finds its libraries, for LD_LIBRARY_PATH."""
    folders = {path.parent for path in FOLDER.glob("**/*.so*")}
    return ":".join(sorted(str(folder) for folder in folders))


def dnsmasq() -> None:
    if find_dnsmasq() is not None:
        return
    need("apt-get")
    need("dpkg-deb")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER.parent, prefix="dnsmasq-") as name:
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
