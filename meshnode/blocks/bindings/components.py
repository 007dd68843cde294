"""From opened components to bindings: which directions each has and which policies hold."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from attrs import frozen

from meshnode.components import Opened
from meshnode.errors import ConfigError, Problem
from meshnode.interfaces import InputBinding, OutputBinding
from meshnode.resiliency import Policies, Policy

__all__ = ["BINDING_METADATA", "Binding", "build_bindings"]

_log = logging.getLogger("meshnode.bindings")

_DIRECTION = "direction"
_KIND = "Binding"
_BOTH = frozenset({"input", "output"})

BINDING_METADATA = (_DIRECTION, "route")
"""Metadata of binding components that the node looks at; `route` is for applications that speak HTTP."""


@frozen(eq=False)
class Binding:
    """One opened binding. `input` and `output` are the same driver, where it has and the component uses that
    direction; `explicit` says that the component asked for input by name.
    """

    name: str
    input: InputBinding | None
    output: OutputBinding | None
    explicit: bool
    inbound: Policy
    outbound: Policy


def build_bindings(opened: Sequence[Opened], policies: Policies) -> dict[str, Binding]:
    """The bindings among the components, by name. Raises `ConfigError` for a direction that is none, or
    that the driver does not have.
    """
    problems: list[Problem] = []
    bindings: dict[str, Binding] = {}
    for one in opened:
        if one.planned.kind != "bindings" or one.instance is None:
            continue
        name = one.planned.component.name
        wanted = _directions(one)
        problems.extend(_wrong(one, wanted))
        bindings[name] = Binding(
            name,
            one.instance if isinstance(one.instance, InputBinding) and "input" in (wanted or _BOTH) else None,
            one.instance
            if isinstance(one.instance, OutputBinding) and "output" in (wanted or _BOTH)
            else None,
            "input" in wanted,
            policies.for_component(name, _KIND, "inbound"),
            policies.for_component(name, _KIND),
        )
    if problems:
        raise ConfigError(problems)
    return bindings


def _directions(one: Opened) -> frozenset[str]:
    text = one.reserved.get(_DIRECTION, "")
    return frozenset(filter(None, (word.strip().lower() for word in text.split(","))))


def _wrong(one: Opened, wanted: frozenset[str]) -> Iterator[Problem]:
    component = one.planned.component
    item = component.get(_DIRECTION)
    line = item.line if item is not None else component.source.line
    field = f"spec.metadata.{_DIRECTION}"
    for word in sorted(wanted - _BOTH):
        yield Problem(
            f'"{word}" is no direction',
            component.source.file,
            line,
            field,
            "input, output, or both with a comma",
        )
    kinds = {"input": InputBinding, "output": OutputBinding}
    for word in sorted(wanted & _BOTH):
        if not isinstance(one.instance, kinds[word]):
            yield Problem(f"{component.type} has no {word}", component.source.file, line, field)
