"""Name resolution from a list in the Configuration resource: which app id is where. Nothing is announced.

Imports meshnode.interfaces and meshnode.errors only.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, final

from attrs import frozen

from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import Driver, DriverContext, Instance, option

__all__ = ["HostsOptions", "HostsResolver", "driver"]


@frozen
class HostsOptions:
    hosts: Mapping[str, Any] = option(
        "hosts",
        "App id (or `app-id.namespace`) -> its address `host:port` (or `unix:/path`), or a list of them.",
    )

    def __attrs_post_init__(self) -> None:
        problems = [problem for name, value in self.hosts.items() for problem in _problems(name, value)]
        if problems:
            raise ConfigError(problems)


@final
class HostsResolver:
    """Fulfils `NameResolver`. A bare app id is looked for in every namespace that has no entry of its own."""

    def __init__(self, hosts: Mapping[str, Sequence[str]]) -> None:
        self._hosts = {name: tuple(addresses) for name, addresses in hosts.items()}

    @property
    def max_age(self) -> float:
        return math.inf

    @asynccontextmanager
    async def announce(self, instance: Instance) -> AsyncIterator[None]:
        """Does nothing: the list says where everybody is."""
        yield

    async def resolve(self, app_id: str, namespace: str) -> Sequence[str]:
        return self._hosts.get(f"{app_id}.{namespace}") or self._hosts.get(app_id, ())


@asynccontextmanager
async def _open(options: HostsOptions, context: DriverContext) -> AsyncIterator[HostsResolver]:
    yield HostsResolver({name: _listed(value) for name, value in options.hosts.items()})


driver: Driver[HostsResolver] = Driver(
    type="nameresolution.hosts",
    metadata=HostsOptions,
    open=_open,
    summary="A static list of addresses in the Configuration resource.",
)


def _listed(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(dict.fromkeys(value))


def _problems(name: str, value: Any) -> list[Problem]:
    field = f"hosts.{name}"
    if not isinstance(value, str | Sequence):
        return [Problem(f"{value!r} is no address", field=field, remedy="host:port or a list of them")]
    addresses = _listed(value)
    if not addresses:
        return [Problem("has no address", field=field)]
    bad = [address for address in addresses if not _is_address(address)]
    return [
        Problem(f"{address!r} is no address", field=field, remedy="host:port or unix:/path")
        for address in bad
    ]


def _is_address(address: Any) -> bool:
    if not isinstance(address, str):
        return False
    if address.startswith("unix:"):
        return len(address) > len("unix:")
    host, _, port = address.rpartition(":")
    return bool(host) and port.isascii() and port.isdecimal() and 0 < int(port) < 65536
