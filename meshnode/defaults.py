"""What a node does where nobody told it otherwise: the embedded stores and broker, name resolution on one
machine; and what it refuses.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from attrs import frozen

from meshnode.config import Component, MetadataItem, Resources, Source
from meshnode.config.configuration import NameResolution, merged
from meshnode.config.nodeoptions import NodeOptions
from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import Driver, DriverContext, NameResolver
from meshnode.registry import Registry, load_options

__all__ = ["Naming", "embedded_components", "name_resolution", "own_variables", "refuse_http_endpoints"]

_EMBEDDED = (("statestore", "state.sqlite"), ("pubsub", "pubsub.sqlite"), ("lockstore", "lock.sqlite"))
_LOOPBACK = "127.0.0.1"
_LOCAL_RESOLVERS = ("nameresolution.sqlite",)
"""Resolvers whose answers are only ever used on this machine: nodes then meet on loopback."""


def embedded_components(options: NodeOptions, notes: list[str]) -> list[Component]:
    """What a node without any component gets: a state store, a pub/sub broker and a lock store, in SQLite
    files in the user's state folder, which all such nodes on the machine share.
    """
    made = []
    for name, kind in _EMBEDDED:
        path = _state_dir(options) / f"{name}.db"
        notes.append(f"no components are configured: '{name}' is an embedded {kind} in {path}")
        item = MetadataItem(name="connectionString", value=str(path))
        made.append(
            Component(
                name=name,
                type=kind,
                version="v1",
                metadata=(item,),
                source=Source("(embedded default)", 0),
            )
        )
    return made


@frozen
class Naming:
    """The name resolution of a node, chosen and checked, not yet open."""

    driver: Driver[NameResolver]
    options: Any
    host: str
    """The address under which other nodes find this one; `bind_address` is where it listens."""
    bind_address: str
    context: Callable[[Callable[[], float], random.Random], DriverContext]

    def announced(self, listening: str) -> str:
        """What goes into the registry for a server that listens there."""
        if listening.startswith("unix:"):
            return listening
        return f"{self.host}:{listening.rpartition(':')[2]}"

    def open(
        self, wall: Callable[[], float], rng: random.Random
    ) -> AbstractAsyncContextManager[NameResolver]:
        return self.driver.open(self.options, self.context(wall, rng))


def name_resolution(resources: Resources, options: NodeOptions, registry: Registry) -> Naming:
    """From the Configuration's `nameResolution`, or SQLite in the user's state folder. Raises
    `ConfigError`.
    """
    configuration = merged(resources.configurations)
    chosen = configuration.name_resolution or NameResolution(component="sqlite")
    source = chosen.source
    kind = f"nameresolution.{chosen.component}"
    driver = registry.driver(kind, chosen.version, source)
    items = dict(chosen.configuration)
    if kind == "nameresolution.sqlite" and not {name.lower() for name in items} & {"connectionstring", "url"}:
        items["connectionString"] = str(_state_dir(options) / "names.db")
    loaded: Any = load_options(driver.metadata, items.items(), source, lenient=options.lenient)
    local = kind in _LOCAL_RESOLVERS and options.host_ip is None
    host = options.host_ip or (_LOOPBACK if local else _own_address())
    bind = options.internal_listen_address or (_LOOPBACK if local else "0.0.0.0")

    def context(wall: Callable[[], float], rng: random.Random) -> DriverContext:
        env = {**options.env, **own_variables(options)}
        return DriverContext(chosen.component, options.app_id, options.namespace, wall=wall, rng=rng, env=env)

    return Naming(driver, loaded, host, bind, context)


def own_variables(options: NodeOptions) -> dict[str, str]:
    """What a daprd adds to its own environment before it reads its Configuration, as far as there is the like
    here and it is known by then.
    """
    known = {
        "APP_ID": options.app_id,
        "APP_PORT": options.app_port,
        "HOST_ADDRESS": options.host_ip or _own_address(),
        "DAPR_GRPC_PORT": options.grpc_port,
        "DAPR_PORT": options.internal_grpc_port,
    }
    return {name: str(value) for name, value in known.items() if value}


def refuse_http_endpoints(resources: Resources) -> None:
    """A gRPC-only node calls no HTTP. Raises `ConfigError` for each HTTPEndpoint resource."""
    problems = [
        Problem(
            "meshnode speaks gRPC only and calls no HTTP endpoints",
            one.source.file,
            one.source.line,
            f"HTTPEndpoint {one.name}",
            "remove it; call the endpoint from the application, or put a gRPC service in front of it",
        )
        for one in resources.http_endpoints
    ]
    if problems:
        raise ConfigError(problems)


def _state_dir(options: NodeOptions) -> Path:
    if options.state_dir is not None:
        path = options.state_dir
    else:
        import platformdirs

        path = platformdirs.user_state_path("meshnode")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _own_address() -> str:
    """The address of the interface that leads outside; nothing is sent to find it out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return _LOOPBACK
        return str(probe.getsockname()[0])
