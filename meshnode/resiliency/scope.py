"""Running an operation under a policy: the only module of resiliency that waits.

From the outside in: the request's deadline, the retries, the breaker, the attempt's timeout.

- Attempts follow one another in the caller's own task. An attempt that timed out has ended, its `finally`
  blocks included, before anything else happens; a caller that is cancelled takes the running attempt with
  it.
- The deadline is enforced by the scope of the caller, who knows it; here it only keeps a wait that would
  outlast it from beginning. The last error is raised instead.
- The breaker hears of every attempt exactly once. A cancelled one is given back uncounted.
- An open breaker ends a limited policy at once. One without limit waits for its own interval or the
  half-open moment, whichever is later, and goes on; so it does where the retry budget is spent.

Invariant: no task, no nursery, no state outlives `run`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar, final

import trio
from grpclib.const import Status

from meshnode.errors import CircuitOpen
from meshnode.resiliency._goformat import go_duration
from meshnode.resiliency.backoff import Backoff
from meshnode.resiliency.outcome import (
    AttemptTimeout,
    Stopped,
    Verdict,
    code_of,
    is_permanent,
    matches,
    message_of,
    unwrap,
    verdict_of,
)
from meshnode.resiliency.policy import Policy
from meshnode.resiliency.view import Attempt, RequestView

__all__ = ["Commit", "Retriable", "run", "run_stream"]

_log = logging.getLogger("meshnode.resiliency")

T = TypeVar("T")

Retriable = Callable[[Exception], bool]
Commit = Callable[[], None]

_MIN_REFUSED_WAIT: Final = 0.05
"""Seconds before a refused attempt is tried again: while others probe, an interval of 0 must not spin."""


async def run(
    policy: Policy,
    operation: Callable[[], Awaitable[T]],
    *,
    deadline: float | None = None,
    retriable: Retriable | None = None,
    view: RequestView | None = None,
    stop: trio.Event | None = None,
) -> T:
    """The result of `operation`, called once or more as `policy` has it.

    `deadline` is a time of the trio clock. `retriable` may keep an error from being retried, never make it
    so. Raises the last attempt's error, taken out of groups of one; `Stopped` where `stop` ended the waiting
    for the next attempt.
    """
    if policy.is_noop:
        return await operation()
    return await _Run(policy, deadline, retriable, view, stop).until_done(operation)


async def run_stream(
    policy: Policy,
    operation: Callable[[Commit], Awaitable[T]],
    *,
    deadline: float | None = None,
    retriable: Retriable | None = None,
    view: RequestView | None = None,
) -> T:
    """As `run`, for an operation that may only be repeated until its first response message.

    The operation calls the `commit` it is given right before it passes that message on. From then on
    nothing is retried, the attempt's timeout is lifted, and the breaker counts a success. `commit` raises
    where the timeout came first: the message must not be passed on then, the attempt is over.
    """
    if policy.is_noop:
        return await operation(_nothing)
    this = _Run(policy, deadline, retriable, view)
    return await this.until_done(partial(operation, this.commit))


def _nothing() -> None: ...


@final
class _Run:
    """One operation under way."""

    __slots__ = (
        "_admission",
        "_attempts",
        "_backoff",
        "_committed",
        "_deadline",
        "_notified",
        "_owing",
        "_policy",
        "_refused",
        "_retriable",
        "_scope",
        "_started",
        "_stop",
        "_view",
    )

    def __init__(
        self,
        policy: Policy,
        deadline: float | None,
        retriable: Retriable | None,
        view: RequestView | None,
        stop: trio.Event | None = None,
    ) -> None:
        self._policy = policy
        self._deadline = deadline
        self._retriable = retriable
        self._view = view
        self._stop = stop
        self._started = trio.current_time()
        self._backoff: Backoff | None = None
        self._scope: trio.CancelScope | None = None
        self._admission: int | None = None  # what the breaker still has to hear about
        self._owing: Exception | None = None  # the error whose retry the budget has not paid for yet
        self._refused = False  # the latest attempt was not let out
        self._committed = False
        self._notified = False
        self._attempts = 0

    async def until_done(self, operation: Callable[[], Awaitable[T]]) -> T:
        if self._policy.budget is not None:
            self._policy.budget.deposit(self._started)
        while True:
            try:
                result = await self._attempt(operation)
            except Exception as error:
                wait = self._next_wait(error)
                if wait is None:
                    raise
                self._notify(error, wait)
            else:
                if self._notified:
                    _log.info(
                        "Recovered processing operation %s after %d attempts",
                        self._policy.name,
                        self._attempts,
                    )
                return result
            # Outside the handler, so that the error and what its traceback holds are free while we sleep.
            await self._pause(wait)

    async def _pause(self, seconds: float) -> None:
        if self._stop is None:
            await trio.sleep(seconds)
            return
        with trio.move_on_after(seconds):
            await self._stop.wait()
        if self._stop.is_set():
            raise Stopped(f"{self._policy.name} was to be tried again, but the node is shutting down")

    def commit(self) -> None:
        if self._committed:
            return
        if self._scope is not None:
            if self._scope.cancel_called:
                raise AttemptTimeout
            self._scope.deadline = math.inf
        self._committed = True
        self._settle(Verdict.HEALTHY)

    async def _attempt(self, operation: Callable[[], Awaitable[T]]) -> T:
        """One try: admitted, timed, reported to the breaker and the view."""
        now = trio.current_time()
        record = None if self._view is None else self._view.begin(now)
        try:
            self._admit(now)
            self._attempts += 1
            result = await self._timed(operation, now)
        except Exception as caught:
            error = unwrap(caught)
            self._settle(verdict_of(error))
            if record is not None:
                record.refused = self._refused
                _close(record, code_of(error), message_of(error))
            if error is caught:
                raise
            raise error from None
        except BaseException:
            if record is not None:
                _close(record, Status.CANCELLED, "")
            raise
        else:
            self._settle(Verdict.HEALTHY)
            if record is not None:
                _close(record, Status.OK, "")
            return result
        finally:
            self._settle(Verdict.NOTHING)

    async def _timed(self, operation: Callable[[], Awaitable[T]], now: float) -> T:
        timeout = self._policy.timeout
        if not timeout:
            return await operation()
        with trio.CancelScope(deadline=now + timeout) as self._scope:
            return await operation()
        raise AttemptTimeout

    def _admit(self, now: float) -> None:
        self._refused = True
        if self._owing is not None and self._policy.budget is not None:
            if not self._policy.budget.withdraw(now):
                raise self._owing.with_traceback(None)
            self._owing = None
        if self._policy.breaker is not None:
            self._admission = self._policy.breaker.admit(now)
        self._refused = False

    def _settle(self, verdict: Verdict) -> None:
        """Tell the breaker, if it has not been told."""
        breaker, admission = self._policy.breaker, self._admission
        if breaker is None or admission is None:
            return
        self._admission = None
        now = trio.current_time()
        if verdict is Verdict.HEALTHY:
            breaker.success(admission, now)
        elif verdict is Verdict.FAILED:
            breaker.failure(admission, now)
        else:
            breaker.release(admission, now)

    def _next_wait(self, error: Exception) -> float | None:
        """Seconds until the next attempt; None where `error` is the answer."""
        policy = self._policy
        retry = policy.retry
        if retry is None or not self._may_repeat(error):
            return None
        if self._backoff is None:
            self._backoff = Backoff(retry.backoff, policy.rng)
        now = trio.current_time()
        wait = self._backoff.next(now - self._started)
        if wait is None:
            return None
        if self._refused:
            wait = max(wait, policy.breaker.opens_in(now) if policy.breaker else 0.0, _MIN_REFUSED_WAIT)
        if self._deadline is not None and now + wait >= self._deadline:
            return None
        if not self._refused and policy.budget is not None and not policy.budget.withdraw(now):
            if not retry.backoff.unlimited:
                _log.info("Retry budget of %s is spent; not retrying %s", policy.target, policy.name)
                return None
            self._owing = error
        return wait

    def _may_repeat(self, error: Exception) -> bool:
        retry = self._policy.retry
        assert retry is not None
        if self._committed:
            return False
        if self._refused or isinstance(error, CircuitOpen):
            return retry.backoff.unlimited
        if is_permanent(error) or not matches(retry.codes, error):
            return False
        return self._retriable is None or self._retriable(error)

    def _notify(self, error: Exception, wait: float) -> None:
        """Once an operation, as Dapr does: what follows is more of the same."""
        if self._view is not None:
            self._view.wait(trio.current_time(), wait)
        name = self._policy.name
        if not self._notified:
            self._notified = True
            _log.info("Error processing operation %s. Retrying in %s…", name, go_duration(wait))
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("Error for operation %s was: %s", name, message_of(error))


def _close(record: Attempt, code: Status, message: str) -> None:
    record.ended = trio.current_time()
    record.code = code
    record.message = message
