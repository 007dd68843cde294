"""Operations under a target's policy, tied to the request they belong to: its deadline and its view."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from meshnode.blocks.call import Call
from meshnode.cluster import PeerUnavailable
from meshnode.resiliency import Policies, Policy, run, run_stream
from meshnode.transport import ConnectionLost

__all__ = ["scoped", "scoped_app_call", "scoped_stream"]

T = TypeVar("T")


async def scoped(policy: Policy, operation: Callable[[], Awaitable[T]], call: Call) -> T:
    """Run `operation` under a component's policy; without one that is a plain call."""
    if policy.is_noop:
        return await operation()
    return await run(policy, operation, deadline=call.ends, view=call.watched(policy.target))


async def scoped_app_call(
    policies: Policies, app_id: str, method: str, operation: Callable[[], Awaitable[T]], call: Call
) -> T:
    """Run a call on an application: under the user's policy, or else under the built-in retries, which only
    ever repeat a call that surely reached nobody."""
    policy = policies.for_app(app_id, method)
    if not policy.is_noop:
        return await run(policy, operation, deadline=call.ends, view=call.watched(policy.target))
    policy = policies.for_connection(app_id)
    return await run(
        policy, operation, deadline=call.ends, retriable=_reached_nobody, view=call.watched(app_id)
    )


async def scoped_stream(
    policies: Policies,
    app_id: str,
    method: str,
    operation: Callable[[Callable[[], None]], Awaitable[T]],
    call: Call,
    replayable: Callable[[], bool],
) -> T:
    """As `scoped_app_call`, for a call that may be repeated until its first response message, and while its
    requests can be replayed.
    """
    policy = policies.for_app(app_id, method)
    if policy.is_noop:
        policy = policies.for_connection(app_id)

        def retriable(error: Exception) -> bool:
            return replayable() and _reached_nobody(error)
    else:

        def retriable(error: Exception) -> bool:
            return replayable()

    view = call.watched(policy.target or app_id)
    return await run_stream(policy, operation, deadline=call.ends, retriable=retriable, view=view)


def _reached_nobody(error: Exception) -> bool:
    return isinstance(error, PeerUnavailable) or (isinstance(error, ConnectionLost) and not error.sent)
