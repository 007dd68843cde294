"""`serve`: drivers on a socket, with reflection, until cancelled or told to stop."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from meshnode.api.details import encode_details
from meshnode.api.reflection import Reflection
from meshnode.asyncioloop import asyncio_loop
from meshnode.interfaces import Driver
from meshnode.pluggable.server.bindings import binding_services
from meshnode.pluggable.server.instances import Instances
from meshnode.pluggable.server.pubsub import pubsub_services
from meshnode.pluggable.server.secretstores import secret_services
from meshnode.pluggable.server.state import state_services
from meshnode.sockets import sockets_folder
from meshnode.transport import Limits, Listener, Server, open_listeners

__all__ = ["serve"]

_SERVICES: Mapping[str, Callable[[Instances], list[Any]]] = {
    "state": state_services,
    "pubsub": pubsub_services,
    "bindings": binding_services,
    "secretstores": secret_services,
}
_LIMITS = Limits(message_size=(1 << 32) - 1)
_GRACE_SECONDS = 5.0

_log = logging.getLogger("meshnode.pluggable")


async def serve(
    *drivers: Driver[Any],
    name: str = "",
    folder: Path | str = "",
    stop: trio.Event | None = None,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve drivers, at most one of each kind, as the components `KIND.NAME`.

    The socket is `NAME.sock`; `name` is what the drivers' types have after the kind, unless given. `folder`
    is that of the environment (`DAPR_COMPONENTS_SOCKETS_FOLDER`), or Dapr's. `started` is called with the
    socket's path. Once `stop` is set, calls under way may finish; cancelled, everything ends at once.
    Raises `ValueError` for drivers that cannot be served together, OSError for a socket that is in use.
    """
    kinds = _by_kind(drivers)
    path = Path(folder or sockets_folder(os.environ)) / f"{name or _common_name(drivers)}.sock"
    path.parent.mkdir(parents=True, exist_ok=True)
    async with asyncio_loop(any(one.needs_asyncio for one in drivers)):
        listeners = await open_listeners(f"unix:{path}")
        try:
            await _serve(kinds, listeners, path, stop, task_status)
        finally:
            for listener in listeners:
                listener.close()


async def _serve(
    kinds: Mapping[str, Driver[Any]],
    listeners: list[Listener],
    path: Path,
    stop: trio.Event | None,
    task_status: trio.TaskStatus[Path],
) -> None:
    async with trio.open_nursery() as holding:
        served = {kind: Instances(driver, holding.start) for kind, driver in kinds.items()}
        try:
            servables = [one for kind, instances in served.items() for one in _SERVICES[kind](instances)]
            server = Server(
                [*servables, Reflection(servables).handlers()],
                limits=_LIMITS,
                encode_details=encode_details,
            )
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve, listeners)
                _log.info("serving %s at %s", " and ".join(one.type for one in kinds.values()), path)
                task_status.started(path)
                await (trio.Event() if stop is None else stop).wait()
                with trio.move_on_after(_GRACE_SECONDS):
                    await server.drain()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _GRACE_SECONDS):
                for instances in served.values():
                    await instances.close()
            holding.cancel_scope.cancel()


def _by_kind(drivers: tuple[Driver[Any], ...]) -> Mapping[str, Driver[Any]]:
    found: dict[str, Driver[Any]] = {}
    for driver in drivers:
        kind = driver.type.partition(".")[0]
        if kind not in _SERVICES:
            known = ", ".join(_SERVICES)
            raise ValueError(f"{driver.type} cannot be served: pluggable components are {known}")
        if kind in found:
            raise ValueError(f"{driver.type} and {found[kind].type} cannot share a socket")
        found[kind] = driver
    if not found:
        raise ValueError("there is nothing to serve")
    return found


def _common_name(drivers: tuple[Driver[Any], ...]) -> str:
    names = {driver.type.partition(".")[2] for driver in drivers}
    if len(names) > 1:
        raise ValueError(f"the drivers have several names ({', '.join(sorted(names))}): give one as `name`")
    return names.pop()
