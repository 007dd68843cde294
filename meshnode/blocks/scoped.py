"""Operations under a target's policy, tied to the request they belong to: its deadline and its view."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from meshnode.blocks.call import Call
from meshnode.cluster import PeerUnavailable
from meshnode.resiliency import Policies, Policy, run, run_stream, unwrap
from meshnode.transport import ConnectionLost

__all__ = ["scoped", "scoped_app_call", "scoped_stream"]

T = TypeVar("T")
Commit = Callable[[], None]


def _nothing() -> None: ...


def _always() -> bool:
    return True


async def scoped(
    policy: Policy,
    operation: Callable[[], Awaitable[T]],
    call: Call,
    *,
    stop: trio.Event | None = None,
) -> T:
    """Run `operation` under a component's policy; without one that is a plain call.

    Either way a lone error that comes out of a driver's nursery in a group leaves it here.
    """
    if policy.is_noop:
        try:
            return await operation()
        except ExceptionGroup as group:
            error = unwrap(group)
            if error is group:
                raise
        raise error
    view = call.watched(policy, policy.target)
    return await run(policy, operation, deadline=call.ends, view=view, stop=stop)


async def scoped_app_call(
    policies: Policies, app_id: str, method: str, operation: Callable[[], Awaitable[T]], call: Call
) -> T:
    """A call on an application, the user's policy around the built-in retries of connecting.

    The latter only repeat a call that surely reached nobody; an app that is a target of its own has none.
    """

    async def streamed(commit: Commit) -> T:
        return await operation()

    return await scoped_stream(policies, app_id, method, streamed, call, _always)


async def scoped_stream(
    policies: Policies,
    app_id: str,
    method: str,
    operation: Callable[[Commit], Awaitable[T]],
    call: Call,
    replayable: Callable[[], bool],
) -> T:
    """As `scoped_app_call`, for a call that may be repeated until its first response message, and while its
    requests can be replayed.
    """
    call.target = app_id
    policy, connection = policies.for_app(app_id, method), policies.for_connection(app_id)
    if policy.is_noop:
        return await _connecting(connection, operation, call, replayable)

    async def inner(commit: Commit) -> T:
        if connection.is_noop:
            return await operation(commit)
        return await _connecting(connection, operation, call, replayable, commit)

    def again(error: Exception) -> bool:
        return replayable()

    view = call.watched(policy, policy.target)
    return await run_stream(policy, inner, deadline=call.ends, retriable=again, view=view)


async def _connecting(
    connection: Policy,
    operation: Callable[[Commit], Awaitable[T]],
    call: Call,
    replayable: Callable[[], bool],
    outer: Commit = _nothing,
) -> T:
    """Under the built-in retries. The first try goes without their scopes: mostly it is the only one."""

    def again(error: Exception) -> bool:
        return replayable() and _reached_nobody(error)

    try:
        return await operation(outer)
    except (ConnectionLost, PeerUnavailable) as error:
        if connection.is_noop or not again(error):
            raise

    async def attempt(commit: Commit) -> T:
        def both() -> None:
            commit()
            outer()

        return await operation(both)

    view = call.watched(connection, call.target)
    return await run_stream(connection, attempt, deadline=call.ends, retriable=again, view=view)


def _reached_nobody(error: Exception) -> bool:
    return isinstance(error, PeerUnavailable) or (isinstance(error, ConnectionLost) and not error.sent)
