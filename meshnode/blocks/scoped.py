"""One operation under a target's policy, tied to the request it belongs to: its deadline and its view."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from meshnode.blocks.call import Call
from meshnode.resiliency import Policy, run

__all__ = ["scoped"]

T = TypeVar("T")


async def scoped(policy: Policy, operation: Callable[[], Awaitable[T]], call: Call) -> T:
    """Run `operation`; without a policy that is a plain call."""
    if policy.is_noop:
        return await operation()
    return await run(policy, operation, deadline=call.ends, view=call.watched(policy.target))
