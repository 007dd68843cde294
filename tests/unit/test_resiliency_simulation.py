"""`run` against a simulation of it: any policy, any series of outcomes, any deadline, on the virtual clock.

The simulation is a loop over numbers that shares nothing with the code but the words of the rules.
"""

from __future__ import annotations

import math
import random

import trio
from attrs import field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from meshnode.errors import CircuitOpen, ComponentError
from meshnode.resiliency import AttemptTimeout, Policy, run
from meshnode.resiliency.backoff import BackoffSettings
from meshnode.resiliency.breaker import Breaker, BreakerSettings
from meshnode.resiliency.tables import RetryRule


@frozen
class Case:
    """`steps` are (seconds taken, whether it then fails), the last one for ever."""

    steps: list[tuple[float, bool]]
    retries: int
    interval: float
    timeout: float
    trip: int
    open_for: float
    deadline: float = field()


eighths = st.integers(0, 40).map(lambda n: n / 8)

cases = st.builds(
    Case,
    steps=st.lists(st.tuples(eighths, st.booleans()), min_size=1, max_size=8).map(
        lambda s: [*s, (0.0, False)]
    ),
    retries=st.integers(-1, 5),
    interval=eighths.map(lambda seconds: seconds + 0.25),
    timeout=eighths.map(lambda seconds: seconds + 1 / 16 if seconds else 0.0),
    trip=st.integers(1, 4),
    open_for=eighths.map(lambda seconds: seconds + 1 / 32),
    deadline=st.one_of(st.just(math.inf), st.integers(1, 200).map(lambda n: n / 4 + 1 / 64)),
)

History = tuple[list[float], str, float]


def simulate(case: Case) -> History:
    """When attempts start, how it ends and when, by the rules."""
    now, calls, row, open_until, left = 0.0, list[float](), 0, -1.0, case.retries
    half_open = False
    while True:
        refused = now < open_until
        if refused:
            outcome = "open"
        else:
            half_open = open_until >= 0
            seconds, fails = case.steps[min(len(calls), len(case.steps) - 1)]
            calls.append(now)
            late = bool(case.timeout) and seconds > case.timeout
            now += case.timeout if late else seconds
            outcome = "timeout" if late else "failed" if fails else "ok"
            if outcome == "ok":
                return calls, outcome, now
            row += 1
            if half_open or row >= case.trip:
                open_until, row = now + case.open_for, 0
        if left == 0 or (refused and case.retries >= 0):
            return calls, outcome, now
        left -= 1
        wait = max(case.interval, open_until - now) if refused else case.interval
        if now + wait >= case.deadline:
            return calls, outcome, now
        now += wait


async def play(case: Case) -> History:
    calls: list[float] = []
    start = trio.current_time()

    async def operation() -> str:
        seconds, fails = case.steps[min(len(calls), len(case.steps) - 1)]
        calls.append(trio.current_time() - start)
        await trio.sleep(seconds)
        if fails:
            raise ComponentError("down")
        return "ok"

    breaker = Breaker(
        "b",
        BreakerSettings(
            "t", 1, 0.0, case.open_for, lambda counts: counts["consecutiveFailures"] >= case.trip
        ),
    )
    rule = RetryRule("r", BackoffSettings(duration=case.interval, max_retries=case.retries))
    policy = Policy("op", "target", case.timeout, rule, breaker, None, random.Random(0))
    try:
        outcome = await run(policy, operation, deadline=start + case.deadline)
    except AttemptTimeout:
        outcome = "timeout"
    except CircuitOpen:
        outcome = "open"
    except ComponentError:
        outcome = "failed"
    return calls, outcome, trio.current_time() - start


@settings(max_examples=300, deadline=None)
@given(cases)
def test_every_run_goes_as_the_rules_say(case: Case) -> None:
    clock = MockClock(autojump_threshold=0)
    calls, outcome, end = trio.run(play, case, clock=clock)
    expected_calls, expected_outcome, expected_end = simulate(case)
    assert outcome == expected_outcome
    assert [round(time, 6) for time in calls] == [round(time, 6) for time in expected_calls]
    assert round(end, 6) == round(expected_end, 6)
