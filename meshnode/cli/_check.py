"""Resource files checked without starting anything: everything a node would find wrong before it opens
something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import trio
from attrs import evolve

from meshnode.config import Resources, load_resources
from meshnode.config.nodeoptions import NodeOptions
from meshnode.errors import ConfigError, Problem
from meshnode.planning import mistakes
from meshnode.sockets import discover_registry
from meshnode.surroundings import Surroundings

__all__ = ["problems_of"]


def problems_of(paths: Sequence[Path], env: Mapping[str, str], *, lenient: bool) -> tuple[list[Problem], int]:
    """Every problem, and how many resources were looked at."""
    problems: list[Problem] = []
    try:
        resources = load_resources(paths, lenient=lenient, env=env)
    except ConfigError as error:
        problems += error.problems
        resources = error.partial or Resources()
    # Whichever application a resource is meant for, and in whatever namespace: all of them are looked at.
    resources = evolve(
        resources,
        components=tuple(evolve(one, scopes=()) for one in resources.components),
        resiliencies=tuple(evolve(one, scopes=()) for one in resources.resiliencies),
    )
    anywhere = {name: value for name, value in env.items() if name != "NAMESPACE"}
    options = NodeOptions(app_id="check", lenient=lenient, env=anywhere, state_dir=Path.cwd())
    registry = trio.run(discover_registry, env)
    problems += mistakes(options, resources, Surroundings(), registry)
    everything = (
        resources.components,
        resources.configurations,
        resources.resiliencies,
        resources.subscriptions,
        resources.http_endpoints,
    )
    return problems, sum(map(len, everything))
