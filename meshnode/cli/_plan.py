"""What `meshnode run` will start, as values: one `AppPlan` per application, from flags or from a run file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from meshnode.cli._errors import CliError, suggestion
from meshnode.cli._exit import ExitCode
from meshnode.cli._flags import FlagTable, Parsed
from meshnode.cli._nodeflags import NODE_TABLE
from meshnode.cli._nodeoptions import node_options
from meshnode.cli._runflags import GLOBAL_FLAGS, RUN_FLAGS
from meshnode.cli._settings import Layer, Resolved

__all__ = ["AppPlan", "check_program", "make_plan", "node_arguments", "plan_from_flags"]

_NOT_FOR_NODE = frozenset(flag.name for flag in (*RUN_FLAGS, *GLOBAL_FLAGS))


@frozen
class AppPlan:
    """One application and its node. Log destinations are `console`, `file` or `both`."""

    app_id: str
    command: tuple[str, ...]
    node_args: tuple[str, ...]
    cwd: Path | None = None
    """The application's folder; the node runs where `meshnode run` does."""
    env: Mapping[str, str] = field(factory=dict)
    app_port: int | None = None
    app_protocol: str = "grpc"
    app_channel_address: str = "127.0.0.1"
    http_port: int = 0
    node_logs: str = "both"
    app_logs: str = "both"
    app_grace: float = 10.0
    node_grace: float = 5.0


def plan_from_flags(settings: Resolved, parsed: Parsed) -> AppPlan:
    """The plan of a single application. Every value is checked before anything starts."""
    app_id = settings.get("app-id") or default_app_id(Path.cwd())
    return make_plan(app_id, dict(parsed.values), settings, parsed.rest)


def make_plan(
    app_id: str,
    values: Mapping[str, str | list[str]],
    settings: Resolved,
    command: tuple[str, ...],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> AppPlan:
    """`values` are the flags for this application, `settings` the same with all layers below them."""
    for_node = {name: value for name, value in values.items() if name not in _NOT_FOR_NODE}
    for_node["app-id"] = app_id
    if "dapr-grpc-port" not in settings:
        for_node["dapr-grpc-port"] = "0"
    options = node_options(_over(settings, NODE_TABLE, for_node), os.environ)
    return AppPlan(
        app_id=app_id,
        command=command,
        node_args=node_arguments(for_node),
        cwd=cwd,
        env=env or {},
        app_port=options.app_port,
        app_protocol="grpcs" if options.app_tls else "grpc",
        app_channel_address=options.app_channel_address,
        http_port=settings.get("dapr-http-port", 0),
        node_logs=settings.get("node-logs", "both"),
        app_logs=settings.get("app-logs", "both"),
        app_grace=float(settings.get("app-grace-seconds", 10)),
        node_grace=options.graceful_shutdown,
    )


def check_program(plan: AppPlan) -> None:
    """Raises `CliError` when the application's program is not there: before anything has been started."""
    if not plan.command:
        return
    program = plan.command[0]
    folder = plan.cwd or Path.cwd()
    where = str(folder / program) if os.sep in program else program
    if shutil.which(where, path=plan.env.get("PATH", os.environ.get("PATH"))) is None:
        near = suggestion(program, ("python3", "python", "node", "uv", "go", "java", "dotnet"))
        message = f"{plan.app_id}: there is no program {program}"
        raise CliError(message, near, ExitCode.USAGE)


def _over(settings: Resolved, table: FlagTable, values: Mapping[str, str | list[str]]) -> Resolved:
    below = [layer for layer in settings.layers if layer.name != "flag"]
    return Resolved(table, (Layer("flag", values), *below))


def node_arguments(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The flags as words of a command line."""
    words: list[str] = []
    for name, value in values.items():
        parts = value if isinstance(value, list) else [value]
        words += [f"--{name}={part}" for part in parts]
    return tuple(words)


def default_app_id(folder: Path) -> str:
    """An app id from a folder's name."""
    return re.sub(r"[^a-z0-9-]+", "-", folder.name.lower()).strip("-") or "app"
