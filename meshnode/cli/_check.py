"""Resource files checked without starting anything: everything a node would find wrong before it opens
something.

References are not followed: their form is looked at, and in a folder whether the secret store that they name
is there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import trio
from attrs import frozen

from meshnode.config import Component, Resources, load_resources
from meshnode.config.configuration import merged
from meshnode.config.nodeoptions import NodeOptions
from meshnode.config.secrets import reference_problems
from meshnode.errors import ConfigError, Problem
from meshnode.planning import mistakes
from meshnode.sockets import discover_registry
from meshnode.surroundings import Surroundings
from meshnode.unserved import remarks, without_denied

__all__ = ["Findings", "check_resources"]

_NOBODY = "(any other)"
"""Stands for the applications that no scope names; no app id looks like that."""


@frozen
class Findings:
    """Every problem, what has no effect, and how many resources were looked at."""

    problems: Sequence[Problem]
    notes: Sequence[str]
    count: int


def check_resources(
    paths: Sequence[Path], env: Mapping[str, str], *, app_id: str = "", lenient: bool = False
) -> Findings:
    """As the node of `app_id` would find them; without one, as the node of each application that a scope
    names, and as that of any other.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    partial = False
    try:
        resources = load_resources(paths, lenient=lenient, env=env)
    except ConfigError as error:
        problems += error.problems
        resources, partial = error.partial or Resources(), True
    # Whatever the namespace: all of them are looked at.
    anywhere = {name: value for name, value in env.items() if name != "NAMESPACE"}
    whole = any(path.is_dir() for path in paths)
    registry = trio.run(discover_registry, env)
    for one in [app_id] if app_id else [*_named(resources), _NOBODY]:
        options = NodeOptions(app_id=one, lenient=lenient, env=anywhere, state_dir=Path.cwd())
        meant = resources.for_app(one)
        problems += mistakes(options, resources, Surroundings(), registry, partial=partial)
        problems += _references(meant.components, whole)
        configuration = merged(meant.configurations)
        notes += remarks(options, configuration)
        without_denied(meant, configuration, notes)
    counted = resources.for_app(app_id) if app_id else resources
    return Findings(tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(notes)), _count(counted))


def _named(resources: Resources) -> list[str]:
    """The app ids in scopes."""
    scopes = (
        *(one.scopes for one in resources.components),
        *(one.scopes for one in resources.resiliencies),
        *(one.scopes for one in resources.subscriptions),
        *(one.scopes for one in resources.http_endpoints),
    )
    return sorted({app_id for names in scopes for app_id in names})


def _references(components: Sequence[Component], whole: bool) -> list[Problem]:
    """What a single file does not have may be in another; what a folder does not have is not there."""
    stores = [one.name for one in components if one.type.lower().startswith("secretstores.")]
    known = stores if whole else None
    return [problem for one in components for problem in reference_problems(one, known, {})]


def _count(resources: Resources) -> int:
    return sum(
        map(
            len,
            (
                resources.components,
                resources.configurations,
                resources.resiliencies,
                resources.subscriptions,
                resources.http_endpoints,
            ),
        )
    )
