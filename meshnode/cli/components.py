"""`meshnode components`: what a node has loaded, what could be loaded, and whether a file is right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import rich_click as click

from meshnode.cli._client import Target, ask, target_options, token_metadata
from meshnode.cli._complete import complete_types
from meshnode.cli._errors import UsageProblem, suggestion
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
