"""`meshnode config show`: every setting, its value, and where it comes from."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from meshnode.cli._flags import FlagTable
from meshnode.cli._output import Column
from meshnode.cli._runflags import SETTABLE
from meshnode.cli._settings import PROJECT_FILE, project_file, resolve, user_file
from meshnode.cli._verb import VerbGroup, given_globals, output

__all__ = ["command"]

_TABLE = FlagTable("meshnode", tuple(SETTABLE.values()))
_VALUES = (Column("name", "SETTING"), Column("value", "VALUE"), Column("source", "SOURCE"))
_FILES = (Column("file", "FILE"), Column("path", "PATH"), Column("exists", "EXISTS"))


@click.group("config", cls=VerbGroup)
def command() -> None:
    """Look at the settings: flag, environment, project file, user file, default, in this order."""


@command.command("show")
@click.argument("names", nargs=-1, metavar="[SETTING]...")
@click.option("--all", "everything", is_flag=True, help="Those that have their default too.")
def show(names: tuple[str, ...], everything: bool) -> None:
    """Show settings with their values and where each comes from.

    Every one can be given as a flag, as MESHNODE_<NAME> in the environment, or by its name in a file.
    """
    settings = resolve(_TABLE, given_globals(), os.environ)
    rows = []
    for name, flag in SETTABLE.items():
        layer = settings.layer(name)
        settings.get(name)  # a value that cannot be used is reported here too
        if (names and name not in names) or (layer is None and not (everything or names)):
            continue
        value = flag.default if layer is None else layer.values[name]
        rows.append({"name": name, "value": value, "source": "default" if layer is None else _source(layer)})
    output().rows(rows, _VALUES, empty="every setting has its default; --all shows them")


def _source(layer: object) -> str:
    origin = getattr(layer, "origin", "")
    name = str(getattr(layer, "name", ""))
    return f"{name} {origin}".strip()


@command.command("files")
def files() -> None:
    """Show where settings files are looked for."""
    here = project_file(Path.cwd()) or Path.cwd() / PROJECT_FILE
    rows = [{"file": "project", "path": str(here), "exists": here.is_file()}]
    if (user := user_file(os.environ)) is not None:
        rows.append({"file": "user", "path": str(user), "exists": user.is_file()})
    output().rows(rows, _FILES)
