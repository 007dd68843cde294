"""`meshnode version`: the tool, its Python, the contract it speaks, the drivers it finds."""

from __future__ import annotations

import platform
from typing import Any

import rich_click as click

from meshnode import __version__
from meshnode.cli._output import Column
from meshnode.cli._verb import Verb, output

__all__ = ["command", "installed_drivers", "show_version"]

PROTOCOL = "dapr.proto.*.v1 as of Dapr 1.18"

_COLUMNS = (
    Column("version", "meshnode"),
    Column("python", "Python"),
    Column("protocol", "Protocol"),
    Column("platform", "Platform"),
    Column("drivers", "Drivers", lambda drivers: ", ".join(f"{d['type']} {d['version']}" for d in drivers)),
)


@click.command("version", cls=Verb)
def command() -> None:
    """Name the versions of the tool, Python, the protocol and the drivers."""
    show_version()


def show_version() -> None:
    """Print them in the form asked for."""
    row = {
        "version": __version__,
        "python": platform.python_version(),
        "protocol": PROTOCOL,
        "platform": f"{platform.system()} {platform.machine()}",
        "drivers": installed_drivers(),
    }
    output().item(row, _COLUMNS)


def installed_drivers() -> list[dict[str, Any]]:
    """Every installed driver, from its entry point: none is imported, so a broken one cannot break this."""
    from meshnode.registry import Registry

    return [
        {
            "type": entry.type,
            "kind": entry.kind,
            "distribution": entry.distribution,
            "version": entry.distribution_version,
        }
        for entry in Registry.discover().entries
    ]
