"""Drivers: found by entry point without importing them, their metadata parsed into classes they declare.

An entry point stands in the group of its kind (`meshnode.state`, `meshnode.nameresolution`, …), is named
after the component type, with the version behind a slash or without (`state.redis`, `state.redis/v2`), and
points at a `Driver`. A driver that cannot be imported is a problem of the component that needs it and of
nobody else. May import `meshnode.config`, `meshnode.interfaces`, `meshnode.errors`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, final

from attrs import field, frozen

from meshnode.config._problems import did_you_mean, nearest
from meshnode.config.options import (
    ItemSchema,
    OptionRow,
    item_schemas,
    load_options,
    option_rows,
    takes_any_name,
)
from meshnode.config.source import Source
from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import Driver

__all__ = ["Entry", "OptionRow", "Registry", "describe", "driver_schema", "load_options"]

GROUP = "meshnode."
KINDS = (
    "state",
    "nameresolution",
    "secretstores",
    "pubsub",
    "bindings",
    "lock",
    "configuration",
    "crypto",
    "conversation",
)
"""Kinds of drivers, as in component types; a type of another kind is a mistake in the kind."""

EXTRAS: Mapping[str, str] = {
    "bindings.http": "http",
    "bindings.kafka": "kafka",
    "bindings.mqtt": "mqtt",
    "bindings.mqtt3": "mqtt",
    "bindings.postgres": "postgresql",
    "bindings.postgresql": "postgresql",
    "bindings.rabbitmq": "rabbitmq",
    "bindings.redis": "redis",
    "bindings.smtp": "smtp",
    "configuration.postgres": "postgresql",
    "configuration.postgresql": "postgresql",
    "configuration.redis": "redis",
    "lock.postgresql": "postgresql",
    "configuration.etcd": "etcd",
    "lock.etcd": "etcd",
    "lock.redis": "redis",
    "conversation.anthropic": "conversation",
    "conversation.echo": "conversation",
    "conversation.ollama": "conversation",
    "conversation.openai": "conversation",
    "crypto.dapr.jwks": "crypto",
    "crypto.dapr.localstorage": "crypto",
    "nameresolution.consul": "consul",
    "nameresolution.kubernetes": "kubernetes",
    "nameresolution.mdns": "mdns",
    "nameresolution.redis": "redis",
    "pubsub.jetstream": "jetstream",
    "pubsub.kafka": "kafka",
    "pubsub.mqtt": "mqtt",
    "pubsub.mqtt3": "mqtt",
    "pubsub.rabbitmq": "rabbitmq",
    "pubsub.redis": "redis",
    "secretstores.hashicorp.vault": "vault",
    "secretstores.kubernetes": "kubernetes",
    "state.mongodb": "mongodb",
    "state.mysql": "mysql",
    "state.postgres": "postgresql",
    "state.postgresql": "postgresql",
    "state.etcd": "etcd",
    "state.redis": "redis",
}
"""Types that are installed with an extra of the meshnode distribution."""

PLUGGABLE = frozenset({"state", "pubsub", "bindings", "secretstores"})
"""Kinds that another process may serve on a socket."""

_log = logging.getLogger("meshnode.registry")


@frozen
class Entry:
    """A driver that is installed. `versions` is None until its module has been imported, unless the name says
    it.
    """

    kind: str
    type: str
    version: str | None
    point: EntryPoint | None = field(repr=False)

    # Read when asked for: a distribution's metadata is a file to parse, and a node that starts needs none.
    @property
    def distribution(self) -> str:
        """The name of what it was installed with; empty for a driver that was given."""
        if self.point is None:
            return ""
        return self.point.dist.name if self.point.dist is not None else "unknown distribution"

    @property
    def distribution_version(self) -> str:
        return "" if self.point is None or self.point.dist is None else self.point.dist.version


@final
class Registry:
    """The drivers of one node. Importing happens in `driver`, once per driver."""

    def __init__(
        self, entries: Iterable[Entry] = (), drivers: Iterable[Driver[Any]] = (), sockets: str = ""
    ) -> None:
        self._entries = tuple(entries)
        self._given = tuple(drivers)
        self._sockets = sockets
        self._loaded: dict[Entry, Driver[Any]] = {}

    @classmethod
    def discover(cls, drivers: Iterable[Driver[Any]] = (), sockets: str = "") -> Registry:
        """Everything installed; `drivers` are added and win, which is how tests bring their own.

        `sockets` is the folder where pluggable components were looked for, for those who look in vain.
        """
        installed = entry_points()
        groups = (group for group in installed.groups if group.startswith(GROUP))
        found = {point for group in groups for point in installed.select(group=group)}
        entries = sorted(map(_entry, found), key=lambda one: (one.type, one.version or ""))
        return cls(entries, drivers, sockets)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is installed, by type; nothing is imported."""
        given = (Entry(_kind(one.type), one.type, None, None) for one in self._given)
        return (*given, *self._entries)

    def types(self, kind: str = "") -> tuple[str, ...]:
        """The component types that can be opened, all or of one kind."""
        return tuple(sorted({one.type for one in self.entries if not kind or one.kind == kind}))

    def driver(self, type: str, version: str = "v1", source: Source = Source()) -> Driver[Any]:  # noqa: A002, B008
        """The driver of a component type such as `state.redis`, `state.redis/v1`, or raises `ConfigError`.

        Types are matched without regard to case, as Dapr matches them.
        """
        name, slash, tail = type.partition("/")
        wanted = (tail if slash else version) or "v1"
        drivers, problems = self._candidates(name, source)
        for one, versions in drivers:
            if wanted.lower() in (known.lower() for known in versions):
                return one
        if drivers:
            known = sorted({version for _, versions in drivers for version in versions})
            message = f'"{name}" has no version "{wanted}"'
            raise ConfigError([_problem(source, source.places.version, message, did_you_mean(wanted, known))])
        raise ConfigError(problems or [self._unknown(name, source)])

    def _candidates(
        self, name: str, source: Source
    ) -> tuple[list[tuple[Driver[Any], tuple[str, ...]]], list[Problem]]:
        folded = name.lower()
        found: list[tuple[Driver[Any], tuple[str, ...]]] = [
            (one, one.versions) for one in self._given if one.type.lower() == folded
        ]
        problems: list[Problem] = []
        for entry in self._entries:
            if entry.type.lower() == folded:
                try:
                    one = self.load(entry)
                except ConfigError as error:
                    problems += [
                        _problem(source, source.places.type, each.message, each.remedy)
                        for each in error.problems
                    ]
                else:
                    found.append((one, (entry.version,) if entry.version else one.versions))
        return found, problems

    def load(self, entry: Entry) -> Driver[Any]:
        """Import a driver; whatever its module raises becomes a `ConfigError`."""
        if entry in self._loaded:
            return self._loaded[entry]
        if entry.point is None:
            return next(one for one in self._given if one.type == entry.type)
        try:
            driver = entry.point.load()
        except Exception as error:
            _log.debug("driver %s cannot be imported", entry.type, exc_info=True)
            reason = f"{error.__class__.__name__}: {error}"
            message = f'the driver of "{entry.type}" ({entry.distribution}) cannot be imported: {reason}'
            remedy = f"pip install --force-reinstall {entry.distribution}"
            raise ConfigError([Problem(message, remedy=remedy)]) from error
        if not isinstance(driver, Driver):
            message = f"the entry point {entry.point.value} ({entry.distribution}) is not a meshnode driver"
            raise ConfigError([Problem(message)])
        self._loaded[entry] = driver
        return driver

    def _unknown(self, name: str, source: Source) -> Problem:
        if name.lower() in EXTRAS:
            message = f'the driver of "{name}" is not installed'
            return _problem(
                source, source.places.type, message, f"pip install 'meshnode[{EXTRAS[name.lower()]}]'"
            )
        kind = _kind(name)
        message = f'unknown component type "{name}"'
        if self._sockets and kind in PLUGGABLE:
            message += f", and no socket in {self._sockets} serves it"
        known = {*self.types(), *EXTRAS}
        best = nearest(name, known)
        if best is not None:
            others = [one for one in sorted(known) if _kind(one) == _kind(best)]
            return _problem(source, source.places.type, message, did_you_mean(name, others))
        if kind not in KINDS:
            return _problem(source, source.places.type, message, did_you_mean(kind, KINDS))
        same = sorted(one for one in known if _kind(one) == kind)
        if not same:
            message = f'no driver of kind "{kind}" is installed, so "{name}" is unknown'
        return _problem(source, source.places.type, message, did_you_mean(name, same))


