"""Frozen models of the Resiliency resource (dapr.io/v1alpha1, kind Resiliency), as loaded: names not
resolved yet.

Durations are seconds (float). Policies are looked up by name in `policies`; targets name them.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from meshnode.config.backoff import Backoff
from meshnode.config.source import Source

__all__ = [
    "ActorTarget",
    "AppTarget",
    "Backoff",
    "BreakerPolicy",
    "ComponentTarget",
    "PolicyNames",
    "Resiliency",
    "RetryMatching",
    "RetryPolicy",
]


@frozen
class RetryMatching:
    """Which gRPC codes are retried (`gRPCStatusCodes`: `1,2,5-7`) as a set of ints; None means all.
    `http_status_codes` is kept for round-trips only.
    """

    grpc_codes: frozenset[int] | None = None
    http_status_codes: str = ""


@frozen
class RetryPolicy:
    """`duration` seconds between attempts (constant), `max_interval` the cap (exponential), `max_retries` -1
    for ever.
    """

    policy: Backoff = Backoff.CONSTANT
    duration: float = 5.0
    max_interval: float = 60.0
    max_retries: int = -1
    matching: RetryMatching = RetryMatching()


@frozen
class BreakerPolicy:
    """`interval` 0 never clears counts while closed; `trip` is the CEL text, empty for Dapr's default
    `consecutiveFailures > 5`.
    """

    max_requests: int = 1
    interval: float = 0.0
    timeout: float = 60.0
    trip: str = ""


@frozen
class PolicyNames:
    """The three policies a target names; empty string where it names none."""

    timeout: str = ""
    retry: str = ""
    circuit_breaker: str = ""


@frozen
class AppTarget:
    policies: PolicyNames
    circuit_breaker_cache_size: int = 5000


@frozen
class ActorTarget:
    policies: PolicyNames
    circuit_breaker_scope: str = ""
    circuit_breaker_cache_size: int = 5000


@frozen
class ComponentTarget:
    inbound: PolicyNames = PolicyNames()
    outbound: PolicyNames = PolicyNames()


@frozen
class Resiliency:
    """One Resiliency resource. `retry_budgets` is ours (DESIGN 5): target app id or component name -> share
    (0..1) of recent traffic.
    """

    name: str
    namespace: str = ""
    scopes: tuple[str, ...] = ()
    timeouts: Mapping[str, float] = field(factory=dict)
    retries: Mapping[str, RetryPolicy] = field(factory=dict)
    circuit_breakers: Mapping[str, BreakerPolicy] = field(factory=dict)
    apps: Mapping[str, AppTarget] = field(factory=dict)
    actors: Mapping[str, ActorTarget] = field(factory=dict)
    components: Mapping[str, ComponentTarget] = field(factory=dict)
    retry_budgets: Mapping[str, float] = field(factory=dict)
    source: Source = field(default=Source(), eq=False, repr=False)
