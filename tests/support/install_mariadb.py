"""The database server MariaDB, from Debian's packages: unpacked into `.tools/mariadb`, not installed, so that
no service is started and nobody needs to be root. `mariadb_servers` starts it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from support.install_tools import TOOLS, Unavailable, need, run

__all__ = ["find_mariadb", "libraries", "mariadb"]

FOLDER = TOOLS / "mariadb"
_PACKAGES = ("mariadb-server-core", "libaio1", "liburing2", "libnuma1")


def find_mariadb() -> Path | None:
    """The folder (as /usr is one) below which the server and its system tables are, or None."""
    for folder in (FOLDER / "usr", Path("/usr")):
        if (folder / "sbin/mariadbd").exists() and (folder / "share/mysql/mysql_system_tables.sql").exists():
            return folder
    return None


def libraries() -> str:
    """Where it finds its libraries, for LD_LIBRARY_PATH."""
    folders = {path.parent for path in FOLDER.glob("**/*.so*")}
    return ":".join(sorted(str(folder) for folder in folders))


def mariadb() -> None:
    if find_mariadb() is not None:
        return
    need("apt-get")
    need("dpkg-deb")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER.parent, prefix="mariadb-") as name:
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
        shutil.rmtree(FOLDER, ignore_errors=True)
        unpacked.rename(FOLDER)
    if find_mariadb() is None:
        raise Unavailable("Debian's packages have no mariadbd where it is looked for")
