"""RabbitMQ and the Erlang it runs on, from Debian's packages: unpacked into `.tools/rabbitmq`, not installed,
so that no service is started and nobody needs to be root. `rabbitmq_servers` starts it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from support.install_tools import TOOLS, Unavailable, need, run

__all__ = ["find_rabbitmq", "rabbitmq"]

FOLDER = TOOLS / "rabbitmq"
_ERLANG = (
    "asn1 base crypto eldap ftp inets mnesia os-mon parsetools public-key runtime-tools snmp ssl "
    "syntax-tools tftp tools xmerl"
)
_PACKAGES = ("rabbitmq-server", *[f"erlang-{name}" for name in _ERLANG.split()])
_SERVER = "lib/rabbitmq/bin/rabbitmq-server"
_ERL = "lib/erlang/bin/erl"


def find_rabbitmq() -> Path | None:
    """The folder (as /usr is one) below which the server and Erlang are, or None when there is none."""
    for folder in (FOLDER / "usr", Path("/usr")):
        if (folder / _SERVER).exists() and (folder / _ERL).exists():
            return folder
    return None


def rabbitmq() -> None:
    if find_rabbitmq() is not None:
        return
    need("apt-get")
    need("dpkg-deb")
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER.parent, prefix="rabbitmq-") as name:
        folder = Path(name)
        try:
            run(["apt-get", "download", "-qq", *_PACKAGES], cwd=folder)
        except Unavailable:
            run(["apt-get", "update", "-qq"])
            run(["apt-get", "download", "-qq", *_PACKAGES], cwd=folder)
        for package in sorted(folder.glob("*.deb")):
            run(["dpkg-deb", "-x", str(package), str(folder / "unpacked")])
        shutil.rmtree(FOLDER, ignore_errors=True)
        (folder / "unpacked").rename(FOLDER)
    if find_rabbitmq() is None:
        raise Unavailable("Debian's packages have no rabbitmq-server where it is looked for")
