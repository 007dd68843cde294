"""Asking sockets what they serve, all at once and none for long.

A socket that nobody listens on, that does not answer or has no reflection is named in the log and left out;
what needs it is then a component of an unknown type.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from meshnode.interfaces import Driver
from meshnode.pluggable.client.connection import LIMITS, OneDial
from meshnode.pluggable.client.drivers import drivers_of
from meshnode.pluggable.client.reflection import services_of
from meshnode.transport import GRPCError, open_channel

__all__ = ["discovered"]

_log = logging.getLogger("meshnode.pluggable")

_PATIENCE_SECONDS = 5.0


async def discovered(paths: Sequence[Path]) -> list[Driver[Any]]:
    """The drivers of these sockets, in their order."""
    found: dict[Path, list[Driver[Any]]] = {}

    async def ask(path: Path) -> None:
        found[path] = await _drivers_at(path)

    async with trio.open_nursery() as nursery:
        for path in paths:
            nursery.start_soon(ask, path)
    return [driver for path in paths for driver in found[path]]


async def _drivers_at(path: Path) -> list[Driver[Any]]:
    services: frozenset[str] | None = None
    reason = f"no answer within {_PATIENCE_SECONDS:g} s"
    with trio.move_on_after(_PATIENCE_SECONDS):
        try:
            async with open_channel(OneDial(path), limits=LIMITS) as channel:
                services = await services_of(channel)
        except GRPCError as error:
            reason = error.message or error.status.name
    if services is None:
        _log.warning("no pluggable component at %s: %s", path, reason)
        return []
    drivers = drivers_of(path, path.stem, services)
    for driver in drivers:
        _log.info("pluggable component %s found at %s", driver.type, path)
    if not drivers:
        _log.warning("no pluggable component at %s: none of its services is one", path)
    return drivers
