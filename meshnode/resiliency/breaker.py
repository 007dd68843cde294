"""The circuit breaker: a state machine that decides and never waits. Pure: `now` is passed in.

Semantics are those of sony/gobreaker as Dapr uses it.

closed     every request is admitted and counted; a failure after which `trip` holds opens the breaker. With
           an `interval` the counts start over each time it has passed.
open       nothing is admitted for `timeout` seconds; the first look after that finds it half-open.
half-open  at most `max_requests` requests are admitted; that many successes in a row close it, one failure
           opens it again.

Each change of state, and each interval, begins a new generation with counts of zero; the outcome of a
request admitted in an earlier generation is ignored. Two things differ from gobreaker: an admission can be
given back uncounted (`release`), because a cancelled attempt says nothing about the target; and the
half-open moment is part of the half-open state, so that whoever sleeps until exactly then gets in.

May import `meshnode.errors` and `meshnode.config` only.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from typing import final

from attrs import define, field, frozen

from meshnode.errors import CircuitOpen

__all__ = [
    "Breaker",
    "BreakerSettings",
    "BreakerSnapshot",
    "Counts",
    "State",
    "StateChange",
    "Trip",
    "default_trip",
]


class State(enum.Enum):
    """The values are the words that logs and the admin API use."""

    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


Trip = Callable[[Mapping[str, int]], bool]
StateChange = Callable[[str, State, State], None]


def default_trip(counts: Mapping[str, int]) -> bool:
    """Dapr's condition where a policy gives none: more than five failures in a row."""
    return counts["consecutiveFailures"] > 5


@frozen
class BreakerSettings:
    """A `circuitBreakers` entry, ready for use; `template` is its name there.

    `max_requests` is at least 1 and `timeout` above 0; an `interval` of 0 keeps the counts until the state
    changes.
    """

    template: str
    max_requests: int = 1
    interval: float = 0.0
    timeout: float = 60.0
    trip: Trip = field(default=default_trip, eq=False)  # its text says whether it is the same
    trip_text: str = "consecutiveFailures > 5"


@final
@define
class Counts:
    """What a generation has seen so far."""

    requests: int = 0
    total_successes: int = 0
    total_failures: int = 0
    consecutive_successes: int = 0
    consecutive_failures: int = 0

    def as_variables(self) -> dict[str, int]:
        """Under the names that a trip expression uses."""
        return {
            "requests": self.requests,
            "totalSuccesses": self.total_successes,
            "totalFailures": self.total_failures,
            "consecutiveSuccesses": self.consecutive_successes,
            "consecutiveFailures": self.consecutive_failures,
        }


@frozen
class BreakerSnapshot:
    """A breaker as the admin API shows it; `opens_in` is the time left until it lets a probe through."""

    name: str
    target: str
    state: State
    counts: Mapping[str, int]
    opens_in: float


def _ignore(name: str, before: State, after: State) -> None: ...


@final
class Breaker:
    """One breaker. Admit, then settle what was admitted exactly once: `success`, `failure` or `release`."""

    __slots__ = ("_changed", "_counts", "_expiry", "_generation", "_settings", "_state", "name", "target")

    def __init__(
        self,
        name: str,
        settings: BreakerSettings,
        *,
        target: str = "",
        on_change: StateChange = _ignore,
    ) -> None:
        self.name = name
        self.target = target
        self._settings = settings
        self._changed = on_change
        self._state = State.CLOSED
        self._generation = 0
        self._counts = Counts()
        self._expiry = -math.inf  # the first request begins the first interval

    @property
    def settings(self) -> BreakerSettings:
        return self._settings

    def admit(self, now: float) -> int:
        """The generation that the request belongs to; raises `CircuitOpen` where it may not go."""
        self._advance(now)
        if self._state is not State.CLOSED:
            if self._state is State.OPEN:
                raise CircuitOpen("circuit breaker is open")
            if self._counts.requests >= self._settings.max_requests:
                raise CircuitOpen("too many requests")
        self._counts.requests += 1
        return self._generation

    def success(self, generation: int, now: float) -> None:
        if not self._is_current(generation, now):
            return
        counts = self._counts
        counts.total_successes += 1
        counts.consecutive_successes += 1
        counts.consecutive_failures = 0
        if self._state is State.HALF_OPEN and counts.consecutive_successes >= self._settings.max_requests:
            self._enter(State.CLOSED, now)

    def failure(self, generation: int, now: float) -> None:
        if not self._is_current(generation, now):
            return
        counts = self._counts
        counts.total_failures += 1
        counts.consecutive_failures += 1
        counts.consecutive_successes = 0
        if self._state is State.HALF_OPEN or self._settings.trip(counts.as_variables()):
            self._enter(State.OPEN, now)

    def release(self, generation: int, now: float) -> None:
        """Take an admission back as if it had never been: a half-open breaker may admit another instead."""
        if self._is_current(generation, now):
            self._counts.requests -= 1

    def state(self, now: float) -> State:
        """The state as of `now`, without entering it."""
        if self._state is State.OPEN and now >= self._expiry:
            return State.HALF_OPEN
        return self._state

    def opens_in(self, now: float) -> float:
        """Seconds until an open breaker lets a probe through; 0 in the other states."""
        return max(self._expiry - now, 0.0) if self._state is State.OPEN else 0.0

    def snapshot(self, now: float) -> BreakerSnapshot:
        state = self.state(now)
        counts = self._counts if state is self._state and not self._lapsed(now) else Counts()
        return BreakerSnapshot(self.name, self.target, state, counts.as_variables(), self.opens_in(now))

    def _is_current(self, generation: int, now: float) -> bool:
        self._advance(now)
        return generation == self._generation

    def _lapsed(self, now: float) -> bool:
        return self._state is State.CLOSED and now >= self._expiry

    def _advance(self, now: float) -> None:
        if now < self._expiry:
            return
        if self._state is State.OPEN:
            self._enter(State.HALF_OPEN, now)
        else:
            self._begin(now)

    def _enter(self, state: State, now: float) -> None:
        before, self._state = self._state, state
        self._begin(now)
        self._changed(self.name, before, state)

    def _begin(self, now: float) -> None:
        """A new generation in the current state."""
        self._generation += 1
        self._counts = Counts()
        if self._state is State.OPEN:
            self._expiry = now + self._settings.timeout
        elif self._state is State.CLOSED and self._settings.interval > 0:
            self._expiry = now + self._settings.interval
        else:
            self._expiry = math.inf
