"""Resource files checked without starting anything: their form, their types, their metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from meshnode.components import RESERVED_METADATA
from meshnode.config import Component, load_resources
from meshnode.errors import ConfigError, Problem
from meshnode.registry import Registry, load_options

__all__ = ["problems_of"]


def problems_of(paths: Sequence[Path], env: Mapping[str, str], *, lenient: bool) -> tuple[list[Problem], int]:
    """Every problem, and how many resources were looked at."""
    try:
        resources = load_resources(paths, lenient=lenient, env=env)
    except ConfigError as error:
        return list(error.problems), 0
    registry = Registry.discover()
    found = [problem for one in resources.components for problem in _component(one, registry, lenient)]
    others = (
        resources.configurations,
        resources.resiliencies,
        resources.subscriptions,
        resources.http_endpoints,
    )
    return found, len(resources.components) + sum(map(len, others))


def _component(component: Component, registry: Registry, lenient: bool) -> list[Problem]:
    try:
        driver = registry.driver(component.type, component.version, component.source)
        load_options(driver.metadata, component, reserved=RESERVED_METADATA, lenient=lenient)
    except ConfigError as error:
        return [problem for problem in error.problems if _known_now(component, problem)]
    return []


def _known_now(component: Component, problem: Problem) -> bool:
    """Whether a problem is one already here: values behind references are only known when a node starts."""
    referring = {f"spec.metadata.{item.name}" for item in component.metadata if item.value is None}
    unknown_name = problem.message.startswith("unknown")
    return unknown_name or not referring or problem.field not in {*referring, "spec.metadata"}
