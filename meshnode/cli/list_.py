"""`meshnode list`: the nodes that run on this machine."""

from __future__ import annotations

import time

import attrs
import rich_click as click

from meshnode.cli._output import Column, ago, command_line
from meshnode.cli._records import live_records
from meshnode.cli._verb import Verb, output

__all__ = ["command"]

_COLUMNS = (
    Column("app_id", "APP ID"),
    Column("grpc_address", "GRPC"),
    Column("app_port", "APP PORT"),
    Column("internal_address", "INTERNAL"),
    Column("age", "AGE", ago),
    Column("pid", "PID"),
    Column("command", "COMMAND", command_line),
)


@click.command("list", cls=Verb)
def command() -> None:
    """List the nodes that run on this machine."""
    now = time.time()
    rows = [attrs.asdict(record) | {"age": round(now - record.started_at, 1)} for record in live_records()]
    output().rows(rows, _COLUMNS, empty="no node is running on this machine")
