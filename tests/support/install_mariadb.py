"""The database server MariaDB, from Debian's packages: unpacked into `.tools/mariadb`, not installed, so that
no service is started and nobody needs to be root. `mariadb_servers` starts it.
"""

from __future__ import annotations

from pathlib import Path

from support.debian import libraries as unpacked_libraries
from support.debian import unpack
from support.install_tools import TOOLS, Unavailable

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
    """For LD_LIBRARY_PATH."""
    return unpacked_libraries(FOLDER)


def mariadb() -> None:
    if find_mariadb() is not None:
        return
    unpack(_PACKAGES, FOLDER)
    if find_mariadb() is None:
        raise Unavailable("Debian's packages have no mariadbd where it is looked for")
