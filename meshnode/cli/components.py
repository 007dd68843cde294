"""`meshnode components`: what nodes have loaded, what could be loaded, and whether a file is right."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import attrs
import rich_click as click

from meshnode.cli._client import Target, ask, complete_app_ids, each_target, target_options, token_metadata
from meshnode.cli._complete import complete_types
from meshnode.cli._errors import CliError, UsageProblem
from meshnode.cli._exit import ExitCode
from meshnode.cli._output import Column
from meshnode.cli._verb import VerbGroup, output

__all__ = ["command"]

_LOADED = (
    Column("app_id", "APP ID"),
    Column("name", "NAME"),
    Column("type", "TYPE"),
    Column("version", "VERSION"),
    Column("state", "STATE"),
    Column("capabilities", "CAPABILITIES"),
    Column("message", "MESSAGE"),
)
_TYPES = (Column("type", "TYPE"), Column("kind", "KIND"), Column("distribution", "DISTRIBUTION"),
          Column("version", "VERSION"))  # fmt: skip
_OPTIONS = (
    Column("name", "NAME"),
    Column("type", "TYPE"),
    Column("required", "REQUIRED"),
    Column("secret", "SECRET"),
    Column("default", "DEFAULT"),
    Column("allowed", "ALLOWED"),
    Column("aliases", "ALSO"),
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
def list_loaded(target: Target) -> int:
    """List the components that running nodes have loaded: those of all nodes on this machine, or of one.

    What could be loaded, `meshnode components types` lists.
    """
    out, rows, code = output(), [], ExitCode.SUCCESS
    for one in each_target(target):
        try:
            rows += ask(one, _loaded)
        except CliError as error:
            # Others are listed all the same.
            out.message(f"{one.app_id or one.address or 'the node'}: {error.message}")
            code = ExitCode.FAILURE
    if rows or code is ExitCode.SUCCESS:
        out.rows(rows, _LOADED, empty="no component is loaded")
    return code


async def _loaded(channel: Any) -> list[dict[str, Any]]:
    """A row for each component. What failed to open and was let go only the admin API tells of."""
    from meshnode.wire.dapr.proto.runtime import v1 as runtime

    request = runtime.GetMetadataRequest()
    found = await runtime.DaprStub(channel).get_metadata(request, metadata=token_metadata())
    registered = {one.name: one for one in found.registered_components}
    states = {one.name: one for one in await _states(channel)}
    rows = []
    for name, one in (registered | states).items():
        state, known = states.get(name), registered.get(name)
        rows.append(
            {
                "app_id": found.id,
                "name": name,
                "type": one.type,
                "version": one.version,
                "state": state.state if state is not None else "",
                "capabilities": list(known.capabilities) if known is not None else [],
                "message": state.message if state is not None else "",
            }
        )
    return rows


async def _states(channel: Any) -> list[Any]:
    """The components as a meshnode knows them; a daprd does not understand the question."""
    from grpclib.const import Status
    from grpclib.exceptions import GRPCError

    from meshnode.wire.meshnode.admin import v1 as admin

    try:
        status = await admin.AdminStub(channel).get_status(metadata=token_metadata())
    except GRPCError as error:
        if error.status not in (Status.UNKNOWN, Status.UNIMPLEMENTED):
            raise
        return []
    return list(status.components)


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
    from meshnode.cli._nodemetadata import node_rows
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
    besides = node_rows(driver.type)
    if out.for_people:
        out.text(f"{driver.type} ({', '.join(driver.versions)}): {driver.summary}\n")
        out.rows(rows, _OPTIONS, empty="it takes no metadata of its own")
        if besides:
            out.text("\nFor the node, whatever the driver:\n")
            out.rows(besides, _OPTIONS)
    else:
        row = {"type": driver.type, "versions": list(driver.versions), "summary": driver.summary}
        out.item(row | {"metadata": rows, "node_metadata": besides}, ())


@command.command("check")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-i",
    "--app-id",
    default="",
    shell_complete=complete_app_ids,
    help="Only what is meant for this application; without it, for any.",
)
@click.option("--lenient", is_flag=True, help="Let unknown fields pass.")
def check(paths: tuple[Path, ...], app_id: str, lenient: bool) -> int:
    """Check resource files and folders as a node would at its start, without starting one.

    Secrets and environment variables are not read; in a folder the secret stores that are named must be there
    too. Exit code 2 when something is wrong.
    """
    from meshnode.cli._check import check_resources

    found = check_resources(paths, os.environ, app_id=app_id, lenient=lenient)
    out = output()
    if out.for_people:
        for line in (*map(str, found.problems), *(f"note: {note}" for note in found.notes)):
            out.message(line)
        if not found.problems:
            what = "1 resource" if found.count == 1 else f"{found.count} resources"
            out.message(f"{what}, nothing wrong")
    else:
        out.rows([attrs.asdict(problem) for problem in found.problems], _PROBLEMS)
    return ExitCode.USAGE if found.problems else ExitCode.SUCCESS


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
