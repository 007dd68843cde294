"""Operations under a policy, on the virtual clock."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from trio.testing import MockClock

from meshnode.config.resiliency import Backoff as Kind
from meshnode.errors import (
    CircuitOpen,
    ComponentError,
    ConfigError,
    EtagInvalid,
    EtagMismatch,
    InvalidArgument,
    MeshError,
    NotImplementedHere,
    Problem,
)
from meshnode.resiliency import (
    NO_POLICY,
    AttemptTimeout,
    Policy,
    RequestView,
    State,
    code_of,
    run,
    run_stream,
)
from meshnode.resiliency.backoff import BackoffSettings
from meshnode.resiliency.breaker import Breaker, BreakerSettings
from meshnode.resiliency.budget import RESERVE, RetryBudget
from meshnode.resiliency.outcome import message_of
from meshnode.resiliency.tables import RetryRule
from meshnode.resiliency.view import KEPT


class Down(ComponentError):
    pass


class Script:
    """An operation that plays its steps: an error to raise, seconds to take, a result; the last repeats."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.calls: list[float] = []
        self.running = 0

    async def __call__(self) -> object:
        assert self.running == 0, "two attempts at once"
        self.running += 1
        self.calls.append(trio.current_time())
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        try:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                await trio.sleep(step)
            return step
        finally:
            self.running -= 1


def retrying(
    retries: int, every: float = 1.0, *, codes: frozenset[int] | None = None, kind: Kind = Kind.CONSTANT
) -> RetryRule:
    return RetryRule("r", BackoffSettings(kind=kind, duration=every, max_retries=retries), codes)


def tripping(failures: int, *, timeout: float = 5.0, max_requests: int = 1) -> Breaker:
    trip = lambda counts: counts["consecutiveFailures"] >= failures  # noqa: E731
    return Breaker("simpleCB-store", BreakerSettings("simpleCB", max_requests, 0.0, timeout, trip))


def policy(
    *,
    timeout: float = 0.0,
    retry: RetryRule | None = None,
    breaker: Breaker | None = None,
    budget: RetryBudget | None = None,
) -> Policy:
    return Policy(
        "component[store] output", "component/store", timeout, retry, breaker, budget, random.Random(1)
    )


async def failed(awaitable: Awaitable[object]) -> Exception:
    """The error that `awaitable` ends with."""
    try:
        result = await awaitable
    except Exception as error:
        return error
    raise AssertionError(f"no error but {result!r}")


def since(start: float, times: list[float]) -> list[float]:
    return [round(time - start, 6) for time in times]


# --- no policy ---


async def test_without_a_policy_the_operation_is_called_as_it_is() -> None:
    error = Down("once")
    operation = Script(error)
    assert await failed(run(NO_POLICY, operation)) is error
    assert len(operation.calls) == 1


async def test_without_a_policy_a_commit_does_nothing() -> None:
    async def operation(commit: Callable[[], None]) -> str:
        commit()
        return "done"

    assert await run_stream(NO_POLICY, operation) == "done"


# --- retries ---


async def test_three_retries_are_four_attempts(autojump_clock: MockClock) -> None:
    operation = Script(Down("a"), Down("b"), Down("c"), Down("d"))
    start = trio.current_time()
    error = await failed(run(policy(retry=retrying(3)), operation))
    assert str(error) == "d"
    assert since(start, operation.calls) == [0.0, 1.0, 2.0, 3.0]


async def test_it_recovers(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "meshnode.resiliency")
    operation = Script(*[Down("x")] * 5, "order 1")
    assert await run(policy(retry=retrying(-1, 5.0)), operation) == "order 1"
    assert caplog.messages == [
        "Error processing operation component[store] output. Retrying in 5s…",
        "Recovered processing operation component[store] output after 6 attempts",
    ]


