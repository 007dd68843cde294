"""The services of a socket as drivers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

from meshnode.interfaces import Driver, DriverContext
from meshnode.pluggable.client.bindings import open_binding
from meshnode.pluggable.client.initialising import Properties
from meshnode.pluggable.client.pubsub import open_broker
from meshnode.pluggable.client.secretstores import open_secrets
from meshnode.pluggable.client.state import open_store
from meshnode.pluggable.names import KINDS

__all__ = ["drivers_of"]

Open = Callable[[Path, frozenset[str], Properties, DriverContext], AbstractAsyncContextManager[Any]]

_OPEN: Mapping[str, Open] = {
    "state": open_store,
    "pubsub": open_broker,
    "bindings": open_binding,
    "secretstores": open_secrets,
}


def drivers_of(path: Path, name: str, services: frozenset[str]) -> list[Driver[Any]]:
    """One for each kind of component among the services. As in Dapr they have no version of their own, which
    stands for the first ones.
    """
    kinds = sorted({KINDS[service] for service in services if service in KINDS})
    return [
        Driver(
            type=f"{kind}.{name}",
            metadata=Properties,
            open=partial(_OPEN[kind], path, services),
            summary=f"A pluggable component at {path}.",
            versions=("v1", "v0"),
        )
        for kind in kinds
    ]
