"""Installed drivers served as pluggable components, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from meshnode.cli._errors import CliError, UsageProblem, leaves
from meshnode.cli._exit import ExitCode
from meshnode.errors import ConfigError
from meshnode.interfaces import Driver
from meshnode.pluggable import serve
from meshnode.registry import Registry
from meshnode.telemetry.logs import configure_logging

__all__ = ["serve_types"]

_log = logging.getLogger("meshnode.pluggable")


def serve_types(types: Sequence[str], name: str, folder: Path | None) -> ExitCode:
    registry = Registry.discover()
    try:
        drivers = [registry.driver(one) for one in types]
    except ConfigError as error:
        raise UsageProblem(error.problems[0].message, error.problems[0].remedy) from None
    instance = socket.gethostname()
    configure_logging("info", as_json=False, app_id=name, instance=instance, stream=sys.stdout)
    try:
        trio.run(_until_signal, drivers, name, folder)
    except* ValueError as group:
        raise UsageProblem(str(leaves(group)[0])) from None
    except* OSError as group:
        raise CliError(str(leaves(group)[0])) from None
    return ExitCode.SUCCESS


async def _until_signal(drivers: Sequence[Driver[Any]], name: str, folder: Path | None) -> None:
    stop = trio.Event()

    async def served() -> None:
        await serve(*drivers, name=name, folder=folder or "", stop=stop)
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served)
            async for number in signals:
                _log.info("Received %s", signal.Signals(number).name)
                if stop.is_set():
                    nursery.cancel_scope.cancel()
                stop.set()
