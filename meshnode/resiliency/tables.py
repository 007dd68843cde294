"""The Resiliency resources of a node merged into one set of tables, every name checked.

Several resources add up; where two define the same name, the later one wins as a whole, as in Dapr.
Resources scoped to other applications, or of another namespace, are left out. May import `meshnode.config`
and `meshnode.errors`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar, final

from attrs import define, evolve, field, frozen

from meshnode.config.backoff import Backoff
from meshnode.config.cel import compile_trip
from meshnode.errors import ConfigError, Problem
from meshnode.resiliency.backoff import BackoffSettings
from meshnode.resiliency.breaker import BreakerSettings, default_trip

if TYPE_CHECKING:
    from meshnode.config import resiliency as model

__all__ = [
    "BUILT_IN_ACTOR",
    "BUILT_IN_ACTOR_NOT_FOUND",
    "BUILT_IN_ACTOR_REMINDER",
    "BUILT_IN_INITIALIZATION",
    "BUILT_IN_SERVICE",
    "ActorRule",
    "RetryRule",
    "Sourced",
    "Tables",
    "merge",
]

_log = logging.getLogger("meshnode.resiliency")

T = TypeVar("T")

BUILT_IN_SERVICE: Final = "DaprBuiltInServiceRetries"
BUILT_IN_ACTOR: Final = "DaprBuiltInActorRetries"
BUILT_IN_ACTOR_REMINDER: Final = "DaprBuiltInActorReminderRetries"
BUILT_IN_ACTOR_NOT_FOUND: Final = "DaprBuiltInActorNotFoundRetries"
BUILT_IN_INITIALIZATION: Final = "DaprBuiltInInitializationRetries"

_MIN_BUILT_IN_RETRIES = 3
_DEFAULT_BREAKER_TIMEOUT = 60.0
_ACTOR_SCOPES = ("type", "id", "both")

_BUILT_IN: Mapping[str, BackoffSettings] = {
    BUILT_IN_SERVICE: BackoffSettings(duration=1.0, max_retries=3),
    BUILT_IN_ACTOR: BackoffSettings(duration=1.0, max_retries=3),
    BUILT_IN_ACTOR_NOT_FOUND: BackoffSettings(duration=1.0, max_retries=5),
    # No number of retries here: the elapsed time alone ends it.
    BUILT_IN_ACTOR_REMINDER: BackoffSettings(kind=Backoff.EXPONENTIAL),
    BUILT_IN_INITIALIZATION: BackoffSettings(
        kind=Backoff.EXPONENTIAL, max_interval=1.0, max_elapsed=10.0, max_retries=3
    ),
}


@frozen
class RetryRule:
    """A `retries` entry, ready for use. `codes` are the gRPC codes that are retried, None for all."""

    name: str
    backoff: BackoffSettings
    codes: frozenset[int] | None = None


@frozen
class Sourced(Generic[T]):
    """A value and the resource it comes from (empty for a built-in one)."""

    value: T
    resource: str = ""


@frozen
class ActorRule:
    """What an actor type's target says. `per_id`: one breaker an actor instead of one for the type."""

    policies: model.PolicyNames
    per_id: bool
    cache_size: int


@final
@define
class Tables:
    timeouts: dict[str, Sourced[float]] = field(factory=dict)
    retries: dict[str, Sourced[RetryRule]] = field(factory=dict)
    breakers: dict[str, Sourced[BreakerSettings]] = field(factory=dict)
    apps: dict[str, Sourced[model.AppTarget]] = field(factory=dict)
    actors: dict[str, Sourced[ActorRule]] = field(factory=dict)
    components: dict[str, Sourced[model.ComponentTarget]] = field(factory=dict)
    budgets: dict[str, float] = field(factory=dict)


def merge(resiliencies: Sequence[model.Resiliency], app_id: str, namespace: str) -> Tables:
    """The tables that hold for this node; raises `ConfigError` with every mistake found."""
    tables = Tables(
        retries={name: Sourced(RetryRule(name, settings)) for name, settings in _BUILT_IN.items()},
    )
    problems: list[Problem] = []
    chosen = [one for one in resiliencies if _applies(one, app_id, namespace)]
    for resource in chosen:
        _add_policies(tables, resource, problems)
        _add_targets(tables, resource, problems)
        tables.budgets.update(resource.retry_budgets)
    # Only now: a target may name a policy that another resource defines.
    for resource in chosen:
        problems += _unknown_names(tables, resource)
    if problems:
        raise ConfigError(problems)
    return tables


