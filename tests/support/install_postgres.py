"""Installs PostgreSQL for the tests, from the system's packages, without the cluster they would set up."""

from __future__ import annotations

import os
from pathlib import Path

from support.install_tools import Unavailable, need, run
from support.postgres_servers import find_postgres

__all__ = ["postgres"]

_SETTINGS = Path("/etc/postgresql-common/createcluster.conf")


def postgres() -> None:
    if find_postgres() is not None:
        return
    need("apt-get")
    if os.geteuid() != 0:
        raise Unavailable("postgres is not installed, and only root may install it")
    if not _SETTINGS.exists():
        _SETTINGS.parent.mkdir(parents=True, exist_ok=True)
        _SETTINGS.write_text("create_main_cluster = false\n")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=quiet)
    keep = ["-o", "Dpkg::Options::=--force-confold"]
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *keep, "postgresql"], env=quiet)
