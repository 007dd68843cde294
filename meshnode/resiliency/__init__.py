"""Timeouts, retries, circuit breakers and retry budgets.

`policy` resolves a target to what holds for it; `scope` runs an operation under that. Inside, from the
bottom: `backoff`, `breaker`, `budget`, `outcome`, `view` (pure, independent of one another), then `tables`,
`rules`, `explain`, `policy` (pure but for the log), then `scope`, which alone waits. May import
`meshnode.config`, `meshnode.errors`.
"""

from __future__ import annotations

from meshnode.resiliency._goformat import go_duration
from meshnode.resiliency.breaker import BreakerSnapshot, State
from meshnode.resiliency.outcome import AttemptTimeout, Stopped, code_of, unwrap
from meshnode.resiliency.policy import NO_POLICY, Policies, Policy
from meshnode.resiliency.rules import Direction, Rule
from meshnode.resiliency.scope import Commit, Retriable, run, run_stream
from meshnode.resiliency.view import Attempt, RequestView

__all__ = [
    "NO_POLICY",
    "Attempt",
    "AttemptTimeout",
    "BreakerSnapshot",
    "Commit",
    "Direction",
    "Policies",
    "Policy",
    "RequestView",
    "Retriable",
    "Rule",
    "State",
    "Stopped",
    "code_of",
    "go_duration",
    "run",
    "run_stream",
    "unwrap",
]