def _applies(resource: model.Resiliency, app_id: str, namespace: str) -> bool:
    if resource.scopes and app_id not in resource.scopes:
        return False
    return not (resource.namespace and namespace) or resource.namespace == namespace


def _add_policies(tables: Tables, resource: model.Resiliency, problems: list[Problem]) -> None:
    for name, seconds in resource.timeouts.items():
        tables.timeouts[name] = Sourced(seconds, resource.name)
    for name, retry in resource.retries.items():
        rule = _retry_rule(name, retry)
        if rule is not None:
            tables.retries[name] = Sourced(rule, resource.name)
    for name, breaker in resource.circuit_breakers.items():
        try:
            tables.breakers[name] = Sourced(_breaker_settings(name, breaker), resource.name)
        except ValueError as error:
            problems.append(_problem(resource, f"policies.circuitBreakers.{name}.trip", str(error)))


def _retry_rule(name: str, policy: model.RetryPolicy) -> RetryRule | None:
    """None where the name belongs to a policy that cannot be replaced."""
    if name == BUILT_IN_ACTOR_NOT_FOUND:
        _log.warning("The policy %s cannot be overridden; the built-in one stays", name)
        return None
    settings = BackoffSettings.from_policy(policy)
    if name in _BUILT_IN and 0 <= settings.max_retries < _MIN_BUILT_IN_RETRIES:
        _log.warning("%s needs at least %d retries; using that number", name, _MIN_BUILT_IN_RETRIES)
        settings = evolve(settings, max_retries=_MIN_BUILT_IN_RETRIES)
    return RetryRule(name, settings, policy.matching.grpc_codes)


def _breaker_settings(name: str, policy: model.BreakerPolicy) -> BreakerSettings:
    return BreakerSettings(
        template=name,
        max_requests=max(policy.max_requests, 1),
        interval=max(policy.interval, 0.0),
        timeout=policy.timeout if policy.timeout > 0 else _DEFAULT_BREAKER_TIMEOUT,
        trip=compile_trip(policy.trip) if policy.trip else default_trip,
        trip_text=policy.trip or "consecutiveFailures > 5",
    )


def _add_targets(tables: Tables, resource: model.Resiliency, problems: list[Problem]) -> None:
    for name, app in resource.apps.items():
        tables.apps[name] = Sourced(app, resource.name)
    for name, component in resource.components.items():
        tables.components[name] = Sourced(component, resource.name)
    for name, actor in resource.actors.items():
        scope = actor.circuit_breaker_scope
        if actor.policies.circuit_breaker and scope not in _ACTOR_SCOPES:
            problem = _problem(
                resource,
                f"targets.actors.{name}.circuitBreakerScope",
                f"found {scope!r}" if scope else "an actor's circuit breaker needs a scope",
                "one of " + ", ".join(_ACTOR_SCOPES),
            )
            problems.append(problem)
        rule = ActorRule(actor.policies, scope in ("id", "both"), actor.circuit_breaker_cache_size)
        tables.actors[name] = Sourced(rule, resource.name)


def _unknown_names(tables: Tables, resource: model.Resiliency) -> Iterable[Problem]:
    import difflib  # Only a resource needs it, and this lies on the start-up path.

    for where, names in _named(resource):
        for key, section, name, known in (
            ("timeout", "timeouts", names.timeout, tables.timeouts.keys()),
            ("retry", "retries", names.retry, tables.retries.keys()),
            ("circuitBreaker", "circuitBreakers", names.circuit_breaker, tables.breakers.keys()),
        ):
            if name and name not in known:
                message = f"no policy {name!r} under policies.{section}"
                near = difflib.get_close_matches(name, known, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else "defined: " + (", ".join(known) or "none")
                yield _problem(resource, f"{where}.{key}", message, remedy)


def _named(resource: model.Resiliency) -> Iterable[tuple[str, model.PolicyNames]]:
    for name, app in resource.apps.items():
        yield f"targets.apps.{name}", app.policies
    for name, actor in resource.actors.items():
        yield f"targets.actors.{name}", actor.policies
    for name, component in resource.components.items():
        yield f"targets.components.{name}.inbound", component.inbound
        yield f"targets.components.{name}.outbound", component.outbound


def _problem(resource: model.Resiliency, path: str, message: str, remedy: str = "") -> Problem:
    source = resource.source
    return Problem(message, source.file, source.line, f"Resiliency {resource.name!r}: spec.{path}", remedy)
