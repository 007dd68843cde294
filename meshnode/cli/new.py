"""`meshnode new`: something to start from: a quickstart to take apart, or a driver to fill in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import final

import rich_click as click

from meshnode.cli._errors import CliError, UsageProblem, suggestion
from meshnode.cli._output import Column
from meshnode.cli._quickstarts import Quickstart, find, quickstarts
from meshnode.cli._verb import Verb, VerbGroup, output

__all__ = ["command"]

_COLUMNS = (Column("name", "NAME"), Column("summary", "SUMMARY"))


@final
class _New(VerbGroup):
    """`driver`, and a command for each quickstart."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["driver", *(entry.name for entry in quickstarts())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "driver":
            return driver
        source = find(cmd_name)
        return None if source is None else _copying(source)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            hint = suggestion(name, self.list_commands(ctx)) or "`meshnode new` lists them"
            raise UsageProblem(f"there is no quickstart {name}", hint)
        return super().resolve_command(ctx, args)


@click.group("new", cls=_New, invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Start from a copy of a quickstart, or from a driver that works; without NAME, list the quickstarts."""
    if context.invoked_subcommand is None:
        out = output()
        out.rows([{"name": entry.name, "summary": entry.summary} for entry in quickstarts()], _COLUMNS)
        if out.for_people:
            out.message("\na component driver of your own: meshnode new driver KIND.NAME")


def _complete_kind(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from meshnode.cli._skeletons import driver_kinds

    return [f"{kind}." for kind in driver_kinds() if kind.startswith(incomplete)]


@click.command("driver", cls=Verb)
@click.argument("name", metavar="KIND.NAME", shell_complete=_complete_kind)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def driver(name: str, folder: Path | None) -> None:
    """Write the distribution of a component driver, say of state.mine, into FOLDER (state-mine by default).

    It works as it is, in memory, and passes the conformance suite of its kind: state, pubsub, bindings, lock,
    configuration, secretstores or nameresolution.
    """
    from meshnode.cli._skeletons import named, write_driver

    what = named(name)
    target = folder or Path(what.folder)
    write_driver(what, target)
    out = output()
    if out.for_people:
        out.message(f"{name} is in {target}; next:")
        out.message(f"cd {target} && pip install -e '.[dev]' && python -m pytest")
    else:
        row = {"type": name, "path": str(target.absolute()), "package": what.package}
        out.item(row | {"distribution": what.distribution}, ())


def _copying(source: Quickstart) -> click.Command:
    """The command that copies one quickstart."""

    def copy(folder: Path | None) -> None:
        _copy(source, folder or Path(source.name))

    argument = click.Argument(["folder"], required=False, type=click.Path(path_type=Path))
    text = f"{source.summary}: copy it into FOLDER (its own name by default)."
    return Verb(source.name, callback=copy, params=[argument], help=text)


def _copy(source: Quickstart, target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CliError(f"{target} exists already", "name another folder after the quickstart's name")
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(source.path, target, ignore=ignore, dirs_exist_ok=True)
    out = output()
    if out.for_people:
        out.message(f"{source.name} is in {target}; next: cd {target} && meshnode run -f mesh.yaml")
    else:
        out.item({"name": source.name, "path": str(target.absolute())}, ())
