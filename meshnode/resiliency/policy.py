"""What holds for each target, resolved once and kept, with the breakers that a node's requests share.

`Policies.build` reads the resources; `for_app`, `for_component`, `for_actor` answer in one or two dict
lookups. A target without policies gets `NO_POLICY`, which `scope.run` passes straight through. Resolved
policies live in bounded caches, since method and actor ids come from callers; a breaker lives as long as
its cache entry (`circuitBreakerCacheSize`).

Pure but for the log: no clock, no sleep. May import `meshnode.config`, `meshnode.errors` and its own package.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from attrs import evolve

from meshnode.resiliency._groups import NO_POLICY, Group, Groups, Policy
from meshnode.resiliency.breaker import Breaker, BreakerSettings, BreakerSnapshot, State
from meshnode.resiliency.budget import RetryBudget
from meshnode.resiliency.rules import (
    Direction,
    Rule,
    actor_rule,
    app_rule,
    built_in_rule,
    component_rule,
    default_actor_rule,
    default_app_rule,
)
from meshnode.resiliency.tables import BUILT_IN_SERVICE, Tables, merge

if TYPE_CHECKING:
    from meshnode.config.resiliency import Resiliency

__all__ = ["NO_POLICY", "Policies", "Policy"]

_log = logging.getLogger("meshnode.resiliency")


@final
class Policies:
    """Every policy of a node. One per node; used from one thread."""

    def __init__(self, tables: Tables, rng: random.Random) -> None:
        self._tables = tables
        self._rng = rng
        self._apps = Groups(
            {
                app_id: Group(app_rule(tables, app_id), target.value.circuit_breaker_cache_size)
                for app_id, target in tables.apps.items()
            },
            default_app_rule(tables),
        )
        self._actors = Groups(
            {
                name: Group(actor_rule(tables, name), target.value.cache_size)
                for name, target in tables.actors.items()
            },
            default_actor_rule(tables),
        )
        self._components: dict[tuple[str, str, Direction], Policy] = {}
        self._component_breakers: dict[tuple[str, str], Breaker] = {}
        self._built_in: dict[str, Policy] = {}
        self._budgets: dict[str, RetryBudget] = {}

    @classmethod
    def build(
        cls,
        resiliencies: Sequence[Resiliency],
        app_id: str,
        namespace: str = "",
        *,
        rng: random.Random | None = None,
    ) -> Policies:
        """The policies that hold for the node of `app_id`; raises `ConfigError` with every mistake found."""
        return cls(merge(resiliencies, app_id, namespace), rng or random.Random())

    def adopt(self, other: Policies) -> frozenset[str]:
        """Go by the rules of `other`, which nobody uses yet; returns the components whose policies are no
        longer what they were.

        What holds as before keeps its policy, so an open breaker stays open.
        """
        before, now = self._tables, other._tables
        budgets = {name for name in {*before.budgets, *now.budgets}
                   if before.budgets.get(name) != now.budgets.get(name)}  # fmt: skip

        def same_actors(name: str) -> bool:
            return name not in budgets and before.actors[name].value.per_id == now.actors[name].value.per_id

        other._apps.succeed(self._apps, lambda name: name not in budgets, same_defaults=not budgets)
        other._actors.succeed(self._actors, same_actors, same_defaults=not budgets)
        self._tables, self._apps, self._actors = now, other._apps, other._actors
        self._built_in.clear()
        for target in [one for one in self._budgets if one.partition("/")[2] in budgets]:
            del self._budgets[target]
        for key, breaker in list(self._component_breakers.items()):
            entry = now.breakers.get(key[0])
            if entry is None or entry.value != breaker.settings:
                del self._component_breakers[key]
        changed = {
            key
            for key in self._components
            if key[0] in budgets or component_rule(before, *key) != component_rule(now, *key)
        }
        for one in changed:
            del self._components[one]
        return frozenset(name for name, _, _ in changed)

    def for_app(self, app_id: str, method: str = "") -> Policy:
        """For calls of `method` on an application. Breakers are per method, as in Dapr."""
        group = self._apps.find(app_id)
        if group is None or group.rule.empty:
            return NO_POLICY
        return group.policies.get(method) or self._app_policy(group, app_id, method)

    def for_connection(self, app_id: str) -> Policy:
        """For reaching the node of an application, around or instead of `for_app`.

        Dapr's built-in service retries hold for every app that has no target of its own; only a failure to
        connect may be retried under them, which the caller's `retriable` has to see to.
        """
        if app_id in self._tables.apps:
            return NO_POLICY
        return self.built_in(BUILT_IN_SERVICE)

    def for_component(self, name: str, kind: str, direction: Direction = "outbound") -> Policy:
        """For calls to or from a component; `kind` as in the names of default policies: `Statestore`…"""
        key = (name, kind, direction)
        policy = self._components.get(key)
        if policy is None:
            policy = self._components[key] = self._component_policy(name, kind, direction)
        return policy

    def for_actor(self, actor_type: str, actor_id: str) -> Policy:
        """For getting a turn on an actor: retry and breaker; no timeout, since turns are waited for."""
        group = self._actors.find(actor_type)
        if group is None or (group.rule.retry is None and group.rule.breaker is None):
            return NO_POLICY
        return group.policies.get(actor_id) or self._actor_policy(group, actor_type, actor_id)

    def for_actor_turn(self, actor_type: str, actor_id: str) -> Policy:
        """For the turn itself: the timeout alone."""
        group = self._actors.find(actor_type)
        if group is None or not group.rule.timeout:
            return NO_POLICY
        return Policy(f"actor[{actor_type}, {actor_id}]", f"actor/{actor_type}", timeout=group.rule.timeout)

    def built_in(self, name: str) -> Policy:
        """One of Dapr's built-in retries, or what a resource puts in its place.

        It has no budget: what it repeats never reached a target.
        """
        policy = self._built_in.get(name)
        if policy is None:
            policy = Policy(name, "", retry=built_in_rule(self._tables, name).retry, rng=self._rng)
            self._built_in[name] = policy
        return policy

    def breakers(self, now: float) -> list[BreakerSnapshot]:
        """Every breaker that has been used, for the admin API."""
        found = (*self._apps.breakers(), *self._actors.breakers(), *self._component_breakers.values())
        return [breaker.snapshot(now) for breaker in found]

    def explain(self, target: str, *, kind: str = "") -> list[str]:
        """What holds for `app/ID`, `component/NAME[/inbound]` or `actor/TYPE`, and where it comes from."""
        from meshnode.resiliency.explain import explain

        return explain(self._tables, target, kind)

    def rule(self, target: str, *, kind: str = "") -> Rule:
        """The same as values; targets as in `explain`."""
        from meshnode.resiliency.explain import rule_of

        return rule_of(self._tables, target, kind)

    def _app_policy(self, group: Group, app_id: str, method: str) -> Policy:
        endpoint = f"{app_id}:{method}" if method else app_id
        target = f"app/{app_id}"
        rule = group.rule
        breaker = _new_breaker(endpoint, rule.breaker, target) if rule.breaker else None
        policy = self._policy(f"endpoint[{app_id}, {endpoint}]", target, rule, breaker)
        group.policies.put(method, policy)
        return policy

    def _actor_policy(self, group: Group, actor_type: str, actor_id: str) -> Policy:
        target = f"actor/{actor_type}"
        rule = evolve(group.rule, timeout=0.0)
        breaker = group.shared_breaker
        if breaker is None and rule.breaker is not None:
            entry = self._tables.actors.get(actor_type)
            if entry is not None and entry.value.per_id:
                breaker = _new_breaker(f"{actor_type}-{actor_id}", rule.breaker, target)
            else:
                breaker = group.shared_breaker = _new_breaker(actor_type, rule.breaker, target)
        policy = self._policy(f"actor[{actor_type}, {actor_id}]", target, rule, breaker)
        group.policies.put(actor_id, policy)
        return policy

    def _component_policy(self, name: str, kind: str, direction: Direction) -> Policy:
        rule = component_rule(self._tables, name, kind, direction)
        if rule.empty:
            return NO_POLICY
        target = f"component/{name}"
        way = "input" if direction == "inbound" else "output"
        breaker = None
        if rule.breaker is not None:
            # Both directions share a breaker where they name the same one, as the name in the log suggests.
            key = (rule.breaker.template, name)
            breaker = self._component_breakers.get(key)
            if breaker is None:
                breaker = _new_breaker(f"{rule.breaker.template}-{name}", rule.breaker, target)
                self._component_breakers[key] = breaker
        return self._policy(f"component[{name}] {way}", target, rule, breaker)

    def _policy(self, name: str, target: str, rule: Rule, breaker: Breaker | None) -> Policy:
        return Policy(
            name,
            target,
            timeout=rule.timeout,
            retry=rule.retry,
            breaker=breaker,
            budget=self._budget(target),
            rng=self._rng,
        )

    def _budget(self, target: str) -> RetryBudget | None:
        """One a target: an app and a component of the same name each have their own."""
        share = self._tables.budgets.get(target.partition("/")[2])
        if share is None:
            return None
        return self._budgets.setdefault(target, RetryBudget(share))


def _new_breaker(name: str, settings: BreakerSettings, target: str) -> Breaker:
    return Breaker(name, settings, target=target, on_change=_log_change)


def _log_change(name: str, before: State, after: State) -> None:
    _log.info('Circuit breaker "%s" changed state from %s to %s', name, before.value, after.value)
