"""`meshnode components`: what a node has loaded, what could be loaded, and whether a file is right."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import rich_click as click

from meshnode.cli._client import Target, ask, target_options, token_metadata
from meshnode.cli._complete import complete_types
from meshnode.cli._errors import UsageProblem
from meshnode.cli._exit import ExitCode
from meshnode.cli._output import Column
from meshnode.cli._verb import VerbGroup, output

__all__ = ["command"]

_LOADED = (
    Column("name", "NAME"),
    Column("type", "TYPE"),
    Column("version", "VERSION"),
    Column("capabilities", "CAPABILITIES"),
)
_TYPES = (Column("type", "TYPE"), Column("kind", "KIND"), Column("distribution", "DISTRIBUTION"),
          Column("version", "VERSION"))  # fmt: skip
_OPTIONS = (
    Column("name", "NAME"),
    Column("type", "TYPE"),
    Column("required", "REQUIRED"),
    Column("default", "DEFAULT"),
    Column("allowed", "ALLOWED"),
    Column("doc", "MEANING"),
)
_PROBLEMS = (
    Column("file", "FILE"),
    Column("line", "LINE"),
    Column("field", "FIELD"),
    Column("message", "PROBLEM"),
    Column("remedy", "REMEDY"),
)


@click.group("components", cls=VerbGroup)
def command() -> None:
    """Look at components: those a node has loaded, those that could be, and files that describe them."""


@command.command("list")
@target_options
def list_loaded(target: Target) -> None:
    """List the components that a running node has loaded."""
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    async def call(channel: Any) -> Any:
        stub = runtime.DaprStub(channel)
        return await stub.get_metadata(runtime.GetMetadataRequest(), metadata=token_metadata())

    rows = [
        {"name": c.name, "type": c.type, "version": c.version, "capabilities": list(c.capabilities)}
        for c in ask(target, call).registered_components
    ]
    output().rows(rows, _LOADED, empty="the node has loaded no components")


@command.command("types")
def list_types() -> None:
    """List the component types whose drivers are installed."""
    from meshnode.cli.version import installed_drivers

    output().rows(installed_drivers(), _TYPES, empty="no drivers are installed")


@command.command("describe")
@click.argument("type", shell_complete=complete_types)
@click.option("--version", "wanted", default="v1", show_default=True, help="The component's version.")
@click.option("--schema", is_flag=True, help="Its metadata's JSON Schema instead.")
def describe_type(type: str, wanted: str, schema: bool) -> None:  # noqa: A002
    """Show the metadata that the component TYPE takes."""
    from meshnode.cli.schema import component_type_schema
    from meshnode.errors import ConfigError
    from meshnode.registry import Registry, describe

    try:
        driver = Registry.discover().driver(type, wanted)
    except ConfigError as error:
        problem = error.problems[0]
        raise UsageProblem(problem.message, problem.remedy) from None
    out = output()
    if schema:
        out.text(json.dumps(component_type_schema(type, wanted), indent=2))
        return
    rows = [attrs.asdict(row) for row in describe(driver)]
    if out.for_people:
        out.text(f"{driver.type} ({', '.join(driver.versions)}): {driver.summary}\n")
        out.rows(rows, _OPTIONS, empty="it takes no metadata")
    else:
        row = {"type": driver.type, "versions": list(driver.versions), "summary": driver.summary}
        out.item(row | {"metadata": rows}, ())


@command.command("check")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--lenient", is_flag=True, help="Let unknown fields pass.")
def check(paths: tuple[Path, ...], lenient: bool) -> int:
    """Check resource files and folders as a node would at its start. Exit code 2 when something is wrong."""
    from meshnode.cli._check import problems_of

    problems, count = problems_of(paths, os.environ, lenient=lenient)
    out = output()
    if out.for_people:
        for problem in problems:
            out.message(str(problem))
        if not problems:
            out.message(f"{count} resources, nothing wrong")
    else:
        out.rows([attrs.asdict(problem) for problem in problems], _PROBLEMS)
    return ExitCode.USAGE if problems else ExitCode.SUCCESS


@command.command("serve")
@click.argument("types", nargs=-1, required=True, metavar="TYPE...", shell_complete=complete_types)
@click.option("--name", default="", help="The component's name; by default what TYPE has after its kind.")
@click.option("--folder", type=click.Path(path_type=Path), help="Of the socket; by default where nodes look.")
def serve(types: tuple[str, ...], name: str, folder: Path | None) -> int:
    """Serve installed drivers as a pluggable component, for every node and daprd of this machine.

    Their metadata is that of the Component resources which use them. Ctrl-C lets calls under way finish; a
    second one does not wait.
    """
    from meshnode.cli._serve import serve_types

    return serve_types(types, name, folder)