async def test_zero_retries_are_one_attempt(autojump_clock: MockClock) -> None:
    operation = Script(Down("a"))
    await failed(run(policy(retry=retrying(0)), operation))
    assert len(operation.calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        EtagMismatch("stale"),
        EtagInvalid("no number"),
        InvalidArgument("no"),
        NotImplementedHere("no query"),
        ConfigError([Problem("wrong")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_that_must_come_again_are_not_retried(
    error: Exception, autojump_clock: MockClock
) -> None:
    operation = Script(error)
    assert await failed(run(policy(retry=retrying(-1)), operation)) is error
    assert len(operation.calls) == 1


async def test_matching_retries_its_codes_only(autojump_clock: MockClock) -> None:
    operation = Script(GRPCError(Status.UNAVAILABLE), GRPCError(Status.NOT_FOUND))
    error = await failed(run(policy(retry=retrying(-1, codes=frozenset({14}))), operation))
    assert code_of(error) is Status.NOT_FOUND
    assert len(operation.calls) == 2


async def test_matching_does_not_speak_of_component_failures(autojump_clock: MockClock) -> None:
    operation = Script(Down("a"), "fine")
    assert await run(policy(retry=retrying(1, codes=frozenset({14}))), operation) == "fine"


async def test_a_timed_out_attempt_is_matched_by_its_code(autojump_clock: MockClock) -> None:
    operation = Script(2.0)
    error = await failed(run(policy(timeout=1.0, retry=retrying(5, codes=frozenset({14}))), operation))
    assert isinstance(error, AttemptTimeout)
    assert len(operation.calls) == 1


async def test_the_caller_may_veto_a_retry(autojump_clock: MockClock) -> None:
    operation = Script(Down("safe"), Down("sent"))
    error = await failed(run(policy(retry=retrying(-1)), operation, retriable=lambda e: str(e) == "safe"))
    assert str(error) == "sent"


async def test_exponential_waits_come_from_the_policys_own_dice(autojump_clock: MockClock) -> None:
    async def times() -> list[float]:
        operation = Script(Down("x"))
        start = trio.current_time()
        await failed(run(policy(retry=retrying(5, kind=Kind.EXPONENTIAL)), operation))
        return [round(time - start, 6) for time in operation.calls]

    first = await times()
    assert await times() == first
    assert len(set(first)) == 6


# --- the attempt's timeout ---


async def test_a_timed_out_attempt_has_ended_before_the_next_starts(autojump_clock: MockClock) -> None:
    ended: list[float] = []
    calls: list[float] = []

    async def operation() -> str:
        assert len(ended) == len(calls)
        calls.append(trio.current_time())
        try:
            await trio.sleep(1.0 if len(calls) == 3 else math.inf)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            ended.append(trio.current_time())
        return "done"

    start = trio.current_time()
    assert await run(policy(timeout=2.0, retry=retrying(5, 1.0)), operation) == "done"
    assert since(start, calls) == [0.0, 3.5, 7.0]
    assert since(start, ended) == [2.5, 6.0, 8.5]


async def test_a_timeout_reads_as_daprs(autojump_clock: MockClock) -> None:
    error = await failed(run(policy(timeout=1.0), Script(5.0)))
    assert (code_of(error), str(error)) == (Status.DEADLINE_EXCEEDED, "context deadline exceeded")


async def test_a_callers_cancellation_is_not_a_timeout(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1.0) as scope:
        await run(policy(timeout=1.0, retry=retrying(-1)), Script(5.0))
    assert scope.cancelled_caught


async def test_a_result_that_made_it_stands(autojump_clock: MockClock) -> None:
    async def operation() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(3.0)
        return "late but whole"

    assert await run(policy(timeout=1.0), operation) == "late but whole"


# --- the deadline ---


async def test_a_wait_that_outlasts_the_deadline_is_not_begun(autojump_clock: MockClock) -> None:
    operation = Script(Down("a"), Down("b"), Down("c"), Down("d"))
    start = trio.current_time()
    error = await failed(run(policy(retry=retrying(-1, 1.0)), operation, deadline=start + 2.5))
    assert str(error) == "c"
    assert trio.current_time() - start == pytest.approx(2.0)


async def test_a_wait_that_ends_with_the_deadline_is_not_begun(autojump_clock: MockClock) -> None:
    operation = Script(Down("a"))
    start = trio.current_time()
    await failed(run(policy(retry=retrying(-1, 1.0)), operation, deadline=start + 1.0))
    assert len(operation.calls) == 1
    assert trio.current_time() == start


async def test_waiting_for_a_breaker_counts_against_the_deadline_too(autojump_clock: MockClock) -> None:
    operation = Script(Down("a"))
    start = trio.current_time()
    under = policy(retry=retrying(-1, 1.0), breaker=tripping(2, timeout=60.0))
    error = await failed(run(under, operation, deadline=start + 30.0))
    assert isinstance(error, CircuitOpen)
    assert trio.current_time() - start == pytest.approx(2.0)


# --- the breaker ---


async def test_an_open_breaker_ends_a_limited_policy_at_once(autojump_clock: MockClock) -> None:
    operation = Script(Down("a"))
    start = trio.current_time()
    error = await failed(run(policy(retry=retrying(10, 1.0), breaker=tripping(2)), operation))
    assert (code_of(error), str(error)) == (Status.UNKNOWN, "circuit breaker is open")
    assert since(start, operation.calls) == [0.0, 1.0]
    assert trio.current_time() - start == pytest.approx(2.0)


async def test_a_policy_without_limit_waits_for_the_half_open_moment(autojump_clock: MockClock) -> None:
    operation = Script(Down("a"), Down("b"), Down("c"), "order")
    start = trio.current_time()
    under = policy(retry=retrying(-1, 1.0), breaker=tripping(2, timeout=30.0))
    assert await run(under, operation) == "order"
    # open from 1 to 31; the probe at 31 fails and opens it until 61
    assert since(start, operation.calls) == [0.0, 1.0, 31.0, 61.0]


async def test_a_policy_without_limit_keeps_its_own_interval_where_that_is_longer(
    autojump_clock: MockClock,
) -> None:
    operation = Script(Down("a"), Down("b"), "order")
    start = trio.current_time()
    under = policy(retry=retrying(-1, 7.0), breaker=tripping(2, timeout=10.0))
    assert await run(under, operation) == "order"
    # open from 7 to 17: refused at 14, and 14 + 7 is later than 17
    assert since(start, operation.calls) == [0.0, 7.0, 21.0]


async def test_waiters_without_an_interval_do_not_spin_while_another_probes(
    autojump_clock: MockClock,
) -> None:
    breaker = tripping(1, timeout=5.0)
    under = policy(retry=retrying(-1, 0.0), breaker=breaker)
    await failed(run(policy(breaker=breaker), Script(Down("opens it"))))
    start = trio.current_time()
    view = RequestView()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, under, Script(2.0))
        await trio.testing.wait_all_tasks_blocked()
        await run(under, Script("after the probe"), view=view)
    assert trio.current_time() - start == pytest.approx(7.0, abs=0.1)
    assert view.total < 50


async def test_every_failure_counts_and_every_success(autojump_clock: MockClock) -> None:
    breaker = tripping(100)
    under = policy(timeout=1.0, retry=retrying(5), breaker=breaker)
    await run(under, Script(Down("a"), GRPCError(Status.NOT_FOUND), 5.0, ValueError("odd"), "fine"))
    counts = breaker.snapshot(trio.current_time()).counts
    assert (counts["requests"], counts["totalFailures"], counts["totalSuccesses"]) == (5, 4, 1)


async def test_a_stale_etag_is_the_answer_of_a_healthy_store() -> None:
    breaker = tripping(1)
    await failed(run(policy(breaker=breaker), Script(EtagMismatch("stale"))))
    assert breaker.snapshot(trio.current_time()).counts["totalSuccesses"] == 1


@pytest.mark.parametrize(
    "error",
    [EtagInvalid("x"), InvalidArgument("x"), CircuitOpen("elsewhere")],
    ids=lambda error: type(error).__name__,
)
async def test_what_never_reached_the_target_says_nothing_about_it(error: Exception) -> None:
    breaker = tripping(1)
    await failed(run(policy(breaker=breaker), Script(error)))
    counts = breaker.snapshot(trio.current_time()).counts
    assert set(counts.values()) == {0}


async def test_a_cancelled_attempt_is_not_counted(autojump_clock: MockClock) -> None:
    breaker = tripping(1)
    with trio.move_on_after(1.0):
        await run(policy(timeout=10.0, retry=retrying(3), breaker=breaker), Script(5.0))
    snapshot = breaker.snapshot(trio.current_time())
    assert snapshot.state is State.CLOSED
    assert set(snapshot.counts.values()) == {0}


async def test_a_cancelled_probe_is_given_back(autojump_clock: MockClock) -> None:
    breaker = tripping(1, timeout=5.0)
    under = policy(breaker=breaker)
    await failed(run(under, Script(Down("opens it"))))
    await trio.sleep(5.0)
    with trio.move_on_after(1.0):
        await run(under, Script(10.0))
    assert breaker.state(trio.current_time()) is State.HALF_OPEN
    assert await run(under, Script("the next probe")) == "the next probe"
    assert breaker.state(trio.current_time()) is State.CLOSED


async def test_a_probe_that_fails_and_is_cancelled_at_once_is_given_back(autojump_clock: MockClock) -> None:
    breaker = tripping(1, timeout=5.0)
    under = policy(breaker=breaker)
    await failed(run(under, Script(Down("opens it"))))
    await trio.sleep(5.0)

    async def fails_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            raise BaseExceptionGroup("both", [cancelled, Down("while going down")]) from None

    with pytest.raises(ExceptionGroup), trio.move_on_after(1.0):
        await run(under, fails_when_cancelled)
    assert await run(under, Script("the next probe")) == "the next probe"


# --- groups ---


async def test_a_lone_error_comes_out_of_its_group_and_is_judged(autojump_clock: MockClock) -> None:
    async def operation() -> None:
        async with trio.open_nursery(), trio.open_nursery():
            raise EtagMismatch("stale")

    error = await failed(run(policy(retry=retrying(3)), operation))
    assert type(error) is EtagMismatch


async def test_a_group_of_several_stays_a_group(autojump_clock: MockClock) -> None:
    group = ExceptionGroup("two", [Down("a"), Down("b")])
    operation = Script(group)
    assert await failed(run(policy(retry=retrying(1)), operation)) is group
    assert len(operation.calls) == 2


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MeshError("m", status=Status.ABORTED), Status.ABORTED, "m"),
        (GRPCError(Status.NOT_FOUND, "gone"), Status.NOT_FOUND, "gone"),
        (GRPCError(Status.NOT_FOUND), Status.NOT_FOUND, "NOT_FOUND"),
        (TimeoutError(), Status.DEADLINE_EXCEEDED, "TimeoutError"),
        (trio.TooSlowError(), Status.DEADLINE_EXCEEDED, "TooSlowError"),
        (ValueError("v"), Status.INTERNAL, "v"),
        (ExceptionGroup("g", [GRPCError(Status.ABORTED, "x")]), Status.ABORTED, "x"),
    ],
)
def test_codes_and_messages(error: Exception, code: Status, message: str) -> None:
    assert code_of(error) is code
    assert message_of(error) == message


