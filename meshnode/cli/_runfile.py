"""Plans from a multi-app run file: its flags go through the same table as those of a command line.

A flag given to `meshnode run -f` itself holds for every application that the file says nothing else for.
What the file says that belongs to HTTP is passed over with a note: files written for Dapr run as they are, as
long as their applications speak gRPC.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from meshnode.cli._errors import CliError, UsageProblem
from meshnode.cli._exit import ExitCode
from meshnode.cli._flags import Parsed
from meshnode.cli._plan import AppPlan, make_plan
from meshnode.cli._runflags import RUN_TABLE
from meshnode.cli._settings import Layer, Resolved
from meshnode.config.runfile import RunApp, load_run_file
from meshnode.errors import ConfigError

__all__ = ["plans_from_file"]

Values = Mapping[str, str | list[str]]

_DESTINATIONS = {"console": "console", "file": "file", "fileAndConsole": "both"}
_OF_ONE_APPLICATION = ("app-id", "app-port", "dapr-grpc-port", "dapr-http-port", "dapr-internal-grpc-port")


def plans_from_file(
    path: Path, settings: Resolved, parsed: Parsed, say: Callable[[str], None]
) -> list[AppPlan]:
    """One plan per application, everything checked. Raises `CliError` with all problems of the file."""
    for name in _OF_ONE_APPLICATION:
        if name in parsed.values:
            raise UsageProblem(
                f"--{name} cannot hold for every application of a run file: say it in the file"
            )
    try:
        lenient = bool(settings.get("lenient", False))
        if str(path) == "-":
            file = load_run_file(Path.cwd(), lenient=lenient, text=sys.stdin.read())
        else:
            file = load_run_file(path, lenient=lenient)
    except ConfigError as error:
        raise CliError("\n".join(map(str, error.problems)), code=ExitCode.USAGE) from None
    for warning in file.warnings:
        say(str(warning))
    return [_plan(app, settings, parsed.values, say) for app in file.apps]


def _plan(app: RunApp, settings: Resolved, given: Values, say: Callable[[str], None]) -> AppPlan:
    values: dict[str, str | list[str]] = dict(given) | _flags(app, say)
    if app.resources_paths:
        values["resources-path"] = [str(path) for path in app.resources_paths]
    if app.config_path is not None:
        values["config"] = [str(app.config_path)]
    values["node-logs"] = _DESTINATIONS[app.node_logs]
    values["app-logs"] = _DESTINATIONS[app.app_logs]
    values.pop("run-file", None)
    below = (layer for layer in settings.layers if layer.name != "flag")
    resolved = Resolved(RUN_TABLE, (Layer("flag", values), *below))
    try:
        return make_plan(app.app_id, values, resolved, app.command, cwd=app.folder, env=app.env)
    except UsageProblem as problem:
        raise UsageProblem(f"{app.app_id}: {problem.message}", problem.hint) from None


def _flags(app: RunApp, say: Callable[[str], None]) -> dict[str, str | list[str]]:
    """The file's flags without those that are refused: in a file they are a remark, not an order."""
    words = []
    for name, value in app.flags.items():
        flag = RUN_TABLE[name]
        if not flag.refused:
            words.append(f"--{name}={value}")
        elif value not in flag.harmless:
            say(f"{app.app_id}: {name} is passed over: {flag.refused}")
    return dict(RUN_TABLE.parse(words).values)
