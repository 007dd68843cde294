"""What is registered for a node, and which addresses come out of what others have registered. No I/O.

As Dapr's resolver has it: the service's name is the app id, its port the application's, and the port that
nodes call stands in the metadata. `MESHNODE_NAMESPACE` there is ours: a daprd sets and heeds no namespace, so
what does not name one is found from all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, final

from attrs import frozen

from meshnode.errors import ComponentError, Problem
from meshnode.interfaces import Instance
from meshnode_nameresolution_consul import _shapes as shapes
from meshnode_nameresolution_consul._options import ConsulOptions

__all__ = ["BEAT", "Registration", "addresses", "registration"]

BEAT: Final = 5.0
"""Seconds between two signs of life."""
_TTL: Final = "15s"
"""How long the agent believes in one; Dapr's agent looks at the sidecar that often."""
_DEAD: Final = "10m"
"""After so long without one the agent forgets the node: with ports chosen anew at each start, no other would
ever take its place.
"""
_NAMESPACE: Final = "MESHNODE_NAMESPACE"


@final
@frozen
class Registration:
    """`check` is the id of the check that the node itself keeps passing, or empty where others were given."""

    id: str
    body: Mapping[str, Any]
    check: str


def registration(options: ConsulOptions, instance: Instance, app_port: str) -> Registration:
    """Raises `ComponentError` for an address that Consul cannot hold."""
    host, _, port = instance.address.rpartition(":")
    if not host or not port.isdecimal():
        raise ComponentError(f"Consul holds addresses with a port, which {instance.address} is not")
    own = {options.dapr_port_meta_key: port, _NAMESPACE: instance.namespace}
    problems: list[Problem] = []  # there are none: the options have been looked at
    if options.advanced_registration is not None:
        body = shapes.read(shapes.REGISTRATION, options.advanced_registration, "", problems)
        body["Meta"] = {**body.get("Meta", {}), **own}
        return Registration(body.get("ID") or body["Name"], body, "")
    host = host.strip("[]")
    name = f"{instance.app_id}-{host}-{port}"
    checks = shapes.read_all(shapes.CHECK, options.checks, "", problems)
    check = "" if checks else f"daprHealth:{name}"
    body = {
        "ID": name,
        "Name": instance.app_id,
        "Address": host,
        "Port": int(app_port) if app_port.isdecimal() else 0,
        "Checks": checks or [_sign_of_life(check)],
        "Tags": list(options.tags),
        "Meta": {**{key: str(value) for key, value in options.meta.items()}, **own},
    }
    return Registration(name, body, check)


def _sign_of_life(check: str) -> dict[str, str]:
    return {
        "CheckID": check,
        "Name": "Dapr Health Status",
        "TTL": _TTL,
        "Status": "passing",
        "DeregisterCriticalServiceAfter": _DEAD,
    }


def addresses(entries: Iterable[Any], app_id: str, namespace: str, port_key: str) -> tuple[str, ...]:
    """Of the services that Consul gave. Raises `ComponentError` when there are some, and none has a port."""
    found, portless = set(), False
    for entry in entries:
        service, node = _part(entry, "Service"), _part(entry, "Node")
        meta = _part(service, "Meta")
        if meta.get(_NAMESPACE, namespace) != namespace:
            continue
        host, port = service.get("Address") or node.get("Address"), meta.get(port_key)
        if not port:
            portless = True
        elif host:
            found.add(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    if portless and not found:
        raise ComponentError(f"target service AppID '{app_id}' found but {port_key} missing from meta")
    return tuple(sorted(found))


def _part(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}
