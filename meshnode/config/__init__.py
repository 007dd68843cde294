"""Resource files and the run file: strict loading of YAML into frozen attrs models, all problems at once.

May import `meshnode.errors` only. The package itself imports nothing until a name is asked for, because
`nodeoptions` and `durations` lie on the start-up path of every command and the YAML machinery does not.

How a file becomes a model, from the bottom: `_yaml` reads text into nodes that know their lines, `_shapes`
turns nodes into attrs classes (and the same classes into JSON Schema), one module per kind holds its classes
and its own rules, `loader` walks the folders. What a node keeps of them at run time (`component`,
`configuration`, `resiliency`, `resources`) needs none of that: a node without resources never loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshnode.config.component import Component, MetadataItem, SecretKeyRef
    from meshnode.config.configuration import Configuration
    from meshnode.config.durations import parse_duration
    from meshnode.config.httpendpoint import HTTPEndpoint
    from meshnode.config.loader import load_resources
    from meshnode.config.resiliency import Resiliency
    from meshnode.config.resources import Resources
    from meshnode.config.secrets import resolve_metadata
    from meshnode.config.source import Source
    from meshnode.config.subscription import Subscription

__all__ = [
    "Component",
    "Configuration",
    "HTTPEndpoint",
    "MetadataItem",
    "Resiliency",
    "Resources",
    "SecretKeyRef",
    "Source",
    "Subscription",
    "load_resources",
    "parse_duration",
    "resolve_metadata",
]

_HOME = {
    "Component": "component",
    "MetadataItem": "component",
    "SecretKeyRef": "component",
    "Configuration": "configuration",
    "HTTPEndpoint": "httpendpoint",
    "Resources": "resources",
    "load_resources": "loader",
    "Resiliency": "resiliency",
    "resolve_metadata": "secrets",
    "Source": "source",
    "Subscription": "subscription",
    "parse_duration": "durations",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name)
