"""From a target to the policies that hold for it: its own if it is named, else the defaults by name pattern.

A target that a resource names gets what that entry says and nothing else, as in Dapr: an app with a timeout
of its own does not take the default retry besides. For the others the most specific default of each sort
wins, for a state store's outbound calls in this order: DefaultStatestoreComponentOutboundRetryPolicy,
DefaultComponentOutboundRetryPolicy, DefaultComponentRetryPolicy, DefaultRetryPolicy. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from attrs import field, frozen

from meshnode.resiliency.breaker import BreakerSettings
from meshnode.resiliency.tables import RetryRule, Sourced, Tables

if TYPE_CHECKING:
    from meshnode.config.resiliency import PolicyNames

__all__ = [
    "EMPTY_RULE",
    "Direction",
    "Rule",
    "actor_rule",
    "app_rule",
    "built_in_rule",
    "component_rule",
    "default_actor_rule",
    "default_app_rule",
]

T = TypeVar("T")

Direction = Literal["inbound", "outbound"]


@frozen
class Rule:
    """The effective policies of a target, and by sort (timeout, retry, breaker) where each comes from. Two
    that say the same are equal wherever they come from.
    """

    timeout: float = 0.0
    retry: RetryRule | None = None
    breaker: BreakerSettings | None = None
    origins: Mapping[str, str] = field(factory=dict, eq=False)
    timeout_name: str = ""

    @property
    def empty(self) -> bool:
        return not self.timeout and self.retry is None and self.breaker is None


EMPTY_RULE = Rule()


def app_rule(tables: Tables, app_id: str) -> Rule:
    target = tables.apps.get(app_id)
    if target is None:
        return default_app_rule(tables)
    return _named_rule(tables, target.value.policies, f"Resiliency {target.resource}: targets.apps.{app_id}")


def default_app_rule(tables: Tables) -> Rule:
    """For applications that no resource names."""
    return _default_rule(tables, ("App",))


def default_actor_rule(tables: Tables) -> Rule:
    """For actor types that no resource names."""
    return _default_rule(tables, ("Actor",))


def component_rule(tables: Tables, name: str, kind: str, direction: Direction) -> Rule:
    target = tables.components.get(name)
    if target is None:
        word = direction.capitalize()
        return _default_rule(tables, (f"{kind}Component{word}", f"Component{word}", "Component"))
    names = target.value.inbound if direction == "inbound" else target.value.outbound
    return _named_rule(tables, names, f"Resiliency {target.resource}: targets.components.{name}.{direction}")


def actor_rule(tables: Tables, actor_type: str) -> Rule:
    target = tables.actors.get(actor_type)
    if target is None:
        return default_actor_rule(tables)
    return _named_rule(
        tables, target.value.policies, f"Resiliency {target.resource}: targets.actors.{actor_type}"
    )


def built_in_rule(tables: Tables, name: str) -> Rule:
    entry = tables.retries[name]
    return Rule(retry=entry.value, origins={"retry": _origin(entry, "built in")})


def _named_rule(tables: Tables, names: PolicyNames, where: str) -> Rule:
    return _rule(
        tables.timeouts.get(names.timeout),
        tables.retries.get(names.retry),
        tables.breakers.get(names.circuit_breaker),
        where,
        names.timeout,
    )


def _default_rule(tables: Tables, levels: Sequence[str]) -> Rule:
    timeout_name, timeout = _default(tables.timeouts, levels, "Timeout")
    _, retry = _default(tables.retries, levels, "Retry")
    _, breaker = _default(tables.breakers, levels, "CircuitBreaker")
    return _rule(timeout, retry, breaker, "", timeout_name)


def _default(
    table: Mapping[str, Sourced[T]], levels: Sequence[str], sort: str
) -> tuple[str, Sourced[T] | None]:
    for level in (*levels, ""):
        name = f"Default{level}{sort}Policy"
        if name in table:
            return name, table[name]
    return "", None


def _rule(
    timeout: Sourced[float] | None,
    retry: Sourced[RetryRule] | None,
    breaker: Sourced[BreakerSettings] | None,
    where: str,
    timeout_name: str,
) -> Rule:
    found = {"timeout": timeout, "retry": retry, "breaker": breaker}
    origins = {sort: where or _origin(entry, "default by name") for sort, entry in found.items() if entry}
    return Rule(
        timeout=max(timeout.value, 0.0) if timeout else 0.0,
        retry=retry.value if retry else None,
        breaker=breaker.value if breaker else None,
        origins=origins,
        timeout_name=timeout_name,
    )


def _origin(entry: Sourced[Any], how: str) -> str:
    return f"Resiliency {entry.resource}, {how}" if entry.resource else how
