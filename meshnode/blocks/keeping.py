"""What every delivery into the application shares: consumers that outlive the absences of what they consume,
and waiting while nothing may be delivered.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, final

import trio

from meshnode.app import AppChannel
from meshnode.blocks.unary import Answer, Encodable, call_unary
from meshnode.errors import CircuitOpen, MeshError
from meshnode.resiliency import Policy, run, unwrap
from meshnode.transport import ConnectionLost, Deadline, GRPCError

__all__ = [
    "ask_app",
    "call_app",
    "first_of",
    "keep_going",
    "pause_for_breaker",
    "unless_stopped",
    "wait_for_app",
]

T = TypeVar("T")

_log = logging.getLogger("meshnode.inbound")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0
"""Seconds between looks at a breaker that is half-open and busy with its probe: everybody who waits looks."""


@final
class _Pause:
    """Seconds before each further try: they double, up to half a minute, and start over after success."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def succeeded(self) -> None:
        self._next = _FIRST_PAUSE

    def next(self) -> float:
        pause, self._next = self._next, min(self._next * 2, _LONGEST_PAUSE)
        return pause


async def keep_going(
    what: str,
    consume: Callable[..., Awaitable[object]],
    stop: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    patient: bool = True,
) -> None:
    """Run `consume(task_status=…)` until `stop`, again and again after it has failed; `what` is its name in
    the log.

    Started when it has started for the first time. Unless `patient`, a failure before that is raised. A stop
    ends what has not started yet; what has ends by itself.
    """
    pause, began = _Pause(), False
    while True:
        error: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                if await _started(nursery, consume, stop):
                    pause.succeeded()
                    if not began:
                        began = True
                        task_status.started()
        except* Exception as raised:  # the boundary around a component: its failure is not the node's,
            error = unwrap(raised)  # and where it fails because it was cancelled, that goes on
        if not began and not patient and error is not None and not stop.is_set():
            raise error
        if not stop.is_set():
            await _wait(what, error, pause.next(), stop)
        if stop.is_set():
            if not began:
                task_status.started()
            return


async def _started(
    nursery: trio.Nursery, consume: Callable[..., Awaitable[object]], stop: trio.Event
) -> bool:
    """Whether it has; where the stop comes first it is cancelled, since nothing has been taken yet."""
    started = False
    async with trio.open_nursery() as starting:

        async def end() -> None:
            await stop.wait()
            starting.cancel_scope.cancel()

        starting.start_soon(end)
        await nursery.start(consume)
        started = True
        starting.cancel_scope.cancel()
    return started


async def _wait(what: str, error: Exception | None, seconds: float, stop: trio.Event) -> None:
    reason = error if error is not None else "it ended by itself"
    known = error is None or isinstance(error, MeshError)
    text = "%s was interrupted: %s. Trying again in %gs"
    _log.error(text, what, reason, seconds, exc_info=None if known else error)
    await unless_stopped(seconds, stop)


async def unless_stopped(seconds: float, stop: trio.Event) -> None:
    """Wait so long, or until the stop."""
    with trio.move_on_after(seconds):
        await stop.wait()


async def pause_for_breaker(policy: Policy, stop: trio.Event, refusals: int) -> None:
    """Wait until what refused so often in a row, the breaker or the way to the application, may let somebody
    through.
    """
    seconds = policy.breaker.opens_in(trio.current_time()) if policy.breaker is not None else 0.0
    look = min(_FIRST_LOOK * 2 ** min(refusals, 10), _LONGEST_LOOK)
    await unless_stopped(max(seconds, look), stop)


async def wait_for_app(app: AppChannel, stop: trio.Event) -> bool:
    """True once the application may be called; False where the stop comes first."""
    while not app.healthy and not stop.is_set():
        await first_of(app.wait_healthy, stop.wait)
    return not stop.is_set()


async def call_app(
    app: AppChannel,
    path: bytes,
    request: Encodable,
    deadline: Deadline | None,
    headers: Sequence[tuple[bytes, bytes]],
) -> Answer:
    """Hand an event to the application. Raises `CircuitOpen` where it surely did not get there, because the
    application reports unhealthy or is not there at all: that says nothing about the event, which can wait.
    """
    if not app.healthy:
        raise CircuitOpen("app is not in a healthy state")
    channel = app.channel
    try:
        async with app.admitted():
            return await call_unary(channel, path, request, deadline, [*headers, *app.own_headers()])
    except ConnectionLost as error:
        if error.sent:
            raise
        raise CircuitOpen(f"the application cannot be reached: {error.message}") from error


async def ask_app(
    what: str, app: AppChannel, ask: Callable[[], Awaitable[T]], policy: Policy, stop: trio.Event
) -> T | None:
    """What the application answers when it is asked for `what` at its start; None where the stop comes first.

    One that cannot answer is asked again, for as long as it takes: without the answer it would get nothing.
    """
    pause, answers = _Pause(), []

    async def asking() -> None:
        answers.append(await run(policy, ask, stop=stop))

    while await wait_for_app(app, stop):
        error: Exception | None = None
        try:
            await first_of(asking, stop.wait)
        except* Exception as raised:  # whatever it was, it is the application's
            error = unwrap(raised)
        if answers:
            return answers[0]
        if error is not None and not stop.is_set():
            seconds = pause.next()
            reason = error.message if isinstance(error, GRPCError) else error
            _log.error("error getting %s from app: %s. Asking again in %gs", what, reason, seconds)
            await unless_stopped(seconds, stop)
    return None


async def first_of(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when one of them has; the others are cancelled."""
    async with trio.open_nursery() as nursery:

        async def one(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
            await wait()
            scope.cancel()

        for wait in waits:
            nursery.start_soon(one, wait, nursery.cancel_scope)
