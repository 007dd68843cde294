"""RabbitMQ and the Erlang it runs on, from Debian's packages: unpacked into `.tools/rabbitmq`, not installed,
so that no service is started and nobody needs to be root. `rabbitmq_servers` starts it.
"""

from __future__ import annotations

from pathlib import Path

from support.debian import unpack
from support.install_tools import TOOLS, Unavailable

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
    unpack(_PACKAGES, FOLDER)
    if find_rabbitmq() is None:
        raise Unavailable("Debian's packages have no rabbitmq-server where it is looked for")