# --- the retry budget ---


async def test_a_limited_policy_ends_where_the_budget_is_spent(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshnode.resiliency")
    operation = Script(Down("x"))
    error = await failed(run(policy(retry=retrying(1000, 0.001), budget=RetryBudget(0.0)), operation))
    assert str(error) == "x"
    assert len(operation.calls) == 1 + RESERVE
    assert caplog.messages[-1].startswith("Retry budget of component/store is spent")


async def test_a_policy_without_limit_waits_for_the_budget(autojump_clock: MockClock) -> None:
    operation = Script(*[Down("x")] * (RESERVE + 5), "order")
    start = trio.current_time()
    view = RequestView()
    under = policy(retry=retrying(-1, 0.5), budget=RetryBudget(0.0))
    assert await run(under, operation, view=view) == "order"
    in_first_window = [time for time in operation.calls if time < start + 9.0]
    assert len(in_first_window) == 1 + RESERVE
    assert view.total > len(operation.calls)  # the tries that the budget held back


async def test_refusals_cost_no_budget(autojump_clock: MockClock) -> None:
    budget = RetryBudget(0.0)
    breaker = tripping(1, timeout=5.0)
    await failed(run(policy(breaker=breaker), Script(Down("opens it"))))
    await run(policy(retry=retrying(-1, 0.1), breaker=breaker, budget=budget), Script("fine"))
    assert budget.available(trio.current_time()) == RESERVE


# --- streams ---


async def test_a_stream_is_retried_until_its_first_message(autojump_clock: MockClock) -> None:
    calls = 0

    async def operation(commit: Callable[[], None]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            commit()
        raise GRPCError(Status.UNAVAILABLE, f"attempt {calls}")

    error = await failed(run_stream(policy(retry=retrying(10)), operation))
    assert message_of(error) == "attempt 3"
    assert calls == 3


async def test_a_committed_stream_outlives_the_attempts_timeout(autojump_clock: MockClock) -> None:
    breaker = tripping(1)

    async def operation(commit: Callable[[], None]) -> str:
        await trio.sleep(0.5)
        commit()
        commit()
        await trio.sleep(3600.0)
        return "all of it"

    under = policy(timeout=1.0, retry=retrying(3), breaker=breaker)
    assert await run_stream(under, operation) == "all of it"
    assert breaker.snapshot(trio.current_time()).counts["totalSuccesses"] == 1


async def test_a_committed_stream_gives_its_probe_free_at_once(autojump_clock: MockClock) -> None:
    breaker = tripping(1, timeout=5.0)
    under = policy(breaker=breaker)
    await failed(run(under, Script(Down("opens it"))))
    await trio.sleep(5.0)

    async def operation(commit: Callable[[], None]) -> None:
        commit()
        assert breaker.state(trio.current_time()) is State.CLOSED
        raise GRPCError(Status.UNAVAILABLE, "later")

    await failed(run_stream(under, operation))
    assert breaker.state(trio.current_time()) is State.CLOSED


async def test_a_first_message_after_the_timeout_is_not_passed_on(autojump_clock: MockClock) -> None:
    passed_on: list[str] = []

    async def operation(commit: Callable[[], None]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(2.0 if not passed_on else 0.0)
        commit()
        passed_on.append("message")

    error = await failed(run_stream(policy(timeout=1.0), operation))
    assert isinstance(error, AttemptTimeout)
    assert passed_on == []


async def test_an_uncommitted_stream_times_out_and_is_retried(autojump_clock: MockClock) -> None:
    calls = 0

    async def operation(commit: Callable[[], None]) -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            await trio.sleep_forever()
        commit()
        return "third"

    assert await run_stream(policy(timeout=1.0, retry=retrying(5)), operation) == "third"


# --- the view ---


async def test_the_view_tells_attempts_waits_and_refusals(autojump_clock: MockClock) -> None:
    view = RequestView()
    start = trio.current_time()
    under = policy(timeout=1.0, retry=retrying(-1, 2.0), breaker=tripping(2, timeout=5.0))
    await run(under, Script(Down("down"), 3.0, "fine"), view=view)
    told: list[tuple[object, ...]] = [
        (a.number, a.code, a.refused, a.waited, a.started - start) for a in view.attempts
    ]
    assert told == [
        (1, Status.INTERNAL, False, 0.0, pytest.approx(0.0)),
        (2, Status.DEADLINE_EXCEEDED, False, 2.0, pytest.approx(2.0)),
        (3, Status.UNKNOWN, True, 2.0, pytest.approx(5.0)),
        (4, Status.OK, False, pytest.approx(3.0), pytest.approx(8.0)),
    ]
    assert view.attempts[0].message == "down"
    assert view.attempts[1].ended == pytest.approx(start + 3.0)


async def test_the_view_can_be_read_while_it_waits(autojump_clock: MockClock) -> None:
    view = RequestView()
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: run(policy(retry=retrying(-1, 10.0)), Script(Down("x"), 5.0), view=view))
        await trio.sleep(1.0)
        assert view.waiting_until == pytest.approx(start + 10.0)
        await trio.sleep(10.0)
        assert view.waiting_until is None
        assert view.attempts[-1].ended is None
        nursery.cancel_scope.cancel()
    assert view.attempts[-1].code is Status.CANCELLED


async def test_a_long_series_keeps_its_latest_attempts(autojump_clock: MockClock) -> None:
    view = RequestView()
    await failed(run(policy(retry=retrying(99)), Script(Down("x")), view=view))
    assert len(view.attempts) == KEPT
    assert (view.total, view.forgotten, view.attempts[-1].number) == (100, 100 - KEPT, 100)
