"""`meshnode new NAME`: copy a quickstart to start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import rich_click as click

from meshnode.cli._errors import CliError, UsageProblem, suggestion
from meshnode.cli._output import Column
from meshnode.cli._quickstarts import find, quickstarts
from meshnode.cli._verb import Verb, output

__all__ = ["command"]


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [entry.name for entry in quickstarts() if entry.name.startswith(incomplete)]


@click.command("new", cls=Verb)
@click.argument("name", required=False, shell_complete=_complete)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def command(name: str | None, folder: Path | None) -> None:
    """Copy the quickstart NAME into FOLDER (its own name by default); without NAME, list what there is."""
    out = output()
    if name is None:
        rows = [{"name": entry.name, "summary": entry.summary} for entry in quickstarts()]
        out.rows(rows, (Column("name", "NAME"), Column("summary", "SUMMARY")))
        return
    source = find(name)
    if source is None:
        raise UsageProblem(
            f"there is no quickstart {name}", suggestion(name, [entry.name for entry in quickstarts()])
        )
    target = folder or Path(source.name)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CliError(f"{target} exists already", "name another folder after the quickstart's name")
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(source.path, target, ignore=ignore, dirs_exist_ok=True)
    if out.for_people:
        out.message(f"{source.name} is in {target}; next: cd {target} && meshnode run -f mesh.yaml")
    else:
        out.item({"name": source.name, "path": str(target.absolute())}, ())