def describe(driver: Driver[Any]) -> tuple[OptionRow, ...]:
    """The rows of `components describe`, in the order of the driver's own class."""
    return option_rows(driver.metadata)


def driver_schema(driver: Driver[Any], *, reserved: Iterable[str] = ()) -> dict[str, Any]:
    """JSON Schema (draft-07) of the resource that asks for this driver: a Component of its type, or for name
    resolution a Configuration.

    `reserved` names the metadata that the node itself looks at, which may stand there besides.
    """
    # Needs every kind's module; a node does not.
    from meshnode.config.schema import component_schema, name_resolution_schema

    items = item_schemas(driver.metadata)
    if _kind(driver.type) == "nameresolution":
        component = driver.type.partition(".")[2]
        return name_resolution_schema(component, driver.versions, driver.summary, items)
    if names := tuple(reserved):
        items.append(ItemSchema(names, {"description": "For the node, not for the driver."}, required=False))
    others = takes_any_name(driver.metadata)
    return component_schema(driver.type, driver.versions, driver.summary, items, free_form=others)


def _kind(type: str) -> str:  # noqa: A002 - the resource's own word
    return type.partition(".")[0]


def _entry(point: EntryPoint) -> Entry:
    name, _, version = point.name.partition("/")
    return Entry(point.group.removeprefix(GROUP), name, version or None, point)


def _problem(source: Source, place: str, message: str, remedy: str = "") -> Problem:
    return Problem(message, source.file, source.line_of(place), place, remedy)
