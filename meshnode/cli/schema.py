"""`meshnode schema`: the JSON Schema of a resource kind or of a component type, for editors."""

from __future__ import annotations

import json
from typing import Any

import rich_click as click

from meshnode.cli._errors import UsageProblem, suggestion
from meshnode.cli._output import Column
from meshnode.cli._verb import Verb, output

__all__ = ["command", "component_type_schema"]

_COLUMNS = (Column("name", "NAME"), Column("what", "WHAT"))
_ANY = "any"
_RUN_FILE = "run-file"


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [row["name"] for row in _names() if row["name"].startswith(incomplete)]


@click.command("schema", cls=Verb)
@click.argument("name", required=False, shell_complete=_complete)
def command(name: str | None) -> None:
    """Print the JSON Schema (draft-07) NAME; without one, list what there is.

    NAME is a resource kind, a component type (its metadata), `any` for whatever a resource file may hold, or
    `run-file` for what `meshnode run -f` takes. With `# yaml-language-server: $schema=FILE` as first line an
    editor completes and checks a file.
    """
    out = output()
    if name is None:
        out.rows(_names(), _COLUMNS)
        return
    known = {row["name"].casefold(): row for row in _names()}
    if name.casefold() not in known:
        hint = suggestion(name, [row["name"] for row in known.values()])
        raise UsageProblem(f"there is no schema {name}", hint or "`meshnode schema` lists what there is")
    out.text(json.dumps(_schema(known[name.casefold()]), indent=2))


def _names() -> list[dict[str, str]]:
    from meshnode.config.loader import KINDS
    from meshnode.registry import Registry

    rows = [{"name": _ANY, "what": "any resource"}, {"name": _RUN_FILE, "what": "multi-app run file"}]
    rows += [{"name": kind, "what": "resource kind"} for kind in KINDS]
    return rows + [{"name": type_, "what": "component type"} for type_ in Registry.discover().types()]


def _schema(row: dict[str, str]) -> dict[str, Any]:
    from meshnode.config.runfile import run_file_schema
    from meshnode.config.schema import resource_schema, resources_schema

    if row["name"] == _RUN_FILE:
        return run_file_schema()
    if row["name"] == _ANY:
        return resources_schema()
    if row["what"] == "resource kind":
        return resource_schema(row["name"])
    return component_type_schema(row["name"])


def component_type_schema(name: str, version: str = "v1") -> dict[str, Any]:
    """The schema of a Component of this type. Raises `ConfigError`."""
    from meshnode.cli._nodemetadata import node_rows
    from meshnode.registry import Registry, driver_schema

    driver = Registry.discover().driver(name, version)
    return driver_schema(driver, reserved=[row["name"] for row in node_rows(driver.type)])
