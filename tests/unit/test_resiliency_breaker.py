"""The breaker against an independent model, and its rules one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshnode.errors import CircuitOpen
from meshnode.resiliency.breaker import Breaker, BreakerSettings, State, default_trip


def three_in_a_row(counts: Mapping[str, int]) -> bool:
    return counts["consecutiveFailures"] >= 3


def make(**settings: object) -> tuple[Breaker, list[tuple[str, str]]]:
    changes: list[tuple[str, str]] = []
    values = {"max_requests": 1, "timeout": 10.0, "trip": three_in_a_row, **settings}
    breaker = Breaker(
        "b",
        BreakerSettings("template", **values),  # type: ignore[arg-type]
        on_change=lambda name, before, after: changes.append((before.value, after.value)),
    )
    return breaker, changes


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.failure(breaker.admit(now), now)


def test_trips_on_its_condition_and_says_so() -> None:
    breaker, changes = make()
    fail(breaker, 2)
    assert breaker.state(0.0) is State.CLOSED
    fail(breaker, 1)
    assert changes == [("closed", "open")]
    with pytest.raises(CircuitOpen, match=r"^circuit breaker is open$"):
        breaker.admit(9.999)


def test_default_condition_is_more_than_five_in_a_row() -> None:
    breaker, _ = make(trip=default_trip)
    fail(breaker, 5)
    assert breaker.state(0.0) is State.CLOSED
    fail(breaker, 1)
    assert breaker.state(0.0) is State.OPEN


def test_a_success_ends_a_row_of_failures() -> None:
    breaker, _ = make()
    fail(breaker, 2)
    breaker.success(breaker.admit(0.0), 0.0)
    fail(breaker, 2)
    assert breaker.state(0.0) is State.CLOSED


def test_whoever_comes_at_the_half_open_moment_gets_in() -> None:
    breaker, changes = make()
    fail(breaker, 3)
    assert breaker.opens_in(4.0) == 6.0
    assert breaker.state(10.0) is State.HALF_OPEN
    assert changes == [("closed", "open")]  # looking changes nothing
    probe = breaker.admit(10.0)
    with pytest.raises(CircuitOpen, match=r"^too many requests$"):
        breaker.admit(10.0)
    breaker.success(probe, 11.0)
    assert changes[1:] == [("open", "half-open"), ("half-open", "closed")]


def test_a_failed_probe_opens_for_another_timeout() -> None:
    breaker, changes = make()
    fail(breaker, 3)
    breaker.failure(breaker.admit(12.0), 13.0)
    assert changes[1:] == [("open", "half-open"), ("half-open", "open")]
    assert breaker.opens_in(13.0) == 10.0


def test_closing_takes_as_many_successes_as_probes_are_admitted() -> None:
    breaker, _ = make(max_requests=3)
    fail(breaker, 3)
    probes = [breaker.admit(10.0) for _ in range(3)]
    for probe in probes[:2]:
        breaker.success(probe, 10.0)
    assert breaker.state(10.0) is State.HALF_OPEN
    with pytest.raises(CircuitOpen):
        breaker.admit(10.0)
    breaker.success(probes[2], 10.0)
    assert breaker.state(10.0) is State.CLOSED


def test_a_probe_given_back_makes_room_for_another() -> None:
    breaker, _ = make()
    fail(breaker, 3)
    for _ in range(5):
        breaker.release(breaker.admit(10.0), 10.0)
    breaker.success(breaker.admit(10.0), 10.0)
    assert breaker.state(10.0) is State.CLOSED


def test_outcomes_of_an_earlier_generation_do_not_count() -> None:
    breaker, changes = make()
    late = [breaker.admit(0.0) for _ in range(4)]
    fail(breaker, 3)
    probe = breaker.admit(10.0)
    for generation in late:
        breaker.failure(generation, 10.0)
        breaker.success(generation, 10.0)
        breaker.release(generation, 10.0)
    assert breaker.state(10.0) is State.HALF_OPEN
    breaker.success(probe, 10.0)
    assert changes[-1] == ("half-open", "closed")


def test_the_interval_clears_the_counts_from_the_first_request_on() -> None:
    breaker, _ = make(interval=5.0)
    fail(breaker, 2, now=100.0)
    assert breaker.snapshot(104.9).counts["totalFailures"] == 2
    assert breaker.snapshot(105.0).counts["totalFailures"] == 0
    fail(breaker, 2, now=105.0)
    assert breaker.state(105.0) is State.CLOSED
    fail(breaker, 1, now=105.0)
    assert breaker.state(105.0) is State.OPEN


def test_a_condition_sees_all_five_counts() -> None:
    seen: list[Mapping[str, int]] = []

    def trip(counts: Mapping[str, int]) -> bool:
        seen.append(dict(counts))
        return False

    breaker, _ = make(trip=trip)
    breaker.success(breaker.admit(0.0), 0.0)
    pending = breaker.admit(0.0)
    fail(breaker, 2)
    breaker.release(pending, 0.0)
    assert seen[-1] == {
        "requests": 4,
        "totalSuccesses": 1,
        "totalFailures": 2,
        "consecutiveSuccesses": 0,
        "consecutiveFailures": 2,
    }
    assert breaker.snapshot(0.0).counts["requests"] == 3


class Model(RuleBasedStateMachine):
    """The breaker side by side with a model that keeps a list of outcomes instead of counters."""

    @initialize(
        max_requests=st.integers(1, 3),
        interval=st.sampled_from([0.0, 4.0]),
        timeout=st.sampled_from([1.0, 5.0]),
        limit=st.integers(1, 4),
    )
    def start(self, max_requests: int, interval: float, timeout: float, limit: int) -> None:
        self.now = 0.0
        self.max_requests, self.interval, self.timeout, self.limit = max_requests, interval, timeout, limit
        self.breaker = Breaker(
            "b",
            BreakerSettings("t", max_requests, interval, timeout, lambda c: c["totalFailures"] >= limit),
            on_change=lambda name, before, after: self.changes.append((before, after)),
        )
        self.changes: list[tuple[State, State]] = []
        self.expected: list[tuple[State, State]] = []
        self.mode = State.CLOSED
        self.since: float | None = None
        self.epoch = 0
        self.admitted = 0
        self.outcomes: list[bool] = []
        self.pending: list[tuple[int, int]] = []  # (our epoch, the breaker's generation)

    def turn(self, mode: State) -> None:
        self.expected.append((self.mode, mode))
        self.mode = mode
        self.renew()

    def renew(self) -> None:
        self.epoch += 1
        self.since, self.admitted, self.outcomes = self.now, 0, []

    def look(self) -> None:
        if self.since is None:
            self.renew()
        assert self.since is not None
        if self.mode is State.OPEN and self.now - self.since >= self.timeout:
            self.turn(State.HALF_OPEN)
        elif self.mode is State.CLOSED and self.interval and self.now - self.since >= self.interval:
            self.renew()

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def request(self) -> None:
        self.look()
        full = self.mode is State.HALF_OPEN and self.admitted >= self.max_requests
        if self.mode is State.OPEN or full:
            with pytest.raises(CircuitOpen):
                self.breaker.admit(self.now)
        else:
            self.pending.append((self.epoch, self.breaker.admit(self.now)))
            self.admitted += 1

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), good=st.sampled_from([True, False, None]))
    def settle(self, data: st.DataObject, good: bool | None) -> None:
        epoch, generation = self.pending.pop(data.draw(st.integers(0, len(self.pending) - 1)))
        self.look()
        method = {True: self.breaker.success, False: self.breaker.failure, None: self.breaker.release}[good]
        method(generation, self.now)
        if epoch != self.epoch:
            return
        if good is None:
            self.admitted -= 1
            return
        self.outcomes.append(good)
        if self.mode is State.HALF_OPEN:
            if not good:
                self.turn(State.OPEN)
            elif len(self.outcomes) == self.max_requests:
                self.turn(State.CLOSED)
        elif not good and self.outcomes.count(False) >= self.limit:
            self.turn(State.OPEN)

    @invariant()
    def agree(self) -> None:
        assert self.changes == self.expected
        left = 0.0
        mode = self.mode
        if mode is State.OPEN:
            assert self.since is not None
            left = max(self.timeout - (self.now - self.since), 0.0)
            mode = State.OPEN if left else State.HALF_OPEN
        snapshot = self.breaker.snapshot(self.now)
        assert snapshot.state is mode is self.breaker.state(self.now)
        assert math.isclose(snapshot.opens_in, left)
        stale = mode is not self.mode or (
            mode is State.CLOSED
            and self.since is not None
            and bool(self.interval)
            and self.now - self.since >= self.interval
        )
        assert snapshot.counts["requests"] == (0 if stale else self.admitted)
        assert snapshot.counts["totalFailures"] == (0 if stale else self.outcomes.count(False))


TestModel = Model.TestCase
TestModel.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
