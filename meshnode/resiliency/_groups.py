"""A policy, and the policies of applications and actor types: resolved as they turn up, and kept within
bounds, because it is callers who name methods, applications and actors. Pure.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Final, final

from attrs import field, frozen

from meshnode.resiliency._lru import Lru
from meshnode.resiliency.breaker import Breaker
from meshnode.resiliency.budget import RetryBudget
from meshnode.resiliency.rules import Rule
from meshnode.resiliency.tables import RetryRule

__all__ = ["NO_POLICY", "Group", "Groups", "Policy"]

_DEFAULT_CACHE: Final = 100
"""Endpoints of an app, or actors of a type, that are only covered by defaults."""

_DEFAULT_TARGETS: Final = 1000
"""Apps and actor types that are only covered by defaults."""


@frozen(eq=False)
class Policy:
    """What `scope.run` goes by. `name` is what logs call the operation, `target` what it is aimed at."""

    name: str
    target: str
    timeout: float = 0.0
    retry: RetryRule | None = None
    breaker: Breaker | None = None
    budget: RetryBudget | None = None
    rng: random.Random = field(factory=random.Random, repr=False)
    is_noop: bool = field(init=False)

    @is_noop.default
    def _is_noop(self) -> bool:
        return not self.timeout and self.retry is None and self.breaker is None

    @property
    def most_attempts(self) -> float:
        """How often an operation may be tried."""
        if self.retry is None:
            return 1
        return math.inf if self.retry.backoff.unlimited else 1 + self.retry.backoff.max_retries


NO_POLICY: Final = Policy("", "")


@final
class Group:
    """The policies of one app's endpoints or one type's actors, under one rule."""

    __slots__ = ("cache_size", "policies", "rule", "shared_breaker")

    def __init__(self, rule: Rule, cache_size: int) -> None:
        self.rule = rule
        self.cache_size = cache_size
        self.policies: Lru[str, Policy] = Lru(cache_size)
        self.shared_breaker: Breaker | None = None


@final
class Groups:
    """Groups by name: those that resources name, and as they turn up those that only the defaults cover."""

    __slots__ = ("_default", "_named", "_others")

    def __init__(self, named: Mapping[str, Group], default: Rule) -> None:
        self._named = dict(named)
        self._default = default
        self._others: Lru[str, Group] = Lru(_DEFAULT_TARGETS)

    def find(self, name: str) -> Group | None:
        group = self._named.get(name)
        if group is None and not self._default.empty:
            group = self._others.get(name)
            if group is None:
                group = Group(self._default, _DEFAULT_CACHE)
                self._others.put(name, group)
        return group

    def breakers(self) -> Iterator[Breaker]:
        for group in (*self._named.values(), *self._others.values()):
            if group.shared_breaker is not None:
                yield group.shared_breaker
            else:
                yield from (policy.breaker for policy in group.policies.values() if policy.breaker)

    def succeed(self, before: Groups, same: Callable[[str], bool], *, same_defaults: bool) -> None:
        """Take over from `before` the groups under rules that have not changed, with what they know of their
        targets. `same` says by name whether all else that its policies are made of is the same.
        """
        for name, old in before._named.items():
            new = self._named.get(name)
            if new is not None and new.rule == old.rule and new.cache_size == old.cache_size and same(name):
                self._named[name] = old
        if same_defaults and before._default == self._default:
            self._others = before._others
