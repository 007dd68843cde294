"""Resource files checked without starting anything: their form, their types, their metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from meshnode.components import component_problems
from meshnode.config import load_resources
from meshnode.errors import ConfigError, Problem
from meshnode.registry import Registry

__all__ = ["problems_of"]


def problems_of(paths: Sequence[Path], env: Mapping[str, str], *, lenient: bool) -> tuple[list[Problem], int]:
    """Every problem, and how many resources were looked at."""
    try:
        resources = load_resources(paths, lenient=lenient, env=env)
    except ConfigError as error:
        return list(error.problems), 0
    registry = Registry.discover()
    found = [
        problem
        for one in resources.components
        for problem in component_problems(one, registry, lenient=lenient)
    ]
    others = (
        resources.configurations,
        resources.resiliencies,
        resources.subscriptions,
        resources.http_endpoints,
    )
    return found, len(resources.components) + sum(map(len, others))
